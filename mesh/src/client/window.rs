//! Two counts over the last seconds, exact, without a lock.
//!
//! A bucket is one word, so that a new second takes the place of an old one together with its
//! counts: 24 bits say which second it is, 20 bits each count. A count that is full stays so.

use std::sync::atomic::{AtomicU64, Ordering};

/// How many bits say which second a bucket is, and how many a count has.
const EPOCH: u32 = 24;
const COUNT: u32 = 20;

const EPOCHS: u64 = (1 << EPOCH) - 1;
/// The highest count of a bucket.
pub(super) const FULL: u64 = (1 << COUNT) - 1;

/// `N` buckets, each of one tick of the caller's clock.
#[derive(Debug)]
pub(super) struct Window<const N: usize> {
    buckets: [AtomicU64; N],
}

/// What was counted: all, and some of them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Counts {
    pub(super) all: u64,
    pub(super) some: u64,
}

// === impl Window ===

impl<const N: usize> Window<N> {
    pub(super) fn new() -> Self {
        Self { buckets: [const { AtomicU64::new(0) }; N] }
    }

    /// Counts one at `tick`, and among some if `also`.
    pub(super) fn count(&self, tick: u64, also: bool) {
        self.add(tick, Counts { all: 1, some: u64::from(also) });
    }

    /// Counts `more` at `tick`. What comes so late that its bucket is in use again is not counted.
    pub(super) fn add(&self, tick: u64, more: Counts) {
        let bucket = self.bucket(tick);
        let epoch = tick & EPOCHS;
        let mut word = bucket.load(Ordering::Relaxed);
        loop {
            let (held, mut counts) = unpack(word);
            if held != epoch {
                if counts.all + counts.some > 0 && is_later(held, epoch) {
                    return;
                }
                counts = Counts::default();
            }
            // Both stand still together: a full bucket keeps its rate.
            if counts.all + more.all > FULL || counts.some + more.some > FULL {
                return;
            }
            let next =
                pack(epoch, Counts { all: counts.all + more.all, some: counts.some + more.some });
            match bucket.compare_exchange_weak(word, next, Ordering::Relaxed, Ordering::Relaxed) {
                Ok(_) => return,
                Err(changed) => word = changed,
            }
        }
    }

    /// What was counted at `tick` and at the `N` − 1 ticks before.
    pub(super) fn sum(&self, tick: u64) -> Counts {
        let mut sum = Counts::default();
        for back in 0..N as u64 {
            let Some(at) = tick.checked_sub(back) else { break };
            let (epoch, counts) = unpack(self.bucket(at).load(Ordering::Relaxed));
            if epoch == at & EPOCHS {
                sum.all += counts.all;
                sum.some += counts.some;
            }
        }
        sum
    }

    /// Forgets everything.
    pub(super) fn clear(&self) {
        for bucket in &self.buckets {
            bucket.store(0, Ordering::Relaxed);
        }
    }

    fn bucket(&self, tick: u64) -> &AtomicU64 {
        // Less than `N`, which is a length.
        let index = usize::try_from(tick % N as u64).unwrap_or_default();
        &self.buckets[index]
    }
}

fn pack(epoch: u64, counts: Counts) -> u64 {
    epoch << (2 * COUNT) | counts.all << COUNT | counts.some
}

fn unpack(word: u64) -> (u64, Counts) {
    (word >> (2 * COUNT), Counts { all: word >> COUNT & FULL, some: word & FULL })
}

/// Whether `held` is after `epoch` on a clock that wraps.
fn is_later(held: u64, epoch: u64) -> bool {
    let ahead = held.wrapping_sub(epoch) & EPOCHS;
    ahead != 0 && ahead < EPOCHS / 2
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_count_that_is_full_stays_so_and_keeps_its_rate() {
        let window = Window::<10>::new();
        window.add(3, Counts { all: FULL, some: FULL / 2 });
        window.count(3, true);
        window.count(3, false);
        assert_eq!(window.sum(3), Counts { all: FULL, some: FULL / 2 });
        assert_eq!(window.sum(12), Counts { all: FULL, some: FULL / 2 });
        assert_eq!(window.sum(13), Counts::default());
    }

    #[test]
    fn the_seconds_wrap_without_a_trace() {
        let window = Window::<10>::new();
        let turn = 1 << EPOCH;
        for tick in turn - 5..turn + 5 {
            window.count(tick, tick < turn);
        }
        assert_eq!(window.sum(turn + 4), Counts { all: 10, some: 5 });
        assert_eq!(window.sum(turn + 9), Counts { all: 5, some: 0 });
    }

    #[test]
    fn what_comes_too_late_does_not_displace_what_is_newer() {
        let window = Window::<10>::new();
        window.count(15, true);
        window.count(5, true);
        assert_eq!(window.sum(15), Counts { all: 1, some: 1 });
    }

    #[test]
    fn no_count_is_lost_between_threads() {
        let window = Window::<10>::new();
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| (0..10_000).for_each(|n| window.count(n / 1_000, n % 2 == 0)));
            }
        });
        assert_eq!(window.sum(9), Counts { all: 40_000, some: 20_000 });
    }

    proptest! {
        #[test]
        fn it_counts_as_a_list_does(
            steps in proptest::collection::vec((0_u64..4, any::<bool>()), 0..200),
        ) {
            let window = Window::<10>::new();
            let mut list: Vec<(u64, bool)> = Vec::new();
            let mut tick = 0;
            for (ahead, also) in steps {
                tick += ahead;
                window.count(tick, also);
                list.push((tick, also));
                let last = || list.iter().filter(|(at, _)| at + 10 > tick);
                let naive = Counts {
                    all: last().count() as u64,
                    some: last().filter(|(_, also)| *also).count() as u64,
                };
                prop_assert_eq!(window.sum(tick), naive);
            }
        }
    }
}
