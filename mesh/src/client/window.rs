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
pub(super) struct Window<const N: usize, W = AtomicU64> {
    buckets: [W; N],
}

/// A word that threads share. A test has one whose threads it lets meet in every order.
pub(super) trait Word: Default {
    fn read(&self) -> u64;

    /// Puts `next` in the place of `was`; else says what is there, which may be `was`.
    fn replace(&self, was: u64, next: u64) -> Result<u64, u64>;

    fn write(&self, word: u64);
}

/// What was counted: all, and some of them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Counts {
    pub(super) all: u64,
    pub(super) some: u64,
}

// === impl Window ===

impl<const N: usize, W: Word> Window<N, W> {
    pub(super) fn new() -> Self {
        Self { buckets: std::array::from_fn(|_| W::default()) }
    }

    /// Counts one at `tick`, and among some if `also`.
    pub(super) fn count(&self, tick: u64, also: bool) {
        self.add(tick, Counts { all: 1, some: u64::from(also) });
    }

    /// Counts `more` at `tick`. What comes so late that its bucket is in use again is not counted.
    pub(super) fn add(&self, tick: u64, more: Counts) {
        let bucket = self.bucket(tick);
        let epoch = tick & EPOCHS;
        let mut word = bucket.read();
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
            match bucket.replace(word, next) {
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
            let (epoch, counts) = unpack(self.bucket(at).read());
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
            bucket.write(0);
        }
    }

    fn bucket(&self, tick: u64) -> &W {
        // Less than `N`, which is a length.
        let index = usize::try_from(tick % N as u64).unwrap_or_default();
        &self.buckets[index]
    }
}

// === impl Word ===

impl Word for AtomicU64 {
    fn read(&self) -> u64 {
        self.load(Ordering::Relaxed)
    }

    fn replace(&self, was: u64, next: u64) -> Result<u64, u64> {
        self.compare_exchange_weak(was, next, Ordering::Relaxed, Ordering::Relaxed)
    }

    fn write(&self, word: u64) {
        self.store(word, Ordering::Relaxed);
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
    use crate::client::turns;

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

    /// A word of which every reading and writing is a step. One word has one order of changes
    /// that all threads agree on, so no weaker order of memory can show more than these.
    #[derive(Default)]
    struct Stepped(AtomicU64);

    impl Word for Stepped {
        fn read(&self) -> u64 {
            turns::step(|| self.0.read())
        }

        fn replace(&self, was: u64, next: u64) -> Result<u64, u64> {
            let replace =
                || self.0.compare_exchange(was, next, Ordering::Relaxed, Ordering::Relaxed);
            turns::step(replace)
        }

        fn write(&self, next: u64) {
            turns::step(|| self.0.write(next));
        }
    }

    type Shared = Window<2, Stepped>;

    fn in_every_order(one: fn(&Shared), other: fn(&Shared), then: fn(&Shared)) {
        turns::in_every_order(Shared::new, one, other, then);
    }

    #[test]
    fn in_whatever_order_threads_meet_no_count_is_lost() {
        in_every_order(
            |window| window.count(3, true),
            |window| {
                window.count(3, false);
                window.count(4, true);
            },
            |window| assert_eq!(window.sum(4), Counts { all: 3, some: 2 }),
        );
    }

    #[test]
    fn in_whatever_order_threads_meet_a_new_second_takes_nothing_of_the_old_one() {
        in_every_order(
            // The same bucket, two seconds later.
            |window| window.count(5, false),
            |window| {
                window.count(3, true);
                window.count(3, true);
            },
            |window| assert_eq!(window.sum(5), Counts { all: 1, some: 0 }),
        );
    }

    #[test]
    fn in_whatever_order_threads_meet_no_count_is_seen_in_another_second() {
        in_every_order(
            |window| {
                let Counts { all, some } = window.sum(4);
                assert!(all == some && all <= 2, "{some} of {all}");
            },
            |window| {
                window.add(2, Counts { all: 5, some: 0 });
                window.count(4, true);
                window.count(4, true);
            },
            |window| assert_eq!(window.sum(4), Counts { all: 2, some: 2 }),
        );
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
