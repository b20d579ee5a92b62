//! The log on real databases: how positions are given, what followers see, what is deleted.

use std::{collections::HashMap, sync::Arc, time::Duration};

use futures_util::StreamExt as _;
use prost::Message as _;
use sea_orm::FromQueryResult;
use tonic::{Code, service::Routes};

use super::{
    sequencer::{Sequencer, Turn},
    service::EventLog,
    *,
};
use crate::{
    app::Draining,
    outbox::{self, Fact},
    status,
    store::{Migration, execute, row, rows, step},
    testing::{self, TestDb},
    wire::ordermesh::events::v1::{
        GetHeadRequest, SubscribeRequest, event_log_service_client::EventLogServiceClient,
        event_log_service_server::EventLogServiceServer,
    },
};

crate::on_both_databases! {
    Tables;
    positions_are_dense_and_in_order_within_an_aggregate_whoever_writes
    of_two_sequencers_the_one_that_was_fenced_off_gives_nothing
    positions_whose_transaction_is_lost_are_given_again
    a_follower_who_was_away_goes_on_where_it_was
    followers_near_the_head_and_far_behind_see_the_same
    what_is_not_kept_any_more_is_said_and_not_passed_over
    a_subscriber_gets_its_types_and_hears_how_far_it_has_come
    old_events_are_deleted_a_piece_at_a_time_and_those_without_a_position_stay
}

struct Tables;

impl Tables {
    fn migrations() -> Vec<Migration> {
        let sql = "CREATE TABLE thing (id TEXT PRIMARY KEY, revision BIGINT NOT NULL)";
        vec![step("sample_0001", sql)]
    }
}

/// Lets something happen to the thing `id`, as a service does: row first, then the event.
async fn happens(store: &Store, id: &str, kind: &'static str) {
    #[derive(FromQueryResult)]
    struct Revision {
        revision: i64,
    }
    let id = id.to_owned();
    let done = store.transaction(move |txn| {
        let id = id.clone();
        Box::pin(async move {
            let sql = "INSERT INTO thing (id, revision) VALUES ($1, 1) \
                       ON CONFLICT (id) DO UPDATE SET revision = thing.revision + 1 \
                       RETURNING revision";
            let found: Option<Revision> =
                row(txn, "change a thing", sql, vec![id.as_str().into()]).await?;
            let seq = found.map_or(0, |found| found.revision);
            // Somebody else commits in between.
            tokio::task::yield_now().await;
            let data = prost_types::Any { type_url: String::new(), value: vec![7] };
            outbox::append(txn, &id, seq, Fact { kind, data }, clock::now()).await
        })
    });
    done.await.expect("it happens");
}

async fn positions(store: &Store) -> Vec<(Option<i64>, String, i64)> {
    #[derive(FromQueryResult)]
    struct Row {
        position: Option<i64>,
        aggregate: String,
        seq: i64,
    }
    let sql = "SELECT position, aggregate, seq FROM outbox ORDER BY position";
    let found: Vec<Row> = rows(store.reader(), "read", sql, vec![]).await.expect("reads");
    found.into_iter().map(|row| (row.position, row.aggregate, row.seq)).collect()
}

async fn positions_are_dense_and_in_order_within_an_aggregate_whoever_writes(db: TestDb) {
    let sequencing = {
        let (store, done) = (db.store.clone(), Draining::default());
        let ends = done.clone();
        let writers = (0..8).map(|writer| {
            let store = store.clone();
            async move {
                for n in 0..25 {
                    happens(&store, &format!("things/{}", (writer + n) % 5), "thing.changed").await;
                }
            }
        });
        let writing = async move {
            futures_util::future::join_all(writers).await;
            ends.begin();
        };
        let sequencer = Sequencer::new(Tail::of(&store)).run(done);
        let (ended, ()) = tokio::join!(sequencer, writing);
        ended
    };
    sequencing.expect("ends well");
    sequence(&db.store).await.expect("gives the rest");
    let found = positions(&db.store).await;
    let dense: Vec<_> = found.iter().map(|(position, ..)| *position).collect();
    assert_eq!(dense, (1..=200).map(Some).collect::<Vec<_>>());
    let mut last: HashMap<&str, i64> = HashMap::new();
    for (_, aggregate, seq) in &found {
        let before = last.insert(aggregate, *seq).unwrap_or(0);
        assert_eq!(*seq, before + 1, "{aggregate}");
    }
    assert_eq!(head(&db.store).await.expect("a head"), 200);
}

async fn of_two_sequencers_the_one_that_was_fenced_off_gives_nothing(db: TestDb) {
    happens(&db.store, "things/1", "thing.changed").await;
    let (mut old, mut new) =
        (Sequencer::new(Tail::of(&db.store)), Sequencer::new(Tail::of(&db.store)));
    assert_eq!(old.turn().await.expect("a turn"), Turn::Gave(1));
    if db.store.is_postgres() {
        assert_eq!(new.turn().await.expect("a turn"), Turn::Standby);
        new = Sequencer::new(Tail::of(&db.store));
    }
    // The old one is silent for longer than its lease, and does not know it.
    let sql = "UPDATE lease SET until = 0";
    db.store
        .transaction(move |txn| Box::pin(execute(txn, "let time pass", sql, vec![])))
        .await
        .map(|changed| assert_eq!(changed, 1))
        .expect("time passes");
    assert_eq!(new.turn().await.expect("a turn"), Turn::Idle);
    happens(&db.store, "things/1", "thing.changed").await;
    assert_eq!(old.turn().await.expect("a turn"), Turn::Standby);
    let found = positions(&db.store).await;
    assert!(found.iter().any(|(position, ..)| position.is_none()), "{found:?}");
    assert_eq!(new.turn().await.expect("a turn"), Turn::Gave(1));
    let given: Vec<_> = positions(&db.store).await.into_iter().map(|(at, ..)| at).collect();
    assert_eq!(given, [Some(1), Some(2)]);
}

async fn positions_whose_transaction_is_lost_are_given_again(db: TestDb) {
    for _ in 0..3 {
        happens(&db.store, "things/1", "thing.changed").await;
    }
    let within = db.store.clone();
    let lost = db.store.transaction(move |txn| {
        let store = within.clone();
        Box::pin(async move {
            let fence = store::take(&store, txn, "me", 1_000_000).await?.expect("a fence");
            assert_eq!(store::give(&store, txn, fence, 2).await?, Some(2));
            Err::<(), _>(Failure::new("commit", "the process died"))
        })
    });
    assert!(lost.await.is_err());
    assert_eq!(head(&db.store).await.expect("a head"), 0);
    assert_eq!(sequence(&db.store).await.expect("gives"), 3);
    let given: Vec<_> =
        positions(&db.store).await.into_iter().map(|(at, _, seq)| (at, seq)).collect();
    assert_eq!(given, [(Some(1), 1), (Some(2), 2), (Some(3), 3)]);
}

async fn a_follower_who_was_away_goes_on_where_it_was(db: TestDb) {
    for _ in 0..3 {
        happens(&db.store, "things/1", "thing.changed").await;
    }
    sequence(&db.store).await.expect("gives");
    let mut follower = follow(&db.store, 0);
    let found = follower.next().await.expect("goes on").expect("reads");
    assert_eq!(found.iter().map(|event| event.position).collect::<Vec<_>>(), [1, 2, 3]);
    assert_eq!((&*found[0].kind, &*found[0].aggregate), ("thing.changed", "things/1"));
    drop(follower);
    for _ in 0..300 {
        happens(&db.store, "things/2", "thing.changed").await;
    }
    sequence(&db.store).await.expect("gives");
    let mut follower = follow(&db.store, 3);
    let mut seen = Vec::new();
    while seen.last() != Some(&303) {
        let found = follower.next().await.expect("goes on").expect("reads");
        assert!(found.len() <= BATCH);
        seen.extend(found.iter().map(|event| event.position));
    }
    assert_eq!(seen, (4..=303).collect::<Vec<_>>());
    // It waits at the head, and hears of what comes.
    let (news, ()) = tokio::join!(follower.next(), async {
        happens(&db.store, "things/2", "thing.changed").await;
        sequence(&db.store).await.expect("gives");
    });
    assert_eq!(news.expect("goes on").expect("reads")[0].position, 304);
}

async fn followers_near_the_head_and_far_behind_see_the_same(db: TestDb) {
    for _ in 0..10 {
        happens(&db.store, "things/1", "thing.changed").await;
    }
    sequence(&db.store).await.expect("gives");
    let tail = Tail::of(&db.store);
    let ids = |events: Vec<Event>| events.into_iter().map(|event| event.id).collect::<Vec<_>>();
    let near = ids(tail.next(7).await.expect("reads"));
    let behind = ids(tail.next(0).await.expect("reads"));
    let again = ids(tail.next(8).await.expect("reads"));
    assert_eq!((near.len(), behind.len(), again.len()), (3, 10, 2));
    assert_eq!(near, behind[7..]);
    assert_eq!(again, behind[8..]);
}

async fn client(store: &Store, draining: &Draining) -> EventLogServiceClient<crate::Channel> {
    let log = EventLog::new(Tail::of(store), draining.clone());
    let channel = testing::channel(Routes::new(EventLogServiceServer::new(log))).expect("a port");
    EventLogServiceClient::new(channel)
}

async fn what_is_not_kept_any_more_is_said_and_not_passed_over(db: TestDb) {
    for _ in 0..5 {
        happens(&db.store, "things/1", "thing.changed").await;
    }
    sequence(&db.store).await.expect("gives");
    db.store
        .transaction(|txn| Box::pin(store::delete(txn, i64::MAX, 2)))
        .await
        .map(|deleted| assert_eq!(deleted, 2))
        .expect("deleted");
    let mut client = client(&db.store, &Draining::default()).await;
    let ask = |after| SubscribeRequest { after, types: Vec::new() };
    let refused = client.subscribe(ask(1)).await.expect_err("it is not there");
    let why = status::reason(&refused).expect("a reason");
    assert_eq!((refused.code(), &*why.reason), (Code::OutOfRange, "LOG_TRUNCATED"));
    assert_eq!(why.metadata["oldest"], "3");
    let refused = client.subscribe(ask(-1)).await.expect_err("no position");
    assert_eq!(refused.code(), Code::InvalidArgument);
    let refused = client.subscribe(ask(6)).await.expect_err("of another log");
    assert_eq!(refused.code(), Code::InvalidArgument);
    let mut stream = client.subscribe(ask(2)).await.expect("it is there").into_inner();
    let found = stream.message().await.expect("reads").expect("goes on");
    assert_eq!(found.events.iter().map(|event| event.position).collect::<Vec<_>>(), [3, 4, 5]);
    let head = client.get_head(GetHeadRequest {}).await.expect("a head").into_inner();
    assert_eq!((head.oldest, head.newest), (3, 5));
    let mut follower = follow(&db.store, 0);
    assert!(follower.next().await.expect("an answer").is_err());
    assert!(follower.next().await.is_none(), "it has ended");
}

async fn a_subscriber_gets_its_types_and_hears_how_far_it_has_come(db: TestDb) {
    for kind in ["thing.made", "thing.changed", "thing.made", "thing.changed"] {
        happens(&db.store, "things/1", kind).await;
    }
    sequence(&db.store).await.expect("gives");
    let draining = Draining::default();
    let mut client = client(&db.store, &draining).await;
    let types = vec!["thing.made".to_owned()];
    let request = SubscribeRequest { after: 0, types };
    let mut stream = client.subscribe(request).await.expect("subscribes").into_inner();
    let found = stream.message().await.expect("reads").expect("goes on");
    let kinds: Vec<_> = found.events.iter().map(|event| (&*event.r#type, event.position)).collect();
    assert_eq!(kinds, [("thing.made", 1), ("thing.made", 3)]);
    assert_eq!((found.position, found.head), (4, 4));
    assert_eq!(found.events[0].aggregateseq, 1);
    happens(&db.store, "things/1", "thing.changed").await;
    sequence(&db.store).await.expect("gives");
    let passed = stream.message().await.expect("reads").expect("goes on");
    assert_eq!((passed.events.len(), passed.position), (0, 5));
    draining.begin();
    assert!(stream.message().await.expect("ends well").is_none());
}

async fn old_events_are_deleted_a_piece_at_a_time_and_those_without_a_position_stay(db: TestDb) {
    for _ in 0..7 {
        happens(&db.store, "things/1", "thing.changed").await;
    }
    sequence(&db.store).await.expect("gives");
    happens(&db.store, "things/1", "thing.changed").await;
    let kept = Duration::from_secs(3_600);
    assert_eq!(retention::delete(&db.store, kept, 3).await.expect("looks"), 0);
    // All but the last two with a position are old.
    let sql = "UPDATE outbox SET created_at = 0 WHERE position IS NULL OR position <= 5";
    db.store
        .transaction(move |txn| Box::pin(execute(txn, "let time pass", sql, vec![])))
        .await
        .map(|changed| assert_eq!(changed, 6))
        .expect("time passes");
    let waiting = backlog(&db.store).await.expect("counts");
    assert_eq!((waiting.unsequenced, waiting.since), (1, Some(0)));
    assert_eq!(retention::delete(&db.store, kept, 3).await.expect("deletes"), 5);
    let left: Vec<_> = positions(&db.store).await.into_iter().filter_map(|(at, ..)| at).collect();
    assert_eq!(left, [6, 7]);
    assert_eq!(backlog(&db.store).await.expect("counts").unsequenced, 1);
    assert_eq!(oldest(&db.store).await.expect("an oldest"), 6);
}

#[test]
fn an_event_is_what_it_was_after_its_way() {
    let event = Event {
        id: "0192".to_owned(),
        source: "sample".to_owned(),
        kind: "thing.made".to_owned(),
        at: clock::from_micros(1_700_000_000_123_456),
        aggregate: "things/1".to_owned(),
        seq: 3,
        position: 9,
        data: prost_types::Any {
            type_url: "type.googleapis.com/a.B".to_owned(),
            value: vec![8, 1],
        },
        traceparent: "00-1-2-01".to_owned(),
        causation_id: "2".to_owned(),
        correlation_id: "1".to_owned(),
    };
    let wire = event.to_wire();
    assert_eq!((&*wire.dataschema, &*wire.subject), ("a.B", "things/1"));
    assert_eq!(Event::from_wire(wire), event);
}

#[test]
fn only_the_message_that_was_sent_is_read() {
    let duration = prost_types::Duration { seconds: 3, nanos: 0 };
    let mut event = Event::from_wire(wire::Event {
        data: Some(prost_types::Any {
            type_url: "type.googleapis.com/google.protobuf.Duration".to_owned(),
            value: duration.encode_to_vec(),
        }),
        ..wire::Event::default()
    });
    assert_eq!(event.decode::<prost_types::Duration>().expect("reads"), duration);
    let other = event.decode::<prost_types::Timestamp>();
    assert!(matches!(other, Err(Trouble::Permanent(_))), "{other:?}");
    event.data.value = vec![0xff];
    let broken = event.decode::<prost_types::Duration>();
    assert!(matches!(broken, Err(Trouble::Permanent(_))), "{broken:?}");
}

/// One tail for a database, however often it is asked for.
#[tokio::test]
async fn those_who_follow_one_database_share_what_is_read() {
    let (one, other) = (testing::sqlite(Vec::new()).await, testing::sqlite(Vec::new()).await);
    let tail = Tail::of(&one.store);
    assert!(Arc::ptr_eq(&tail, &Tail::of(&one.store.clone())));
    assert!(!Arc::ptr_eq(&tail, &Tail::of(&other.store)));
}
