//! What the gateway refuses: one enum and one table, which says code, reason, HTTP status,
//! details and headers. The only place that makes a failing answer of our own.

use std::{collections::BTreeSet, time::Duration};

use http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header};
use prost::Message;
use prost_types::Any;
use proto::gateway::v1::Reason;
use tonic::Code;
use tonic_types::pb;

/// The domain of the gateway's own reasons.
pub const DOMAIN: &str = "ordermesh.gateway.v1";

/// The gateway did not pass a request on, or cannot pass on what came back.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// S14: no rpc has this path.
    #[error("nothing is served at this path")]
    RouteNotFound,
    /// S13: the path has other methods.
    #[error("this path does not take {method}, it takes: {}", list(allow))]
    MethodNotAllowed {
        /// What was asked for.
        method: String,
        /// What is there.
        allow: BTreeSet<String>,
    },
    /// S13: not a method of HTTP.
    #[error("{0} is not a method that is served here")]
    MethodUnknown(String),
    /// S5.
    #[error("the path cannot be read at byte {at}: {problem}")]
    MalformedPath {
        /// Where.
        at: usize,
        /// What is wrong there.
        problem: &'static str,
    },
    /// S48.
    #[error("the header {header} cannot be read: {problem}")]
    MalformedHeader {
        /// Its name.
        header: String,
        /// What would be right.
        problem: &'static str,
    },
    /// S49.
    #[error("the header {header} cannot be read: {problem}")]
    MalformedTimeout {
        /// Its name.
        header: &'static str,
        /// What would be right.
        problem: &'static str,
    },
    /// S30: the body is not JSON.
    #[error("the body is not JSON at byte {at}: {problem}")]
    MalformedJson {
        /// Where reading stopped.
        at: usize,
        /// The field that was being read; empty at the top.
        field: String,
        /// What is wrong there.
        problem: &'static str,
    },
    /// A field is unknown or has an impossible value.
    #[error("{}", sentence(.0))]
    Field(Violation),
    /// S16 to S18, S28, S52: a field came twice, or from where it may not come from.
    #[error("{}", sentence(.0))]
    Conflict(Violation),
    /// S52.
    #[error("{header} cannot be kept by this call: {problem}")]
    PreconditionUnsupported {
        /// Its name.
        header: &'static str,
        /// Why not.
        problem: &'static str,
    },
    /// S40.
    #[error("the body must be application/json in UTF-8")]
    MediaType,
    /// S40.
    #[error("the body must come without a Content-Encoding")]
    Encoding,
    /// S40.
    #[error("the reply would be {0}, which Accept does not allow")]
    NotAcceptable(&'static str),
    /// No token came, and the rpc needs one.
    #[error("a token is needed: `Authorization: Bearer …`")]
    TokenMissing,
    /// It is not a token of ours.
    #[error("the token is not valid")]
    TokenInvalid,
    /// It was one.
    #[error("the token has expired")]
    TokenExpired,
    /// It cannot be checked now.
    #[error("tokens cannot be checked at the moment, try again in a second")]
    KeysUnavailable,
    /// Too many requests.
    #[error(
        "more than {limit} requests in {} s from one address without a valid token (rule \
         `{rule}`); the next one is admitted in {} s",
        window.as_secs(),
        seconds(*retry_after)
    )]
    RateLimited {
        /// The rule's pattern.
        rule: String,
        /// How many it admits.
        limit: u32,
        /// In which time.
        window: Duration,
        /// When the next one is admitted.
        retry_after: Duration,
        /// Whose requests are counted.
        subject: String,
    },
    /// The body is too large.
    #[error("the body is larger than {limit} bytes")]
    BodyTooLarge {
        /// The most that may come.
        limit: usize,
    },
    /// The path with its query is too long.
    #[error("the request line is longer than {limit} bytes")]
    UriTooLong {
        /// The most that may come.
        limit: usize,
    },
    /// The headers are too many or too large.
    #[error("the headers are more than {fields} or larger than {limit} bytes")]
    HeadersTooLarge {
        /// The most bytes that may come.
        limit: usize,
        /// The most fields that may come.
        fields: usize,
    },
    /// The body did not come in time.
    #[error("the body did not come before the deadline")]
    TooSlow,
    /// The upstream did not answer in time.
    #[error("no answer came before the deadline")]
    Deadline,
    /// The process leaves before the stream has ended.
    #[error("this gateway is leaving: begin the stream again where it ended")]
    Draining,
    /// The upstream's answer breaks its contract.
    #[error("the service's answer cannot be passed on: {0}")]
    UpstreamMalformed(&'static str),
    /// The upstream's answer is too large.
    #[error("the service's answer is larger than {limit} bytes")]
    ReplyTooLarge {
        /// The most that is passed on.
        limit: usize,
    },
}

/// A field of the request, and what is wrong with it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Violation {
    /// Its path from the request, in proto names: `note.lines[0].quantity`.
    pub field: String,
    /// What would be right.
    pub problem: String,
}

/// A failing answer, of ours or of an upstream, before it has a shape.
#[derive(Clone, Debug, PartialEq)]
pub struct Failure {
    /// The canonical code.
    pub code: Code,
    /// The HTTP status.
    pub http: StatusCode,
    /// A sentence for whoever called.
    pub message: String,
    /// The details of `google.rpc.Status`.
    pub details: Vec<Any>,
    /// Headers that go with it.
    pub headers: HeaderMap,
}

// === impl Error ===

impl Error {
    /// A field is unknown or has an impossible value.
    pub fn field(field: impl Into<String>, problem: impl Into<String>) -> Self {
        Self::Field(Violation { field: field.into(), problem: problem.into() })
    }

    /// A field came twice, or from where it may not come from.
    pub fn conflict(field: impl Into<String>, problem: impl Into<String>) -> Self {
        Self::Conflict(Violation { field: field.into(), problem: problem.into() })
    }

    /// The table: HTTP status, code and reason.
    #[must_use]
    pub fn row(&self) -> (StatusCode, Code, Reason) {
        use Code::{DeadlineExceeded, Internal, InvalidArgument, NotFound, ResourceExhausted};
        use Code::{Unauthenticated, Unavailable, Unimplemented};
        let (status, code, reason) = match self {
            Self::RouteNotFound => (404, NotFound, Reason::RouteNotFound),
            Self::MethodNotAllowed { .. } => (405, Unimplemented, Reason::MethodNotAllowed),
            Self::MethodUnknown(_) => (501, Unimplemented, Reason::MethodUnknown),
            Self::MalformedPath { .. } => (400, InvalidArgument, Reason::MalformedPath),
            Self::MalformedHeader { .. } => (400, InvalidArgument, Reason::MalformedHeader),
            Self::MalformedTimeout { .. } => (400, InvalidArgument, Reason::MalformedTimeout),
            Self::MalformedJson { .. } => (400, InvalidArgument, Reason::MalformedJson),
            Self::Field(_) => (400, InvalidArgument, Reason::FieldViolation),
            Self::Conflict(_) => (400, InvalidArgument, Reason::BindingConflict),
            Self::PreconditionUnsupported { .. } => {
                (400, InvalidArgument, Reason::PreconditionUnsupported)
            }
            Self::MediaType | Self::Encoding => {
                (415, InvalidArgument, Reason::UnsupportedMediaType)
            }
            Self::NotAcceptable(_) => (406, InvalidArgument, Reason::NotAcceptable),
            Self::TokenMissing => (401, Unauthenticated, Reason::TokenMissing),
            Self::TokenInvalid => (401, Unauthenticated, Reason::TokenInvalid),
            Self::TokenExpired => (401, Unauthenticated, Reason::TokenExpired),
            Self::KeysUnavailable => (503, Unavailable, Reason::KeysUnavailable),
            Self::RateLimited { .. } => (429, ResourceExhausted, Reason::RateLimited),
            Self::BodyTooLarge { .. } => (413, ResourceExhausted, Reason::BodyTooLarge),
            Self::UriTooLong { .. } => (414, ResourceExhausted, Reason::UriTooLong),
            Self::HeadersTooLarge { .. } => (431, ResourceExhausted, Reason::HeadersTooLarge),
            Self::TooSlow => (408, DeadlineExceeded, Reason::RequestTooSlow),
            Self::Deadline => (504, DeadlineExceeded, Reason::Deadline),
            Self::Draining => (503, Unavailable, Reason::Draining),
            Self::UpstreamMalformed(_) => (502, Internal, Reason::UpstreamMalformed),
            Self::ReplyTooLarge { .. } => (502, Internal, Reason::UpstreamReplyTooLarge),
        };
        (StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR), code, reason)
    }

    /// Facts for `ErrorInfo.metadata`.
    fn metadata(&self) -> Vec<(&'static str, String)> {
        match self {
            Self::MalformedHeader { header, .. } => vec![("header", header.clone())],
            Self::MalformedTimeout { header, .. }
            | Self::PreconditionUnsupported { header, .. } => {
                vec![("header", (*header).to_owned())]
            }
            Self::MalformedJson { at, .. } | Self::MalformedPath { at, .. } => {
                vec![("offset", at.to_string())]
            }
            Self::RateLimited { rule, .. } => vec![("rule", rule.clone())],
            Self::BodyTooLarge { limit }
            | Self::UriTooLong { limit }
            | Self::ReplyTooLarge { limit } => vec![("limit_bytes", limit.to_string())],
            Self::HeadersTooLarge { limit, fields } => {
                vec![("limit_bytes", limit.to_string()), ("limit_fields", fields.to_string())]
            }
            Self::RouteNotFound
            | Self::MethodNotAllowed { .. }
            | Self::MethodUnknown(_)
            | Self::Field(_)
            | Self::Conflict(_)
            | Self::MediaType
            | Self::Encoding
            | Self::NotAcceptable(_)
            | Self::TokenMissing
            | Self::TokenInvalid
            | Self::TokenExpired
            | Self::KeysUnavailable
            | Self::TooSlow
            | Self::Deadline
            | Self::Draining
            | Self::UpstreamMalformed(_) => Vec::new(),
        }
    }

    /// The typed details beside `ErrorInfo`.
    fn details(&self) -> Vec<Any> {
        let mut details = Vec::new();
        if let Some(Violation { field, problem }) = self.violation() {
            let violation = pb::bad_request::FieldViolation {
                field,
                description: problem,
                ..pb::bad_request::FieldViolation::default()
            };
            details.push(detail(
                "google.rpc.BadRequest",
                &pb::BadRequest { field_violations: vec![violation] },
            ));
        }
        if let Self::RateLimited { subject, .. } = self {
            let violation = pb::quota_failure::Violation {
                subject: subject.clone(),
                description: self.to_string(),
                ..pb::quota_failure::Violation::default()
            };
            details.push(detail(
                "google.rpc.QuotaFailure",
                &pb::QuotaFailure { violations: vec![violation] },
            ));
        }
        if let Some(after) = self.retry_after() {
            let retry_delay = prost_types::Duration::try_from(after).ok();
            details.push(detail("google.rpc.RetryInfo", &pb::RetryInfo { retry_delay }));
        }
        details
    }

    /// The field that is to blame, if one is.
    fn violation(&self) -> Option<Violation> {
        if let Self::Field(violation) | Self::Conflict(violation) = self {
            Some(violation.clone())
        } else if let Self::MalformedJson { field, .. } = self {
            Some(Violation { field: field.clone(), problem: self.to_string() })
        } else {
            None
        }
    }

    fn retry_after(&self) -> Option<Duration> {
        if let Self::RateLimited { retry_after, .. } = self {
            Some(*retry_after)
        } else {
            matches!(self, Self::KeysUnavailable | Self::Draining).then_some(Duration::from_secs(1))
        }
    }

    /// The headers that HTTP wants beside the status.
    fn headers(&self) -> HeaderMap {
        let mut headers = HeaderMap::new();
        let mut set = |name: HeaderName, value: String| {
            if let Ok(value) = HeaderValue::try_from(value) {
                headers.insert(name, value);
            }
        };
        if let Self::MethodNotAllowed { allow, .. } = self {
            set(header::ALLOW, list(allow));
        } else if *self == Self::MediaType {
            set(HeaderName::from_static("accept-post"), "application/json".to_owned());
        } else if *self == Self::Encoding {
            set(header::ACCEPT_ENCODING, "identity".to_owned());
        } else if *self == Self::TokenMissing {
            set(header::WWW_AUTHENTICATE, challenge(None));
        } else if matches!(self, Self::TokenInvalid | Self::TokenExpired) {
            set(header::WWW_AUTHENTICATE, challenge(Some(&self.to_string())));
        }
        if let Some(after) = self.retry_after() {
            set(header::RETRY_AFTER, seconds(after).to_string());
        }
        headers
    }
}

// === impl Failure ===

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        let (http, code, reason) = error.row();
        let info = pb::ErrorInfo {
            reason: reason.as_str_name().to_owned(),
            domain: DOMAIN.to_owned(),
            metadata: error
                .metadata()
                .into_iter()
                .map(|(key, value)| (key.to_owned(), value))
                .collect(),
        };
        let mut details = vec![detail("google.rpc.ErrorInfo", &info)];
        details.extend(error.details());
        Self { code, http, message: error.to_string(), details, headers: error.headers() }
    }
}

/// The challenge of a 401 (RFC 6750). Our sentences have no character that needs quoting.
#[must_use]
pub fn challenge(problem: Option<&str>) -> String {
    match problem {
        None => r#"Bearer realm="ordermesh""#.to_owned(),
        Some(problem) => format!(
            r#"Bearer realm="ordermesh", error="invalid_token", error_description="{problem}""#
        ),
    }
}

/// Whole seconds, rounded up, at least one: a client that waits as told is admitted.
#[must_use]
pub fn seconds(duration: Duration) -> u64 {
    (duration.as_secs() + u64::from(duration.subsec_nanos() > 0)).max(1)
}

fn detail(name: &str, message: &impl Message) -> Any {
    Any { type_url: format!("type.googleapis.com/{name}"), value: message.encode_to_vec() }
}

fn sentence(violation: &Violation) -> String {
    format!("{}: {}", violation.field, violation.problem)
}

fn list(methods: &BTreeSet<String>) -> String {
    methods.iter().map(String::as_str).collect::<Vec<_>>().join(", ")
}
