use std::collections::BTreeMap;

use mesh::money::{Currency, Money};
use proptest::prelude::{Just, Strategy, prop, prop_assert, prop_assert_eq, prop_oneof, proptest};
use time::{Duration, OffsetDateTime, macros::datetime};
use uuid::Uuid;

use super::*;

const NOON: OffsetDateTime = datetime!(2026-01-01 12:00 UTC);
const PATIENCE: Duration = Duration::minutes(15);
const STATES: [State; 8] = [
    State::Pending,
    State::ActionRequired,
    State::Confirmed,
    State::Cancelling,
    State::Rejected,
    State::Cancelled,
    State::Expired,
    State::Completed,
];

fn euro(minor: i64) -> Money {
    Money::new(minor, Currency::parse("EUR").unwrap())
}

fn yen(minor: i64) -> Money {
    Money::new(minor, Currency::parse("JPY").unwrap())
}

fn wanted(sku: &str, quantity: i64) -> Wanted {
    Wanted { variant: format!("variants/{sku}"), quantity }
}

fn price_of(sku: &str, unit: Money, version: &str) -> Price {
    Price {
        variant: format!("variants/{sku}"),
        title: sku.to_owned(),
        unit,
        version: version.to_owned(),
    }
}

fn draft() -> Draft {
    Draft {
        customer: "users/1".to_owned(),
        customer_email: "ada@example.com".to_owned(),
        ship_to: None,
        payment_method: "tok_visa".to_owned(),
        stock_policy: StockPolicy::AllOrNothing,
        quoted: false,
        patience: PATIENCE,
    }
}

/// Two mugs of 9.99 and a hat of 20.00: 39.98.
fn placed() -> Order {
    let wanted = [wanted("MUG", 2), wanted("HAT", 1)];
    let prices = [price_of("MUG", euro(999), "m1"), price_of("HAT", euro(2_000), "h1")];
    let lines = price::price(&wanted, &prices).unwrap();
    Order::place(Uuid::nil(), draft(), lines, &Agreement::Seen(euro(3_998)), NOON).unwrap().0
}

fn price_ask(order: &Order, mug: i64) -> Ask {
    let prices = [price_of("MUG", euro(mug), "m2"), price_of("HAT", euro(2_000), "h1")];
    Ask::Price(order.drift(&prices).unwrap().unwrap())
}

fn order(state: State) -> Order {
    let mut order = placed();
    if state == State::ActionRequired {
        let ask = price_ask(&order, 1_099);
        order.pending = Some(PendingAction { ask, expires_at: NOON + PATIENCE });
    }
    order.state = state;
    order
}

fn by_customer() -> Cancellation {
    Cancellation {
        reason: CancelReason::CustomerRequest,
        actor: "users/1".to_owned(),
        note: String::new(),
    }
}

fn timed_out() -> Rejection {
    Rejection::plain(RejectReason::TimedOut)
}

/// Where a move leads from each state: `None` is a refusal that names the state.
fn table(moves: impl Fn(&mut Order) -> Moved, allowed: &[(State, State, Event)]) {
    for from in STATES {
        let mut order = order(from);
        let before = order.clone();
        let moved = moves(&mut order);
        match allowed.iter().find(|(state, _, _)| *state == from) {
            Some((_, to, event)) => {
                assert_eq!(moved, Ok(vec![event.clone()]), "{from}");
                assert_eq!(order.state, *to, "{from}");
                assert_eq!(order.pending.is_some(), *to == State::ActionRequired, "{from}");
            }
            None => {
                assert_eq!(moved, Err(Refusal::State(from)));
                assert_eq!(order, before, "a refusal changes nothing: {from}");
            }
        }
    }
}

#[test]
fn an_order_is_placed_as_pending_with_what_was_priced_and_agreed_to() {
    let order = placed();
    assert_eq!((order.state, order.payment_state()), (State::Pending, PaymentState::Unpaid));
    assert_eq!(order.totals.total, euro(3_998));
    assert_eq!(order.expected_total, Some(euro(3_998)));
    let totals: Vec<Money> = order.lines.iter().map(|line| line.total).collect();
    assert_eq!(totals, [euro(1_998), euro(2_000)]);
    let ids: Vec<&str> = order.lines.iter().map(|line| line.id.as_str()).collect();
    assert_eq!(ids, ["1", "2"]);
}

#[test]
fn an_amount_that_the_customer_did_not_see_is_never_charged() {
    let lines = placed().lines;
    for (agreement, expected) in [
        (Agreement::Seen(euro(3_998)), None),
        (Agreement::Current, None),
        (Agreement::Quoted, None),
        (Agreement::Seen(euro(3_997)), Some(euro(3_998))),
        (Agreement::Seen(euro(3_999)), Some(euro(3_998))),
    ] {
        let placed = Order::place(Uuid::nil(), draft(), lines.clone(), &agreement, NOON);
        let told = match placed {
            Ok(_) => None,
            Err(Refusal::PriceChanged(offer)) => Some(offer.total),
            Err(other) => panic!("{other}"),
        };
        assert_eq!(told, expected, "{agreement:?}");
    }
    let seen = Agreement::Seen(yen(3_998));
    let placed = Order::place(Uuid::nil(), draft(), lines, &seen, NOON);
    assert_eq!(placed.err(), Some(Refusal::ExpectedCurrency));
}

#[test]
fn only_a_pending_order_asks_its_customer() {
    let until = NOON + PATIENCE;
    table(
        |order| order.ask(Ask::Payment("https://psp/1".to_owned()), until, NOON),
        &[(State::Pending, State::ActionRequired, Event::ActionRequired)],
    );
}

#[test]
fn only_what_is_asked_can_be_agreed_to() {
    table(
        |order| order.accept(euro(4_198), PATIENCE, NOON),
        &[(State::ActionRequired, State::Pending, Event::Revised)],
    );
}

#[test]
fn only_a_pending_order_that_is_paid_for_is_confirmed() {
    table(
        |order| {
            order.payment = order.payment.authorized(euro(3_998));
            let moved = order.confirm(NOON);
            if moved.is_err() {
                order.payment = Payment::default();
            }
            moved
        },
        &[(State::Pending, State::Confirmed, Event::Confirmed)],
    );
    let payment = Payment::default();
    for unpaid in [
        payment,
        payment.open(),
        payment.in_doubt(),
        payment.failed(),
        payment.authorized(euro(3_997)),
        payment.authorized(euro(3_998)).void(),
    ] {
        let mut order = placed();
        order.payment = unpaid;
        assert_eq!(order.confirm(NOON), Err(Refusal::Unpaid), "{unpaid:?}");
        assert_eq!(order.state, State::Pending);
    }
}

#[test]
fn only_an_order_that_is_on_its_way_can_be_cancelled_and_only_once() {
    let event = Event::Cancelling(by_customer());
    table(
        |order| order.cancel(by_customer(), NOON),
        &[
            (State::Pending, State::Cancelling, event.clone()),
            (State::ActionRequired, State::Cancelling, event.clone()),
            (State::Confirmed, State::Cancelling, event),
        ],
    );
}

#[test]
fn what_was_undone_ends_by_the_state_it_was_undone_from() {
    table(
        |order| order.end(timed_out(), NOON),
        &[
            (State::Pending, State::Rejected, Event::Rejected),
            (State::ActionRequired, State::Expired, Event::Expired),
            (State::Cancelling, State::Cancelled, Event::Cancelled),
        ],
    );
    for (from, rejection) in [
        (State::Pending, Some(timed_out())),
        (State::ActionRequired, None),
        (State::Cancelling, None),
    ] {
        let mut order = order(from);
        order.end(timed_out(), NOON).unwrap();
        assert_eq!(order.rejection, rejection, "only a rejected order says why: {from}");
    }
}

#[test]
fn money_moves_until_the_order_has_ended() {
    let changed = Event::PaymentChanged(PaymentState::Unpaid);
    table(
        |order| order.pay(order.payment.open(), PATIENCE, NOON),
        &[
            (State::Pending, State::Pending, changed.clone()),
            (State::ActionRequired, State::ActionRequired, changed.clone()),
            (State::Confirmed, State::Confirmed, changed.clone()),
            (State::Cancelling, State::Cancelling, changed),
        ],
    );
}

#[test]
fn what_is_known_already_is_no_event() {
    let mut order = placed();
    order.pay(order.payment.open(), PATIENCE, NOON).unwrap();
    assert_eq!(order.pay(order.payment.open(), PATIENCE, NOON), Ok(vec![]));
}

#[test]
fn an_order_that_waits_for_the_payment_goes_on_once_the_customer_has_acted() {
    let waiting = {
        let mut order = placed();
        order.payment = order.payment.open();
        order.ask(Ask::Payment("https://psp/1".to_owned()), NOON + PATIENCE, NOON).unwrap();
        order
    };
    let later = NOON + Duration::minutes(14);
    for (payment, state) in [
        (waiting.payment.open(), State::ActionRequired),
        (waiting.payment.authorized(euro(3_998)), State::Pending),
        (waiting.payment.in_doubt(), State::Pending),
        (waiting.payment.failed(), State::Pending),
        (waiting.payment.void(), State::ActionRequired),
    ] {
        let mut order = waiting.clone();
        order.pay(payment, PATIENCE, later).unwrap();
        assert_eq!(order.state, state, "{payment:?}");
        let confirm_by = if state == State::Pending { later } else { NOON } + PATIENCE;
        assert_eq!(order.confirm_by, confirm_by, "{payment:?}");

        let mut late = waiting.clone();
        late.pay(payment, PATIENCE, NOON + PATIENCE).unwrap();
        assert_eq!(late.state, State::ActionRequired, "too late: {payment:?}");
    }
}

#[test]
fn agreeing_is_too_late_from_the_deadline_on() {
    let until = NOON + PATIENCE;
    for (at, expected) in [
        (until - Duration::microseconds(1), Ok(vec![Event::Revised])),
        (until, Err(Refusal::TooLate(until))),
        (until + Duration::hours(1), Err(Refusal::TooLate(until))),
    ] {
        assert_eq!(
            order(State::ActionRequired).accept(euro(4_198), PATIENCE, at),
            expected,
            "{at}"
        );
    }
}

#[test]
fn agreeing_takes_the_offer_as_it_was_seen_and_nothing_else() {
    let mut order = order(State::ActionRequired);
    let refused = order.accept(euro(3_998), PATIENCE, NOON);
    assert!(matches!(refused, Err(Refusal::PriceChanged(offer)) if offer.total == euro(4_198)));
    assert_eq!(order.accept(yen(4_198), PATIENCE, NOON), Err(Refusal::ExpectedCurrency));

    order.accept(euro(4_198), PATIENCE, NOON).unwrap();
    let mug = &order.lines[0];
    assert_eq!((mug.unit_price, mug.price_version.as_str()), (euro(1_099), "m2"));
    assert_eq!((order.totals.total, order.expected_total), (euro(4_198), Some(euro(4_198))));
}

#[test]
fn a_payment_that_needs_its_customer_is_not_agreed_to_here() {
    let mut order = placed();
    order.ask(Ask::Payment("https://psp/1".to_owned()), NOON + PATIENCE, NOON).unwrap();
    let refused = order.accept(euro(3_998), PATIENCE, NOON);
    assert_eq!(refused, Err(Refusal::State(State::ActionRequired)));
}

#[test]
fn a_price_drifts_when_its_amount_does_and_not_for_an_order_that_was_quoted() {
    let order = placed();
    let hat = || price_of("HAT", euro(2_000), "h1");
    for (mug, drifted) in [
        (price_of("MUG", euro(999), "m1"), None),
        (price_of("MUG", euro(999), "m2"), None),
        (price_of("MUG", euro(1_099), "m2"), Some(euro(4_198))),
        (price_of("MUG", euro(899), "m2"), Some(euro(3_798))),
    ] {
        let offer = order.drift(&[mug, hat()]).unwrap();
        assert_eq!(offer.map(|offer| offer.total), drifted);
    }
    let quoted = Order { quoted: true, ..placed() };
    assert_eq!(quoted.drift(&[price_of("MUG", euro(1), "m2"), hat()]), Ok(None));
}

#[test]
fn less_in_stock_keeps_what_there_is_in_the_order_of_the_lines() {
    let order = placed();
    let quantities = |available: &[(&str, i64)]| {
        let available = available.iter().map(|(sku, left)| ((*sku).to_owned(), *left)).collect();
        let offer = order.reduced(&available).unwrap();
        offer.map(|offer| offer.lines.iter().map(|line| line.quantity).collect::<Vec<_>>())
    };
    assert_eq!(quantities(&[("MUG", 1)]), Some(vec![1, 1]));
    assert_eq!(quantities(&[("MUG", 0)]), Some(vec![0, 1]));
    assert_eq!(quantities(&[("MUG", -3), ("HAT", 9)]), Some(vec![0, 1]));
    assert_eq!(quantities(&[("MUG", 0), ("HAT", 0)]), None);
}

#[test]
fn agreeing_to_less_cancels_the_rest_of_the_line() {
    let mut order = placed();
    let offer = order.reduced(&BTreeMap::from([("MUG".to_owned(), 1)])).unwrap().unwrap();
    assert_eq!(offer.total, euro(2_999));
    order.ask(Ask::Stock(offer), NOON + PATIENCE, NOON).unwrap();
    order.accept(euro(2_999), PATIENCE, NOON).unwrap();
    let mug = &order.lines[0];
    assert_eq!((mug.quantity, mug.cancelled, mug.kept(), mug.total), (2, 1, 1, euro(999)));
    assert_eq!(order.totals.total, euro(2_999));
}

#[test]
fn lines_in_two_currencies_have_no_total() {
    let wanted = [wanted("MUG", 1), wanted("HAT", 1)];
    let prices = [price_of("MUG", euro(1), "1"), price_of("HAT", yen(1), "1")];
    assert_eq!(price::price(&wanted, &prices), Err(Refusal::CurrencyMismatch));
}

#[test]
fn a_total_that_does_not_fit_is_refused_rather_than_cut() {
    let prices = [price_of("MUG", euro(i64::MAX / 2), "1")];
    assert!(price::price(&[wanted("MUG", 2)], &prices).is_ok());
    assert_eq!(price::price(&[wanted("MUG", 3)], &prices), Err(Refusal::TooLarge));
}

#[test]
fn a_quote_is_honoured_for_its_lines_until_its_time_is_over() {
    let order = placed();
    let until = NOON + PATIENCE;
    let quote = Quote::of(&order.lines, until).unwrap();
    let lines = [wanted("MUG", 2), wanted("HAT", 1)];
    let prices = quote.prices(&lines, until - Duration::seconds(1)).unwrap();
    assert_eq!(price::price(&lines, &prices), Ok(order.lines));
    assert_eq!(quote.prices(&lines, until), Err(Refusal::QuoteExpired));
    for other in [
        vec![wanted("MUG", 2)],
        vec![wanted("MUG", 3), wanted("HAT", 1)],
        vec![wanted("HAT", 1), wanted("MUG", 2)],
        vec![wanted("MUG", 2), wanted("HAT", 1), wanted("HAT", 1)],
    ] {
        assert_eq!(quote.prices(&other, NOON), Err(Refusal::QuoteDiffers), "{other:?}");
    }
}

#[test]
fn every_variant_that_is_short_is_named_and_an_unknown_stock_is_not_short() {
    let lines = [wanted("MUG", 2), wanted("HAT", 1), wanted("MUG", 2), wanted("PEN", 999)];
    let stock = |mug, hat| BTreeMap::from([("MUG".to_owned(), mug), ("HAT".to_owned(), hat)]);
    assert_eq!(in_stock(&lines, &stock(4, 1)), Ok(()));
    let short = |sku: &str, wanted, available| Short { sku: sku.to_owned(), wanted, available };
    let expected = vec![short("HAT", 1, 0), short("MUG", 4, 3)];
    assert_eq!(in_stock(&lines, &stock(3, 0)), Err(Refusal::OutOfStock(expected)));
}

#[test]
fn a_customer_orders_up_to_their_limit() {
    for (active, limit, expected) in [
        (true, None, Ok(())),
        (true, Some(euro(100)), Ok(())),
        (true, Some(euro(99)), Err(Refusal::Limit(euro(99)))),
        (true, Some(yen(1_000)), Err(Refusal::CurrencyMismatch)),
        (false, None, Err(Refusal::CustomerInactive)),
    ] {
        assert_eq!(may_order(active, limit, euro(100)), expected, "{active} {limit:?}");
    }
}

#[test]
fn the_state_of_the_money_is_the_first_row_that_holds() {
    let none = Payment::default();
    for (payment, state) in [
        (none, PaymentState::Unpaid),
        (none.open(), PaymentState::Authorizing),
        (none.open().authorized(euro(1)), PaymentState::Authorized),
        (none.open().in_doubt(), PaymentState::InDoubt),
        (none.open().failed(), PaymentState::Failed),
        (none.open().void(), PaymentState::Voided),
        (none.authorized(euro(1)).void(), PaymentState::Voided),
        // In doubt comes first: money may be set aside that nobody knows of.
        (Payment { voided: true, ..none.in_doubt() }, PaymentState::InDoubt),
        (Payment { attempt: Attempt::Open, ..none.authorized(euro(1)) }, PaymentState::Authorized),
    ] {
        assert_eq!(payment.state(euro(10)), state, "{payment:?}");
    }
    // Taken, paid back, still to be taken, due.
    for (captured, refunded, live, due, state) in [
        (4, 0, 6, 10, PaymentState::PartiallyCaptured),
        (10, 0, 0, 10, PaymentState::Captured),
        (10, 0, 0, 6, PaymentState::Overcharged),
        (10, 4, 0, 6, PaymentState::PartiallyRefunded),
        (10, 4, 0, 5, PaymentState::Overcharged),
        (10, 10, 0, 0, PaymentState::Refunded),
        (0, 0, 10, 10, PaymentState::Authorized),
    ] {
        let payment = none.taken(captured, refunded, live);
        assert_eq!(payment.state(euro(due)), state, "{payment:?} of {due}");
        let settled = live == 0 && captured - refunded == due;
        assert_eq!(payment.is_settled(euro(due)), settled, "{payment:?} of {due}");
    }
    assert_eq!(none.taken(4, 0, 6).taken_in_doubt().state(euro(10)), PaymentState::InDoubt);
}

/// Confirmed and paid for.
fn on_its_way() -> Order {
    let mut order = placed();
    order.pay(order.payment.authorized(euro(3_998)), PATIENCE, NOON).unwrap();
    order.confirm(NOON).unwrap();
    order
}

/// The mugs travel in one parcel, the hat in another.
fn parcel(id: u128) -> Vec<Units> {
    let (line_id, quantity) = if id == 1 { ("1", 2) } else { ("2", 1) };
    vec![Units { line_id: line_id.to_owned(), quantity }]
}

const MUGS: Uuid = Uuid::from_u128(1);
const HAT: Uuid = Uuid::from_u128(2);

#[test]
fn an_order_is_completed_once_all_of_it_arrived_and_is_paid_for() {
    let mut order = on_its_way();
    let mut told = Vec::new();
    for next in [
        Step::Ship(1),
        Step::Charge(1),
        Step::Ship(2),
        Step::Deliver(1),
        Step::Charge(2),
        Step::Deliver(2),
    ] {
        assert_eq!(order.complete(NOON), Err(Refusal::Unfinished), "before {next:?}");
        let events = step(&mut order, next).unwrap();
        assert_eq!(events.len(), 1, "{next:?}");
        told.push((order.fulfillment_state(), order.payment_state()));
    }
    use FulfillmentState::{Delivered, PartiallyDelivered, PartiallyShipped, Shipped};
    use PaymentState::{Authorized, Captured, PartiallyCaptured};
    assert_eq!(
        told,
        [
            (PartiallyShipped, Authorized),
            (PartiallyShipped, PartiallyCaptured),
            (Shipped, PartiallyCaptured),
            (PartiallyDelivered, PartiallyCaptured),
            (PartiallyDelivered, Captured),
            (Delivered, Captured),
        ]
    );
    assert_eq!(order.complete(NOON), Ok(vec![Event::Completed]));
    assert_eq!(order.state, State::Completed);
}

#[test]
fn what_is_lost_on_its_way_is_cancelled_and_owed_until_it_is_paid_back() {
    let mut order = on_its_way();
    for next in [Step::Ship(1), Step::Charge(1), Step::Ship(2), Step::Charge(2)] {
        step(&mut order, next).unwrap();
    }
    let events = order.lose(MUGS, Cause::Lost, NOON).unwrap();
    assert_eq!(
        events,
        [
            Event::LineCancelled(Cause::Lost, parcel(1)),
            Event::PaymentChanged(PaymentState::Captured),
        ]
    );
    assert_eq!(order.totals.total, euro(2_000));
    assert_eq!((order.lines[0].cancelled, order.lines[0].shipped), (2, 0));
    assert_eq!(order.payment_state(), PaymentState::Overcharged);
    step(&mut order, Step::Deliver(2)).unwrap();
    assert_eq!(order.complete(NOON), Err(Refusal::Unfinished));
    step(&mut order, Step::Refund(1)).unwrap();
    assert_eq!(order.payment_state(), PaymentState::PartiallyRefunded);
    assert_eq!(step(&mut order, Step::Refund(1)), Err(Refusal::Units), "once");
    order.complete(NOON).unwrap();
}

#[test]
fn an_order_of_which_everything_came_back_is_completed_and_refunded() {
    let mut order = on_its_way();
    for next in [Step::Ship(1), Step::Charge(1), Step::Ship(2), Step::Charge(2)] {
        step(&mut order, next).unwrap();
    }
    for id in [MUGS, HAT] {
        order.lose(id, Cause::Returned, NOON).unwrap();
    }
    assert_eq!(order.fulfillment_state(), FulfillmentState::Unfulfilled);
    step(&mut order, Step::Refund(1)).unwrap();
    step(&mut order, Step::Refund(2)).unwrap();
    order.complete(NOON).unwrap();
    assert_eq!(order.payment_state(), PaymentState::Refunded);
    assert_eq!(order.totals.total, euro(0));
}

#[test]
fn what_never_left_is_cancelled_and_the_rest_goes_on() {
    let mut order = on_its_way();
    step(&mut order, Step::Ship(2)).unwrap();
    let events = order.call_off(MUGS, parcel(1), NOON).unwrap();
    assert_eq!(
        events,
        [
            Event::LineCancelled(Cause::CalledOff, parcel(1)),
            Event::FulfillmentChanged(FulfillmentState::PartiallyShipped),
        ]
    );
    assert_eq!(order.fulfillment_state(), FulfillmentState::Shipped);
    for next in [Step::Charge(2), Step::Deliver(2), Step::Release, Step::Complete] {
        step(&mut order, next).unwrap();
    }
    assert_eq!(order.payment.captured_minor, 2_000);
}

#[test]
fn goods_move_only_while_the_order_is_confirmed() {
    for from in STATES.into_iter().filter(|state| *state != State::Confirmed) {
        for next in [
            Step::Ship(1),
            Step::Charge(1),
            Step::Deliver(1),
            Step::Lose(1),
            Step::CallOff(1),
            Step::Refund(1),
            Step::Complete,
        ] {
            let mut order = order(from);
            let before = order.clone();
            assert_eq!(step(&mut order, next), Err(Refusal::State(from)), "{next:?}");
            assert_eq!(order, before, "{next:?}");
        }
    }
}

#[test]
fn a_parcel_goes_one_way_and_holds_no_more_than_is_open() {
    let mut order = on_its_way();
    for next in [Step::Deliver(1), Step::Lose(1), Step::Charge(1), Step::Refund(1)] {
        assert_eq!(step(&mut order, next), Err(Refusal::Units), "before it left: {next:?}");
    }
    let twice = [parcel(1), parcel(1)].concat();
    let before = order.clone();
    assert_eq!(order.ship(MUGS, twice, NOON), Err(Refusal::Units));
    assert_eq!(order, before, "a refusal changes nothing");
    step(&mut order, Step::Ship(1)).unwrap();
    assert_eq!(step(&mut order, Step::Ship(1)), Err(Refusal::Units));
    assert_eq!(step(&mut order, Step::CallOff(1)), Err(Refusal::Units));
    step(&mut order, Step::Deliver(1)).unwrap();
    assert_eq!(step(&mut order, Step::Lose(1)), Err(Refusal::Units));
}

#[test]
fn a_cancellation_is_lost_to_the_carrier_and_not_begun_if_it_has_everything() {
    let mut order = on_its_way();
    step(&mut order, Step::Ship(1)).unwrap();
    order.cancel(by_customer(), NOON).unwrap();
    assert_eq!(order.lose_cancel(NOON), Ok(vec![Event::CancelLost]));
    assert_eq!(order.state, State::Confirmed);
    step(&mut order, Step::Ship(2)).unwrap();
    assert_eq!(order.cancel(by_customer(), NOON), Err(Refusal::NotCancellable));
    // One that was never confirmed has nothing to go back to.
    let mut pending = placed();
    pending.cancel(by_customer(), NOON).unwrap();
    assert_eq!(pending.lose_cancel(NOON), Err(Refusal::State(State::Cancelling)));
}

#[test]
fn the_state_of_the_goods_is_the_first_row_that_holds() {
    use FulfillmentState::{
        Delivered, PartiallyDelivered, PartiallyReturned, PartiallyShipped, Returned, Shipped,
        Unfulfilled,
    };
    // Of three: cancelled, shipped, delivered, returned.
    for (cancelled, shipped, delivered, returned, state) in [
        (0, 0, 0, 0, Unfulfilled),
        (3, 0, 0, 0, Unfulfilled),
        (0, 1, 0, 0, PartiallyShipped),
        (0, 3, 0, 0, Shipped),
        (2, 1, 0, 0, Shipped),
        (0, 3, 1, 0, PartiallyDelivered),
        (0, 3, 3, 0, Delivered),
        (1, 2, 2, 0, Delivered),
        (0, 3, 3, 1, PartiallyReturned),
        (0, 3, 2, 2, PartiallyReturned),
        (0, 3, 3, 3, Returned),
        (1, 2, 2, 2, Returned),
    ] {
        let mut order = placed();
        order.lines.truncate(1);
        let line = &mut order.lines[0];
        (line.quantity, line.cancelled) = (3, cancelled);
        (line.shipped, line.delivered, line.returned) = (shipped, delivered, returned);
        assert_eq!(
            order.fulfillment_state(),
            state,
            "{cancelled} {shipped} {delivered} {returned}"
        );
    }
}

fn amounts() -> impl Strategy<Value = Vec<(i64, i64)>> {
    prop::collection::vec((0_i64..100_000_000, 1_i64..1_000), 1..101)
}

/// What can happen to an order, in any order.
#[derive(Clone, Copy, Debug)]
enum Step {
    Ask,
    Accept,
    Open,
    Authorize,
    Doubt,
    Void,
    Confirm,
    Cancel,
    End,
    Ship(u128),
    Charge(u128),
    Deliver(u128),
    Lose(u128),
    CallOff(u128),
    Refund(u128),
    Release,
    LoseCancel,
    Complete,
}

fn step(order: &mut Order, step: Step) -> Moved {
    let total = order.totals.total;
    match step {
        Step::Ask => {
            let ask = price_ask(&placed(), 1_099);
            order.ask(ask, NOON + PATIENCE, NOON)
        }
        Step::Accept => order.accept(euro(4_198), PATIENCE, NOON),
        Step::Open => order.pay(order.payment.open(), PATIENCE, NOON),
        Step::Authorize => order.pay(order.payment.authorized(total), PATIENCE, NOON),
        Step::Doubt => order.pay(order.payment.in_doubt(), PATIENCE, NOON),
        Step::Void => order.pay(order.payment.void(), PATIENCE, NOON),
        Step::Confirm => order.confirm(NOON),
        Step::Cancel => order.cancel(by_customer(), NOON),
        Step::End => order.end(timed_out(), NOON),
        Step::Ship(id) => order.ship(Uuid::from_u128(id), parcel(id), NOON),
        Step::Charge(id) => {
            let price = order.price_of(&parcel(id)).unwrap().minor;
            let paid = order.payment;
            let left = (paid.authorized_minor - price).max(0);
            let taken = paid.taken(paid.captured_minor + price, paid.refunded_minor, left);
            order.charge(Uuid::from_u128(id), taken, NOON)
        }
        Step::Deliver(id) => order.deliver(Uuid::from_u128(id), NOON),
        Step::Lose(id) => order.lose(Uuid::from_u128(id), Cause::Lost, NOON),
        Step::CallOff(id) => order.call_off(Uuid::from_u128(id), parcel(id), NOON),
        Step::Refund(id) => {
            let price = order.price_of(&parcel(id)).unwrap().minor;
            order.refund(Uuid::from_u128(id), order.payment.refunded_minor + price, NOON)
        }
        Step::Release => {
            let paid = order.payment;
            let taken = paid.taken(paid.captured_minor, paid.refunded_minor, 0);
            let left = if paid.captured_minor > 0 { taken } else { paid.void() };
            order.pay(left, PATIENCE, NOON)
        }
        Step::LoseCancel => order.lose_cancel(NOON),
        Step::Complete => order.complete(NOON),
    }
}

proptest! {
    #[test]
    fn lines_sum_to_the_total_exactly(amounts in amounts()) {
        let lines: Vec<Wanted> = amounts.iter().map(|(_, q)| wanted("MUG", *q)).collect();
        let prices: Vec<Price> =
            amounts.iter().map(|(unit, _)| price_of("MUG", euro(*unit), "1")).collect();
        let lines = price::price(&lines, &prices).unwrap();
        let totals = Totals::of(&lines).unwrap();
        let exact: i64 = amounts.iter().map(|(unit, quantity)| unit * quantity).sum();
        prop_assert_eq!(totals.total, euro(exact));
        prop_assert_eq!(lines.iter().map(|line| line.total.minor).sum::<i64>(), exact);
        let parts = totals.items.minor - totals.discount.minor + totals.tax.minor + totals.shipping.minor;
        prop_assert_eq!(parts, exact);
    }

    #[test]
    fn an_offer_costs_what_the_lines_cost_once_it_is_taken(amounts in amounts(), left in 0_i64..5_000) {
        let lines: Vec<Wanted> = amounts.iter().map(|(_, q)| wanted("MUG", *q)).collect();
        let prices: Vec<Price> =
            amounts.iter().map(|(unit, _)| price_of("MUG", euro(*unit), "1")).collect();
        let lines = price::price(&lines, &prices).unwrap();
        let (mut order, _) =
            Order::place(Uuid::nil(), draft(), lines, &Agreement::Current, NOON).unwrap();
        let available = BTreeMap::from([("MUG".to_owned(), left)]);
        if let Some(offer) = order.reduced(&available).unwrap() {
            let total = offer.total;
            order.ask(Ask::Stock(offer), NOON + PATIENCE, NOON).unwrap();
            order.accept(total, PATIENCE, NOON).unwrap();
            prop_assert_eq!(order.totals.total, total);
            prop_assert_eq!(order.lines.iter().map(|line| line.total.minor).sum::<i64>(), total.minor);
            prop_assert!(order.lines.iter().map(Line::kept).sum::<i64>() <= left);
        }
    }

    #[test]
    fn nothing_leaves_an_end_and_every_event_is_a_change(
        steps in prop::collection::vec(
            prop_oneof![
                Just(Step::Ask), Just(Step::Accept), Just(Step::Open), Just(Step::Authorize),
                Just(Step::Doubt), Just(Step::Void), Just(Step::Confirm), Just(Step::Cancel),
                Just(Step::End), Just(Step::Release), Just(Step::LoseCancel), Just(Step::Complete),
                (1..3_u128).prop_map(Step::Ship), (1..3_u128).prop_map(Step::Charge),
                (1..3_u128).prop_map(Step::Deliver), (1..3_u128).prop_map(Step::Lose),
                (1..3_u128).prop_map(Step::CallOff), (1..3_u128).prop_map(Step::Refund),
            ],
            1..60,
        ),
        confirmed in proptest::prelude::any::<bool>(),
    ) {
        let mut order = if confirmed { on_its_way() } else { placed() };
        let mut ended = false;
        for next in steps {
            let before = order.clone();
            match step(&mut order, next) {
                Err(_) => prop_assert_eq!(&order, &before),
                Ok(events) => {
                    prop_assert!(!ended, "{:?} after the end", next);
                    let seen = |order: &Order| {
                        let paid = (order.payment.captured_minor, order.payment.refunded_minor);
                        (order.state, order.payment_state(), paid, order.lines.clone())
                    };
                    let moved = seen(&before) != seen(&order);
                    prop_assert_eq!(!events.is_empty(), moved);
                }
            }
            for line in &order.lines {
                prop_assert!(line.cancelled >= 0 && line.open() >= 0);
                prop_assert!(line.shipped >= line.delivered && line.delivered >= line.returned);
                let total = line.unit_price.minor * line.kept();
                prop_assert_eq!(line.total.minor, total);
            }
            if order.state == State::Completed {
                let kept = order.payment.captured_minor - order.payment.refunded_minor;
                prop_assert_eq!(kept, order.totals.total.minor);
                prop_assert_eq!(order.payment.authorized_minor, 0);
                prop_assert!(order.lines.iter().all(|line| line.delivered == line.kept()));
            }
            ended = order.state.is_end();
        }
    }
}
