//! What callers are told: one enum and one table for each of the two contracts served here.

use std::time::Duration;

use mesh::{
    auth::Denied,
    idempotency,
    page::PageTokenMismatch,
    status::{self, Explain, Explanation, tell},
    store::Failure,
};
use proto::{auth::v1 as auth, users::v1::Reason};
use tonic::{Code, Status};
use uuid::Uuid;

use crate::{domain::Refusal, passwords::PasswordError, signing::SigningError, store::WriteError};

/// When to come again after too many passwords waited to be hashed.
const BUSY_RETRY: Duration = Duration::from_secs(1);
/// When to come again while the first call of a `request_id` is at work.
const IN_PROGRESS_RETRY: Duration = Duration::from_millis(200);

/// Why a call of `UsersService` failed.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A field is missing or out of its limits.
    #[error("{field} {problem}")]
    Malformed {
        /// Its path in the request.
        field: &'static str,
        /// What is wrong with it; reads on from its path.
        problem: String,
    },
    /// The caller may not do this.
    #[error(transparent)]
    Denied(#[from] Denied),
    /// There is no such account.
    #[error("users/{0} does not exist")]
    NotFound(Uuid),
    /// A rule said no.
    #[error("users/{user}: {refusal}")]
    Refused {
        /// Which account.
        user: Uuid,
        /// Which rule.
        refusal: Refusal,
    },
    /// Another account has this value.
    #[error("{0} is taken")]
    Taken(&'static str),
    /// The etag is of an older revision.
    #[error("users/{0} is not as it was when this etag was read")]
    EtagMismatch(Uuid),
    /// Another call changed the account in between.
    #[error("users/{0} was changed by another call")]
    Changed(Uuid),
    /// The page token is not of this list.
    #[error(transparent)]
    Page(#[from] PageTokenMismatch),
    /// The `request_id` was used before, and has no answer for this request.
    #[error(transparent)]
    RequestId(#[from] idempotency::Refused),
    /// A password was neither hashed nor checked.
    #[error(transparent)]
    Password(#[from] PasswordError),
    /// The database failed.
    #[error(transparent)]
    Database(#[from] Failure),
    /// The call was refused before, and is told so again.
    #[error("refused as before")]
    Again(Box<Status>),
}

/// Why a call of `TokensService` failed.
#[derive(Debug, thiserror::Error)]
pub enum TokenError {
    /// A field is missing or out of its limits.
    #[error("{field} {problem}")]
    Malformed {
        /// Its path in the request.
        field: &'static str,
        /// What is wrong with it; reads on from its path.
        problem: String,
    },
    /// The credential proves nothing. Says no more: not whether an account exists.
    #[error("the credential is not valid")]
    Unproved,
    /// A refresh token came a second time.
    #[error("the refresh token was used before: its session has ended, sign in again")]
    Reused,
    /// Too many failures.
    #[error("too many failures to sign in: wait before the next try")]
    Locked {
        /// How long.
        retry_after: Duration,
    },
    /// A password was not checked.
    #[error(transparent)]
    Password(#[from] PasswordError),
    /// A token was not signed.
    #[error(transparent)]
    Signing(#[from] SigningError),
    /// The database failed.
    #[error(transparent)]
    Database(#[from] Failure),
}

// === impl Error ===

impl Error {
    /// A field that is wrong.
    pub fn malformed(field: &'static str, problem: impl std::fmt::Display) -> Self {
        Self::Malformed { field, problem: problem.to_string() }
    }

    /// What a write that was not done means for the call on this account; `None` if the call was
    /// answered already, by another attempt.
    #[must_use]
    pub fn of_write(user: Uuid, error: WriteError) -> Option<Self> {
        match error {
            WriteError::Repeated => None,
            WriteError::Changed => Some(Self::Changed(user)),
            WriteError::Taken(field) => Some(Self::Taken(field)),
            WriteError::Failed(failure) => Some(Self::Database(failure)),
        }
    }
}

impl Explain for Error {
    const DOMAIN: &'static str = "ordermesh.users.v1";

    fn explain(&self) -> Explanation {
        let row = |code, reason: Reason| tell(code, reason.as_str_name());
        match self {
            Self::Malformed { field, problem } => {
                row(Code::InvalidArgument, Reason::FieldViolation).violation(*field, problem)
            }
            Self::Denied(_) => row(Code::PermissionDenied, Reason::PermissionDenied),
            Self::NotFound(id) => {
                row(Code::NotFound, Reason::NotFound).with("name", format!("users/{id}"))
            }
            Self::Refused { user, refusal } => match refusal {
                Refusal::State(state) => {
                    let name = format!("users/{user}");
                    row(Code::FailedPrecondition, Reason::UserState)
                        .with("name", &name)
                        .with("state", state)
                        .precondition("STATE", name, refusal.to_string())
                }
                Refusal::StaffOnly | Refusal::AdminOnly => {
                    row(Code::PermissionDenied, Reason::PermissionDenied)
                }
            },
            Self::Taken(field) => {
                row(Code::AlreadyExists, Reason::AlreadyExists).with("field", field)
            }
            Self::EtagMismatch(id) => {
                row(Code::Aborted, Reason::EtagMismatch).with("name", format!("users/{id}"))
            }
            Self::Changed(id) => {
                row(Code::Aborted, Reason::Conflict).with("name", format!("users/{id}"))
            }
            Self::Page(mismatch) => row(Code::InvalidArgument, Reason::PageTokenMismatch)
                .violation("page_token", mismatch.to_string()),
            Self::RequestId(idempotency::Refused::Reused) => {
                row(Code::InvalidArgument, Reason::RequestIdReused)
                    .violation("request_id", self.to_string())
            }
            Self::RequestId(idempotency::Refused::InProgress) => {
                row(Code::Aborted, Reason::RequestInProgress).retry_after(IN_PROGRESS_RETRY)
            }
            Self::Password(PasswordError::Busy(_)) => {
                row(Code::ResourceExhausted, Reason::RateLimited).retry_after(BUSY_RETRY)
            }
            Self::RequestId(idempotency::Refused::Failed(_))
            | Self::Password(
                PasswordError::Panicked(_)
                | PasswordError::Format(_)
                | PasswordError::Hash(_)
                | PasswordError::Salt(_),
            )
            | Self::Database(_)
            | Self::Again(_) => row(Code::Internal, Reason::Internal),
        }
    }
}

impl From<Error> for Status {
    fn from(error: Error) -> Self {
        if let Error::Again(status) = error {
            return *status;
        }
        status::of(&error)
    }
}

// === impl TokenError ===

impl TokenError {
    /// A field that is wrong.
    pub fn malformed(field: &'static str, problem: impl std::fmt::Display) -> Self {
        Self::Malformed { field, problem: problem.to_string() }
    }
}

impl Explain for TokenError {
    const DOMAIN: &'static str = "ordermesh.auth.v1";

    fn explain(&self) -> Explanation {
        let row = |code, reason: auth::Reason| tell(code, reason.as_str_name());
        match self {
            Self::Malformed { field, problem } => {
                row(Code::InvalidArgument, auth::Reason::FieldViolation).violation(*field, problem)
            }
            Self::Unproved => row(Code::Unauthenticated, auth::Reason::Unauthenticated),
            Self::Reused => row(Code::Unauthenticated, auth::Reason::RefreshTokenReused),
            Self::Locked { retry_after } => tell(Code::ResourceExhausted, RATE_LIMITED)
                .quota("sign_in", "10 failures in 15 minutes")
                .retry_after(*retry_after),
            Self::Password(PasswordError::Busy(_)) => {
                tell(Code::ResourceExhausted, RATE_LIMITED).retry_after(BUSY_RETRY)
            }
            Self::Password(
                PasswordError::Panicked(_)
                | PasswordError::Format(_)
                | PasswordError::Hash(_)
                | PasswordError::Salt(_),
            )
            | Self::Signing(_)
            | Self::Database(_) => row(Code::Internal, auth::Reason::Internal),
        }
    }
}

/// The reason of a call that came too often.
const RATE_LIMITED: &str = "RATE_LIMITED";

impl From<TokenError> for Status {
    fn from(error: TokenError) -> Self {
        status::of(&error)
    }
}
