//! How long a handler usually takes: what it cannot do in less time is refused at once.
//!
//! The estimate is doubted all the same. While it refuses calls, one of them every now and then
//! is let through; if those are done in time, what made the others slow has passed, and it is
//! forgotten. Without that, what a process learnt while its database stood still would refuse
//! calls long after.

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
/// Among calls that are refused, one is let through after this time, and again after it.
const TRIED: Duration = Duration::from_millis(100);
/// So many in a row that are done in time refute the estimate. If it were right, fewer than half
/// would be: fewer than one row in thirty.
const REFUTED: u32 = 5;

/// The median of the last samples.
#[derive(Debug)]
pub(super) struct Median {
    micros: [u32; KEPT],
    next: usize,
    count: u32,
    median: u32,
    sampled: Option<Instant>,
    doubts: Doubts,
}

/// What became of the calls that were let through although there seemed to be no time for them.
#[derive(Clone, Copy, Debug)]
struct Doubts {
    /// When the next one is let through.
    due: Option<Instant>,
    /// How many were done in time since one was not, and the slowest of them.
    row: u32,
    slowest: Duration,
    /// When the last of them was.
    last: Option<Instant>,
}

/// Whether a call has a chance.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Chance {
    /// As good as any.
    Good,
    /// None, as far as is known: it finds out whether that is still so.
    Doubtful,
}

/// How long a handler worked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Took {
    /// Until it was done.
    Done(Duration),
    /// Until its time was over: it would have taken longer.
    Late(Duration),
}

// === impl Median ===

impl Median {
    pub(super) const fn new() -> Self {
        let doubts = Doubts { due: None, row: 0, slowest: Duration::ZERO, last: None };
        Self { micros: [0; KEPT], next: 0, count: 0, median: 0, sampled: None, doubts }
    }

    /// Whether a call with so much time `left` is begun; if not, how much it would need.
    pub(super) fn admits(&mut self, now: Instant, left: Duration) -> Result<Chance, Duration> {
        let Some(needs) = self.estimate(now).filter(|needs| left < *needs) else {
            return Ok(Chance::Good);
        };
        let due = self.doubts.due.is_some_and(|due| due <= now);
        if due || self.doubts.due.is_none() {
            self.doubts.due = Some(now + TRIED);
        }
        if due { Ok(Chance::Doubtful) } else { Err(needs) }
    }

    /// Takes in how long a call took that was begun with this chance.
    pub(super) fn ended(&mut self, now: Instant, took: Took, chance: Chance) {
        match took {
            Took::Done(took) => self.record(now, took),
            // With the little time that it had it says nothing against the estimate.
            Took::Late(took) => {
                self.record(now, took.max(self.estimate(now).unwrap_or_default()));
            }
        }
        if chance == Chance::Doubtful && self.doubts.end(now, took) {
            *self = Self::new();
        }
    }

    fn record(&mut self, now: Instant, took: Duration) {
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
    fn estimate(&self, now: Instant) -> Option<Duration> {
        let micros = self.median >> self.halvings(now);
        (self.count >= ENOUGH).then(|| Duration::from_micros(micros.into()))
    }

    fn halvings(&self, now: Instant) -> u32 {
        let Some(sampled) = self.sampled else { return 0 };
        let times = now.saturating_duration_since(sampled).as_millis() / HALVED.as_millis();
        u32::try_from(times).unwrap_or(u32::MAX).min(u32::BITS - 1)
    }
}

// === impl Doubts ===

impl Doubts {
    /// One that was let through has ended; whether the estimate is refuted.
    fn end(&mut self, now: Instant, took: Took) -> bool {
        // What was long ago stands in no row with this.
        if self.last.is_some_and(|last| now.saturating_duration_since(last) > HALVED) {
            (self.row, self.slowest) = (0, Duration::ZERO);
        }
        self.last = Some(now);
        match took {
            Took::Done(took) => {
                self.row += 1;
                self.slowest = self.slowest.max(took);
            }
            // It had less time than those that were done: that is nothing new.
            Took::Late(had) if had < self.slowest => {}
            Took::Late(_) => (self.row, self.slowest) = (0, Duration::ZERO),
        }
        self.row >= REFUTED
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

    /// Asks every 5 ms for a call that has `left`; `does` says what one does that is begun. The
    /// time until nothing is refused any more, and how many were begun until then.
    fn until_admitted(
        median: &mut Median,
        from: Instant,
        left: Duration,
        does: impl Fn(u32) -> Took,
    ) -> Option<(Duration, u32)> {
        let mut begun = 0;
        for at in (0..60_000).step_by(5).map(Duration::from_millis) {
            match median.admits(from + at, left) {
                Ok(Chance::Good) => return Some((at, begun)),
                Ok(Chance::Doubtful) => {
                    median.ended(from + at, does(begun), Chance::Doubtful);
                    begun += 1;
                }
                Err(_) => {}
            }
        }
        None
    }

    #[test]
    fn what_a_stall_has_taught_is_forgotten_within_a_second_after_it() {
        let now = Instant::now();
        let mut median = of(&[3_000; 64], now);
        let second = Duration::from_secs(1);
        assert_eq!(median.admits(now, second), Err(3 * second), "the first one is refused");
        let quick = |_| Took::Done(Duration::from_millis(10));
        let (after, begun) = until_admitted(&mut median, now, second, quick).expect("it ends");
        assert!(after <= second && begun == REFUTED, "{begun} in {after:?}");
        assert_eq!(median.estimate(now), None, "it begins anew");
    }

    #[test]
    fn an_estimate_that_holds_refuses_all_but_ten_a_second() {
        let now = Instant::now();
        let mut median = of(&[100; 64], now);
        let left = Duration::from_millis(50);
        // Now and then one is quick.
        let does = |n: u32| match n % 4 {
            0 => Took::Done(Duration::from_millis(2)),
            _ => Took::Late(left),
        };
        assert_eq!(until_admitted(&mut median, now, left, does), None);
        assert_eq!(median.estimate(now + 6 * HALVED), Some(Duration::from_millis(100)));
    }

    #[test]
    fn one_that_had_less_time_than_others_took_does_not_keep_the_estimate_up() {
        let now = Instant::now();
        let mut median = of(&[1_000; 64], now);
        let does = |n: u32| match n % 2 {
            0 => Took::Done(Duration::from_millis(20)),
            _ => Took::Late(Duration::from_millis(5)),
        };
        let left = Duration::from_millis(500);
        let (after, _) = until_admitted(&mut median, now, left, does).expect("it ends");
        assert!(after <= Duration::from_millis(1_100), "{after:?}");
    }

    #[test]
    fn whoever_was_late_counts_no_less_than_the_estimate() {
        let now = Instant::now();
        let mut median = of(&[100; 64], now);
        for _ in 0..64 {
            median.ended(now, Took::Late(Duration::from_millis(30)), Chance::Good);
        }
        assert_eq!(median.estimate(now), Some(Duration::from_millis(100)));
    }

    #[test]
    fn what_was_done_in_time_long_ago_refutes_nothing() {
        let doubtful = |every: Duration| {
            let mut median = of(&[100; 64], Instant::now());
            let mut now = Instant::now();
            for _ in 0..REFUTED {
                now += every;
                median.ended(now, Took::Done(Duration::from_millis(1)), Chance::Doubtful);
            }
            median.count
        };
        assert_eq!(doubtful(TRIED), 0, "five in a row: it begins anew");
        assert_ne!(doubtful(HALVED * 2), 0);
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
