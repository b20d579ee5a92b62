//! How many sagas run at once: as many as are allowed while nobody calls, and fewer while calls
//! are worked on. Somebody waits for the answer to a call and nobody for the next step, so that
//! a rush of orders is taken in first and carried out as there is time.

use std::time::Duration;

use crate::busy;

/// How often is looked whether there are fewer calls, while there are too many.
pub(super) const LOOK: Duration = Duration::from_millis(5);

/// One part in so many of the most is always allowed: sagas go on, however many call.
const LEAST: usize = 16;

/// How many sagas each call keeps back.
const EACH: usize = 8;

/// How many of at most `most` sagas may run just now.
pub(super) fn now(most: usize) -> usize {
    beside(busy::calls(), most)
}

fn beside(calls: usize, most: usize) -> usize {
    most.saturating_sub(calls.saturating_mul(EACH)).max(most / LEAST).max(1)
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
}
