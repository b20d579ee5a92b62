use std::time::Duration;

use mesh::store as db;
use sea_orm::FromQueryResult;

use crate::harness::{On, World, on_both_databases};

on_both_databases! {
    every_revision_has_its_event
    what_is_taken_on_is_not_due_before_its_lease_is_over
}

async fn every_revision_has_its_event(on: On) {
    #[derive(Debug, FromQueryResult)]
    struct Sent {
        seq: i64,
        r#type: String,
    }
    let world = World::new(on).await;
    for (token, kinds) in [
        ("tok_visa", vec!["payment.authorized", "payment.voided"]),
        ("tok_apply_drop", vec!["payment.in_doubt", "payment.authorized", "payment.voided"]),
        ("tok_action_required", vec!["payment.action_required", "payment.voided"]),
        ("tok_declined", vec!["payment.declined", "payment.voided"]),
    ] {
        let (order, _) = world.paid(token).await;
        world.resolver.pass().await.unwrap();
        world.void(&order).await.unwrap();
        let sql = "SELECT seq, type FROM outbox WHERE aggregate = $1 ORDER BY seq";
        let values = vec![order.name().into()];
        let sent: Vec<Sent> =
            db::rows(world.db.store.reader(), "read the outbox", sql, values).await.unwrap();
        let told: Vec<_> = sent.iter().map(|event| event.r#type.as_str()).collect();
        assert_eq!(told, kinds, "{token}");
        let seqs: Vec<_> = sent.iter().map(|event| event.seq).collect();
        let revision = world.payment(&order).await.revision;
        assert_eq!(seqs, (1..=revision).collect::<Vec<_>>(), "{token}");
    }
}

/// Whoever finds something due that another one works on would ask the database without end.
async fn what_is_taken_on_is_not_due_before_its_lease_is_over(on: On) {
    let world = World::new(on).await;
    let (order, _in_doubt) = world.paid("tok_apply_drop").await;
    assert_eq!(world.store.next_due().await.unwrap(), Some(Duration::ZERO));
    let lease = Duration::from_secs(30);
    let taken = world.store.take_due("another process", lease, 64).await.unwrap();
    assert_eq!(taken.iter().map(|due| due.payment).collect::<Vec<_>>(), [order.id]);
    let due = world.store.next_due().await.unwrap().unwrap();
    assert!(due > lease / 2 && due <= lease, "{due:?}");
    assert_eq!(world.resolver.pass().await.unwrap(), 0);
}
