//! Sagas: a list of steps, each done in another service, that ends well or is undone.
//!
//! The form of a definition keeps its promise: what stands before the pivot can be undone,
//! the pivot is a commit in our own database, what comes after it is done sooner or later.
//!
//! ```compile_fail
//! use mesh::saga::{Outcome, Saga};
//! struct Nothing;
//! let after_the_pivot = Saga::<Nothing>::named("sample.v1")
//!     .pivot("confirm", |_| Box::pin(async { Outcome::done() }))
//!     .compensable(
//!         "too_late",
//!         |_| Box::pin(async { Outcome::done() }),
//!         |_| Box::pin(async { Outcome::done() }),
//!     );
//! ```
//!
//! `decide` says what follows an outcome, `journal` keeps it, `runner` does it.

mod decide;
mod journal;
mod runner;

use std::{collections::HashMap, fmt, marker::PhantomData, sync::Arc, time::Duration};

use futures_util::future::BoxFuture;
use time::OffsetDateTime;
use tonic::Status;

use crate::{
    barrier::Command,
    client::{Verdict, judge},
    status,
    store::{Failure, Txn, TxnError},
};

pub use decide::State;
pub use journal::{Direction, History, Record, StepState, history};
pub use runner::{Created, Runner};

/// The reason of a compensation that began because the pivot was not reached in time.
pub const TIMED_OUT: &str = "TIMED_OUT";

/// A saga's list of steps; `P` is what a step is called on. Begins as [`Compensable`].
pub struct Saga<P, Phase = Compensable> {
    kind: &'static str,
    steps: Vec<Step<P>>,
    compensated: Option<fn(&P, &Why) -> Effect>,
    phase: PhantomData<Phase>,
}

/// Before the pivot: every step says how it is undone.
#[derive(Clone, Copy, Debug)]
pub enum Compensable {}

/// After the pivot: every step is repeated until it is done.
#[derive(Clone, Copy, Debug)]
pub enum Retriable {}

type Act<P> = fn(&P) -> BoxFuture<'_, Outcome>;

struct Step<P> {
    key: &'static str,
    role: Role<P>,
    act: Act<P>,
}

enum Role<P> {
    Compensable { undo: Act<P> },
    Pivot,
    Retriable,
}

/// What one call of a step function knows.
#[derive(Clone, Debug)]
pub struct Run {
    /// What the saga is about, such as `orders/…`.
    pub key: String,
    /// What the saga was created with.
    pub data: Vec<u8>,
    /// Goes into the request: the same for every try of a step.
    pub command: Command,
    /// 1 is the first try.
    pub attempt: u32,
    /// Until when the pivot is to be reached.
    pub deadline: OffsetDateTime,
    replies: Arc<HashMap<String, Vec<u8>>>,
}

/// What a step came to.
#[derive(Clone, Debug)]
pub enum Outcome {
    /// It is done.
    Done {
        /// What later steps can read.
        reply: Vec<u8>,
        /// What is written with the record of the step.
        effect: Option<Effect>,
    },
    /// A rule said no, for good: what was done is undone. After the pivot, and when undoing, a
    /// person has to look.
    No {
        /// Why.
        why: Why,
        /// Whether this should not have happened.
        alert: bool,
    },
    /// It was not sent: later, and no try is counted.
    NotSent {
        /// Why.
        why: String,
    },
    /// It is not known whether it was done: asked again with the same command.
    Unsure {
        /// Why.
        why: String,
    },
    /// It is under way and ends by itself: looked at again later, and no try is counted.
    Wait {
        /// When, unless something wakes the saga.
        until: OffsetDateTime,
        /// For what.
        why: String,
        /// What is written now.
        effect: Option<Effect>,
    },
}

type Write = dyn for<'c> Fn(&'c Txn) -> BoxFuture<'c, Result<(), Stale>> + Send + Sync;

/// What a step writes into our own database, in the transaction that records the step.
#[derive(Clone)]
pub struct Effect(Arc<Write>);

/// Why an effect was not written.
#[derive(Debug, thiserror::Error)]
pub enum Stale {
    /// The row is not as the step read it: the step is called again.
    #[error("the row has changed")]
    Changed,
    /// The database failed.
    #[error(transparent)]
    Failed(#[from] Failure),
}

/// Why a saga is undone.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Why {
    /// A word for programs.
    pub reason: String,
    /// A sentence for people.
    pub message: String,
}

/// A saga to create.
#[derive(Clone, Debug)]
pub struct New {
    /// What it is about, such as `orders/…`: one saga of a kind for each.
    pub key: String,
    /// What its steps are given.
    pub data: Vec<u8>,
    /// Until when the pivot is to be reached; then it is undone.
    pub deadline: OffsetDateTime,
}

/// How far a saga may have come to be turned round.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reach {
    /// Not to the pivot.
    BeforePivot,
    /// Anywhere: what stands before the pivot is undone all the same.
    PastPivot,
}

/// What became of a wish to turn a saga round.
#[derive(Debug)]
pub enum Turned {
    /// It is being undone: start it after the commit.
    Round(Created),
    /// It is past the pivot.
    TooLate,
    /// It is being undone already, or has been.
    Already,
    /// There is none.
    Unknown,
}

/// How a runner works.
#[derive(Clone, Copy, Debug)]
pub struct Settings {
    /// How long a saga belongs to its runner without a renewal.
    pub lease: Duration,
    /// How often to look for what is due.
    pub poll: Duration,
    /// How many sagas run at once.
    pub concurrency: usize,
    /// How long one call of a step function may take.
    pub step_timeout: Duration,
    /// Between two tries: a random time below a ceiling that begins here and doubles.
    pub backoff_first: Duration,
    /// The highest ceiling.
    pub backoff_max: Duration,
    /// After how many tries an undo waits for a person.
    pub undo_tries: u32,
    /// How often a saga that waits for a person is tried all the same.
    pub stuck_retry: Duration,
}

// === impl Saga ===

impl<P> Saga<P, Compensable> {
    /// A saga of this kind. A change of its steps is another kind.
    #[must_use]
    pub fn named(kind: &'static str) -> Self {
        Self { kind, steps: Vec::new(), compensated: None, phase: PhantomData }
    }

    /// A step that `undo` reverses. `undo` is also called for a step that may never have
    /// arrived: the participant's barrier then answers that nothing was done.
    #[must_use]
    pub fn compensable(mut self, key: &'static str, act: Act<P>, undo: Act<P>) -> Self {
        self.steps.push(Step { key, role: Role::Compensable { undo }, act });
        self
    }

    /// The point of no return: its effect is a commit in our own database.
    #[must_use]
    pub fn pivot(mut self, key: &'static str, act: Act<P>) -> Saga<P, Retriable> {
        self.steps.push(Step { key, role: Role::Pivot, act });
        Saga {
            kind: self.kind,
            steps: self.steps,
            compensated: self.compensated,
            phase: PhantomData,
        }
    }
}

impl<P> Saga<P, Retriable> {
    /// A step that is repeated until it is done.
    #[must_use]
    pub fn retriable(mut self, key: &'static str, act: Act<P>) -> Self {
        self.steps.push(Step { key, role: Role::Retriable, act });
        self
    }

    /// What is written when everything is undone, with the record of the last undo.
    #[must_use]
    pub fn compensated(mut self, effect: fn(&P, &Why) -> Effect) -> Self {
        self.compensated = Some(effect);
        self
    }
}

impl<P, Phase> fmt::Debug for Saga<P, Phase> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let steps: Vec<_> = self.steps.iter().map(|step| step.key).collect();
        f.debug_struct("Saga").field("kind", &self.kind).field("steps", &steps).finish()
    }
}

// === impl Run ===

impl Run {
    /// What an earlier step kept.
    #[must_use]
    pub fn reply(&self, step_key: &str) -> Option<&[u8]> {
        self.replies.get(step_key).map(Vec::as_slice)
    }
}

// === impl Outcome ===

impl Outcome {
    /// Done; nothing kept, nothing written.
    #[must_use]
    pub fn done() -> Self {
        Self::Done { reply: Vec::new(), effect: None }
    }

    /// Keeps what later steps can read.
    #[must_use]
    pub fn keep(mut self, bytes: Vec<u8>) -> Self {
        if let Self::Done { reply, .. } = &mut self {
            *reply = bytes;
        }
        self
    }

    /// Writes this with the record of the step.
    #[must_use]
    pub fn with(mut self, write: Effect) -> Self {
        if let Self::Done { effect, .. } | Self::Wait { effect, .. } = &mut self {
            *effect = Some(write);
        }
        self
    }

    /// No, for this reason.
    #[must_use]
    pub fn no(reason: impl Into<String>, message: impl Into<String>) -> Self {
        Self::No { why: Why::new(reason, message), alert: false }
    }

    /// Not yet: look again at `until`.
    #[must_use]
    pub fn wait(until: OffsetDateTime, why: impl Into<String>) -> Self {
        Self::Wait { until, why: why.into(), effect: None }
    }
}

/// What a participant's failure means for the step that asked it.
impl From<Status> for Outcome {
    fn from(failure: Status) -> Self {
        let why = || format!("{}: {}", failure.code(), failure.message());
        match judge(&failure) {
            Verdict::NotSent => Self::NotSent { why: why() },
            Verdict::Unsure => Self::Unsure { why: why() },
            Verdict::No => {
                let reason = status::reason(&failure).map_or_else(
                    || crate::telemetry::code(failure.code()).to_owned(),
                    |info| info.reason,
                );
                // Any other code is a bug, or a contract that the two sides read differently.
                let alert = failure.code() != tonic::Code::FailedPrecondition;
                Self::No { why: Why::new(reason, failure.message()), alert }
            }
        }
    }
}

// === impl Effect ===

impl Effect {
    /// What `write` does. It may run several times, and only its last run counts.
    pub fn new<F>(write: F) -> Self
    where
        F: for<'c> Fn(&'c Txn) -> BoxFuture<'c, Result<(), Stale>> + Send + Sync + 'static,
    {
        Self(Arc::new(write))
    }

    /// Both, this one first.
    fn then(self, next: Self) -> Self {
        Self::new(move |txn| {
            let (first, next) = (Arc::clone(&self.0), Arc::clone(&next.0));
            Box::pin(async move {
                first(txn).await?;
                next(txn).await
            })
        })
    }
}

impl fmt::Debug for Effect {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Effect")
    }
}

impl TxnError for Stale {
    fn failure(&self) -> Option<&Failure> {
        match self {
            Self::Changed => None,
            Self::Failed(failure) => Some(failure),
        }
    }
}

// === impl Why ===

impl Why {
    /// A reason and a sentence.
    #[must_use]
    pub fn new(reason: impl Into<String>, message: impl Into<String>) -> Self {
        Self { reason: reason.into(), message: message.into() }
    }
}

// === impl Settings ===

impl Default for Settings {
    fn default() -> Self {
        Self {
            lease: Duration::from_secs(30),
            poll: Duration::from_secs(1),
            concurrency: 64,
            step_timeout: Duration::from_secs(35),
            backoff_first: Duration::from_millis(100),
            backoff_max: Duration::from_secs(60),
            undo_tries: 10,
            stuck_retry: Duration::from_secs(60),
        }
    }
}

#[cfg(test)]
mod tests;
