//! What is said about every request: one line and two metrics. Neither has a path, a query or a
//! token in it: the route's template says what was called.

use http::{Method, StatusCode};
use mesh::telemetry::{Answer, Request, metrics, names};
use tokio::time::Instant;

/// Records a request that was answered. `route` is empty if none was found.
pub fn answered(method: &Method, route: &str, status: StatusCode, started: Instant, trace: &str) {
    let took = mesh::clock::instant().saturating_duration_since(started);
    let method = match method.as_str() {
        known @ ("GET" | "HEAD" | "POST" | "PUT" | "PATCH" | "DELETE" | "OPTIONS" | "TRACE"
        | "CONNECT") => known,
        _ => names::OTHER,
    };
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
