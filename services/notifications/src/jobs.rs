//! What is due without being asked for: an end to what waits in vain, and to what is old.

use std::time::Duration;

use mesh::{app::Draining, ctx};

use crate::store::Store;

/// How often rows are looked at that only days make old.
const EVERY: Duration = Duration::from_secs(600);

/// How long one run may take.
const RUN_MAX: Duration = Duration::from_secs(60);

/// Gives up what waited for an address for longer than `wait`, and erases what is older than
/// `keep`, until the process leaves.
///
/// # Errors
/// None: what fails is logged, and tried again with the next run.
pub async fn keep(
    store: Store,
    wait: Duration,
    keep: Duration,
    draining: Draining,
) -> anyhow::Result<()> {
    while !draining.is_draining() {
        let run = async {
            let given_up = store.give_up(wait).await?;
            if given_up > 0 {
                tracing::warn!(given_up, "{given_up} notifications waited in vain for an address");
            }
            store.erase(keep).await
        };
        match ctx::background("keep", RUN_MAX, None, run).await {
            Ok(Ok(0)) => {}
            Ok(Ok(erased)) => tracing::info!(erased, "{erased} old rows erased"),
            Ok(Err(failure)) => {
                let causes = mesh::status::with_causes(&failure);
                tracing::warn!("old notifications are not erased: {causes}");
            }
            Err(late) => tracing::warn!("erasing took too long: {late}"),
        }
        tokio::select! {
            () = draining.begun() => {}
            () = tokio::time::sleep(EVERY) => {}
        }
    }
    Ok(())
}
