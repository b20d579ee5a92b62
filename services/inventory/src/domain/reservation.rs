//! The life of a reservation: held, committed, and how it ends.

mod delivery;

use std::{collections::BTreeMap, fmt};

use time::{Duration, OffsetDateTime};
use uuid::Uuid;

use super::{
    Movement, Place, Refusal, Sku,
    allocation::{Allotment, Wanted},
};

pub use delivery::Part;

/// Stock that is kept for one order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reservation {
    /// Its id.
    pub id: Uuid,
    /// The order it is for.
    pub order: Option<Uuid>,
    /// The saga that owns it: its commands alone change it, and it does not end by time.
    pub saga: Option<String>,
    /// Where it stands.
    pub state: State,
    /// What is kept, and where.
    pub parts: Vec<Allotment>,
    /// When the hold ends by time.
    pub expires_at: OffsetDateTime,
    /// When its saga should have ended it; `None` if no saga owns it, or once it was told.
    pub overdue_at: Option<OffsetDateTime>,
    /// When it was committed.
    pub committed_at: Option<OffsetDateTime>,
    /// Rises with every change.
    pub revision: i64,
    /// When it was made.
    pub created_at: OffsetDateTime,
    /// When it changed last.
    pub updated_at: OffsetDateTime,
}

/// Where a reservation stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// Kept, until it is committed, released or expires.
    Held,
    /// Promised: waits for its shipment.
    Committed,
    /// All has been shipped or given back.
    Fulfilled,
    /// Given back.
    Released,
    /// Ended by time.
    Expired,
}

/// How long holds last.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Terms {
    /// One that no saga owns, unless it is extended.
    pub hold: Duration,
    /// One that a saga owns, until it is reported as overdue.
    pub overdue: Duration,
    /// One that a saga owns, until it is given up.
    pub given_up: Duration,
}

/// Who wants to change a reservation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Authority<'a> {
    /// A command of this saga.
    Saga(&'a str),
    /// Somebody who is no saga.
    Person,
}

/// What happened to a reservation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// Stock is kept for it, or goods came for a line that waited for them.
    Held,
    /// The hold lasts longer.
    Extended,
    /// Its saga should have ended it by now.
    Overdue {
        /// The saga.
        saga: String,
    },
    /// It was committed, or goods came for a line that waited for them.
    Allocated,
    /// What it kept is available again.
    Released {
        /// What it kept until now.
        parts: Vec<Allotment>,
    },
    /// The hold ended by time: what it kept is available again.
    Expired,
    /// Goods have left.
    Shipped {
        /// What.
        parts: Vec<Allotment>,
    },
    /// Goods that had left are there again.
    Returned {
        /// What.
        parts: Vec<Allotment>,
    },
}

/// What changes with a reservation: what happened, and the movements of stock.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Change {
    /// What is told to others.
    pub event: Event,
    /// What happens to the counters, by variant and place.
    pub moves: Vec<Move>,
}

/// A movement of one variant at one place.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Move {
    /// Of what.
    pub sku: Sku,
    /// Where.
    pub place: Place,
    /// Why.
    pub movement: Movement,
    /// How many, above zero.
    pub quantity: i64,
}

/// What committing asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Commit {
    /// The hold becomes an allocation.
    Promised(Change),
    /// The hold expired: its lines have to be allotted again, then [`Reservation::retake`].
    Expired(Vec<Wanted>),
    /// Nothing: it is committed already.
    Already,
}

// === impl Reservation ===

impl Reservation {
    /// A hold on what was allotted.
    #[must_use]
    pub fn hold(
        id: Uuid,
        order: Option<Uuid>,
        owner: Authority<'_>,
        parts: Vec<Allotment>,
        terms: Terms,
        at: OffsetDateTime,
    ) -> (Self, Change) {
        let (saga, expires_at, overdue_at) = match owner {
            Authority::Saga(saga) => {
                (Some(saga.to_owned()), at + terms.given_up, Some(at + terms.overdue))
            }
            Authority::Person => (None, at + terms.hold, None),
        };
        let held = Self {
            id,
            order,
            saga,
            state: State::Held,
            parts,
            expires_at,
            overdue_at,
            committed_at: None,
            revision: 1,
            created_at: at,
            updated_at: at,
        };
        let moves = held.moves(Movement::Held);
        (held, Change { event: Event::Held, moves })
    }

    /// What stays where a saga undid a hold that had not come: the late hold finds it.
    #[must_use]
    pub fn tombstone(id: Uuid, saga: &str, at: OffsetDateTime) -> Self {
        Self {
            id,
            order: None,
            saga: Some(saga.to_owned()),
            state: State::Released,
            parts: Vec::new(),
            expires_at: at,
            overdue_at: None,
            committed_at: None,
            revision: 1,
            created_at: at,
            updated_at: at,
        }
    }

    /// Turns the hold into an allocation.
    ///
    /// # Errors
    /// [`Refusal::Owned`] if another owns it, [`Refusal::State`] if it was given back or shipped.
    pub fn commit(&mut self, by: Authority<'_>, at: OffsetDateTime) -> Result<Commit, Refusal> {
        self.allows(by)?;
        match self.state {
            State::Held => {
                self.committed(at);
                let moves = self.moves(Movement::Allocated);
                Ok(Commit::Promised(Change { event: Event::Allocated, moves }))
            }
            State::Committed => Ok(Commit::Already),
            State::Expired => Ok(Commit::Expired(self.wanted())),
            State::Released | State::Fulfilled => Err(Refusal::State(self.state)),
        }
    }

    /// Commits an expired hold on what was allotted anew.
    pub fn retake(&mut self, parts: Vec<Allotment>, at: OffsetDateTime) -> Change {
        self.parts = parts;
        self.committed(at);
        let mut moves = self.moves(Movement::Held);
        moves.extend(self.moves(Movement::Allocated));
        Change { event: Event::Allocated, moves }
    }

    /// Gives back what is kept; `None` if it has ended already.
    ///
    /// # Errors
    /// [`Refusal::Owned`] if another owns it, [`Refusal::State`] once goods have left.
    pub fn release(
        &mut self,
        by: Authority<'_>,
        at: OffsetDateTime,
    ) -> Result<Option<Change>, Refusal> {
        self.allows(by)?;
        let movement = match self.state {
            State::Held => Movement::HoldReleased,
            State::Committed => Movement::Deallocated,
            State::Released | State::Expired => return Ok(None),
            State::Fulfilled => return Err(Refusal::State(self.state)),
        };
        // What has left is not given back.
        let parts: Vec<Allotment> = (self.parts.iter())
            .filter(|part| part.open() > 0)
            .map(|part| Allotment { quantity: part.open(), ..part.clone() })
            .collect();
        let left = self.parts.iter().any(|part| part.shipped > 0);
        let moves = moves(&parts, movement);
        self.moved_to(if left { State::Fulfilled } else { State::Released }, at);
        Ok(Some(Change { event: Event::Released { parts }, moves }))
    }

    /// Ends the hold if its time is over; `None` if it is not, or it is no hold any more.
    pub fn expire(&mut self, at: OffsetDateTime) -> Option<Change> {
        if self.state != State::Held || self.expires_at > at {
            return None;
        }
        let moves = self.moves(Movement::HoldExpired);
        self.moved_to(State::Expired, at);
        Some(Change { event: Event::Expired, moves })
    }

    /// Tells once that the saga should have ended the hold by now.
    pub fn overdue(&mut self, at: OffsetDateTime) -> Option<Change> {
        let saga = self.saga.clone()?;
        let due = self.overdue_at.is_some_and(|overdue_at| overdue_at <= at);
        if self.state != State::Held || !due {
            return None;
        }
        self.overdue_at = None;
        self.moved_to(State::Held, at);
        Some(Change { event: Event::Overdue { saga }, moves: Vec::new() })
    }

    /// Lets the hold last for `ttl` from now.
    ///
    /// # Errors
    /// [`Refusal::Owned`] if a saga owns it: it does not end by time. [`Refusal::State`] if it is
    /// no hold any more.
    pub fn extend(&mut self, ttl: Duration, at: OffsetDateTime) -> Result<Change, Refusal> {
        self.allows(Authority::Person)?;
        match self.state {
            State::Held => {
                self.expires_at = at + ttl;
                self.moved_to(State::Held, at);
                Ok(Change { event: Event::Extended, moves: Vec::new() })
            }
            State::Committed | State::Fulfilled | State::Released | State::Expired => {
                Err(Refusal::State(self.state))
            }
        }
    }

    fn allows(&self, by: Authority<'_>) -> Result<(), Refusal> {
        match &self.saga {
            Some(saga) if by != Authority::Saga(saga) => Err(Refusal::Owned(saga.clone())),
            Some(_) | None => Ok(()),
        }
    }

    fn committed(&mut self, at: OffsetDateTime) {
        self.committed_at = Some(at);
        self.overdue_at = None;
        self.moved_to(State::Committed, at);
    }

    fn moved_to(&mut self, state: State, at: OffsetDateTime) {
        self.state = state;
        self.revision += 1;
        self.updated_at = at;
    }

    fn wanted(&self) -> Vec<Wanted> {
        let mut lines: Vec<Wanted> = Vec::new();
        for part in &self.parts {
            match lines.iter_mut().find(|line| line.line == part.line) {
                Some(line) => line.quantity += part.quantity,
                None => lines.push(Wanted {
                    line: part.line.clone(),
                    sku: part.sku.clone(),
                    quantity: part.quantity,
                }),
            }
        }
        lines
    }

    fn moves(&self, movement: Movement) -> Vec<Move> {
        moves(&self.parts, movement)
    }
}

/// One movement for each row of stock, in the order in which rows are locked.
fn moves(parts: &[Allotment], movement: Movement) -> Vec<Move> {
    let mut sums: BTreeMap<(&Sku, &Place), i64> = BTreeMap::new();
    for part in parts {
        *sums.entry((&part.sku, &part.place)).or_default() += part.quantity;
    }
    sums.into_iter()
        .map(|((sku, place), quantity)| Move {
            sku: sku.clone(),
            place: place.clone(),
            movement,
            quantity,
        })
        .collect()
}

// === impl Terms ===

impl Terms {
    /// Those that hold in the mesh: a saga has 15 minutes to the point of no return.
    pub const STANDARD: Self = Self {
        hold: Duration::minutes(10),
        // An order may take 15 minutes to be confirmed, wait 15 for its customer and take 15 again;
        // 10 more are for undoing it.
        overdue: Duration::minutes(55),
        given_up: Duration::hours(24),
    };
}

// === impl State ===

impl fmt::Display for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Held => "HELD",
            Self::Committed => "COMMITTED",
            Self::Fulfilled => "FULFILLED",
            Self::Released => "RELEASED",
            Self::Expired => "EXPIRED",
        })
    }
}

#[cfg(test)]
mod tests {
    use time::macros::datetime;

    use super::*;

    const NOON: OffsetDateTime = datetime!(2024-05-01 12:00 UTC);
    const TERMS: Terms = Terms {
        hold: Duration::minutes(10),
        overdue: Duration::minutes(25),
        given_up: Duration::hours(24),
    };
    const ALL: [State; 5] =
        [State::Held, State::Committed, State::Fulfilled, State::Released, State::Expired];

    fn part(line: &str, sku: &str, place: &str, quantity: i64) -> Allotment {
        Allotment {
            line: line.to_owned(),
            sku: Sku::parse(sku).unwrap(),
            place: Place::parse(place).unwrap(),
            quantity,
            shipped: 0,
            returned: 0,
        }
    }

    fn reservation(owner: Authority<'_>, state: State) -> Reservation {
        let parts = vec![
            part("1", "B", "north", 2),
            part("2", "A", "north", 1),
            part("2", "A", "east", 3),
            part("3", "B", "north", 4),
        ];
        let (mut held, _) = Reservation::hold(Uuid::nil(), None, owner, parts, TERMS, NOON);
        held.state = state;
        held
    }

    fn moves(change: &Change) -> Vec<(String, Movement, i64)> {
        let told = |m: &Move| (format!("{}@{}", m.sku, m.place), m.movement, m.quantity);
        change.moves.iter().map(told).collect()
    }

    #[test]
    fn each_row_of_stock_moves_once_in_the_order_in_which_rows_are_locked() {
        let mut held = reservation(Authority::Person, State::Held);
        let change = held.release(Authority::Person, NOON).unwrap().expect("a change");
        assert_eq!(
            moves(&change),
            [
                ("A@east".to_owned(), Movement::HoldReleased, 3),
                ("A@north".to_owned(), Movement::HoldReleased, 1),
                ("B@north".to_owned(), Movement::HoldReleased, 6),
            ]
        );
    }

    #[test]
    fn only_a_hold_is_committed_and_a_promise_is_not_made_twice() {
        for state in ALL {
            let mut reservation = reservation(Authority::Person, state);
            let told = match reservation.commit(Authority::Person, NOON) {
                Ok(Commit::Promised(change)) => format!("{:?}", change.event),
                Ok(Commit::Expired(lines)) => format!("again {}", lines.len()),
                Ok(Commit::Already) => "already".to_owned(),
                Err(refusal) => refusal.to_string(),
            };
            let expected = match state {
                State::Held => "Allocated",
                State::Committed => "already",
                State::Fulfilled => "the reservation is FULFILLED",
                State::Released => "the reservation is RELEASED",
                State::Expired => "again 3",
            };
            assert_eq!(told, expected, "{state}");
        }
    }

    #[test]
    fn what_is_given_back_is_what_the_state_says_is_kept() {
        for state in ALL {
            let mut reservation = reservation(Authority::Person, state);
            let movement = reservation
                .release(Authority::Person, NOON)
                .map(|change| change.and_then(|c| c.moves.first().map(|m| m.movement)));
            let expected = match state {
                State::Held => Ok(Some(Movement::HoldReleased)),
                State::Committed => Ok(Some(Movement::Deallocated)),
                State::Fulfilled => Err(Refusal::State(State::Fulfilled)),
                State::Released | State::Expired => Ok(None),
            };
            assert_eq!(movement, expected, "{state}");
        }
    }

    #[test]
    fn the_commands_of_its_saga_alone_change_what_a_saga_owns() {
        let owned = || reservation(Authority::Saga("s1"), State::Held);
        let refused = Err(Refusal::Owned("s1".to_owned()));
        for by in [Authority::Person, Authority::Saga("s2")] {
            assert_eq!(owned().commit(by, NOON).map(|_| ()), refused, "{by:?}");
            assert_eq!(owned().release(by, NOON).map(|_| ()), refused, "{by:?}");
        }
        assert_eq!(owned().extend(Duration::MINUTE, NOON).map(|_| ()), refused);
        assert!(owned().commit(Authority::Saga("s1"), NOON).is_ok());
        let mut free = reservation(Authority::Person, State::Held);
        assert!(free.commit(Authority::Saga("s2"), NOON).is_ok(), "a saga may take over a hold");
    }

    #[test]
    fn a_hold_ends_by_time_after_its_own_terms() {
        for (owner, last) in [
            (Authority::Person, Duration::minutes(10)),
            (Authority::Saga("s1"), Duration::hours(24)),
        ] {
            let tick = Duration::microseconds(1);
            assert_eq!(reservation(owner, State::Held).expire(NOON + last - tick), None);
            let mut held = reservation(owner, State::Held);
            let change = held.expire(NOON + last).expect("it ends");
            assert_eq!((change.event, held.state), (Event::Expired, State::Expired), "{owner:?}");
        }
        for state in [State::Committed, State::Fulfilled, State::Released, State::Expired] {
            let late = NOON + Duration::hours(48);
            assert_eq!(reservation(Authority::Person, state).expire(late), None, "{state}");
        }
    }

    #[test]
    fn an_extended_hold_lasts_longer_and_only_a_hold_can_be_extended() {
        let mut held = reservation(Authority::Person, State::Held);
        held.extend(Duration::HOUR, NOON).unwrap();
        assert_eq!(held.expire(NOON + Duration::minutes(59)), None);
        for state in [State::Committed, State::Fulfilled, State::Released, State::Expired] {
            assert_eq!(
                reservation(Authority::Person, state).extend(Duration::HOUR, NOON),
                Err(Refusal::State(state))
            );
        }
    }

    #[test]
    fn a_late_saga_is_told_of_once_and_keeps_its_hold() {
        let mut held = reservation(Authority::Saga("s1"), State::Held);
        assert_eq!(held.overdue(NOON + Duration::minutes(24)), None);
        let told = held.overdue(NOON + Duration::minutes(25)).expect("told");
        assert_eq!(told.event, Event::Overdue { saga: "s1".to_owned() });
        assert_eq!((held.state, told.moves.len()), (State::Held, 0));
        assert_eq!(held.overdue(NOON + Duration::minutes(26)), None);
    }
}
