//! What operators are told when it goes wrong.

use tonic::Code;

use crate::{
    auth::Denied,
    page::NoPage,
    resource::NameError,
    status::{Explain, Explanation, tell},
    store::{Failure, TxnError},
    wire::ordermesh::operator::v1::Reason,
};

/// Why an operator's call failed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    #[error("{field} {problem}")]
    Malformed { field: &'static str, problem: String },
    #[error("there is no {0} here")]
    NotFound(String),
    #[error("the page token does not belong to this list with these arguments")]
    PageToken,
    #[error("the saga is {0}")]
    SagaState(String),
    #[error("the dead letter is {0}")]
    LetterState(String),
    #[error(transparent)]
    Denied(#[from] Denied),
    #[error(transparent)]
    Failed(#[from] Failure),
}

// === impl Error ===

impl Error {
    /// A name that does not have its form.
    #[expect(clippy::needless_pass_by_value, reason = "fits map_err")]
    pub(crate) fn name(error: NameError) -> Self {
        Self::Malformed { field: "name", problem: error.to_string() }
    }
}

impl Explain for Error {
    const DOMAIN: &'static str = "ordermesh.operator.v1";

    fn explain(&self) -> Explanation {
        let told = |code, reason: Reason| tell(code, reason.as_str_name());
        match self {
            Self::Malformed { field, problem } => {
                told(Code::InvalidArgument, Reason::FieldViolation).violation(*field, problem)
            }
            Self::NotFound(name) => told(Code::NotFound, Reason::NotFound).with("name", name),
            Self::PageToken => told(Code::InvalidArgument, Reason::PageTokenMismatch)
                .violation("page_token", self.to_string()),
            Self::SagaState(state) => told(Code::FailedPrecondition, Reason::SagaState)
                .with("state", state)
                .precondition("STATE", state, self.to_string()),
            Self::LetterState(state) => told(Code::FailedPrecondition, Reason::DeadLetterState)
                .with("state", state)
                .precondition("STATE", state, self.to_string()),
            Self::Denied(_) | Self::Failed(_) => told(Code::Internal, Reason::Internal),
        }
    }
}

impl From<NoPage> for Error {
    fn from(no_page: NoPage) -> Self {
        match no_page {
            NoPage::Size(problem) => {
                Self::Malformed { field: "page_size", problem: problem.to_string() }
            }
            NoPage::Token(_) => Self::PageToken,
        }
    }
}

impl From<Error> for tonic::Status {
    fn from(error: Error) -> Self {
        // The mesh's own word, as everywhere.
        if let Error::Denied(denied) = error {
            return crate::status::Failure::from(denied).into();
        }
        crate::status::of(&error)
    }
}

impl TxnError for Error {
    fn failure(&self) -> Option<&Failure> {
        match self {
            Self::Failed(failure) => Some(failure),
            Self::Malformed { .. }
            | Self::NotFound(_)
            | Self::PageToken
            | Self::SagaState(_)
            | Self::LetterState(_)
            | Self::Denied(_) => None,
        }
    }
}
