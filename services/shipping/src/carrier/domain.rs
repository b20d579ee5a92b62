//! What the built-in carrier does with a parcel, and what goes wrong with it on purpose.

use std::{fmt, time::Duration};

use uuid::Uuid;

use crate::domain::Sign;

/// A parcel in the carrier's books.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Parcel {
    /// The key of the customer who booked it.
    pub reference: String,
    /// What the carrier calls it.
    pub tracking: String,
    /// Where it is.
    pub stage: Stage,
    /// What goes wrong with it.
    pub faults: Faults,
}

/// Where a parcel is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stage {
    /// It waits to be picked up.
    Booked,
    /// The carrier has it.
    PickedUp,
    /// It is on its way.
    InTransit,
    /// The recipient has it.
    Delivered,
    /// It is gone.
    Lost,
    /// It is back where it came from.
    Returned,
    /// The carrier does not come for it.
    Cancelled,
}

/// Something that goes wrong on purpose.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fault {
    Lost,
    Returned,
    Refuses,
    Slow,
    DropsAnswer,
}

/// What goes wrong with a parcel: the words `carrier:…` in its recipient's organization.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Faults(Vec<Fault>);

/// How a carrier works.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Habits {
    /// How long each stage takes.
    pub stage: Duration,
    /// Whether it comes for parcels by itself; else they are handed to it.
    pub comes_by_itself: bool,
}

/// How many times as long each stage of a slow parcel takes.
const SLOWNESS: u32 = 10;

const WORDS: [(Fault, &str); 5] = [
    (Fault::Lost, "carrier:lost"),
    (Fault::Returned, "carrier:returned"),
    (Fault::Refuses, "carrier:refuses"),
    (Fault::Slow, "carrier:slow"),
    (Fault::DropsAnswer, "carrier:drops_answer"),
];

// === impl Parcel ===

impl Parcel {
    /// A parcel that waits to be picked up.
    #[must_use]
    pub fn booked(reference: &str, id: Uuid, faults: Faults) -> Self {
        let tracking = format!("MP{}", id.simple());
        Self { reference: reference.to_owned(), tracking, stage: Stage::Booked, faults }
    }

    /// How long until it moves by itself, if it will.
    #[must_use]
    pub fn due_in(&self, habits: Habits) -> Option<Duration> {
        let moves = match self.stage {
            Stage::Booked => habits.comes_by_itself,
            Stage::PickedUp | Stage::InTransit => true,
            Stage::Delivered | Stage::Lost | Stage::Returned | Stage::Cancelled => false,
        };
        let slowness = if self.faults.has(Fault::Slow) { SLOWNESS } else { 1 };
        moves.then(|| habits.stage * slowness)
    }

    /// Moves by one stage, if there is one.
    pub fn advance(&mut self) -> Option<Sign> {
        let (stage, sign) = match self.stage {
            Stage::Booked => (Stage::PickedUp, Sign::PickedUp),
            Stage::PickedUp => (Stage::InTransit, Sign::InTransit),
            Stage::InTransit if self.faults.has(Fault::Lost) => (Stage::Lost, Sign::Lost),
            Stage::InTransit if self.faults.has(Fault::Returned) => {
                (Stage::Returned, Sign::Returned)
            }
            Stage::InTransit => (Stage::Delivered, Sign::Delivered),
            Stage::Delivered | Stage::Lost | Stage::Returned | Stage::Cancelled => return None,
        };
        self.stage = stage;
        Some(sign)
    }
}

// === impl Faults ===

impl Faults {
    /// What a text asks for; several words add up.
    #[must_use]
    pub fn of(text: &str) -> Self {
        let fault = |word| WORDS.iter().find(|(_, known)| *known == word).map(|(fault, _)| *fault);
        Self(text.split_whitespace().filter_map(fault).collect())
    }

    /// Whether the parcel is not taken.
    #[must_use]
    pub fn refuse(&self) -> bool {
        self.has(Fault::Refuses)
    }

    /// Whether what is done is not answered, the first time.
    #[must_use]
    pub fn drop_answer(&self) -> bool {
        self.has(Fault::DropsAnswer)
    }

    fn has(&self, fault: Fault) -> bool {
        self.0.contains(&fault)
    }
}

impl fmt::Display for Faults {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let word = |fault: &Fault| WORDS.iter().find(|(known, _)| known == fault).map(|it| it.1);
        let words: Vec<&str> = self.0.iter().filter_map(word).collect();
        f.write_str(&words.join(" "))
    }
}

// === impl Stage ===

impl Stage {
    /// Every stage.
    pub const ALL: [Self; 7] = [
        Self::Booked,
        Self::PickedUp,
        Self::InTransit,
        Self::Delivered,
        Self::Lost,
        Self::Returned,
        Self::Cancelled,
    ];
}

impl fmt::Display for Stage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Booked => "BOOKED",
            Self::PickedUp => "PICKED_UP",
            Self::InTransit => "IN_TRANSIT",
            Self::Delivered => "DELIVERED",
            Self::Lost => "LOST",
            Self::Returned => "RETURNED",
            Self::Cancelled => "CANCELLED",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HABITS: Habits = Habits { stage: Duration::from_secs(1), comes_by_itself: true };

    #[test]
    fn a_parcel_ends_as_its_address_asks_for() {
        let way = [Sign::PickedUp, Sign::InTransit];
        for (organization, end) in [
            ("", Sign::Delivered),
            ("ACME Ltd", Sign::Delivered),
            ("carrier:lost", Sign::Lost),
            ("ACME carrier:returned", Sign::Returned),
            ("carrier:lostandfound", Sign::Delivered),
        ] {
            let mut parcel = Parcel::booked("ship/1", Uuid::nil(), Faults::of(organization));
            let mut signs = Vec::new();
            while let Some(sign) = parcel.advance() {
                signs.push(sign);
            }
            assert_eq!(signs, [way[0], way[1], end], "{organization}");
            assert_eq!(parcel.due_in(HABITS), None);
        }
    }

    #[test]
    fn a_carrier_comes_by_itself_or_waits_for_what_is_handed_over() {
        let waits = Habits { comes_by_itself: false, ..HABITS };
        let mut parcel = Parcel::booked("ship/1", Uuid::nil(), Faults::default());
        assert_eq!((parcel.due_in(HABITS), parcel.due_in(waits)), (Some(HABITS.stage), None));
        parcel.advance();
        assert_eq!(parcel.due_in(waits), Some(HABITS.stage));
        parcel.faults = Faults::of("carrier:slow");
        assert_eq!(parcel.due_in(waits), Some(10 * HABITS.stage));
    }

    #[test]
    fn faults_are_kept_as_they_were_asked_for() {
        let words = WORDS.map(|(_, word)| word).join(" ");
        let faults = Faults::of(&words);
        assert_eq!(faults.to_string(), words);
        assert!(faults.refuse() && faults.drop_answer());
        assert_eq!(Faults::of("carrier:unknown"), Faults::default());
    }
}
