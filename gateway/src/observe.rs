//! What is said about every request: one line and two metrics. Neither has a path, a query or a
//! token in it: the route's template says what was called.

use http::{Method, StatusCode};
use mesh::telemetry::{Answer, Request, Span, code, metrics, names};
use tokio::time::Instant;
use tonic::Code;

/// What is said of a stream once it has ended; said when it is dropped.
#[derive(Debug)]
pub struct Line {
    /// Of the request.
    pub method: Method,
    /// The template of the path.
    pub route: String,
    /// When the request came.
    pub started: Instant,
    /// The trace of the request.
    pub trace: String,
    /// Its span.
    pub span: Span,
    /// How many were passed on.
    pub messages: u64,
    /// How it ended. Its HTTP status was 200 long before.
    pub code: Code,
}

/// Records a request that was answered. `route` is empty if none was found.
pub fn answered(method: &Method, route: &str, status: StatusCode, started: Instant, trace: &str) {
    let took = mesh::clock::instant().saturating_duration_since(started);
    let method = known(method);
    let labels = Request {
        http_request_method: method.to_owned(),
        http_route: route.to_owned(),
        http_response_status_code: status.as_u16(),
    };
    metrics().http_requests.get_or_create(&labels).observe(took.as_secs_f64());
    if status.as_u16() >= 400 {
        metrics().http_errors.get_or_create(&Answer { status: status.as_u16() }).inc();
    }
    let (status, duration_ms) = (status.as_u16(), took.as_secs_f64() * 1_000.0);
    tracing::info!(
        method,
        route,
        status,
        duration_ms,
        trace_id = trace,
        "{method} {route} {status}"
    );
}

// === impl Line ===

impl Line {
    /// The line of a stream that begins. Unless its end says another code, it ended at its
    /// deadline.
    #[must_use]
    pub fn new(method: Method, route: String, started: Instant, trace: String, span: Span) -> Self {
        Self { method, route, started, trace, span, messages: 0, code: Code::DeadlineExceeded }
    }
}

impl Drop for Line {
    fn drop(&mut self) {
        let took = mesh::clock::instant().saturating_duration_since(self.started);
        let (method, status) = (known(&self.method), StatusCode::OK.as_u16());
        let labels = Request {
            http_request_method: method.to_owned(),
            http_route: self.route.clone(),
            http_response_status_code: status,
        };
        metrics().http_requests.get_or_create(&labels).observe(took.as_secs_f64());
        let (route, code) = (&self.route, code(self.code));
        self.span.set(names::span::RPC_STATUS, code);
        self.span.routed(method, route, status);
        tracing::info!(
            method,
            route,
            status,
            code,
            messages = self.messages,
            duration_ms = took.as_secs_f64() * 1_000.0,
            trace_id = self.trace,
            "{method} {route} {status}, {code} after {} messages",
            self.messages
        );
    }
}

/// The method as a label: whatever a client makes up must not make a series of its own.
pub fn known(method: &Method) -> &str {
    match method.as_str() {
        known @ ("GET" | "HEAD" | "POST" | "PUT" | "PATCH" | "DELETE" | "OPTIONS" | "TRACE"
        | "CONNECT") => known,
        _ => names::OTHER,
    }
}
