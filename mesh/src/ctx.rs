//! What a call carries: its deadline, its trace, who calls and whether they still wait.
//!
//! The server makes a [`Ctx`] per call and runs the handler in its scope; every call that the
//! handler makes finds it there. So deadline, trace and identity travel without the author of
//! a handler doing anything.

use std::{
    future::Future,
    sync::{
        Arc, LazyLock, Mutex, OnceLock, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};

use tokio::time::Instant;
use tokio_util::{
    sync::{CancellationToken, WaitForCancellationFutureOwned},
    task::TaskTracker,
};

use crate::{
    auth::Caller,
    clock,
    server::Permit,
    telemetry::{Span, Spans, names::span as name},
};

mod cancel;
mod inbound;
mod trace;
mod work;

use cancel::Cancel;

pub use inbound::Criticality;
pub(crate) use inbound::Inbound;
pub use trace::Trace;
pub(crate) use trace::{TRACEPARENT, TRACEPARENT_NAME};
pub use work::{OffloadError, background, detach, offload, spawn};

/// The longest that a call outside of any other call may take.
pub const ROOT_TIMEOUT: Duration = Duration::from_secs(5);

/// How many dependencies an answer names that it does without.
const DEGRADED_MAX: usize = 8;

/// What one call carries. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Ctx {
    inner: Arc<Inner>,
    /// Of the call, or of a part of it that has less time.
    deadline: Instant,
}

#[derive(Debug)]
struct Inner {
    trace: Trace,
    /// Where spans of what is done for this call go.
    spans: Spans,
    /// That of this call.
    span: Span,
    /// What all of it is about: the name of an order.
    subject: OnceLock<Box<str>>,
    cancelled: Cancel,
    tracker: TaskTracker,
    inbound: Inbound,
    caller: OnceLock<Caller>,
    /// Whether the rule of this call asks the handler to compare the owner, and it has not.
    duty: AtomicBool,
    /// What this call's answer has to do without.
    degraded: Mutex<Vec<Arc<str>>>,
    /// Something was tried again for this call, and still failed.
    retried: AtomicBool,
    /// The place of this call among those that are served at once; not while it rests.
    place: Mutex<Option<Permit>>,
    /// It has rested: how long it took says nothing of how busy the process is.
    rested: AtomicBool,
}

/// Ends work that nobody waits for with whoever does it.
#[derive(Debug)]
#[must_use]
pub(crate) struct Ending(Ctx);

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
        Self::new(clock::instant() + timeout, trace, TRACKER.clone())
    }

    pub(crate) fn new(deadline: Instant, trace: Trace, tracker: TaskTracker) -> Self {
        Self::served(deadline, trace, tracker, None, Inbound::default())
    }

    /// The context of a call that came in, which may also end with `cancelled`.
    pub(crate) fn served(
        deadline: Instant,
        trace: Trace,
        tracker: TaskTracker,
        cancelled: Option<CancellationToken>,
        inbound: Inbound,
    ) -> Self {
        let inner = Inner {
            trace,
            spans: Spans::default(),
            span: Span::default(),
            subject: OnceLock::new(),
            cancelled: Cancel::new(cancelled),
            tracker,
            inbound,
            caller: OnceLock::new(),
            duty: AtomicBool::new(false),
            degraded: Mutex::default(),
            retried: AtomicBool::new(false),
            place: Mutex::default(),
            rested: AtomicBool::new(false),
        };
        Self { inner: Arc::new(inner), deadline }
    }

    /// The same, recorded by this span; its place in the trace is the span's. For a context that
    /// nobody else has yet.
    #[must_use]
    pub fn recorded(mut self, spans: &Spans, span: Span) -> Self {
        if spans.are_recorded()
            && let Some(inner) = Arc::get_mut(&mut self.inner)
        {
            inner.trace = span.trace().unwrap_or(inner.trace);
            (inner.spans, inner.span) = (spans.clone(), span);
        }
        self
    }

    /// Ends it when dropped: its span, and what it has spawned.
    pub(crate) fn ending(&self) -> Ending {
        Ending(self.clone())
    }

    /// The same work, with so much time from now on.
    pub(crate) fn lasting(&self, time: Duration) -> Self {
        Self { deadline: clock::instant() + time, ..self.clone() }
    }

    /// The same call, for a part of it that ends at `deadline` at the latest.
    pub(crate) fn until(&self, deadline: Instant) -> Self {
        Self { deadline: self.deadline.min(deadline), ..self.clone() }
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
            Self::root(ROOT_TIMEOUT, Trace::new()).recorded(&Spans::here(), Span::default())
        })
    }

    /// Where spans of what is done for this call go.
    pub(crate) fn spans(&self) -> &Spans {
        &self.inner.spans
    }

    /// The span of this call.
    #[must_use]
    pub fn span(&self) -> &Span {
        &self.inner.span
    }

    /// Says which order all of this is about: its spans say so, and those of whoever is called.
    pub fn about(&self, order: &str) {
        if self.inner.span.is_recorded() && self.inner.subject.set(order.into()).is_ok() {
            self.inner.span.set(name::ORDER, order.to_owned());
        }
    }

    /// What it is about, as far as that is known.
    pub(crate) fn subject(&self) -> Option<&str> {
        self.inner.subject.get().map(|order| &**order)
    }

    /// When this is over: of a call that came in, 1 ms before its caller stops waiting.
    #[must_use]
    pub fn deadline(&self) -> Instant {
        self.deadline
    }

    /// How long that is from now; zero once it passed.
    #[must_use]
    pub fn time_left(&self) -> Duration {
        self.deadline.saturating_duration_since(clock::instant())
    }

    /// Where this call stands in its trace.
    #[must_use]
    pub fn trace(&self) -> Trace {
        self.inner.trace
    }

    /// The trace id, 32 hexadecimal digits.
    #[must_use]
    pub fn trace_id(&self) -> String {
        self.inner.trace.id()
    }

    /// This call as a `traceparent` header, to be kept with what outlives the call.
    #[must_use]
    pub fn traceparent(&self) -> String {
        self.inner.trace.to_string()
    }

    /// Who calls; `None` where nobody had to say.
    #[must_use]
    pub fn caller(&self) -> Option<&Caller> {
        self.inner.caller.get()
    }

    /// Which attempt of our caller this is: 1, unless it tried again. Below a retry nothing is
    /// tried again, or the levels would multiply.
    #[must_use]
    pub fn attempt(&self) -> u32 {
        self.inner.inbound.attempt
    }

    /// What the answer has to do without so far: the names of dependencies.
    #[must_use]
    pub fn degraded(&self) -> Vec<Arc<str>> {
        self.inner.degraded.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Says that the answer will do without what `dependency` would have said. Whoever gets the
    /// answer is told (`mesh-degraded`).
    pub fn degrade(&self, dependency: &str) {
        let mut degraded = self.inner.degraded.lock().unwrap_or_else(PoisonError::into_inner);
        if degraded.len() < DEGRADED_MAX && degraded.iter().all(|known| **known != *dependency) {
            degraded.push(dependency.into());
            let named = || vec![(name::DEPENDENCY, dependency.to_owned().into())];
            self.inner.span.event(name::DEGRADED, named);
        }
    }

    /// Something was tried again for this call, and failed: nobody above should try it again.
    pub(crate) fn note_retried(&self) {
        self.inner.retried.store(true, Ordering::Relaxed);
    }

    pub(crate) fn was_retried(&self) -> bool {
        self.inner.retried.load(Ordering::Relaxed)
    }

    /// Resolves when the caller went away or the deadline passed.
    pub async fn cancelled(&self) {
        self.inner.cancelled.token().cancelled().await;
    }

    /// Resolves when the process that serves this call begins to turn callers away, or when the
    /// connection that it came over has become old enough: a stream should end with `UNAVAILABLE`
    /// and the reason `DRAINING`. Never, outside of a call.
    pub async fn draining(&self) {
        self.inner.inbound.draining.cancelled().await;
    }

    /// Whether this call is served when not all can be.
    #[must_use]
    pub fn criticality(&self) -> Criticality {
        self.inner.inbound.criticality
    }

    /// Keeps the place of this call among those that are served at once.
    pub(crate) fn hold(&self, place: Option<Permit>) {
        *self.inner.place.lock().unwrap_or_else(PoisonError::into_inner) = place;
    }

    /// Gives the place back.
    pub(crate) fn let_go(&self) {
        let place = self.inner.place.lock().unwrap_or_else(PoisonError::into_inner).take();
        drop(place);
    }

    /// From here on the call waits for what goes on without it, and needs no place.
    pub(crate) fn rest(&self) {
        self.inner.rested.store(true, Ordering::Relaxed);
        self.let_go();
    }

    /// Whether the call only worked, so that its length says how busy the process is.
    pub(crate) fn only_worked(&self) -> bool {
        !self.inner.rested.load(Ordering::Relaxed)
    }

    /// Lets the limit of calls at once learn from this call.
    pub(crate) fn sample(&self, now: Instant) {
        let place = self.inner.place.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(place) = &*place {
            place.sample(now);
        }
    }

    /// The same, to be kept beside what it may end.
    pub(crate) fn cut(&self) -> WaitForCancellationFutureOwned {
        self.inner.cancelled.token().clone().cancelled_owned()
    }

    pub(crate) fn cancel(&self) {
        self.inner.cancelled.cancel();
    }

    /// Says who calls; the first word counts.
    pub(crate) fn set_caller(&self, caller: Caller) {
        // A second caller would be a bug of the auth layer, which runs once.
        let _already_known = self.inner.caller.set(caller).is_err();
    }

    pub(crate) fn open_duty(&self) {
        self.inner.duty.store(true, Ordering::Relaxed);
    }

    pub(crate) fn settle_duty(&self) {
        self.inner.duty.store(false, Ordering::Relaxed);
    }

    pub(crate) fn owes_duty(&self) -> bool {
        self.inner.duty.load(Ordering::Relaxed)
    }

    /// Runs `future` as part of this call.
    // Not an `async fn`: that would keep room for the future twice, and move it once more.
    pub fn scope<F: Future>(&self, future: F) -> tokio::task::futures::TaskLocalFuture<Self, F> {
        CURRENT.scope(self.clone(), future)
    }

    /// Runs `f`, which does not wait, as part of this call.
    pub(crate) fn sync_scope<T>(&self, f: impl FnOnce() -> T) -> T {
        CURRENT.sync_scope(self.clone(), f)
    }
}

// === impl Ending ===

impl Drop for Ending {
    fn drop(&mut self) {
        self.0.span().end();
        self.0.cancel();
    }
}

/// How many calls were made outside of any other call, in this process.
#[must_use]
pub fn rootless_calls() -> u64 {
    ROOTLESS.load(Ordering::Relaxed)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::deadline::Late;

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn a_traceparent_is_read_as_it_was_written() {
        let trace = Trace::new();
        let read = Trace::parse(&trace.to_string()).expect("a trace");
        assert_eq!(read.to_string(), trace.to_string());
        let header = trace.header().expect("a header");
        assert_eq!(header, trace.to_string());
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
