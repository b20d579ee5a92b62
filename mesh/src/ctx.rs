//! What a call carries: its deadline, its trace, who calls and whether they still wait.
//!
//! The server makes a [`Ctx`] per call and runs the handler in its scope; every call that the
//! handler makes finds it there. So deadline, trace and identity travel without the author of
//! a handler doing anything.

use std::{
    fmt,
    future::Future,
    sync::{
        Arc, LazyLock, OnceLock,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};

use tokio::{sync::Semaphore, task::JoinHandle, time::Instant};
use tokio_util::{
    sync::{CancellationToken, WaitForCancellationFutureOwned},
    task::TaskTracker,
};

use crate::{
    auth::Caller,
    clock,
    deadline::{self, Late},
};

mod inbound;

pub use inbound::Criticality;
pub(crate) use inbound::Inbound;

/// The longest that a call outside of any other call may take.
pub const ROOT_TIMEOUT: Duration = Duration::from_secs(5);

/// What one call carries. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Ctx(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    deadline: Instant,
    trace: Trace,
    cancelled: CancellationToken,
    tracker: TaskTracker,
    inbound: Inbound,
    caller: OnceLock<Caller>,
    /// Whether the rule of this call asks the handler to compare the owner, and it has not.
    duty: AtomicBool,
}

/// Where a call stands in its trace (W3C Trace Context).
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Trace {
    trace: u128,
    span: u64,
    sampled: bool,
}

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

tokio::task_local! {
    static CURRENT: Ctx;
}

/// Detached work that began outside of any process's scope.
static TRACKER: LazyLock<TaskTracker> = LazyLock::new(TaskTracker::new);

/// Calls that were made outside of any other call; see `mesh_rootless_calls_total`.
static ROOTLESS: AtomicU64 = AtomicU64::new(0);

// === impl Ctx ===

impl Ctx {
    /// A context of its own, for work that no call asked for.
    #[must_use]
    pub fn root(timeout: Duration, trace: Trace) -> Self {
        Self::new(clock::instant() + timeout, trace, TRACKER.clone(), CancellationToken::new())
    }

    pub(crate) fn new(
        deadline: Instant,
        trace: Trace,
        tracker: TaskTracker,
        cancelled: CancellationToken,
    ) -> Self {
        Self::served(deadline, trace, tracker, cancelled, Inbound::default())
    }

    /// The context of a call that came in.
    pub(crate) fn served(
        deadline: Instant,
        trace: Trace,
        tracker: TaskTracker,
        cancelled: CancellationToken,
        inbound: Inbound,
    ) -> Self {
        Self(Arc::new(Inner {
            deadline,
            trace,
            cancelled,
            tracker,
            inbound,
            caller: OnceLock::new(),
            duty: AtomicBool::new(false),
        }))
    }

    /// The context of the call that this code works for.
    #[must_use]
    pub fn current() -> Option<Self> {
        CURRENT.try_with(Clone::clone).ok()
    }

    /// The current context, or a new one of [`ROOT_TIMEOUT`] that is counted: work without a
    /// context of its own should say so by [`background`].
    pub(crate) fn current_or_root() -> Self {
        Self::current().unwrap_or_else(|| {
            ROOTLESS.fetch_add(1, Ordering::Relaxed);
            Self::root(ROOT_TIMEOUT, Trace::new())
        })
    }

    /// When the caller stops waiting.
    #[must_use]
    pub fn deadline(&self) -> Instant {
        self.0.deadline
    }

    /// How long the caller will wait; zero once the deadline passed.
    #[must_use]
    pub fn time_left(&self) -> Duration {
        self.0.deadline.saturating_duration_since(clock::instant())
    }

    /// Where this call stands in its trace.
    #[must_use]
    pub fn trace(&self) -> Trace {
        self.0.trace
    }

    /// The trace id, 32 hexadecimal digits.
    #[must_use]
    pub fn trace_id(&self) -> String {
        self.0.trace.id()
    }

    /// This call as a `traceparent` header, to be kept with what outlives the call.
    #[must_use]
    pub fn traceparent(&self) -> String {
        self.0.trace.to_string()
    }

    /// Who calls; `None` where nobody had to say.
    #[must_use]
    pub fn caller(&self) -> Option<&Caller> {
        self.0.caller.get()
    }

    /// Resolves when the caller went away or the deadline passed.
    pub async fn cancelled(&self) {
        self.0.cancelled.cancelled().await;
    }

    /// Resolves when the process that serves this call begins to turn callers away, or when the
    /// connection that it came over has become old enough: a stream should end with `UNAVAILABLE` and the reason `DRAINING`. Never, outside of a call.
    pub async fn draining(&self) {
        self.0.inbound.draining.cancelled().await;
    }

    /// Which try of the same call this is, from 1.
    #[must_use]
    pub fn attempt(&self) -> u32 {
        self.0.inbound.previous_attempts.saturating_add(1)
    }

    /// Whether this call is served when not all can be.
    #[must_use]
    pub fn criticality(&self) -> Criticality {
        self.0.inbound.criticality
    }

    /// The same, to be kept beside what it may end.
    pub(crate) fn cut(&self) -> WaitForCancellationFutureOwned {
        self.0.cancelled.clone().cancelled_owned()
    }

    pub(crate) fn cancel(&self) {
        self.0.cancelled.cancel();
    }

    /// Says who calls; the first word counts.
    pub(crate) fn set_caller(&self, caller: Caller) {
        // A second caller would be a bug of the auth layer, which runs once.
        let _already_known = self.0.caller.set(caller).is_err();
    }

    pub(crate) fn open_duty(&self) {
        self.0.duty.store(true, Ordering::Relaxed);
    }

    pub(crate) fn settle_duty(&self) {
        self.0.duty.store(false, Ordering::Relaxed);
    }

    pub(crate) fn owes_duty(&self) -> bool {
        self.0.duty.load(Ordering::Relaxed)
    }

    /// Runs `future` as part of this call.
    pub async fn scope<F: Future>(&self, future: F) -> F::Output {
        CURRENT.scope(self.clone(), future).await
    }

    /// Runs `f`, which does not wait, as part of this call.
    pub(crate) fn sync_scope<T>(&self, f: impl FnOnce() -> T) -> T {
        CURRENT.sync_scope(self.clone(), f)
    }
}

// === impl Trace ===

impl Trace {
    /// A trace that begins here, sampled.
    #[must_use]
    pub fn new() -> Self {
        Self { trace: fastrand::u128(1..), span: fastrand::u64(1..), sampled: true }
    }

    /// Reads a `traceparent` header; `None` if it is not one (version 00 to fe, ids not zero).
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let mut parts = text.split('-');
        let (version, trace, span, flags) =
            (parts.next()?, parts.next()?, parts.next()?, parts.next()?);
        let hex = |part: &str, len| {
            part.len() == len && part.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'))
        };
        if !hex(version, 2) || !hex(trace, 32) || !hex(span, 16) || !hex(flags, 2) {
            return None;
        }
        if version == "ff" || (version == "00" && parts.next().is_some()) {
            return None;
        }
        let trace = u128::from_str_radix(trace, 16).ok().filter(|id| *id != 0)?;
        let span = u64::from_str_radix(span, 16).ok().filter(|id| *id != 0)?;
        let flags = u8::from_str_radix(flags, 16).ok()?;
        Some(Self { trace, span, sampled: flags & 1 == 1 })
    }

    /// A new span of the same trace.
    #[must_use]
    pub fn child(self) -> Self {
        Self { span: fastrand::u64(1..), ..self }
    }

    /// The trace id, 32 hexadecimal digits.
    #[must_use]
    pub fn id(self) -> String {
        format!("{:032x}", self.trace)
    }

    /// The span id, 16 hexadecimal digits.
    #[must_use]
    pub fn span_id(self) -> String {
        format!("{:016x}", self.span)
    }
}

impl Default for Trace {
    fn default() -> Self {
        Self::new()
    }
}

/// The form of the `traceparent` header.
impl fmt::Display for Trace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "00-{:032x}-{:016x}-{:02x}", self.trace, self.span, u8::from(self.sampled))
    }
}

impl fmt::Debug for Trace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// How many calls were made outside of any other call, in this process.
#[must_use]
pub fn rootless_calls() -> u64 {
    ROOTLESS.load(Ordering::Relaxed)
}

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
    let trace = traceparent.and_then(Trace::parse).map_or_else(Trace::new, Trace::child);
    let ctx = Ctx::root(timeout, trace);
    let done = ctx.scope(deadline::within(ctx.deadline(), future)).await;
    if done.is_err() {
        tracing::debug!(task = name, "work in the background took too long");
    }
    ctx.cancel();
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
    let tracker = ctx.0.tracker.clone();
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
    let tracker = parent.as_ref().map_or_else(|| TRACKER.clone(), |ctx| ctx.0.tracker.clone());
    let trace = parent.as_ref().map_or_else(Trace::new, |ctx| ctx.trace().child());
    let ctx =
        Ctx::new(clock::instant() + timeout, trace, tracker.clone(), CancellationToken::new());
    if let Some(caller) = parent.as_ref().and_then(Ctx::caller) {
        ctx.set_caller(caller.clone());
    }
    tokio::spawn(tracker.track_future(async move {
        let done = ctx.scope(deadline::within(ctx.deadline(), future)).await.ok();
        if done.is_none() {
            tracing::warn!(task = name, timeout_ms = timeout.as_millis(), "{name} took too long");
        }
        done
    }))
}

/// Does CPU work (hashing, signing, large documents) off the threads that serve calls: one at
/// a time per core, 64 waiting.
///
/// # Errors
/// [`OffloadError::Full`] if 64 wait already, [`OffloadError::Panicked`] if `work` did.
pub async fn offload<T: Send + 'static>(
    work: impl FnOnce() -> T + Send + 'static,
) -> Result<T, OffloadError> {
    const WAITING: usize = 64;
    static QUEUE: Semaphore = Semaphore::const_new(WAITING);
    static CORES: LazyLock<Semaphore> = LazyLock::new(|| {
        Semaphore::new(std::thread::available_parallelism().map_or(1, std::num::NonZero::get))
    });
    let _waiting = QUEUE.try_acquire().map_err(|_full| OffloadError::Full)?;
    // The semaphores are never closed.
    let _core = CORES.acquire().await.map_err(|_closed| OffloadError::Full)?;
    tokio::task::spawn_blocking(work).await.map_err(|_panic| OffloadError::Panicked)
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn a_traceparent_is_read_as_it_was_written() {
        let trace = Trace::new();
        assert_eq!(Trace::parse(&trace.to_string()), Some(trace));
        assert_eq!(trace.child().id(), trace.id());
        assert_ne!(trace.child().span_id(), trace.span_id());
    }

    #[test]
    fn a_header_that_is_no_traceparent_begins_a_new_trace() {
        for text in [
            "",
            "00",
            "00-00000000000000000000000000000000-00f067aa0ba902b7-01",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-0000000000000000-01",
            "ff-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
            "00-4BF92F3577B34DA6A3CE929D0E0E4736-00f067aa0ba902b7-01",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01-x",
            "00-+bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
        ] {
            assert_eq!(Trace::parse(text), None, "{text}");
        }
        // A later version may carry more.
        let later = "01-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01-x";
        assert!(Trace::parse(later).is_some());
    }

    #[tokio::test(start_paused = true)]
    async fn spawned_work_ends_with_its_call_and_detached_work_does_not() {
        let ctx = Ctx::root(SECOND, Trace::new());
        let (spawned, detached) = ctx
            .scope(async {
                let late = || tokio::time::sleep(3 * SECOND);
                (spawn("short", late()), detach("long", 10 * SECOND, late()))
            })
            .await;
        assert_eq!(spawned.await.expect("no panic"), None);
        assert_eq!(detached.await.expect("no panic"), Some(()));
    }

    #[tokio::test(start_paused = true)]
    async fn work_of_a_caller_who_left_is_cancelled() {
        let ctx = Ctx::root(10 * SECOND, Trace::new());
        let spawned = ctx.sync_scope(|| spawn("orphan", std::future::pending::<()>()));
        ctx.cancel();
        assert_eq!(spawned.await.expect("no panic"), None);
    }

    #[tokio::test(start_paused = true)]
    async fn background_work_has_a_deadline_and_goes_on_with_its_trace() {
        let kept = Trace::new();
        let id = background("step", SECOND, Some(&kept.to_string()), async {
            Ctx::current().expect("a scope").trace_id()
        })
        .await;
        assert_eq!(id, Ok(kept.id()));
        let late = background("step", SECOND, None, std::future::pending::<()>()).await;
        assert_eq!(late, Err(Late));
    }
}
