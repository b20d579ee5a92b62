//! What callers are told: one enum, one table.

use std::time::Duration;

use mesh::{
    idempotency,
    page::NoPage,
    status::{self, Explain, Explanation, tell},
    store::Failure,
};
use proto::catalog::v1::Reason;
use tonic::{Code, Status};

use crate::{domain::Refusal, store::WriteError};

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
    /// The etag is of an older revision.
    #[error("{0} is not as it was when this etag was read")]
    EtagMismatch(String),
    /// Another call changed it in between.
    #[error("{0} was changed by another call")]
    Changed(String),
    /// There is no such page.
    #[error(transparent)]
    Page(#[from] NoPage),
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

    /// What a write that was not done means for the call; `None` if the call was answered
    /// already, by another attempt.
    #[must_use]
    pub fn of_write(name: &str, error: WriteError) -> Option<Self> {
        match error {
            WriteError::Repeated => None,
            WriteError::Changed => Some(Self::Changed(name.to_owned())),
            WriteError::Taken => Some(Self::Taken(name.to_owned())),
            WriteError::Failed(failure) => Some(Self::Database(failure)),
        }
    }
}

impl Explain for Error {
    const DOMAIN: &'static str = "ordermesh.catalog.v1";

    fn explain(&self) -> Explanation {
        let row = |code, reason: Reason| tell(code, reason.as_str_name());
        match self {
            Self::Malformed { field, problem } => {
                row(Code::InvalidArgument, Reason::FieldViolation).violation(field, problem)
            }
            Self::NotFound(name) => row(Code::NotFound, Reason::NotFound).with("name", name),
            Self::Taken(name) => row(Code::AlreadyExists, Reason::AlreadyExists).with("name", name),
            Self::Refused { name, refusal } => match refusal {
                Refusal::State(state) => row(Code::FailedPrecondition, Reason::ProductState)
                    .with("name", name)
                    .with("state", state)
                    .precondition("STATE", name, refusal.to_string()),
                Refusal::Currency(currency) => row(Code::InvalidArgument, Reason::CurrencyMismatch)
                    .with("currency", currency.code())
                    .violation("price.currency_code", refusal.to_string()),
                Refusal::Past => row(Code::InvalidArgument, Reason::FieldViolation)
                    .violation("effective_time", "must not be in the past"),
            },
            Self::EtagMismatch(name) => row(Code::Aborted, Reason::EtagMismatch).with("name", name),
            Self::Changed(name) => row(Code::Aborted, Reason::Conflict).with("name", name),
            Self::Page(NoPage::Size(problem)) => row(Code::InvalidArgument, Reason::FieldViolation)
                .violation("page_size", problem.to_string()),
            Self::Page(NoPage::Token(mismatch)) => {
                row(Code::InvalidArgument, Reason::PageTokenMismatch)
                    .violation("page_token", mismatch.to_string())
            }
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
