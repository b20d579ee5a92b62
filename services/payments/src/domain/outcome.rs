//! What became of an attempt, and who says so.

use time::OffsetDateTime;

use super::AttemptState;

/// What became of an attempt, as far as somebody knows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// The provider did it.
    Succeeded {
        /// What it calls the authorization or the capture.
        provider_id: Option<String>,
        /// When it gives back what it holds.
        expires_at: Option<OffsetDateTime>,
        /// What it keeps of a capture, in minor units.
        fee: i64,
        /// What a void gave back, in minor units.
        released: Option<i64>,
    },
    /// The provider refused.
    Declined {
        /// Why.
        code: String,
        /// Whether it may be tried again.
        retriable: bool,
    },
    /// The provider says that it has no effect.
    Failed {
        /// Why.
        code: String,
    },
    /// The provider waits for the customer.
    ActionRequired {
        /// What it calls the authorization.
        provider_id: String,
        /// Where the customer proves who they are.
        url: String,
    },
    /// The provider has it and has not decided.
    Pending {
        /// What it calls the authorization.
        provider_id: String,
    },
    /// No answer, or none that can be read.
    Unknown,
}

/// Who says what became of an attempt.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Source {
    /// The provider, in an answer, to the resolver, or of its own accord.
    Provider,
    /// A person, with evidence.
    Review(String),
}

impl Outcome {
    /// The provider did it, and says no more.
    #[must_use]
    pub fn done(provider_id: Option<String>) -> Self {
        Self::Succeeded { provider_id, expires_at: None, fee: 0, released: None }
    }

    /// What the provider calls the authorization or the capture.
    #[must_use]
    pub fn provider_id(&self) -> Option<&str> {
        match self {
            Self::Succeeded { provider_id, .. } => provider_id.as_deref(),
            Self::ActionRequired { provider_id, .. } | Self::Pending { provider_id } => {
                Some(provider_id)
            }
            Self::Declined { .. } | Self::Failed { .. } | Self::Unknown => None,
        }
    }

    /// The state of an attempt that ends with this outcome, if it ends it.
    pub(super) fn decided(&self) -> Option<AttemptState> {
        match self {
            Self::Succeeded { .. } => Some(AttemptState::Succeeded),
            Self::Declined { .. } => Some(AttemptState::Declined),
            Self::Failed { .. } => Some(AttemptState::Failed),
            Self::ActionRequired { .. } | Self::Pending { .. } | Self::Unknown => None,
        }
    }
}
