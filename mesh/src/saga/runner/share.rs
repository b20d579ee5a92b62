//! How many sagas run at once: as many as are allowed while nobody calls and participants take
//! what they are sent, and fewer otherwise.
//!
//! Somebody waits for the answer to a call and nobody for the next step, so that a rush of orders
//! is taken in first and carried out as there is time. And what a participant would shed waits
//! better here, where it costs nothing: the number is a tenth less after it, and grows by one in a
//! while (additive increase, multiplicative decrease, as TCP does it; RFC 5681). A participant
//! that is away sheds nothing: sagas that do not need it go on.

use std::{
    sync::{Mutex, MutexGuard, PoisonError},
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

/// What is left of the number after a call was shed.
const LESS: f64 = 0.9;

/// In this time the number grows by one. What is shed in it counts once: it answers what was sent
/// under the same number.
const ROUND: Duration = Duration::from_millis(100);

/// How many sagas may run.
#[derive(Debug)]
pub(super) struct Share {
    most: usize,
    /// How many were left, and when, the last time that participants shed.
    lowered: Mutex<Option<(f64, Instant)>>,
}

// === impl Share ===

impl Share {
    pub(super) fn new(most: usize) -> Self {
        Self { most, lowered: Mutex::new(None) }
    }

    /// How many sagas may run just now.
    pub(super) fn now(&self, now: Instant) -> usize {
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "between one and the most, which is a number of sagas"
        )]
        let level = self.level(*self.lock(), now) as usize;
        beside(busy::calls(), self.most).min(level)
    }

    /// A participant shed a call.
    pub(super) fn shed(&self, now: Instant) {
        let mut lowered = self.lock();
        if lowered.is_none_or(|(_, at)| now.saturating_duration_since(at) >= ROUND) {
            let level = self.level(*lowered, now) * LESS;
            *lowered = Some((level.max(count(least(self.most))), now));
        }
    }

    fn level(&self, lowered: Option<(f64, Instant)>, now: Instant) -> f64 {
        let most = count(self.most.max(1));
        let Some((level, at)) = lowered else { return most };
        let rounds = now.saturating_duration_since(at).as_secs_f64() / ROUND.as_secs_f64();
        (level + rounds).min(most)
    }

    fn lock(&self) -> MutexGuard<'_, Option<(f64, Instant)>> {
        self.lowered.lock().unwrap_or_else(PoisonError::into_inner)
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

    fn level(share: &Share, now: Instant) -> f64 {
        share.level(*share.lock(), now)
    }

    #[test]
    fn what_is_shed_lowers_the_number_once_in_a_while_and_never_to_nothing() {
        let (share, mut now) = (Share::new(256), Instant::now());
        for _ in 0..100 {
            share.shed(now);
        }
        assert!((level(&share, now) - 230.4).abs() < 0.01, "all of them answer the same rush");
        for _ in 0..100 {
            now += ROUND;
            share.shed(now);
        }
        assert!((level(&share, now) - 16.0).abs() < 0.01);
    }

    #[test]
    fn it_grows_by_one_in_a_while_up_to_the_most() {
        let (share, now) = (Share::new(256), Instant::now());
        share.shed(now);
        assert!((level(&share, now + 10 * ROUND) - 240.4).abs() < 0.01);
        assert!((level(&share, now + 26 * ROUND) - 256.0).abs() < 0.01);
        assert!((level(&share, now + 1_000 * ROUND) - 256.0).abs() < 0.01);
    }
}
