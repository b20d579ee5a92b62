use time::macros::datetime;

use super::*;

const NOON: OffsetDateTime = datetime!(2026-03-01 12:00 UTC);

const STATES: [State; 8] = [
    State::Pending,
    State::Booked,
    State::Dispatched,
    State::InTransit,
    State::Delivered,
    State::Lost,
    State::Returned,
    State::Cancelled,
];

fn started(n: u128) -> Started {
    Started { id: Uuid::from_u128(n), at: NOON }
}

fn booking() -> Booking {
    Booking { carrier: "carrier".to_owned(), tracking: "P1".to_owned() }
}

fn pending() -> Shipment {
    let plan = Plan { order: "orders/1".to_owned(), ..Plan::default() };
    let (mut shipment, created) = Shipment::create(Uuid::nil(), plan, started(1));
    assert_eq!(created, Change { events: vec![Event::Created], send: None });
    shipment.attempts[0].state = AttemptState::Sent;
    shipment
}

fn shipment(state: State) -> Shipment {
    let mut shipment = pending();
    match state {
        State::Pending => {}
        State::Cancelled => {
            report(&mut shipment, 1, Outcome::Declined { code: "no".to_owned() });
        }
        State::Booked => {
            report(&mut shipment, 1, Outcome::Done(booking()));
        }
        State::Dispatched | State::InTransit | State::Delivered | State::Lost | State::Returned => {
            let sign = SIGNS.into_iter().find(|sign| sign.state() == state).unwrap();
            shipment.track(sign, booking()).unwrap();
        }
    }
    assert_eq!(shipment.state, state);
    shipment
}

const SIGNS: [Sign; 5] =
    [Sign::PickedUp, Sign::InTransit, Sign::Delivered, Sign::Lost, Sign::Returned];

fn report(shipment: &mut Shipment, attempt: u128, outcome: Outcome) -> Change {
    let attempt = Uuid::from_u128(attempt);
    let spare = Uuid::from_u128(99);
    shipment.apply(Report { attempt, outcome, at: NOON, spare }, &Pace::default())
}

fn cancel(shipment: &mut Shipment) -> Result<Change, Refusal> {
    shipment.cancel(started(2), CancelReason::OrderCancelled, &Pace::default())
}

#[test]
fn a_shipment_is_cancelled_until_the_carrier_has_it() {
    let sent = Change { events: vec![], send: Some(Uuid::from_u128(2)) };
    for (state, expected, came_of_it) in [
        (State::Pending, Ok(Change::default()), Err(Refusal::InProgress)),
        (State::Booked, Ok(sent), Err(Refusal::InProgress)),
        (
            State::Dispatched,
            Err(Refusal::State(State::Dispatched)),
            Err(Refusal::State(State::Dispatched)),
        ),
        (
            State::InTransit,
            Err(Refusal::State(State::InTransit)),
            Err(Refusal::State(State::InTransit)),
        ),
        (
            State::Delivered,
            Err(Refusal::State(State::Delivered)),
            Err(Refusal::State(State::Delivered)),
        ),
        (State::Lost, Err(Refusal::State(State::Lost)), Err(Refusal::State(State::Lost))),
        (
            State::Returned,
            Err(Refusal::State(State::Returned)),
            Err(Refusal::State(State::Returned)),
        ),
        (State::Cancelled, Err(Refusal::State(State::Cancelled)), Ok(())),
    ] {
        let mut shipment = shipment(state);
        assert_eq!(cancel(&mut shipment), expected, "{state}");
        assert_eq!(shipment.is_cancelled(), came_of_it, "{state}");
    }
}

#[test]
fn what_the_carrier_was_never_asked_is_cancelled_at_once() {
    let mut shipment = pending();
    shipment.attempts[0].state = AttemptState::Created;
    assert_eq!(cancel(&mut shipment).unwrap().events, [Event::Cancelled]);
    assert_eq!(shipment.attempts[0].state, AttemptState::Failed);
    assert_eq!(shipment.is_cancelled(), Ok(()));
    // The answer to nothing changes nothing.
    assert_eq!(report(&mut shipment, 1, Outcome::Done(booking())), Change::default());
    assert_eq!(shipment.state, State::Cancelled);
}

#[test]
fn a_cancellation_waits_for_what_is_in_doubt() {
    for (outcome, state, events) in [
        (Outcome::Done(booking()), State::Booked, vec![Event::Booked]),
        (Outcome::Declined { code: "no".to_owned() }, State::Cancelled, vec![Event::Cancelled]),
    ] {
        let mut shipment = pending();
        report(&mut shipment, 1, Outcome::Unknown);
        assert_eq!(cancel(&mut shipment), Ok(Change::default()));
        let change = report(&mut shipment, 1, outcome);
        assert_eq!((change.events, shipment.state), (events, state));
        // What turns out to be booked is given back at once.
        let given_back = state == State::Booked;
        assert_eq!(change.send, given_back.then(|| Uuid::from_u128(99)));
        if given_back {
            assert_eq!(shipment.is_cancelled(), Err(Refusal::InProgress));
            let change = report(&mut shipment, 99, Outcome::Done(booking()));
            assert_eq!(change.events, [Event::Cancelled]);
        }
        assert_eq!(shipment.is_cancelled(), Ok(()));
        assert_eq!(shipment.cancel_reason, Some(CancelReason::OrderCancelled));
    }
}

#[test]
fn a_carrier_that_has_it_does_not_give_it_back() {
    let mut shipment = shipment(State::Booked);
    cancel(&mut shipment).unwrap();
    let code = "picked_up".to_owned();
    assert_eq!(report(&mut shipment, 2, Outcome::Declined { code }), Change::default());
    assert_eq!(shipment.is_cancelled(), Err(Refusal::State(State::Booked)));
    assert_eq!(shipment.track(Sign::PickedUp, booking()).unwrap().events, [Event::Dispatched]);
    assert_eq!((shipment.state, shipment.cancel_reason), (State::Dispatched, None));
}

#[test]
fn a_carrier_that_refuses_cancels_the_shipment() {
    let mut shipment = pending();
    let code = "address_refused".to_owned();
    let change = report(&mut shipment, 1, Outcome::Declined { code: code.clone() });
    assert_eq!(change.events, [Event::Cancelled]);
    assert_eq!(shipment.cancel_reason, Some(CancelReason::CarrierRefused));
    assert_eq!(shipment.attempts[0].decline_code, Some(code));
}

#[test]
fn no_state_is_skipped_whatever_is_reported_first() {
    let way = [Event::Booked, Event::Dispatched, Event::InTransit];
    for sign in SIGNS {
        let mut shipment = pending();
        let mut expected: Vec<Event> = match sign {
            Sign::PickedUp => way[..2].to_vec(),
            Sign::InTransit | Sign::Delivered | Sign::Lost | Sign::Returned => way.to_vec(),
        };
        expected.extend(match sign {
            Sign::PickedUp | Sign::InTransit => None,
            Sign::Delivered => Some(Event::Delivered),
            Sign::Lost => Some(Event::Lost),
            Sign::Returned => Some(Event::Returned),
        });
        assert_eq!(shipment.track(sign, booking()).unwrap().events, expected, "{sign:?}");
        assert_eq!((shipment.state, &shipment.booking), (sign.state(), &Some(booking())));
        // The answer that did not arrive is known by now.
        assert_eq!(shipment.attempts[0].state, AttemptState::Succeeded);
        assert_eq!(report(&mut shipment, 1, Outcome::Unknown), Change::default());
    }
}

#[test]
fn a_report_moves_a_shipment_forward_or_not_at_all() {
    for state in STATES {
        for sign in SIGNS {
            let mut shipment = shipment(state);
            let before = shipment.clone();
            let has_ended = state > State::InTransit;
            let another_end = sign.state() > State::InTransit && sign.state() != state;
            match shipment.track(sign, booking()) {
                Ok(change) if state < sign.state() && !has_ended => {
                    assert_eq!(shipment.state, sign.state());
                    assert!(!change.events.is_empty());
                }
                Ok(change) => {
                    assert!(change.events.is_empty(), "{state} {sign:?}");
                    assert_eq!(shipment.state, before.state);
                    assert!(state != State::Cancelled && !(has_ended && another_end));
                }
                Err(refusal) => {
                    assert_eq!((refusal, &shipment), (Refusal::State(state), &before));
                    assert!(state == State::Cancelled || (has_ended && another_end));
                }
            }
        }
    }
}

#[test]
fn a_person_reports_what_a_carrier_is_known_to_take() {
    let refused = Err(Refusal::State(State::Pending));
    assert_eq!(shipment(State::Pending).noted(Sign::PickedUp), refused);
    let mut shipment = shipment(State::Booked);
    cancel(&mut shipment).unwrap();
    assert_eq!(shipment.noted(Sign::PickedUp), Err(Refusal::InProgress));
    report(&mut shipment, 2, Outcome::Declined { code: "picked_up".to_owned() });
    assert_eq!(shipment.noted(Sign::PickedUp).unwrap().events, [Event::Dispatched]);
}

#[test]
fn only_what_is_booked_is_handed_over_and_only_once() {
    let sent = Change { events: vec![], send: Some(Uuid::from_u128(2)) };
    for state in STATES {
        let mut shipment = shipment(state);
        let handed = shipment.dispatch(started(2), &Pace::default());
        if state != State::Booked {
            assert_eq!(handed, Err(Refusal::State(state)));
            continue;
        }
        assert_eq!(handed.as_ref(), Ok(&sent));
        assert_eq!(shipment.is_dispatched(), Err(Refusal::InProgress));
        let again = shipment.dispatch(started(3), &Pace::default());
        assert_eq!(
            (again, cancel(&mut shipment)),
            (Err(Refusal::InProgress), Err(Refusal::InProgress))
        );
        let change = report(&mut shipment, 2, Outcome::Done(booking()));
        assert_eq!(change.events, [Event::Dispatched]);
        assert_eq!(shipment.is_dispatched(), Ok(()));
    }
}

#[test]
fn an_attempt_in_doubt_is_asked_for_by_the_schedule_and_then_at_its_last_pause() {
    let second = Duration::from_secs(1);
    let pace = Pace { schedule: vec![second, 5 * second], unsent_after: second };
    let mut shipment = pending();
    for (pause, is_overdue) in [(1, false), (5, true), (5, true), (5, true)] {
        let report = Report {
            attempt: Uuid::from_u128(1),
            outcome: Outcome::Unknown,
            at: NOON,
            spare: Uuid::nil(),
        };
        assert_eq!(shipment.apply(report, &pace), Change::default());
        let attempt = &shipment.attempts[0];
        assert_eq!(attempt.next_try_at, Some(NOON + pause * second));
        assert_eq!((attempt.state, attempt.is_overdue(&pace)), (AttemptState::Unknown, is_overdue));
    }
}

#[test]
fn the_key_of_a_parcel_is_that_of_the_attempt_that_books_it() {
    let shipment = pending();
    assert_eq!(shipment.attempts[0].reference, parcel_of(shipment.id));
    assert_eq!(shipment_of(&parcel_of(shipment.id)), Some(shipment.id));
    for other in ["", "ship/1/book/1", "ship/00000000-0000-0000-0000-000000000000/cancel/1"] {
        assert_eq!(shipment_of(other), None, "{other}");
    }
}
