//! Breakers that have a name.

use std::str::FromStr;

use crate::client::breaker::{self, Rule};

/// A breaker by its name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Preset {
    Default,
    SlowCalls,
    SeedCount,
    Opossum,
    Opossum10s,
    Off,
}

// === impl Preset ===

impl Preset {
    pub(super) fn rule(self) -> Rule {
        match self {
            Self::Default => Rule::default(),
            Self::SlowCalls => breaker::slow_calls(),
            Self::SeedCount => breaker::seed_count(),
            Self::Opossum => breaker::opossum(),
            Self::Opossum10s => breaker::opossum_10s(),
            // Without a least number of calls the shared one never decides for it.
            Self::Off => Rule { failures_min: u32::MAX, calls_min: 0, ..Rule::default() },
        }
    }
}

impl FromStr for Preset {
    type Err = String;

    fn from_str(name: &str) -> Result<Self, String> {
        Ok(match name {
            "default" => Self::Default,
            "slow_calls" => Self::SlowCalls,
            "seed_count" => Self::SeedCount,
            "opossum" => Self::Opossum,
            "opossum_10s" => Self::Opossum10s,
            "off" => Self::Off,
            _ => {
                return Err(format!(
                    "`{name}` is not a breaker: default, slow_calls, seed_count, opossum, \
                     opossum_10s, off"
                ));
            }
        })
    }
}
