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

#[cfg(test)]
mod tests {
    use time::macros::datetime;
    use uuid::Uuid;

    use super::*;
    use crate::domain::{Sku, reservation::Terms};

    const NOON: OffsetDateTime = datetime!(2024-05-01 12:00 UTC);
    const SAGA: Authority<'_> = Authority::Saga("s1");

    /// Line 1: two A at north and one at east; line 2: three B at north.
    fn reservation(state: State) -> Reservation {
        let part = |line: &str, sku: &str, place: &str, quantity| Allotment {
            line: line.to_owned(),
            sku: Sku::parse(sku).unwrap(),
            place: Place::parse(place).unwrap(),
            quantity,
            shipped: 0,
            returned: 0,
        };
        let parts =
            vec![part("1", "A", "east", 1), part("1", "A", "north", 2), part("2", "B", "north", 3)];
        let (mut held, _) =
            Reservation::hold(Uuid::nil(), None, SAGA, parts, Terms::STANDARD, NOON);
        held.state = state;
        held
    }

    fn some(line: &str, place: &str, quantity: i64) -> Part {
        Part { line: line.to_owned(), place: Place::parse(place).unwrap(), quantity }
    }

    fn moved(change: &Change) -> Vec<(String, Movement, i64)> {
        let told = |m: &crate::domain::reservation::Move| {
            (format!("{}@{}", m.sku, m.place), m.movement, m.quantity)
        };
        change.moves.iter().map(told).collect()
    }

    #[test]
    fn only_what_is_committed_leaves() {
        for state in [State::Held, State::Fulfilled, State::Released, State::Expired] {
            let mut reservation = reservation(state);
            let refused = reservation.fulfill(SAGA, &[some("1", "east", 1)], NOON);
            assert_eq!(refused, Err(Refusal::State(state)));
        }
    }

    #[test]
    fn a_reservation_is_fulfilled_when_its_last_part_has_left() {
        let mut reservation = reservation(State::Committed);
        let first = [some("2", "north", 2), some("1", "north", 2)];
        let change = reservation.fulfill(SAGA, &first, NOON).unwrap();
        assert_eq!(
            moved(&change),
            [
                ("A@north".to_owned(), Movement::Shipped, 2),
                ("B@north".to_owned(), Movement::Shipped, 2)
            ]
        );
        assert_eq!(reservation.state, State::Committed);
        let rest = [some("2", "north", 1), some("1", "east", 1)];
        reservation.fulfill(SAGA, &rest, NOON).unwrap();
        assert_eq!((reservation.state, reservation.revision), (State::Fulfilled, 3));
    }

    #[test]
    fn what_has_not_left_is_given_back_and_nothing_else() {
        let mut reservation = reservation(State::Committed);
        let left = [some("1", "north", 2), some("2", "north", 1)];
        reservation.fulfill(SAGA, &left, NOON).unwrap();
        let change = reservation.release(SAGA, NOON).unwrap().expect("a change");
        assert_eq!(
            moved(&change),
            [
                ("A@east".to_owned(), Movement::Deallocated, 1),
                ("B@north".to_owned(), Movement::Deallocated, 2)
            ]
        );
        assert_eq!(reservation.state, State::Fulfilled);
    }

    #[test]
    fn a_refused_part_leaves_everything_as_it_is() {
        let mut reservation = reservation(State::Committed);
        reservation.fulfill(SAGA, &[some("1", "north", 1)], NOON).unwrap();
        let before = reservation.clone();
        for (line, place, quantity) in
            [("1", "north", 2), ("1", "east", 0), ("1", "west", 1), ("3", "north", 1)]
        {
            let parts = [some("2", "north", 1), some(line, place, quantity)];
            let refused = Err(Refusal::Part(line.to_owned()));
            assert_eq!(reservation.fulfill(SAGA, &parts, NOON), refused, "{line} {place}");
            let back = reservation.restock(SAGA, &[some(line, place, quantity)], NOON);
            assert_eq!(back, refused, "{line} {place}");
        }
        // Twice the same part counts twice.
        let twice = [some("1", "east", 1), some("1", "east", 1)];
        assert_eq!(reservation.fulfill(SAGA, &twice, NOON), Err(Refusal::Part("1".to_owned())));
        assert_eq!(reservation, before);
    }

    #[test]
    fn no_more_comes_back_than_has_left_and_the_reservation_stays_ended() {
        let mut reservation = reservation(State::Committed);
        reservation.fulfill(SAGA, &[some("2", "north", 2)], NOON).unwrap();
        reservation.release(SAGA, NOON).unwrap();
        let change = reservation.restock(SAGA, &[some("2", "north", 1)], NOON).unwrap();
        assert_eq!(moved(&change), [("B@north".to_owned(), Movement::Returned, 1)]);
        assert_eq!(reservation.state, State::Fulfilled);
        let more = reservation.restock(SAGA, &[some("2", "north", 2)], NOON);
        assert_eq!(more, Err(Refusal::Part("2".to_owned())));
    }

    #[test]
    fn the_commands_of_its_saga_alone_let_goods_leave_and_come_back() {
        let mut reservation = reservation(State::Committed);
        let refused = Err(Refusal::Owned("s1".to_owned()));
        let part = [some("2", "north", 1)];
        for by in [Authority::Person, Authority::Saga("s2")] {
            assert_eq!(reservation.fulfill(by, &part, NOON), refused, "{by:?}");
            assert_eq!(reservation.restock(by, &part, NOON), refused, "{by:?}");
        }
    }
}
