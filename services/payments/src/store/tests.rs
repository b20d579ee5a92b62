use mesh::store as db;
use sea_orm::FromQueryResult;

use crate::harness::{On, World, on_both_databases};

on_both_databases! {
    every_revision_has_its_event
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
