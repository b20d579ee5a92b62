//! Events of others are taken in: each once in effect, those of an aggregate in their order.
//!
//! A consumer follows the log of a source and keeps how far it came in its own database. The
//! cursor moves in the transaction of the effect, first of all and only from where it was known
//! to be: a crash loses both or neither, and of two replicas one finds it moved. What fails for
//! good is parked as a dead letter together with what follows of its aggregate; others flow.
//!
//! [`follow`] reads the log, [`take`] has the effect, `judge` says what a failure means, `letters`
//! replays and serves what was parked.

mod follow;
mod judge;
pub(crate) mod letters;
mod store;
mod take;

use std::{fmt, sync::Arc};

use futures_util::future::BoxFuture;

use crate::{
    Channel,
    log::Event,
    store::{Failure, Store, Txn},
};

pub(crate) use letters::DeadLetters;

/// What a service does with the events of a source.
pub trait Handler: Send + Sync + 'static {
    /// The types that it takes in; others are passed over. None named: all of them.
    fn types(&self) -> &'static [&'static str];

    /// Takes one event in. Has its effect in `txn` alone, and may run again.
    fn handle<'c>(&'c self, txn: &'c Txn, event: &'c Event) -> BoxFuture<'c, Result<(), Trouble>>;

    /// The effect of `event` is committed: wakes whoever waits for it. May be left out by a
    /// crash.
    fn committed(&self, event: &Event) {
        let _ = event;
    }
}

/// Why an event was not taken in.
#[derive(Clone, Debug, thiserror::Error)]
pub enum Trouble {
    /// The database failed: tried again; parked after three tries if it was a rule of the
    /// database that said no.
    #[error(transparent)]
    Failed(#[from] Failure),
    /// Something else is away: tried again until it is back, and everything waits behind it.
    #[error("{0}")]
    Transient(String),
    /// It can never be taken in as it is: parked at once.
    #[error("{0}")]
    Permanent(String),
}

/// Takes the events of one source in, for one service. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Consumer(Arc<Inner>);

struct Inner {
    /// Whose cursor it is.
    name: &'static str,
    source: String,
    store: Store,
    handler: Arc<dyn Handler>,
    channel: Channel,
    settings: Settings,
}

/// How a consumer works.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Settings {
    /// How long a replica may be silent before another one reads in its place.
    pub(crate) lease: std::time::Duration,
    /// Pauses between tries in place, all multiplied by this: 1 outside of tests.
    pub(crate) pace: f64,
}

// === impl Trouble ===

impl Trouble {
    /// As a span says it.
    fn word(&self) -> &'static str {
        match self {
            Self::Failed(_) => "database",
            Self::Transient(_) => "transient",
            Self::Permanent(_) => "permanent",
        }
    }
}

// === impl Consumer ===

impl Consumer {
    pub(crate) fn new(
        name: &'static str,
        source: &str,
        store: &Store,
        handler: Arc<dyn Handler>,
        channel: Channel,
        settings: Settings,
    ) -> Self {
        let (source, store) = (source.to_owned(), store.clone());
        Self(Arc::new(Inner { name, source, store, handler, channel, settings }))
    }

    pub(crate) fn name(&self) -> &'static str {
        self.0.name
    }

    pub(crate) fn source(&self) -> &str {
        &self.0.source
    }

    pub(crate) fn store(&self) -> &Store {
        &self.0.store
    }
}

impl fmt::Debug for Consumer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Consumer")
            .field("name", &self.0.name)
            .field("source", &self.0.source)
            .finish()
    }
}

// === impl Settings ===

impl Default for Settings {
    fn default() -> Self {
        Self { lease: std::time::Duration::from_secs(10), pace: 1.0 }
    }
}

#[cfg(test)]
mod tests;
