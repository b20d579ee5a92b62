//! Goods leave, and come back.

use time::OffsetDateTime;

use super::{Authority, Change, Event, Reservation, State, moves};
use crate::domain::{Movement, Place, Refusal, allocation::Allotment};

/// Some units of a line at one place.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Part {
    /// The id of the order's line.
    pub line: String,
    /// Where.
    pub place: Place,
    /// How many, above zero.
    pub quantity: i64,
}

impl Reservation {
    /// Goods leave: so much of these lines.
    ///
    /// # Errors
    /// [`Refusal::Owned`] if another owns it, [`Refusal::State`] unless it is committed,
    /// [`Refusal::Part`] if less is left of a line.
    pub fn fulfill(
        &mut self,
        by: Authority<'_>,
        parts: &[Part],
        at: OffsetDateTime,
    ) -> Result<Change, Refusal> {
        self.allows(by)?;
        match self.state {
            State::Committed => {}
            State::Held | State::Fulfilled | State::Released | State::Expired => {
                return Err(Refusal::State(self.state));
            }
        }
        let parts = self.take(parts, |part, quantity| {
            part.shipped += quantity;
            part.open() >= 0
        })?;
        let done = self.parts.iter().all(|part| part.open() == 0);
        self.moved_to(if done { State::Fulfilled } else { State::Committed }, at);
        let moves = moves(&parts, Movement::Shipped);
        Ok(Change { event: Event::Shipped { parts }, moves })
    }

    /// Goods come back: so much of these lines.
    ///
    /// # Errors
    /// [`Refusal::Owned`] if another owns it, [`Refusal::Part`] if less of a line has left.
    pub fn restock(
        &mut self,
        by: Authority<'_>,
        parts: &[Part],
        at: OffsetDateTime,
    ) -> Result<Change, Refusal> {
        self.allows(by)?;
        let parts = self.take(parts, |part, quantity| {
            part.returned += quantity;
            part.returned <= part.shipped
        })?;
        self.moved_to(self.state, at);
        let moves = moves(&parts, Movement::Returned);
        Ok(Change { event: Event::Returned { parts }, moves })
    }

    /// Counts units in their parts; what is counted, as parts of its own.
    fn take(
        &mut self,
        parts: &[Part],
        counts: impl Fn(&mut Allotment, i64) -> bool,
    ) -> Result<Vec<Allotment>, Refusal> {
        let mut kept = self.parts.clone();
        let mut taken = Vec::new();
        for wanted in parts {
            let is = |it: &&mut Allotment| it.line == wanted.line && it.place == wanted.place;
            let refused = || Refusal::Part(wanted.line.clone());
            let part = kept.iter_mut().find(is).ok_or_else(refused)?;
            if wanted.quantity < 1 || !counts(part, wanted.quantity) {
                return Err(refused());
            }
            taken.push(Allotment { quantity: wanted.quantity, ..part.clone() });
        }
        self.parts = kept;
        Ok(taken)
    }
}
