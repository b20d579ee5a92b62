//! What callers are told: one enum, one table.

use std::time::Duration;

use mesh::{
    idempotency,
    page::PageTokenMismatch,
    resource,
    status::{self, Explain, Explanation, tell},
    store::{Failure, TxnError},
};
use proto::inventory::v1::Reason;
use tonic::{Code, Status};

use crate::domain::Refusal;

/// When to come again while the first call of a `request_id` is at work.
const IN_PROGRESS_RETRY: Duration = Duration::from_millis(200);

/// Why a call failed.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A field is missing or out of its limits.
    #[error("{field} {problem}")]
    Malformed {
        /// Its path in the request.
        field: String,
        /// What is wrong with it; reads on from its path.
        problem: String,
    },
    /// There is no such thing.
    #[error("{0} does not exist")]
    NotFound(String),
    /// The id is taken.
    #[error("{0} exists already")]
    Taken(String),
    /// A rule said no.
    #[error("{name}: {refusal}")]
    Refused {
        /// What was asked for.
        name: String,
        /// Which rule.
        refusal: Refusal,
    },
    /// The saga undid the command before it came.
    #[error("{0} was undone before it came")]
    Undone(String),
    /// The etag is of an older revision.
    #[error("{name} is not as it was when this etag was read")]
    EtagMismatch {
        /// What was to be changed.
        name: String,
        /// Its revision.
        revision: i64,
    },
    /// Another call changed it in between.
    #[error("{0} was changed by another call")]
    Changed(String),
    /// The page token is not of this list.
    #[error(transparent)]
    Page(#[from] PageTokenMismatch),
    /// The `request_id` was used before, and has no answer for this request.
    #[error(transparent)]
    RequestId(#[from] idempotency::Refused),
    /// The database failed.
    #[error(transparent)]
    Database(#[from] Failure),
    /// The call was refused before, and is told so again.
    #[error("refused as before")]
    Again(Box<Status>),
}

// === impl Error ===

impl Error {
    /// A field that is wrong.
    pub fn malformed(field: impl Into<String>, problem: impl std::fmt::Display) -> Self {
        Self::Malformed { field: field.into(), problem: problem.to_string() }
    }

    /// What a rule says about `name`.
    pub fn refused(name: &str) -> impl Fn(Refusal) -> Self {
        move |refusal| Self::Refused { name: name.to_owned(), refusal }
    }

    /// Whether the same call will be told the same for ever: a rule was asked and said no.
    #[must_use]
    pub fn is_answer(&self) -> bool {
        match self {
            Self::Malformed { .. }
            | Self::NotFound(_)
            | Self::Taken(_)
            | Self::Refused { .. }
            | Self::EtagMismatch { .. } => true,
            // What was undone says so itself, each time.
            Self::Undone(_)
            | Self::Changed(_)
            | Self::Page(_)
            | Self::RequestId(_)
            | Self::Database(_)
            | Self::Again(_) => false,
        }
    }
}

impl TxnError for Error {
    fn failure(&self) -> Option<&Failure> {
        match self {
            Self::Database(failure) | Self::RequestId(idempotency::Refused::Failed(failure)) => {
                Some(failure)
            }
            Self::Malformed { .. }
            | Self::NotFound(_)
            | Self::Taken(_)
            | Self::Refused { .. }
            | Self::Undone(_)
            | Self::EtagMismatch { .. }
            | Self::Changed(_)
            | Self::Page(_)
            | Self::RequestId(_)
            | Self::Again(_) => None,
        }
    }
}

impl Explain for Error {
    const DOMAIN: &'static str = "ordermesh.inventory.v1";

    fn explain(&self) -> Explanation {
        match self {
            Self::Malformed { field, problem } => {
                row(Code::InvalidArgument, Reason::FieldViolation).violation(field, problem)
            }
            Self::NotFound(name) => row(Code::NotFound, Reason::NotFound).with("name", name),
            Self::Taken(name) => row(Code::AlreadyExists, Reason::AlreadyExists).with("name", name),
            Self::Refused { name, refusal } => refused(name, refusal),
            Self::Undone(name) => row(Code::FailedPrecondition, Reason::Undone).precondition(
                "UNDONE",
                name,
                self.to_string(),
            ),
            Self::EtagMismatch { name, revision } => row(Code::Aborted, Reason::EtagMismatch)
                .with("name", name)
                .with("etag", resource::etag(*revision)),
            Self::Changed(name) => row(Code::Aborted, Reason::Conflict).with("name", name),
            Self::Page(mismatch) => row(Code::InvalidArgument, Reason::PageTokenMismatch)
                .violation("page_token", mismatch.to_string()),
            Self::RequestId(idempotency::Refused::Reused) => {
                row(Code::InvalidArgument, Reason::RequestIdReused)
                    .violation("request_id", "came before with another request")
            }
            Self::RequestId(idempotency::Refused::InProgress) => {
                row(Code::Aborted, Reason::RequestInProgress).retry_after(IN_PROGRESS_RETRY)
            }
            Self::RequestId(idempotency::Refused::Failed(_)) | Self::Database(_) => {
                row(Code::Internal, Reason::Internal)
            }
            // Never asked: see `From<Error> for Status`.
            Self::Again(status) => row(status.code(), Reason::Unspecified),
        }
    }
}

impl From<Error> for Status {
    fn from(error: Error) -> Self {
        if let Error::Again(status) = error { *status } else { status::of(&error) }
    }
}

fn row(code: Code, reason: Reason) -> Explanation {
    tell(code, reason.as_str_name())
}

fn refused(name: &str, refusal: &Refusal) -> Explanation {
    let no = |reason| row(Code::FailedPrecondition, reason);
    match refusal {
        Refusal::OutOfStock(short) => {
            let mut told = no(Reason::OutOfStock);
            if let Some(first) = short.first() {
                told = told.with("sku", &first.sku).with("available", first.available);
            }
            short.iter().fold(told, |told, line| {
                let left = format!(
                    "line {} wants {}, {} are available",
                    line.line, line.wanted, line.available
                );
                told.precondition("OUT_OF_STOCK", format!("variants/{}", line.sku), left)
            })
        }
        Refusal::Promised { available } => no(Reason::StockPromised)
            .with("available", available)
            .precondition("STOCK_PROMISED", name, refusal.to_string()),
        Refusal::TooMany => row(Code::InvalidArgument, Reason::FieldViolation)
            .violation("delta", refusal.to_string()),
        Refusal::State(state) => no(Reason::ReservationState).with("state", state).precondition(
            "STATE",
            name,
            refusal.to_string(),
        ),
        Refusal::Part(line) => no(Reason::ReservationState).with("line", line).precondition(
            "LINE",
            name,
            refusal.to_string(),
        ),
        Refusal::Expired { sku } => no(Reason::ReservationExpired).with("sku", sku).precondition(
            "EXPIRED",
            name,
            refusal.to_string(),
        ),
        Refusal::Owned(saga) => no(Reason::ReservationOwned).with("saga", saga).precondition(
            "OWNED",
            name,
            refusal.to_string(),
        ),
    }
}
