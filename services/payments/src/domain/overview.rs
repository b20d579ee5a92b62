//! What is shown of a payment: where it stands, computed and never set.

use std::fmt;

use mesh::money::Money;
use time::OffsetDateTime;
use uuid::Uuid;

use super::{Attempt, AttemptState, Kind, Method, Payment};

/// What is shown of a payment, and kept in its row beside the attempts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Overview {
    /// See [`Payment::id`].
    pub id: Uuid,
    /// See [`Payment::order`].
    pub order: String,
    /// See [`Payment::customer`].
    pub customer: String,
    /// Where it stands.
    pub state: State,
    /// See [`Payment::amount`].
    pub amount: Money,
    /// See [`Payment::authorized`].
    pub authorized: i64,
    /// See [`Payment::captured`].
    pub captured: i64,
    /// See [`Payment::refunded`].
    pub refunded: i64,
    /// See [`Payment::method`].
    pub method: Method,
    /// See [`Payment::authorization_expires_at`].
    pub authorization_expires_at: Option<OffsetDateTime>,
    /// Where the customer proves who they are.
    pub action_url: Option<String>,
    /// Why the last authorization was declined.
    pub decline_code: Option<String>,
    /// See [`Payment::revision`].
    pub revision: i64,
    /// See [`Payment::created_at`].
    pub created_at: OffsetDateTime,
    /// See [`Payment::updated_at`].
    pub updated_at: OffsetDateTime,
}

/// Where a payment stands: always computed by [`Payment::state`], never set.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum State {
    /// Nothing was asked of the provider yet.
    Created,
    /// The provider is being asked.
    Authorizing,
    /// The provider waits for the customer.
    ActionRequired,
    /// The amount is set aside.
    Authorized,
    /// What the provider did is not known.
    InDoubt,
    /// Declined, or without effect.
    Failed,
    /// Nothing is set aside, and nothing will be.
    Voided,
    /// A part was taken.
    PartiallyCaptured,
    /// Everything was taken that will be.
    Captured,
    /// A part of what was taken was given back.
    PartiallyRefunded,
    /// Everything that was taken was given back.
    Refunded,
}

// === impl Payment ===

impl Payment {
    /// Where it stands: the first of these that holds.
    #[must_use]
    pub fn state(&self) -> State {
        let doubtful = |attempt: &Attempt| attempt.state.is_doubtful();
        if self.attempts.iter().any(doubtful) {
            return State::InDoubt;
        }
        if self.refunded > 0 {
            let all = self.refunded >= self.captured;
            return if all { State::Refunded } else { State::PartiallyRefunded };
        }
        match (self.captured > 0, self.held() > 0) {
            (true, true) => return State::PartiallyCaptured,
            (true, false) => return State::Captured,
            (false, true) => return State::Authorized,
            (false, false) => {}
        }
        match self.last(Kind::Authorize).map(|attempt| attempt.state) {
            Some(AttemptState::ActionRequired) => State::ActionRequired,
            Some(AttemptState::Created | AttemptState::Sent) => State::Authorizing,
            _ if self.voided_at.is_some() => State::Voided,
            Some(AttemptState::Declined | AttemptState::Failed) => State::Failed,
            // Succeeded and nothing left of it: the provider gave it back.
            Some(AttemptState::Succeeded) => State::Voided,
            Some(AttemptState::Unknown | AttemptState::NeedsReview) => State::InDoubt,
            None => State::Created,
        }
    }

    /// What is shown of it.
    #[must_use]
    pub fn overview(&self) -> Overview {
        let state = self.state();
        let last = self.last(Kind::Authorize);
        let action = last.filter(|_| state == State::ActionRequired);
        let declined = last.filter(|_| state == State::Failed);
        Overview {
            id: self.id,
            order: self.order.clone(),
            customer: self.customer.clone(),
            state,
            amount: self.amount,
            authorized: self.authorized,
            captured: self.captured,
            refunded: self.refunded,
            method: self.method.clone(),
            authorization_expires_at: self.authorization_expires_at,
            action_url: action.and_then(|attempt| attempt.action_url.clone()),
            decline_code: declined.and_then(|attempt| attempt.decline_code.clone()),
            revision: self.revision,
            created_at: self.created_at,
            updated_at: self.updated_at,
        }
    }
}

// === impl State ===

impl fmt::Display for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Created => "CREATED",
            Self::Authorizing => "AUTHORIZING",
            Self::ActionRequired => "ACTION_REQUIRED",
            Self::Authorized => "AUTHORIZED",
            Self::InDoubt => "IN_DOUBT",
            Self::Failed => "FAILED",
            Self::Voided => "VOIDED",
            Self::PartiallyCaptured => "PARTIALLY_CAPTURED",
            Self::Captured => "CAPTURED",
            Self::PartiallyRefunded => "PARTIALLY_REFUNDED",
            Self::Refunded => "REFUNDED",
        })
    }
}
