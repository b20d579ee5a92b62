//! What callers are told: one enum, one table.

use mesh::{
    auth::Denied,
    idempotency,
    page::{NoPage, PageTokenMismatch},
    resource,
    status::{self, Explain, Explanation, tell},
    store::Failure,
};
use proto::notifications::v1::Reason;
use tonic::{Code, Status};
use uuid::Uuid;

use crate::store::WriteError;

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
    /// There is no such notification.
    #[error("notifications/{0} does not exist")]
    NotFound(Uuid),
    /// The etag is of an older revision.
    #[error("{name} is not as it was when this etag was read")]
    EtagMismatch {
        /// Whose preferences.
        name: String,
        /// Their revision.
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
    /// The call was answered before, and is told so again.
    #[error("refused as before")]
    Again(Box<Status>),
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

    /// Why `name` was not written; `None` if the call was answered in the meantime.
    #[must_use]
    pub fn of_write(name: &str, error: WriteError) -> Option<Self> {
        match error {
            WriteError::Repeated => None,
            WriteError::Changed => Some(Self::Changed(name.to_owned())),
            WriteError::Failed(failure) => Some(failure.into()),
        }
    }
}

impl From<NoPage> for Error {
    fn from(error: NoPage) -> Self {
        match error {
            NoPage::Size(negative) => Self::malformed("page_size", negative),
            NoPage::Token(mismatch) => mismatch.into(),
        }
    }
}

impl Explain for Error {
    const DOMAIN: &'static str = "ordermesh.notifications.v1";

    fn explain(&self) -> Explanation {
        let row = |code, reason: Reason| tell(code, reason.as_str_name());
        match self {
            Self::Malformed { field, problem } => {
                row(Code::InvalidArgument, Reason::FieldViolation).violation(field, problem)
            }
            Self::Denied(_) => row(Code::PermissionDenied, Reason::PermissionDenied),
            Self::NotFound(id) => {
                row(Code::NotFound, Reason::NotFound).with("name", format!("notifications/{id}"))
            }
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
            // Cannot be: no call keeps a key without its answer.
            Self::RequestId(idempotency::Refused::InProgress) => {
                row(Code::Aborted, Reason::Conflict)
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_error_has_its_code_and_reason() {
        let name = || "preferences/1".to_owned();
        for (error, code, reason) in [
            (Error::malformed("name", "is missing"), Code::InvalidArgument, "FIELD_VIOLATION"),
            (Error::Denied(Denied::NotYours), Code::PermissionDenied, "PERMISSION_DENIED"),
            (Error::NotFound(Uuid::nil()), Code::NotFound, "NOT_FOUND"),
            (Error::EtagMismatch { name: name(), revision: 2 }, Code::Aborted, "ETAG_MISMATCH"),
            (Error::Changed(name()), Code::Aborted, "CONFLICT"),
            (Error::Page(PageTokenMismatch), Code::InvalidArgument, "PAGE_TOKEN_MISMATCH"),
            (idempotency::Refused::Reused.into(), Code::InvalidArgument, "REQUEST_ID_REUSED"),
            (Failure::new("read", "broken").into(), Code::Internal, "INTERNAL"),
        ] {
            let told = Status::from(error);
            let info = status::reason(&told).unwrap();
            assert_eq!((told.code(), info.reason.as_str()), (code, reason));
        }
    }
}
