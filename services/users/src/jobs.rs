//! What is due without being asked for: new signing keys, and forgetting.

use std::time::Duration;

use anyhow::Context as _;
use mesh::{app::Draining, clock, ctx};
use time::OffsetDateTime;

use crate::{
    domain::{
        KEPT_AFTER_DELETION,
        keys::{self, Key},
    },
    signing::{Ring, SigningKey},
    store::Store,
};

/// How often replicas look for keys of each other; far less than a key is published ahead.
const KEYS_EVERY: Duration = Duration::from_secs(60);
/// How often what has ended is forgotten.
const FORGET_EVERY: Duration = Duration::from_secs(3_600);
/// How long one run may take.
const RUN_MAX: Duration = Duration::from_secs(30);

/// Makes a key when one is due, forgets what is over, and fills the ring.
///
/// # Errors
/// The database failed, or a key cannot be made or used.
pub async fn rotate_keys(
    store: &Store,
    ring: &Ring,
    age_max: Duration,
    at: OffsetDateTime,
) -> anyhow::Result<()> {
    let age_max = time::Duration::try_from(age_max).context("the age of keys is too large")?;
    let known = store.signing_keys().await?;
    let known: Vec<Key> = known.into_iter().map(|(key, _pkcs8)| key).collect();
    let plan = keys::plan(&known, age_max, at);
    if let Some(key) = plan.make {
        store.add_signing_key(key, SigningKey::make()?, at).await?;
        tracing::info!(generation = key.generation, "signing key {} made", key.generation);
    }
    for generation in plan.forget {
        store.forget_signing_key(generation).await?;
        tracing::info!(generation, "signing key {generation} forgotten");
    }
    // Read anew: of replicas that make a key at once, one was first.
    let kept = store.signing_keys().await?;
    let opened = kept.iter().map(|(key, pkcs8)| SigningKey::open(*key, pkcs8));
    ring.replace(opened.collect::<Result<_, _>>()?);
    Ok(())
}

/// Rotates keys until the process leaves.
///
/// # Errors
/// None: what fails is logged, and tried again a minute later.
pub async fn keep_keys(
    store: Store,
    ring: Ring,
    age_max: Duration,
    draining: Draining,
) -> anyhow::Result<()> {
    while waited(KEYS_EVERY, &draining).await {
        let run = rotate_keys(&store, &ring, age_max, clock::now());
        report("rotate_keys", ctx::background("rotate_keys", RUN_MAX, None, run).await);
    }
    Ok(())
}

/// Erases deleted accounts and ended sessions until the process leaves.
///
/// # Errors
/// None: what fails is logged, and tried again an hour later.
pub async fn forget(store: Store, draining: Draining) -> anyhow::Result<()> {
    loop {
        let run = forget_once(&store, clock::now());
        report("forget", ctx::background("forget", RUN_MAX, None, run).await);
        if !waited(FORGET_EVERY, &draining).await {
            return Ok(());
        }
    }
}

/// Erases what is over at `at`.
///
/// # Errors
/// The database failed.
pub async fn forget_once(store: &Store, at: OffsetDateTime) -> anyhow::Result<()> {
    while store.erase(at - KEPT_AFTER_DELETION, at).await? > 0 {}
    while store.forget_sessions(at).await? > 0 {}
    Ok(())
}

/// Waits; `false` once the process leaves.
async fn waited(every: Duration, draining: &Draining) -> bool {
    tokio::select! {
        () = draining.begun() => false,
        () = tokio::time::sleep(every) => true,
    }
}

fn report(job: &'static str, ended: Result<anyhow::Result<()>, mesh::deadline::Late>) {
    match ended {
        Ok(Ok(())) => {}
        Ok(Err(error)) => {
            tracing::warn!(job, error = format!("{error:#}"), "{job} failed; it is tried again");
        }
        Err(late) => tracing::warn!(job, "{job} took too long: {late}"),
    }
}

#[cfg(test)]
mod tests;
