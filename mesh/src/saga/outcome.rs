//! What a step comes to, and what is written with it.

use std::{fmt, sync::Arc, time::Duration};

use futures_util::future::BoxFuture;
use time::OffsetDateTime;
use tonic::Status;
use tonic_types::StatusExt as _;

use crate::{
    client::{Verdict, is_shed, judge},
    status,
    store::{Failure, Txn, TxnError},
    telemetry::{Span, names},
};

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
    /// Past the pivot: what was done cannot be finished, and is called back as far as it can be.
    Recall {
        /// Why.
        why: Why,
    },
    /// An undo of what was done past the pivot: it cannot be called back any more. The saga goes
    /// on forward, behind that step.
    Resume {
        /// What is written with the record of it.
        effect: Option<Effect>,
    },
    /// It was not sent: later, and no try is counted.
    NotSent {
        /// Why.
        why: String,
        /// The soonest that it is worth while.
        after: Duration,
        /// Whether that is because the participant has too much to do.
        shed: bool,
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
pub struct Effect(pub(super) Arc<Write>);

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

// === impl Outcome ===

impl Outcome {
    /// Done; nothing kept, nothing written.
    #[must_use]
    pub fn done() -> Self {
        Self::Done { reply: Vec::new(), effect: None }
    }

    /// Says on the span of a step what that came to.
    pub(super) fn tell(&self, span: &Span) {
        match self {
            Self::Done { .. } | Self::Resume { .. } | Self::Wait { .. } => {}
            Self::No { why, .. } | Self::Recall { why } => {
                span.set(names::span::REASON, why.reason.clone());
                span.failed("refused");
            }
            Self::NotSent { .. } => span.failed("not_sent"),
            Self::Unsure { .. } => span.failed("unsure"),
        }
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
        if let Self::Done { effect, .. } | Self::Wait { effect, .. } | Self::Resume { effect } =
            &mut self
        {
            *effect = Some(write);
        }
        self
    }

    /// No, for this reason.
    #[must_use]
    pub fn no(reason: impl Into<String>, message: impl Into<String>) -> Self {
        Self::No { why: Why::new(reason, message), alert: false }
    }

    /// Cannot be finished, for this reason: call back what was done past the pivot.
    #[must_use]
    pub fn recall(reason: impl Into<String>, message: impl Into<String>) -> Self {
        Self::Recall { why: Why::new(reason, message) }
    }

    /// Not sent, because a call before it came to `failure`.
    #[must_use]
    pub fn not_sent(why: String, failure: &Status) -> Self {
        let after = failure.get_details_retry_info().and_then(|info| info.retry_delay);
        let shed = is_shed(failure);
        Self::NotSent { why, after: after.unwrap_or_default(), shed }
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
            Verdict::NotSent => Self::not_sent(why(), &failure),
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
    pub(super) fn then(self, next: Self) -> Self {
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
