//! The engine on real databases: what is kept, who may write, what a crash leaves.

use std::{
    future::ready,
    sync::{
        Mutex,
        atomic::{AtomicBool, Ordering},
    },
};

use sea_orm::FromQueryResult;
use tokio::{
    sync::{Notify, Semaphore, watch},
    time::Instant,
};
use uuid::Uuid;

use super::*;
use crate::{
    app::Draining,
    clock,
    store::{Store, execute, rows, step},
    testing::TestDb,
};

crate::on_both_databases! {
    Tables;
    steps_are_done_in_order_with_one_commit_each
    sagas_beyond_the_queue_wait_for_room_and_for_no_lease
    what_a_participant_sheds_is_sent_by_fewer_sagas_and_by_one_more_in_a_while
    a_no_undoes_what_was_done_the_last_first_and_ends_with_its_effect
    an_unknown_outcome_is_asked_for_again_with_the_same_command
    a_saga_of_a_dead_process_goes_on_in_another_with_the_same_command
    whoever_lost_the_lease_records_nothing
    a_saga_that_waits_is_looked_at_when_it_is_woken
    a_saga_that_is_not_at_its_pivot_in_time_is_undone
    a_saga_that_is_turned_round_undoes_what_was_under_way
    a_saga_past_its_pivot_is_turned_round_only_on_request
    what_comes_too_late_is_not_begun
    a_lease_is_kept_while_a_step_is_tried_again_and_again
    a_draining_process_gives_its_sagas_to_another
    an_undo_that_stays_unknown_waits_for_a_person_and_is_tried_all_the_same
    a_no_behind_the_pivot_waits_for_a_person_and_is_tried_all_the_same
    an_effect_that_finds_another_row_than_was_read_has_its_step_called_again
    a_process_with_another_list_of_steps_refuses_to_start
    what_was_done_past_the_pivot_is_called_back_first
    what_cannot_be_called_back_any_more_goes_on_and_can_be_turned_round_again
    what_cannot_be_finished_is_called_back
    a_longer_list_goes_on_with_the_sagas_of_a_shorter_one
    only_a_saga_that_goes_forward_is_woken_as_such
}

struct Tables;

impl Tables {
    fn migrations() -> Vec<crate::store::Migration> {
        vec![step("sample_0001", "CREATE TABLE effect (what TEXT NOT NULL)")]
    }
}

/// What a participant answers, one after the other; the last for ever.
type Script = Arc<dyn Fn(&'static str, u32) -> Outcome + Send + Sync>;

/// A participant of a test's saga: answers by its script and remembers what it was asked.
#[derive(Clone)]
struct Peer {
    script: Script,
    asked: Arc<Mutex<Vec<(String, Uuid)>>>,
    bell: Arc<Notify>,
}

struct Sample {
    peer: Peer,
    run: Run,
}

impl Peer {
    fn new(script: impl Fn(&'static str, u32) -> Outcome + Send + Sync + 'static) -> Self {
        Self { script: Arc::new(script), asked: Arc::default(), bell: Arc::default() }
    }

    fn asked(&self) -> Vec<String> {
        self.asked.lock().expect("a list").iter().map(|(what, _)| what.clone()).collect()
    }

    fn commands(&self, of: &str) -> Vec<Uuid> {
        let asked = self.asked.lock().expect("a list");
        asked.iter().filter(|(what, _)| what == of).map(|(_, id)| *id).collect()
    }
}

impl Sample {
    async fn ask(&self, what: &'static str) -> Outcome {
        let times = {
            let mut asked = self.peer.asked.lock().expect("a list");
            asked.push((what.to_owned(), self.run.command.command_id));
            asked.iter().filter(|(asked, _)| asked == what).count()
        };
        self.peer.bell.notify_waiters();
        (self.peer.script)(what, u32::try_from(times).expect("few"))
    }
}

fn sample() -> Saga<Sample, Retriable> {
    Saga::<Sample>::named("sample.v1")
        .compensable("hold", |on| Box::pin(on.ask("hold")), |on| Box::pin(on.ask("unhold")))
        .compensable("pay", |on| Box::pin(on.ask("pay")), |on| Box::pin(on.ask("unpay")))
        .pivot("confirm", |on| Box::pin(on.ask("confirm")))
        .retriable("ship", |on| Box::pin(on.ask("ship")))
        .compensated(|_, why| effect(format!("ended {}", why.reason)))
}

fn effect(what: impl Into<String>) -> Effect {
    let what = what.into();
    Effect::new(move |txn| {
        let what = what.clone();
        Box::pin(async move {
            let sql = "INSERT INTO effect (what) VALUES ($1)";
            execute(txn, "have an effect", sql, vec![what.into()]).await?;
            Ok(())
        })
    })
}

fn quick() -> Settings {
    Settings {
        stuck_retry: Duration::from_millis(20),
        lease: Duration::from_millis(600),
        poll: Duration::from_millis(20),
        backoff_first: Duration::from_millis(2),
        backoff_max: Duration::from_millis(20),
        ..Settings::default()
    }
}

/// A process: its runner at work until it is dropped.
struct Process {
    runner: Runner,
    draining: Draining,
    work: tokio::task::JoinHandle<anyhow::Result<()>>,
}

fn process(db: &TestDb, peer: &Peer) -> Process {
    process_with(db, peer, quick())
}

#[expect(clippy::disallowed_methods, reason = "a process of its own in a test")]
fn process_with(db: &TestDb, peer: &Peer, settings: Settings) -> Process {
    let runner = runner_of(db, peer, settings);
    let draining = Draining::default();
    let work = tokio::spawn(runner.clone().run(draining.clone()));
    Process { runner, draining, work }
}

fn runner_of(db: &TestDb, peer: &Peer, settings: Settings) -> Runner {
    let peer = peer.clone();
    Runner::new(db.store.clone(), sample(), settings, move |run| Sample { peer: peer.clone(), run })
}

async fn create(runner: &Runner, key: &str, store: &Store, deadline: Duration) -> Created {
    let runner = runner.clone();
    let new = New { key: key.to_owned(), data: Vec::new(), deadline: clock::now() + deadline };
    let created = store.transaction(move |txn| {
        let (runner, new) = (runner.clone(), new.clone());
        Box::pin(async move { runner.create(txn, &new).await })
    });
    created.await.expect("created")
}

impl Process {
    async fn create(&self, store: &Store, deadline: Duration) -> Created {
        create(&self.runner, "orders/1", store, deadline).await
    }

    async fn turn(&self, store: &Store, reach: Reach) -> Turned {
        let runner = self.runner.clone();
        let turned = store.transaction(move |txn| {
            let runner = runner.clone();
            let why = Why::new("CANCELLED", "by its customer");
            Box::pin(async move { runner.turn_round(txn, "orders/1", &why, reach).await })
        });
        turned.await.expect("answered")
    }
}

const HOUR: Duration = Duration::from_secs(3_600);

/// Waits for `state`; sagas say nothing, so it asks.
async fn comes_to(db: &TestDb, state: State) -> History {
    let reached = async {
        loop {
            let found = history(db.store.reader(), "sample.v1", "orders/1").await.expect("reads");
            if let Some(found) = found.filter(|found| found.state == state) {
                return found;
            }
            tokio::task::yield_now().await;
        }
    };
    match tokio::time::timeout(Duration::from_secs(20), reached).await {
        Ok(found) => found,
        Err(_) => {
            let found = history(db.store.reader(), "sample.v1", "orders/1").await;
            panic!("not {state}: {found:?}")
        }
    }
}

/// Waits until so many sagas are done.
async fn all_done(db: &TestDb, sagas: i64) {
    #[derive(FromQueryResult)]
    struct Row {
        done: i64,
    }
    let reached = async {
        loop {
            let sql = "SELECT COUNT(*) AS done FROM saga WHERE state = 'DONE'";
            let found: Option<Row> =
                crate::store::row(db.store.reader(), "count sagas", sql, vec![])
                    .await
                    .expect("reads");
            if found.is_some_and(|found| found.done == sagas) {
                return;
            }
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(Duration::from_secs(20), reached).await.expect("all are done");
}

async fn effects(db: &TestDb) -> Vec<String> {
    #[derive(FromQueryResult)]
    struct Row {
        what: String,
    }
    let found: Vec<Row> =
        rows(db.store.reader(), "read effects", "SELECT what FROM effect", vec![])
            .await
            .expect("reads");
    found.into_iter().map(|row| row.what).collect()
}

async fn steps_are_done_in_order_with_one_commit_each(db: TestDb) {
    let peer = Peer::new(|what, _| Outcome::done().with(effect(what)));
    // No renewal of the lease comes between.
    let process = process_with(&db, &peer, Settings { lease: HOUR, ..quick() });
    let before = db.store.stats().transactions;
    let created = process.create(&db.store, HOUR).await;
    process.runner.start(created);
    let done = comes_to(&db, State::Done).await;
    assert_eq!(peer.asked(), ["hold", "pay", "confirm", "ship"]);
    assert_eq!(effects(&db).await, ["hold", "pay", "confirm", "ship"]);
    assert!(done.steps.iter().all(|step| step.state == StepState::Ok), "{done:?}");
    // Creation and one for each step: four up to the pivot. The last may still be counted.
    let counted = async {
        while db.store.stats().transactions < before + 5 {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(Duration::from_secs(20), counted).await.expect("five");
    assert_eq!(db.store.stats().transactions, before + 5);
}

#[expect(clippy::disallowed_methods, reason = "a process of its own in a test")]
async fn sagas_beyond_the_queue_wait_for_room_and_for_no_lease(db: TestDb) {
    let peer = Peer::new(|_, _| Outcome::done());
    let settings = Settings { lease: HOUR, poll: HOUR, concurrency: 1, ..quick() };
    let runner = runner_of(&db, &peer, settings);
    // Nobody works yet: four are in the queue, the others are in the database.
    for order in 1..=20 {
        let created = create(&runner, &format!("orders/{order}"), &db.store, HOUR).await;
        assert_eq!(created.0.is_some(), order <= 4, "{order}");
        runner.start(created);
    }
    let work = tokio::spawn(runner.clone().run(Draining::default()));
    all_done(&db, 20).await;
    work.abort();
}

/// A participant that lets sagas wait at their first step and sheds one call at the second.
#[derive(Clone)]
struct Gate {
    open: Arc<Semaphore>,
    /// How many sagas are between their first step and the end of their last.
    running: watch::Sender<usize>,
    seconds: watch::Sender<usize>,
    /// When it shed, and what ran at each begin after that.
    shed: Arc<Mutex<Option<Instant>>>,
    begun: Arc<Mutex<Vec<(usize, Duration)>>>,
}

impl Gate {
    async fn first(&self) -> Outcome {
        self.running.send_modify(|running| *running += 1);
        if let Some(shed) = *self.shed.lock().expect("an instant") {
            let begun = (*self.running.borrow(), clock::instant() - shed);
            self.begun.lock().expect("a list").push(begun);
        }
        self.open.acquire().await.expect("it is never closed").forget();
        Outcome::done()
    }

    fn second(&self) -> Outcome {
        self.seconds.send_modify(|seconds| *seconds += 1);
        let mut shed = self.shed.lock().expect("an instant");
        if shed.is_none() {
            *shed = Some(clock::instant());
            return Outcome::NotSent { why: "shed".to_owned(), after: Duration::ZERO, shed: true };
        }
        self.running.send_modify(|running| *running -= 1);
        Outcome::done()
    }
}

/// Databases are no part of paused time. So this compares what runs with the time that has passed:
/// a slow machine shows less, and nothing wrong.
#[expect(clippy::disallowed_methods, reason = "a process of its own in a test")]
async fn what_a_participant_sheds_is_sent_by_fewer_sagas_and_by_one_more_in_a_while(db: TestDb) {
    const MOST: usize = 100;
    let gate = Gate {
        open: Arc::new(Semaphore::new(0)),
        running: watch::Sender::new(0),
        seconds: watch::Sender::new(0),
        shed: Arc::default(),
        begun: Arc::default(),
    };
    let saga = Saga::<Gate>::named("gated.v1")
        .compensable("first", |on| Box::pin(on.first()), |_| Box::pin(ready(Outcome::done())))
        .pivot("second", |on| Box::pin(ready(on.second())));
    let settings = Settings { lease: HOUR, step_timeout: HOUR, concurrency: MOST, ..quick() };
    let make = gate.clone();
    let runner = Runner::new(db.store.clone(), saga, settings, move |_| make.clone());
    for order in 0..2 * MOST {
        let created = create(&runner, &format!("orders/{order}"), &db.store, HOUR).await;
        runner.start(created);
    }
    let work = tokio::spawn(runner.clone().run(Draining::default()));
    let come = async |number: &watch::Sender<usize>, to: usize| {
        let mut number = number.subscribe();
        let come = number.wait_for(|number| *number >= to);
        let come = tokio::time::timeout(Duration::from_secs(60), come).await;
        assert!(come.is_ok_and(|it| it.is_ok()), "{to}");
    };
    // Other tests of this process make calls, to which sagas give way: it may take its time.
    come(&gate.running, MOST).await;
    gate.open.add_permits(1);
    // Asked again, it has recorded that it was shed.
    come(&gate.seconds, 2).await;
    gate.open.add_permits(MOST / 2);
    come(&gate.seconds, 2 + MOST / 2).await;
    come(&gate.running, 95).await;
    for (running, after) in gate.begun.lock().expect("a list").iter() {
        let allowed = 90.0 + after.as_secs_f64() * 10.0;
        assert!(*running as f64 <= allowed, "{running} of {allowed} after {after:?}");
    }
    work.abort();
}

async fn a_no_undoes_what_was_done_the_last_first_and_ends_with_its_effect(db: TestDb) {
    let peer = Peer::new(|what, _| match what {
        "pay" => Outcome::no("DECLINED", "no money"),
        "unhold" => Outcome::done().with(effect("unheld")),
        _ => Outcome::done(),
    });
    let process = process(&db, &peer);
    let created = process.create(&db.store, HOUR).await;
    process.runner.start(created);
    let ended = comes_to(&db, State::Compensated).await;
    // The step that was refused is undone too: what it says no to may have come twice.
    assert_eq!(peer.asked(), ["hold", "pay", "unpay", "unhold"]);
    assert_eq!(effects(&db).await, ["unheld", "ended DECLINED"]);
    assert_eq!(ended.why, Some(Why::new("DECLINED", "no money")));
    // The undo carries the key of its step, and an id of its own.
    assert_ne!(peer.commands("pay"), peer.commands("unpay"));
}

async fn an_unknown_outcome_is_asked_for_again_with_the_same_command(db: TestDb) {
    let peer = Peer::new(|what, times| match (what, times) {
        ("pay", 1..=3) => Outcome::Unsure { why: "no answer".to_owned() },
        _ => Outcome::done(),
    });
    let process = process(&db, &peer);
    let created = process.create(&db.store, HOUR).await;
    process.runner.start(created);
    comes_to(&db, State::Done).await;
    let commands = peer.commands("pay");
    assert_eq!(commands.len(), 4);
    assert!(commands.iter().all(|id| *id == commands[0]), "{commands:?}");
}

async fn a_saga_of_a_dead_process_goes_on_in_another_with_the_same_command(db: TestDb) {
    let hangs = Peer::new(|what, _| match what {
        "pay" => Outcome::Unsure { why: "the process is about to die".to_owned() },
        _ => Outcome::done(),
    });
    let dies = process(&db, &hangs);
    let created = dies.create(&db.store, HOUR).await;
    dies.runner.start(created);
    while hangs.commands("pay").is_empty() {
        tokio::task::yield_now().await;
    }
    // Neither a record nor the lease given back: as after kill -9.
    dies.work.abort();
    let peer = Peer::new(|_, _| Outcome::done());
    let _other = process(&db, &peer);
    comes_to(&db, State::Done).await;
    // On a busy machine a lease of this length may pass in the middle of a step, which is then
    // repeated: the claim is that it is the same command.
    let mut asked = peer.asked();
    asked.dedup();
    assert_eq!(asked, ["pay", "confirm", "ship"]);
    let first = hangs.commands("pay")[0];
    assert!(peer.commands("pay").iter().all(|command| *command == first));
}

async fn whoever_lost_the_lease_records_nothing(db: TestDb) {
    let peer = Peer::new(|_, _| Outcome::done().with(effect("too late")));
    // It does not look at its lease by itself, as a process that was asleep did not.
    let process = process_with(&db, &peer, Settings { lease: HOUR, ..quick() });
    let created = process.create(&db.store, HOUR).await;
    let sql = "UPDATE saga SET fence = fence + 1, lease_until = lease_until + 3600000000";
    db.store
        .transaction(move |txn| Box::pin(execute(txn, "steal a lease", sql, vec![])))
        .await
        .map(|stolen| assert_eq!(stolen, 1))
        .expect("stolen");
    process.runner.start(created);
    while peer.asked().is_empty() {
        tokio::task::yield_now().await;
    }
    process.draining.begin();
    process.work.await.expect("no panic").expect("ends");
    let kept = history(db.store.reader(), "sample.v1", "orders/1").await.expect("reads");
    let kept = kept.expect("exists");
    assert_eq!((kept.state, kept.steps.len()), (State::Running, 1), "{kept:?}");
    assert_eq!(effects(&db).await, Vec::<String>::new());
}

async fn a_saga_that_waits_is_looked_at_when_it_is_woken(db: TestDb) {
    let peer = Peer::new(|what, times| match (what, times) {
        ("pay", 1) => Outcome::wait(clock::now() + HOUR, "in doubt").with(effect("asked")),
        _ => Outcome::done(),
    });
    let process = process(&db, &peer);
    let created = process.create(&db.store, HOUR * 2).await;
    process.runner.start(created);
    while effects(&db).await.is_empty() {
        tokio::task::yield_now().await;
    }
    let runner = process.runner.clone();
    db.store
        .transaction(move |txn| {
            let runner = runner.clone();
            Box::pin(async move { runner.wake(txn, "orders/1").await })
        })
        .await
        .expect("woken");
    process.runner.nudge();
    comes_to(&db, State::Done).await;
    let commands = peer.commands("pay");
    assert_eq!(commands.len(), 2);
    assert_eq!(commands[0], commands[1]);
}

async fn a_saga_that_is_not_at_its_pivot_in_time_is_undone(db: TestDb) {
    let peer = Peer::new(|what, _| match what {
        "pay" => Outcome::wait(clock::now() + HOUR * 2, "in doubt").with(effect("asked")),
        _ => Outcome::done(),
    });
    let process = process(&db, &peer);
    let created = process.create(&db.store, HOUR).await;
    process.runner.start(created);
    while effects(&db).await.is_empty() {
        tokio::task::yield_now().await;
    }
    // The deadline that it waits for, at most, passes.
    let sql = "UPDATE saga SET deadline_at = 0, next_run_at = next_run_at - deadline_at";
    let passed = db.store.transaction(|txn| Box::pin(execute(txn, "let time pass", sql, vec![])));
    assert_eq!(passed.await.expect("passed"), 1);
    comes_to(&db, State::Compensated).await;
    assert_eq!(peer.asked(), ["hold", "pay", "unpay", "unhold"]);
    assert_eq!(effects(&db).await, ["asked", "ended TIMED_OUT"]);
}

async fn a_saga_that_is_turned_round_undoes_what_was_under_way(db: TestDb) {
    let peer = Peer::new(|what, _| match what {
        "pay" => Outcome::wait(clock::now() + HOUR, "in doubt").with(effect("asked")),
        _ => Outcome::done(),
    });
    let process = process(&db, &peer);
    let created = process.create(&db.store, HOUR * 2).await;
    process.runner.start(created);
    while effects(&db).await.is_empty() {
        tokio::task::yield_now().await;
    }
    let Turned::Round(turned) = process.turn(&db.store, Reach::BeforePivot).await else {
        panic!("it can be turned round");
    };
    process.runner.start(turned);
    comes_to(&db, State::Compensated).await;
    assert_eq!(peer.asked(), ["hold", "pay", "unpay", "unhold"]);
    assert_eq!(effects(&db).await, ["asked", "ended CANCELLED"]);
    assert!(matches!(process.turn(&db.store, Reach::PastPivot).await, Turned::Already));
}

async fn a_saga_past_its_pivot_is_turned_round_only_on_request(db: TestDb) {
    let peer = Peer::new(|_, _| Outcome::done());
    let process = process(&db, &peer);
    assert!(matches!(process.turn(&db.store, Reach::PastPivot).await, Turned::Unknown));
    let created = process.create(&db.store, HOUR).await;
    process.runner.start(created);
    comes_to(&db, State::Done).await;
    assert!(matches!(process.turn(&db.store, Reach::BeforePivot).await, Turned::TooLate));
    let Turned::Round(turned) = process.turn(&db.store, Reach::PastPivot).await else {
        panic!("it can be turned round");
    };
    process.runner.start(turned);
    comes_to(&db, State::Compensated).await;
    assert_eq!(peer.asked()[4..], ["unpay", "unhold"]);
}

async fn what_comes_too_late_is_not_begun(db: TestDb) {
    let peer = Peer::new(|_, _| Outcome::done());
    let process = process(&db, &peer);
    let created = process.create(&db.store, Duration::ZERO).await;
    process.runner.start(created);
    comes_to(&db, State::Compensated).await;
    // It was intended: whether another process began it is not known.
    assert_eq!(peer.asked(), ["unhold"]);
    assert_eq!(effects(&db).await, ["ended TIMED_OUT"]);
}

/// Each try is short, and no record renews the lease between them.
async fn a_lease_is_kept_while_a_step_is_tried_again_and_again(db: TestDb) {
    let peer = Peer::new(|_, _| Outcome::Unsure { why: "no answer".to_owned() });
    // Long enough that a busy machine does not let it expire.
    let process = process_with(&db, &peer, Settings { lease: HOUR / 1_200, ..quick() });
    let created = process.create(&db.store, HOUR).await;
    let first = lease(&db).await;
    process.runner.start(created);
    let renewed = async {
        loop {
            let now = lease(&db).await;
            if now.lease_until > first.lease_until {
                return now;
            }
            tokio::task::yield_now().await;
        }
    };
    let renewed = tokio::time::timeout(Duration::from_secs(20), renewed).await.expect("renewed");
    assert_eq!((renewed.revision, renewed.fence), (first.revision, first.fence));
    assert!(peer.asked().len() > 1);
}

async fn a_draining_process_gives_its_sagas_to_another(db: TestDb) {
    let hangs = Peer::new(|what, _| match what {
        "pay" => Outcome::Unsure { why: "no answer".to_owned() },
        _ => Outcome::done(),
    });
    // The test would not see the end of this lease.
    let leaves = process_with(&db, &hangs, Settings { lease: HOUR, ..quick() });
    let created = leaves.create(&db.store, HOUR).await;
    leaves.runner.start(created);
    while hangs.commands("pay").is_empty() {
        tokio::task::yield_now().await;
    }
    leaves.draining.begin();
    leaves.work.await.expect("no panic").expect("ends");
    let peer = Peer::new(|_, _| Outcome::done());
    let _other = process(&db, &peer);
    comes_to(&db, State::Done).await;
    assert_eq!(peer.commands("pay")[0], hangs.commands("pay")[0]);
}

async fn an_undo_that_stays_unknown_waits_for_a_person_and_is_tried_all_the_same(db: TestDb) {
    let mended = Arc::new(AtomicBool::new(false));
    let peer = {
        let mended = Arc::clone(&mended);
        Peer::new(move |what, _| match what {
            "pay" => Outcome::no("DECLINED", "no money"),
            "unhold" if !mended.load(Ordering::Relaxed) => {
                Outcome::Unsure { why: "no answer".to_owned() }
            }
            _ => Outcome::done(),
        })
    };
    let process = process(&db, &peer);
    let created = process.create(&db.store, HOUR).await;
    process.runner.start(created);
    let stuck = comes_to(&db, State::Stuck).await;
    assert_eq!(stuck.last_error.as_deref(), Some("no answer"));
    let commands = peer.commands("unhold");
    assert!(commands.len() >= 10, "{}", commands.len());
    assert_eq!(effects(&db).await, Vec::<String>::new(), "not ended before all is undone");
    mended.store(true, Ordering::Relaxed);
    comes_to(&db, State::Compensated).await;
    assert_eq!(peer.commands("unhold").last(), commands.first(), "the same command");
    assert_eq!(effects(&db).await, ["ended DECLINED"]);
}

async fn a_no_behind_the_pivot_waits_for_a_person_and_is_tried_all_the_same(db: TestDb) {
    let mended = Arc::new(AtomicBool::new(false));
    let peer = {
        let mended = Arc::clone(&mended);
        Peer::new(move |what, _| match what {
            "ship" if !mended.load(Ordering::Relaxed) => Outcome::no("NO_ADDRESS", "nowhere"),
            _ => Outcome::done(),
        })
    };
    let process = process(&db, &peer);
    let created = process.create(&db.store, HOUR).await;
    process.runner.start(created);
    let stuck = comes_to(&db, State::Stuck).await;
    assert_eq!((stuck.why, stuck.last_error.as_deref()), (None, Some("NO_ADDRESS: nowhere")));
    mended.store(true, Ordering::Relaxed);
    comes_to(&db, State::Done).await;
    assert!(!peer.asked().contains(&"unpay".to_owned()));
}

async fn an_effect_that_finds_another_row_than_was_read_has_its_step_called_again(db: TestDb) {
    let peer = Peer::new(|what, times| match (what, times) {
        ("confirm", 1 | 2) => Outcome::done().with(Effect::new(|txn| {
            Box::pin(async move {
                let sql = "INSERT INTO effect (what) VALUES ('never')";
                execute(txn, "have an effect", sql, vec![]).await?;
                Err(Stale::Changed)
            })
        })),
        ("confirm", _) => Outcome::done().with(effect("confirmed")),
        _ => Outcome::done(),
    });
    let process = process(&db, &peer);
    let created = process.create(&db.store, HOUR).await;
    process.runner.start(created);
    comes_to(&db, State::Done).await;
    assert_eq!(effects(&db).await, ["confirmed"]);
    let commands = peer.commands("confirm");
    assert!(commands.len() >= 3 && commands.iter().all(|id| *id == commands[0]), "{commands:?}");
}

async fn a_process_with_another_list_of_steps_refuses_to_start(db: TestDb) {
    let peer = Peer::new(|_, _| Outcome::done());
    let process = process_with(&db, &peer, Settings { lease: HOUR, ..quick() });
    let _born = process.create(&db.store, HOUR).await;
    let changed = Saga::<Sample>::named("sample.v1")
        .pivot("confirm", |on| Box::pin(on.ask("confirm")))
        .retriable("ship", |on| Box::pin(on.ask("ship")));
    let runner = Runner::new(db.store.clone(), changed, quick(), move |run| Sample {
        peer: peer.clone(),
        run,
    });
    let refused = runner.run(Draining::default()).await.expect_err("another list");
    let text = refused.to_string();
    assert!(text.contains("`hold pay confirm ship`") && text.contains("`confirm ship`"), "{text}");
}

#[derive(FromQueryResult)]
struct Lease {
    lease_until: i64,
    revision: i64,
    fence: i64,
}

async fn lease(db: &TestDb) -> Lease {
    let sql = "SELECT lease_until, revision, fence FROM saga";
    let mut found: Vec<Lease> =
        rows(db.store.reader(), "read a lease", sql, vec![]).await.expect("reads");
    found.pop().expect("a saga")
}

/// The same steps, and two more.
fn longer() -> Saga<Sample, Retriable> {
    Saga::<Sample>::named("sample.v2")
        .continues("sample.v1", 4)
        .compensable("hold", |on| Box::pin(on.ask("hold")), |on| Box::pin(on.ask("unhold")))
        .compensable("pay", |on| Box::pin(on.ask("pay")), |on| Box::pin(on.ask("unpay")))
        .pivot("confirm", |on| Box::pin(on.ask("confirm")))
        .retriable("ship", |on| Box::pin(on.ask("ship")))
        .recallable("send", |on| Box::pin(on.ask("send")), |on| Box::pin(on.ask("unsend")))
        .retriable("arrive", |on| Box::pin(on.ask("arrive")))
        .compensated(|_, why| effect(format!("ended {}", why.reason)))
}

#[expect(clippy::disallowed_methods, reason = "a process of its own in a test")]
fn longer_process(db: &TestDb, peer: &Peer) -> Process {
    let peer = peer.clone();
    let make = move |run| Sample { peer: peer.clone(), run };
    let runner = Runner::new(db.store.clone(), longer(), quick(), make);
    let draining = Draining::default();
    let work = tokio::spawn(runner.clone().run(draining.clone()));
    Process { runner, draining, work }
}

async fn longer_comes_to(db: &TestDb, state: State) -> History {
    let reached = async {
        loop {
            let found = history(db.store.reader(), "sample.v2", "orders/1").await.expect("reads");
            if let Some(found) = found.filter(|found| found.state == state) {
                return found;
            }
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(Duration::from_secs(20), reached).await.expect("in time")
}

async fn asked_of(peer: &Peer, what: &str, times: usize) {
    let asked = async {
        while peer.commands(what).len() < times {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(Duration::from_secs(20), asked).await.expect("asked");
}

fn far() -> OffsetDateTime {
    clock::now() + HOUR
}

async fn what_was_done_past_the_pivot_is_called_back_first(db: TestDb) {
    let peer = Peer::new(|what, _| match what {
        "arrive" => Outcome::wait(far(), "on its way"),
        _ => Outcome::done(),
    });
    let process = longer_process(&db, &peer);
    let created = process.create(&db.store, HOUR).await;
    process.runner.start(created);
    asked_of(&peer, "arrive", 1).await;
    let Turned::Round(created) = process.turn(&db.store, Reach::PastPivot).await else {
        panic!("not turned")
    };
    process.runner.start(created);
    longer_comes_to(&db, State::Compensated).await;
    assert_eq!(peer.asked()[6..], ["unsend", "unpay", "unhold"]);
    assert_eq!(effects(&db).await, ["ended CANCELLED"]);
}

async fn what_cannot_be_called_back_any_more_goes_on_and_can_be_turned_round_again(db: TestDb) {
    let peer = Peer::new(|what, times| match (what, times) {
        ("arrive", 1 | 2) => Outcome::wait(far(), "on its way"),
        ("unsend", 1) => Outcome::Resume { effect: Some(effect("resumed")) },
        _ => Outcome::done(),
    });
    let process = longer_process(&db, &peer);
    let created = process.create(&db.store, HOUR).await;
    process.runner.start(created);
    for times in [1, 2] {
        asked_of(&peer, "arrive", times).await;
        let Turned::Round(created) = process.turn(&db.store, Reach::PastPivot).await else {
            panic!("not turned")
        };
        process.runner.start(created);
    }
    longer_comes_to(&db, State::Compensated).await;
    assert_eq!(peer.asked()[6..], ["unsend", "arrive", "unsend", "unpay", "unhold"]);
    assert_eq!(effects(&db).await, ["resumed", "ended CANCELLED"]);
    let commands = peer.commands("arrive");
    assert_ne!(commands[0], commands[1], "it is another command");
}

async fn what_cannot_be_finished_is_called_back(db: TestDb) {
    let peer = Peer::new(|what, _| match what {
        "arrive" => Outcome::recall("NO_CARRIER", "nobody takes it"),
        _ => Outcome::done(),
    });
    let process = longer_process(&db, &peer);
    let created = process.create(&db.store, HOUR).await;
    process.runner.start(created);
    longer_comes_to(&db, State::Compensated).await;
    assert_eq!(peer.asked()[6..], ["unsend", "unpay", "unhold"]);
    assert_eq!(effects(&db).await, ["ended NO_CARRIER"]);
}

async fn a_longer_list_goes_on_with_the_sagas_of_a_shorter_one(db: TestDb) {
    let (older, newer) = (Peer::new(|_, _| Outcome::done()), Peer::new(|_, _| Outcome::done()));
    let process = process(&db, &older);
    let created = process.create(&db.store, HOUR).await;
    process.runner.start(created);
    comes_to(&db, State::Done).await;
    // Another one is under way when the release changes.
    let runner = process.runner.clone();
    let waiting = db.store.transaction(move |txn| {
        let runner = runner.clone();
        let new = New { key: "orders/2".to_owned(), data: Vec::new(), deadline: far() };
        Box::pin(async move { runner.create(txn, &new).await })
    });
    let _never_started: Created = waiting.await.expect("created");
    process.draining.begin();
    process.work.await.expect("ends").expect("well");

    let _process = longer_process(&db, &newer);
    longer_comes_to(&db, State::Done).await;
    let both = async {
        while newer.commands("arrive").len() < 2 {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(Duration::from_secs(20), both).await.expect("both arrive");
    assert_eq!(newer.commands("ship")[..1], older.commands("ship")[..], "the same command");
    assert_eq!(newer.commands("hold").len(), 1, "of the one that was under way");
}

async fn only_a_saga_that_goes_forward_is_woken_as_such(db: TestDb) {
    let peer = Peer::new(|what, _| match what {
        "pay" | "unpay" => Outcome::wait(far(), "later"),
        _ => Outcome::done(),
    });
    let process = process(&db, &peer);
    let wake = async || {
        let runner = process.runner.clone();
        let woken = db.store.transaction(move |txn| {
            let runner = runner.clone();
            Box::pin(async move { runner.wake_forward(txn, "orders/1").await })
        });
        woken.await.expect("answered")
    };
    assert!(!wake().await, "there is none");
    let created = process.create(&db.store, HOUR).await;
    process.runner.start(created);
    asked_of(&peer, "pay", 1).await;
    assert!(wake().await);
    process.runner.nudge();
    asked_of(&peer, "pay", 2).await;
    let Turned::Round(created) = process.turn(&db.store, Reach::BeforePivot).await else {
        panic!("not turned")
    };
    assert!(!wake().await);
    process.runner.start(created);
    asked_of(&peer, "unpay", 1).await;
}
