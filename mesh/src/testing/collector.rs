//! A collector of spans: takes OTLP over HTTP as a real one does, and shows what came.

use std::{
    collections::{BTreeMap, HashSet},
    convert::Infallible,
    fmt::Write as _,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use http::{Request, Response, StatusCode};
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use opentelemetry_proto::tonic::{
    collector::trace::v1::ExportTraceServiceRequest,
    common::v1::{AnyValue, KeyValue, any_value::Value},
    trace::v1::{Span, span::SpanKind},
};
use prost::Message as _;
use tokio::sync::Notify;
use tonic::body::Body;
use tower::service_fn;

use crate::{
    config::Bound,
    server::{Listener, Settings, Wire},
    tls,
};

/// How long spans may take to come: what they tell of has to happen first, on a machine that may
/// have much to do.
const PATIENCE: Duration = Duration::from_secs(60);

/// A collector on a free port of loopback, until the test ends.
#[derive(Clone, Debug)]
pub struct Collector {
    port: u16,
    scheme: &'static str,
    heap: Arc<Heap>,
}

#[derive(Debug, Default)]
struct Heap {
    spans: Mutex<Vec<Seen>>,
    came: Notify,
}

/// A span that came.
#[derive(Clone, Debug, PartialEq)]
pub struct Seen {
    /// `service.name`.
    pub service: String,
    /// What of its resource is there beside the name.
    pub resource: BTreeMap<String, String>,
    /// What it is called.
    pub name: String,
    /// `SERVER`, `CLIENT`, `PRODUCER`, `CONSUMER` or `INTERNAL`.
    pub kind: &'static str,
    /// The trace, in hexadecimal.
    pub trace: String,
    /// Its id, in hexadecimal.
    pub span: String,
    /// The id of its parent; empty if it has none.
    pub parent: String,
    /// The ids of spans that it is linked to.
    pub links: Vec<String>,
    /// What it says of itself.
    pub attributes: BTreeMap<String, String>,
    /// The names of what happened meanwhile.
    pub events: Vec<String>,
    /// Whether it failed.
    pub failed: bool,
    /// When it began and ended, in nanoseconds.
    pub time: (u64, u64),
}

// === impl Collector ===

impl Collector {
    /// Starts it.
    ///
    /// # Errors
    /// No port is free.
    pub fn start() -> anyhow::Result<Self> {
        Self::over("http", None)
    }

    /// The same over TLS.
    ///
    /// # Errors
    /// No port is free, or the files that `tls` names cannot be used.
    pub fn over_tls(tls: &tls::Settings) -> anyhow::Result<Self> {
        Self::over("https", tls::Acceptor::new(tls)?)
    }

    #[expect(clippy::disallowed_methods, reason = "ends with the runtime of the test")]
    fn over(scheme: &'static str, tls: Option<tls::Acceptor>) -> anyhow::Result<Self> {
        let bound = Bound::free()?.listen;
        let port = bound.local_addr()?.port();
        let collector = Self { port, scheme, heap: Arc::default() };
        let heap = Arc::clone(&collector.heap);
        let service = service_fn(move |request: Request<Incoming>| {
            let heap = Arc::clone(&heap);
            async move { Ok::<_, Infallible>(heap.take(request).await) }
        });
        let listener = Arc::new(Listener::new(bound, Settings::default(), tls)?);
        tokio::spawn(listener.serve(Wire::Http, service));
        Ok(collector)
    }

    /// For `--otlp-endpoint`.
    #[must_use]
    pub fn endpoint(&self) -> String {
        format!("{}://127.0.0.1:{}", self.scheme, self.port)
    }

    /// What came so far.
    #[must_use]
    pub fn seen(&self) -> Vec<Seen> {
        self.heap.spans.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// What came, once that is enough.
    ///
    /// # Errors
    /// It is not enough after a minute: shows what there is.
    pub async fn once(&self, enough: impl Fn(&[Seen]) -> bool) -> anyhow::Result<Vec<Seen>> {
        let comes = async {
            loop {
                let came = self.heap.came.notified();
                tokio::pin!(came);
                came.as_mut().enable();
                let seen = self.seen();
                if enough(&seen) {
                    return seen;
                }
                came.await;
            }
        };
        let came = tokio::time::timeout(PATIENCE, comes).await;
        came.map_err(|_late| anyhow::anyhow!("not enough came:\n{}", drawn(&self.seen())))
    }
}

// === impl Heap ===

impl Heap {
    async fn take(&self, request: Request<Incoming>) -> Response<Body> {
        let (head, body) = request.into_parts();
        let right = head.uri.path() == "/v1/traces"
            && head.headers.get("content-type").is_some_and(|it| it == "application/x-protobuf");
        let body = body.collect().await.map(http_body_util::Collected::to_bytes);
        let told = body.ok().and_then(|body| ExportTraceServiceRequest::decode(body).ok());
        let mut response = Response::new(Body::new(Full::default()));
        let (true, Some(told)) = (right, told) else {
            *response.status_mut() = StatusCode::BAD_REQUEST;
            return response;
        };
        let mut came = Vec::new();
        for of_one in told.resource_spans {
            let resource = of_one.resource.map(|it| said(it.attributes)).unwrap_or_default();
            let spans = of_one.scope_spans.into_iter().flat_map(|scope| scope.spans);
            came.extend(spans.map(|span| Seen::of(&resource, span)));
        }
        self.spans.lock().unwrap_or_else(PoisonError::into_inner).extend(came);
        self.came.notify_waiters();
        response
    }
}

// === impl Seen ===

impl Seen {
    fn of(resource: &BTreeMap<String, String>, span: Span) -> Self {
        let mut resource = resource.clone();
        Self {
            service: resource.remove("service.name").unwrap_or_default(),
            resource,
            kind: match span.kind() {
                SpanKind::Unspecified => "",
                SpanKind::Internal => "INTERNAL",
                SpanKind::Server => "SERVER",
                SpanKind::Client => "CLIENT",
                SpanKind::Producer => "PRODUCER",
                SpanKind::Consumer => "CONSUMER",
            },
            trace: hex(&span.trace_id),
            span: hex(&span.span_id),
            parent: hex(&span.parent_span_id),
            links: span.links.iter().map(|link| hex(&link.span_id)).collect(),
            attributes: said(span.attributes),
            events: span.events.into_iter().map(|event| event.name).collect(),
            failed: span.status.is_some_and(|status| status.code == 2),
            time: (span.start_time_unix_nano, span.end_time_unix_nano),
            name: span.name,
        }
    }

    /// What it says of this; empty if nothing.
    #[must_use]
    pub fn says(&self, name: &str) -> &str {
        self.attributes.get(name).map_or("", String::as_str)
    }
}

/// Spans as trees, as a person reads them: what has no parent among them stands at the left.
#[must_use]
pub fn drawn(spans: &[Seen]) -> String {
    fn below(spans: &[Seen], parent: &str, depth: usize, text: &mut String) {
        let mut children: Vec<_> = spans.iter().filter(|it| it.parent == parent).collect();
        children.sort_by_key(|it| it.time);
        for Seen { service, name, kind, span, failed, .. } in children {
            let failed = if *failed { " FAILED" } else { "" };
            // Writing into a string cannot fail.
            let _written =
                writeln!(text, "{:1$}{kind} {service}: {name}{failed}", "", depth * 2).is_ok();
            below(spans, span, depth + 1, text);
        }
    }
    let known: HashSet<_> = spans.iter().map(|it| it.span.as_str()).collect();
    let roots: HashSet<_> =
        spans.iter().map(|it| it.parent.as_str()).filter(|it| !known.contains(it)).collect();
    let mut text = String::new();
    for root in roots {
        below(spans, root, 0, &mut text);
    }
    text
}

fn said(attributes: Vec<KeyValue>) -> BTreeMap<String, String> {
    let text = |value: Option<AnyValue>| match value.and_then(|value| value.value) {
        Some(Value::StringValue(text)) => text,
        Some(Value::IntValue(number)) => number.to_string(),
        Some(other) => format!("{other:?}"),
        None => String::new(),
    };
    attributes.into_iter().map(|one| (one.key, text(one.value))).collect()
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
