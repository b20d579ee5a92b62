use mesh::testing::TestDb;
use sea_orm::FromQueryResult;

use super::*;
use crate::harness::{PATIENT, World};

mesh::on_both_databases! { Store;
    what_is_read_is_what_was_written
    what_happens_later_belongs_to_the_call_that_it_came_from
}

/// The events of an aggregate: their places, and their types.
pub(crate) async fn events_of(store: &db::Store, aggregate: &str) -> Vec<(i64, String)> {
    #[derive(FromQueryResult)]
    struct Sent {
        seq: i64,
        r#type: String,
    }
    let sql = "SELECT seq, type FROM outbox WHERE aggregate = $1 ORDER BY seq";
    let values = vec![aggregate.into()];
    let sent: Vec<Sent> = db::rows(store.reader(), "read the outbox", sql, values).await.unwrap();
    sent.into_iter().map(|event| (event.seq, event.r#type)).collect()
}

/// What a statement counts.
pub(crate) async fn count(store: &db::Store, sql: &str) -> i64 {
    #[derive(FromQueryResult)]
    struct Count {
        count: i64,
    }
    let count: Option<Count> = db::row(store.reader(), "count", sql, vec![]).await.unwrap();
    count.unwrap().count
}

async fn what_is_read_is_what_was_written(db: TestDb) {
    let world = World::new(db, PATIENT);
    let parcel = world.booked("carrier:drops_answer").await;
    let read = world.store.shipment(parcel.id).await.unwrap().unwrap();
    assert_eq!(read.plan.order, parcel.order());
    let lines: Vec<_> = read.plan.lines.iter().map(|line| (&*line.id, line.quantity)).collect();
    assert_eq!(lines, [("1", 2), ("2", 1)]);
    let organization = read.plan.ship_to.map(|to| to.organization);
    assert_eq!(organization.as_deref(), Some("carrier:drops_answer"));
    let attempt = &read.attempts[0];
    assert_eq!(attempt.reference, crate::domain::parcel_of(parcel.id));
    assert_eq!((attempt.tries, attempt.next_try_at), (1, None));
}

async fn what_happens_later_belongs_to_the_call_that_it_came_from(db: TestDb) {
    #[derive(FromQueryResult)]
    struct Sent {
        headers: Vec<u8>,
    }
    let world = World::new(db, crate::harness::SWIFT);
    let parcel = world.booked("").await;
    world.stage().await;
    let sql = "SELECT headers FROM outbox WHERE aggregate = $1 ORDER BY seq";
    let sent: Vec<Sent> =
        db::rows(world.db.reader(), "read the outbox", sql, vec![parcel.name().into()])
            .await
            .unwrap();
    let trace = |sent: &Sent| {
        let headers: mesh::outbox::Headers = prost::Message::decode(&*sent.headers).unwrap();
        headers.correlation_id
    };
    let traces: Vec<String> = sent.iter().map(trace).collect();
    assert!(traces.len() == 3 && !traces[0].is_empty());
    assert!(traces.iter().all(|trace| *trace == traces[0]), "{traces:?}");
}
