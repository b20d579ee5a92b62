//! How much may be sent beyond the calls themselves: retries and hedges together.
//!
//! One budget per dependency. It is what keeps a dependency that is down from being asked many
//! times as often as one that is up.

use std::{
    sync::{Mutex, PoisonError},
    time::Duration,
};

use tokio::time::Instant;

use super::window::Window;

/// The seconds that are looked at.
const SECONDS: usize = 10;

/// How much is allowed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Allowance {
    /// A share of the calls of the last 10 s, in per cent, and so many per second beside.
    Share {
        /// Per cent of the calls.
        percent: u32,
        /// Beside them, per second.
        per_second: u32,
    },
    /// gRPC's tokens: a failure takes one, a success gives a part of one back. Nothing is
    /// allowed unless more than half are left.
    Tokens {
        /// As many as there are at first, and at most.
        max: u32,
        /// What a success gives back, in thousandths.
        ratio_thousandths: u32,
    },
}

/// What is left for one dependency.
#[derive(Debug)]
pub(super) struct Budget {
    allowance: Allowance,
    born: Instant,
    /// All: calls. Some: what was spent.
    window: Window<SECONDS>,
    /// Spending is rare, and exact: one after the other.
    spending: Mutex<Spending>,
}

#[derive(Debug)]
struct Spending {
    /// Thousandths of tokens.
    tokens: u64,
    /// Since when it is known that nothing is left; forgotten when enough has come back.
    said: Option<Instant>,
}

/// Whether something more may be sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Spent {
    Paid,
    /// Nothing is left, for the first time since enough was.
    Emptied,
    /// Nothing is left.
    Empty,
}

/// One token, in thousandths.
const TOKEN: u64 = 1_000;
/// That a budget is empty is said again this much later, if it had more than half of what it may
/// have meanwhile: one that every tenth call pays for is empty after each of them.
const QUIET: Duration = Duration::from_secs(SECONDS as u64);

// === impl Allowance ===

impl Default for Allowance {
    /// 10 % of the calls and 3 per second.
    fn default() -> Self {
        Self::Share { percent: 10, per_second: 3 }
    }
}

impl Allowance {
    /// gRPC's own numbers: 10 tokens, a tenth of one for a success.
    #[must_use]
    pub fn tokens() -> Self {
        Self::Tokens { max: 10, ratio_thousandths: 100 }
    }

    /// This part of the calls, and of a few calls 3 per second; with 0 nothing at all.
    pub(super) fn percent(percent: u32) -> Self {
        let per_second = if percent == 0 { 0 } else { 3 };
        Self::Share { percent, per_second }
    }
}

// === impl Budget ===

impl Budget {
    pub(super) fn new(allowance: Allowance, now: Instant) -> Self {
        let tokens = match allowance {
            Allowance::Share { .. } => 0,
            Allowance::Tokens { max, .. } => u64::from(max) * TOKEN,
        };
        let spending = Mutex::new(Spending { tokens, said: None });
        Self { allowance, born: now, window: Window::new(), spending }
    }

    /// Takes note of a call: it pays in.
    pub(super) fn call(&self, now: Instant) {
        self.window.count(self.tick(now), false);
    }

    /// Takes note of how an attempt ended; only tokens depend on it.
    pub(super) fn ended(&self, failed: bool) {
        let Allowance::Tokens { max, ratio_thousandths } = self.allowance else { return };
        let mut spending = self.spending.lock().unwrap_or_else(PoisonError::into_inner);
        let tokens = spending.tokens;
        spending.tokens = if failed {
            tokens.saturating_sub(TOKEN)
        } else {
            (tokens + u64::from(ratio_thousandths)).min(u64::from(max) * TOKEN)
        };
    }

    /// Pays for one attempt more.
    pub(super) fn spend(&self, now: Instant) -> Spent {
        let mut spending = self.spending.lock().unwrap_or_else(PoisonError::into_inner);
        let tick = self.tick(now);
        let (left, most) = self.left_of(&spending, tick);
        let quiet = |said| now.saturating_duration_since(said) >= QUIET;
        if left * 2 > most && spending.said.is_some_and(quiet) {
            spending.said = None;
        }
        if left == 0 {
            let first = spending.said.is_none();
            spending.said.get_or_insert(now);
            return if first { Spent::Emptied } else { Spent::Empty };
        }
        self.window.add(tick, super::window::Counts { all: 0, some: 1 });
        Spent::Paid
    }

    /// How many attempts it would pay for.
    pub(super) fn left(&self, now: Instant) -> u64 {
        let spending = self.spending.lock().unwrap_or_else(PoisonError::into_inner);
        self.left_of(&spending, self.tick(now)).0
    }

    /// What is left, and what it is at most.
    fn left_of(&self, spending: &Spending, tick: u64) -> (u64, u64) {
        match self.allowance {
            Allowance::Share { percent, per_second } => {
                let counts = self.window.sum(tick);
                let beside = u64::from(per_second) * SECONDS as u64;
                let most = counts.all * u64::from(percent) / 100 + beside;
                (most.saturating_sub(counts.some), most)
            }
            Allowance::Tokens { max, .. } => {
                let half = u64::from(max) * TOKEN / 2;
                (spending.tokens.saturating_sub(half).div_ceil(TOKEN), half.div_ceil(TOKEN))
            }
        }
    }

    fn tick(&self, now: Instant) -> u64 {
        now.saturating_duration_since(self.born).as_secs()
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use proptest::prelude::*;

    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    /// Spends until nothing is left.
    fn drain(budget: &Budget, now: Instant) -> u64 {
        (0..100_000).take_while(|_| budget.spend(now) == Spent::Paid).count() as u64
    }

    #[test]
    fn a_tenth_of_the_calls_and_three_a_second() {
        let now = Instant::now();
        for (calls, left) in [(0, 30), (9, 30), (10, 31), (1_000, 130)] {
            let budget = Budget::new(Allowance::default(), now);
            (0..calls).for_each(|_| budget.call(now));
            assert_eq!(budget.left(now), left, "{calls} calls");
            assert_eq!(drain(&budget, now), left, "{calls} calls");
        }
    }

    #[test]
    fn what_was_spent_comes_back_after_ten_seconds() {
        let now = Instant::now();
        let budget = Budget::new(Allowance::default(), now);
        assert_eq!(drain(&budget, now), 30);
        assert_eq!(budget.left(now + 9 * SECOND), 0);
        assert_eq!(budget.left(now + 10 * SECOND), 30);
    }

    #[test]
    fn it_says_once_that_it_is_empty() {
        let born = Instant::now();
        let budget = Budget::new(Allowance::Share { percent: 0, per_second: 0 }, born);
        assert_eq!(budget.spend(born), Spent::Emptied);
        assert_eq!(budget.spend(born + 60 * SECOND), Spent::Empty);
        // A hundred calls a second, and each wants more: every tenth is paid for.
        for allowance in [Allowance::Share { percent: 10, per_second: 0 }, Allowance::default()] {
            let budget = Budget::new(allowance, born);
            let mut said = Vec::new();
            let outage = |from: u32, said: &mut Vec<u32>| {
                for call in from * 100..(from + 60) * 100 {
                    let now = born + SECOND / 100 * call;
                    budget.call(now);
                    if budget.spend(now) == Spent::Emptied {
                        said.push(call / 100);
                    }
                }
            };
            outage(0, &mut said);
            assert_eq!(said.len(), 1, "{allowance:?}: {said:?}");
            // It has been well since, and fails again.
            outage(300, &mut said);
            assert_eq!(said.len(), 2, "{allowance:?}: {said:?}");
        }
    }

    #[test]
    fn a_budget_of_tokens_says_so_every_ten_seconds_at_most() {
        let born = Instant::now();
        let budget = Budget::new(Allowance::tokens(), born);
        let mut said = 0;
        for millis in 0..60_000_u32 {
            let now = born + SECOND / 1_000 * millis;
            // Again and again it is empty for 50 ms, and then full.
            budget.ended(millis % 500 < 50);
            said += u32::from(budget.spend(now) == Spent::Emptied);
        }
        assert!((2..=6).contains(&said), "{said}");
    }

    #[test]
    fn tokens_are_those_of_grpc() {
        let now = Instant::now();
        let budget = Budget::new(Allowance::tokens(), now);
        (0..4).for_each(|_| budget.ended(true));
        assert_eq!(budget.spend(now), Spent::Paid, "6 of 10 are left");
        budget.ended(true);
        assert_eq!(budget.spend(now), Spent::Emptied, "5 of 10 are left");
        budget.ended(false);
        assert_eq!(budget.spend(now), Spent::Paid, "5.1 of 10 are left");
        (0..1_000).for_each(|_| budget.ended(false));
        (0..5).for_each(|_| budget.ended(true));
        assert_ne!(budget.spend(now), Spent::Paid, "never more than 10");
    }

    proptest! {
        #[test]
        fn it_pays_as_a_list_does(
            steps in proptest::collection::vec((0..2_500_u64, 0..40_u64, 0..20_u64), 0..60),
        ) {
            let born = Instant::now();
            let (mut now, mut millis) = (born, 0);
            let budget = Budget::new(Allowance::default(), born);
            let (mut calls, mut spent) = (Vec::new(), Vec::new());
            for (pass, made, wanted) in steps {
                millis += pass;
                now += Duration::from_millis(pass);
                for _ in 0..made {
                    budget.call(now);
                    calls.push(millis / 1_000);
                }
                for _ in 0..wanted {
                    let last = |list: &[u64]| {
                        list.iter().filter(|at| **at + 10 > millis / 1_000).count()
                    };
                    let pays = last(&spent) < last(&calls) / 10 + 30;
                    prop_assert_eq!(budget.spend(now) == Spent::Paid, pays);
                    if pays {
                        spent.push(millis / 1_000);
                    }
                }
            }
        }

        /// Against the sum of what was given and taken, in tenths of a token.
        #[test]
        fn tokens_are_counted_as_by_hand(
            ends in proptest::collection::vec((any::<bool>(), any::<bool>()), 0..200),
        ) {
            let now = Instant::now();
            let budget = Budget::new(Allowance::tokens(), now);
            let mut tenths = 100_i32;
            for (failed, wants) in ends {
                budget.ended(failed);
                tenths = if failed { (tenths - 10).max(0) } else { (tenths + 1).min(100) };
                if wants {
                    // gRPC asks whether more than half are left; the failure has paid already.
                    prop_assert_eq!(budget.spend(now) == Spent::Paid, tenths > 50);
                }
            }
        }
    }
}
