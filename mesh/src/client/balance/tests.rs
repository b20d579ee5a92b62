use std::cell::RefCell;

use proptest::{collection::vec, prelude::*};

use super::*;

const MS: Duration = Duration::from_millis(1);
const SECOND: Duration = Duration::from_secs(1);

fn places(of: impl IntoIterator<Item = usize>) -> Places {
    of.into_iter().fold(Places::default(), Places::with)
}

fn close(a: f64, b: f64) -> bool {
    (a - b).abs() <= 0.01 * b.abs() + 1e-6
}

/// The same estimate, kept as two numbers and without a clock that goes round.
#[derive(Debug)]
struct Naive {
    estimate: f64,
    at: f64,
    measured: bool,
}

impl Naive {
    fn look(&self, at: f64) -> f64 {
        self.estimate * (-(at - self.at) / 10.0).exp()
    }

    fn take(&mut self, latency: f64, at: f64) {
        let kept = (-(at - self.at) / 10.0).exp();
        let old = at - self.at >= 3.0;
        self.estimate = if !self.measured || old || latency > self.estimate {
            latency
        } else {
            self.estimate * kept + latency * (1.0 - kept)
        };
        (self.at, self.measured) = (at, true);
    }
}

proptest! {
    #[test]
    fn the_packed_estimate_is_the_plain_one(
        samples in vec((any::<bool>(), 0u64..20_000, 1u64..5_000_000), 1..50)
    ) {
        let load = Load::guess(GUESS, Duration::ZERO);
        let mut naive = Naive { estimate: 0.005, at: 0.0, measured: false };
        let mut at = Duration::ZERO;
        for (fails, wait_ms, latency_us) in samples {
            // In whole ticks, so that both clocks read the same.
            at += Duration::from_micros((wait_ms * 1_000) >> TICK << TICK);
            let latency = Duration::from_micros(latency_us);
            if fails {
                let usual = naive.look(at.as_secs_f64());
                let penalty = latency.as_secs_f64().max(10.0 * usual).clamp(0.1, 10.0);
                naive.take(penalty, at.as_secs_f64());
                load.fail(latency, at);
            } else {
                naive.take(latency.as_secs_f64(), at.as_secs_f64());
                load.observe(latency, at);
            }
            let later = at + 3 * SECOND;
            let (is, should) = (load.latency(later).as_secs_f64(), naive.look(later.as_secs_f64()));
            prop_assert!(close(is, should), "{} is not {}", is, should);
        }
    }

    #[test]
    fn what_is_chosen_is_a_candidate_and_never_the_dearest(
        count in 1usize..=SUBSET, taken in vec(any::<bool>(), SUBSET), seed in any::<u64>()
    ) {
        let among = places((0..count).filter(|place| taken[*place]));
        let mut random = fastrand::Rng::with_seed(seed);
        let chosen = choose(among, |below| random.u32(..below), |place| [3.0, 1.0, 2.0][place % 3]);
        prop_assert_eq!(chosen.is_none(), among.is_empty());
        if let Some(chosen) = chosen {
            prop_assert!(among.iter().any(|place| place == chosen));
            // With two candidates the comparison is of these two.
            let cost = |place: usize| [3.0, 1.0, 2.0][place % 3];
            if among.count() == 2 {
                prop_assert!(among.iter().all(|other| cost(chosen) <= cost(other)));
            }
        }
    }

    #[test]
    fn candidates_are_those_of_the_plain_rule(
        all in 1usize..=SUBSET,
        bits in vec((any::<bool>(), any::<bool>(), any::<bool>()), SUBSET),
    ) {
        let set = |of: fn(&(bool, bool, bool)) -> bool| {
            (0..all).filter(|place| of(&bits[*place])).collect::<Vec<_>>()
        };
        let (ready, out, tried) = (set(|bit| bit.0), set(|bit| bit.1), set(|bit| bit.2));
        let mut left: Vec<_> = ready.iter().copied().filter(|one| !out.contains(one)).collect();
        if left.len() * 2 < all {
            left.clone_from(&ready);
        }
        let fresh: Vec<_> = left.iter().copied().filter(|one| !tried.contains(one)).collect();
        let expected = if fresh.is_empty() { left } else { fresh };
        let is = candidates(all, places(ready), places(out), places(tried));
        prop_assert_eq!(is.iter().collect::<Vec<_>>(), expected);
    }

    #[test]
    fn over_a_round_each_has_the_turns_that_its_weight_says(
        weights in vec(1u32..20, 1..SUBSET), from in 0u64..1_000_000
    ) {
        let total: u32 = weights.iter().sum();
        let mut turns = vec![0; weights.len()];
        for turn in from..from + u64::from(total) {
            turns[nth_turn(turn, weights.iter().copied()).unwrap()] += 1;
        }
        prop_assert_eq!(turns, weights);
    }
}

#[test]
fn a_slower_answer_counts_at_once_and_a_faster_one_over_ten_seconds() {
    let load = Load::guess(GUESS, Duration::ZERO);
    assert_eq!((load.measured(), load.latency(Duration::ZERO)), (false, GUESS));
    load.observe(MS, Duration::ZERO);
    assert!(load.measured(), "the first answer takes the place of the guess");
    let is = |at| load.latency(at).as_secs_f64();
    assert!(close(is(Duration::ZERO), 0.001));
    load.observe(100 * MS, SECOND);
    assert!(close(is(SECOND), 0.1), "at once");
    for second in 2..=11 {
        load.observe(MS, second * SECOND);
    }
    assert!(close(is(11 * SECOND), 0.001 + 0.099 / std::f64::consts::E), "a third");
}

#[test]
fn a_hard_failure_is_the_worst_answer_however_fast_it_was() {
    for (usual, failed, counts) in [
        (MS, MS / 10, 100 * MS),
        (50 * MS, MS, 500 * MS),
        (MS, 2 * SECOND, 2 * SECOND),
        // Without end it would take minutes until the instance gets a call again.
        (9 * SECOND, MS, LONGEST),
    ] {
        let load = Load::guess(GUESS, Duration::ZERO);
        load.observe(usual, Duration::ZERO);
        load.fail(failed, Duration::ZERO);
        let is = load.latency(Duration::ZERO).as_secs_f64();
        assert!(close(is, counts.as_secs_f64()), "{usual:?} {failed:?}: {is}");
    }
}

#[test]
fn after_three_seconds_of_silence_the_next_answer_counts_alone() {
    let load = Load::guess(GUESS, Duration::ZERO);
    assert!(load.is_old(3 * SECOND), "a guess is no better");
    load.observe(MS, Duration::ZERO);
    load.fail(10 * SECOND, Duration::ZERO);
    assert!(!load.is_old(3 * SECOND - MS));
    assert!(load.is_old(3 * SECOND));
    load.observe(MS, 3 * SECOND);
    assert!(close(load.latency(3 * SECOND).as_secs_f64(), 0.001));
    assert!(!load.is_old(3 * SECOND));
    // Still slow: it is known again.
    load.observe(100 * MS, 9 * SECOND);
    assert!(close(load.latency(9 * SECOND).as_secs_f64(), 0.1));
}

#[test]
fn of_what_was_not_heard_of_one_gets_each_64th_call_in_turn() {
    let calls = AtomicU32::new(0);
    let all = places(0..4);
    let went: Vec<_> = (0..256).filter_map(|_| revisit(all, places([1, 3, 5]), &calls)).collect();
    assert_eq!(went, [3, 1, 3, 1]);
    assert!((0..256).all(|_| revisit(all, places([5]), &calls).is_none()), "no candidate");
    assert!((0..256).all(|_| revisit(all, all, &calls).is_none()), "nothing is known of any");
}

#[test]
fn a_report_that_comes_late_does_not_make_time_pass() {
    let load = Load::guess(GUESS, Duration::ZERO);
    load.observe(100 * MS, 10 * SECOND);
    load.observe(MS, 9 * SECOND);
    assert!(close(load.latency(9 * SECOND).as_secs_f64(), 0.1));
}

#[test]
fn cost_is_latency_times_what_is_pending_by_weight() {
    let load = Load::guess(GUESS, Duration::ZERO);
    load.observe(10 * MS, Duration::ZERO);
    for (pending, weight, cost) in [(0, 1.0, 0.01), (3, 1.0, 0.04), (3, 2.0, 0.02)] {
        assert!(close(f64::from(load.cost(pending, weight, Duration::ZERO)), cost));
    }
}

#[test]
fn a_new_instance_begins_at_the_median_and_gets_its_share_over_ten_seconds() {
    assert_eq!(median(Vec::new()), GUESS);
    assert_eq!(median(vec![9 * MS, MS, 3 * MS]), 3 * MS);
    for (age, part) in [(0, 0.1), (1, 0.1), (5, 0.5), (10, 1.0), (60, 1.0)] {
        assert!(close(f64::from(ramp(age * SECOND)), part), "{age} s");
    }
}

/// χ² of how often each of `count` was chosen, where all should be alike.
fn chi_squared(chosen: &[u32]) -> f64 {
    let total: u32 = chosen.iter().sum();
    let expected = f64::from(total) / f64::from(u32::try_from(chosen.len()).unwrap());
    chosen.iter().map(|is| (f64::from(*is) - expected).powi(2) / expected).sum()
}

#[test]
fn instances_that_cost_the_same_are_chosen_alike() {
    // The 99.9 % points of χ² with one degree of freedom less than there are instances.
    for (count, limit) in [(2, 10.83), (3, 13.82), (5, 18.47), (16, 37.70)] {
        let mut random = fastrand::Rng::with_seed(7);
        let among = places(0..count);
        let mut chosen = vec![0; count];
        for _ in 0..100_000 {
            chosen[choose(among, |below| random.u32(..below), |_| 1.0).unwrap()] += 1;
        }
        let chi_squared = chi_squared(&chosen);
        assert!(chi_squared < limit, "{count}: χ² = {chi_squared}, {chosen:?}");
    }
}

#[test]
fn calls_that_last_are_spread_by_what_is_pending() {
    let mut random = fastrand::Rng::with_seed(7);
    let load = Load::guess(MS, Duration::ZERO);
    let pending = RefCell::new([0_u16; 4]);
    for _ in 0..400 {
        let cost = |place: usize| load.cost(pending.borrow()[place], 1.0, Duration::ZERO);
        let chosen = choose(places(0..4), |below| random.u32(..below), cost).unwrap();
        pending.borrow_mut()[chosen] += 1;
    }
    let pending = pending.into_inner();
    // One at random would leave the fullest with some 20 more than the emptiest.
    let (most, least) = (pending.iter().max().unwrap(), pending.iter().min().unwrap());
    assert!(most - least <= 4, "{pending:?}");
}

#[test]
fn where_most_are_out_it_is_not_the_instances() {
    let of = |all, ready: &[usize], out: &[usize]| {
        let of = |list: &[usize]| places(list.iter().copied());
        candidates(all, of(ready), of(out), Places::default()).iter().collect::<Vec<_>>()
    };
    assert_eq!(of(2, &[0, 1], &[0]), [1], "half is enough");
    assert_eq!(of(3, &[0, 1, 2], &[0]), [1, 2]);
    assert_eq!(of(3, &[0, 1], &[0]), [0, 1], "a third is not");
    assert_eq!(of(2, &[0], &[0]), [0], "the last one that can be reached is called");
    assert!(of(3, &[], &[]).is_empty());
}

#[test]
fn round_robin_goes_round_by_weight_and_ends_where_nobody_is() {
    let rotation = Rotation::default();
    let round = |weights: &[u32], turns: usize| {
        (0..turns).map(|_| rotation.next(weights.iter().copied()).unwrap()).collect::<Vec<_>>()
    };
    let mut first = round(&[1, 1, 1], 3);
    first.sort_unstable();
    assert_eq!(first, [0, 1, 2]);
    let spread: Vec<_> = (0..4).map(|turn| nth_turn(turn, [30, 10].into_iter()).unwrap()).collect();
    assert_eq!(spread.iter().filter(|one| **one == 0).count(), 3);
    assert_eq!(rotation.next(std::iter::empty()), None);
    assert_eq!("round_robin".parse(), Ok(Balance::RoundRobin));
    assert_eq!("p2c".parse(), Ok(Balance::P2c));
    assert_eq!("random".parse::<Balance>(), Err(Unknown("random".to_owned())));
}

#[test]
fn a_client_keeps_its_subset_when_others_come_and_go() {
    let ids = |count: usize| (0..count).map(|n| format!("orders-{n}")).collect::<Vec<_>>();
    assert_eq!(subset(1, ids(16), |id| id).len(), 16);
    let mut held = vec![0_u32; 40];
    for client in 0..2_000 {
        let before = subset(client, ids(40), |id| id);
        assert_eq!(before.len(), SUBSET);
        for id in &before {
            held[id.trim_start_matches("orders-").parse::<usize>().unwrap()] += 1;
        }
        // One goes: whoever had it takes one other, nobody else changes anything.
        let after = subset(client, ids(39), |id| id);
        let kept = before.iter().filter(|id| after.contains(id)).count();
        let had = before.iter().any(|id| id == "orders-39");
        assert_eq!(kept, SUBSET - usize::from(had));
    }
    // 99.9 % of χ² with 39 degrees of freedom; drawn without replacement it is smaller.
    let chi_squared = chi_squared(&held);
    assert!(chi_squared < 72.05, "χ² = {chi_squared}, {held:?}");
}
