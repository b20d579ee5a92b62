//! Deletes what is past the replay window, and says now and then what waits.

use std::{sync::Arc, time::Duration};

use super::{Tail, store};
use crate::{
    app::Draining,
    clock,
    store::{Failure, Store},
    telemetry,
};

/// How long events are kept: as long as a consumer may be away.
const KEPT: Duration = Duration::from_secs(7 * 24 * 3_600);

/// How many positions are deleted in one transaction.
const CHUNK: i64 = 5_000;

/// How often to look what waits, and every how many looks to delete.
const LOOK: Duration = Duration::from_secs(5);
const EVERY: u32 = 120;

/// Works until the process leaves. What fails now is done later.
pub(crate) async fn keep(tail: Arc<Tail>, draining: Draining) -> anyhow::Result<()> {
    let mut looks = 0_u32;
    while !draining.is_draining() {
        let done = async {
            let waiting = store::backlog(tail.store()).await?;
            telemetry::metrics().log_unsequenced.set(waiting.unsequenced);
            telemetry::metrics().log_head.set(tail.look().await?);
            if looks.is_multiple_of(EVERY) {
                delete(tail.store(), KEPT, CHUNK).await?;
            }
            Ok::<_, Failure>(())
        };
        if let Err(failure) = done.await {
            let error = crate::status::with_causes(&failure);
            tracing::warn!(error, "the log was not looked after");
        }
        looks = looks.wrapping_add(1);
        tokio::select! {
            () = draining.begun() => {}
            () = tokio::time::sleep(LOOK) => {}
        }
    }
    Ok(())
}

/// Deletes what is older than `kept`, `chunk` positions at a time. Says how much.
pub(super) async fn delete(store: &Store, kept: Duration, chunk: i64) -> Result<u64, Failure> {
    let before = clock::micros(clock::now() - kept);
    let mut deleted = 0;
    loop {
        let done =
            store.transaction(move |txn| Box::pin(store::delete(txn, before, chunk))).await?;
        deleted += done;
        if done == 0 {
            return Ok(deleted);
        }
        tracing::debug!(deleted, "events past the replay window deleted");
    }
}
