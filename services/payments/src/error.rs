//! What callers are told: one enum, one table.

use mesh::{
    auth::Denied,
    idempotency,
    page::PageTokenMismatch,
    resource,
    status::{self, Explain, Explanation, tell},
    store::{Failure, TxnError},
};
use proto::payments::v1::Reason;
use tonic::{Code, Status};
use uuid::Uuid;

use crate::domain::{RETRY_AFTER, Refusal, Unbalanced};

/// Why a call failed.
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
    /// There is no such payment.
    #[error("payments/{0} does not exist")]
    NotFound(Uuid),
    /// The id or the order is taken by another payment.
    #[error("{0} has another payment")]
    Taken(String),
    /// There is no such refund.
    #[error("refunds/{0} does not exist")]
    NoRefund(Uuid),
    /// The id is taken by another refund.
    #[error("refunds/{0} is another refund")]
    RefundTaken(Uuid),
    /// A rule said no.
    #[error("payments/{payment}: {refusal}")]
    Refused {
        /// Which payment.
        payment: Uuid,
        /// Which rule.
        refusal: Refusal,
    },
    /// The provider said no.
    #[error("the payment provider declined: {code}")]
    Declined {
        /// Why.
        code: String,
        /// Whether it may be tried again.
        retriable: bool,
    },
    /// The etag is of an older revision.
    #[error("payments/{payment} is not as it was when this etag was read")]
    EtagMismatch {
        /// Which payment.
        payment: Uuid,
        /// Its revision now.
        revision: i64,
    },
    /// The page token is not of this list.
    #[error(transparent)]
    Page(#[from] PageTokenMismatch),
    /// The `request_id` was used before, and has no answer for this request.
    #[error(transparent)]
    RequestId(#[from] idempotency::Refused),
    /// Another call of the same `request_id` committed first: its answer counts.
    #[error("answered already")]
    Repeated,
    /// The call was answered before, and is told so again.
    #[error("refused as before")]
    Again(Box<Status>),
    /// The work on an attempt was cut off; the resolver goes on with it.
    #[error("the work on an attempt was cut off")]
    Cut(#[source] Option<tokio::task::JoinError>),
    /// A mistake of ours, kept out of the ledger.
    #[error(transparent)]
    Unbalanced(#[from] Unbalanced),
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

    /// A rule that said no to something about this payment.
    pub fn refused(payment: Uuid) -> impl Fn(Refusal) -> Self {
        move |refusal| Self::Refused { payment, refusal }
    }
}

impl TxnError for Error {
    fn failure(&self) -> Option<&Failure> {
        if let Self::Database(failure) = self { Some(failure) } else { None }
    }
}

impl Explain for Error {
    const DOMAIN: &'static str = "ordermesh.payments.v1";

    fn explain(&self) -> Explanation {
        let row = |code, reason: Reason| tell(code, reason.as_str_name());
        match self {
            Self::Malformed { field, problem } => {
                row(Code::InvalidArgument, Reason::FieldViolation).violation(*field, problem)
            }
            Self::Denied(_) => row(Code::PermissionDenied, Reason::PermissionDenied),
            Self::NotFound(id) => {
                row(Code::NotFound, Reason::NotFound).with("name", format!("payments/{id}"))
            }
            Self::Taken(name) => row(Code::AlreadyExists, Reason::AlreadyExists).with("name", name),
            Self::NoRefund(id) => {
                row(Code::NotFound, Reason::NotFound).with("name", format!("refunds/{id}"))
            }
            Self::RefundTaken(id) => row(Code::AlreadyExists, Reason::AlreadyExists)
                .with("name", format!("refunds/{id}")),
            Self::Refused { payment, refusal } => refused(*payment, *refusal),
            Self::Declined { code, retriable } => {
                row(Code::FailedPrecondition, Reason::PaymentDeclined)
                    .with("decline_code", code)
                    .with("retriable", retriable)
            }
            Self::EtagMismatch { revision, .. } => {
                row(Code::Aborted, Reason::EtagMismatch).with("etag", resource::etag(*revision))
            }
            Self::Page(mismatch) => row(Code::InvalidArgument, Reason::PageTokenMismatch)
                .violation("page_token", mismatch.to_string()),
            Self::RequestId(idempotency::Refused::Reused) => {
                row(Code::InvalidArgument, Reason::RequestIdReused)
                    .violation("request_id", self.to_string())
            }
            Self::RequestId(idempotency::Refused::InProgress) | Self::Repeated => {
                row(Code::Aborted, Reason::RequestInProgress).retry_after(RETRY_AFTER)
            }
            Self::RequestId(idempotency::Refused::Failed(_))
            | Self::Again(_)
            | Self::Cut(_)
            | Self::Unbalanced(_)
            | Self::Database(_) => row(Code::Internal, Reason::Internal),
        }
    }
}

impl From<Error> for Status {
    fn from(error: Error) -> Self {
        if let Error::Again(status) = error { *status } else { status::of(&error) }
    }
}

fn refused(payment: Uuid, refusal: Refusal) -> Explanation {
    let row = |code, reason: Reason| tell(code, reason.as_str_name());
    match refusal {
        Refusal::State(state) => {
            let name = format!("payments/{payment}");
            row(Code::FailedPrecondition, Reason::PaymentState).with("state", state).precondition(
                "STATE",
                name,
                refusal.to_string(),
            )
        }
        Refusal::Undone => row(Code::FailedPrecondition, Reason::Undone),
        Refusal::InProgress => {
            row(Code::Aborted, Reason::RequestInProgress).retry_after(RETRY_AFTER)
        }
        Refusal::Currency => row(Code::InvalidArgument, Reason::CurrencyMismatch)
            .violation("amount.currency_code", refusal.to_string()),
        Refusal::Exceeds(held) => {
            row(Code::FailedPrecondition, Reason::AmountExceedsAuthorized).with("available", held)
        }
        Refusal::ExceedsCaptured(left) => {
            row(Code::FailedPrecondition, Reason::RefundExceedsCaptured).with("available", left)
        }
        Refusal::ProviderId => row(Code::InvalidArgument, Reason::FieldViolation)
            .violation("provider_id", refusal.to_string()),
    }
}

#[cfg(test)]
mod tests {
    use mesh::money::{Currency, Money};

    use super::*;
    use crate::domain::State;

    #[test]
    fn every_refusal_has_its_code_and_reason() {
        let refused = |refusal| Error::Refused { payment: Uuid::nil(), refusal };
        let held = Money::new(199, Currency::parse("EUR").unwrap());
        for (error, code, reason) in [
            (Error::malformed("name", "is missing"), Code::InvalidArgument, "FIELD_VIOLATION"),
            (Error::Denied(Denied::NotYours), Code::PermissionDenied, "PERMISSION_DENIED"),
            (Error::NotFound(Uuid::nil()), Code::NotFound, "NOT_FOUND"),
            (Error::Taken("orders/1".to_owned()), Code::AlreadyExists, "ALREADY_EXISTS"),
            (refused(Refusal::State(State::Voided)), Code::FailedPrecondition, "PAYMENT_STATE"),
            (refused(Refusal::Undone), Code::FailedPrecondition, "UNDONE"),
            (refused(Refusal::InProgress), Code::Aborted, "REQUEST_IN_PROGRESS"),
            (refused(Refusal::Currency), Code::InvalidArgument, "CURRENCY_MISMATCH"),
            (
                refused(Refusal::Exceeds(held)),
                Code::FailedPrecondition,
                "AMOUNT_EXCEEDS_AUTHORIZED",
            ),
            (
                refused(Refusal::ExceedsCaptured(held)),
                Code::FailedPrecondition,
                "REFUND_EXCEEDS_CAPTURED",
            ),
            (Error::NoRefund(Uuid::nil()), Code::NotFound, "NOT_FOUND"),
            (Error::RefundTaken(Uuid::nil()), Code::AlreadyExists, "ALREADY_EXISTS"),
            (
                Error::EtagMismatch { payment: Uuid::nil(), revision: 2 },
                Code::Aborted,
                "ETAG_MISMATCH",
            ),
            (Error::Cut(None), Code::Internal, "INTERNAL"),
        ] {
            let told = Status::from(error);
            let info = status::reason(&told).unwrap();
            assert_eq!((told.code(), info.reason.as_str()), (code, reason));
        }
    }

    #[test]
    fn a_decline_says_why_and_whether_to_try_again() {
        let code = "insufficient_funds".to_owned();
        let told = Status::from(Error::Declined { code, retriable: true });
        let info = status::reason(&told).unwrap();
        assert_eq!(told.code(), Code::FailedPrecondition);
        assert_eq!(info.reason, "PAYMENT_DECLINED");
        assert_eq!(info.metadata["decline_code"], "insufficient_funds");
        assert_eq!(info.metadata["retriable"], "true");
    }
}
