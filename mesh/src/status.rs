//! What a caller is told: one enum of errors and one table per service become one `Status`.
//!
//! A `Status` that fails carries a canonical code, `google.rpc.ErrorInfo` with a reason of the
//! contract, and the typed details of AIP-193. What is `INTERNAL` is logged here, once, with
//! its causes, and leaves as the two words "internal error".

use std::{collections::HashMap, error::Error, fmt::Write as _, time::Duration};

use tonic::{Code, Status};
use tonic_types::{ErrorDetails, StatusExt as _};

use crate::{auth::Denied, marks};

/// The domain of the reasons that mesh itself gives.
pub const DOMAIN: &str = "ordermesh.mesh.v1";

/// An error that has a row in its service's table.
pub trait Explain: Error + 'static {
    /// The domain of the reasons: the package of the contract, as `ordermesh.orders.v1`.
    const DOMAIN: &'static str;

    /// The row: code, reason and details.
    fn explain(&self) -> Explanation;
}

/// A row of a table of errors. Made by [`tell`].
#[derive(Clone, Debug)]
#[must_use]
pub struct Explanation {
    code: Code,
    reason: &'static str,
    metadata: HashMap<String, String>,
    details: ErrorDetails,
}

/// A failure of the mesh itself: no business rule was asked.
#[derive(Debug, thiserror::Error)]
pub enum Failure {
    /// The deadline passed.
    #[error("deadline passed")]
    Deadline,
    /// `grpc-timeout` cannot be read.
    #[error("{0}")]
    Timeout(#[from] crate::deadline::Malformed),
    /// No instance of the callee can be reached.
    #[error("no instance of {0} can be reached")]
    Down(String),
    /// As many calls to the callee are under way as may be.
    #[error("too many calls to {0} are under way")]
    Full(String),
    /// The callee refuses calls because it has too much to do; this one was not sent to it.
    #[error("{0} has too much to do")]
    Throttled(String),
    /// The callee fails, and is not called for a while.
    #[error("{callee} fails and is left alone for now")]
    CircuitOpen {
        /// Who.
        callee: String,
        /// When it may be called again.
        after: Duration,
    },
    /// The connection broke after the call was sent: it may have been carried out.
    #[error("the connection to {0} broke")]
    Broken(String),
    /// The handler panicked.
    #[error("the handler of {0} panicked")]
    Panic(String),
    /// The handler of an rpc with an owner rule answered without asking for the owner.
    #[error("{0} answered without comparing the owner")]
    Duty(String),
    /// Nobody may call this rpc, or not this caller.
    #[error(transparent)]
    Denied(#[from] crate::auth::Denied),
    /// The token is missing or wrong.
    #[error("{0}")]
    Token(#[from] crate::auth::TokenProblem),
    /// Less time is left than the handler needs.
    #[error("{left_ms} ms are left, and {method} takes {needs_ms} ms")]
    Budget {
        /// `package.Service/Method`.
        method: String,
        /// What the caller gave.
        left_ms: u128,
        /// What it takes.
        needs_ms: u128,
    },
    /// More is asked than can be done; come again later.
    #[error("more is asked of this process than it can do")]
    Shed(Duration),
    /// As many calls of this method are served as may be.
    #[error("{0} serves as many calls as it may")]
    Bulkhead(String),
    /// The process leaves; another one goes on.
    #[error("this process is leaving")]
    Draining,
    /// An answer is larger than a caller takes.
    #[error("the answer has {0} bytes, more than a message may have")]
    TooLarge(usize),
    /// A service shows another certificate than its own.
    #[error("the certificate is not that of {0}")]
    Certificate(String),
    /// A name that health or another mesh service does not know.
    #[error("{0} is not a service of this process")]
    UnknownService(String),
}

// === impl Failure ===

impl Explain for Failure {
    const DOMAIN: &'static str = DOMAIN;

    fn explain(&self) -> Explanation {
        use crate::auth::TokenProblem;
        match self {
            Self::Deadline => tell(Code::DeadlineExceeded, "DEADLINE_EXCEEDED"),
            Self::Timeout(_) => tell(Code::InvalidArgument, "FIELD_VIOLATION")
                .violation("grpc-timeout", self.to_string()),
            Self::Down(callee) => {
                tell(Code::Unavailable, "DEPENDENCY_DOWN").with("dependency", callee)
            }
            Self::Full(callee) => {
                tell(Code::ResourceExhausted, "BULKHEAD_FULL").with("dependency", callee)
            }
            Self::Throttled(callee) => {
                tell(Code::ResourceExhausted, "LOAD_SHED").with("dependency", callee)
            }
            Self::CircuitOpen { callee, after } => tell(Code::Unavailable, "CIRCUIT_OPEN")
                .with("dependency", callee)
                .retry_after(*after),
            Self::Broken(callee) => {
                tell(Code::Unavailable, "CONNECTION_LOST").with("dependency", callee)
            }
            Self::Panic(_) | Self::Duty(_) => tell(Code::Internal, "INTERNAL"),
            Self::Denied(Denied::NoMethod) => tell(Code::Unimplemented, "RPC_UNKNOWN"),
            Self::Denied(_) => tell(Code::PermissionDenied, "PERMISSION_DENIED"),
            Self::Token(TokenProblem::KeysUnavailable) => {
                tell(Code::Unavailable, "DEPENDENCY_DOWN")
                    .with("dependency", "the issuer of tokens")
            }
            Self::Token(TokenProblem::Expired) => tell(Code::Unauthenticated, "TOKEN_EXPIRED"),
            Self::Token(
                TokenProblem::Missing | TokenProblem::Malformed | TokenProblem::Invalid,
            ) => tell(Code::Unauthenticated, "UNAUTHENTICATED"),
            Self::Budget { .. } => tell(Code::DeadlineExceeded, "DEADLINE_EXCEEDED"),
            Self::Shed(pushback) => {
                tell(Code::ResourceExhausted, "LOAD_SHED").retry_after(*pushback)
            }
            Self::Bulkhead(method) => {
                tell(Code::ResourceExhausted, "BULKHEAD_FULL").with("method", method)
            }
            Self::Draining => tell(Code::Unavailable, "DRAINING"),
            Self::TooLarge(_) => tell(Code::ResourceExhausted, "MESSAGE_TOO_LARGE"),
            Self::Certificate(_) => tell(Code::Unauthenticated, "CERTIFICATE_MISMATCH"),
            Self::UnknownService(name) => tell(Code::NotFound, "NOT_FOUND").with("name", name),
        }
    }
}

impl From<Failure> for Status {
    fn from(failure: Failure) -> Self {
        of(&failure)
    }
}

// === impl Explanation ===

impl Explanation {
    /// Adds a fact to `ErrorInfo.metadata`.
    pub fn with(mut self, key: impl Into<String>, value: impl ToString) -> Self {
        self.metadata.insert(key.into(), value.to_string());
        self
    }

    /// Names a field that is wrong (`BadRequest`): its path in the request, and what would be right.
    pub fn violation(mut self, field: impl Into<String>, problem: impl Into<String>) -> Self {
        self.details.add_bad_request_violation(field, problem);
        self
    }

    /// Names a condition that does not hold (`PreconditionFailure`).
    pub fn precondition(
        mut self,
        kind: impl Into<String>,
        subject: impl Into<String>,
        description: impl Into<String>,
    ) -> Self {
        self.details.add_precondition_failure_violation(kind, subject, description);
        self
    }

    /// Names a quota that is used up (`QuotaFailure`).
    pub fn quota(mut self, subject: impl Into<String>, description: impl Into<String>) -> Self {
        self.details.add_quota_failure_violation(subject, description);
        self
    }

    /// Says when to come again (`RetryInfo`).
    pub fn retry_after(mut self, delay: Duration) -> Self {
        self.details.set_retry_info(Some(delay));
        self
    }

    /// The reason of this row.
    #[must_use]
    pub fn reason(&self) -> &'static str {
        self.reason
    }

    /// The code of this row.
    #[must_use]
    pub fn code(&self) -> Code {
        self.code
    }
}

/// Begins a row: a canonical code, and a value of the contract's enum of reasons.
pub fn tell(code: Code, reason: &'static str) -> Explanation {
    Explanation { code, reason, metadata: HashMap::new(), details: ErrorDetails::new() }
}

/// The one way from an error to a `Status`.
pub fn of<E: Explain>(error: &E) -> Status {
    let Explanation { code, reason, metadata, mut details } = error.explain();
    if code == Code::Internal && crate::store::is_away(error) {
        tracing::warn!("{}", with_causes(error));
        return of(&Failure::Down("its database".to_owned()));
    }
    details.set_error_info(reason, E::DOMAIN, metadata);
    if code == Code::Internal {
        tracing::error!(reason, "{}", with_causes(error));
        return Status::with_error_details(code, "internal error", details);
    }
    Status::with_error_details(code, error.to_string(), details)
}

/// The same for a failure that happened before anything was sent.
pub(crate) fn local(failure: &Failure) -> Status {
    let mut status = of(failure);
    status.metadata_mut().insert(marks::LOCAL, tonic::metadata::MetadataValue::from_static("1"));
    status
}

/// Says, within this process, which dependency a failure came from.
pub(crate) fn from(status: &mut Status, dependency: &str) {
    if let Ok(value) = dependency.parse() {
        status.metadata_mut().insert(marks::DEPENDENCY, value);
    }
}

/// The same for a call that a server refuses before its handler runs.
pub(crate) fn refused(failure: &Failure) -> Status {
    let mut status = of(failure);
    let metadata = status.metadata_mut();
    match failure {
        Failure::Budget { .. } => {
            metadata
                .insert(marks::REFUSED, tonic::metadata::MetadataValue::from_static(marks::BUDGET));
        }
        Failure::Shed(pushback) => {
            metadata.insert(marks::REFUSED, tonic::metadata::MetadataValue::from_static("load"));
            let pushback = u64::try_from(pushback.as_millis()).unwrap_or(u64::MAX);
            metadata.insert(marks::PUSHBACK, pushback.into());
        }
        Failure::Bulkhead(_) => {
            metadata
                .insert(marks::REFUSED, tonic::metadata::MetadataValue::from_static("bulkhead"));
        }
        Failure::Deadline
        | Failure::Timeout(_)
        | Failure::Full(_)
        | Failure::Throttled(_)
        | Failure::CircuitOpen { .. }
        | Failure::Down(_)
        | Failure::Broken(_)
        | Failure::Panic(_)
        | Failure::Duty(_)
        | Failure::Denied(_)
        | Failure::Token(_)
        | Failure::Draining
        | Failure::TooLarge(_)
        | Failure::Certificate(_)
        | Failure::UnknownService(_) => {}
    }
    status
}

/// Reason, domain and metadata of a failure, if its sender gave them.
#[must_use]
pub fn reason(status: &Status) -> Option<tonic_types::ErrorInfo> {
    status.get_details_error_info()
}

/// An error and what caused it, in one line.
pub fn with_causes(error: &(dyn Error + 'static)) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        // A line of a log cannot be left half written.
        let _written = write!(text, ": {error}").is_ok();
        cause = error.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, thiserror::Error)]
    enum Sample {
        #[error("SKU-1 has 2 left, 3 wanted")]
        Short,
        #[error("cannot read the order")]
        Database(#[source] std::io::Error),
    }

    impl Explain for Sample {
        const DOMAIN: &'static str = "ordermesh.sample.v1";

        fn explain(&self) -> Explanation {
            match self {
                Self::Short => tell(Code::FailedPrecondition, "OUT_OF_STOCK")
                    .with("sku", "SKU-1")
                    .retry_after(Duration::from_secs(3)),
                Self::Database(_) => tell(Code::Internal, "INTERNAL"),
            }
        }
    }

    #[test]
    fn a_refusal_says_code_reason_and_facts() {
        let status = of(&Sample::Short);
        assert_eq!(status.code(), Code::FailedPrecondition);
        assert_eq!(status.message(), "SKU-1 has 2 left, 3 wanted");
        let info = reason(&status).expect("a reason");
        assert_eq!(
            (info.reason.as_str(), info.domain.as_str()),
            ("OUT_OF_STOCK", "ordermesh.sample.v1")
        );
        assert_eq!(info.metadata["sku"], "SKU-1");
        let retry = status.get_details_retry_info().expect("retry info");
        assert_eq!(retry.retry_delay, Some(Duration::from_secs(3)));
    }

    #[test]
    fn internal_errors_keep_their_reason_but_not_their_words() {
        let error = Sample::Database(std::io::Error::other("disk full"));
        let status = of(&error);
        assert_eq!((status.code(), status.message()), (Code::Internal, "internal error"));
        assert_eq!(reason(&status).expect("a reason").reason, "INTERNAL");
        assert_eq!(with_causes(&error), "cannot read the order: disk full");
    }
}
