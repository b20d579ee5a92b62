//! What a shipment is and may become: its states, what the carrier is asked, what it reports.
//!
//! Nothing here reads a clock or asks anybody: ids and times come in, and what the carrier did is
//! an [`Outcome`] or a [`Sign`] that somebody else brought home.

mod attempt;
mod parts;
mod track;
#[cfg(test)]
mod tests;

use std::{fmt, time::Duration};

use time::OffsetDateTime;
use uuid::Uuid;

pub use attempt::{
    Attempt, AttemptState, Kind, Outcome, Pace, Report, Started, parcel_of, shipment_of,
};
pub use parts::{Address, Line, Plan};
pub use track::{Booking, Sign};

/// Goods of one order that are sent together, from one location.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Shipment {
    /// Its id.
    pub id: Uuid,
    /// What is sent, for whom, from where and where to. Empty if it was cancelled before it came
    /// to be.
    pub plan: Plan,
    /// Where it is.
    pub state: State,
    /// Why it is cancelled, or going to be as soon as the carrier has answered.
    pub cancel_reason: Option<CancelReason>,
    /// Who takes it, once that is known.
    pub booking: Option<Booking>,
    /// What the carrier was asked, in that order.
    pub attempts: Vec<Attempt>,
    /// How many events it has caused.
    pub revision: i64,
    /// When it was noted.
    pub created_at: OffsetDateTime,
    /// When it was changed last.
    pub updated_at: OffsetDateTime,
}

/// Where a shipment is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum State {
    /// The carrier was not asked yet, or has not answered.
    Pending,
    /// The carrier will take it.
    Booked,
    /// The carrier has it.
    Dispatched,
    /// On its way.
    InTransit,
    /// The customer has it.
    Delivered,
    /// Gone on its way.
    Lost,
    /// Back where it lay.
    Returned,
    /// It stays where it lies.
    Cancelled,
}

/// Why a shipment is cancelled.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CancelReason {
    /// Its order was called off.
    OrderCancelled,
    /// The goods are not there.
    GoodsUnavailable,
    /// The carrier does not take it.
    CarrierRefused,
}

/// A rule said no.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// The shipment is past the point where this is possible, or not at it.
    #[error("the shipment is {0}")]
    State(State),
    /// It was cancelled before it came to be.
    #[error("the shipment was cancelled before it came to be")]
    Undone,
    /// It is not known yet what the carrier did.
    #[error("the carrier is being asked")]
    InProgress,
}

/// What happened, to be published.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Event {
    /// It is going to be sent.
    Created,
    /// The carrier will take it.
    Booked,
    /// The carrier has it.
    Dispatched,
    /// It is on its way.
    InTransit,
    /// The customer has it.
    Delivered,
    /// It is gone.
    Lost,
    /// It is back.
    Returned,
    /// It stays where it lies.
    Cancelled,
}

/// What a change leaves behind besides the shipment itself.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Change {
    /// Published, in this order.
    pub events: Vec<Event>,
    /// An attempt that is to be sent now.
    pub send: Option<Uuid>,
}

/// How long a caller waits before it asks again about a shipment that the carrier is asked about.
pub const RETRY_AFTER: Duration = Duration::from_millis(200);

// === impl Shipment ===

impl Shipment {
    /// A shipment with the attempt to book it, which is due at once.
    #[must_use]
    pub fn create(id: Uuid, plan: Plan, booking: Started) -> (Self, Change) {
        let mut shipment = Self {
            id,
            plan,
            state: State::Pending,
            cancel_reason: None,
            booking: None,
            attempts: Vec::new(),
            revision: 0,
            created_at: booking.at,
            updated_at: booking.at,
        };
        shipment.attempts.push(Attempt::new(booking, shipment.id, Kind::Book, 1));
        (shipment, Change { events: vec![Event::Created], send: None })
    }

    /// What is left of a shipment that was cancelled before it came to be: the sign that says so.
    /// Nobody knew of it, so nobody is told.
    #[must_use]
    pub fn tombstone(id: Uuid, reason: CancelReason, at: OffsetDateTime) -> Self {
        Self {
            id,
            plan: Plan::default(),
            state: State::Cancelled,
            cancel_reason: Some(reason),
            booking: None,
            attempts: Vec::new(),
            revision: 0,
            created_at: at,
            updated_at: at,
        }
    }

    /// Whether it was cancelled before it came to be.
    #[must_use]
    pub fn is_tombstone(&self) -> bool {
        self.plan.order.is_empty()
    }

    /// The attempt with this id.
    #[must_use]
    pub fn attempt(&self, id: Uuid) -> Option<&Attempt> {
        self.attempts.iter().find(|attempt| attempt.id == id)
    }

    /// Keeps the goods where they lie: at once, or as soon as the carrier has agreed. Whether
    /// that is so is [`Shipment::is_cancelled`].
    ///
    /// # Errors
    /// [`Refusal::State`] if the carrier has it, or it is cancelled; [`Refusal::InProgress`] while
    /// it is handed over.
    pub fn cancel(
        &mut self,
        started: Started,
        reason: CancelReason,
        pace: &Pace,
    ) -> Result<Change, Refusal> {
        match self.state {
            State::Pending => {
                self.cancel_reason.get_or_insert(reason);
                let mut unsent = self.attempts.iter_mut();
                match unsent.find(|attempt| attempt.state == AttemptState::Created) {
                    Some(attempt) => {
                        attempt.end(AttemptState::Failed);
                        Ok(self.cancelled(reason))
                    }
                    // Asked already: `apply` goes on when the carrier has answered.
                    None => Ok(Change::default()),
                }
            }
            State::Booked => match self.open() {
                None => {
                    self.cancel_reason = Some(reason);
                    Ok(self.begin(started, Kind::Cancel, pace))
                }
                Some(Kind::Cancel) => Ok(Change::default()),
                Some(Kind::Book | Kind::HandOver) => Err(Refusal::InProgress),
            },
            State::Dispatched
            | State::InTransit
            | State::Delivered
            | State::Lost
            | State::Returned
            | State::Cancelled => Err(Refusal::State(self.state)),
        }
    }

    /// What came of cancelling it.
    ///
    /// # Errors
    /// [`Refusal::InProgress`] while that is not known, [`Refusal::State`] if the carrier has it.
    pub fn is_cancelled(&self) -> Result<(), Refusal> {
        match self.state {
            State::Cancelled => Ok(()),
            State::Pending | State::Booked if self.cancel_reason.is_some() => {
                Err(Refusal::InProgress)
            }
            State::Pending
            | State::Booked
            | State::Dispatched
            | State::InTransit
            | State::Delivered
            | State::Lost
            | State::Returned => Err(Refusal::State(self.state)),
        }
    }

    /// Hands the goods to the carrier. Whether it has them is [`Shipment::is_dispatched`].
    ///
    /// # Errors
    /// [`Refusal::State`] if it is not booked, [`Refusal::InProgress`] while the carrier is asked
    /// something.
    pub fn dispatch(&mut self, started: Started, pace: &Pace) -> Result<Change, Refusal> {
        match self.state {
            State::Booked => match self.open() {
                None => Ok(self.begin(started, Kind::HandOver, pace)),
                Some(Kind::Book | Kind::Cancel | Kind::HandOver) => Err(Refusal::InProgress),
            },
            State::Pending
            | State::Dispatched
            | State::InTransit
            | State::Delivered
            | State::Lost
            | State::Returned
            | State::Cancelled => Err(Refusal::State(self.state)),
        }
    }

    /// What came of handing it over.
    ///
    /// # Errors
    /// [`Refusal::InProgress`] while that is not known, [`Refusal::State`] if the carrier does not
    /// have it.
    pub fn is_dispatched(&self) -> Result<(), Refusal> {
        match self.state {
            State::Dispatched
            | State::InTransit
            | State::Delivered
            | State::Lost
            | State::Returned => Ok(()),
            State::Booked if self.open().is_some() => Err(Refusal::InProgress),
            State::Pending | State::Booked | State::Cancelled => Err(Refusal::State(self.state)),
        }
    }

    /// Takes in what the carrier did with an attempt. What is known already stays.
    pub fn apply(&mut self, report: Report, pace: &Pace) -> Change {
        let Report { attempt, outcome, at, spare } = report;
        let Some(attempt) = self.attempts.iter_mut().find(|one| one.id == attempt) else {
            return Change::default();
        };
        if attempt.state.is_final() {
            return Change::default();
        }
        let kind = attempt.kind;
        match outcome {
            Outcome::Unknown => {
                attempt.in_doubt(at, pace);
                Change::default()
            }
            Outcome::Done(booking) => {
                attempt.end(AttemptState::Succeeded);
                self.done(kind, booking, Started { id: spare, at }, pace)
            }
            Outcome::Declined { code } => {
                attempt.end(AttemptState::Declined);
                attempt.decline_code = Some(code);
                self.declined(kind)
            }
        }
    }

    fn done(&mut self, kind: Kind, booking: Booking, next: Started, pace: &Pace) -> Change {
        match kind {
            Kind::Book => {
                let mut change = self.pass(State::Booked, Some(booking));
                // Somebody cancelled it while the carrier was asked.
                if self.state == State::Booked && self.cancel_reason.is_some() {
                    change.send = self.begin(next, Kind::Cancel, pace).send;
                }
                change
            }
            Kind::HandOver => self.pass(State::Dispatched, Some(booking)),
            Kind::Cancel => {
                self.cancelled(self.cancel_reason.unwrap_or(CancelReason::OrderCancelled))
            }
        }
    }

    fn declined(&mut self, kind: Kind) -> Change {
        match kind {
            Kind::Book => {
                self.cancelled(self.cancel_reason.unwrap_or(CancelReason::CarrierRefused))
            }
            Kind::Cancel => {
                // The carrier has it: its report of that is on the way.
                self.cancel_reason = None;
                Change::default()
            }
            Kind::HandOver => Change::default(),
        }
    }

    fn cancelled(&mut self, reason: CancelReason) -> Change {
        match self.state {
            State::Pending | State::Booked => {
                self.state = State::Cancelled;
                self.cancel_reason = Some(reason);
                Change { events: vec![Event::Cancelled], send: None }
            }
            State::Dispatched
            | State::InTransit
            | State::Delivered
            | State::Lost
            | State::Returned
            | State::Cancelled => Change::default(),
        }
    }

    /// What the carrier is being asked, if it is.
    fn open(&self) -> Option<Kind> {
        let mut attempts = self.attempts.iter();
        attempts.find(|attempt| !attempt.state.is_final()).map(|attempt| attempt.kind)
    }

    /// Adds an attempt that is sent as soon as it is committed: it counts as sent from then on.
    fn begin(&mut self, started: Started, kind: Kind, pace: &Pace) -> Change {
        let n = 1 + self.attempts.iter().filter(|attempt| attempt.kind == kind).count();
        let mut attempt = Attempt::new(started, self.id, kind, n);
        attempt.state = AttemptState::Sent;
        attempt.next_try_at = Some(started.at + pace.unsent_after);
        self.attempts.push(attempt);
        Change { events: Vec::new(), send: Some(started.id) }
    }
}

// === impl State ===

impl fmt::Display for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Pending => "PENDING",
            Self::Booked => "BOOKED",
            Self::Dispatched => "DISPATCHED",
            Self::InTransit => "IN_TRANSIT",
            Self::Delivered => "DELIVERED",
            Self::Lost => "LOST",
            Self::Returned => "RETURNED",
            Self::Cancelled => "CANCELLED",
        })
    }
}
