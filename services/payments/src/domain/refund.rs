//! What is given back of what was taken: granted at once, paid capture by capture.

use std::fmt;

use mesh::money::Money;
use time::OffsetDateTime;
use uuid::Uuid;

use super::{
    Attempt, AttemptState, Change, Event, Kind, Outcome, Pace, Payment, Refusal, Report, Started,
    ledger,
};

/// A part of what was taken that is to be given back.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refund {
    /// Its id.
    pub id: Uuid,
    /// How much was granted.
    pub amount: Money,
    /// Why, in the words of whoever granted it.
    pub reason: String,
    /// The saga that asked for it; empty if a person did.
    pub saga: String,
    /// When it was granted.
    pub created_at: OffsetDateTime,
}

/// A refund as it is shown, and kept in its row beside the attempts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RefundOverview {
    /// What was granted.
    pub refund: Refund,
    /// Of which payment.
    pub payment: Uuid,
    /// See [`Payment::order`].
    pub order: String,
    /// How far it has come.
    pub state: RefundState,
    /// Minor units that were given back so far.
    pub refunded: i64,
    /// Why it failed.
    pub decline_code: Option<String>,
}

/// How far a refund has come: always computed, never set.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum RefundState {
    /// Granted, and not all of it given back yet.
    Pending,
    /// All of it was given back.
    Succeeded,
    /// The provider gives back no more of it.
    Failed,
}

/// Why a part of a refund was not asked for: the part before it had failed.
pub const NOT_SENT: &str = "not_sent";

// === impl Payment ===

impl Payment {
    /// Grants a refund. The provider gives back capture by capture, so there is one attempt for
    /// each capture that the amount is taken from; `id` names those after the first, which wait
    /// for the one before.
    ///
    /// # Errors
    /// [`Refusal::InProgress`] while another refund is being paid, [`Refusal::Currency`], and
    /// [`Refusal::ExceedsCaptured`] if what was granted so far leaves less.
    pub fn refund(
        &mut self,
        attempt: Started,
        refund: Refund,
        id: impl Fn() -> Uuid,
        pace: &Pace,
    ) -> Result<Change, Refusal> {
        let is_open = |one: &Attempt| one.kind == Kind::Refund && !one.state.is_final();
        if self.attempts.iter().any(is_open) {
            return Err(Refusal::InProgress);
        }
        if refund.amount.currency != self.amount.currency {
            return Err(Refusal::Currency);
        }
        let left = self.captured.saturating_sub(self.granted());
        if refund.amount.minor > left {
            return Err(Refusal::ExceedsCaptured(self.money(left)));
        }
        let mut change = Change::default();
        for (target, minor) in self.sources(refund.amount.minor) {
            let is_first = change.send.is_none();
            let started = if is_first { attempt } else { Started { id: id(), ..attempt } };
            self.add(started, Kind::Refund, self.money(minor), true, pace);
            let Some(part) = self.attempts.last_mut() else { continue };
            (part.target, part.refund) = (target, Some(refund.id));
            if is_first {
                part.send(attempt.at, pace);
                change.send = Some(part.id);
            } else {
                part.next_try_at = None;
            }
            change.postings.extend(ledger::granted(&part.reference, part.amount));
        }
        self.refunds.push(refund);
        Ok(change)
    }

    /// The refund with this id.
    #[must_use]
    pub fn refund_overview(&self, id: Uuid) -> Option<RefundOverview> {
        let refund = self.refunds.iter().find(|refund| refund.id == id)?.clone();
        let parts = || self.attempts.iter().filter(|attempt| attempt.refund == Some(id));
        let failed =
            |one: &&Attempt| matches!(one.state, AttemptState::Declined | AttemptState::Failed);
        let paid = parts().filter(|one| one.state == AttemptState::Succeeded);
        let state = if parts().any(|one| !one.state.is_final()) {
            RefundState::Pending
        } else if parts().any(|one| failed(&one)) {
            RefundState::Failed
        } else {
            RefundState::Succeeded
        };
        Some(RefundOverview {
            refund,
            payment: self.id,
            order: self.order.clone(),
            state,
            refunded: paid.map(|one| one.amount.minor).sum(),
            decline_code: parts().find(failed).and_then(|one| one.decline_code.clone()),
        })
    }

    /// Takes in what became of a part of a refund, and lets the next part follow it, or none.
    pub(super) fn refund_became(
        &mut self,
        attempt: &Attempt,
        report: &Report,
        change: &mut Change,
        pace: &Pace,
    ) {
        let Some(refund) = attempt.refund else { return };
        let waits =
            |one: &&mut Attempt| one.refund == Some(refund) && one.state == AttemptState::Created;
        match attempt.state {
            AttemptState::Succeeded => {
                self.refunded += attempt.amount.minor;
                change.postings.extend(ledger::refunded(&attempt.reference, attempt.amount));
                change.events.push(Event::Refunded { refund, amount: attempt.amount });
                if let Some(next) = self.attempts.iter_mut().find(waits) {
                    next.next_try_at = Some(report.at + pace.unsent_after);
                    change.send = Some(next.id);
                }
            }
            AttemptState::Declined | AttemptState::Failed => {
                change.postings.extend(ledger::revoked(&attempt.reference, attempt.amount));
                for left in self.attempts.iter_mut().filter(waits) {
                    let outcome = Outcome::Failed { code: NOT_SENT.to_owned() };
                    left.settle(&outcome, AttemptState::Failed);
                    change.postings.extend(ledger::revoked(&left.reference, left.amount));
                }
            }
            AttemptState::Created
            | AttemptState::Sent
            | AttemptState::Unknown
            | AttemptState::ActionRequired
            | AttemptState::NeedsReview => {}
        }
    }

    /// Minor units that were promised back, whether they were paid or are going to be.
    fn granted(&self) -> i64 {
        let refunds = self.attempts.iter().filter(|one| one.kind == Kind::Refund);
        refunds.filter(|one| one.is_promise()).map(|one| one.amount.minor).sum()
    }

    /// Which captures an amount is given back of, the first first, and how much of each.
    fn sources(&self, mut amount: i64) -> Vec<(Option<String>, i64)> {
        let mut sources = Vec::new();
        let taken =
            |one: &&Attempt| one.kind == Kind::Capture && one.state == AttemptState::Succeeded;
        for capture in self.attempts.iter().filter(taken) {
            let of_it = |one: &&Attempt| {
                one.kind == Kind::Refund && one.is_promise() && one.target == capture.provider_id
            };
            let given: i64 = self.attempts.iter().filter(of_it).map(|one| one.amount.minor).sum();
            let part = capture.amount.minor.saturating_sub(given).min(amount);
            if part > 0 {
                sources.push((capture.provider_id.clone(), part));
                amount -= part;
            }
        }
        sources
    }
}

// === impl Attempt ===

impl Attempt {
    /// Whether what was asked for counts: it was done, or may yet be.
    fn is_promise(&self) -> bool {
        !matches!(self.state, AttemptState::Declined | AttemptState::Failed)
    }
}

// === impl RefundState ===

impl fmt::Display for RefundState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Pending => "PENDING",
            Self::Succeeded => "SUCCEEDED",
            Self::Failed => "FAILED",
        })
    }
}
