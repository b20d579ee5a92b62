//! Mistakes that a debug build can be told to make, so that tests see who finds them.
//!
//! Debug builds only, and only in a process that was started with `--seeded-bug NAME`: a flag and
//! no call, so that it makes the mistake again after it was killed. A release cannot be told to.

/// A mistake, named after what is left out or done wrongly.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
#[value(rename_all = "snake_case")]
pub enum Bug {
    /// A consumer has its effect and leaves its cursor where it was.
    SkipCursor,
    /// The same, and it does not know an event again that it has taken in.
    SkipInbox,
    /// A consumer moves its cursor in a transaction before that of the effect.
    AckBeforeEffect,
    /// A process is asleep after the answer to a saga's step, and records it whoever holds the
    /// saga by then, whatever became of it.
    ForgetFence,
    /// A participant does a command however often it comes.
    SkipBarrier,
    /// A call is carried out however often its request id comes.
    SkipRequestKey,
    /// What the provider did not answer to is taken to have failed.
    UnknownMeansFailed,
    /// The provider is asked again under another key.
    NewProviderKey,
}

// === impl Bug ===

impl Bug {
    /// Whether this process makes it.
    #[cfg(not(debug_assertions))]
    #[inline]
    #[must_use]
    pub fn is_seeded(self) -> bool {
        false
    }

    /// Whether this process makes it.
    #[cfg(debug_assertions)]
    #[must_use]
    pub fn is_seeded(self) -> bool {
        SEEDED.get() == Some(&self)
    }

    /// Lets this process make it from now on; the first one that is named counts.
    #[cfg(debug_assertions)]
    pub(crate) fn seed(self) {
        let seeded = SEEDED.get_or_init(|| self);
        tracing::warn!(bug = ?seeded, "this process makes a mistake on purpose");
    }
}

#[cfg(debug_assertions)]
static SEEDED: std::sync::OnceLock<Bug> = std::sync::OnceLock::new();
