//! Consumers on real databases: what is in effect, what a crash leaves, what is parked.

use std::{
    collections::BTreeSet,
    sync::{
        Arc, Mutex,
        atomic::{AtomicU32, Ordering},
    },
    time::Duration,
};

use sea_orm::FromQueryResult;
use tonic::{Code, Request, service::Routes};

use super::{
    letters::DeadLetters,
    take::{Lost, Undone},
    *,
};
use crate::{
    app::Draining,
    auth::Caller,
    clock,
    log::{self, Tail, service::EventLog},
    outbox::{self, Fact},
    page::Pages,
    store::{Migration, execute, rows, step},
    testing::{self, TestDb},
    wire::ordermesh::{
        events::v1::event_log_service_server::EventLogServiceServer,
        operator::v1::{
            DiscardDeadLetterRequest, GetDeadLetterRequest, ListDeadLettersRequest,
            ReplayDeadLettersRequest, ReplayDeadLettersResponse, dead_letter,
            dead_letters_service_server::DeadLettersService as _,
        },
    },
};

crate::on_both_databases! {
    Tables;
    events_are_taken_in_once_and_in_order_by_two_replicas
    a_crash_before_the_commit_leaves_neither_effect_nor_cursor
    a_consumer_that_is_cut_again_and_again_takes_each_event_in_once
    whoever_finds_the_cursor_moved_has_no_effect
    what_is_hopeless_parks_its_aggregate_alone_and_a_replay_heals_it
    a_panic_and_a_broken_rule_have_three_tries
    what_is_away_is_waited_for
    a_replay_that_fails_again_keeps_what_is_behind
    a_discarded_event_is_kept_and_not_handed_over
    events_of_other_types_are_passed_over
    a_source_that_was_away_is_followed_again
}

struct Tables;

impl Tables {
    fn migrations() -> Vec<Migration> {
        let sql = "CREATE TABLE effect (id IDENTITY, event TEXT NOT NULL, aggregate TEXT NOT NULL, \
                   seq BIGINT NOT NULL, CHECK (seq < 1000))";
        vec![step("sample_0001", sql)]
    }
}

/// What a handler does instead of its work.
type Script = dyn Fn(&Event, u32) -> Result<(), Trouble> + Send + Sync;

/// A handler whose effect is a row; the script says what goes wrong before.
struct Sample {
    script: Arc<Script>,
    handed: Arc<AtomicU32>,
    told: Arc<Mutex<Vec<i64>>>,
}

impl Handler for Sample {
    fn types(&self) -> &'static [&'static str] {
        &["thing.changed"]
    }

    fn handle<'c>(&'c self, txn: &'c Txn, event: &'c Event) -> BoxFuture<'c, Result<(), Trouble>> {
        Box::pin(async move {
            let sql = "INSERT INTO effect (event, aggregate, seq) VALUES ($1, $2, $3)";
            let values =
                vec![event.id.as_str().into(), event.aggregate.as_str().into(), event.seq.into()];
            execute(txn, "have an effect", sql, values).await?;
            (self.script)(event, self.handed.fetch_add(1, Ordering::Relaxed))
        })
    }

    fn committed(&self, event: &Event) {
        self.told.lock().expect("a list").push(event.position);
    }
}

/// A consumer of the events of the database that its cursor is in, too.
struct Stage {
    db: TestDb,
    channel: Channel,
    source: Draining,
    told: Arc<Mutex<Vec<i64>>>,
}

impl Stage {
    fn new(db: TestDb) -> Self {
        let source = Draining::default();
        let log = EventLog::new(Tail::of(&db.store), source.clone());
        let channel =
            testing::channel(Routes::new(EventLogServiceServer::new(log))).expect("a port");
        Self { db, channel, source, told: Arc::default() }
    }

    fn consumer(
        &self,
        script: impl Fn(&Event, u32) -> Result<(), Trouble> + Send + Sync + 'static,
    ) -> Consumer {
        let handler = Sample {
            script: Arc::new(script),
            handed: Arc::default(),
            told: Arc::clone(&self.told),
        };
        let settings = Settings { lease: Duration::from_millis(300), pace: 0.01 };
        let channel = self.channel.clone();
        Consumer::new("sample", "source", &self.db.store, Arc::new(handler), channel, settings)
    }

    /// Lets something happen to these aggregates, once each time that they are named.
    async fn happen(&self, kind: &'static str, aggregates: &[(&str, i64)]) {
        let events: Vec<_> =
            aggregates.iter().map(|(aggregate, seq)| ((*aggregate).to_owned(), *seq)).collect();
        let done = self.db.store.transaction(move |txn| {
            let events = events.clone();
            Box::pin(async move {
                for (aggregate, seq) in events {
                    let fact = Fact { kind, data: prost_types::Any::default() };
                    outbox::append(txn, &aggregate, seq, fact, clock::now()).await?;
                }
                Ok::<_, Failure>(())
            })
        });
        done.await.expect("it happens");
        log::sequence(&self.db.store).await.expect("positions");
    }

    async fn effects(&self) -> Vec<(String, i64)> {
        #[derive(FromQueryResult)]
        struct Row {
            aggregate: String,
            seq: i64,
        }
        let sql = "SELECT aggregate, seq FROM effect ORDER BY id";
        let found: Vec<Row> =
            rows(self.db.store.reader(), "read", sql, vec![]).await.expect("reads");
        found.into_iter().map(|row| (row.aggregate, row.seq)).collect()
    }

    async fn events(&self) -> Vec<Event> {
        Tail::of(&self.db.store).next(0).await.expect("reads")
    }

    /// Works until the cursor is at `position`.
    async fn until(&self, position: i64, consumers: Vec<Consumer>) {
        let probe = self.consumer(|_, _| Ok(()));
        let draining = Draining::default();
        let ends = draining.clone();
        let mut commits = self.db.store.commits();
        let there = async move {
            while store::position(&probe).await.expect("reads") < position {
                // On PostgreSQL a cursor that another process moves is not told of; here it is.
                let _news = tokio::time::timeout(PATIENCE, commits.changed()).await.expect("moves");
            }
            ends.begin();
        };
        let work = consumers.into_iter().map(|consumer| consumer.run(draining.clone()));
        let (done, ()) = tokio::join!(futures_util::future::join_all(work), there);
        assert!(done.into_iter().all(|done| done.is_ok()));
    }

    fn letters(&self, consumer: &Consumer) -> DeadLetters {
        let pages = Pages::new([7; 32]);
        DeadLetters::new(vec![consumer.clone()], self.db.store.clone(), pages)
    }

    async fn replay(&self, consumer: &Consumer, dry_run: bool) -> ReplayDeadLettersResponse {
        let request = ReplayDeadLettersRequest {
            consumer: "sample".to_owned(),
            dry_run,
            ..ReplayDeadLettersRequest::default()
        };
        let letters = self.letters(consumer);
        let replayed = letters.replay_dead_letters(Request::new(request));
        testing::as_caller(admin(), replayed).await.expect("an answer").into_inner()
    }
}

const PATIENCE: Duration = Duration::from_secs(20);

fn admin() -> Caller {
    Caller::with_roles("users/1", &["admin"])
}

fn pairs(of: &[(&str, i64)]) -> Vec<(String, i64)> {
    of.iter().map(|(aggregate, seq)| ((*aggregate).to_owned(), *seq)).collect()
}

async fn events_are_taken_in_once_and_in_order_by_two_replicas(db: TestDb) {
    let stage = Stage::new(db);
    for n in 1..=20 {
        let many: Vec<_> = ["a", "b", "c", "d", "e"].into_iter().map(|name| (name, n)).collect();
        stage.happen("thing.changed", &many).await;
    }
    // On SQLite each believes that it may read; on PostgreSQL they take turns.
    let replicas = vec![stage.consumer(|_, _| Ok(())), stage.consumer(|_, _| Ok(()))];
    stage.until(100, replicas).await;
    let effects = stage.effects().await;
    assert_eq!(effects.len(), 100);
    for name in ["a", "b", "c", "d", "e"] {
        let seqs: Vec<_> =
            effects.iter().filter(|(of, _)| of == name).map(|(_, seq)| *seq).collect();
        assert_eq!(seqs, (1..=20).collect::<Vec<_>>(), "{name}");
    }
    let told: BTreeSet<_> = stage.told.lock().expect("a list").iter().copied().collect();
    assert!(told.len() <= 100);
}

async fn a_crash_before_the_commit_leaves_neither_effect_nor_cursor(db: TestDb) {
    let stage = Stage::new(db);
    stage.happen("thing.changed", &[("a", 1), ("a", 2), ("b", 1)]).await;
    let consumer = stage.consumer(|_, _| Ok(()));
    let (within, events) = (consumer.clone(), stage.events().await);
    let crashed = stage.db.store.transaction(move |txn| {
        let (consumer, events) = (within.clone(), events.clone());
        Box::pin(async move {
            consumer.within(txn, &events, 0, None).await?;
            Err::<(), _>(Undone::Moved)
        })
    });
    assert!(crashed.await.is_err());
    assert_eq!(stage.effects().await, []);
    assert_eq!(store::position(&consumer).await.expect("reads"), 0);
    stage.until(3, vec![consumer]).await;
    assert_eq!(stage.effects().await, pairs(&[("a", 1), ("a", 2), ("b", 1)]));
}

#[expect(clippy::disallowed_methods, reason = "a process that is cut in a test")]
async fn a_consumer_that_is_cut_again_and_again_takes_each_event_in_once(db: TestDb) {
    const EACH: i64 = 90;
    let stage = Stage::new(db);
    for n in 1..=EACH {
        stage.happen("thing.changed", &[("a", n), ("b", n)]).await;
    }
    let all = 2 * EACH;
    let probe = stage.consumer(|_, _| Ok(()));
    for cut in 0..12 {
        let before = store::position(&probe).await.expect("reads");
        let mut commits = stage.db.store.commits();
        // A handler that fails now and then: batches, single events and their retries are cut.
        let consumer = stage.consumer(|_, handed| match handed % 7 {
            6 => Err(Trouble::Transient("no route".to_owned())),
            _ => Ok(()),
        });
        let work = tokio::spawn(consumer.run(Draining::default()));
        for _ in 0..=cut {
            let _news = tokio::time::timeout(PATIENCE, commits.changed()).await.expect("works");
        }
        work.abort();
        let _cut = work.await.is_err();
        if store::position(&probe).await.expect("reads") == all {
            break;
        }
        // What the dead one held is free at once: the next does not wait for its lease.
        free_leases(&stage.db.store).await;
        assert!(store::position(&probe).await.expect("reads") >= before);
    }
    stage.until(all, vec![stage.consumer(|_, _| Ok(()))]).await;
    let effects = stage.effects().await;
    for name in ["a", "b"] {
        let seqs: Vec<_> =
            effects.iter().filter(|(of, _)| of == name).map(|(_, seq)| *seq).collect();
        assert_eq!(seqs, (1..=EACH).collect::<Vec<_>>(), "{name}");
    }
}

async fn free_leases(store: &Store) {
    let sql = "UPDATE lease SET until = 0";
    let freed = store.transaction(move |txn| Box::pin(execute(txn, "let time pass", sql, vec![])));
    let _count: u64 = freed.await.map_err(|failure: Failure| failure).expect("freed");
}

async fn whoever_finds_the_cursor_moved_has_no_effect(db: TestDb) {
    let stage = Stage::new(db);
    stage.happen("thing.changed", &[("a", 1), ("a", 2)]).await;
    let (events, draining) = (stage.events().await, Draining::default());
    let (one, other) = (stage.consumer(|_, _| Ok(())), stage.consumer(|_, _| Ok(())));
    assert_eq!(one.take_in(&events, 0, &draining).await.expect("is first"), 2);
    assert!(matches!(other.take_in(&events, 0, &draining).await, Err(Lost)));
    assert!(matches!(other.take_in(&events[1..], 1, &draining).await, Err(Lost)));
    assert_eq!(stage.effects().await.len(), 2);
}

async fn what_is_hopeless_parks_its_aggregate_alone_and_a_replay_heals_it(db: TestDb) {
    let stage = Stage::new(db);
    let all = [("a", 1), ("a", 2), ("b", 1), ("a", 3), ("b", 2)];
    stage.happen("thing.changed", &all).await;
    let poisoned = stage.consumer(|event, _| match (&*event.aggregate, event.seq) {
        ("a", 2) => Err(Trouble::Permanent("no such rule".to_owned())),
        _ => Ok(()),
    });
    stage.until(5, vec![poisoned.clone()]).await;
    assert_eq!(stage.effects().await, pairs(&[("a", 1), ("b", 1), ("b", 2)]));
    // What comes later of it goes behind, also after a restart.
    stage.happen("thing.changed", &[("b", 3), ("a", 4)]).await;
    stage.until(7, vec![stage.consumer(|_, _| Ok(()))]).await;
    assert_eq!(stage.effects().await, pairs(&[("a", 1), ("b", 1), ("b", 2), ("b", 3)]));
    assert_eq!(store::depth(&poisoned).await.expect("counts"), 3);

    let letters = stage.letters(&poisoned);
    let listed = letters.list_dead_letters(Request::new(ListDeadLettersRequest::default()));
    let mut listed =
        testing::as_caller(admin(), listed).await.expect("a list").into_inner().dead_letters;
    listed.sort_by_key(|letter| letter.event.as_ref().map(|event| event.position));
    let shown: Vec<_> =
        listed.iter().map(|letter| (letter.cause(), letter.attempts, &*letter.error)).collect();
    let behind = (dead_letter::Cause::Behind, 0, "");
    assert_eq!(shown, [(dead_letter::Cause::Permanent, 1, "no such rule"), behind, behind]);

    let mended = stage.consumer(|_, _| Ok(()));
    let dry = stage.replay(&mended, true).await;
    assert_eq!((dry.replayed_count, dry.remaining_count), (3, 3));
    assert_eq!(stage.effects().await.len(), 4, "a dry run changes nothing");
    let done = stage.replay(&mended, false).await;
    assert_eq!((done.replayed_count, done.remaining_count), (3, 0));
    let of_a: Vec<_> = stage.effects().await.into_iter().filter(|(of, _)| of == "a").collect();
    assert_eq!(of_a, pairs(&[("a", 1), ("a", 2), ("a", 3), ("a", 4)]));
    // It flows again.
    stage.happen("thing.changed", &[("a", 5)]).await;
    stage.until(8, vec![mended.clone()]).await;
    assert_eq!(stage.effects().await.last(), Some(&("a".to_owned(), 5)));
    let again = stage.replay(&mended, false).await;
    assert_eq!((again.replayed_count, again.remaining_count), (0, 0));
}

async fn a_panic_and_a_broken_rule_have_three_tries(db: TestDb) {
    let stage = Stage::new(db);
    // The table itself refuses what comes of `b`.
    stage.happen("thing.changed", &[("a", 1), ("b", 1000), ("c", 1)]).await;
    let buggy = stage.consumer(|event, _| {
        assert!(event.aggregate != "a", "out of bounds");
        Ok(())
    });
    stage.until(3, vec![buggy.clone()]).await;
    assert_eq!(stage.effects().await, pairs(&[("c", 1)]));
    let letters = stage.letters(&buggy);
    let request = ListDeadLettersRequest { aggregate: "a".to_owned(), ..Default::default() };
    let listed = letters.list_dead_letters(Request::new(request));
    let listed =
        testing::as_caller(admin(), listed).await.expect("a list").into_inner().dead_letters;
    assert_eq!((listed.len(), listed[0].attempts), (1, 3));
    assert_eq!(listed[0].cause(), dead_letter::Cause::Bug);
    assert_eq!(listed[0].error, "the handler panicked: out of bounds");
    let request = ListDeadLettersRequest { aggregate: "b".to_owned(), ..Default::default() };
    let listed = letters.list_dead_letters(Request::new(request));
    let listed =
        testing::as_caller(admin(), listed).await.expect("a list").into_inner().dead_letters;
    assert_eq!((listed.len(), listed[0].attempts), (1, 3));
    assert_eq!(listed[0].cause(), dead_letter::Cause::Bug);
}

async fn what_is_away_is_waited_for(db: TestDb) {
    let stage = Stage::new(db);
    stage.happen("thing.changed", &[("a", 1), ("b", 1)]).await;
    let away = stage.consumer(|_, handed| match handed {
        0..5 => Err(Trouble::Transient("no route".to_owned())),
        _ => Ok(()),
    });
    stage.until(2, vec![away.clone()]).await;
    assert_eq!(stage.effects().await, pairs(&[("a", 1), ("b", 1)]));
    assert_eq!(store::depth(&away).await.expect("counts"), 0);
}

async fn a_replay_that_fails_again_keeps_what_is_behind(db: TestDb) {
    let stage = Stage::new(db);
    stage.happen("thing.changed", &[("a", 1), ("a", 2), ("b", 1)]).await;
    let hopeless = stage.consumer(|event, _| match (&*event.aggregate, event.seq) {
        ("a", 1) => Err(Trouble::Permanent("never".to_owned())),
        _ => Ok(()),
    });
    stage.until(3, vec![hopeless.clone()]).await;
    let done = stage.replay(&hopeless, false).await;
    assert_eq!((done.results.len(), done.replayed_count, done.remaining_count), (1, 0, 2));
    assert_eq!(done.results[0].error, "never");
    assert_eq!(stage.effects().await, pairs(&[("b", 1)]));
    let get = GetDeadLetterRequest { name: done.results[0].dead_letter.clone() };
    let letters = stage.letters(&hopeless);
    let found = testing::as_caller(admin(), letters.get_dead_letter(Request::new(get))).await;
    let found = found.expect("a letter").into_inner();
    assert_eq!((found.attempts, found.state()), (2, dead_letter::State::Parked));
}

async fn a_discarded_event_is_kept_and_not_handed_over(db: TestDb) {
    let stage = Stage::new(db);
    stage.happen("thing.changed", &[("a", 1), ("a", 2)]).await;
    let hopeless = stage.consumer(|event, _| match event.seq {
        1 => Err(Trouble::Permanent("never".to_owned())),
        _ => Ok(()),
    });
    stage.until(2, vec![hopeless.clone()]).await;
    let dry = stage.replay(&hopeless, true).await;
    let name = dry.results[0].dead_letter.clone();
    let letters = stage.letters(&hopeless);
    let discard = |reason: &str| {
        let request = DiscardDeadLetterRequest { name: name.clone(), reason: reason.to_owned() };
        testing::as_caller(admin(), letters.discard_dead_letter(Request::new(request)))
    };
    let refused = discard(" ").await.expect_err("no reason");
    assert_eq!(refused.code(), Code::InvalidArgument);
    let gone = discard("a test order").await.expect("discarded").into_inner();
    assert_eq!(
        (gone.state(), &*gone.reason, &*gone.actor),
        (dead_letter::State::Discarded, "a test order", "users/1")
    );
    let again = discard("another reason").await.expect("as it was").into_inner();
    assert_eq!(again.reason, "a test order");
    let done = stage.replay(&hopeless, false).await;
    assert_eq!((done.replayed_count, done.remaining_count), (1, 0));
    assert_eq!(stage.effects().await, pairs(&[("a", 2)]));
    let get = GetDeadLetterRequest { name: "deadLetters/0192".to_owned() };
    let unknown = testing::as_caller(admin(), letters.get_dead_letter(Request::new(get))).await;
    assert_eq!(unknown.expect_err("no name").code(), Code::InvalidArgument);
}

async fn events_of_other_types_are_passed_over(db: TestDb) {
    let stage = Stage::new(db);
    stage.happen("thing.made", &[("a", 1)]).await;
    stage.happen("thing.changed", &[("a", 2)]).await;
    stage.happen("thing.made", &[("a", 3)]).await;
    stage.until(2, vec![stage.consumer(|_, _| Ok(()))]).await;
    assert_eq!(stage.effects().await, pairs(&[("a", 2)]));
    let consumer = stage.consumer(|_, _| Ok(()));
    consumer.pass(2, 3).await.expect("moves");
    assert_eq!(store::position(&consumer).await.expect("reads"), 3);
    assert!(matches!(consumer.pass(2, 3).await, Err(Lost)));
}

async fn a_source_that_was_away_is_followed_again(db: TestDb) {
    let mut stage = Stage::new(db);
    stage.happen("thing.changed", &[("a", 1)]).await;
    stage.until(1, vec![stage.consumer(|_, _| Ok(()))]).await;
    // Its streams end as those of a process that leaves; another process comes in its place.
    stage.source.begin();
    let draining = Draining::default();
    let log = EventLog::new(Tail::of(&stage.db.store), draining);
    let routes = Routes::new(EventLogServiceServer::new(log));
    stage.channel = testing::channel(routes).expect("a port");
    stage.happen("thing.changed", &[("a", 2), ("a", 3)]).await;
    stage.until(3, vec![stage.consumer(|_, _| Ok(()))]).await;
    assert_eq!(stage.effects().await, pairs(&[("a", 1), ("a", 2), ("a", 3)]));
}
