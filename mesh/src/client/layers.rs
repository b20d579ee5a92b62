//! What a call meets going out, layer by layer, for a bench of each by itself.
//!
//! The clock of whatever keeps windows of seconds stands still, some time after it was made, with
//! calls in every second before: so its windows are as full as in a process that is at work.

use std::{
    cell::RefCell,
    future::{Future as _, poll_fn},
    hint::black_box,
    pin::pin,
    rc::Rc,
    sync::Arc,
    task::{Context, Poll, Wake, Waker},
    time::Duration,
};

use anyhow::{Context as _, ensure};
use futures_util::FutureExt as _;
use http::{Extensions, HeaderMap};
use tokio::time::Instant;
use tonic::{Code, GrpcMethod};

use super::{
    Channel, Limit, Long,
    breaker::{self, Judged},
    callee::{Callee, Method},
    classify::{BreakerVerdict, EndpointVerdict},
};
use crate::{
    clock,
    ctx::{Ctx, TRACEPARENT, Trace},
    deadline, marks,
    registry::Address,
    telemetry::names,
    testing::layers::{Layer, counted, headers, recorder, repeat, unsampled},
};

/// The time of a call that is served while it makes this one.
const TIME: Duration = Duration::from_secs(10);
/// What an attempt takes.
const TOOK: Duration = Duration::from_micros(120);
/// How long windows are filled before that, and with how many calls a second: longer than any of
/// them looks back, and often enough that a method is judged by itself.
const FILLED: (u64, u32) = (180, 10);

/// A callee and its method, in state of their own.
#[derive(Clone)]
struct Called {
    callee: Arc<Callee>,
    method: Arc<Method>,
    /// When windows are looked at.
    now: Instant,
}

/// Who is woken by nothing: a waker that is counted by those who keep it, as a task's is.
#[derive(Debug, Default)]
struct Nobody;

/// In the order in which a call meets them.
pub(crate) fn of(channel: &Channel, method: &str) -> anyhow::Result<Vec<Layer>> {
    let Channel(callee) = channel.apart("layers");
    let method = callee.method(method);
    ensure!(method.facts.unary && method.facts.idempotent, "{} is not plain", method.name);
    let called = Called::after_a_while(callee, method);
    Ok(vec![
        clock(),
        context(),
        found(&called),
        deadlines(),
        traced(&called),
        places(&called),
        throttled(&called),
        broken(&called),
        budgeted(&called),
        latencies(&called),
        picked(&called),
        reported(&called)?,
        marked(),
        measured(&called),
    ])
}

/// The looks at the clock that a call hands on: at its begin. When its answer comes, and at the end
/// of that, its deadline looks.
fn clock() -> Layer {
    let mut last = clock::instant();
    Layer::new("clock", move || {
        let before = last;
        last = clock::instant();
        last >= before
    })
}

/// Whose call it is, and what its request says of it.
fn context() -> Layer {
    let ctx = Ctx::root(TIME, Trace::new());
    let mut extensions = Extensions::new();
    extensions.insert(GrpcMethod::new("package.Service", "Method"));
    Layer::in_batches("context", move |times| {
        ctx.sync_scope(|| {
            repeat(times, || {
                let ctx = extensions.remove::<Ctx>().unwrap_or_else(Ctx::current_or_root);
                let limit = extensions.remove::<Limit>();
                let long = extensions.remove::<Long>();
                ctx.attempt() == 1 && limit.is_none() && long.is_none()
            })
        })
    })
}

fn found(called: &Called) -> Layer {
    let Called { callee, method, .. } = called.clone();
    let path = format!("/{}", method.name);
    Layer::new("method", move || Arc::ptr_eq(&callee.method(path.trim_start_matches('/')), &method))
}

/// The arithmetic, the header, and what waits: for a place and for the request, which are there at
/// once, for the head of the answer, which is not and takes a timer, and for the two frames of its
/// body, which are there by then: a call of the bench was counted to set one timer. Bare has the
/// header, too.
fn deadlines() -> Layer {
    let mut headers = HeaderMap::with_capacity(8);
    let waker = Waker::from(Arc::<Nobody>::default());
    Layer::in_batches("deadline", move |times| {
        // A task that has done all it may in one go is given no timer.
        if !tokio::task::coop::has_budget_remaining() {
            return 0;
        }
        let now = clock::instant();
        let (deadline, mut cx) = (now + TIME, Context::from_waker(&waker));
        repeat(times, || {
            let mut left = deadline::for_child(black_box(deadline).saturating_duration_since(now));
            for most in [None, Some(TIME)].into_iter().flatten() {
                left = left.min(most);
            }
            let ends = now + left;
            let entered = pin!(deadline::within_from(now, ends, std::future::ready(())));
            let read = pin!(deadline::within_from(now, ends, std::future::ready(())));
            let there = entered.poll(&mut cx).is_ready() && read.poll(&mut cx).is_ready();
            let left = ends.saturating_duration_since(now);
            let Some(header) = deadline::header(left) else { return false };
            headers.insert(&deadline::TIMEOUT, header);
            let Some(came) = answered_later(now, ends, &mut cx) else { return false };
            let mut late = pin!(deadline::Timer::from(came, ends));
            let frames = (0..2).all(|_| {
                deadline::poll_within(late.as_mut(), &mut cx, |_| Poll::Ready(())).is_ready()
            });
            there && frames
        })
    })
}

/// When an answer came that was waited for, with a timer.
fn answered_later(now: Instant, ends: Instant, cx: &mut Context<'_>) -> Option<Instant> {
    let mut asked = false;
    let head =
        poll_fn(
            move |_| {
                if std::mem::replace(&mut asked, true) { Poll::Ready(()) } else { Poll::Pending }
            },
        );
    let mut head = pin!(deadline::within_from(now, ends, head));
    if head.as_mut().poll(cx).is_ready() {
        return None;
    }
    match head.as_mut().poll(cx) {
        Poll::Ready(Ok(((), came))) => Some(came),
        Poll::Ready(Err(deadline::Late)) | Poll::Pending => None,
    }
}

/// The place of an attempt in its trace, in a process that records spans, of a call that is not
/// sampled.
fn traced(called: &Called) -> Layer {
    let Called { callee, method, .. } = called.clone();
    let (spans, mut queue) = recorder();
    let ctx = Ctx::root(TIME, unsampled());
    let address = Address { host: "127.0.0.1".to_owned(), port: 1 };
    let mut headers = HeaderMap::with_capacity(8);
    Layer::new("trace", move || {
        let span = spans.call(&ctx, &method.name, &callee.name);
        let attempt = span.attempt(&spans, &method.name, 1);
        let trace = attempt.trace().unwrap_or_else(|| ctx.trace().child());
        let header = trace.header();
        let told = header.is_some();
        if let Some(header) = header {
            headers.insert(&TRACEPARENT, header);
        }
        attempt.went(&address);
        attempt.judged(None);
        span.answered(Code::Ok);
        told && !span.is_recorded() && queue.try_recv().is_err()
    })
}

fn places(called: &Called) -> Layer {
    let Called { callee, method, .. } = called.clone();
    Layer::new("bulkhead", move || {
        callee.enter(&method).now_or_never().is_some_and(|entered| entered.is_ok())
    })
}

fn throttled(called: &Called) -> Layer {
    let called = called.clone();
    Layer::new("throttle", move || called.throttle())
}

fn broken(called: &Called) -> Layer {
    let (called, seen) = (called.clone(), called.clone());
    Layer::new("breaker", move || called.judge())
        .seen_by(move || seen.method.breaker.counts(seen.now).0)
}

fn budgeted(called: &Called) -> Layer {
    let (called, seen) = (called.clone(), called.clone());
    // A tenth of the calls may be sent once more.
    Layer::new("budget", move || called.pay())
        .seen_by(move || seen.callee.budget.left(seen.now) * 10)
}

/// The estimates by which a call is refused and an attempt bounded, and what it adds to them.
fn latencies(called: &Called) -> Layer {
    let called = called.clone();
    Layer::new("latency", move || called.learn())
}

/// The better of two, where there are two. Bare has this, too.
fn picked(called: &Called) -> Layer {
    let callee = Arc::clone(&called.callee);
    Layer::in_batches("pick", move |times| {
        let now = clock::instant();
        repeat(times, || callee.endpoints.chosen(now).is_some())
    })
}

/// What an instance learns from an answer: its average and its gate.
fn reported(called: &Called) -> anyhow::Result<Layer> {
    let callee = Arc::clone(&called.callee);
    let pick = callee.endpoints.chosen(clock::instant()).context("nobody can be reached")?;
    let pick = Rc::new(RefCell::new(pick));
    let seen = Rc::clone(&pick);
    Ok(Layer::in_batches("report", move |times| {
        let (mut pick, now) = (pick.borrow_mut(), clock::instant());
        repeat(times, || {
            pick.report(EndpointVerdict::Success, TOOK, now);
            true
        })
    })
    .seen_by(move || callee.endpoints.reported(&seen.borrow())))
}

/// What a callee may have said beside its answer, which almost always is nothing.
fn marked() -> Layer {
    let head =
        headers(&[("content-type", "application/grpc"), ("date", "Sat, 21 Nov 2026 12:00:00 GMT")]);
    let trailers = headers(&[("grpc-status", "0")]);
    Layer::new("marks", move || {
        let (head, trailers) = (black_box(&head), black_box(&trailers));
        let ended = marks::code(head).is_some();
        let marked = [head, trailers, trailers].map(marks::are_in);
        marks::code(trailers) == Some(Code::Ok) && !ended && marked == [false; 3]
    })
}

fn measured(called: &Called) -> Layer {
    let (method, seen) = (Arc::clone(&called.method), Arc::clone(&called.method));
    let started = clock::instant();
    Layer::new("metrics", move || {
        let took = black_box(started + TOOK).saturating_duration_since(started);
        method.answered.observe(took.as_secs_f64());
        true
    })
    .seen_by(move || counted(names::CLIENT_CALLS, &seen.name))
}

// === impl Called ===

impl Called {
    /// With windows as full as they are where calls were made for a while.
    fn after_a_while(callee: Arc<Callee>, method: Arc<Method>) -> Self {
        let (seconds, each) = FILLED;
        let began = clock::instant();
        let mut called = Self { callee, method, now: began };
        for second in 0..seconds {
            called.now = began + Duration::from_secs(second);
            repeat(each, || called.throttle() & called.judge() & called.pay() & called.learn());
        }
        called.now = began + Duration::from_secs(seconds);
        called
    }

    fn throttle(&self) -> bool {
        let admitted = self.callee.throttle.admits(fastrand::f64(), self.now);
        self.callee.throttle.ended(true, self.now);
        admitted
    }

    fn judge(&self) -> bool {
        let judged = Judged { verdict: BreakerVerdict::Success, slow: false, after: None };
        let leave = breaker::admit(&self.method.breaker, &self.callee.shared, self.now);
        leave.is_ok_and(|leave| {
            leave.settle(judged, self.now);
            true
        })
    }

    fn pay(&self) -> bool {
        self.callee.budget.call(self.now);
        self.callee.budget.ended(false);
        true
    }

    fn learn(&self) -> bool {
        let latency = &self.method.latency;
        let (least, expected) = (latency.least(self.now), latency.expected(self.now));
        latency.record(TOOK, self.now);
        least.is_some_and(|least| least <= TOOK) && expected >= TOOK / 2
    }
}

// === impl Nobody ===

impl Wake for Nobody {
    fn wake(self: Arc<Self>) {}
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_timer_that_a_task_was_not_given_is_no_run() {
        let mut layer = deadlines();
        layer.run(10);
        assert_eq!(layer.done(), 10);
        // What is ready at once uses up what a task may do in one go.
        let (sender, mut receiver) = tokio::sync::mpsc::unbounded_channel();
        while tokio::task::coop::has_budget_remaining() {
            sender.send(()).expect("taken");
            receiver.recv().await.expect("sent");
        }
        layer.run(10);
        assert_eq!(layer.done(), 10);
    }
}
