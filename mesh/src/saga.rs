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
pub(crate) mod operate;
mod outcome;
mod runner;

use std::{collections::HashMap, fmt, marker::PhantomData, sync::Arc, time::Duration};

use futures_util::future::BoxFuture;
use time::OffsetDateTime;

use crate::barrier::Command;

pub use decide::State;
pub use journal::{Direction, History, Record, StepState, due_now, history};
pub use outcome::{Effect, Outcome, Stale, Why};
pub use runner::{Created, Runner};

/// The reason of a compensation that began because the pivot was not reached in time.
pub const TIMED_OUT: &str = "TIMED_OUT";

/// A saga's list of steps; `P` is what a step is called on. Begins as [`Compensable`].
pub struct Saga<P, Phase = Compensable> {
    kind: &'static str,
    older: Option<Older>,
    steps: Vec<Step<P>>,
    compensated: Option<fn(&P, &Why) -> Effect>,
    phase: PhantomData<Phase>,
}

/// A shorter list that had another name, and that this one goes on with.
#[derive(Clone, Copy, Debug)]
struct Older {
    kind: &'static str,
    steps: usize,
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
    Recallable { undo: Act<P> },
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
        Self { kind, older: None, steps: Vec::new(), compensated: None, phase: PhantomData }
    }

    /// Takes over the sagas of the kind `older`, whose list was the first `steps` of this one:
    /// those under way go on here, those that ended well do their last step once more (it is
    /// answered as it was) and go on behind it. Sagas that another process still works on are
    /// taken over when it lets go of them.
    #[must_use]
    pub fn continues(mut self, older: &'static str, steps: usize) -> Self {
        self.older = Some(Older { kind: older, steps });
        self
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
            older: self.older,
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

    /// A step that is repeated until it is done, and that `undo` can call back for a while: a
    /// saga that is turned round past its pivot begins with that, and goes on forward if `undo`
    /// answers [`Outcome::Resume`].
    #[must_use]
    pub fn recallable(mut self, key: &'static str, act: Act<P>, undo: Act<P>) -> Self {
        self.steps.push(Step { key, role: Role::Recallable { undo }, act });
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

// === impl Settings ===

impl Default for Settings {
    fn default() -> Self {
        Self {
            lease: Duration::from_secs(30),
            poll: Duration::from_secs(1),
            concurrency: 256,
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
