//! What a customer is told and when: a notice of another service in, a notification out.
//!
//! A repeat is not the domain's business: one event leads to one row, whoever brings it again.

use std::{fmt, time::Duration};

use mesh::money::Money;
use time::OffsetDateTime;
use uuid::Uuid;

mod letter;
mod preferences;
mod text;
#[cfg(test)]
mod tests;

pub use letter::Letter;
pub use preferences::{AlwaysMailed, Preferences};
pub use text::plain;

/// Something that a customer is told once.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Notification {
    /// A `UUIDv7`.
    pub id: Uuid,
    /// The event that led to it.
    pub event: Uuid,
    /// Who is told, `users/{uuid}`.
    pub customer: String,
    /// About which order.
    pub order: Uuid,
    /// About which shipment, if about one.
    pub shipment: Option<Uuid>,
    /// What it says.
    pub kind: Kind,
    /// How far it has come.
    pub state: State,
    /// Where it goes; empty until it is known.
    pub address: String,
    /// What it says, in words.
    pub letter: Letter,
    /// The mail's identity, without the angle brackets.
    pub message_id: String,
    /// Why it cannot be sent, or was not the last time.
    pub problem: String,
    /// How often its sending was begun.
    pub attempts: i64,
    /// When the event was taken in.
    pub created_at: OffsetDateTime,
    /// When it was sent.
    pub sent_at: Option<OffsetDateTime>,
}

/// What a notification says.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Kind {
    /// The order was received.
    OrderReceived,
    /// The order will be delivered.
    OrderConfirmed,
    /// The order could not be fulfilled.
    OrderRejected,
    /// The order was called off.
    OrderCancelled,
    /// The customer did not act in time.
    OrderExpired,
    /// Goods are on their way.
    ShipmentDispatched,
    /// Goods have arrived.
    ShipmentDelivered,
}

/// How far a notification has come. The last three are ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum State {
    /// The address is not known.
    Waiting,
    /// To be sent.
    Pending,
    /// Handed over, once.
    Sent,
    /// Not wanted.
    Suppressed,
    /// Cannot be sent.
    Failed,
}

/// What another service says about an order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Notice {
    /// The event's id.
    pub event: Uuid,
    /// When it happened.
    pub at: OffsetDateTime,
    /// About which order.
    pub order: Uuid,
    /// Whose order it is, `users/{uuid}`.
    pub customer: String,
    /// Where mails about the order go; empty if the event does not say.
    pub email: String,
    /// What happened.
    pub news: News,
    /// The trace in which it happened.
    pub traceparent: String,
}

/// What happened to an order or to a shipment of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum News {
    /// It was accepted.
    Received {
        /// What was ordered.
        lines: Vec<Line>,
        /// What it costs.
        totals: Totals,
    },
    /// Its lines are others now. Remembered, not told.
    Revised {
        /// What is ordered now.
        lines: Vec<Line>,
    },
    /// It will be delivered.
    Confirmed {
        /// What it costs, over all.
        total: Money,
    },
    /// It could not be fulfilled.
    Rejected {
        /// Why, by the name of the reason.
        reason: String,
    },
    /// It was called off.
    Cancelled,
    /// Its customer did not act in time.
    Expired,
    /// Goods are on their way.
    Dispatched(Parcel),
    /// Goods have arrived.
    Delivered(Parcel),
}

/// So many units of one variant.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Line {
    /// Names it within its order.
    pub id: String,
    /// What it is called; its SKU where nothing better is known.
    pub title: String,
    /// How many units.
    pub quantity: i64,
    /// What they cost, if it is said.
    pub total: Option<Money>,
}

/// What an order costs. Parts that are nothing are not told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Totals {
    /// What is taken off.
    pub discount: Option<Money>,
    /// What the delivery costs.
    pub shipping: Option<Money>,
    /// What is put on.
    pub tax: Option<Money>,
    /// What the customer pays.
    pub total: Money,
}

/// Goods that travel together.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Parcel {
    /// Which shipment.
    pub shipment: Uuid,
    /// What is in it.
    pub lines: Vec<Line>,
    /// Who carries it.
    pub carrier: String,
    /// By what it is found there.
    pub tracking: String,
}

/// The longest pause between two attempts to send a notification.
const PAUSE_MAX: Duration = Duration::from_secs(60);

// === impl Kind ===

impl Kind {
    /// Every kind, sorted.
    pub const ALL: [Self; 7] = [
        Self::OrderReceived,
        Self::OrderConfirmed,
        Self::OrderRejected,
        Self::OrderCancelled,
        Self::OrderExpired,
        Self::ShipmentDispatched,
        Self::ShipmentDelivered,
    ];

    /// Its name, as it is kept.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::OrderReceived => "ORDER_RECEIVED",
            Self::OrderConfirmed => "ORDER_CONFIRMED",
            Self::OrderRejected => "ORDER_REJECTED",
            Self::OrderCancelled => "ORDER_CANCELLED",
            Self::OrderExpired => "ORDER_EXPIRED",
            Self::ShipmentDispatched => "SHIPMENT_DISPATCHED",
            Self::ShipmentDelivered => "SHIPMENT_DELIVERED",
        }
    }

    /// The kind of this name.
    #[must_use]
    pub fn parse(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.as_str() == name)
    }

    /// Whether it is mailed to everybody: it is the record of a contract.
    #[must_use]
    pub fn is_always_mailed(self) -> bool {
        match self {
            Self::OrderConfirmed => true,
            Self::OrderReceived
            | Self::OrderRejected
            | Self::OrderCancelled
            | Self::OrderExpired
            | Self::ShipmentDispatched
            | Self::ShipmentDelivered => false,
        }
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

// === impl State ===

impl State {
    /// Its name, as it is kept.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Waiting => "WAITING",
            Self::Pending => "PENDING",
            Self::Sent => "SENT",
            Self::Suppressed => "SUPPRESSED",
            Self::Failed => "FAILED",
        }
    }

    /// The state of this name.
    #[must_use]
    pub fn parse(name: &str) -> Option<Self> {
        let all = [Self::Waiting, Self::Pending, Self::Sent, Self::Suppressed, Self::Failed];
        all.into_iter().find(|state| state.as_str() == name)
    }
}

// === impl Notice ===

impl Notice {
    /// What the customer is told; nothing, if this is not told. `known` are the lines of the
    /// order as they were told last.
    #[must_use]
    pub fn letter(&self, known: &[Line]) -> Option<(Kind, Letter)> {
        let kind = self.news.kind()?;
        Some((kind, Letter::of(self.order, &self.news, known)?))
    }

    /// The identity of the mail: it follows from the event, so that the same event makes the same
    /// mail whoever writes it; that of a confirmation from the order, which has one.
    #[must_use]
    pub fn message_id(&self, kind: Kind, domain: &str) -> String {
        let slug = kind.as_str().to_ascii_lowercase().replace('_', "-");
        let cause = if kind == Kind::OrderConfirmed { self.order } else { self.event };
        format!("{slug}.{cause}@{domain}")
    }
}

// === impl News ===

impl News {
    /// As what it is told, if it is.
    #[must_use]
    pub fn kind(&self) -> Option<Kind> {
        match self {
            Self::Received { .. } => Some(Kind::OrderReceived),
            Self::Revised { .. } => None,
            Self::Confirmed { .. } => Some(Kind::OrderConfirmed),
            Self::Rejected { .. } => Some(Kind::OrderRejected),
            Self::Cancelled => Some(Kind::OrderCancelled),
            Self::Expired => Some(Kind::OrderExpired),
            Self::Dispatched(_) => Some(Kind::ShipmentDispatched),
            Self::Delivered(_) => Some(Kind::ShipmentDelivered),
        }
    }

    /// The lines that the order has from now on, if this says so.
    #[must_use]
    pub fn lines(&self) -> Option<&[Line]> {
        match self {
            Self::Received { lines, .. } | Self::Revised { lines } => Some(lines),
            Self::Confirmed { .. }
            | Self::Rejected { .. }
            | Self::Cancelled
            | Self::Expired
            | Self::Dispatched(_)
            | Self::Delivered(_) => None,
        }
    }

    /// The shipment that it is about, if about one.
    #[must_use]
    pub fn shipment(&self) -> Option<Uuid> {
        match self {
            Self::Dispatched(parcel) | Self::Delivered(parcel) => Some(parcel.shipment),
            Self::Received { .. }
            | Self::Revised { .. }
            | Self::Confirmed { .. }
            | Self::Rejected { .. }
            | Self::Cancelled
            | Self::Expired => None,
        }
    }
}

/// How long to wait after the given number of attempts that failed: 1 s, doubled each time, up
/// to a minute. There is no last attempt: a folder that cannot be written to is a person's to mend.
#[must_use]
pub fn pause(attempts: i64) -> Duration {
    let doublings = attempts.saturating_sub(1).clamp(0, 6);
    Duration::from_secs(1 << doublings).min(PAUSE_MAX)
}
