//! Each claim is a function of a database; it is run on SQLite, and on PostgreSQL where there is
//! one.

use std::{sync::Arc, time::Duration};

use mesh::{
    clock,
    money::{Currency, Money},
    testing::{self, TestDb},
};
use sea_orm::FromQueryResult;
use time::macros::datetime;

use super::*;
use crate::domain::{
    Address, Agreement, Ask, CancelReason, Cancellation, Cause, Draft, Price, RejectReason,
    Rejection, StockPolicy, Units, Wanted, price,
};

const NOON: OffsetDateTime = datetime!(2026-01-01 12:00 UTC);
const QUARTER: time::Duration = time::Duration::minutes(15);

#[derive(Debug, PartialEq, Eq, FromQueryResult)]
struct Published {
    seq: i64,
    kind: String,
}

async fn sqlite() -> TestDb {
    testing::sqlite(Store::migrations()).await
}

async fn postgres() -> TestDb {
    testing::postgres(Store::migrations()).await
}

fn euro(minor: i64) -> Money {
    Money::new(minor, Currency::parse("EUR").unwrap())
}

fn order(customer: &str) -> Order {
    let wanted =
        ["MUG", "HAT"].map(|sku| Wanted { variant: format!("variants/{sku}"), quantity: 2 });
    let prices = ["MUG", "HAT"].map(|sku| Price {
        variant: format!("variants/{sku}"),
        title: format!("A fine {sku}"),
        unit: euro(999),
        version: "1".to_owned(),
    });
    let draft = Draft {
        customer: customer.to_owned(),
        customer_email: "ada@example.com".to_owned(),
        ship_to: Some(Address {
            region_code: "DE".to_owned(),
            address_lines: vec!["Gasse 1".to_owned(), "Hinterhaus".to_owned()],
            ..Address::default()
        }),
        payment_method: "tok_visa".to_owned(),
        stock_policy: StockPolicy::PartialWithConsent,
        quoted: true,
        patience: QUARTER,
    };
    let lines = price::price(&wanted, &prices).unwrap();
    Order::place(clock::id(), draft, lines, &Agreement::Current, NOON).unwrap().0
}

fn placing(order: &Order) -> Change {
    change(order.clone(), 0, vec![Event::Created])
}

fn change(order: Order, read: i64, events: Vec<Event>) -> Change {
    Change { order, read, events, actor: "users/1".to_owned(), at: NOON }
}

/// What a move makes of the order.
fn moved(stored: &Stored, moves: impl Fn(&mut Order) -> crate::domain::Moved) -> Change {
    let mut order = stored.order.clone();
    let events = moves(&mut order).unwrap();
    change(order, stored.revision, events)
}

fn nothing() -> Also<()> {
    Arc::new(|_txn| Box::pin(async { Ok(()) }))
}

fn failing() -> Also<()> {
    Arc::new(|_txn| Box::pin(async { Err(WriteError::Saga("fails")) }))
}

fn kept(request_id: u128, body: &str, answer: &str) -> Kept {
    let key = Key::new("users/1", "CreateOrder", Uuid::from_u128(request_id), &body.to_owned());
    Kept { key, answer: Answer::success(&answer.to_owned()) }
}

async fn published(store: &Store, order: &Order) -> Vec<(i64, String)> {
    let sql = "SELECT seq, type AS kind FROM outbox WHERE aggregate = $1 ORDER BY seq";
    let values = vec![crate::events::name(order).into()];
    let found: Vec<Published> =
        mesh::store::rows(store.mesh().reader(), "read the outbox", sql, values).await.unwrap();
    found.into_iter().map(|row| (row.seq, row.kind)).collect()
}

async fn an_order_comes_back_as_it_was_written(db: TestDb) {
    let store = Store::on(db.store.clone());
    let mut order = order("users/1");
    store.place(placing(&order), None, nothing()).await.unwrap();
    let stored = store.order(order.id).await.unwrap().unwrap();
    assert_eq!(stored, Stored { order: order.clone(), revision: 1 });

    let offer = order.reduced(&[("MUG".to_owned(), 1)].into()).unwrap().unwrap();
    let total = offer.total;
    let ask = moved(&stored, |order| order.ask(Ask::Stock(offer.clone()), NOON + QUARTER, NOON));
    order = ask.order.clone();
    store.change(ask, None, nothing()).await.unwrap();
    let stored = store.order(order.id).await.unwrap().unwrap();
    assert_eq!(stored, Stored { order, revision: 2 });

    let accept = moved(&stored, |order| order.accept(total, QUARTER, NOON));
    let order = accept.order.clone();
    store.change(accept, None, nothing()).await.unwrap();
    let stored = store.order(order.id).await.unwrap().unwrap();
    assert_eq!(stored, Stored { order, revision: 3 });

    let pay = moved(&stored, |order| order.pay(order.payment.authorized(total), QUARTER, NOON));
    store.change(pay, None, nothing()).await.unwrap();
    let stored = store.order(stored.order.id).await.unwrap().unwrap();
    let confirm = moved(&stored, |order| order.confirm(NOON));
    let order = confirm.order.clone();
    store.change(confirm, None, nothing()).await.unwrap();
    let stored = store.order(order.id).await.unwrap().unwrap();
    assert_eq!(stored, Stored { order, revision: 5 });
}

async fn a_rejected_order_keeps_why(db: TestDb) {
    let store = Store::on(db.store.clone());
    let order = order("users/1");
    store.place(placing(&order), None, nothing()).await.unwrap();
    let stored = store.order(order.id).await.unwrap().unwrap();
    let rejection =
        Rejection::plain(RejectReason::OutOfStock).with("sku", "MUG").with("available", 3);
    let end = moved(&stored, |order| order.end(rejection.clone(), NOON));
    store.change(end, None, nothing()).await.unwrap();
    let stored = store.order(order.id).await.unwrap().unwrap();
    assert_eq!(stored.order.rejection, Some(rejection));
    let entries = store.events(order.id, 0, 10).await.unwrap();
    let notes: Vec<_> =
        entries.iter().map(|entry| (entry.kind.as_str(), entry.note.as_str())).collect();
    assert_eq!(notes, [("order.created", ""), ("order.rejected", "OUT_OF_STOCK")]);
}

async fn a_change_is_kept_with_its_events_or_not_at_all(db: TestDb) {
    let store = Store::on(db.store.clone());
    let order = order("users/1");
    let placed = store.place(placing(&order), None, failing()).await;
    assert!(matches!(placed, Err(WriteError::Saga(_))));
    assert_eq!(store.order(order.id).await.unwrap(), None);
    assert_eq!(published(&store, &order).await, []);

    store.place(placing(&order), None, nothing()).await.unwrap();
    let stored = store.order(order.id).await.unwrap().unwrap();
    let cancellation = Cancellation {
        reason: CancelReason::Duplicate,
        actor: "users/1".to_owned(),
        note: "twice".to_owned(),
    };
    let cancel = moved(&stored, |order| order.cancel(cancellation.clone(), NOON));
    assert!(store.change(cancel.clone(), None, failing()).await.is_err());
    assert_eq!(store.order(order.id).await.unwrap(), Some(stored));

    store.change(cancel, None, nothing()).await.unwrap();
    let expected = [(1, "order.created".to_owned()), (2, "order.cancelling".to_owned())];
    assert_eq!(published(&store, &order).await, expected);
    let entries = store.events(order.id, 1, 10).await.unwrap();
    assert_eq!(entries[0].note, "DUPLICATE: twice");
}

async fn the_slower_of_two_writers_is_refused_and_publishes_nothing(db: TestDb) {
    let store = Store::on(db.store.clone());
    let order = order("users/1");
    store.place(placing(&order), None, nothing()).await.unwrap();
    let stored = store.order(order.id).await.unwrap().unwrap();
    let pay = moved(&stored, |order| order.pay(order.payment.open(), QUARTER, NOON));
    let doubt = moved(&stored, |order| order.pay(order.payment.in_doubt(), QUARTER, NOON));
    let (one, two) =
        tokio::join!(store.change(pay, None, nothing()), store.change(doubt, None, nothing()),);
    let refused = [one, two].into_iter().filter_map(Result::err).collect::<Vec<_>>();
    assert!(matches!(refused[..], [WriteError::Changed]), "{refused:?}");
    assert_eq!(published(&store, &order).await.len(), 2);
    assert_eq!(store.order(order.id).await.unwrap().unwrap().revision, 2);
}

async fn of_equal_requests_one_places_an_order_and_all_hear_the_same(db: TestDb) {
    let store = Store::on(db.store.clone());
    let attempts = (0..20).map(|number| {
        let order = order("users/1");
        store.place(placing(&order), Some(kept(7, "body", &number.to_string())), nothing())
    });
    let placed = futures_util::future::join_all(attempts).await;
    assert_eq!(placed.iter().filter(|placed| placed.is_ok()).count(), 1);
    let repeated =
        |placed: &Result<(), WriteError>| matches!(placed, Ok(()) | Err(WriteError::Repeated));
    assert!(placed.iter().all(repeated), "{placed:?}");
    assert_eq!(store.page(None, None, 100).await.unwrap().len(), 1);

    let winner = placed.iter().position(Result::is_ok).unwrap();
    let answer = store.answered(&kept(7, "body", "").key).await.unwrap().unwrap();
    assert_eq!(answer, Answer::success(&winner.to_string()));
    let other = store.answered(&kept(7, "another body", "").key).await;
    assert!(matches!(other, Err(idempotency::Refused::Reused)), "{other:?}");
}

async fn a_customer_has_one_order_for_a_request_although_its_answer_is_forgotten(db: TestDb) {
    let store = Store::on(db.store.clone());
    let first = order("users/1");
    store.place(placing(&first), Some(kept(7, "body", "1")), nothing()).await.unwrap();
    let sql = "DELETE FROM request_key";
    let forgotten = db
        .store
        .transaction::<u64, mesh::store::Failure, _>(move |txn| {
            Box::pin(mesh::store::execute(txn, "forget", sql, vec![]))
        })
        .await;
    assert_eq!(forgotten.unwrap(), 1);
    let again =
        store.place(placing(&order("users/1")), Some(kept(7, "body", "2")), nothing()).await;
    assert!(matches!(again, Err(WriteError::Reused)), "{again:?}");
    let other = order("users/2");
    store.place(placing(&other), Some(kept(7, "body", "2")), nothing()).await.unwrap();
}

async fn an_id_that_is_taken_is_told_from_a_request_that_is(db: TestDb) {
    let store = Store::on(db.store.clone());
    let first = order("users/1");
    store.place(placing(&first), None, nothing()).await.unwrap();
    let second = Order { customer: "users/2".to_owned(), ..first.clone() };
    let taken = store.place(placing(&second), None, nothing()).await;
    assert!(matches!(taken, Err(WriteError::Exists)), "{taken:?}");
    let stored = store.order(first.id).await.unwrap().unwrap();
    assert_eq!(stored.order.customer, "users/1");
}

async fn pages_go_from_the_newest_to_the_oldest_of_one_customer_or_of_all(db: TestDb) {
    let store = Store::on(db.store.clone());
    let mut ids = Vec::new();
    for number in 0_u32..5 {
        let order = order(if number == 2 { "users/2" } else { "users/1" });
        store.place(placing(&order), None, nothing()).await.unwrap();
        ids.insert(0, order.id);
    }
    let found = async |customer: Option<&str>, before, size| {
        let page = store.page(customer, before, size).await.unwrap();
        page.into_iter().map(|stored| stored.order.id).collect::<Vec<_>>()
    };
    assert_eq!(found(None, None, 2).await, ids[..2]);
    assert_eq!(found(None, Some(ids[1]), 10).await, ids[2..]);
    assert_eq!(found(Some("users/2"), None, 10).await, [ids[2]]);
    assert_eq!(found(Some("users/1"), Some(ids[1]), 1).await, [ids[3]]);
    assert_eq!(store.orders(&ids[1..4]).await.unwrap().len(), 3);
}

async fn a_call_that_waits_hears_of_the_end_and_no_later_than_its_time(db: TestDb) {
    let store = Store::on(db.store.clone());
    let order = order("users/1");
    store.place(placing(&order), None, nothing()).await.unwrap();
    let now = store.settled(order.id, clock::instant()).await.unwrap().unwrap();
    assert_eq!(now.revision, 1, "as it stands when the time is over");

    let end = moved(&now, |order| order.end(Rejection::plain(RejectReason::TimedOut), NOON));
    let (settled, changed) = tokio::join!(
        store.settled(order.id, clock::instant() + Duration::from_secs(5)),
        store.change(end, None, nothing()),
    );
    changed.unwrap();
    assert_eq!(settled.unwrap().unwrap().revision, 2);
    assert_eq!(store.settled(Uuid::nil(), clock::instant()).await.unwrap(), None);
}

async fn what_is_on_its_way_comes_back_as_it_was_written(db: TestDb) {
    let store = Store::on(db.store.clone());
    let order = order("users/1");
    store.place(placing(&order), None, nothing()).await.unwrap();
    let units = |line: &str| vec![Units { line_id: line.to_owned(), quantity: 2 }];
    let [one, two] = [Uuid::from_u128(1), Uuid::from_u128(2)];
    let total = order.totals.total;
    type Moves = Box<dyn Fn(&mut Order) -> crate::domain::Moved>;
    let all: Vec<Moves> = vec![
        Box::new(move |order| order.pay(order.payment.authorized(total), QUARTER, NOON)),
        Box::new(|order| order.confirm(NOON)),
        Box::new(move |order| order.ship(one, units("1"), NOON)),
        Box::new(move |order| order.charge(one, order.payment.taken(1_998, 0, 1_998), NOON)),
        Box::new(move |order| order.ship(two, units("2"), NOON)),
        Box::new(move |order| order.charge(two, order.payment.taken(3_996, 0, 0), NOON)),
        Box::new(move |order| order.deliver(two, NOON)),
        Box::new(move |order| order.lose(one, Cause::Lost, NOON)),
        Box::new(move |order| order.refund(one, 1_998, NOON)),
        Box::new(|order| order.complete(NOON)),
    ];
    for moves in all {
        let stored = store.order(order.id).await.unwrap().unwrap();
        let change = moved(&stored, moves);
        let after = Stored { order: change.order.clone(), revision: change.revision() };
        store.change(change, None, nothing()).await.unwrap();
        assert_eq!(store.order(order.id).await.unwrap().unwrap(), after);
    }
    let entries = store.events(order.id, 0, 100).await.unwrap();
    let last = entries.last().unwrap();
    assert_eq!((last.kind.as_str(), last.state), ("order.completed", State::Completed));
    assert_eq!(last.fulfillment_state, FulfillmentState::Delivered);
    assert_eq!(last.payment_state, PaymentState::PartiallyRefunded);
    let lost = entries.iter().find(|entry| entry.kind == "order.line_cancelled").unwrap();
    assert_eq!(lost.note, "LOST: 1\u{d7}2");
}

async fn a_trail_tells_every_revision_once_although_nobody_says_so(db: TestDb) {
    let store = Store::on(db.store.clone());
    let order = order("users/1");
    store.place(placing(&order), None, nothing()).await.unwrap();
    let mut trail = store.trail(order.id, 0);
    let soon = || clock::instant() + Duration::from_millis(50);
    assert_eq!(trail.next(soon()).await.unwrap().len(), 1);
    assert_eq!(trail.next(soon()).await.unwrap(), [], "nothing until then");

    // Written by another process: this one is not told.
    let other = Store::on(db.store.clone());
    let stored = store.order(order.id).await.unwrap().unwrap();
    let open = moved(&stored, |order| order.pay(order.payment.open(), QUARTER, NOON));
    other.change(open, None, nothing()).await.unwrap();
    assert_eq!(trail.next(soon()).await.unwrap()[0].revision, 2);

    // Told before the commit is through, as a saga does.
    let stored = store.order(order.id).await.unwrap().unwrap();
    let doubt = moved(&stored, |order| order.pay(order.payment.in_doubt(), QUARTER, NOON));
    store.tell(order.id, 3);
    let late = clock::instant() + Duration::from_secs(20);
    let (found, changed) = tokio::join!(trail.next(late), other.change(doubt, None, nothing()));
    changed.unwrap();
    assert_eq!(found.unwrap()[0].revision, 3);
    let mut behind = store.trail(order.id, 5);
    assert_eq!(behind.next(soon()).await.unwrap(), []);
}

/// The database as the first release made it.
fn first() -> Vec<mesh::store::Migration> {
    vec![step("orders_0001_orders", include_str!("../migrations/orders_0001_orders.sql"))]
}

async fn orders_of_the_release_before_are_kept(before: TestDb) {
    let filled = before.store.transaction::<(), Failure, _>(|txn| {
        Box::pin(async move {
            for sql in OLD {
                mesh::store::execute(txn, "fill", sql, vec![]).await?;
            }
            Ok(())
        })
    });
    filled.await.unwrap();
    before.store.close().await.unwrap();
    let store = Store::connect(&before.url).await.unwrap();
    let id = Uuid::parse_str("0192f0c1-2345-7abc-8def-0123456789ab").unwrap();
    let stored = store.order(id).await.unwrap().unwrap();
    assert_eq!((stored.order.state, stored.revision), (State::Confirmed, 2));
    assert_eq!((stored.order.lines.len(), stored.order.lines[0].open()), (1, 2));
    assert_eq!(stored.order.parcels, []);
    assert_eq!(store.events(id, 0, 10).await.unwrap().len(), 1);
    let units = vec![Units { line_id: "1".to_owned(), quantity: 2 }];
    let ship = moved(&stored, |order| order.ship(Uuid::nil(), units.clone(), NOON));
    store.change(ship, None, nothing()).await.unwrap();
    store.mesh().close().await.unwrap();
}

/// A confirmed order as the first release wrote it.
const OLD: [&str; 3] = [
    "INSERT INTO orders VALUES ('0192f0c1-2345-7abc-8def-0123456789ab', 'users/1', 'a@example.com', \
     'CONFIRMED', 'AUTHORIZED', 'UNFULFILLED', 'SUCCEEDED', 1998, FALSE, 'EUR', 1998, 0, 0, 0, 1998, \
     1998, FALSE, NULL, NULL, NULL, 'tok', 'ALL_OR_NOTHING', 1, 1, 1, 1, NULL, 2)",
    "INSERT INTO order_line (order_id, number, variant, title, unit_price_minor, price_version, \
     discount_minor, tax_minor, total_minor, ordered, cancelled, open) VALUES \
     ('0192f0c1-2345-7abc-8def-0123456789ab', 1, 'variants/MUG', 'A mug', 999, '1', 0, 0, 1998, 2, 0, 2)",
    "INSERT INTO order_event VALUES ('0192f0c1-2345-7abc-8def-0123456789ab', 1, 'order.created', 1, \
     'users/1', 'PENDING', 'UNPAID', '')",
];

mod on_sqlite {
    use super::sqlite;

    #[tokio::test]
    async fn what_is_on_its_way_comes_back_as_it_was_written() {
        super::what_is_on_its_way_comes_back_as_it_was_written(sqlite().await).await;
    }

    #[tokio::test]
    async fn a_trail_tells_every_revision_once_although_nobody_says_so() {
        super::a_trail_tells_every_revision_once_although_nobody_says_so(sqlite().await).await;
    }

    #[tokio::test]
    async fn orders_of_the_release_before_are_kept() {
        let before = mesh::testing::sqlite(super::first()).await;
        super::orders_of_the_release_before_are_kept(before).await;
    }

    #[tokio::test]
    async fn an_order_comes_back_as_it_was_written() {
        super::an_order_comes_back_as_it_was_written(sqlite().await).await;
    }

    #[tokio::test]
    async fn a_rejected_order_keeps_why() {
        super::a_rejected_order_keeps_why(sqlite().await).await;
    }

    #[tokio::test]
    async fn a_change_is_kept_with_its_events_or_not_at_all() {
        super::a_change_is_kept_with_its_events_or_not_at_all(sqlite().await).await;
    }

    #[tokio::test]
    async fn the_slower_of_two_writers_is_refused_and_publishes_nothing() {
        super::the_slower_of_two_writers_is_refused_and_publishes_nothing(sqlite().await).await;
    }

    #[tokio::test]
    async fn of_equal_requests_one_places_an_order_and_all_hear_the_same() {
        super::of_equal_requests_one_places_an_order_and_all_hear_the_same(sqlite().await).await;
    }

    #[tokio::test]
    async fn a_customer_has_one_order_for_a_request_although_its_answer_is_forgotten() {
        let db = sqlite().await;
        super::a_customer_has_one_order_for_a_request_although_its_answer_is_forgotten(db).await;
    }

    #[tokio::test]
    async fn an_id_that_is_taken_is_told_from_a_request_that_is() {
        super::an_id_that_is_taken_is_told_from_a_request_that_is(sqlite().await).await;
    }

    #[tokio::test]
    async fn pages_go_from_the_newest_to_the_oldest_of_one_customer_or_of_all() {
        let db = sqlite().await;
        super::pages_go_from_the_newest_to_the_oldest_of_one_customer_or_of_all(db).await;
    }

    #[tokio::test]
    async fn a_call_that_waits_hears_of_the_end_and_no_later_than_its_time() {
        super::a_call_that_waits_hears_of_the_end_and_no_later_than_its_time(sqlite().await).await;
    }
}

mod on_postgres {
    use super::postgres;

    #[tokio::test]
    #[ignore = "needs postgres"]
    async fn orders_of_the_release_before_are_kept() {
        let before = mesh::testing::postgres(super::first()).await;
        super::orders_of_the_release_before_are_kept(before).await;
    }

    #[tokio::test]
    #[ignore = "needs postgres"]
    async fn what_is_on_its_way_comes_back_as_it_was_written() {
        super::what_is_on_its_way_comes_back_as_it_was_written(postgres().await).await;
    }

    #[tokio::test]
    #[ignore = "needs postgres"]
    async fn a_trail_tells_every_revision_once_although_nobody_says_so() {
        super::a_trail_tells_every_revision_once_although_nobody_says_so(postgres().await).await;
    }

    #[tokio::test]
    #[ignore = "needs postgres"]
    async fn an_order_comes_back_as_it_was_written() {
        super::an_order_comes_back_as_it_was_written(postgres().await).await;
    }

    #[tokio::test]
    #[ignore = "needs postgres"]
    async fn a_rejected_order_keeps_why() {
        super::a_rejected_order_keeps_why(postgres().await).await;
    }

    #[tokio::test]
    #[ignore = "needs postgres"]
    async fn a_change_is_kept_with_its_events_or_not_at_all() {
        super::a_change_is_kept_with_its_events_or_not_at_all(postgres().await).await;
    }

    #[tokio::test]
    #[ignore = "needs postgres"]
    async fn the_slower_of_two_writers_is_refused_and_publishes_nothing() {
        super::the_slower_of_two_writers_is_refused_and_publishes_nothing(postgres().await).await;
    }

    #[tokio::test]
    #[ignore = "needs postgres"]
    async fn of_equal_requests_one_places_an_order_and_all_hear_the_same() {
        super::of_equal_requests_one_places_an_order_and_all_hear_the_same(postgres().await).await;
    }

    #[tokio::test]
    #[ignore = "needs postgres"]
    async fn a_customer_has_one_order_for_a_request_although_its_answer_is_forgotten() {
        let db = postgres().await;
        super::a_customer_has_one_order_for_a_request_although_its_answer_is_forgotten(db).await;
    }

    #[tokio::test]
    #[ignore = "needs postgres"]
    async fn an_id_that_is_taken_is_told_from_a_request_that_is() {
        super::an_id_that_is_taken_is_told_from_a_request_that_is(postgres().await).await;
    }

    #[tokio::test]
    #[ignore = "needs postgres"]
    async fn pages_go_from_the_newest_to_the_oldest_of_one_customer_or_of_all() {
        let db = postgres().await;
        super::pages_go_from_the_newest_to_the_oldest_of_one_customer_or_of_all(db).await;
    }

    #[tokio::test]
    #[ignore = "needs postgres"]
    async fn a_call_that_waits_hears_of_the_end_and_no_later_than_its_time() {
        super::a_call_that_waits_hears_of_the_end_and_no_later_than_its_time(postgres().await)
            .await;
    }
}
