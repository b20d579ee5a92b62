//! When a breaker opens, for how long, and how it closes again.

use std::time::Duration;

use crate::client::window::Counts;

/// When a breaker opens and how it closes. What is judged are the last 10 seconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rule {
    /// It stays closed below so many failures.
    pub failures_min: u32,
    /// With fewer calls the share says nothing, and the method is judged together with others.
    pub calls_min: u32,
    /// The share of failures at which it opens.
    pub share: Share,
    /// It opens with fewer calls too, if all of them failed.
    pub all_failing: bool,
    /// It opens as well if so many per cent took more than half of the time they had.
    pub slow_percent: Option<u32>,
    /// How long it stays open. Each time that it opens again without having closed doubles it.
    pub open: Duration,
    /// The longest that it stays open, before jitter; also where the callee asks for longer.
    pub open_max: Duration,
    /// How far it strays from that, in per cent to either side.
    pub jitter_percent: u32,
    /// So many probes must succeed, one after the other.
    pub probes: u32,
    /// In this time the share of calls let through rises from a quarter to all. Zero closes at
    /// once.
    pub ramp: Duration,
}

/// A share of failures among calls.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Share {
    /// Only the number of failures counts.
    Any,
    /// So many per cent or more.
    AtLeast(u32),
    /// More than so many per cent.
    Above(u32),
}

// === impl Rule ===

impl Default for Rule {
    /// Opens on 5 failures if they are half of 20 calls, or all calls. Open for 5 s, doubling to
    /// 20 s; two probes, then 2 s of ramp.
    fn default() -> Self {
        Self {
            failures_min: 5,
            calls_min: 20,
            share: Share::AtLeast(50),
            all_failing: true,
            slow_percent: None,
            open: Duration::from_secs(5),
            open_max: Duration::from_secs(20),
            jitter_percent: 20,
            probes: 2,
            ramp: Duration::from_secs(2),
        }
    }
}

impl Rule {
    /// Whether it opens on these calls and failures.
    pub(super) fn opens(&self, Counts { all, some: failures }: Counts) -> bool {
        if all == 0 || failures < u64::from(self.failures_min) {
            return false;
        }
        if self.all_failing && failures == all {
            return true;
        }
        all >= u64::from(self.calls_min)
            && match self.share {
                Share::Any => true,
                Share::AtLeast(percent) => failures * 100 >= all * u64::from(percent),
                Share::Above(percent) => failures * 100 > all * u64::from(percent),
            }
    }

    /// How long it stays open, having opened `again` so many times since it was closed.
    pub(super) fn open_for(&self, again: u32) -> Duration {
        let doubled = self.open.saturating_mul(2_u32.saturating_pow(again)).min(self.open_max);
        if self.jitter_percent == 0 {
            return doubled;
        }
        let percent = self.jitter_percent.min(100);
        doubled * fastrand::u32(100 - percent..=100 + percent) / 100
    }
}

/// The default, which opens as well if four of five calls took more than half of the time they had.
#[must_use]
pub fn slow_calls() -> Rule {
    Rule { slow_percent: Some(80), ..Rule::default() }
}

/// Opens at 5 errors in 10 s, whatever their share. Opens again and probes as the default does.
///
/// At 10 000 calls/s that is a share of 0.005 %: for dependencies that are called rarely.
#[must_use]
pub fn seed_count() -> Rule {
    Rule { failures_min: 5, calls_min: 0, share: Share::Any, ..Rule::default() }
}

/// Opens above 50 % of errors in 10 s, for 30 s; then one probe, whose success closes.
///
/// At least 5 calls: a single one that fails is no rate.
#[must_use]
pub fn opossum() -> Rule {
    let reset = Duration::from_secs(30);
    Rule {
        failures_min: 1,
        calls_min: 5,
        share: Share::Above(50),
        all_failing: false,
        slow_percent: None,
        open: reset,
        open_max: reset,
        jitter_percent: 0,
        probes: 1,
        ramp: Duration::ZERO,
    }
}

/// The same with a reset after 10 s.
#[must_use]
pub fn opossum_10s() -> Rule {
    let reset = Duration::from_secs(10);
    Rule { open: reset, open_max: reset, ..opossum() }
}
