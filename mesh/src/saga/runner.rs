//! What does the steps: one runner per process and kind, as many processes as there are.
//!
//! A saga belongs to whoever holds its lease. The lease has a number, the fence; nothing is
//! recorded under an old one, so that a process that was asleep for longer than its lease can
//! repeat a command, which is harmless, and cannot write.

use std::{
    collections::VecDeque,
    fmt,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use futures_util::future::BoxFuture;
use time::OffsetDateTime;
use tokio::{
    sync::{Notify, mpsc},
    task::JoinSet,
};
use uuid::Uuid;

use super::{
    Effect, New, Outcome, Reach, Role, Run, Saga, Settings, Stale, Turned, Why,
    decide::{Heard, Kind, Next, Position, State, Way},
    journal::{self, Entry, Held, StepState},
};
use crate::{
    app::Draining,
    barrier::Command,
    clock::{self, micros},
    ctx,
    store::{Failure, Store, Txn, TxnError},
};

/// How long recording a step may take.
const RECORD: Duration = Duration::from_secs(10);
/// A back-off up to this long is waited for with the lease in hand.
const SHORT: Duration = Duration::from_secs(1);

type Call = dyn Fn(Run) -> BoxFuture<'static, Outcome> + Send + Sync;
type End = dyn Fn(Run, &Why) -> Option<Effect> + Send + Sync;

/// Does the steps of the sagas of one kind. Cheap to clone.
#[derive(Clone)]
pub struct Runner(Arc<Inner>);

struct Inner {
    store: Store,
    kind: &'static str,
    steps: Vec<Doing>,
    kinds: Vec<Kind>,
    end: Box<End>,
    settings: Settings,
    /// Who holds the leases: this process, in this life.
    owner: String,
    begun: mpsc::UnboundedSender<Held>,
    inbox: Mutex<Option<mpsc::UnboundedReceiver<Held>>>,
    nudged: Notify,
}

struct Doing {
    key: &'static str,
    act: Box<Call>,
    undo: Option<Box<Call>>,
}

/// A saga that was written in a transaction, leased to this process: [`Runner::start`] it after
/// the commit.
#[derive(Debug)]
#[must_use = "without a start it waits until its lease has expired"]
pub struct Created(Box<Held>);

/// Why a step was not recorded.
#[derive(Debug, thiserror::Error)]
enum NotRecorded {
    /// Another one holds the saga, or it was woken in the meantime.
    #[error("the saga is not as it was")]
    Lost,
    /// The step's effect does not fit what is there now.
    #[error(transparent)]
    Stale(#[from] Stale),
    #[error(transparent)]
    Failed(#[from] Failure),
}

/// When a saga is looked at next.
#[derive(Clone, Copy, Debug)]
enum When {
    Now,
    After(Duration),
    At(OffsetDateTime),
}

/// What is to be written about a step.
#[derive(Clone)]
struct Writing {
    entry: Entry,
    when: When,
    /// Whether the saga stays ours.
    keep: bool,
    effect: Option<Effect>,
}

// === impl Runner ===

impl Runner {
    /// A runner of `saga`; `make` makes what its steps are called on.
    pub fn new<P, Phase, F>(store: Store, saga: Saga<P, Phase>, settings: Settings, make: F) -> Self
    where
        P: Send + Sync + 'static,
        F: Fn(Run) -> P + Send + Sync + 'static,
    {
        let make = Arc::new(make);
        let call = |act: super::Act<P>| -> Box<Call> {
            let make = Arc::clone(&make);
            Box::new(move |run| {
                let on = make(run);
                Box::pin(async move { act(&on).await })
            })
        };
        let mut kinds = Vec::new();
        let mut steps = Vec::new();
        for step in saga.steps {
            let (kind, undo) = match step.role {
                Role::Compensable { undo } => (Kind::Compensable, Some(call(undo))),
                Role::Pivot => (Kind::Pivot, None),
                Role::Retriable => (Kind::Retriable, None),
            };
            kinds.push(kind);
            steps.push(Doing { key: step.key, act: call(step.act), undo });
        }
        let (compensated, made) = (saga.compensated, Arc::clone(&make));
        let (begun, inbox) = mpsc::unbounded_channel();
        Self(Arc::new(Inner {
            store,
            kind: saga.kind,
            steps,
            kinds,
            end: Box::new(move |run, why| compensated.map(|effect| effect(&made(run), why))),
            settings,
            owner: Uuid::new_v4().to_string(),
            begun,
            inbox: Mutex::new(Some(inbox)),
            nudged: Notify::new(),
        }))
    }

    /// Writes a new saga with its first intent, in the caller's transaction.
    ///
    /// # Errors
    /// [`Failure`] of the database; [`Failure::is_duplicate`] if there is one of this key.
    pub async fn create(&self, txn: &Txn, new: &New) -> Result<Created, Failure> {
        let until = self.lease_until(txn).await?;
        let Inner { kind, steps, owner, .. } = &*self.0;
        let first = steps.first().map_or("", |step| step.key);
        Ok(Created(Box::new(journal::create(txn, kind, first, new, owner, until).await?)))
    }

    /// Begins with a saga at once; after the commit of its transaction.
    pub fn start(&self, created: Created) {
        // Nobody receives once the process leaves: the lease expires, and another one claims it.
        let _received = self.0.begun.send(*created.0).is_ok();
    }

    /// Turns a saga round, in the caller's transaction: whoever works on it can record nothing
    /// any more, and every step that may have been done is undone, the last first.
    ///
    /// # Errors
    /// [`Failure`] of the database.
    pub async fn turn_round(
        &self,
        txn: &Txn,
        key: &str,
        why: &Why,
        reach: Reach,
    ) -> Result<Turned, Failure> {
        let Inner { store, kind, kinds, owner, .. } = &*self.0;
        let Some(held) = journal::find(store, txn, kind, key).await? else {
            return Ok(Turned::Unknown);
        };
        let ended = matches!(held.state, State::Compensating | State::Compensated);
        if ended || held.why.is_some() {
            return Ok(Turned::Already);
        }
        let at = kinds.get(held.step).copied();
        let past = held.state == State::Done || at == Some(Kind::Retriable);
        if past && reach == Reach::BeforePivot {
            return Ok(Turned::TooLate);
        }
        let first = self.position(&held).undoable();
        let first = first.and_then(|step| Some((self.0.steps.get(step)?.key, step)));
        let until = self.lease_until(txn).await?;
        let turned = journal::turn(txn, &held, first, why, owner, until).await?;
        Ok(Turned::Round(Created(Box::new(turned))))
    }

    /// Makes a saga due that waits, in the caller's transaction; [`Runner::nudge`] after its commit.
    ///
    /// # Errors
    /// [`Failure`] of the database.
    pub async fn wake(&self, txn: &Txn, key: &str) -> Result<(), Failure> {
        let now = self.0.store.now_micros(txn).await?;
        journal::wake(txn, self.0.kind, key, now).await
    }

    /// Looks for what is due now, not at the next poll.
    pub fn nudge(&self) {
        self.0.nudged.notify_one();
    }

    /// Works until the process leaves; then finishes the steps under way and gives leases back.
    ///
    /// # Errors
    /// It runs already.
    pub async fn run(self, draining: Draining) -> anyhow::Result<()> {
        let inbox = self.0.inbox.lock().unwrap_or_else(PoisonError::into_inner).take();
        let mut inbox = inbox.ok_or_else(|| anyhow::anyhow!("{} runs already", self.0.kind))?;
        let mut waiting = VecDeque::new();
        let mut work = JoinSet::new();
        let mut poll = tokio::time::interval(self.0.settings.poll);
        poll.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            while work.len() < self.0.settings.concurrency
                && let Some(held) = waiting.pop_front()
            {
                work.spawn(self.clone().drive(held, draining.clone()));
            }
            tokio::select! {
                biased;
                () = draining.begun() => break,
                _ = poll.tick() => waiting.extend(self.due(work.len() + waiting.len()).await),
                () = self.0.nudged.notified() => {
                    waiting.extend(self.due(work.len() + waiting.len()).await);
                }
                Some(ended) = work.join_next(), if !work.is_empty() => told(ended),
                Some(held) = inbox.recv() => waiting.push_back(held),
            }
        }
        inbox.close();
        while let Some(held) = inbox.recv().await {
            waiting.push_back(held);
        }
        for held in waiting {
            self.give_back(&held).await;
        }
        while let Some(ended) = work.join_next().await {
            told(ended);
        }
        Ok(())
    }

    /// Claims what is due, as much as there is room for.
    async fn due(&self, busy: usize) -> Vec<Held> {
        let room = self.0.settings.concurrency.saturating_sub(busy);
        let (Ok(limit @ 1..), Ok(lease)) =
            (i64::try_from(room), i64::try_from(self.0.settings.lease.as_micros()))
        else {
            return Vec::new();
        };
        let runner = self.clone();
        let claimed = self.0.store.transaction(move |txn| {
            let runner = runner.clone();
            Box::pin(async move {
                let Inner { store, kind, owner, .. } = &*runner.0;
                journal::claim(store, txn, kind, owner, lease, limit).await
            })
        });
        match claimed.await {
            Ok(claimed) => claimed,
            Err(failure) => {
                let error = crate::status::with_causes(&failure);
                tracing::warn!(error, saga.kind = self.0.kind, "sagas that are due stay undone");
                Vec::new()
            }
        }
    }

    /// Does step after step, until there is nothing to do now or the saga is another's.
    async fn drive(self, mut held: Held, draining: Draining) {
        loop {
            let outcome = tokio::select! {
                biased;
                () = self.lose(&held) => return,
                outcome = self.call(&held) => outcome,
            };
            let (heard, mut writing, note) = self.heard(&held, outcome);
            let spread = fastrand::f64();
            let next =
                self.position(&held).next(heard.clone(), clock::now(), &self.0.settings, spread);
            if let Next::Again { after, attempts } = next
                && after <= SHORT
                && !draining.is_draining()
            {
                tracing::debug!(saga.key = held.key, reason = note, attempts, "again");
                held.attempts = attempts;
                tokio::select! {
                    () = draining.begun() => {}
                    () = tokio::time::sleep(after) => {}
                }
                continue;
            }
            let goes_on = self.follow(&held, &heard, next, note, &mut writing);
            match self.record(&held, writing.clone()).await {
                Ok(()) if !goes_on => return,
                Ok(()) => held = advanced(held, writing.entry),
                Err(problem) => match self.again(&held, &problem).await {
                    Some(as_it_is) => held = as_it_is,
                    None => return,
                },
            }
            if draining.is_draining() {
                return self.give_back(&held).await;
            }
        }
    }

    /// Calls the step function that is intended.
    async fn call(&self, held: &Held) -> Outcome {
        let Some(step) = self.0.steps.get(held.step) else {
            return Outcome::no("UNKNOWN_STEP", format!("there is no step {}", held.step));
        };
        let act = match held.way() {
            Way::Forward => Some(&step.act),
            Way::Back => step.undo.as_ref(),
        };
        let Some(act) = act else { return Outcome::done() };
        let timeout = self.0.settings.step_timeout;
        let call = act(self.describe(held));
        match ctx::background("saga step", timeout, held.traceparent.as_deref(), call).await {
            Ok(outcome) => outcome,
            Err(late) => Outcome::Unsure { why: late.to_string() },
        }
    }

    /// Resolves when the lease is another's; renews it until then.
    async fn lose(&self, held: &Held) {
        loop {
            tokio::time::sleep(self.0.settings.lease / 3).await;
            let (runner, id, fence) = (self.clone(), held.id.clone(), held.fence);
            let renewed = self.0.store.transaction(move |txn| {
                let (runner, id) = (runner.clone(), id.clone());
                Box::pin(async move {
                    let until = runner.lease_until(txn).await?;
                    journal::renew(txn, &id, fence, until).await
                })
            });
            match renewed.await {
                Ok(true) => {}
                Ok(false) => return,
                // The step goes on: what it does is recorded under the fence, or not at all.
                Err(failure) => {
                    let error = crate::status::with_causes(&failure);
                    tracing::warn!(error, saga.key = held.key, "a lease was not renewed");
                }
            }
        }
    }

    /// Takes an outcome apart: what it says, what is written with it, what is told of it.
    fn heard(&self, held: &Held, outcome: Outcome) -> (Heard, Writing, String) {
        let mut writing = Writing {
            entry: Entry {
                ended: None,
                intent: None,
                state: match held.way() {
                    Way::Forward => State::Running,
                    Way::Back => State::Compensating,
                },
                step: held.step,
                attempts: 0,
                why: held.why.clone(),
                last_error: None,
                next_run_at: 0,
                lease: None,
            },
            when: When::Now,
            keep: false,
            effect: None,
        };
        let key = self.0.steps.get(held.step).map_or("", |step| step.key);
        let mut ended = |state, reply| writing.entry.ended = Some((key, held.way(), state, reply));
        let (heard, note) = match outcome {
            Outcome::Done { reply, effect } => {
                ended(StepState::Ok, reply);
                writing.effect = effect;
                (Heard::Done, String::new())
            }
            Outcome::No { why, alert } => {
                ended(StepState::Failed, Vec::new());
                let note = format!("{}: {}", why.reason, why.message);
                if alert {
                    tracing::warn!(saga.key = held.key, step = key, reason = note, "unexpected no");
                }
                (Heard::No(why), note)
            }
            Outcome::NotSent { why } => (Heard::NotSent, why),
            Outcome::Unsure { why } => (Heard::Unsure, why),
            Outcome::Wait { until, why, effect } => {
                writing.effect = effect;
                (Heard::Wait(until), why)
            }
        };
        (heard, writing, note)
    }

    /// Fills in what is written for `next`. Says whether the saga goes on at once.
    fn follow(
        &self,
        held: &Held,
        heard: &Heard,
        next: Next,
        note: String,
        writing: &mut Writing,
    ) -> bool {
        let key = |step: usize| self.0.steps.get(step).map_or("", |step| step.key);
        let entry = &mut writing.entry;
        match next {
            Next::Step(step) => {
                entry.intent = Some((key(step), Way::Forward, Uuid::new_v4()));
                entry.step = step;
            }
            Next::Undo(step) => {
                entry.intent = Some((key(step), Way::Back, Uuid::new_v4()));
                entry.step = step;
            }
            Next::TurnRound(undo, why) => {
                tracing::info!(saga.key = held.key, reason = why.reason, "{} is undone", held.key);
                // Whatever came too late for the pivot is not written.
                writing.effect = None;
                let state = if matches!(heard, Heard::No(_)) {
                    StepState::Failed
                } else {
                    StepState::Unknown
                };
                entry.ended = Some((key(held.step), Way::Forward, state, Vec::new()));
                entry.why = Some(why);
                entry.state = State::Compensating;
                match undo {
                    Some(step) => {
                        entry.intent = Some((key(step), Way::Back, Uuid::new_v4()));
                        entry.step = step;
                    }
                    None => return self.ends(held, writing, State::Compensated),
                }
            }
            Next::Finish => return self.ends(held, writing, State::Done),
            Next::Compensated => return self.ends(held, writing, State::Compensated),
            Next::Again { after, attempts } => {
                entry.attempts = attempts;
                entry.last_error = Some(note);
                writing.when = When::After(after);
                return false;
            }
            Next::Wait(until) => {
                entry.attempts = held.attempts;
                entry.last_error = Some(note);
                writing.when = When::At(until);
                return false;
            }
            Next::Stuck => {
                tracing::error!(
                    saga.key = held.key,
                    step = key(held.step),
                    reason = note,
                    "{} is stuck: somebody has to look",
                    held.key
                );
                // Intended still: it is tried again now and then.
                entry.ended = None;
                entry.state = State::Stuck;
                entry.attempts = held.attempts;
                entry.last_error = Some(note);
                writing.when = When::After(self.0.settings.stuck_retry);
                return false;
            }
        }
        writing.keep = true;
        true
    }

    /// The last record of a saga; an undone one ends with its own effect.
    fn ends(&self, held: &Held, writing: &mut Writing, state: State) -> bool {
        writing.entry.state = state;
        if state == State::Compensated
            && let Some(why) = &writing.entry.why
        {
            writing.effect = (self.0.end)(self.describe(held), why);
        }
        false
    }

    /// Writes the effect and the record of a step: both, or neither.
    async fn record(&self, held: &Held, writing: Writing) -> Result<(), NotRecorded> {
        let (runner, held) = (self.clone(), held.clone());
        let traceparent = held.traceparent.clone();
        let recorded = self.0.store.transaction(move |txn| {
            let (runner, held, writing) = (runner.clone(), held.clone(), writing.clone());
            Box::pin(async move { runner.write(txn, &held, writing).await })
        });
        match ctx::background("saga record", RECORD, traceparent.as_deref(), recorded).await {
            Ok(recorded) => recorded,
            // It may have been written: what is there says so.
            Err(_late) => Err(NotRecorded::Lost),
        }
    }

    async fn write(&self, txn: &Txn, held: &Held, writing: Writing) -> Result<(), NotRecorded> {
        let Writing { mut entry, when, keep, effect } = writing;
        if let Some(effect) = effect {
            // First the row it speaks of, then the saga: the order in which a cancellation locks.
            (effect.0)(txn).await?;
        }
        let now = self.0.store.now_micros(txn).await?;
        entry.next_run_at = match when {
            When::Now => now,
            When::After(after) => {
                now.saturating_add(i64::try_from(after.as_micros()).unwrap_or(i64::MAX))
            }
            When::At(at) => micros(at),
        };
        entry.lease = if keep { Some(self.lease_until(txn).await?) } else { None };
        if journal::record(txn, held, &entry).await? { Ok(()) } else { Err(NotRecorded::Lost) }
    }

    /// The saga as it is, after a step of it was not recorded; `None` if it is another's.
    async fn again(&self, held: &Held, problem: &NotRecorded) -> Option<Held> {
        let reason = crate::status::with_causes(problem);
        tracing::debug!(saga.key = held.key, reason, "a step was not recorded");
        tokio::time::sleep(self.0.settings.backoff_first.mul_f64(fastrand::f64())).await;
        match journal::held(self.0.store.reader(), &held.id, held.fence).await {
            Ok(as_it_is) => as_it_is.filter(|held| {
                matches!(held.state, State::Running | State::Compensating | State::Stuck)
            }),
            Err(failure) => {
                let error = crate::status::with_causes(&failure);
                tracing::warn!(error, saga.key = held.key, "left until its lease expires");
                None
            }
        }
    }

    async fn give_back(&self, held: &Held) {
        let (id, fence) = (held.id.clone(), held.fence);
        let given = self.0.store.transaction(move |txn| {
            let id = id.clone();
            Box::pin(async move { journal::give_back(txn, &id, fence).await })
        });
        if let Err(failure) = given.await {
            let error = crate::status::with_causes(&failure);
            tracing::warn!(error, saga.key = held.key, "a lease was not given back");
        }
    }

    async fn lease_until(&self, txn: &Txn) -> Result<i64, Failure> {
        let now = self.0.store.now_micros(txn).await?;
        let lease = i64::try_from(self.0.settings.lease.as_micros()).unwrap_or(i64::MAX);
        Ok(now.saturating_add(lease))
    }

    fn position(&self, held: &Held) -> Position<'_> {
        Position {
            steps: &self.0.kinds,
            step: held.step,
            way: held.way(),
            attempts: held.attempts,
            deadline: held.deadline,
        }
    }

    fn describe(&self, held: &Held) -> Run {
        Run {
            key: held.key.clone(),
            data: held.data.clone(),
            command: Command {
                saga: held.id.clone(),
                step_key: self.0.steps.get(held.step).map_or("", |step| step.key).to_owned(),
                command_id: held.command_id,
                fence: held.fence,
            },
            attempt: held.attempts + 1,
            deadline: held.deadline,
            replies: Arc::new(held.replies.clone()),
        }
    }
}

impl fmt::Debug for Runner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Runner").field(&self.0.kind).finish()
    }
}

// === impl NotRecorded ===

impl TxnError for NotRecorded {
    fn failure(&self) -> Option<&Failure> {
        match self {
            Self::Lost => None,
            Self::Stale(stale) => stale.failure(),
            Self::Failed(failure) => Some(failure),
        }
    }
}

/// The saga after its step was recorded: what the database has, without asking it.
fn advanced(mut held: Held, entry: Entry) -> Held {
    if let Some((key, Way::Forward, StepState::Ok, reply)) = entry.ended {
        held.replies.insert(key.to_owned(), reply);
    }
    if let Some((_, _, command_id)) = entry.intent {
        held.command_id = command_id;
    }
    Held {
        state: entry.state,
        step: entry.step,
        attempts: entry.attempts,
        why: entry.why,
        revision: held.revision + 1,
        ..held
    }
}

/// A step function that panicked took its saga's task with it; the lease expires, and the saga
/// is tried again.
fn told(ended: Result<(), tokio::task::JoinError>) {
    if let Err(panic) = ended {
        tracing::error!(%panic, "a saga's step panicked");
    }
}
