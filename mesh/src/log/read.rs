//! Why a piece of the log cannot be had.

use tonic::Code;

use super::Position;
use crate::{
    status::{Explain, Explanation, tell},
    store::Failure,
    wire::ordermesh::events::v1::Reason,
};

/// Why a piece of the log cannot be had.
#[derive(Clone, Debug, thiserror::Error)]
pub enum Unread {
    /// What comes next is not kept any more.
    #[error("the log begins at {oldest} now")]
    Truncated {
        /// The oldest position that is kept.
        oldest: Position,
    },
    /// The database could not be read.
    #[error(transparent)]
    Failed(#[from] Failure),
    /// A field of the request is wrong.
    #[error("{field} {problem}")]
    Malformed {
        /// The field.
        field: &'static str,
        /// What would be right.
        problem: &'static str,
    },
}

impl Explain for Unread {
    const DOMAIN: &'static str = "ordermesh.events.v1";

    fn explain(&self) -> Explanation {
        match self {
            Self::Truncated { oldest } => {
                tell(Code::OutOfRange, Reason::LogTruncated.as_str_name()).with("oldest", oldest)
            }
            Self::Failed(_) => tell(Code::Internal, Reason::Internal.as_str_name()),
            Self::Malformed { field, problem } => {
                tell(Code::InvalidArgument, Reason::FieldViolation.as_str_name())
                    .violation(*field, *problem)
            }
        }
    }
}

impl From<Unread> for tonic::Status {
    fn from(unread: Unread) -> Self {
        crate::status::of(&unread)
    }
}

impl From<Unread> for Failure {
    fn from(unread: Unread) -> Self {
        match unread {
            Unread::Failed(failure) => failure,
            Unread::Truncated { .. } | Unread::Malformed { .. } => {
                Self::new("follow the log", unread.to_string())
            }
        }
    }
}
