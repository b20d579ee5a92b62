//! What can go wrong, and what callers are told: one enum, one table.

use std::{fmt::Write as _, time::Duration};

use mesh::{
    auth::Denied,
    idempotency::Refused,
    resource,
    status::{self, Explain, Explanation, tell},
    store::Failure,
};
use proto::orders::v1::Reason;
use sea_orm::DbErr;
use tonic::{Code, Status};

use crate::{
    domain::{Offer, Refusal},
    store::WriteError,
};

/// What went wrong with a call.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Fields of the request are wrong.
    #[error("{}", summary(.0))]
    Malformed(Vec<Violation>),
    /// A rule said no.
    #[error(transparent)]
    Refused(#[from] Refusal),
    /// The caller may not see it.
    #[error(transparent)]
    Denied(#[from] Denied),
    /// There is no such order, and the caller may know that.
    #[error("{0} does not exist")]
    NotFound(String),
    /// The id that the caller chose is taken.
    #[error("the id is taken by another order")]
    Exists,
    /// The order is not the one that the caller read.
    #[error("the order has changed since it was read")]
    Etag {
        /// The revision that it has.
        current: i64,
    },
    /// Two callers changed the order at the same moment.
    #[error("the order changed at the same moment: try again")]
    Changed,
    /// The token was made for another list.
    #[error(transparent)]
    Page(#[from] mesh::page::PageTokenMismatch),
    /// What happened since the token was given is not kept any more.
    #[error("what happened since is not kept any more: watch again without a token")]
    TokenTooOld,
    /// What was sent was not read.
    #[error("what was sent was not read in time: go on with the last token")]
    SlowReader,
    /// The process leaves.
    #[error("this process leaves: go on at another one")]
    Draining,
    /// The request id was used for another request.
    #[error("the request id was used for another request")]
    Reused,
    /// The first attempt is still at work.
    #[error("the first attempt of this request is still at work")]
    InProgress,
    /// Another service cannot be asked.
    #[error("{service} cannot be reached")]
    Down {
        /// Which.
        service: &'static str,
        /// What was heard instead of an answer.
        source: Box<Status>,
    },
    /// Another service answered what the contract does not allow.
    #[error("{service} answered nonsense: {problem}")]
    Nonsense {
        /// Which.
        service: &'static str,
        /// What is wrong with its answer.
        problem: String,
    },
    /// The order's saga is not where the order says.
    #[error("the order's saga {0}")]
    Saga(&'static str),
    /// The answer of an earlier attempt, or of another service: told as it was told then.
    #[error("answered before, or elsewhere")]
    Answered(Box<Status>),
    /// The database did not do it.
    #[error(transparent)]
    Failed(#[from] Failure),
}

/// A field that is wrong.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Violation {
    /// By which rule.
    pub reason: Reason,
    /// Its path in the request.
    pub field: String,
    /// What would be right.
    pub problem: String,
}

impl Explain for Error {
    const DOMAIN: &'static str = "ordermesh.orders.v1";

    fn explain(&self) -> Explanation {
        match self {
            Self::Malformed(violations) => malformed(violations),
            Self::Refused(refusal) => refused(refusal),
            Self::Denied(_) => tell(Code::PermissionDenied, "PERMISSION_DENIED"),
            Self::NotFound(name) => row(Code::NotFound, Reason::NotFound).with("name", name),
            Self::Exists => row(Code::AlreadyExists, Reason::AlreadyExists)
                .violation("order_id", "is taken by another order"),
            Self::Etag { current } => {
                row(Code::Aborted, Reason::EtagMismatch).with("etag", resource::etag(*current))
            }
            Self::Changed => row(Code::Aborted, Reason::Conflict),
            Self::Page(_) => row(Code::InvalidArgument, Reason::PageTokenMismatch)
                .violation("page_token", "is not of this list"),
            Self::TokenTooOld => row(Code::OutOfRange, Reason::ResumeTokenTooOld),
            Self::SlowReader => row(Code::ResourceExhausted, Reason::SlowReader),
            Self::Draining => {
                row(Code::Unavailable, Reason::Draining).retry_after(Duration::from_millis(200))
            }
            Self::Reused => row(Code::InvalidArgument, Reason::RequestIdReused)
                .violation("request_id", "was used for another request: make a new one"),
            Self::InProgress => row(Code::Aborted, Reason::RequestInProgress)
                .retry_after(Duration::from_millis(200)),
            Self::Down { service, .. } => {
                row(Code::Unavailable, Reason::DependencyDown).with("service", service)
            }
            Self::Failed(Failure {
                source: DbErr::Conn(_) | DbErr::ConnectionAcquire(_), ..
            }) => row(Code::Unavailable, Reason::DependencyDown).with("service", "database"),
            Self::Nonsense { .. } | Self::Saga(_) | Self::Answered(_) | Self::Failed(_) => {
                row(Code::Internal, Reason::Internal)
            }
        }
    }
}

impl From<Error> for Status {
    fn from(error: Error) -> Self {
        match error {
            Error::Answered(status) => *status,
            Error::Malformed(_)
            | Error::Refused(_)
            | Error::Denied(_)
            | Error::NotFound(_)
            | Error::Exists
            | Error::Etag { .. }
            | Error::Changed
            | Error::Page(_)
            | Error::TokenTooOld
            | Error::SlowReader
            | Error::Draining
            | Error::Reused
            | Error::InProgress
            | Error::Down { .. }
            | Error::Nonsense { .. }
            | Error::Saga(_)
            | Error::Failed(_) => status::of(&error),
        }
    }
}

impl From<Refused> for Error {
    fn from(refused: Refused) -> Self {
        match refused {
            Refused::Reused => Self::Reused,
            Refused::InProgress => Self::InProgress,
            Refused::Failed(failure) => Self::Failed(failure),
        }
    }
}

impl From<WriteError> for Error {
    fn from(error: WriteError) -> Self {
        match error {
            // The stored answer is looked up before this shows.
            WriteError::Repeated => Self::InProgress,
            WriteError::Changed => Self::Changed,
            WriteError::Exists => Self::Exists,
            WriteError::Reused => Self::Reused,
            WriteError::TooLate => Self::Changed,
            WriteError::Saga(problem) => Self::Saga(problem),
            WriteError::Failed(failure) => Self::Failed(failure),
        }
    }
}

fn malformed(violations: &[Violation]) -> Explanation {
    let first = violations.first().map_or(Reason::FieldViolation, |violation| violation.reason);
    violations.iter().fold(row(Code::InvalidArgument, first), |told, violation| {
        told.violation(violation.field.as_str(), violation.problem.as_str())
    })
}

fn refused(refusal: &Refusal) -> Explanation {
    let problem = refusal.to_string();
    match refusal {
        Refusal::State(state) => row(Code::FailedPrecondition, Reason::OrderState)
            .with("state", state)
            .precondition("STATE", "order", problem),
        Refusal::TooLate(_) => row(Code::FailedPrecondition, Reason::OrderState)
            .with("state", "ACTION_REQUIRED")
            .precondition("STATE", "order.pending_action", problem),
        Refusal::PriceChanged(offer) => row(Code::Aborted, Reason::PriceChanged)
            .with("current_total", offer.total)
            .with("lines", lines(offer)),
        Refusal::CurrencyMismatch => {
            row(Code::InvalidArgument, Reason::CurrencyMismatch).violation("order.lines", problem)
        }
        Refusal::ExpectedCurrency => row(Code::InvalidArgument, Reason::CurrencyMismatch)
            .violation("order.expected_total.currency_code", problem),
        Refusal::TooLarge => {
            row(Code::InvalidArgument, Reason::FieldViolation).violation("order.lines", problem)
        }
        Refusal::OutOfStock(short) => {
            let told = row(Code::FailedPrecondition, Reason::OutOfStock);
            let told = match short.first() {
                Some(first) => told.with("sku", &first.sku).with("available", first.available),
                None => told,
            };
            short.iter().fold(told, |told, short| {
                let what = format!("{} left, {} wanted", short.available, short.wanted);
                told.precondition("STOCK", format!("variants/{}", short.sku), what)
            })
        }
        Refusal::QuoteExpired => row(Code::FailedPrecondition, Reason::QuoteExpired).precondition(
            "QUOTE",
            "order.quote",
            problem,
        ),
        Refusal::QuoteDiffers => {
            row(Code::InvalidArgument, Reason::FieldViolation).violation("order.quote", problem)
        }
        Refusal::Limit(limit) => {
            row(Code::FailedPrecondition, Reason::LimitExceeded).with("limit", limit)
        }
        Refusal::CustomerInactive => row(Code::FailedPrecondition, Reason::CustomerInactive)
            .precondition("CUSTOMER", "order.customer", problem),
        Refusal::NotCancellable => row(Code::FailedPrecondition, Reason::NotCancellable)
            .precondition("STATE", "order", problem),
        Refusal::Unpaid | Refusal::Units | Refusal::Unfinished => {
            row(Code::Internal, Reason::Internal)
        }
    }
}

fn row(code: Code, reason: Reason) -> Explanation {
    tell(code, reason.as_str_name())
}

/// `1=9.99 EUR,2=20.00 EUR`: what each line would cost.
fn lines(offer: &Offer) -> String {
    let mut text = String::new();
    for line in &offer.lines {
        let comma = if text.is_empty() { "" } else { "," };
        // Writing to a string cannot fail.
        let _written = write!(text, "{comma}{}={}", line.line_id, line.total).is_ok();
    }
    text
}

fn summary(violations: &[Violation]) -> String {
    match violations {
        [] => "the request is wrong".to_owned(),
        [one] => format!("{} {}", one.field, one.problem),
        [first, rest @ ..] => {
            format!("{} {} (and {} more)", first.field, first.problem, rest.len())
        }
    }
}
