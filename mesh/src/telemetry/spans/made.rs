//! The spans that there are: one function each, with the name and the attributes that it has.

use std::borrow::Cow;

use http::StatusCode;
use opentelemetry::{Value, trace::SpanKind};

use super::{Span, Spans};
use crate::{
    clock,
    ctx::{Ctx, Trace},
    log::Event,
    registry::Address,
    telemetry::names::span as name,
};

/// What is created when something happens, and processed where that is taken in.
const SYSTEM: &str = "ordermesh";

// === impl Spans ===

impl Spans {
    /// A call that is served, of a method that the contract has: whatever a client makes up must not
    /// make a name of its own.
    pub(crate) fn served(&self, above: Trace, method: &str) -> Span {
        let span = self.begin(SpanKind::Server, above, || Cow::Owned(method.to_owned()));
        if span.is_recorded() {
            span.set(name::RPC_SYSTEM, "grpc");
            span.set(name::RPC_METHOD, method.to_owned());
        }
        span
    }

    /// A call that is made, with all of its attempts.
    pub(crate) fn call(&self, ctx: &Ctx, method: &str, callee: &str) -> Span {
        let span = self.begin(SpanKind::Client, ctx.trace(), || Cow::Owned(method.to_owned()));
        if span.is_recorded() {
            span.set(name::RPC_SYSTEM, "grpc");
            span.set(name::RPC_METHOD, method.to_owned());
            span.set(name::SERVER, callee.to_owned());
            span.about(ctx);
        }
        span
    }

    /// An HTTP request that is served; its route is known later, see [`Span::routed`].
    #[must_use]
    pub fn request(&self, above: Trace, method: &str) -> Span {
        let span = self.begin(SpanKind::Server, above, || Cow::Owned(method.to_owned()));
        if span.is_recorded() {
            span.set(name::HTTP_METHOD, method.to_owned());
        }
        span
    }

    /// An HTTP request that is made.
    pub(crate) fn exchange(&self, ctx: &Ctx, method: &str, server: &str) -> Span {
        let span = self.begin(SpanKind::Client, ctx.trace(), || Cow::Owned(method.to_owned()));
        if span.is_recorded() {
            span.set(name::HTTP_METHOD, method.to_owned());
            span.set(name::SERVER, server.to_owned());
            span.about(ctx);
        }
        span
    }

    /// Work of this name that nobody waits for.
    pub(crate) fn work(&self, above: Trace, called: &'static str) -> Span {
        self.begin(SpanKind::Internal, above, || Cow::Borrowed(called))
    }

    /// The beginning of a saga: its steps are below it, whenever and wherever they are done.
    pub(crate) fn saga(ctx: &Ctx, kind: &str, key: &str) -> Span {
        let named = || Cow::Owned(format!("saga {kind}"));
        let span = ctx.spans().begin(SpanKind::Internal, ctx.trace(), named);
        if span.is_recorded() {
            span.set(name::ORDER, key.to_owned());
        }
        span
    }

    /// One try of a saga's step, or of undoing it.
    pub(crate) fn step(&self, above: Trace, back: bool, step: &'static str, attempt: u32) -> Span {
        let word = if back { "undo" } else { "step" };
        let named = || Cow::Owned(format!("{word} {step}"));
        let span = self.begin(SpanKind::Internal, above, named);
        if span.is_recorded() {
            span.set(name::SAGA_STEP, step);
            span.set(name::ATTEMPT, i64::from(attempt));
        }
        span
    }

    /// An event is written. What travels with it is this span, over before anybody reads the event.
    pub(crate) fn created(ctx: &Ctx, id: &str, kind: &str) -> Span {
        let destination = || destination(kind);
        let named = || Cow::Owned(format!("create {}", destination()));
        let span = ctx.spans().begin(SpanKind::Producer, ctx.trace(), named);
        if span.is_recorded() {
            span.of_event("create", "create", id, kind);
            span.about(ctx);
        }
        span
    }

    /// An event is taken in, once more where that failed before. What it caused is below the
    /// span that created it, and linked to it.
    pub(crate) fn processed(&self, created: Trace, event: &Event) -> Span {
        let named = || Cow::Owned(format!("process {}", destination(&event.kind)));
        let span = self.begin(SpanKind::Consumer, created, named);
        if span.is_recorded() {
            span.of_event("process", "process", &event.id, &event.kind);
            let age = (clock::now() - event.at).whole_milliseconds();
            span.set(name::EVENT_AGE, i64::try_from(age).unwrap_or(i64::MAX).max(0));
            span.link(created);
        }
        span
    }
}

// === impl Span ===

impl Span {
    /// One attempt of the call that this span is, sent to whoever `went` says.
    pub(crate) fn attempt(&self, spans: &Spans, method: &str, number: u32) -> Span {
        let Some(above) = self.trace() else { return Span::default() };
        let named = || Cow::Owned(format!("Attempt.{method}"));
        let span = spans.begin(SpanKind::Client, above, named);
        span.set(name::ATTEMPT, i64::from(number));
        span
    }

    /// Where an attempt went.
    pub(crate) fn went(&self, to: &Address) {
        if self.is_recorded() {
            self.set(name::PEER, to.host.clone());
            self.set(name::PEER_PORT, i64::from(to.port));
        }
    }

    /// An attempt is over, well or for this reason.
    pub(crate) fn judged(&self, error: Option<&'static str>) {
        if let Some(error) = error {
            self.failed(error);
        }
        self.end();
    }

    /// What this attempt came to may have moved the breakers, which stood so before: of the method,
    /// and of all methods with few calls.
    pub(crate) fn moved(
        &self,
        stood: Option<[&'static str; 2]>,
        stand: impl Fn() -> [&'static str; 2],
    ) {
        let Some(stood) = stood else { return };
        for (before, now) in stood.into_iter().zip(stand()) {
            if before != now {
                self.event(name::BREAKER_CHANGED, || vec![(name::BREAKER, Value::from(now))]);
            }
        }
    }

    /// Another attempt of this call follows, after one that failed.
    pub(crate) fn retried(&self, number: u32, after: &'static str) {
        self.event(name::RETRY, || {
            vec![
                (name::ATTEMPT, Value::from(i64::from(number))),
                (name::ERROR_TYPE, Value::from(after)),
            ]
        });
    }

    /// This call was refused before anything was sent.
    pub(crate) fn refused(&self, reason: &'static str) {
        self.set(name::REASON, reason);
        self.event(name::REFUSED, || vec![(name::REASON, Value::from(reason))]);
    }

    /// An HTTP request was answered so, and is over. `route` is empty where there was none.
    pub fn routed(&self, method: &str, route: &str, status: u16) {
        if !self.is_recorded() {
            return;
        }
        if !route.is_empty() {
            self.rename(|| format!("{method} {route}"));
            self.set(name::HTTP_ROUTE, route.to_owned());
        }
        self.set(name::HTTP_STATUS, i64::from(status));
        if status >= 500 {
            self.failed(status.to_string());
        }
        self.end();
    }

    /// An HTTP request was answered with this status.
    pub(crate) fn exchanged(&self, status: StatusCode) {
        if self.is_recorded() {
            self.set(name::HTTP_STATUS, i64::from(status.as_u16()));
            if status.is_client_error() || status.is_server_error() {
                self.failed(status.as_str().to_owned());
            }
        }
    }

    fn of_event(&self, operation: &'static str, sort: &'static str, id: &str, kind: &str) {
        self.set(name::MESSAGING_SYSTEM, SYSTEM);
        self.set(name::MESSAGING_OPERATION, operation);
        self.set(name::MESSAGING_TYPE, sort);
        self.set(name::MESSAGING_DESTINATION, destination(kind));
        self.set(name::MESSAGE_ID, id.to_owned());
        self.set(name::EVENT_TYPE, kind.to_owned());
    }

    fn about(&self, ctx: &Ctx) {
        if let Some(about) = ctx.subject() {
            self.set(name::ORDER, about.to_owned());
        }
    }
}

/// Where an event goes: `order.created` to `order_events`.
fn destination(kind: &str) -> String {
    format!("{}_events", kind.split('.').next().unwrap_or_default())
}
