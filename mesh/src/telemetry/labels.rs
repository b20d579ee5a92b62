//! The labels of metrics. Their names are those of the OpenTelemetry semantic conventions where there are
//! such.

use prometheus_client::encoding::EncodeLabelSet;

/// The label of a consumer's progress.
#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
pub struct Source {
    /// Whose log is read.
    pub source: String,
}

/// The labels of an event that came.
#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
pub struct Taken {
    /// Whose log it came from.
    pub source: String,
    /// `done`, `parked`, or `failed` for a try that is repeated.
    pub outcome: &'static str,
}

/// The label of a consumer's dead letters.
#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
pub struct Consumer {
    /// Who could not take them in.
    pub consumer: String,
}

/// The labels of a call.
#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
pub struct Call {
    /// `package.Service/Method`, or `_OTHER` for a method that does not exist.
    pub rpc_method: String,
    /// The name of the status code, such as `OK`.
    pub rpc_response_status_code: &'static str,
}

/// The label of what concerns a dependency as a whole.
#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
pub struct Dependency {
    /// Its name.
    pub dependency: String,
}

/// The labels of a breaker.
#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
pub struct Breaker {
    /// The dependency, with the part of its calls that is kept apart, as `users/views`.
    pub dependency: String,
    /// `package.Service/Method`; empty for the breaker of all methods with few calls.
    pub method: String,
}

/// The labels of a call that was refused before anything was sent.
#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
pub struct Refused {
    /// The dependency.
    pub dependency: String,
    /// Why, as `ErrorInfo.reason` says it.
    pub reason: &'static str,
}

/// The label of a call that was shed.
#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
pub struct Refusal {
    /// `budget`, `load` or `bulkhead`.
    pub why: &'static str,
}

/// The labels of an HTTP request.
#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
pub struct Request {
    /// The request method, or `_OTHER`.
    pub http_request_method: String,
    /// The template of the route, never the path itself; empty if none matched.
    pub http_route: String,
    /// The status.
    pub http_response_status_code: u16,
}

/// The label of a failed HTTP answer.
#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
pub struct Answer {
    /// The status.
    pub status: u16,
}
