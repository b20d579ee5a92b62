//! Sends less to a dependency that has too much to do.
//!
//! What a server refuses costs it work all the same. So the client drops some calls itself, the
//! more of them the fewer are accepted (adaptive throttling, "Site Reliability Engineering",
//! chapter 21): with probability (requests − 2 · accepts) / (requests + 1) over two minutes.

use tokio::time::Instant;

use super::window::{Counts, Window};

/// Two minutes in steps of ten seconds.
const STEPS: usize = 12;
const STEP_SECS: u64 = 10;

/// What one dependency accepted lately.
#[derive(Debug)]
pub(super) struct Throttle {
    born: Instant,
    /// All: attempts that ended, and those dropped here. Some: those not accepted.
    window: Window<STEPS>,
}

// === impl Throttle ===

impl Throttle {
    pub(super) fn new(now: Instant) -> Self {
        Self { born: now, window: Window::new() }
    }

    /// Whether an attempt may be made; `draw` is random, from 0 to below 1.
    pub(super) fn admits(&self, draw: f64, now: Instant) -> bool {
        let tick = self.tick(now);
        let admits = draw >= probability(self.window.sum(tick));
        if !admits {
            self.window.count(tick, true);
        }
        admits
    }

    /// Takes note of an attempt that ended. Everything but `RESOURCE_EXHAUSTED` was accepted.
    ///
    /// Counted at its end: attempts under way would look like ones that were not accepted.
    pub(super) fn ended(&self, accepted: bool, now: Instant) {
        self.window.count(self.tick(now), !accepted);
    }

    fn tick(&self, now: Instant) -> u64 {
        now.saturating_duration_since(self.born).as_secs() / STEP_SECS
    }
}

/// How likely an attempt is dropped.
fn probability(Counts { all: requests, some: rejected }: Counts) -> f64 {
    let accepts = requests - rejected;
    let excess = requests.saturating_sub(2 * accepts);
    #[expect(clippy::cast_precision_loss, reason = "counts are below 2^24")]
    let probability = excess as f64 / (requests + 1) as f64;
    probability
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use proptest::prelude::*;

    use super::*;

    #[test]
    fn nothing_is_dropped_while_half_is_accepted() {
        let now = Instant::now();
        let throttle = Throttle::new(now);
        for _ in 0..1_000 {
            throttle.ended(true, now);
            throttle.ended(false, now);
        }
        assert!(throttle.admits(0.0, now));
    }

    #[test]
    fn what_accepts_nothing_gets_next_to_nothing_and_recovers() {
        let now = Instant::now();
        let throttle = Throttle::new(now);
        (0..99).for_each(|_| throttle.ended(false, now));
        assert!(!throttle.admits(0.98, now));
        assert!(throttle.admits(0.995, now));
        assert!(throttle.admits(0.0, now + Duration::from_secs(120)));
    }

    #[test]
    fn what_was_dropped_here_counts_as_asked_for() {
        let now = Instant::now();
        let throttle = Throttle::new(now);
        (0..10).for_each(|_| throttle.ended(false, now));
        assert!(throttle.admits(0.92, now));
        for _ in 0..100 {
            throttle.admits(0.5, now);
        }
        assert!(!throttle.admits(0.98, now));
    }

    proptest! {
        #[test]
        fn it_drops_as_the_formula_says(
            ends in proptest::collection::vec((0..20_000_u64, any::<bool>()), 0..200),
            draw in 0.0..1.0_f64,
        ) {
            let born = Instant::now();
            let throttle = Throttle::new(born);
            let (mut millis, mut list) = (0, Vec::new());
            for (pass, accepted) in ends {
                millis += pass;
                throttle.ended(accepted, born + Duration::from_millis(millis));
                list.push((millis / 10_000, accepted));
            }
            let last = || list.iter().filter(|(at, _)| *at + 12_u64 > millis / 10_000);
            let requests = last().count() as f64;
            let accepts = last().filter(|(_, accepted)| *accepted).count() as f64;
            let naive = ((requests - 2.0 * accepts) / (requests + 1.0)).max(0.0);
            let admits = throttle.admits(draw, born + Duration::from_millis(millis));
            prop_assert_eq!(admits, draw >= naive);
        }

        /// What it dropped itself counts as asked for; against a list again.
        #[test]
        fn whatever_is_asked_and_dropped_it_does_as_a_list_does(
            steps in proptest::collection::vec((0..8_000_u64, 0.0..1.0_f64, any::<bool>()), 0..300),
        ) {
            let born = Instant::now();
            let throttle = Throttle::new(born);
            let (mut millis, mut list) = (0, Vec::new());
            for (pass, draw, accepted) in steps {
                millis += pass;
                let now = born + Duration::from_millis(millis);
                let last = || list.iter().filter(|(at, _)| *at + 12_u64 > millis / 10_000);
                let requests = last().count() as f64;
                let accepts = last().filter(|(_, accepted)| *accepted).count() as f64;
                let naive = ((requests - 2.0 * accepts) / (requests + 1.0)).max(0.0);
                let admits = throttle.admits(draw, now);
                prop_assert_eq!(admits, draw >= naive);
                if admits {
                    throttle.ended(accepted, now);
                }
                list.push((millis / 10_000, admits && accepted));
            }
        }
    }
}
