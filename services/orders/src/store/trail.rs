//! Following an order: what happened to it, every revision once and in order.

use std::{sync::Arc, time::Duration};

use futures_util::StreamExt as _;
use mesh::{app::Draining, clock, log, store::Failure};
use tokio::time::Instant;
use uuid::Uuid;

use super::{Entry, Store, waiters::Waiter};

/// The trail of one order, from a revision on. Read from the table, by revision: whoever is told
/// late, or not at all, misses nothing.
#[derive(Debug)]
pub struct Trail {
    store: Store,
    id: Uuid,
    waiter: Waiter,
    /// The last revision that was told.
    seen: i64,
}

/// Why a trail cannot be followed.
#[derive(Debug, thiserror::Error)]
pub enum Broken {
    /// What came next is not kept any more.
    #[error("what happened since is not kept any more")]
    Gap,
    /// The database did not say.
    #[error(transparent)]
    Failed(#[from] Failure),
}

/// As many entries as are told at once.
const BATCH: u64 = 100;

/// How soon one looks again who was told of a revision before its commit was through.
const SOON: Duration = Duration::from_millis(2);
const SELDOM: Duration = Duration::from_millis(250);

/// How long to wait before a log that could not be read is read again.
const AGAIN: Duration = Duration::from_secs(1);

// === impl Store ===

impl Store {
    /// What happens to an order after this revision.
    #[must_use]
    pub fn trail(&self, id: Uuid, after: i64) -> Trail {
        Trail { store: self.clone(), id, waiter: Arc::clone(&self.waiters).wait(id), seen: after }
    }

    /// Tells those who follow orders in this process what any process wrote: one reader of this
    /// database's own log for all of them. `leaving` begins with `draining`.
    ///
    /// # Errors
    /// None: what cannot be read now is read later.
    pub async fn follow(self, leaving: Draining, draining: Draining) -> anyhow::Result<()> {
        loop {
            tokio::select! {
                biased;
                () = draining.begun() => {
                    leaving.begin();
                    return Ok(());
                }
                failure = self.told_by_log() => {
                    let error = mesh::status::with_causes(&failure);
                    tracing::warn!(error, "those who follow orders are told late");
                }
            }
            tokio::time::sleep(AGAIN).await;
        }
    }

    /// Goes on until the log cannot be read. What was missed then is seen at the next heartbeat.
    async fn told_by_log(&self) -> Failure {
        let head = match log::head(&self.mesh).await {
            Ok(head) => head,
            Err(failure) => return failure,
        };
        let mut events = log::follow(&self.mesh, head);
        loop {
            match events.next().await {
                Some(Ok(events)) => {
                    for event in events {
                        if let Ok(id) = mesh::resource::parse_uuid("orders", &event.aggregate) {
                            self.tell(id, event.seq);
                        }
                    }
                }
                Some(Err(failure)) => return failure,
                None => return Failure::new("follow the log", "it ended"),
            }
        }
    }
}

// === impl Trail ===

impl Trail {
    /// From this revision on.
    pub fn go_on_after(&mut self, revision: i64) {
        self.seen = revision;
    }

    /// The last revision that was told.
    #[must_use]
    pub fn seen(&self) -> i64 {
        self.seen
    }

    /// What happened next; nothing, if nothing does until then.
    ///
    /// # Errors
    /// [`Broken`].
    pub async fn next(&mut self, until: Instant) -> Result<Vec<Entry>, Broken> {
        let mut soon = SOON;
        loop {
            let told = self.waiter.told();
            let found = self.store.events(self.id, self.seen, BATCH).await?;
            if !found.is_empty() {
                for entry in &found {
                    if entry.revision != self.seen + 1 {
                        return Err(Broken::Gap);
                    }
                    self.seen = entry.revision;
                }
                return Ok(found);
            }
            let now = clock::instant();
            if now >= until {
                return Ok(found);
            }
            // The word comes shortly before the commit that it speaks of.
            let look = if self.seen < told { until.min(now + soon) } else { until };
            soon = (soon * 2).min(SELDOM);
            tokio::select! {
                () = self.waiter.newer() => {}
                () = tokio::time::sleep_until(look) => {}
            }
        }
    }
}
