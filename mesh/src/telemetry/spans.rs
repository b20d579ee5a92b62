//! Spans: what was done for whom, when and for how long, as a collector of OpenTelemetry takes it.
//!
//! Straight on the SDK's form of a span, since the ids are those that travel with every call
//! whether or not anybody records it. What is not recorded costs one look and no memory. What is
//! goes into a queue that is bounded and never waited for; see [`export`].

pub(crate) mod export;
mod made;

use std::{
    borrow::Cow,
    fmt,
    sync::{Arc, Mutex, PoisonError},
};

use opentelemetry::{
    InstrumentationScope, KeyValue, SpanId, TraceFlags, TraceId, Value,
    trace::{Event, Link, SpanContext, SpanKind, Status, TraceState},
};
use opentelemetry_sdk::trace::{SpanData, SpanEvents, SpanLinks};
use tokio::{sync::mpsc, time::Instant};
use tonic::Code;

use super::names::span as name;
use crate::{
    clock,
    ctx::{Ctx, Trace},
};

/// How many events a span has at most: a call that is tried for ever must not grow.
const EVENTS_MAX: usize = 32;

tokio::task_local! {
    /// Where the spans go of what a process does without being asked.
    pub(crate) static HOME: Spans;
}

/// Where the spans of a process go: nowhere, unless it was told. Cheap to clone.
#[derive(Clone, Debug, Default)]
pub struct Spans(Option<Arc<Sink>>);

struct Sink {
    queue: mpsc::Sender<SpanData>,
    scope: InstrumentationScope,
}

/// A span under way, or none where it is not recorded. Clones are the same span, which ends
/// when it is told to or when the last of them is dropped.
#[derive(Clone, Default)]
pub struct Span(Option<Arc<Open>>);

struct Open {
    sink: Arc<Sink>,
    trace: Trace,
    began: Instant,
    /// `None` once it has ended.
    data: Mutex<Option<SpanData>>,
}

// === impl Spans ===

impl Spans {
    pub(crate) const fn nowhere() -> Self {
        Self(None)
    }

    pub(crate) fn over(queue: mpsc::Sender<SpanData>) -> Self {
        let scope =
            InstrumentationScope::builder("mesh").with_version(env!("CARGO_PKG_VERSION")).build();
        Self(Some(Arc::new(Sink { queue, scope })))
    }

    /// Where the spans go of the work that this code is part of.
    pub(crate) fn here() -> Self {
        Ctx::current()
            .map(|ctx| ctx.spans().clone())
            .filter(|spans| spans.0.is_some())
            .or_else(|| HOME.try_with(Clone::clone).ok())
            .unwrap_or_default()
    }

    /// `future`, in a task of its own, as part of the same process.
    pub(crate) fn carried<F: Future>(future: F) -> impl Future<Output = F::Output> {
        HOME.scope(Self::here(), future)
    }

    /// Whether anything is recorded at all.
    pub(crate) fn are_recorded(&self) -> bool {
        self.0.is_some()
    }

    /// Begins a span below `above`, unless that trace is not recorded.
    pub(crate) fn begin(
        &self,
        kind: SpanKind,
        above: Trace,
        name: impl FnOnce() -> Cow<'static, str>,
    ) -> Span {
        let Some(sink) = self.0.as_ref().filter(|_| above.is_sampled()) else {
            return Span::default();
        };
        let trace = above.child().of_a_span();
        let (_, _, parent) = above.ids();
        let remote = matches!(kind, SpanKind::Server | SpanKind::Consumer) && parent != 0;
        let now = clock::now().into();
        let data = SpanData {
            span_context: context(trace, false),
            parent_span_id: SpanId::from(parent),
            parent_span_is_remote: remote,
            span_kind: kind,
            name: name(),
            start_time: now,
            end_time: now,
            attributes: Vec::new(),
            dropped_attributes_count: 0,
            events: SpanEvents::default(),
            links: SpanLinks::default(),
            status: Status::Unset,
            instrumentation_scope: sink.scope.clone(),
        };
        let (sink, began) = (Arc::clone(sink), clock::instant());
        Span(Some(Arc::new(Open { sink, trace, began, data: Mutex::new(Some(data)) })))
    }
}

// === impl Span ===

impl Span {
    /// Where it stands in its trace; `None` if it is not recorded.
    #[must_use]
    pub fn trace(&self) -> Option<Trace> {
        self.0.as_ref().map(|open| open.trace)
    }

    /// Whether it is recorded: only then is it worth making up what to say.
    #[must_use]
    pub fn is_recorded(&self) -> bool {
        self.0.is_some()
    }

    /// Says something about it; the latest word counts.
    pub fn set(&self, key: &'static str, value: impl Into<Value>) {
        self.change(|data, _| put(data, key, value));
    }

    /// Gives it another name: of a request the route is known late.
    pub fn rename(&self, name: impl FnOnce() -> String) {
        self.change(|data, _| data.name = name().into());
    }

    /// Something happened meanwhile.
    pub(crate) fn event(
        &self,
        name: &'static str,
        attributes: impl FnOnce() -> Vec<(&'static str, Value)>,
    ) {
        self.change(|data, open| {
            if data.events.events.len() >= EVENTS_MAX {
                data.events.dropped_count += 1;
                return;
            }
            let at = data.start_time + open.began.elapsed();
            let attributes = attributes().into_iter().map(|(key, value)| KeyValue::new(key, value));
            data.events.events.push(Event::new(name, at, attributes.collect(), 0));
        });
    }

    /// It has to do with another one, beside its parent.
    pub(crate) fn link(&self, other: Trace) {
        self.change(|data, _| data.links.links.push(Link::with_context(context(other, true))));
    }

    /// It failed, and why in a word that is one of few.
    pub fn failed(&self, why: impl Into<Value>) {
        self.change(|data, _| {
            put(data, name::ERROR_TYPE, why);
            data.status = Status::error("");
        });
    }

    /// A call has ended with this code, and so has the span.
    pub(crate) fn answered(&self, code: Code) {
        if !self.is_recorded() {
            return;
        }
        let text = super::code(code);
        self.change(|data, _| {
            put(data, name::RPC_STATUS, text);
            let server = data.span_kind == SpanKind::Server;
            let failed = if server { is_fault(code) } else { code != Code::Ok };
            if failed {
                put(data, name::ERROR_TYPE, text);
                data.status = Status::error("");
            }
        });
        self.end();
    }

    /// It is over.
    pub fn end(&self) {
        if let Some(open) = &self.0 {
            open.end();
        }
    }

    fn change(&self, change: impl FnOnce(&mut SpanData, &Open)) {
        if let Some(open) = &self.0
            && let Some(data) = &mut *open.data.lock().unwrap_or_else(PoisonError::into_inner)
        {
            change(data, open);
        }
    }
}

impl fmt::Debug for Span {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Span").field(&self.trace()).finish()
    }
}

// === impl Open ===

impl Open {
    fn end(&self) {
        let data = self.data.lock().unwrap_or_else(PoisonError::into_inner).take();
        let Some(mut data) = data else { return };
        data.end_time = data.start_time + self.began.elapsed();
        if self.sink.queue.try_send(data).is_err() {
            super::metrics().spans_dropped.inc();
        }
    }
}

impl Drop for Open {
    /// Nobody waited for the end: who called has gone, or the loser of two attempts was dropped.
    fn drop(&mut self) {
        let data = self.data.get_mut().unwrap_or_else(PoisonError::into_inner);
        if let Some(data) = data.as_mut().filter(|data| data.span_kind == SpanKind::Client) {
            put(data, name::ERROR_TYPE, super::code(Code::Cancelled));
            data.status = Status::error("");
        }
        self.end();
    }
}

// === impl Sink ===

impl fmt::Debug for Sink {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Sink").field("room", &self.queue.capacity()).finish()
    }
}

fn put(data: &mut SpanData, key: &'static str, value: impl Into<Value>) {
    let value = value.into();
    match data.attributes.iter_mut().find(|known| known.key.as_str() == key) {
        Some(known) => known.value = value,
        None => data.attributes.push(KeyValue::new(key, value)),
    }
}

fn context(trace: Trace, remote: bool) -> SpanContext {
    let (id, span, _) = trace.ids();
    SpanContext::new(
        TraceId::from(id),
        SpanId::from(span),
        TraceFlags::SAMPLED,
        remote,
        TraceState::default(),
    )
}

/// What is the server's own fault; the rest is an answer.
fn is_fault(code: Code) -> bool {
    matches!(
        code,
        Code::Unknown
            | Code::DeadlineExceeded
            | Code::Unimplemented
            | Code::Internal
            | Code::Unavailable
            | Code::DataLoss
    )
}

#[cfg(test)]
mod tests;
