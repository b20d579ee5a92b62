//! What does the steps: one runner per process and kind, as many processes as there are.
//!
//! A saga belongs to whoever holds its lease. The lease has a number, the fence; nothing is
//! recorded under an old one, so that a process that was asleep for longer than its lease can
//! repeat a command, which is harmless, and cannot write.

mod drive;
mod share;
mod writing;

use std::{
    collections::VecDeque,
    fmt,
    sync::{Arc, Mutex, PoisonError},
};

use futures_util::future::{BoxFuture, join_all};
use tokio::{
    sync::{Notify, mpsc},
    task::JoinSet,
};
use uuid::Uuid;

use self::share::{LOOK, Share};
use super::{
    Effect, New, Outcome, Reach, Role, Run, Saga, Settings, Turned, Why,
    decide::{Kind, State},
    journal::{self, Definition, Held},
};
use crate::{
    app::Draining,
    clock,
    store::{Failure, Store, Txn},
    telemetry::Spans,
};

/// New sagas beyond this many times what runs at once wait in the database.
const QUEUE: usize = 4;

/// Room for those that are written at once and each saw the last place in the queue.
const SPARE: usize = 1_024;

type Call = dyn Fn(Run) -> BoxFuture<'static, Outcome> + Send + Sync;
type End = dyn Fn(Run, &Why) -> Option<Effect> + Send + Sync;

/// Does the steps of the sagas of one kind. Cheap to clone.
#[derive(Clone)]
pub struct Runner(Arc<Inner>);

struct Inner {
    store: Store,
    definition: Definition,
    /// The list that this one goes on with.
    older: Option<Definition>,
    steps: Vec<Doing>,
    kinds: Vec<Kind>,
    end: Box<End>,
    settings: Settings,
    share: Share,
    /// Who holds the leases: this process, in this life.
    owner: String,
    begun: mpsc::Sender<Held>,
    inbox: Mutex<Option<mpsc::Receiver<Held>>>,
    nudged: Notify,
}

struct Doing {
    key: &'static str,
    act: Box<Call>,
    undo: Option<Box<Call>>,
}

/// A saga that was written in a transaction, leased to this process if there is room for it:
/// [`Runner::start`] it after the commit.
#[derive(Debug)]
#[must_use = "without a start it waits until its lease has expired"]
pub struct Created(pub(super) Option<Box<Held>>);

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
        let (mut kinds, mut keys) = (Vec::new(), Vec::new());
        let mut steps = Vec::new();
        for step in saga.steps {
            keys.push(step.key);
            let (kind, undo) = match step.role {
                Role::Compensable { undo } => (Kind::Compensable, Some(call(undo))),
                Role::Pivot => (Kind::Pivot, None),
                Role::Retriable => (Kind::Retriable, None),
                Role::Recallable { undo } => (Kind::Recallable, Some(call(undo))),
            };
            kinds.push(kind);
            steps.push(Doing { key: step.key, act: call(step.act), undo });
        }
        let (compensated, made) = (saga.compensated, Arc::clone(&make));
        let (begun, inbox) =
            mpsc::channel(settings.concurrency.saturating_mul(QUEUE).saturating_add(SPARE));
        Self(Arc::new(Inner {
            store,
            older: saga.older.map(|older| Definition {
                kind: older.kind,
                steps: keys.iter().take(older.steps).copied().collect::<Vec<_>>().join(" "),
            }),
            definition: Definition { kind: saga.kind, steps: keys.join(" ") },
            steps,
            kinds,
            end: Box::new(move |run, why| compensated.map(|effect| effect(&made(run), why))),
            settings,
            share: Share::new(settings.concurrency),
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
        let Inner { definition, steps, owner, begun, store, .. } = &*self.0;
        let first = steps.first().map_or("", |step| step.key);
        // Where the queue is full the saga is left to whoever has room first.
        let room = begun.capacity() > SPARE;
        let until = if room { self.lease_until(txn).await? } else { store.now_micros(txn).await? };
        let held = journal::create(txn, definition, first, new, owner, until).await?;
        Ok(Created(room.then(|| Box::new(held))))
    }

    /// Begins with a saga at once; after the commit of its transaction.
    pub fn start(&self, created: Created) {
        // The queue is closed once the process leaves: the lease expires then.
        if created.0.is_none_or(|held| self.0.begun.try_send(*held).is_err()) {
            self.nudge();
        }
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
        let Inner { store, definition, owner, .. } = &*self.0;
        let Some(held) = journal::find(store, txn, definition, key).await? else {
            return Ok(Turned::Unknown);
        };
        let ended = matches!(held.state, State::Compensating | State::Compensated);
        if ended || held.why.is_some() {
            return Ok(Turned::Already);
        }
        let past = held.state == State::Done || self.position(&held).is_past_pivot();
        if past && reach == Reach::BeforePivot {
            return Ok(Turned::TooLate);
        }
        let first = self.position(&held).undoable();
        let first = first.and_then(|step| Some((self.0.steps.get(step)?.key, step)));
        let until = self.lease_until(txn).await?;
        let turned = journal::turn(txn, &held, first, why, owner, until).await?;
        Ok(Turned::Round(Created(Some(Box::new(turned)))))
    }

    /// Makes a saga due that waits, in the caller's transaction; [`Runner::nudge`] after its commit.
    ///
    /// # Errors
    /// [`Failure`] of the database.
    pub async fn wake(&self, txn: &Txn, key: &str) -> Result<(), Failure> {
        let now = self.0.store.now_micros(txn).await?;
        journal::due_now(txn, self.0.definition.kind, key, now).await.map(|_woken| ())
    }

    /// The same for a saga of which nobody works on a step just now: whoever does will see for
    /// itself, and is not disturbed.
    ///
    /// # Errors
    /// [`Failure`] of the database.
    pub async fn wake_waiting(&self, txn: &Txn, key: &str) -> Result<(), Failure> {
        let now = self.0.store.now_micros(txn).await?;
        journal::due_if_waiting(txn, self.0.definition.kind, key, now).await
    }

    /// Makes a saga due as [`Runner::wake`] does, unless it is being undone: says whether it goes
    /// forward.
    ///
    /// # Errors
    /// [`Failure`] of the database.
    pub async fn wake_forward(&self, txn: &Txn, key: &str) -> Result<bool, Failure> {
        let now = self.0.store.now_micros(txn).await?;
        journal::due_forward(txn, self.0.definition.kind, key, now).await
    }

    /// Looks for what is due now, not at the next poll.
    pub fn nudge(&self) {
        self.0.nudged.notify_one();
    }

    /// Works until the process leaves; then finishes the steps under way and gives leases back.
    ///
    /// # Errors
    /// It runs already; or there are sagas of this kind that follow another list of steps.
    pub async fn run(self, draining: Draining) -> anyhow::Result<()> {
        let Definition { kind, steps } = &self.0.definition;
        let inbox = self.0.inbox.lock().unwrap_or_else(PoisonError::into_inner).take();
        let mut inbox = inbox.ok_or_else(|| anyhow::anyhow!("{kind} runs already"))?;
        if let Some(other) = journal::stranger(self.0.store.reader(), &self.0.definition).await? {
            anyhow::bail!(
                "a saga of kind {kind} has the steps `{other}`, this release has `{steps}`: \
                 finish it with the release that made it, and give a changed list a new name"
            );
        }
        self.adopt().await?;
        let mut waiting = VecDeque::new();
        let mut work = JoinSet::new();
        let mut poll = tokio::time::interval(self.0.settings.poll);
        poll.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let mut older = tokio::time::interval(self.0.settings.lease);
        older.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            let most = self.0.share.now(clock::instant());
            while work.len() < most
                && let Some(held) = waiting.pop_front()
            {
                work.spawn(Spans::carried(self.clone().drive(held, draining.clone())));
            }
            tokio::select! {
                biased;
                () = draining.begun() => break,
                _ = poll.tick(), if waiting.is_empty() => {
                    waiting.extend(self.due(most, work.len()).await);
                }
                () = self.0.nudged.notified(), if waiting.is_empty() => {
                    waiting.extend(self.due(most, work.len()).await);
                }
                _ = older.tick(), if self.0.older.is_some() => {
                    if let Err(failure) = self.adopt().await {
                        let error = crate::status::with_causes(&failure);
                        tracing::warn!(error, "sagas of an older release wait");
                    }
                }
                Some(ended) = work.join_next(), if !work.is_empty() => told(ended),
                Some(held) = inbox.recv(), if work.len() < most => waiting.push_back(held),
                () = tokio::time::sleep(LOOK), if work.len() >= most => {}
            }
        }
        inbox.close();
        while let Some(held) = inbox.recv().await {
            waiting.push_back(held);
        }
        join_all(waiting.iter().map(|held| self.give_back(held))).await;
        while let Some(ended) = work.join_next().await {
            told(ended);
        }
        Ok(())
    }

    /// Claims what is due, as much as there is room for; a few even if there is none, so that new
    /// sagas cannot keep those waiting for ever that were interrupted.
    async fn due(&self, most: usize, busy: usize) -> Vec<Held> {
        let room = most.saturating_sub(busy).max(most / 8).max(1);
        let (Ok(limit @ 1..), Ok(lease)) =
            (i64::try_from(room), i64::try_from(self.0.settings.lease.as_micros()))
        else {
            return Vec::new();
        };
        let runner = self.clone();
        let claimed = async {
            let Inner { store, definition, .. } = &*self.0;
            // Mostly nothing is due: to see that needs no turn of the one writer.
            if !journal::is_due(store, definition).await? {
                return Ok(Vec::new());
            }
            let claimed = store.transaction(move |txn| {
                let runner = runner.clone();
                Box::pin(async move {
                    let Inner { store, definition, owner, .. } = &*runner.0;
                    journal::claim(store, txn, definition, owner, lease, limit).await
                })
            });
            claimed.await
        };
        match claimed.await {
            Ok(claimed) => {
                if claimed.len() == room {
                    // There may be more: it is looked for as soon as these are on their way.
                    self.nudge();
                }
                claimed
            }
            Err(failure) => {
                let failure: Failure = failure;
                let error = crate::status::with_causes(&failure);
                tracing::warn!(
                    error,
                    saga.kind = self.0.definition.kind,
                    "sagas that are due stay undone"
                );
                Vec::new()
            }
        }
    }

    /// Takes over what an older release left.
    async fn adopt(&self) -> Result<(), Failure> {
        if self.0.older.is_none() {
            return Ok(());
        }
        loop {
            let runner = self.clone();
            let adopted = self.0.store.transaction(move |txn| {
                let runner = runner.clone();
                Box::pin(async move {
                    let Inner { store, definition, older, .. } = &*runner.0;
                    let Some(older) = older else { return Ok(0) };
                    journal::adopt(store, txn, definition, older).await
                })
            });
            match adopted.await {
                Ok(0) => return Ok(()),
                Ok(adopted) => tracing::info!(adopted, "sagas of an older release go on here"),
                Err(failure) => return Err(failure),
            }
        }
    }

    async fn lease_until(&self, txn: &Txn) -> Result<i64, Failure> {
        let now = self.0.store.now_micros(txn).await?;
        let lease = i64::try_from(self.0.settings.lease.as_micros()).unwrap_or(i64::MAX);
        Ok(now.saturating_add(lease))
    }
}

impl fmt::Debug for Runner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Runner").field(&self.0.definition.kind).finish()
    }
}

/// A step function that panicked took its saga's task with it; the lease expires, and the saga
/// is tried again.
fn told(ended: Result<(), tokio::task::JoinError>) {
    if let Err(panic) = ended {
        tracing::error!(%panic, "a saga's step panicked");
    }
}
