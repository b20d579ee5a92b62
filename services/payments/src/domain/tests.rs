use mesh::money::Currency;

use super::*;

const NOON: OffsetDateTime = OffsetDateTime::UNIX_EPOCH;
const HOUR: Duration = Duration::from_secs(3_600);

fn euro(minor: i64) -> Money {
    Money::new(minor, Currency::parse("EUR").unwrap())
}

fn started(id: u128) -> Started {
    Started { id: Uuid::from_u128(id), at: NOON }
}

fn new() -> Payment {
    let method = Method::parse("tok_visa").unwrap();
    let (order, customer) = ("orders/1".to_owned(), "users/1".to_owned());
    Payment::new(Uuid::from_u128(7), order, customer, euro(1_000), method, NOON)
}

fn pace() -> Pace {
    Pace::default()
}

fn succeeded() -> Outcome {
    Outcome::done(Some("auth_1".to_owned()))
}

fn declined() -> Outcome {
    Outcome::Declined { code: "fraud".to_owned(), retriable: false }
}

fn failed() -> Outcome {
    Outcome::Failed { code: "http_400".to_owned() }
}

fn asking() -> Outcome {
    let (provider_id, url) = ("auth_1".to_owned(), "http://psp/act".to_owned());
    Outcome::ActionRequired { provider_id, url }
}

fn pending() -> Outcome {
    Outcome::Pending { provider_id: "auth_1".to_owned() }
}

fn report(attempt: u128, outcome: Outcome) -> Report {
    Report {
        attempt: Uuid::from_u128(attempt),
        outcome,
        source: Source::Provider,
        at: NOON,
        spare: Uuid::from_u128(attempt + 100),
    }
}

fn apply(payment: &mut Payment, attempt: u128, outcome: Outcome) -> Change {
    payment.apply(report(attempt, outcome), &pace()).unwrap()
}

/// A payment whose authorization, attempt 1, has come this far.
fn authorizing(outcomes: &[Outcome]) -> Payment {
    let mut payment = new();
    payment.authorize(started(1), None, &pace()).unwrap();
    for outcome in outcomes {
        apply(&mut payment, 1, outcome.clone());
    }
    payment
}

fn attempt_in(state: AttemptState) -> Attempt {
    Attempt { state, ..Attempt::new(started(1), Uuid::nil(), Kind::Authorize, 1, euro(1_000)) }
}

fn states(payment: &Payment) -> Vec<AttemptState> {
    payment.attempts.iter().map(|attempt| attempt.state).collect()
}

fn sums(postings: &[Posting]) -> Vec<(Account, i64)> {
    postings.iter().map(|posting| (posting.account, posting.amount.minor)).collect()
}

#[test]
fn an_attempt_moves_as_the_table_says_and_in_no_other_way() {
    use AttemptState::{
        ActionRequired, Created, Declined, Failed, NeedsReview, Sent, Succeeded, Unknown,
    };
    let outcomes = [succeeded(), declined(), failed(), asking(), pending(), Outcome::Unknown];
    let decided = [Some(Succeeded), Some(Declined), Some(Failed), None, None, None];
    let nothing = [None; 6];
    let review = Source::Review("the provider's statement".to_owned());
    for (state, by_provider, by_person) in [
        (Created, nothing, nothing),
        (
            Sent,
            [
                Some(Succeeded),
                Some(Declined),
                Some(Failed),
                Some(ActionRequired),
                Some(Unknown),
                Some(Unknown),
            ],
            nothing,
        ),
        (
            Unknown,
            [
                Some(Succeeded),
                Some(Declined),
                Some(Failed),
                Some(ActionRequired),
                Some(Unknown),
                None,
            ],
            nothing,
        ),
        (ActionRequired, decided, nothing),
        (NeedsReview, nothing, decided),
        (Succeeded, nothing, nothing),
        (Declined, nothing, nothing),
        (Failed, nothing, nothing),
    ] {
        let attempt = attempt_in(state);
        for (outcome, expected) in outcomes.iter().zip(by_provider) {
            assert_eq!(attempt.next(outcome, &Source::Provider), expected, "{state:?} {outcome:?}");
        }
        for (outcome, expected) in outcomes.iter().zip(by_person) {
            assert_eq!(attempt.next(outcome, &review), expected, "{state:?} {outcome:?}");
        }
    }
}

#[test]
fn the_loser_of_two_outcomes_changes_nothing() {
    let finals = [succeeded(), declined(), failed()];
    for winner in &finals {
        for loser in finals.iter().chain(&[asking(), pending(), Outcome::Unknown]) {
            let mut payment = authorizing(std::slice::from_ref(winner));
            let before = payment.clone();
            let change = apply(&mut payment, 1, loser.clone());
            assert_eq!((&payment, &change), (&before, &Change::default()), "{winner:?} {loser:?}");
        }
    }
}

#[test]
fn whichever_of_answer_and_resolver_comes_first_the_money_is_posted_once() {
    for order in [
        vec![Outcome::Unknown, succeeded(), succeeded()],
        vec![succeeded(), Outcome::Unknown, succeeded()],
        vec![asking(), succeeded(), asking()],
        vec![pending(), Outcome::Unknown, succeeded(), pending()],
    ] {
        let mut payment = authorizing(&[]);
        let mut posted = Vec::new();
        for outcome in &order {
            posted.extend(apply(&mut payment, 1, outcome.clone()).postings);
        }
        assert_eq!(
            sums(&posted),
            [(Account::Hold, 1_000), (Account::Customer, -1_000)],
            "{order:?}"
        );
        assert_eq!((payment.state(), payment.held()), (State::Authorized, 1_000), "{order:?}");
    }
}

#[test]
fn the_state_of_a_payment_follows_from_its_attempts() {
    for (outcomes, state) in [
        (vec![], State::Authorizing),
        (vec![succeeded()], State::Authorized),
        (vec![declined()], State::Failed),
        (vec![failed()], State::Failed),
        (vec![asking()], State::ActionRequired),
        (vec![Outcome::Unknown], State::InDoubt),
        (vec![pending()], State::InDoubt),
        (vec![Outcome::Unknown, asking()], State::ActionRequired),
        (vec![Outcome::Unknown, asking(), declined()], State::Failed),
    ] {
        assert_eq!(authorizing(&outcomes).state(), state, "{outcomes:?}");
    }
    assert_eq!(new().state(), State::Created);
}

#[test]
fn a_key_never_serves_another_amount_and_n_does_not_rise_while_n_is_open() {
    for outcomes in [vec![], vec![Outcome::Unknown], vec![asking()], vec![pending()]] {
        let mut payment = authorizing(&outcomes);
        let again = payment.authorize(started(2), None, &pace());
        assert_eq!(again, Err(Refusal::InProgress), "{outcomes:?}");
    }
    let mut payment = authorizing(&[declined()]);
    let other = Method::parse("tok_other").unwrap();
    payment.authorize(started(2), Some(other.clone()), &pace()).unwrap();
    let keys: Vec<_> = payment.attempts.iter().map(|one| one.reference.clone()).collect();
    let id = payment.id;
    assert_eq!(keys, [format!("pay/{id}/authorize/1"), format!("pay/{id}/authorize/2")]);
    assert_eq!((payment.attempts[0].method.as_str(), &payment.method), ("tok_visa", &other));
}

#[test]
fn an_authorized_payment_is_not_authorized_again() {
    let mut payment = authorizing(&[succeeded()]);
    let again = payment.authorize(started(2), None, &pace());
    assert_eq!(again, Err(Refusal::State(State::Authorized)));
}

#[test]
fn a_void_that_comes_first_refuses_what_comes_late() {
    let mut payment = new();
    let change = payment.void(started(1), &pace());
    assert_eq!(change.events, [Event::Voided { amount: None }]);
    assert_eq!((payment.state(), payment.attempts.len()), (State::Voided, 0));
    assert_eq!(payment.authorize(started(2), None, &pace()), Err(Refusal::Undone));
    // Again: nothing more happens.
    assert_eq!(payment.void(started(3), &pace()), Change::default());
}

#[test]
fn an_authorization_that_went_out_before_the_void_is_given_back_when_it_is_known() {
    for outcomes in [vec![], vec![Outcome::Unknown]] {
        let mut payment = authorizing(&outcomes);
        assert_eq!(payment.void(started(2), &pace()), Change::default());
        assert!(!payment.is_settled());
        let change = apply(&mut payment, 1, succeeded());
        assert_eq!(change.send, Some(Uuid::from_u128(101)), "{outcomes:?}");
        assert_eq!(states(&payment), [AttemptState::Succeeded, AttemptState::Created]);
        payment.send(Uuid::from_u128(101), NOON, &pace());
        let change = apply(&mut payment, 101, Outcome::done(None));
        assert_eq!(sums(&change.postings), [(Account::Hold, -1_000), (Account::Customer, 1_000)]);
        assert_eq!(change.events, [Event::Voided { amount: Some(euro(1_000)) }]);
        assert_eq!((payment.state(), payment.authorized), (State::Voided, 0));
    }
}

#[test]
fn a_void_of_what_turns_out_declined_is_done_without_the_provider() {
    let mut payment = authorizing(&[Outcome::Unknown]);
    payment.void(started(2), &pace());
    let change = apply(&mut payment, 1, declined());
    assert_eq!(change.events.last(), Some(&Event::Voided { amount: None }));
    assert_eq!((payment.state(), change.send), (State::Voided, None));
}

#[test]
fn what_the_provider_has_not_decided_is_given_up_there() {
    for outcome in [asking(), pending()] {
        let mut payment = authorizing(std::slice::from_ref(&outcome));
        let change = payment.void(started(2), &pace());
        assert_eq!(change.send, Some(Uuid::from_u128(2)));
        assert_eq!(payment.attempts[1].target.as_deref(), Some("auth_1"));
        let nothing =
            Outcome::Succeeded { provider_id: None, expires_at: None, fee: 0, released: Some(0) };
        let change = apply(&mut payment, 2, nothing);
        assert_eq!(change.events, [Event::Voided { amount: None }], "{outcome:?}");
        assert_eq!(states(&payment), [AttemptState::Failed, AttemptState::Succeeded]);
        assert_eq!((payment.state(), change.postings.len()), (State::Voided, 0));
    }
}

#[test]
fn a_void_that_gave_back_money_nobody_knew_of_posts_both() {
    let mut payment = authorizing(&[asking()]);
    payment.void(started(2), &pace());
    let released =
        Outcome::Succeeded { provider_id: None, expires_at: None, fee: 0, released: Some(1_000) };
    let change = apply(&mut payment, 2, released);
    assert_eq!(
        sums(&change.postings),
        [
            (Account::Hold, 1_000),
            (Account::Customer, -1_000),
            (Account::Hold, -1_000),
            (Account::Customer, 1_000)
        ]
    );
    assert_eq!(balanced(&change.postings), Ok(()));
    assert_eq!(payment.state(), State::Voided);
}

#[test]
fn a_void_that_the_provider_refused_may_be_tried_again() {
    let mut payment = authorizing(&[succeeded()]);
    payment.void(started(2), &pace());
    apply(&mut payment, 2, failed());
    assert_eq!((payment.state(), payment.held()), (State::Authorized, 1_000));
    assert_eq!(payment.void(started(3), &pace()).send, Some(Uuid::from_u128(3)));
    assert!(payment.attempts[2].reference.ends_with("/void/2"));
}

#[test]
fn captures_take_no_more_than_is_set_aside_and_the_last_gives_back_the_rest() {
    let mut payment = authorizing(&[succeeded()]);
    let yen = Money::new(1, Currency::parse("JPY").unwrap());
    assert_eq!(payment.capture(started(2), Some(yen), false, &pace()), Err(Refusal::Currency));
    let over = payment.capture(started(2), Some(euro(1_001)), false, &pace());
    assert_eq!(over, Err(Refusal::Exceeds(euro(1_000))));

    let taken =
        |fee| Outcome::Succeeded { provider_id: None, expires_at: None, fee, released: None };
    payment.capture(started(2), Some(euro(300)), false, &pace()).unwrap();
    let change = apply(&mut payment, 2, taken(4));
    assert_eq!(
        sums(&change.postings),
        [(Account::Hold, -300), (Account::Receivable, 296), (Account::Fees, 4)]
    );
    assert_eq!(payment.state(), State::PartiallyCaptured);
    payment.capture(started(3), Some(euro(500)), true, &pace()).unwrap();
    let change = apply(&mut payment, 3, taken(7));
    assert_eq!(change.postings.len(), 5);
    assert_eq!(balanced(&change.postings), Ok(()));
    assert_eq!((payment.state(), payment.authorized), (State::Captured, 800));
    let more = payment.capture(started(4), None, true, &pace());
    assert_eq!(more, Err(Refusal::State(State::Captured)));
}

#[test]
fn the_state_of_money_that_was_taken_follows_from_its_sums() {
    for (authorized, captured, refunded, state) in [
        (1_000, 0, 0, State::Authorized),
        (1_000, 300, 0, State::PartiallyCaptured),
        (300, 300, 0, State::Captured),
        (1_000, 1_000, 0, State::Captured),
        // More is set aside, but what was given back tells more.
        (1_000, 300, 100, State::PartiallyRefunded),
        (300, 300, 100, State::PartiallyRefunded),
        (1_000, 300, 300, State::Refunded),
        (300, 300, 300, State::Refunded),
    ] {
        let payment = Payment { authorized, captured, refunded, ..authorizing(&[succeeded()]) };
        assert_eq!(payment.state(), state, "{authorized} {captured} {refunded}");
        assert_eq!(payment.overview().state, state);
        let doubtful =
            Attempt { kind: Kind::Refund, provider_id: None, ..attempt_in(AttemptState::Unknown) };
        let attempts = vec![payment.attempts[0].clone(), doubtful];
        assert_eq!(Payment { attempts, ..payment }.state(), State::InDoubt);
    }
}

#[test]
fn what_was_voided_after_a_part_was_taken_stays_captured() {
    let mut payment = authorizing(&[succeeded()]);
    let taken = Outcome::Succeeded {
        provider_id: Some("cap_1".to_owned()),
        expires_at: None,
        fee: 4,
        released: None,
    };
    payment.capture(started(2), Some(euro(300)), false, &pace()).unwrap();
    apply(&mut payment, 2, taken);
    assert_eq!(payment.void(started(3), &pace()).send, Some(Uuid::from_u128(3)));
    let change = apply(&mut payment, 3, Outcome::done(None));
    assert_eq!(change.events, [Event::Voided { amount: Some(euro(700)) }]);
    assert_eq!(sums(&change.postings), [(Account::Hold, -700), (Account::Customer, 700)]);
    assert_eq!((payment.state(), payment.authorized), (State::Captured, 300));
    // A late parcel finds nothing to take, and a late void nothing to give back.
    let late = payment.capture(started(4), Some(euro(1)), true, &pace());
    assert_eq!(late, Err(Refusal::State(State::Captured)));
    assert_eq!(payment.void(started(5), &pace()), Change::default());
}

#[test]
fn postings_that_do_not_sum_to_zero_are_found() {
    let mut payment = authorizing(&[]);
    let mut postings = apply(&mut payment, 1, succeeded()).postings;
    assert_eq!(balanced(&postings), Ok(()));
    postings.pop();
    assert!(balanced(&postings).is_err());
}

#[test]
fn the_resolver_asks_on_schedule_and_then_leaves_it_to_a_person() {
    let mut payment = authorizing(&[Outcome::Unknown]);
    let mut waits = Vec::new();
    while payment.attempts[0].state == AttemptState::Unknown {
        let next = payment.attempts[0].next_try_at.unwrap();
        waits.push((next - NOON).whole_seconds());
        payment.learn(report(1, Outcome::Unknown), &pace()).unwrap();
    }
    let day = 86_400;
    assert_eq!(waits, [1, 5, 30, 300, 3_600, day, day, day, day, day]);
    assert_eq!(states(&payment), [AttemptState::NeedsReview]);
    assert_eq!((payment.state(), payment.attempts[0].next_try_at), (State::InDoubt, None));
}

#[test]
fn only_a_person_with_evidence_decides_what_needs_review() {
    let pace = Pace { schedule: vec![HOUR], ..pace() };
    let mut payment = authorizing(&[Outcome::Unknown]);
    while payment.attempts[0].state == AttemptState::Unknown {
        payment.learn(report(1, Outcome::Unknown), &pace).unwrap();
    }
    assert_eq!(apply(&mut payment, 1, succeeded()), Change::default());
    let source = Source::Review("users/f: statement of March".to_owned());
    let said = |outcome| Report { source: source.clone(), ..report(1, outcome) };
    // Money that nobody could ever give back is not believed in.
    assert_eq!(payment.apply(said(Outcome::done(None)), &pace), Err(Refusal::ProviderId));
    let change = payment.apply(said(succeeded()), &pace).unwrap();
    assert_eq!((change.postings.len(), payment.state()), (2, State::Authorized));
    assert_eq!(payment.attempts[0].evidence.as_deref(), Some("users/f: statement of March"));
}

#[test]
fn the_same_key_is_sent_again_only_while_the_provider_surely_remembers_it() {
    let unknown = attempt_in(AttemptState::Unknown);
    let known = Attempt { provider_id: Some("auth_1".to_owned()), ..unknown.clone() };
    for (attempt, age, probe) in [
        (attempt_in(AttemptState::Created), HOUR, Some(Probe::Send)),
        (attempt_in(AttemptState::Sent), HOUR, Some(Probe::Send)),
        (unknown.clone(), 22 * HOUR, Some(Probe::Send)),
        (unknown.clone(), 23 * HOUR, Some(Probe::Ask)),
        (known.clone(), HOUR, Some(Probe::Ask)),
        (attempt_in(AttemptState::ActionRequired), HOUR, Some(Probe::Ask)),
        (attempt_in(AttemptState::NeedsReview), HOUR, None),
        (attempt_in(AttemptState::Succeeded), HOUR, None),
    ] {
        assert_eq!(attempt.probe(NOON + age, &pace()), probe, "{:?} {age:?}", attempt.state);
    }
    // That the provider has nothing is proof only once no late request can arrive.
    assert_eq!(unknown.absent(NOON + HOUR, &pace()), Outcome::Unknown);
    let never = Outcome::Failed { code: attempt::NEVER_ARRIVED.to_owned() };
    assert_eq!(unknown.absent(NOON + 23 * HOUR, &pace()), never);
    assert_eq!(known.absent(NOON + 23 * HOUR, &pace()), Outcome::Unknown);
}

#[test]
fn the_longer_a_customer_takes_the_rarer_the_provider_is_asked() {
    let mut payment = authorizing(&[asking()]);
    let mut next = |after: Duration| {
        let at = NOON + after;
        payment.learn(Report { at, ..report(1, asking()) }, &pace()).unwrap();
        payment.attempts[0].next_try_at.unwrap() - at
    };
    assert_eq!(next(Duration::from_secs(2)), Duration::from_secs(2));
    assert_eq!(next(Duration::from_secs(600)), Duration::from_secs(60));
}

#[test]
fn a_card_number_is_no_token() {
    for (token, expected) in [
        ("tok_visa", None),
        ("pm_0198f1c2-7a3b-7c4d-8e5f-123456789012", None),
        ("", Some(MethodError::Malformed)),
        ("tok visa", Some(MethodError::Malformed)),
        ("4242424242424242", Some(MethodError::CardNumber)),
        ("4242-4242-4242-4242", Some(MethodError::CardNumber)),
        ("card_5500005555555559", Some(MethodError::CardNumber)),
        ("4242424242424241", None),
    ] {
        assert_eq!(Method::parse(token).err(), expected, "{token}");
    }
    assert_eq!(Method::parse(&"x".repeat(129)), Err(MethodError::Malformed));
}
