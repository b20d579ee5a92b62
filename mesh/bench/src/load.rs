//! Calls, many at once: as fast as they are answered, or at a constant rate.

use std::{
    any::Any,
    sync::{
        Arc,
        atomic::{AtomicI64, Ordering},
    },
    time::Duration,
};

use anyhow::Context as _;
use futures_util::future::BoxFuture;
use mesh::{Ctx, clock, ctx::Trace};
use tokio::task::JoinSet;

use crate::{
    echo::Echoer,
    transport::{Call, Transport, bind},
};

/// One of those that are compared, with a server of its own.
pub struct Variant {
    /// What figures call it.
    pub name: &'static str,
    closed: Box<dyn Fn(usize, u32) -> BoxFuture<'static, anyhow::Result<()>>>,
    /// What its server is asked to look at.
    pub echo: Echoer,
    _server: Box<dyn Any>,
}

/// What came of calls at a constant rate.
#[derive(Debug, Default)]
pub struct Paced {
    /// In milliseconds, from the instant at which each should have been sent; sorted.
    pub latencies: Vec<f64>,
    /// How many failed.
    pub failed: u32,
}

/// How long all calls of one worker may take together: it is one deadline that they share.
const LONGEST: Duration = Duration::from_secs(60);

// === impl Variant ===

impl Variant {
    /// Starts a server in this process, and connects.
    ///
    /// # Errors
    /// A port cannot be had, or the first calls fail.
    pub async fn start<T: Transport>() -> anyhow::Result<Self> {
        let (bound, port) = bind()?;
        let echo = Echoer::default();
        let serving = T::serve(bound, echo.clone()).await?;
        let caller = T::connect(&[port], &echo.seen).await?;
        Self::of::<T>(caller, echo, Box::new(serving)).await
    }

    /// One whose server ends with `server`.
    ///
    /// # Errors
    /// The first calls fail.
    pub async fn of<T: Transport>(
        caller: T::Caller,
        echo: Echoer,
        server: Box<dyn Any>,
    ) -> anyhow::Result<Self> {
        let closed = move |at_once, calls| -> BoxFuture<'static, anyhow::Result<()>> {
            Box::pin(closed(caller.clone(), at_once, calls))
        };
        let variant = Self { name: T::NAME, closed: Box::new(closed), echo, _server: server };
        variant.calls(1, 10).await.with_context(|| format!("{} cannot be called", T::NAME))?;
        Ok(variant)
    }

    /// So many calls, so many of them at once.
    ///
    /// # Errors
    /// One failed: then there is no figure.
    pub async fn calls(&self, at_once: usize, calls: u32) -> anyhow::Result<()> {
        (self.closed)(at_once, calls).await.with_context(|| self.name)
    }
}

impl std::fmt::Debug for Variant {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Variant").field("name", &self.name).finish_non_exhaustive()
    }
}

/// So many calls, so many of them at once, each as soon as another one is answered.
///
/// # Errors
/// The first failure.
pub async fn closed<C: Call>(caller: C, at_once: usize, calls: u32) -> anyhow::Result<()> {
    let left = Arc::new(AtomicI64::new(i64::from(calls)));
    let mut workers = JoinSet::new();
    for _ in 0..at_once {
        let (left, mut caller) = (Arc::clone(&left), caller.clone());
        let works = async move {
            while left.fetch_sub(1, Ordering::Relaxed) > 0 {
                caller.call().await?;
            }
            anyhow::Ok(())
        };
        workers.spawn(async move { Ctx::root(LONGEST, Trace::new()).scope(works).await });
    }
    while let Some(worker) = workers.join_next().await {
        worker??;
    }
    Ok(())
}

/// Calls at a constant rate, whether they are answered or not.
///
/// # Errors
/// A task died.
pub async fn paced<C: Call>(
    caller: &C,
    per_second: u32,
    lasting: Duration,
) -> anyhow::Result<Paced> {
    let (gap, begun) = (Duration::from_secs(1) / per_second, clock::instant());
    let mut calls = JoinSet::new();
    let mut due = begun;
    while due < begun + lasting {
        tokio::time::sleep_until(due).await;
        let mut caller = caller.clone();
        calls.spawn(async move {
            let ctx = Ctx::root(LONGEST, Trace::new());
            let answered = ctx.scope(caller.call()).await.is_ok();
            (answered, due.elapsed())
        });
        due += gap;
    }
    let mut paced = Paced::default();
    while let Some(call) = calls.join_next().await {
        let (answered, took) = call?;
        paced.latencies.push(took.as_secs_f64() * 1e3);
        paced.failed += u32::from(!answered);
    }
    paced.latencies.sort_unstable_by(f64::total_cmp);
    Ok(paced)
}

// === impl Paced ===

impl Paced {
    /// How many of a hundred failed.
    #[must_use]
    pub fn failed_percent(&self) -> f64 {
        let all = u32::try_from(self.latencies.len()).unwrap_or(u32::MAX);
        f64::from(self.failed) * 100.0 / f64::from(all)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_failed_is_a_share_of_all() {
        let paced = Paced { latencies: vec![1.0; 8], failed: 2 };
        assert!((paced.failed_percent() - 25.0).abs() < f64::EPSILON);
    }
}
