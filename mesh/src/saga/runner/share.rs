//! How many sagas run at once: as many as are allowed while nobody calls and participants take
//! what they are sent, and fewer otherwise.
//!
//! Somebody waits for the answer to a call and nobody for the next step, so that a rush of orders
//! is taken in first and carried out as there is time. And what a participant would refuse waits
//! better here, where it costs nothing: the number follows what is taken, a little more with each
//! round of steps, a tenth less with a refusal (additive increase, multiplicative decrease, as
//! TCP does it; RFC 5681).

use std::{
    sync::{Mutex, PoisonError},
    time::Duration,
};

use tokio::time::Instant;

use crate::busy;

/// How often is looked whether there are fewer calls, while there are too many.
pub(super) const LOOK: Duration = Duration::from_millis(5);

/// One part in so many of the most is always allowed: sagas go on, however many call.
const LEAST: usize = 16;

/// How many sagas each call keeps back.
const EACH: usize = 8;

/// What is left of the number after a refusal.
const LESS: f64 = 0.9;

/// The refusals of so long a time are one: they answer what was sent under the same number.
const TOGETHER: Duration = Duration::from_millis(100);

/// How many sagas may run.
#[derive(Debug)]
pub(super) struct Share {
    most: usize,
    taken: Mutex<Taken>,
}

/// What participants take.
#[derive(Clone, Copy, Debug)]
struct Taken {
    /// So many at once.
    level: f64,
    /// Since when that is less than it was.
    lowered: Option<Instant>,
}

// === impl Share ===

impl Share {
    pub(super) fn new(most: usize) -> Self {
        Self { most, taken: Mutex::new(Taken { level: count(most), lowered: None }) }
    }

    /// How many sagas may run just now.
    pub(super) fn now(&self) -> usize {
        beside(busy::calls(), self.most).min(self.level())
    }

    /// How many of them participants take.
    fn level(&self) -> usize {
        let level = self.taken.lock().unwrap_or_else(PoisonError::into_inner).level;
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "between the least and the most, which are numbers of sagas"
        )]
        let level = level as usize;
        level.max(1)
    }

    /// Hears whether a step's participant took what it was sent.
    pub(super) fn heard(&self, took: bool, now: Instant) {
        let mut taken = self.taken.lock().unwrap_or_else(PoisonError::into_inner);
        if took {
            taken.level = (taken.level + 1.0 / taken.level.max(1.0)).min(count(self.most));
        } else if taken.lowered.is_none_or(|at| now.saturating_duration_since(at) >= TOGETHER) {
            taken.level = (taken.level * LESS).max(count(least(self.most)));
            taken.lowered = Some(now);
        }
    }
}

fn beside(calls: usize, most: usize) -> usize {
    most.saturating_sub(calls.saturating_mul(EACH)).max(least(most))
}

fn least(most: usize) -> usize {
    (most / LEAST).max(1)
}

#[expect(clippy::cast_precision_loss, reason = "a number of sagas")]
fn count(sagas: usize) -> f64 {
    sagas as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn calls_go_before_sagas_and_never_stop_them() {
        assert_eq!(beside(0, 256), 256);
        assert_eq!(beside(2, 256), 240);
        assert_eq!(beside(16, 256), 128);
        assert_eq!(beside(64, 256), 16);
        assert_eq!(beside(usize::MAX, 256), 16);
        assert_eq!(beside(64, 1), 1);
    }

    #[test]
    fn refusals_lower_the_number_once_in_a_while_and_never_to_nothing() {
        let (share, mut now) = (Share::new(256), Instant::now());
        for _ in 0..100 {
            share.heard(false, now);
        }
        assert_eq!(share.level(), 230, "all of them answer the same rush");
        for _ in 0..100 {
            now += TOGETHER;
            share.heard(false, now);
        }
        assert_eq!(share.level(), 16);
    }

    #[test]
    fn what_is_taken_raises_it_by_one_each_round_up_to_the_most() {
        let (share, now) = (Share::new(256), Instant::now());
        share.heard(false, now);
        for _ in 0..231 {
            share.heard(true, now);
        }
        assert_eq!(share.level(), 231);
        for _ in 0..100_000 {
            share.heard(true, now);
        }
        assert_eq!(share.level(), 256);
    }
}
