//! What the carrier is asked, and what is known of its answer.

use std::time::Duration;

use time::OffsetDateTime;
use uuid::Uuid;

use super::Booking;

/// Something that the carrier is asked, under a key of ours: asked twice, it is done once.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Attempt {
    /// Its id.
    pub id: Uuid,
    /// What is asked.
    pub kind: Kind,
    /// The key that the carrier knows it by: `ship/{shipment}/{kind}/{n}`.
    pub reference: String,
    /// What is known of it.
    pub state: AttemptState,
    /// How often the carrier was asked in vain.
    pub tries: usize,
    /// When it is looked at next.
    pub next_try_at: Option<OffsetDateTime>,
    /// Why the carrier refused.
    pub decline_code: Option<String>,
    /// When it was begun.
    pub created_at: OffsetDateTime,
}

/// What a carrier can be asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// To take a parcel.
    Book,
    /// To take what is handed to it now.
    HandOver,
    /// Not to come.
    Cancel,
}

/// What is known of an attempt.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AttemptState {
    /// Nobody was asked.
    Created,
    /// The carrier is being asked.
    Sent,
    /// It did what it was asked.
    Succeeded,
    /// It refused.
    Declined,
    /// It was never asked, and will not be.
    Failed,
    /// Its answer did not arrive.
    Unknown,
}

/// What came of asking.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// It did what it was asked, now or before.
    Done(Booking),
    /// It refuses, now and always.
    Declined {
        /// Why, in the carrier's words.
        code: String,
    },
    /// No answer, or none that can be read.
    Unknown,
}

/// The outcome of an attempt, brought home.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Report {
    /// Of which attempt.
    pub attempt: Uuid,
    /// What came of it.
    pub outcome: Outcome,
    /// When.
    pub at: OffsetDateTime,
    /// The id of an attempt that may become necessary.
    pub spare: Uuid,
}

/// When something begins, and under which id.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Started {
    /// Its id.
    pub id: Uuid,
    /// When.
    pub at: OffsetDateTime,
}

/// How patiently the carrier is asked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pace {
    /// How long to wait before each time that it is asked again; the last one holds from then on.
    pub schedule: Vec<Duration>,
    /// When an attempt is taken up whose sender says nothing.
    pub unsent_after: Duration,
}

// === impl Attempt ===

impl Attempt {
    /// An attempt that was not sent: it is due at once.
    #[must_use]
    pub fn new(started: Started, shipment: Uuid, kind: Kind, n: usize) -> Self {
        Self {
            id: started.id,
            kind,
            reference: format!("ship/{shipment}/{}/{n}", kind.word()),
            state: AttemptState::Created,
            tries: 0,
            next_try_at: Some(started.at),
            decline_code: None,
            created_at: started.at,
        }
    }

    /// Whether it has been asked for longer than the schedule foresaw.
    #[must_use]
    pub fn is_overdue(&self, pace: &Pace) -> bool {
        !self.state.is_final() && self.tries >= pace.schedule.len()
    }

    pub(super) fn end(&mut self, state: AttemptState) {
        self.state = state;
        self.next_try_at = None;
    }

    pub(super) fn in_doubt(&mut self, at: OffsetDateTime, pace: &Pace) {
        let pause = pace.schedule.get(self.tries).or(pace.schedule.last());
        self.state = AttemptState::Unknown;
        self.next_try_at = Some(at + pause.copied().unwrap_or(pace.unsent_after));
        self.tries += 1;
    }
}

/// The key of a shipment's parcel: that of the attempt which books it.
#[must_use]
pub fn parcel_of(shipment: Uuid) -> String {
    format!("ship/{shipment}/{}/1", Kind::Book.word())
}

/// The shipment that a parcel's key is of.
#[must_use]
pub fn shipment_of(parcel: &str) -> Option<Uuid> {
    let id = parcel.strip_prefix("ship/")?.strip_suffix("/book/1")?;
    Uuid::try_parse(id).ok()
}

// === impl Kind ===

impl Kind {
    fn word(self) -> &'static str {
        match self {
            Self::Book => "book",
            Self::HandOver => "hand_over",
            Self::Cancel => "cancel",
        }
    }
}

// === impl AttemptState ===

impl AttemptState {
    /// Whether nothing more will be learned of it.
    #[must_use]
    pub fn is_final(self) -> bool {
        match self {
            Self::Succeeded | Self::Declined | Self::Failed => true,
            Self::Created | Self::Sent | Self::Unknown => false,
        }
    }
}

// === impl Pace ===

impl Default for Pace {
    fn default() -> Self {
        const SECOND: Duration = Duration::from_secs(1);
        let schedule = vec![SECOND, 5 * SECOND, 30 * SECOND, 300 * SECOND, 3_600 * SECOND];
        Self { schedule, unsent_after: 5 * SECOND }
    }
}
