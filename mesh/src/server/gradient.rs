//! How many calls at once are good for a process: Gradient2, without a clock or a lock.
//!
//! Netflix's algorithm compares how long calls take now with how long they have taken. Where they
//! take longer than usual they queue somewhere, and the limit shrinks; where they do not, it grows.

use std::time::Duration;

use tokio::time::Instant;

/// Windows that the usual time is averaged over.
const LONG: f64 = 600.0;
/// Until so many windows the average is a plain one.
const WARM: u32 = 10;
/// How much of a new limit is taken over at once.
const SMOOTHING: f64 = 0.2;
/// How much longer than usual is still usual.
const TOLERANCE: f64 = 1.5;
/// How many calls may queue: what the limit grows by.
const QUEUE: f64 = 4.0;
/// A window is closed after this time, if it has as many samples as this.
const WINDOW: (Duration, u32) = (Duration::from_millis(100), 10);

/// The limit and what it is made of.
#[derive(Debug)]
pub(super) struct Gradient {
    least: f64,
    most: f64,
    limit: f64,
    usual: f64,
    windows: u32,
}

/// What happened since the limit was last changed.
#[derive(Debug)]
pub(super) struct Window {
    began: Instant,
    took: Duration,
    count: u32,
    busiest: u32,
}

// === impl Gradient ===

impl Gradient {
    /// Begins at `least`, and stays between `least` and `most`.
    pub(super) fn new(least: u32, most: u32) -> Self {
        let (least, most) = (f64::from(least.max(1)), f64::from(most.max(least).max(1)));
        Self { least, most, limit: least, usual: 0.0, windows: 0 }
    }

    /// The limit after a window in which calls took `took` on average, `busiest` of them at once.
    pub(super) fn update(&mut self, took: Duration, busiest: u32) -> u32 {
        // Below a microsecond nothing is measured; nothing is divided by zero.
        let short = took.as_secs_f64().max(1e-6);
        self.windows = self.windows.saturating_add(1);
        let weight =
            if self.windows <= WARM { 1.0 / f64::from(self.windows) } else { 2.0 / (LONG + 1.0) };
        self.usual += (short - self.usual) * weight;
        // After a long time of trouble: forget it sooner than it was learnt.
        if self.usual / short > 2.0 {
            self.usual *= 0.95;
        }
        // A limit that nobody comes near says nothing.
        if f64::from(busiest) >= self.limit / 2.0 {
            // Never less than half at once: one bad window is not a trend.
            let gradient = (TOLERANCE * self.usual / short).clamp(0.5, 1.0);
            let next = self.limit * gradient + QUEUE;
            self.limit = self.limit * (1.0 - SMOOTHING) + next * SMOOTHING;
            self.limit = self.limit.clamp(self.least, self.most);
        }
        self.limit()
    }

    pub(super) fn limit(&self) -> u32 {
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "between two limits that are u32"
        )]
        let limit = self.limit as u32;
        limit
    }
}

// === impl Window ===

impl Window {
    pub(super) fn new(began: Instant) -> Self {
        Self { began, took: Duration::ZERO, count: 0, busiest: 0 }
    }

    /// Takes a sample in. Says what the window held when it closes with it.
    pub(super) fn add(
        &mut self,
        now: Instant,
        took: Duration,
        at_once: u32,
    ) -> Option<(Duration, u32)> {
        self.took += took;
        self.count += 1;
        self.busiest = self.busiest.max(at_once);
        let closes =
            self.count >= WINDOW.1 && now.saturating_duration_since(self.began) >= WINDOW.0;
        closes.then(|| {
            let held = (self.took / self.count, self.busiest);
            *self = Self::new(now);
            held
        })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const MS: Duration = Duration::from_millis(1);

    #[test]
    fn the_limit_grows_while_calls_take_what_they_took() {
        let mut gradient = Gradient::new(20, 200);
        assert_eq!(gradient.limit(), 20);
        for _ in 0..1_000 {
            gradient.update(5 * MS, 200);
        }
        assert_eq!(gradient.limit(), 200);
    }

    #[test]
    fn it_shrinks_when_they_take_longer_and_comes_back() {
        let mut gradient = Gradient::new(20, 200);
        for _ in 0..1_000 {
            gradient.update(5 * MS, 200);
        }
        for _ in 0..50 {
            gradient.update(50 * MS, 200);
        }
        assert!(gradient.limit() < 60, "{}", gradient.limit());
        for _ in 0..600 {
            gradient.update(5 * MS, 200);
        }
        assert!(gradient.limit() > 150, "{}", gradient.limit());
    }

    #[test]
    fn it_does_not_grow_while_nobody_comes_near_it() {
        let mut gradient = Gradient::new(20, 200);
        for _ in 0..1_000 {
            gradient.update(5 * MS, 9);
        }
        assert_eq!(gradient.limit(), 20);
    }

    /// The algorithm as its paper has it, on the whole history at once.
    fn naive(windows: &[(u32, u32)]) -> f64 {
        let (mut limit, mut usual) = (20.0_f64, 0.0_f64);
        for (n, &(micros, busiest)) in (1_u32..).zip(windows) {
            let short = f64::from(micros) / 1e6;
            let weight = if n <= 10 { 1.0 / f64::from(n) } else { 2.0 / 601.0 };
            usual = usual * (1.0 - weight) + short * weight;
            if usual > 2.0 * short {
                usual *= 0.95;
            }
            if f64::from(busiest) < limit / 2.0 {
                continue;
            }
            let gradient = (1.5 * usual / short).clamp(0.5, 1.0);
            limit = (0.8 * limit + 0.2 * (limit * gradient + 4.0)).clamp(20.0, 200.0);
        }
        limit
    }

    proptest! {
        #[test]
        fn it_is_what_the_paper_says(windows in prop::collection::vec((1_u32..1_000_000, 0_u32..300), 1..300)) {
            let mut gradient = Gradient::new(20, 200);
            for &(micros, busiest) in &windows {
                gradient.update(Duration::from_micros(micros.into()), busiest);
            }
            prop_assert!((gradient.limit - naive(&windows)).abs() < 1e-6);
            prop_assert!((20..=200).contains(&gradient.limit()));
        }

        #[test]
        fn a_window_holds_the_mean_and_the_most(samples in prop::collection::vec((1_u32..1_000, 0_u32..300), 10..50)) {
            let began = Instant::now();
            let mut window = Window::new(began);
            for &(micros, at_once) in &samples {
                let held = window.add(began, Duration::from_micros(micros.into()), at_once);
                prop_assert_eq!(held, None, "too early");
            }
            let held = window.add(began + WINDOW.0, MS, 0).expect("it closes");
            let sum: u32 = samples.iter().map(|it| it.0).sum();
            let count = u32::try_from(samples.len()).expect("few") + 1;
            prop_assert_eq!(held.0, (Duration::from_micros(sum.into()) + MS) / count);
            prop_assert_eq!(held.1, samples.iter().map(|it| it.1).max().expect("some"));
        }
    }
}
