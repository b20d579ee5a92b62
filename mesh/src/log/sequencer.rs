//! Gives events their positions, after they were committed.
//!
//! Neither an insert's id nor a time is the order of commits. Within an aggregate the row's lock
//! makes ids that order; across aggregates any order will do, as long as there is one. It is made
//! here, by one process per database: the lease says which, and its fence, compared in the
//! transaction that gives positions, refuses one that only believes so.

use std::{sync::Arc, time::Duration};

use tokio::time::Instant;
use uuid::Uuid;

use super::{Tail, store};
use crate::{
    app::Draining,
    clock, failpoint, lease,
    store::{Failure, Store, TxnError},
    telemetry,
};

/// The one that gives positions, or waits to be.
#[derive(Debug)]
pub(crate) struct Sequencer {
    tail: Arc<Tail>,
    /// This process, in this life.
    owner: String,
    held: Option<Held>,
    /// When it was last tried to become the one.
    tried: Option<Instant>,
    lease: Duration,
}

/// The lease is ours, as far as we know.
#[derive(Clone, Copy, Debug)]
struct Held {
    fence: i64,
    renewed: Instant,
}

/// What there was to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Turn {
    /// So many events got their positions.
    Gave(u64),
    /// None waits.
    Idle,
    /// Another process gives them.
    Standby,
}

/// Another one has taken over.
#[derive(Debug, thiserror::Error)]
enum NotGiven {
    #[error("another process gives positions now")]
    Fenced,
    #[error(transparent)]
    Failed(#[from] Failure),
}

/// Events that one transaction gives positions to.
const CHUNK: i64 = 500;

/// How long a process may be silent before another one takes over.
const LEASE: Duration = Duration::from_secs(5);

/// How often to look where nobody tells of commits: at first, and after a while of silence.
const POLL: (Duration, Duration) = (Duration::from_millis(50), Duration::from_secs(1));

/// After a failure of the database.
const PAUSE: Duration = Duration::from_millis(500);

/// Gives positions to all events that wait, once, and says how many those were: what a test does
/// where no process runs. Nothing happens while a process does it on PostgreSQL.
///
/// # Errors
/// [`Failure`] of the database.
pub async fn sequence(store: &Store) -> Result<u64, Failure> {
    let mut sequencer = Sequencer::new(Tail::of(store));
    let mut given = 0;
    while let Turn::Gave(more) = sequencer.turn().await? {
        given += more;
    }
    sequencer.give_back().await?;
    Ok(given)
}

// === impl Sequencer ===

impl Sequencer {
    pub(crate) fn new(tail: Arc<Tail>) -> Self {
        let owner = Uuid::new_v4().to_string();
        Self { tail, owner, held: None, tried: None, lease: LEASE }
    }

    /// Works until the process leaves, then lets another one do it.
    pub(crate) async fn run(mut self, draining: Draining) -> anyhow::Result<()> {
        let mut commits = self.tail.store().commits();
        let mut wait = POLL.0;
        while !draining.is_draining() {
            commits.mark_unchanged();
            let turn = self.turn().await;
            let is_ours = match turn {
                Ok(Turn::Gave(_)) => {
                    wait = POLL.0;
                    continue;
                }
                Ok(turn) => turn == Turn::Idle,
                Err(failure) => {
                    let error = crate::status::with_causes(&failure);
                    tracing::warn!(error, "events wait for their positions");
                    wait = PAUSE;
                    false
                }
            };
            // On SQLite nobody else commits.
            let silence = if self.tail.store().is_postgres() { wait } else { POLL.1 };
            tokio::select! {
                () = draining.begun() => {}
                changed = commits.changed(), if is_ours => {
                    if changed.is_err() {
                        break;
                    }
                }
                () = tokio::time::sleep(silence) => {
                    // What this process commits is about to be given a position elsewhere.
                    let busy = commits.has_changed().unwrap_or_default();
                    wait = if busy { POLL.0 } else { (wait * 2).min(POLL.1) };
                }
            }
        }
        if let Err(failure) = self.give_back().await {
            tracing::debug!(%failure, "a lease was not given back");
        }
        Ok(())
    }

    /// One look, and what it asks for.
    pub(super) async fn turn(&mut self) -> Result<Turn, Failure> {
        let Some(fence) = self.fence().await? else {
            telemetry::metrics().log_head.set(self.tail.look().await?);
            return Ok(Turn::Standby);
        };
        if !store::is_waiting(self.tail.store()).await? {
            return Ok(Turn::Idle);
        }
        match self.give(fence).await {
            Ok(given) => {
                telemetry::metrics().log_sequenced.inc_by(given);
                telemetry::metrics().log_head.set(self.tail.look().await?);
                Ok(if given == 0 { Turn::Idle } else { Turn::Gave(given) })
            }
            Err(NotGiven::Fenced) => {
                tracing::info!("another process gives events their positions now");
                (self.held, self.tried) = (None, Some(clock::instant()));
                Ok(Turn::Standby)
            }
            Err(NotGiven::Failed(failure)) => Err(failure),
        }
    }

    async fn give(&self, fence: i64) -> Result<u64, NotGiven> {
        let store = self.tail.store().clone();
        let within = store.clone();
        store
            .transaction(move |txn| {
                let store = within.clone();
                Box::pin(async move {
                    let given = store::give(&store, txn, fence, CHUNK).await?;
                    failpoint::hit("during_sequencing");
                    given.ok_or(NotGiven::Fenced)
                })
            })
            .await
    }

    /// The fence under which positions may be given, renewed in time; `None` while they are
    /// another's to give.
    async fn fence(&mut self) -> Result<Option<i64>, Failure> {
        let now = clock::instant();
        if let Some(held) = self.held {
            let store = self.tail.store();
            let is_fresh = now.saturating_duration_since(held.renewed) < self.lease / 3;
            if is_fresh || !store.is_postgres() || self.renew(held.fence).await? {
                if !is_fresh {
                    self.held = Some(Held { renewed: now, ..held });
                }
                return Ok(Some(held.fence));
            }
        }
        let soon = |at| now.saturating_duration_since(at) < self.lease / 10;
        if self.held.is_none() && self.tried.is_some_and(soon) {
            return Ok(None);
        }
        self.tried = Some(now);
        let taken = self.take().await?;
        self.held = taken.map(|fence| Held { fence, renewed: now });
        Ok(taken)
    }

    async fn take(&self) -> Result<Option<i64>, Failure> {
        let (store, owner) = (self.tail.store().clone(), self.owner.clone());
        let (within, lease) = (store.clone(), micros(self.lease));
        store
            .transaction(move |txn| {
                let (store, owner) = (within.clone(), owner.clone());
                Box::pin(async move { store::take(&store, txn, &owner, lease).await })
            })
            .await
    }

    async fn renew(&self, fence: i64) -> Result<bool, Failure> {
        let store = self.tail.store().clone();
        let (within, lease) = (store.clone(), micros(self.lease));
        store
            .transaction(move |txn| {
                let store = within.clone();
                Box::pin(
                    async move { lease::renew(&store, txn, store::SEQUENCER, fence, lease).await },
                )
            })
            .await
    }

    pub(super) async fn give_back(&mut self) -> Result<(), Failure> {
        let Some(Held { fence, .. }) = self.held.take() else { return Ok(()) };
        self.tail
            .store()
            .transaction(move |txn| Box::pin(lease::give_back(txn, store::SEQUENCER, fence)))
            .await
    }
}

// === impl NotGiven ===

impl TxnError for NotGiven {
    fn failure(&self) -> Option<&Failure> {
        match self {
            Self::Fenced => None,
            Self::Failed(failure) => Some(failure),
        }
    }
}

fn micros(duration: Duration) -> i64 {
    i64::try_from(duration.as_micros()).unwrap_or(i64::MAX)
}
