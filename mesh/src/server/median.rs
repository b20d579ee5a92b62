//! How long a handler usually takes: what it cannot do in less time is refused at once.

use std::time::Duration;

use tokio::time::Instant;

/// How many samples are kept.
const KEPT: usize = 64;
/// With fewer samples nothing is said.
const ENOUGH: u32 = 50;
/// The median is looked for again after this many samples.
const STRIDE: u32 = 8;
/// An estimate that nothing confirms for this long is halved: what it refuses gives no samples,
/// and would be refused for ever.
const HALVED: Duration = Duration::from_secs(10);

/// The median of the last samples.
#[derive(Debug)]
pub(super) struct Median {
    micros: [u32; KEPT],
    next: usize,
    count: u32,
    median: u32,
    sampled: Option<Instant>,
}

// === impl Median ===

impl Median {
    pub(super) const fn new() -> Self {
        Self { micros: [0; KEPT], next: 0, count: 0, median: 0, sampled: None }
    }

    /// Takes a sample in.
    pub(super) fn record(&mut self, now: Instant, took: Duration) {
        let halvings = self.halvings(now);
        if halvings > 0 {
            // What was known is as doubtful as the estimate that was made of it.
            self.micros.iter_mut().for_each(|micros| *micros >>= halvings);
            self.median >>= halvings;
        }
        self.sampled = Some(now);
        self.micros[self.next] = u32::try_from(took.as_micros()).unwrap_or(u32::MAX);
        self.next = (self.next + 1) % KEPT;
        self.count = self.count.saturating_add(1);
        if self.count == ENOUGH || (self.count > ENOUGH && self.count.is_multiple_of(STRIDE)) {
            let mut sorted = self.micros;
            let known = usize::try_from(self.count).unwrap_or(KEPT).min(KEPT);
            let (_, median, _) = sorted[..known].select_nth_unstable(known / 2);
            self.median = *median;
        }
    }

    /// The estimate, once there are samples enough.
    pub(super) fn estimate(&self, now: Instant) -> Option<Duration> {
        let micros = self.median >> self.halvings(now);
        (self.count >= ENOUGH).then(|| Duration::from_micros(micros.into()))
    }

    fn halvings(&self, now: Instant) -> u32 {
        let Some(sampled) = self.sampled else { return 0 };
        let times = now.saturating_duration_since(sampled).as_millis() / HALVED.as_millis();
        u32::try_from(times).unwrap_or(u32::MAX).min(u32::BITS - 1)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn of(samples: &[u64], now: Instant) -> Median {
        let mut median = Median::new();
        for &sample in samples {
            median.record(now, Duration::from_millis(sample));
        }
        median
    }

    #[test]
    fn nothing_is_said_before_50_samples() {
        let now = Instant::now();
        assert_eq!(of(&[10; 49], now).estimate(now), None);
        assert_eq!(of(&[10; 50], now).estimate(now), Some(Duration::from_millis(10)));
    }

    #[test]
    fn an_estimate_halves_every_10_s_without_samples_and_so_does_what_it_was_made_of() {
        let now = Instant::now();
        let mut median = of(&[80; 64], now);
        for (seconds, expected) in [(9, 80), (10, 40), (19, 40), (20, 20), (30, 10)] {
            let later = now + Duration::from_secs(seconds);
            assert_eq!(median.estimate(later), Some(Duration::from_millis(expected)), "{seconds}");
        }
        let later = now + Duration::from_secs(30);
        median.record(later, Duration::from_millis(10));
        assert_eq!(median.estimate(later), Some(Duration::from_millis(10)), "no jump back");
        assert_eq!(median.estimate(now + Duration::from_secs(3_600)), Some(Duration::ZERO));
    }

    proptest! {
        /// Against the samples kept in a list and sorted.
        #[test]
        fn the_estimate_is_the_median_of_the_last_64(samples in prop::collection::vec(0_u64..5_000, 64..400)) {
            let now = Instant::now();
            let samples = &samples[..samples.len() - samples.len() % 8];
            let mut last = samples[samples.len() - 64..].to_vec();
            last.sort_unstable();
            prop_assert_eq!(of(samples, now).estimate(now), Some(Duration::from_millis(last[32])));
        }

        #[test]
        fn any_refusal_passes_if_callers_go_on_asking(millis in 1_u64..4_000_000) {
            let now = Instant::now();
            let median = of(&[millis; 64], now);
            let later = now + 32 * HALVED;
            prop_assert!(median.estimate(later).is_some_and(|it| it <= Duration::from_millis(1)));
        }
    }
}
