//! How long a method takes as a rule: what decides whether an attempt can still be worth it.

use std::{
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use tokio::time::Instant;

/// Four buckets for each doubling, from a microsecond to more than an hour.
const BUCKETS: usize = 136;
/// A new sample weighs an eighth.
const WEIGHT: u32 = 8;
/// The counts are halved at so many, so that they say what is true lately.
const REMEMBERED: u32 = 1_024;
/// How many samples a quantile needs.
const ENOUGH: u32 = 10;
/// How many samples must be there before a call is refused because of them.
const SURE: u32 = 50;
/// What every call asks for is looked for again after so many samples.
const STRIDE: u32 = 8;
/// After each such time without a sample the estimates are halved: whoever refuses calls because
/// of them gets no samples, and must find out again.
const HALVES: Duration = Duration::from_secs(10);

/// The estimates of one method.
#[derive(Debug)]
pub(super) struct Latency(Mutex<Inner>);

#[derive(Debug)]
struct Inner {
    mean: Duration,
    counts: [u32; BUCKETS],
    all: u32,
    /// What only a quarter of the attempts are faster than.
    quarter: Duration,
    last: Option<Instant>,
}

// === impl Latency ===

impl Latency {
    pub(super) fn new() -> Self {
        Self(Mutex::new(Inner {
            mean: Duration::ZERO,
            counts: [0; BUCKETS],
            all: 0,
            quarter: Duration::ZERO,
            last: None,
        }))
    }

    /// Takes note of an attempt that was answered.
    pub(super) fn record(&self, took: Duration, now: Instant) {
        let mut inner = self.lock();
        let halvings = inner.halvings(now);
        if halvings > 0 {
            inner.mean /= 2_u32.saturating_pow(halvings);
            inner.halve(halvings);
        }
        inner.mean = if inner.mean.is_zero() {
            took
        } else {
            inner.mean - inner.mean / WEIGHT + took / WEIGHT
        };
        inner.counts[bucket(took)] += 1;
        inner.all += 1;
        inner.last = Some(now);
        if inner.all >= REMEMBERED {
            inner.halve(1);
        }
        if inner.all == SURE || inner.all.is_multiple_of(STRIDE) {
            inner.quarter = inner.at(25).unwrap_or_default();
        }
    }

    /// What an attempt takes; nothing while it is not known.
    pub(super) fn expected(&self, now: Instant) -> Duration {
        let inner = self.lock();
        inner.lately(inner.mean, now)
    }

    /// What only a quarter of the attempts are faster than, once there are enough to refuse a call
    /// that has less time. Not the mean: some calls of a method may wait on purpose.
    pub(super) fn least(&self, now: Instant) -> Option<Duration> {
        let inner = self.lock();
        (inner.all >= SURE).then(|| inner.lately(inner.quarter, now))
    }

    /// The time within which `percent` of the attempts end.
    pub(super) fn quantile(&self, percent: u32, now: Instant) -> Option<Duration> {
        let inner = self.lock();
        if inner.all < ENOUGH {
            return None;
        }
        Some(inner.lately(inner.at(percent)?, now))
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

// === impl Inner ===

impl Inner {
    fn at(&self, percent: u32) -> Option<Duration> {
        let rank = (u64::from(self.all) * u64::from(percent)).div_ceil(100);
        let mut seen = 0;
        let at = self.counts.iter().position(|count| {
            seen += u64::from(*count);
            seen >= rank
        })?;
        Some(middle(at))
    }

    /// What is left of an estimate that nothing confirmed for a while.
    fn lately(&self, estimate: Duration, now: Instant) -> Duration {
        match self.halvings(now) {
            0 => estimate,
            halvings => estimate / 2_u32.saturating_pow(halvings),
        }
    }

    fn halvings(&self, now: Instant) -> u32 {
        let idle = self.last.map_or(Duration::ZERO, |last| now.saturating_duration_since(last));
        u32::try_from(idle.as_secs() / HALVES.as_secs()).unwrap_or(u32::MAX)
    }

    fn halve(&mut self, times: u32) {
        for count in &mut self.counts {
            *count = count.checked_shr(times).unwrap_or(0);
        }
        self.all = self.counts.iter().sum();
    }
}

fn bucket(took: Duration) -> usize {
    let micros = u64::try_from(took.as_micros()).unwrap_or(u64::MAX).max(4);
    let doublings = micros.ilog2() - 2;
    // Two bits below the highest one.
    let quarter = micros >> doublings & 3;
    let index = u64::from(doublings) * 4 + quarter;
    usize::try_from(index).unwrap_or(BUCKETS).min(BUCKETS - 1)
}

/// The middle of what a bucket holds.
fn middle(bucket: usize) -> Duration {
    let (doublings, quarter) = (bucket / 4, bucket as u64 % 4);
    let eighths = (4 + quarter) * 2 + 1;
    Duration::from_micros((eighths << doublings) / 2)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const MS: Duration = Duration::from_millis(1);

    fn near(is: Duration, should: Duration) -> bool {
        is > should * 7 / 8 && is < should * 9 / 8
    }

    #[test]
    fn the_estimates_follow_what_is_measured() {
        let now = Instant::now();
        let latency = Latency::new();
        assert_eq!((latency.expected(now), latency.least(now)), (Duration::ZERO, None));
        assert_eq!(latency.quantile(50, now), None);
        for _ in 0..94 {
            latency.record(10 * MS, now);
        }
        for _ in 0..6 {
            latency.record(100 * MS, now);
        }
        assert!(near(latency.quantile(50, now).expect("enough"), 10 * MS));
        assert!(near(latency.quantile(95, now).expect("enough"), 100 * MS));
        // Whoever waits on purpose says nothing of how long it has to take.
        assert!(near(latency.least(now).expect("enough"), 10 * MS));
    }

    #[test]
    fn estimates_halve_every_ten_seconds_without_samples() {
        let now = Instant::now();
        let latency = Latency::new();
        for _ in 0..64 {
            latency.record(80 * MS, now);
        }
        for (seconds, expected) in [(0, 80), (9, 80), (10, 40), (20, 20), (30, 10)] {
            let at = now + Duration::from_secs(seconds);
            let least = latency.least(at).expect("enough");
            assert!(near(least, expected * MS), "{least:?} after {seconds} s");
        }
        latency.record(80 * MS, now + Duration::from_secs(10));
        assert_eq!(latency.least(now + Duration::from_secs(10)), None, "to be found out again");
    }

    proptest! {
        #[test]
        fn a_quantile_is_within_an_eighth_of_the_sorted_one(
            micros in proptest::collection::vec(4_u64..10_000_000, 10..500),
            percent in 1_u32..100,
        ) {
            let now = Instant::now();
            let latency = Latency::new();
            for &micros in &micros {
                latency.record(Duration::from_micros(micros), now);
            }
            let mut sorted = micros;
            sorted.sort_unstable();
            let rank = (sorted.len() * percent as usize).div_ceil(100);
            let naive = sorted[rank - 1] as f64;
            let is = latency.quantile(percent, now).expect("enough").as_micros() as f64;
            prop_assert!((is - naive).abs() <= naive / 8.0 + 1.0, "{is} for {naive}");
        }

        /// Against the samples in a list: each weighs seven eighths of the one after it, and half
        /// for every ten seconds of silence that came later.
        #[test]
        fn the_mean_is_the_weighted_one(
            samples in proptest::collection::vec((0_u64..35_000, 1_u64..5_000_000), 1..60),
            silence in 0_u64..60_000,
        ) {
            let born = Instant::now();
            let latency = Latency::new();
            let mut millis = 0;
            for &(wait, micros) in &samples {
                millis += wait;
                latency.record(Duration::from_micros(micros), born + Duration::from_millis(millis));
            }
            let halved = |wait: u64| 0.5_f64.powi(i32::try_from(wait / 10_000).expect("few"));
            let (mut naive, mut weight) = (0.0, halved(silence));
            for (place, &(wait, micros)) in samples.iter().enumerate().rev() {
                let part = if place == 0 { 1.0 } else { 0.125 };
                naive += weight * part * micros as f64;
                weight *= 0.875 * halved(wait);
            }
            let is = latency.expected(born + Duration::from_millis(millis + silence));
            let is = is.as_secs_f64() * 1e6;
            prop_assert!((is - naive).abs() <= naive / 1e3 + 1.0, "{is} for {naive}");
        }
    }
}
