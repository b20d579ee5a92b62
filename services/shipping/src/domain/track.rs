//! What a carrier reports, and the way that a shipment goes.

use super::{AttemptState, Change, Event, Kind, Refusal, Shipment, State};

/// Who takes a parcel.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Booking {
    /// The carrier's name.
    pub carrier: String,
    /// What it calls the parcel.
    pub tracking: String,
}

/// What a carrier reports about a parcel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sign {
    /// It has it.
    PickedUp,
    /// It is on its way.
    InTransit,
    /// The customer has it.
    Delivered,
    /// It is gone.
    Lost,
    /// It is back where it lay.
    Returned,
}

// === impl Shipment ===

impl Shipment {
    /// Takes in what the carrier itself reports. What comes late changes nothing; what comes
    /// early stands for what is missing before it, also for answers that did not arrive.
    ///
    /// # Errors
    /// [`Refusal::State`] if it was cancelled, or came to another end.
    pub fn track(&mut self, sign: Sign, booking: Booking) -> Result<Change, Refusal> {
        self.can_reach(sign.state())?;
        for attempt in self.attempts.iter_mut().filter(|one| !one.state.is_final()) {
            attempt.end(match attempt.kind {
                Kind::Book | Kind::HandOver => AttemptState::Succeeded,
                Kind::Cancel => AttemptState::Declined,
            });
        }
        self.cancel_reason = None;
        Ok(self.pass(sign.state(), Some(booking)))
    }

    /// Takes in what a person says that the carrier did.
    ///
    /// # Errors
    /// As [`Shipment::track`]; also [`Refusal::State`] if no carrier is known to take it, and
    /// [`Refusal::InProgress`] while the carrier is asked to give it back: its answer decides.
    pub fn noted(&mut self, sign: Sign) -> Result<Change, Refusal> {
        let Some(booking) = self.booking.clone() else { return Err(Refusal::State(self.state)) };
        self.can_reach(sign.state())?;
        if self.state == State::Booked && self.cancel_reason.is_some() {
            return Err(Refusal::InProgress);
        }
        self.track(sign, booking)
    }

    fn can_reach(&self, target: State) -> Result<(), Refusal> {
        match self.state {
            State::Pending | State::Booked | State::Dispatched | State::InTransit => Ok(()),
            State::Delivered | State::Lost | State::Returned => {
                let contradicts = target.end().is_some() && target != self.state;
                if contradicts { Err(Refusal::State(self.state)) } else { Ok(()) }
            }
            State::Cancelled => Err(Refusal::State(self.state)),
        }
    }

    /// Goes the way to `target`, through every state before it. From there or beyond, nothing
    /// happens.
    pub(super) fn pass(&mut self, target: State, booking: Option<Booking>) -> Change {
        if self.booking.is_none() {
            self.booking = booking;
        }
        let mut change = Change::default();
        if self.state > State::InTransit {
            return change;
        }
        let stops = WAY.into_iter().chain(target.end().map(|event| (target, event)));
        for (stop, event) in stops.filter(|(stop, _)| *stop <= target) {
            if self.state < stop {
                self.state = stop;
                change.events.push(event);
            }
        }
        change
    }
}

/// Where every shipment comes by that arrives, and what is told of it.
const WAY: [(State, Event); 3] = [
    (State::Booked, Event::Booked),
    (State::Dispatched, Event::Dispatched),
    (State::InTransit, Event::InTransit),
];

// === impl State ===

impl State {
    /// What is told of a shipment that ends its way here.
    fn end(self) -> Option<Event> {
        match self {
            Self::Delivered => Some(Event::Delivered),
            Self::Lost => Some(Event::Lost),
            Self::Returned => Some(Event::Returned),
            // Cancelling has a way of its own.
            Self::Pending | Self::Booked | Self::Dispatched | Self::InTransit | Self::Cancelled => {
                None
            }
        }
    }
}

// === impl Sign ===

impl Sign {
    /// Where a shipment is when this is reported of it.
    #[must_use]
    pub fn state(self) -> State {
        match self {
            Self::PickedUp => State::Dispatched,
            Self::InTransit => State::InTransit,
            Self::Delivered => State::Delivered,
            Self::Lost => State::Lost,
            Self::Returned => State::Returned,
        }
    }
}
