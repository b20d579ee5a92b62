//! Where a breaker stands, as metrics, logs and views spell it.

/// Where a breaker stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// Calls go through.
    Closed,
    /// No call goes through.
    Open,
    /// One call at a time finds out whether the dependency is back.
    HalfOpen,
    /// It seems to be: more calls go through from moment to moment.
    Ramp,
}

impl State {
    /// How metrics spell it: 0 closed, 1 half-open, 2 open.
    #[must_use]
    pub fn level(self) -> i64 {
        match self {
            Self::Closed => 0,
            Self::HalfOpen | Self::Ramp => 1,
            Self::Open => 2,
        }
    }

    /// As logs and views spell it.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Closed => "closed",
            Self::Open => "open",
            Self::HalfOpen => "half-open",
            Self::Ramp => "ramp",
        }
    }
}
