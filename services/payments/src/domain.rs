//! What a payment is and may become: attempts, their outcomes, and the postings they leave.
//!
//! Nothing here reads a clock or asks anybody: ids and times come in, and what the provider did
//! is an [`Outcome`] that somebody else brought home.

mod overview;
mod method;
mod attempt;
mod outcome;
mod pace;
mod settle;
mod refund;
mod ledger;
#[cfg(test)]
mod tests;

use std::time::Duration;

use mesh::money::Money;
use time::OffsetDateTime;
use uuid::Uuid;

pub use attempt::{Attempt, AttemptState, Kind, Started};
pub use ledger::{Account, Movement, Posting, Unbalanced, balanced};
pub use method::{Method, MethodError};
pub use outcome::{Outcome, Source};
pub use overview::{Overview, State};
pub use pace::{Pace, Probe};
pub use refund::{NOT_SENT, Refund, RefundOverview, RefundState};
pub use settle::{Report, VOIDED};

/// What one order is paid with, and everything the provider was asked about it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Payment {
    /// The id of its order.
    pub id: Uuid,
    /// `orders/{uuid}`; empty if the payment was voided before it came to be.
    pub order: String,
    /// `users/{uuid}`; empty likewise.
    pub customer: String,
    /// What is to be paid. Nothing, if it was voided before it came to be.
    pub amount: Money,
    /// What the customer pays with.
    pub method: Method,
    /// Minor units that the provider holds or has taken.
    pub authorized: i64,
    /// Minor units of those that it has taken.
    pub captured: i64,
    /// Minor units of those that were given back.
    pub refunded: i64,
    /// Since when nothing may be authorized any more.
    pub voided_at: Option<OffsetDateTime>,
    /// When the provider gives back what it holds.
    pub authorization_expires_at: Option<OffsetDateTime>,
    /// What the provider was asked, in that order.
    pub attempts: Vec<Attempt>,
    /// What was granted of what was taken, in that order.
    pub refunds: Vec<Refund>,
    /// How many events it has caused.
    pub revision: i64,
    /// When it was noted.
    pub created_at: OffsetDateTime,
    /// When it was changed last.
    pub updated_at: OffsetDateTime,
}

/// A rule said no.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// The payment is past the point where this is possible, or not at it.
    #[error("the payment is {0}")]
    State(State),
    /// It was voided.
    #[error("the payment was voided")]
    Undone,
    /// An attempt is under way or in doubt.
    #[error("the payment provider is being asked")]
    InProgress,
    /// The amount is in another currency.
    #[error("the payment is in another currency")]
    Currency,
    /// More than is set aside.
    #[error("no more than {0} is set aside")]
    Exceeds(Money),
    /// More than was taken and not granted back yet.
    #[error("no more than {0} is left of what was taken")]
    ExceedsCaptured(Money),
    /// The authorization or capture succeeded, and what the provider calls it is not known.
    #[error("what the provider calls the authorization or the capture must be known")]
    ProviderId,
}

/// What happened, to be published.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// The amount is set aside.
    Authorized {
        /// How much.
        amount: Money,
    },
    /// The customer has to prove who they are.
    ActionRequired {
        /// Where.
        url: String,
    },
    /// An authorization was refused, or had no effect.
    Declined {
        /// Why.
        code: String,
        /// Whether it may be tried again.
        retriable: bool,
    },
    /// It is not known what became of an attempt.
    InDoubt {
        /// Which.
        reference: String,
    },
    /// What was set aside was taken.
    Captured {
        /// How much.
        amount: Money,
        /// Whether nothing more will be taken.
        last: bool,
    },
    /// Nothing is set aside any more, and nothing will be.
    Voided {
        /// What was given back.
        amount: Option<Money>,
    },
    /// A part of what was taken was given back.
    Refunded {
        /// By which refund.
        refund: Uuid,
        /// How much.
        amount: Money,
    },
}

/// What a change leaves behind besides the payment itself.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Change {
    /// Published, in this order.
    pub events: Vec<Event>,
    /// Posted to the ledger, each group summing to 0.
    pub postings: Vec<Posting>,
    /// An attempt that is to be sent now.
    pub send: Option<Uuid>,
}

// === impl Payment ===

impl Payment {
    /// A payment that nothing was asked about yet.
    #[must_use]
    pub fn new(
        id: Uuid,
        order: String,
        customer: String,
        amount: Money,
        method: Method,
        at: OffsetDateTime,
    ) -> Self {
        Self {
            id,
            order,
            customer,
            amount,
            method,
            authorized: 0,
            captured: 0,
            refunded: 0,
            voided_at: None,
            authorization_expires_at: None,
            attempts: Vec::new(),
            refunds: Vec::new(),
            revision: 0,
            created_at: at,
            updated_at: at,
        }
    }

    /// What is left of a payment that was voided before it came to be: the sign that says so.
    #[must_use]
    pub fn tombstone(id: Uuid, nothing: Money, at: OffsetDateTime) -> Self {
        let (order, customer) = (String::new(), String::new());
        Self::new(id, order, customer, nothing, Method::kept(String::new()), at)
    }

    /// Whether it was voided before it came to be.
    #[must_use]
    pub fn is_tombstone(&self) -> bool {
        self.order.is_empty()
    }

    /// Minor units that are set aside and not taken.
    #[must_use]
    pub fn held(&self) -> i64 {
        self.authorized - self.captured
    }

    /// The last attempt of a kind.
    #[must_use]
    pub fn last(&self, kind: Kind) -> Option<&Attempt> {
        self.attempts.iter().rev().find(|attempt| attempt.kind == kind)
    }

    /// The attempt with this id.
    #[must_use]
    pub fn attempt(&self, id: Uuid) -> Option<&Attempt> {
        self.attempts.iter().find(|attempt| attempt.id == id)
    }

    /// An amount in the payment's currency.
    #[must_use]
    pub fn money(&self, minor: i64) -> Money {
        Money::new(minor, self.amount.currency)
    }

    /// Notes that the amount is going to be set aside: the attempt counts as sent from now on.
    ///
    /// # Errors
    /// [`Refusal::Undone`] after a void, [`Refusal::InProgress`] while another attempt is open,
    /// [`Refusal::State`] if the amount is set aside already.
    pub fn authorize(
        &mut self,
        attempt: Started,
        method: Option<Method>,
        pace: &Pace,
    ) -> Result<Change, Refusal> {
        if self.voided_at.is_some() {
            return Err(Refusal::Undone);
        }
        self.nothing_open()?;
        match self.state() {
            State::Created | State::Failed => {}
            state @ (State::Authorizing
            | State::ActionRequired
            | State::Authorized
            | State::InDoubt
            | State::Voided
            | State::PartiallyCaptured
            | State::Captured
            | State::PartiallyRefunded
            | State::Refunded) => return Err(Refusal::State(state)),
        }
        if let Some(method) = method {
            self.method = method;
        }
        Ok(self.begin(attempt, Kind::Authorize, self.amount, true, pace))
    }

    /// Notes that what is set aside, or `amount` of it, is going to be taken; `last`: and no more
    /// after that.
    ///
    /// # Errors
    /// [`Refusal::State`] if nothing is set aside, [`Refusal::InProgress`] while an attempt is
    /// open, [`Refusal::Currency`] and [`Refusal::Exceeds`] for a wrong amount.
    pub fn capture(
        &mut self,
        attempt: Started,
        amount: Option<Money>,
        last: bool,
        pace: &Pace,
    ) -> Result<Change, Refusal> {
        self.nothing_open()?;
        let held = self.money(self.held());
        // A refund may be in doubt meanwhile: it is of other money.
        if held.minor <= 0 {
            return Err(Refusal::State(self.state()));
        }
        let wanted = amount.unwrap_or(held);
        if wanted.currency != held.currency {
            return Err(Refusal::Currency);
        }
        if wanted.minor > held.minor {
            return Err(Refusal::Exceeds(held));
        }
        Ok(self.begin(attempt, Kind::Capture, wanted, last || wanted == held, pace))
    }

    /// Lets nothing be authorized any more, and gives back what is set aside.
    ///
    /// What is under way is waited for: [`Payment::apply`] gives back what it turns out to have
    /// set aside. Whether there is something to wait for is [`Payment::is_settled`].
    pub fn void(&mut self, attempt: Started, pace: &Pace) -> Change {
        let first = self.voided_at.is_none();
        self.voided_at.get_or_insert(attempt.at);
        if self.can_give_back() {
            return self.begin(attempt, Kind::Void, self.money(self.held()), true, pace);
        }
        let mut change = Change::default();
        if first && self.is_settled() && self.captured == 0 {
            change.events.push(Event::Voided { amount: None });
        }
        change
    }

    /// Whether of what is set aside and taken nothing is under way and nothing in doubt. Refunds
    /// are of money that was taken already, and change nothing about that.
    #[must_use]
    pub fn is_settled(&self) -> bool {
        let decides = |attempt: &&Attempt| attempt.kind != Kind::Refund;
        self.attempts.iter().filter(decides).all(|attempt| attempt.state.is_final())
    }

    /// Notes that an attempt which was not sent yet is going to be.
    pub fn send(&mut self, attempt: Uuid, at: OffsetDateTime, pace: &Pace) {
        if let Some(attempt) = self.attempts.iter_mut().find(|one| one.id == attempt) {
            attempt.send(at, pace);
        }
    }

    /// Whether the provider has something that it can be told to give back: money it holds, or
    /// an authorization that it knows and that is not decided.
    fn can_give_back(&self) -> bool {
        let busy = |kind| self.attempts.iter().any(|one| one.kind == kind && !one.state.is_final());
        if busy(Kind::Void) || busy(Kind::Capture) {
            return false;
        }
        self.last(Kind::Authorize).is_some_and(|attempt| match attempt.state {
            AttemptState::Succeeded => self.held() > 0,
            AttemptState::ActionRequired | AttemptState::Unknown | AttemptState::NeedsReview => {
                attempt.provider_id.is_some()
            }
            AttemptState::Created
            | AttemptState::Sent
            | AttemptState::Declined
            | AttemptState::Failed => false,
        })
    }

    fn nothing_open(&self) -> Result<(), Refusal> {
        if self.is_settled() { Ok(()) } else { Err(Refusal::InProgress) }
    }

    /// Adds an attempt that is sent as soon as it is committed: it counts as sent from then on.
    fn begin(
        &mut self,
        started: Started,
        kind: Kind,
        amount: Money,
        last: bool,
        pace: &Pace,
    ) -> Change {
        let id = self.add(started, kind, amount, last, pace);
        if let Some(attempt) = self.attempts.last_mut() {
            attempt.send(started.at, pace);
        }
        Change { send: Some(id), ..Change::default() }
    }

    /// Adds an attempt, and with it the key that the provider will know it by.
    fn add(
        &mut self,
        started: Started,
        kind: Kind,
        amount: Money,
        last: bool,
        pace: &Pace,
    ) -> Uuid {
        let n = 1 + self.attempts.iter().filter(|attempt| attempt.kind == kind).count();
        let target = match kind {
            // A refund's own capture is set by whoever adds it.
            Kind::Authorize | Kind::Refund => None,
            Kind::Capture | Kind::Void => {
                self.last(Kind::Authorize).and_then(|attempt| attempt.provider_id.clone())
            }
        };
        self.updated_at = started.at;
        self.attempts.push(Attempt {
            last,
            target,
            method: self.method.clone(),
            next_try_at: Some(started.at + pace.unsent_after),
            ..Attempt::new(started, self.id, kind, n, amount)
        });
        started.id
    }
}

/// How long a caller waits before it asks again for a payment that is being settled.
pub const RETRY_AFTER: Duration = Duration::from_secs(1);
