//! What callers are told: one enum, one table.

use mesh::{
    auth::Denied,
    idempotency,
    page::NoPage,
    resource,
    status::{self, Explain, Explanation, tell},
    store::{Failure, TxnError},
};
use proto::shipping::v1::Reason;
use tonic::{Code, Status};
use uuid::Uuid;

use crate::domain::{RETRY_AFTER, Refusal};

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
    /// The caller may not do this.
    #[error(transparent)]
    Denied(#[from] Denied),
    /// There is no such shipment.
    #[error("shipments/{0} does not exist")]
    NotFound(Uuid),
    /// The id has another shipment.
    #[error("shipments/{0} is another shipment")]
    Taken(Uuid),
    /// A rule said no.
    #[error("shipments/{shipment}: {refusal}")]
    Refused {
        /// Which shipment.
        shipment: Uuid,
        /// Which rule.
        refusal: Refusal,
    },
    /// The etag is of an older revision.
    #[error("shipments/{shipment} is not as it was when this etag was read")]
    EtagMismatch {
        /// Which shipment.
        shipment: Uuid,
        /// Its revision now.
        revision: i64,
    },
    /// The page cannot be given.
    #[error(transparent)]
    Page(#[from] NoPage),
    /// The `request_id` was used before, and has no answer for this request.
    #[error(transparent)]
    RequestId(#[from] idempotency::Refused),
    /// The call was answered before, and is told so again.
    #[error("refused as before")]
    Again(Box<Status>),
    /// The work on an attempt was cut off; it is gone on with later.
    #[error("the work on an attempt was cut off")]
    Cut(#[source] Option<tokio::task::JoinError>),
    /// The database failed.
    #[error(transparent)]
    Database(#[from] Failure),
}

// === impl Error ===

impl Error {
    /// A field that is wrong.
    pub fn malformed(field: impl Into<String>, problem: impl std::fmt::Display) -> Self {
        Self::Malformed { field: field.into(), problem: problem.to_string() }
    }

    /// A rule that said no to something about this shipment.
    pub fn refused(shipment: Uuid) -> impl Fn(Refusal) -> Self {
        move |refusal| Self::Refused { shipment, refusal }
    }

    /// Whether the same call will be told the same for ever: a rule was asked and said no.
    #[must_use]
    pub fn is_answer(&self) -> bool {
        match self {
            Self::Malformed { .. }
            | Self::NotFound(_)
            | Self::Taken(_)
            | Self::Refused { refusal: Refusal::State(_) | Refusal::Undone, .. }
            | Self::EtagMismatch { .. } => true,
            Self::Refused { refusal: Refusal::InProgress, .. }
            | Self::Denied(_)
            | Self::Page(_)
            | Self::RequestId(_)
            | Self::Again(_)
            | Self::Cut(_)
            | Self::Database(_) => false,
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
            | Self::Denied(_)
            | Self::NotFound(_)
            | Self::Taken(_)
            | Self::Refused { .. }
            | Self::EtagMismatch { .. }
            | Self::Page(_)
            | Self::RequestId(_)
            | Self::Again(_)
            | Self::Cut(_) => None,
        }
    }
}

impl Explain for Error {
    const DOMAIN: &'static str = "ordermesh.shipping.v1";

    fn explain(&self) -> Explanation {
        match self {
            Self::Malformed { field, problem } => {
                row(Code::InvalidArgument, Reason::FieldViolation).violation(field, problem)
            }
            Self::Denied(_) => row(Code::PermissionDenied, Reason::PermissionDenied),
            Self::NotFound(id) => {
                row(Code::NotFound, Reason::NotFound).with("name", format!("shipments/{id}"))
            }
            Self::Taken(id) => row(Code::AlreadyExists, Reason::AlreadyExists)
                .with("name", format!("shipments/{id}")),
            Self::Refused { shipment, refusal } => refused(*shipment, *refusal),
            Self::EtagMismatch { revision, .. } => {
                row(Code::Aborted, Reason::EtagMismatch).with("etag", resource::etag(*revision))
            }
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
                row(Code::Aborted, Reason::RequestInProgress).retry_after(RETRY_AFTER)
            }
            Self::RequestId(idempotency::Refused::Failed(_))
            | Self::Again(_)
            | Self::Cut(_)
            | Self::Database(_) => row(Code::Internal, Reason::Internal),
        }
    }
}

impl From<Error> for Status {
    fn from(error: Error) -> Self {
        if let Error::Again(status) = error { *status } else { status::of(&error) }
    }
}

fn refused(shipment: Uuid, refusal: Refusal) -> Explanation {
    match refusal {
        Refusal::State(state) => row(Code::FailedPrecondition, Reason::ShipmentState)
            .with("state", state)
            .precondition("STATE", format!("shipments/{shipment}"), refusal.to_string()),
        Refusal::Undone => row(Code::FailedPrecondition, Reason::Undone),
        Refusal::InProgress => {
            row(Code::Aborted, Reason::RequestInProgress).retry_after(RETRY_AFTER)
        }
    }
}

fn row(code: Code, reason: Reason) -> Explanation {
    tell(code, reason.as_str_name())
}

#[cfg(test)]
mod tests {
    use mesh::page::PageTokenMismatch;

    use super::*;
    use crate::domain::State;

    #[test]
    fn every_refusal_has_its_code_and_reason() {
        let id = Uuid::nil();
        let refused = Error::refused(id);
        for (error, code, reason) in [
            (Error::malformed("name", "is missing"), Code::InvalidArgument, "FIELD_VIOLATION"),
            (Error::Denied(Denied::NotYours), Code::PermissionDenied, "PERMISSION_DENIED"),
            (Error::NotFound(id), Code::NotFound, "NOT_FOUND"),
            (Error::Taken(id), Code::AlreadyExists, "ALREADY_EXISTS"),
            (refused(Refusal::State(State::Lost)), Code::FailedPrecondition, "SHIPMENT_STATE"),
            (refused(Refusal::Undone), Code::FailedPrecondition, "UNDONE"),
            (refused(Refusal::InProgress), Code::Aborted, "REQUEST_IN_PROGRESS"),
            (Error::EtagMismatch { shipment: id, revision: 2 }, Code::Aborted, "ETAG_MISMATCH"),
            (
                Error::Page(NoPage::Token(PageTokenMismatch)),
                Code::InvalidArgument,
                "PAGE_TOKEN_MISMATCH",
            ),
            (Error::Cut(None), Code::Internal, "INTERNAL"),
        ] {
            let told = Status::from(error);
            let info = status::reason(&told).unwrap();
            assert_eq!((told.code(), info.reason.as_str()), (code, reason));
        }
    }
}
