//! The rules of stock: values in, values or a refusal out.
//!
//! What can be promised is `available = on_hand - held - allocated`. A counter changes only
//! with a [`Movement`] that says why, so that folding the movements gives the counters.

use std::fmt;

use time::OffsetDateTime;

pub mod allocation;
pub mod reservation;

/// The most that can lie at one place: leaves every sum of counters far within 64 bits.
pub const ON_HAND_MAX: i64 = 1_000_000_000_000;

/// The most that one adjustment adds or takes.
pub const DELTA_MAX: i64 = 1_000_000_000;

/// What is sold, by the id of its variant: 1 to 64 letters, digits, `.`, `_` and `-`, first a
/// letter or digit.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Sku(String);

/// A place where stock lies, by its id: 1 to 63 lower-case letters, digits and `-`, first a
/// letter, last not `-`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Place(String);

/// The stock of one variant at one place.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stock {
    /// Of what.
    pub sku: Sku,
    /// Where.
    pub place: Place,
    /// How many, and for whom.
    pub counters: Counters,
    /// Rises with every change of the row.
    pub revision: i64,
    /// When something was stocked here first.
    pub created_at: OffsetDateTime,
    /// When it changed last.
    pub updated_at: OffsetDateTime,
}

/// How many there are, and how many of them are promised.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    /// How many lie there.
    pub on_hand: i64,
    /// How many are held for orders that are not confirmed.
    pub held: i64,
    /// How many are promised to confirmed orders.
    pub allocated: i64,
}

/// Why a counter changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Movement {
    /// Goods came.
    Received,
    /// Goods came back from a customer.
    Returned,
    /// Held for an order.
    Held,
    /// A hold was given back.
    HoldReleased,
    /// A hold ended by time.
    HoldExpired,
    /// A hold was committed.
    Allocated,
    /// An allocation was given back.
    Deallocated,
    /// Goods left.
    Shipped,
    /// A count was corrected; its quantity may be negative.
    Adjusted,
}

/// Why somebody changed what lies there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reason {
    /// Goods came from a supplier.
    Received,
    /// A count found another number.
    Counted,
    /// Goods can no longer be sold.
    Damaged,
    /// Goods are gone.
    Lost,
}

/// Goods that came, or a corrected count.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Adjustment {
    /// What is added to what lies there; of the sign that the reason asks for.
    delta: i64,
    /// Why.
    reason: Reason,
}

/// A quantity that no adjustment can have.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BadDelta {
    /// Nothing would change, or too much.
    #[error("must lie between -{DELTA_MAX} and {DELTA_MAX} and not be zero")]
    Size,
    /// Goods cannot come in a negative quantity, nor be damaged or lost in a positive one.
    #[error("has the wrong sign for this reason")]
    Sign,
}

/// Why a rule says no.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// Less is available than was asked for; every short line, at least one.
    #[error("{}", short(.0))]
    OutOfStock(Vec<allocation::Short>),
    /// More is promised than would be left.
    #[error("only {available} are not promised to anybody")]
    Promised {
        /// How many could be taken.
        available: i64,
    },
    /// More would lie there than can be counted.
    #[error("at most {ON_HAND_MAX} can lie at one place")]
    TooMany,
    /// The reservation is past the point where this is possible.
    #[error("the reservation is {0}")]
    State(reservation::State),
    /// The hold ended by time, and what it held is gone.
    #[error("the hold expired and {sku} is out of stock")]
    Expired {
        /// The first variant of which there is not enough.
        sku: Sku,
    },
    /// Less of a line is there to leave, or to come back.
    #[error("line {0} has less than that left")]
    Part(String),
    /// A saga owns the reservation.
    #[error("the reservation belongs to saga {0}")]
    Owned(String),
}

/// A name that no variant or place can have.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct BadName(&'static str);

// === impl Sku ===

impl Sku {
    /// Reads the id of a variant.
    ///
    /// # Errors
    /// [`BadName`] says what would be right.
    pub fn parse(text: &str) -> Result<Self, BadName> {
        let plain = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'-');
        let good = (1..=64).contains(&text.len())
            && text.bytes().all(plain)
            && text.bytes().next().is_some_and(|first| first.is_ascii_alphanumeric());
        good.then(|| Self(text.to_owned())).ok_or(BadName(
            "a sku has 1 to 64 letters, digits, `.`, `_` and `-`, first a letter or digit",
        ))
    }

    /// As it is spelled.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Sku {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

// === impl Place ===

impl Place {
    /// Reads the id of a location.
    ///
    /// # Errors
    /// [`BadName`] says what would be right.
    pub fn parse(text: &str) -> Result<Self, BadName> {
        let plain = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-';
        let good = (1..=63).contains(&text.len())
            && text.bytes().all(plain)
            && text.bytes().next().is_some_and(|first| first.is_ascii_lowercase())
            && !text.ends_with('-');
        good.then(|| Self(text.to_owned())).ok_or(BadName(
            "a location has 1 to 63 lower-case letters, digits and `-`, first a letter, last not `-`",
        ))
    }

    /// As it is spelled.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

// === impl Stock ===

impl Stock {
    /// A row as it begins: nothing there.
    #[must_use]
    pub fn begin(sku: Sku, place: Place, at: OffsetDateTime) -> Self {
        Self {
            sku,
            place,
            counters: Counters::default(),
            revision: 0,
            created_at: at,
            updated_at: at,
        }
    }

    /// Adds to what lies there, or takes from it what is not promised.
    ///
    /// # Errors
    /// [`Refusal::Promised`] if more would be taken than is available: what was promised on
    /// goods that lie there stays so. [`Refusal::TooMany`] beyond [`ON_HAND_MAX`].
    pub fn adjust(&mut self, by: &Adjustment, at: OffsetDateTime) -> Result<(), Refusal> {
        let available = self.counters.available();
        if by.delta < 0 && available + by.delta < 0 {
            return Err(Refusal::Promised { available: available.max(0) });
        }
        let counters = self.counters.after(by.movement(), by.delta);
        if counters.on_hand > ON_HAND_MAX {
            return Err(Refusal::TooMany);
        }
        self.counters = counters;
        self.changed(at);
        Ok(())
    }

    fn changed(&mut self, at: OffsetDateTime) {
        self.revision += 1;
        self.updated_at = at;
    }
}

// === impl Counters ===

impl Counters {
    /// How many can still be promised.
    #[must_use]
    pub fn available(self) -> i64 {
        self.on_hand - self.held - self.allocated
    }

    /// The counters after a movement: what a fold of the movements does at each.
    #[must_use]
    pub fn after(self, movement: Movement, quantity: i64) -> Self {
        let [on_hand, held, allocated] = movement.signs().map(|sign| sign * quantity);
        Self {
            on_hand: self.on_hand + on_hand,
            held: self.held + held,
            allocated: self.allocated + allocated,
        }
    }
}

// === impl Movement ===

impl Movement {
    /// What one unit of it does to `on_hand`, `held` and `allocated`.
    #[must_use]
    pub fn signs(self) -> [i64; 3] {
        match self {
            Self::Received | Self::Returned | Self::Adjusted => [1, 0, 0],
            Self::Held => [0, 1, 0],
            Self::HoldReleased | Self::HoldExpired => [0, -1, 0],
            Self::Allocated => [0, -1, 1],
            Self::Deallocated => [0, 0, -1],
            Self::Shipped => [-1, 0, -1],
        }
    }
}

// === impl Reason ===

impl Reason {
    /// The sign that goods moved for this reason have; 0 if either is possible.
    fn sign(self) -> i64 {
        match self {
            Self::Received => 1,
            Self::Counted => 0,
            Self::Damaged | Self::Lost => -1,
        }
    }
}

// === impl Adjustment ===

impl Adjustment {
    /// An adjustment of a size and sign that it can have.
    ///
    /// # Errors
    /// [`BadDelta`] says what would be right.
    pub fn new(delta: i64, reason: Reason) -> Result<Self, BadDelta> {
        if delta == 0 || !(-DELTA_MAX..=DELTA_MAX).contains(&delta) {
            return Err(BadDelta::Size);
        }
        if reason.sign() * delta.signum() < 0 {
            return Err(BadDelta::Sign);
        }
        Ok(Self { delta, reason })
    }

    /// What is added to what lies there.
    #[must_use]
    pub fn delta(&self) -> i64 {
        self.delta
    }

    /// Why.
    #[must_use]
    pub fn reason(&self) -> Reason {
        self.reason
    }

    /// How it is recorded.
    #[must_use]
    pub fn movement(&self) -> Movement {
        match self.reason {
            Reason::Received => Movement::Received,
            Reason::Counted | Reason::Damaged | Reason::Lost => Movement::Adjusted,
        }
    }
}

fn short(lines: &[allocation::Short]) -> String {
    let line = |short: &allocation::Short| {
        format!("{} has {} left, {} wanted", short.sku, short.available, short.wanted)
    };
    lines.iter().map(line).collect::<Vec<_>>().join("; ")
}

#[cfg(test)]
mod tests {
    use time::macros::datetime;

    use super::*;

    const NOON: OffsetDateTime = datetime!(2024-05-01 12:00 UTC);

    fn stock(on_hand: i64, held: i64, allocated: i64) -> Stock {
        let mut stock =
            Stock::begin(Sku::parse("A").unwrap(), Place::parse("north").unwrap(), NOON);
        stock.counters = Counters { on_hand, held, allocated };
        stock
    }

    #[test]
    fn a_sku_goes_into_a_url_as_it_is() {
        for good in ["A", "BLUE-XL_1.0", "0", &"x".repeat(64)] {
            assert!(Sku::parse(good).is_ok(), "{good}");
        }
        for bad in ["", ".", "..", "-", "_a", "a b", "a/b", "a~b", "ä", &"x".repeat(65)] {
            assert!(Sku::parse(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_place_is_never_the_sum_of_all_places() {
        for good in ["a", "berlin-1", "x9", &"x".repeat(63)] {
            assert!(Place::parse(good).is_ok(), "{good}");
        }
        for bad in ["", "-", "-a", "a-", "1a", "A", "a_b", "a.b", "a~b", &"x".repeat(64)] {
            assert!(Place::parse(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn an_adjustment_has_a_size_and_the_sign_of_its_reason() {
        for (delta, reason, expected) in [
            (1, Reason::Received, Ok(Movement::Received)),
            (1, Reason::Counted, Ok(Movement::Adjusted)),
            (-1, Reason::Counted, Ok(Movement::Adjusted)),
            (-DELTA_MAX, Reason::Lost, Ok(Movement::Adjusted)),
            (-1, Reason::Received, Err(BadDelta::Sign)),
            (1, Reason::Damaged, Err(BadDelta::Sign)),
            (1, Reason::Lost, Err(BadDelta::Sign)),
            (0, Reason::Counted, Err(BadDelta::Size)),
            (DELTA_MAX + 1, Reason::Counted, Err(BadDelta::Size)),
            (i64::MIN, Reason::Lost, Err(BadDelta::Size)),
            (i64::MAX, Reason::Received, Err(BadDelta::Size)),
        ] {
            let made = Adjustment::new(delta, reason).map(|made| made.movement());
            assert_eq!(made, expected, "{delta} {reason:?}");
        }
    }

    #[test]
    fn what_is_promised_cannot_be_counted_away() {
        for (row, delta, expected) in [
            (stock(10, 4, 3), -3, Ok(7)),
            (stock(10, 4, 3), -4, Err(Refusal::Promised { available: 3 })),
            (stock(7, 4, 3), -1, Err(Refusal::Promised { available: 0 })),
            (stock(7, 4, 3), 5, Ok(12)),
            (stock(ON_HAND_MAX, 0, 0), 1, Err(Refusal::TooMany)),
        ] {
            let mut after = row.clone();
            let by = Adjustment::new(delta, Reason::Counted).unwrap();
            let adjusted = after.adjust(&by, NOON).map(|()| after.counters.on_hand);
            assert_eq!(adjusted, expected, "{row:?} {delta}");
        }
    }
}
