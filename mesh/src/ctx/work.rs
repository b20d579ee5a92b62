//! Work beside calls: in the background, with its call, or beyond it.

use std::{future::Future, sync::LazyLock, time::Duration};

use tokio::{sync::Semaphore, task::JoinHandle};

use super::{Ctx, TRACKER, Trace};
use crate::{
    clock,
    deadline::{self, Late},
    telemetry::{self, Spans},
};

/// Work for the pool of [`offload`] could not be done.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum OffloadError {
    /// More work waits than is worth waiting for; try again later.
    #[error("too much work of this kind is waiting")]
    Full,
    /// The work panicked.
    #[error("the work panicked")]
    Panicked,
}

/// So much work waits in [`offload`].
const WAITING: usize = 64;
/// Places for what waits and for what is done.
static QUEUE: LazyLock<Semaphore> = LazyLock::new(|| Semaphore::new(WAITING + cores()));
/// Places for what is done.
static CORES: LazyLock<Semaphore> = LazyLock::new(|| Semaphore::new(cores()));

/// Runs work that nobody waits for (a saga's step, a job) with a deadline and a trace of its
/// own: the trace goes on where `traceparent` left it, or begins here.
///
/// # Errors
/// [`Late`] if it takes longer than `timeout`.
pub async fn background<F: Future>(
    name: &'static str,
    timeout: Duration,
    traceparent: Option<&str>,
    future: F,
) -> Result<F::Output, Late> {
    let above = traceparent.and_then(Trace::parse);
    let spans = Spans::here();
    let span = above.map(|above| spans.work(above, name)).unwrap_or_default();
    let ctx = Ctx::root(timeout, above.unwrap_or_default()).recorded(&spans, span);
    let _ends = ctx.ending();
    let done = ctx.scope(deadline::within(ctx.deadline(), future)).await;
    if done.is_err() {
        tracing::debug!(task = name, "work in the background took too long");
        ctx.span().failed(telemetry::code(tonic::Code::DeadlineExceeded));
    }
    done
}

/// Starts work that ends with the call: cancelled when the caller goes away or the deadline
/// passes.
#[expect(clippy::disallowed_methods, reason = "this is where tasks start")]
pub fn spawn<F>(name: &'static str, future: F) -> JoinHandle<Option<F::Output>>
where
    F: Future + Send + 'static,
    F::Output: Send + 'static,
{
    let ctx = Ctx::current_or_root();
    let tracker = ctx.inner.tracker.clone();
    tokio::spawn(tracker.track_future(async move {
        let done = tokio::select! {
            biased;
            () = ctx.cancelled() => None,
            done = ctx.scope(deadline::within(ctx.deadline(), future)) => done.ok(),
        };
        if done.is_none() {
            tracing::debug!(task = name, "ended with its call");
        }
        done
    }))
}

/// Starts work that must finish although the caller may go away: it has `timeout` of its own,
/// and the drain waits for it. The result is `None` if the time was not enough.
#[expect(clippy::disallowed_methods, reason = "this is where tasks start")]
pub fn detach<F>(name: &'static str, timeout: Duration, future: F) -> JoinHandle<Option<F::Output>>
where
    F: Future + Send + 'static,
    F::Output: Send + 'static,
{
    let parent = Ctx::current();
    let tracker = parent.as_ref().map_or_else(|| TRACKER.clone(), |ctx| ctx.inner.tracker.clone());
    let trace = parent.as_ref().map_or_else(Trace::new, |ctx| ctx.trace().child());
    let spans = Spans::here();
    let span = parent.as_ref().map(|ctx| spans.work(ctx.trace(), name)).unwrap_or_default();
    let ctx = Ctx::new(clock::instant() + timeout, trace, tracker.clone()).recorded(&spans, span);
    if let Some(subject) = parent.as_ref().and_then(Ctx::subject) {
        ctx.about(subject);
    }
    if let Some(caller) = parent.as_ref().and_then(Ctx::caller) {
        ctx.set_caller(caller.clone());
    }
    tokio::spawn(tracker.track_future(async move {
        let done = ctx.scope(deadline::within(ctx.deadline(), future)).await.ok();
        if done.is_none() {
            ctx.span().failed(telemetry::code(tonic::Code::DeadlineExceeded));
        }
        ctx.span().end();
        if done.is_none() {
            tracing::warn!(task = name, timeout_ms = timeout.as_millis(), "{name} took too long");
        }
        done
    }))
}

/// Does CPU work (hashing, signing, large documents) off the threads that serve calls: one at
/// a time per core, 64 waiting. Whoever goes away while it waits is forgotten; work that has begun
/// cannot be stopped, and has its core until it is done.
///
/// # Errors
/// [`OffloadError::Full`] if 64 wait already, [`OffloadError::Panicked`] if `work` did.
pub async fn offload<T: Send + 'static>(
    work: impl FnOnce() -> T + Send + 'static,
) -> Result<T, OffloadError> {
    let waiting = QUEUE.try_acquire().map_err(|_full| OffloadError::Full)?;
    // The semaphores are never closed.
    let core = CORES.acquire().await.map_err(|_closed| OffloadError::Full)?;
    let work = move || {
        let _places = (waiting, core);
        work()
    };
    tokio::task::spawn_blocking(work).await.map_err(|_panic| OffloadError::Panicked)
}

fn cores() -> usize {
    std::thread::available_parallelism().map_or(1, std::num::NonZero::get)
}

#[cfg(test)]
mod tests {
    use std::{future::poll_fn, sync::mpsc, task::Poll};

    use super::*;

    #[tokio::test]
    async fn work_that_has_begun_has_its_core_until_it_is_done_though_nobody_waits() {
        let cores = CORES.available_permits();
        let (began, begun) = mpsc::channel();
        let mut ends = Vec::new();
        for _ in 0..cores {
            let (end, ended) = mpsc::channel::<()>();
            let began = began.clone();
            let mut work = Box::pin(offload(move || {
                began.send(()).unwrap();
                ended.recv().unwrap_err();
            }));
            assert!(poll_fn(|cx| Poll::Ready(work.as_mut().poll(cx).is_pending())).await);
            begun.recv().unwrap();
            ends.push(end);
        }
        assert_eq!(CORES.available_permits(), 0, "everyone who asked has gone away");
        drop(ends);
        assert_eq!(offload(|| 7).await, Ok(7), "cores come back");
    }
}
