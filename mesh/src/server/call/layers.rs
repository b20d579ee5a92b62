//! What a call meets coming in, layer by layer, for a bench of each by itself.
//!
//! The rule of its method is none of them: what a token costs is no matter of these. Nor is the
//! count of those that are worked on, which is two additions.

use std::{
    cell::Cell,
    collections::HashMap,
    future::Future as _,
    hint::black_box,
    pin::pin,
    rc::Rc,
    sync::Arc,
    task::{Context, Poll, Waker},
    time::Duration,
};

use anyhow::{Context as _, ensure};
use futures_util::FutureExt as _;
use http::HeaderMap;
use opentelemetry_sdk::trace::SpanData;
use tokio::sync::mpsc;
use tokio_util::task::TaskTracker;
use tonic::{Code, service::Routes};

use super::{Brought, Calls, early};
use crate::{
    auth::{Auth, Keys, Rules},
    clock,
    ctx::{Criticality, Ctx, Inbound, TRACEPARENT_NAME},
    deadline, marks,
    server::{
        Settings,
        limit::Limiter,
        median::{Chance, Took},
        methods::{Method, Methods},
    },
    telemetry::{self, names},
    testing::layers::{Layer, UNSAMPLED, counted, headers, recorder, repeat, unsampled},
};

/// The longest that a call may take, and what callers give it.
const TIME: Duration = Duration::from_secs(10);
/// What a handler takes: more than no call may have less than.
const TOOK: Duration = Duration::from_millis(20);

/// A process that serves a method.
#[derive(Clone)]
struct Serves {
    calls: Calls,
    path: &'static str,
    method: Arc<Method>,
}

/// In the order in which a call meets them.
pub(crate) fn of(descriptors: &[u8], path: &'static str) -> anyhow::Result<Vec<Layer>> {
    let methods = Methods::of(descriptors, TIME, &HashMap::new())?;
    let method = Arc::clone(methods.at(path));
    ensure!(format!("/{}", method.name) == path, "{path} is not of the contract");
    let rules = Rules::of(descriptors).context("no rules")?;
    let (spans, queue) = recorder();
    let calls = Calls::new(
        Routes::default(),
        Auth::new(rules, Keys::none()),
        methods,
        Limiter::new(&Settings::default()),
        TaskTracker::new(),
        spans,
    );
    let serves = Serves { calls, path, method };
    Ok(vec![
        clock(),
        found(&serves),
        head(),
        context(),
        traced(&serves, queue),
        estimated(&serves),
        limited(&serves),
        deadlines(),
        marked(),
        measured(&serves),
    ])
}

/// The looks at the clock that a call hands on: when its turn comes, and when its handler is done.
/// When it came, its connection has seen, as it has for bare; at the end of its answer its deadline
/// looks.
fn clock() -> Layer {
    let mut last = clock::instant();
    Layer::new("clock", move || {
        let before = last;
        for _ in 0..2 {
            last = clock::instant();
        }
        last >= before
    })
}

fn found(serves: &Serves) -> Layer {
    let Serves { calls, path, method } = serves.clone();
    Layer::new("method", move || Arc::ptr_eq(&Arc::clone(calls.0.methods.at(path)), &method))
}

/// What a call brings: its deadline, its trace, how much it matters, which attempt it is.
fn head() -> Layer {
    let headers = brought();
    let trace = unsampled();
    Layer::new("head", move || {
        let brought = Brought::by(black_box(&headers));
        let asked = brought.timeout().unwrap_or(None);
        let inbound = brought.inbound(None);
        asked == Some(TIME)
            && brought.trace() == trace
            && (inbound.attempt, inbound.criticality) == (1, Criticality::Normal)
    })
}

/// What its handler finds of it, and its answer: made, entered by the one and by two frames of the
/// other, and ended.
fn context() -> Layer {
    let (ends, trace, tracker) = (clock::instant() + TIME, unsampled(), TaskTracker::new());
    Layer::new("context", move || {
        let inbound = Inbound::default();
        let ctx = Ctx::served(ends, trace, tracker.clone(), None, inbound);
        let watched = ctx.clone();
        let handled = ctx.scope(async { Ctx::current().is_some() }).now_or_never();
        let framed = (0..2).all(|_| watched.sync_scope(|| black_box(true)));
        let alone = ctx.only_worked() && !ctx.owes_duty();
        watched.cancel();
        handled == Some(true) && framed && alone
    })
}

/// The span of a call that is not sampled, in a process that records spans.
fn traced(serves: &Serves, mut queue: mpsc::Receiver<SpanData>) -> Layer {
    let Serves { calls, method, .. } = serves.clone();
    let ctx =
        Ctx::served(clock::instant(), unsampled(), TaskTracker::new(), None, Inbound::default());
    // Nobody else may have it while it is told what records it.
    let mut kept = Some(ctx);
    Layer::new("trace", move || {
        let Some(ctx) = kept.take() else { return false };
        let ctx = calls.0.recorded(ctx, &method);
        ctx.span().answered(Code::Ok);
        let silent = ctx.spans().are_recorded() && !ctx.span().is_recorded();
        kept = Some(ctx);
        silent && queue.try_recv().is_err()
    })
}

/// Whether there is time enough, and how long the handler took.
fn estimated(serves: &Serves) -> Layer {
    let method = Arc::clone(&serves.method);
    let (seen, now) = (Arc::clone(&method), clock::instant());
    let mut done = 0;
    let runs = Rc::new(Cell::new(0));
    let known = Rc::clone(&runs);
    Layer::in_batches("median", move |times| {
        done += repeat(times, || {
            let chance = method.admits(now, TIME);
            chance.is_ok_and(|chance| {
                method.took(now, Took::Done(TOOK), chance);
                chance == Chance::Good
            })
        });
        runs.set(done);
        0
    })
    // What they took is known by now: a call with less time is refused.
    .seen_by(move || if seen.admits(now, TOOK / 2).is_err() { known.get() } else { 0 })
}

/// A place, and what its limit learns from it.
fn limited(serves: &Serves) -> Layer {
    let calls = serves.calls.clone();
    Layer::in_batches("limiter", move |times| {
        let now = clock::instant();
        let (ends, limiter) = (now + TIME, &calls.0.limiter);
        repeat(times, || {
            let entered = limiter.call(Criticality::Normal, now, ends).now_or_never();
            entered.and_then(Result::ok).is_some_and(|permit| {
                permit.sample(permit.begun() + TOOK);
                true
            })
        })
    })
}

/// What bounds the handler and the two frames of its answer. None of them waits, so there is no
/// timer, and a call of the bench was counted to set none: a handler that waits sets one.
fn deadlines() -> Layer {
    let mut cx = Context::from_waker(Waker::noop());
    Layer::in_batches("deadline", move |times| {
        let now = clock::instant();
        let ends = now + TIME;
        repeat(times, || {
            let ends = early(ends);
            let handled = pin!(deadline::within_from(now, ends, std::future::ready(())));
            let mut late = pin!(deadline::Timer::from(now, ends));
            let handled = matches!(handled.poll(&mut cx), Poll::Ready(Ok(_)));
            handled && (0..2).all(|_| late.as_mut().look().is_ok())
        })
    })
}

/// What an answer may say beside itself, which almost always is nothing.
fn marked() -> Layer {
    let ctx = Ctx::root(TIME, unsampled());
    let mut head = headers(&[("content-type", "application/grpc")]);
    let mut trailers = headers(&[("grpc-status", "0")]);
    Layer::new("marks", move || {
        let [head, trailers] = [&mut head, &mut trailers].map(|headers| {
            marks::strip(headers);
            let code = marks::code(headers);
            marks::sign(&ctx, headers, code);
            code
        });
        head.is_none() && trailers == Some(Code::Ok)
    })
}

fn measured(serves: &Serves) -> Layer {
    let (method, seen) = (Arc::clone(&serves.method), Arc::clone(&serves.method));
    let started = clock::instant();
    Layer::new("metrics", move || {
        telemetry::metrics().in_flight.inc();
        let took = black_box(started + TOOK).saturating_duration_since(started);
        method.record(Code::Ok, took);
        telemetry::metrics().in_flight.dec();
        true
    })
    .seen_by(move || counted(names::SERVER_CALLS, &seen.name))
}

/// The head of a request as another process of the mesh sends it.
fn brought() -> HeaderMap {
    headers(&[
        ("te", "trailers"),
        ("content-type", "application/grpc"),
        ("user-agent", "tonic/0.14"),
        (deadline::TIMEOUT_NAME, "10000m"),
        (TRACEPARENT_NAME, UNSAMPLED),
    ])
}
