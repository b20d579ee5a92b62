//! Where an order can stand.

use std::fmt;

/// Where an order stands. The last four are ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum State {
    /// Accepted, being arranged.
    Pending,
    /// Waits for its customer.
    ActionRequired,
    /// Stock held, payment authorized.
    Confirmed,
    /// Being called off.
    Cancelling,
    /// Could not be fulfilled.
    Rejected,
    /// Called off.
    Cancelled,
    /// Its customer did not act in time.
    Expired,
    /// All of it arrived or is cancelled, and nothing is owed either way.
    Completed,
}

// === impl State ===

impl State {
    /// Whether nothing more becomes of an order here; its goods and its money may still move.
    #[must_use]
    pub fn is_end(self) -> bool {
        match self {
            Self::Pending | Self::ActionRequired | Self::Confirmed | Self::Cancelling => false,
            Self::Rejected | Self::Cancelled | Self::Expired | Self::Completed => true,
        }
    }
}

/// As the contract spells it, without the prefix.
impl fmt::Display for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Pending => "PENDING",
            Self::ActionRequired => "ACTION_REQUIRED",
            Self::Confirmed => "CONFIRMED",
            Self::Cancelling => "CANCELLING",
            Self::Rejected => "REJECTED",
            Self::Cancelled => "CANCELLED",
            Self::Expired => "EXPIRED",
            Self::Completed => "COMPLETED",
        })
    }
}
