//! Deletes what is kept for those who may ask again, once nobody can any more.
//!
//! A request id is answered for longer than any caller repeats it, a barrier stands for longer than
//! any command is late, and a dead letter that was dealt with is shown for as long. What has not
//! come to its end is not deleted, however old it is: a request that is still at work, an event
//! that is parked.

mod store;

use std::time::Duration;

use time::OffsetDateTime;

use crate::{app::Draining, clock, status, store::Store};

/// What was deleted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Deleted {
    pub(crate) request_keys: u64,
    pub(crate) barriers: u64,
    pub(crate) dead_letters: u64,
}

const DAY: Duration = Duration::from_secs(24 * 3_600);

/// How long an answered request id is known.
const REQUEST_KEYS: Duration = DAY.saturating_mul(7);

/// How long a command is known, or known to be undone.
const BARRIERS: Duration = DAY.saturating_mul(30);

/// How long a dead letter is shown after it was replayed or discarded.
const DEAD_LETTERS: Duration = DAY.saturating_mul(30);

/// How many rows are deleted in one transaction: others wait behind it.
const BATCH: i64 = 1_000;

/// How often to look; each process at another time.
const EVERY: Duration = Duration::from_secs(600);

/// Works until the process leaves. What fails now is done later.
pub(crate) async fn keep(store: Store, draining: Draining) -> anyhow::Result<()> {
    loop {
        tokio::select! {
            () = draining.begun() => return Ok(()),
            () = tokio::time::sleep(EVERY.mul_f64(0.5 + fastrand::f64())) => {}
        }
        match pass(&store, clock::now(), BATCH).await {
            Ok(deleted) if deleted == Deleted::default() => {}
            Ok(deleted) => tracing::debug!(?deleted, "what nobody asks for any more is deleted"),
            Err(failure) => {
                let error = status::with_causes(&failure);
                tracing::warn!(error, "old rows stay");
            }
        }
    }
}

/// Deletes what is past its time at `at`, no more than `batch` rows in a transaction.
async fn pass(
    store: &Store,
    at: OffsetDateTime,
    batch: i64,
) -> Result<Deleted, crate::store::Failure> {
    let before = |kept: Duration| clock::micros(at - kept);
    Ok(Deleted {
        request_keys: store::delete(store, store::Old::RequestKeys, before(REQUEST_KEYS), batch)
            .await?,
        barriers: store::delete(store, store::Old::Barriers, before(BARRIERS), batch).await?,
        dead_letters: store::delete(store, store::Old::DeadLetters, before(DEAD_LETTERS), batch)
            .await?,
    })
}

#[cfg(test)]
mod tests;
