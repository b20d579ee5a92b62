use std::{collections::BTreeSet, time::Duration};

use mesh::{clock, testing::TestDb};

use super::*;
use crate::{
    domain::{Kind, Preferences, State},
    harness::{Order, World},
};

mesh::on_both_databases! { Store;
    what_fails_in_a_consumers_transaction_leaves_nothing
    lines_are_remembered_as_they_were_told_last
    what_waits_in_vain_is_given_up
    what_is_old_is_erased_and_what_is_to_be_sent_is_not
    the_slower_of_two_writers_of_preferences_is_refused
    what_an_audit_reads_names_orders_and_no_addresses
}

async fn what_fails_in_a_consumers_transaction_leaves_nothing(db: TestDb) {
    let world = World::on(db);
    let order = Order::new();
    let (inbox, event) = (world.inbox.clone(), order.created());
    let failed: Result<(), Failure> = world
        .db
        .store
        .transaction(move |txn| {
            let (inbox, event) = (inbox.clone(), event.clone());
            Box::pin(async move {
                mesh::consume::Handler::handle(&inbox, txn, &event).await.unwrap();
                Err(Failure::new("move the cursor", "it was moved by another replica"))
            })
        })
        .await;
    failed.unwrap_err();
    assert_eq!(world.told(&order).await, []);
    world.took(&order.dispatched(clock::id())).await;
    assert_eq!(world.states(&order).await, [State::Waiting], "nor is the address known");
}

async fn lines_are_remembered_as_they_were_told_last(db: TestDb) {
    use proto::orders::v1::{OrderLine, OrderRevised};

    let world = World::on(db);
    let order = Order::new();
    world.took(&order.created_with("A mug")).await;
    let line = OrderLine {
        line_id: "1".to_owned(),
        title: "A cup".to_owned(),
        quantity: 1,
        ..Default::default()
    };
    let (name, customer) = (order.name(), order.customer());
    let revised = OrderRevised { order: name, customer, lines: vec![line], totals: None };
    world.took(&crate::harness::event("order.revised", &revised)).await;
    world.took(&order.confirmed()).await;
    let told = world.told(&order).await;
    assert_eq!(told.len(), 2, "a revision is remembered, not told");
    assert!(told[0].letter.body.contains("2 × A mug: 19.98 EUR"), "{}", told[0].letter.body);
    assert!(told[1].letter.body.contains("1 × A cup\n"), "{}", told[1].letter.body);
}

async fn what_waits_in_vain_is_given_up(db: TestDb) {
    let world = World::on(db);
    let order = Order::new();
    world.took(&order.dispatched(clock::id())).await;
    let hour = Duration::from_secs(3_600);
    assert_eq!(world.store.give_up(hour).await.unwrap(), 0);
    world.change("UPDATE notification SET created_at = created_at - 7200000000").await;
    assert_eq!(world.store.give_up(hour).await.unwrap(), 1);
    let [told] = &world.told(&order).await[..] else { panic!("one notification") };
    assert_eq!((told.state, told.problem.as_str()), (State::Failed, "no address became known"));
    // The address comes too late.
    world.took(&order.confirmed()).await;
    assert_eq!(world.states(&order).await, [State::Failed, State::Pending]);
}

async fn what_is_old_is_erased_and_what_is_to_be_sent_is_not(db: TestDb) {
    let world = World::on(db);
    let (order, unsent) = (Order::new(), Order::new());
    world.took(&order.created()).await;
    world.pass().await;
    world.took(&unsent.created()).await;
    let hour = Duration::from_secs(3_600);
    assert_eq!(world.store.erase(hour).await.unwrap(), 0);
    world.change("UPDATE notification SET created_at = created_at - 7200000000").await;
    assert_eq!(world.store.erase(hour).await.unwrap(), 1);
    world.change("UPDATE recipient SET updated_at = updated_at - 7200000000").await;
    assert_eq!(world.store.erase(hour).await.unwrap(), 2, "addresses too");
    assert_eq!(world.told(&order).await, []);
    assert_eq!(world.states(&unsent).await, [State::Pending]);
}

async fn the_slower_of_two_writers_of_preferences_is_refused(db: TestDb) {
    let world = World::on(db);
    let user = Order::new().user;
    let save = async |kinds: &[Kind], revision| {
        let mut preferences = Preferences::of(user);
        let kinds: BTreeSet<_> = kinds.iter().copied().collect();
        preferences.mute(kinds, clock::now()).unwrap();
        world.store.save_preferences(Stored { preferences, revision }, None).await
    };
    let both = [Kind::OrderReceived, Kind::OrderCancelled];
    assert_eq!(world.store.preferences(user).await.unwrap().revision, 0);
    save(&both, 0).await.unwrap();
    assert!(matches!(save(&[], 0).await, Err(WriteError::Changed)));
    let stored = world.store.preferences(user).await.unwrap();
    assert_eq!((stored.revision, stored.preferences.muted), (1, both.into()));
    save(&[Kind::OrderCancelled], 1).await.unwrap();
    assert!(matches!(save(&[], 1).await, Err(WriteError::Changed)));
    save(&[], 2).await.unwrap();
    let stored = world.store.preferences(user).await.unwrap();
    assert_eq!((stored.revision, stored.preferences.muted), (3, BTreeSet::new()));
}

async fn what_an_audit_reads_names_orders_and_no_addresses(db: TestDb) {
    #[derive(Debug, sea_orm::FromQueryResult)]
    struct Exported {
        order_name: String,
        kind: String,
        state: String,
    }
    let world = World::on(db);
    let order = Order::new();
    world.took(&order.confirmed()).await;
    let [Table { name, sql }] = EXPORTS else { panic!("one table") };
    let mesh = world.store.mesh();
    let rows: Vec<Exported> =
        mesh::store::rows(mesh.reader(), "export", sql, vec![]).await.unwrap();
    let [row] = &rows[..] else { panic!("one row") };
    assert_eq!((*name, &row.order_name), ("notification", &order.name()));
    assert_eq!((row.kind.as_str(), row.state.as_str()), ("ORDER_CONFIRMED", "PENDING"));
    assert!(!sql.contains("address") && !sql.contains("body") && !sql.contains("subject"));
}
