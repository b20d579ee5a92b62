//! What is due without being asked for: holds whose time is over.

use std::time::Duration;

use mesh::{app::Draining, ctx};
use time::OffsetDateTime;

use crate::store::Store;

/// How often holds are looked at: a buyer who waits for what others let go waits no longer.
const EVERY: Duration = Duration::from_secs(1);
/// How long one run may take.
const RUN_MAX: Duration = Duration::from_secs(30);

/// Ends holds until the process leaves.
///
/// # Errors
/// None: what fails is logged, and tried again a second later.
pub async fn end_holds(store: Store, draining: Draining) -> anyhow::Result<()> {
    while waited(&draining).await {
        let run = async { end_once(&store, store.now().await?).await };
        match ctx::background("end_holds", RUN_MAX, None, run).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => {
                tracing::warn!(error = format!("{error:#}"), "end_holds failed; it is tried again");
            }
            Err(late) => tracing::warn!("end_holds took too long: {late}"),
        }
    }
    Ok(())
}

/// Ends every hold whose time is over at `at`, and tells of those that their sagas should have
/// ended.
///
/// # Errors
/// The database failed.
pub async fn end_once(store: &Store, at: OffsetDateTime) -> anyhow::Result<()> {
    loop {
        let ended = store.end_expired(at).await?;
        if ended == 0 {
            break;
        }
        tracing::info!(ended, "{ended} holds ended by time");
    }
    loop {
        let late = store.tell_overdue(at).await?;
        if late == 0 {
            return Ok(());
        }
        tracing::warn!(late, "{late} holds should have been ended by their sagas");
    }
}

/// Waits; `false` once the process leaves.
async fn waited(draining: &Draining) -> bool {
    tokio::select! {
        () = draining.begun() => false,
        () = tokio::time::sleep(EVERY) => true,
    }
}
