use proptest::prelude::*;

use super::*;

const SECOND: Duration = Duration::from_secs(1);

/// A breaker, the shared one, and a clock that the test moves.
struct Bed {
    own: Arc<Breaker>,
    shared: Arc<Breaker>,
    now: Instant,
    /// Whether the shared one is left out.
    alone: bool,
}

impl Bed {
    fn new(rule: Rule) -> Self {
        let now = Instant::now();
        Self { own: breaker(rule, now), shared: breaker(rule, now), now, alone: false }
    }

    /// Without jitter, so that times are exact.
    fn exact() -> Self {
        Self::new(Rule { jitter_percent: 0, ..Rule::default() })
    }

    fn admit(&self) -> Result<Leave, Refused> {
        if self.alone {
            let permit = self.own.admit(self.now)?;
            return Ok(Leave { own: Arc::clone(&self.own), permit });
        }
        admit(&self.own, &self.shared, self.now)
    }

    fn settle(&self, leave: Leave, failed: bool) {
        leave.settle(judged(failed, None), self.now);
    }

    /// Makes calls that end so; says how many were let through.
    fn calls(&self, count: usize, failed: bool) -> usize {
        (0..count).filter(|_| self.admit().map(|leave| self.settle(leave, failed)).is_ok()).count()
    }

    /// Of the breaker that decides.
    fn state(&self) -> State {
        let (own, shared) = (self.own.state(), self.shared.state());
        if own == State::Closed { shared } else { own }
    }

    fn pass(&mut self, time: Duration) {
        self.now += time;
    }
}

fn breaker(rule: Rule, now: Instant) -> Arc<Breaker> {
    let told = Told { dependency: "peer".into(), method: "".into(), tell: |_, _| {} };
    Breaker::new(rule, told, now)
}

fn judged(failed: bool, after: Option<Duration>) -> Judged {
    let verdict = if failed { BreakerVerdict::Failure } else { BreakerVerdict::Success };
    Judged { verdict, slow: false, after }
}

#[test]
fn it_opens_on_five_failures_that_are_half_of_twenty_calls() {
    for (successes, failures, state) in [
        (0, 4, State::Closed),
        (0, 5, State::Open),
        (1, 18, State::Closed),
        (10, 9, State::Closed),
        (10, 10, State::Open),
        (11, 10, State::Closed),
        (100, 99, State::Closed),
        (100, 100, State::Open),
    ] {
        let bed = Bed::exact();
        bed.calls(successes, false);
        bed.calls(failures, true);
        assert_eq!(bed.state(), state, "{successes} successes, {failures} failures");
    }
}

#[test]
fn what_is_older_than_ten_seconds_is_forgotten() {
    let mut bed = Bed::exact();
    bed.calls(4, true);
    bed.pass(10 * SECOND);
    bed.calls(4, true);
    assert_eq!(bed.state(), State::Closed);
    bed.pass(9 * SECOND);
    bed.calls(1, true);
    assert_eq!(bed.state(), State::Open);
}

#[test]
fn it_probes_after_five_seconds_closes_by_two_successes_and_a_ramp() {
    let mut bed = Bed { alone: true, ..Bed::exact() };
    bed.calls(5, true);
    assert_eq!(bed.admit().expect_err("open").after, 5 * SECOND);
    bed.pass(5 * SECOND);
    let probe = bed.admit().expect("a probe");
    assert!(probe.is_probe());
    assert_eq!(bed.admit().expect_err("one probe at a time").after, SECOND);
    bed.settle(probe, false);
    assert_eq!(bed.state(), State::HalfOpen);
    assert_eq!(bed.calls(1, false), 1);
    assert_eq!(bed.state(), State::Ramp);
    assert_eq!(bed.calls(1, false), 1, "one call finds its way at once");
    assert_eq!(bed.calls(100, false), 25);
    bed.pass(SECOND);
    assert!((60..=65).contains(&bed.calls(100, false)), "5/8 in the middle");
    bed.pass(SECOND);
    assert_eq!(bed.calls(100, false), 100);
    assert_eq!(bed.state(), State::Closed);
}

#[test]
fn a_probe_that_fails_doubles_the_time_up_to_twenty_seconds() {
    let mut bed = Bed::exact();
    bed.calls(5, true);
    for open in [5, 10, 20, 20] {
        let refused = bed.admit().expect_err("open");
        assert_eq!(refused.after, open * SECOND);
        bed.pass(refused.after);
        assert_eq!(bed.calls(1, true), 1);
    }
    // Once it has been closed it begins anew.
    bed.pass(20 * SECOND);
    bed.calls(2, false);
    bed.pass(2 * SECOND);
    bed.calls(1, false);
    bed.calls(20, true);
    assert_eq!(bed.admit().expect_err("open").after, 5 * SECOND);
}

#[test]
fn a_ramp_ends_at_once_if_its_first_call_fails_and_not_for_one_failure_of_many() {
    let mut bed = Bed::exact();
    bed.calls(5, true);
    bed.pass(5 * SECOND);
    bed.calls(2, false);
    bed.calls(1, true);
    assert_eq!(bed.state(), State::Open);
    bed.pass(10 * SECOND);
    bed.calls(2 + 9, false);
    assert_eq!(bed.state(), State::Ramp);
    while bed.calls(1, true) == 0 {}
    assert_eq!(bed.state(), State::Ramp);
}

#[test]
fn a_probe_that_is_dropped_or_neutral_is_given_back() {
    let mut bed = Bed::exact();
    bed.calls(5, true);
    bed.pass(5 * SECOND);
    drop(bed.admit().expect("a probe"));
    let probe = bed.admit().expect("it came back");
    let neutral = Judged { verdict: BreakerVerdict::Neutral, slow: false, after: None };
    probe.settle(neutral, bed.now);
    assert!(bed.admit().expect("it came back").is_probe());
    assert_eq!(bed.state(), State::HalfOpen);
}

#[test]
fn neutral_ends_are_not_counted() {
    let bed = Bed::exact();
    let neutral = Judged { verdict: BreakerVerdict::Neutral, slow: true, after: None };
    for _ in 0..100 {
        bed.admit().expect("closed").settle(neutral, bed.now);
    }
    assert_eq!((bed.own.counts(bed.now), bed.shared.counts(bed.now)), ((0, 0), (0, 0)));
}

#[test]
fn what_began_before_it_opened_says_nothing_of_the_time_after() {
    let mut bed = Bed::exact();
    let early = bed.admit().expect("closed");
    let late = bed.admit().expect("closed");
    bed.calls(5, true);
    bed.pass(5 * SECOND);
    let probe = bed.admit().expect("a probe");
    bed.settle(early, true);
    assert_eq!(bed.state(), State::HalfOpen);
    bed.settle(probe, false);
    bed.settle(late, false);
    assert_eq!(bed.state(), State::HalfOpen, "only probes count");
}

#[test]
fn a_callee_that_names_a_time_is_left_alone_for_it_but_not_for_ever() {
    for (asked, open) in [(1, 5), (8, 8), (3_600, 20)] {
        let bed = Bed::exact();
        bed.calls(4, true);
        let leave = bed.admit().expect("closed");
        leave.settle(judged(true, Some(asked * SECOND)), bed.now);
        assert_eq!(bed.admit().expect_err("open").after, open * SECOND);
    }
}

#[test]
fn the_time_it_is_open_strays_by_a_fifth() {
    let rule = Rule::default();
    let times: Vec<_> = (0..1_000).map(|_| rule.open_for(0)).collect();
    assert!(times.iter().all(|time| (4 * SECOND..=6 * SECOND).contains(time)));
    assert!(times.iter().any(|time| *time < 5 * SECOND));
    assert!(times.iter().any(|time| *time > 5 * SECOND));
}

#[test]
fn methods_with_few_calls_are_judged_together() {
    let now = Instant::now();
    let rule = Rule { jitter_percent: 0, ..Rule::default() };
    let shared = breaker(rule, now);
    let methods: Vec<_> = (0..3).map(|_| breaker(rule, now)).collect();
    // 7 calls each, 4 of them failing: no method has enough to be judged by itself.
    for (call, method) in (0..7).flat_map(|call| methods.iter().map(move |own| (call, own))) {
        if let Ok(leave) = admit(method, &shared, now) {
            leave.settle(judged(call % 2 == 0, None), now);
        }
    }
    assert!(methods.iter().all(|method| method.state() == State::Closed));
    assert_eq!(shared.state(), State::Open);
    assert!(admit(&methods[0], &shared, now).is_err());
    // A method that has enough calls of its own is not held up by it.
    let busy = breaker(rule, now);
    for _ in 0..20 {
        busy.admit(now).expect("closed").settle(judged(false, None), now);
    }
    assert!(admit(&busy, &shared, now).is_ok());
}

#[test]
fn a_busy_method_that_fails_leaves_the_others_alone() {
    let mut bed = Bed::exact();
    let other = breaker(bed.own.rule, bed.now);
    bed.calls(30, false);
    bed.pass(10 * SECOND);
    bed.calls(19, false);
    bed.calls(19, true);
    assert_eq!(bed.state(), State::Open);
    assert_eq!(bed.shared.state(), State::Closed);
    assert!(admit(&other, &bed.shared, bed.now).is_ok());
}

#[test]
fn slow_calls_open_it_where_the_rule_says_so() {
    let rule = slow_calls();
    for (slow, state) in [(15, State::Closed), (16, State::Open)] {
        let bed = Bed::new(rule);
        for call in 0..20 {
            let judged = Judged { slow: call < slow, ..judged(false, None) };
            bed.own.admit(bed.now).expect("closed").settle(judged, bed.now);
        }
        assert_eq!(bed.own.state(), state, "{slow} slow of 20");
    }
}

#[test]
fn preset_seed_count_opens_at_five_errors_in_ten_seconds() {
    let bed = Bed::new(seed_count());
    bed.calls(10_000, false);
    bed.calls(4, true);
    assert_eq!(bed.state(), State::Closed);
    bed.calls(1, true);
    assert_eq!(bed.state(), State::Open);
}

#[test]
fn preset_opossum_opens_above_half_and_closes_by_one_success_after_its_reset() {
    for (rule, reset) in [(opossum(), 30), (opossum_10s(), 10)] {
        let mut bed = Bed::new(rule);
        bed.calls(4, true);
        assert_eq!(bed.state(), State::Closed, "a few calls that fail are no rate");
        bed.pass(10 * SECOND);
        bed.calls(4, false);
        bed.calls(4, true);
        assert_eq!(bed.state(), State::Closed, "half is not above half");
        bed.calls(1, true);
        assert_eq!(bed.state(), State::Open);
        for _ in 0..3 {
            assert_eq!(bed.admit().expect_err("open").after, reset * SECOND);
            bed.pass(reset * SECOND);
            assert_eq!(bed.calls(1, true), 1);
        }
        bed.pass(reset * SECOND);
        assert_eq!(bed.calls(1, false), 1);
        assert_eq!(bed.state(), State::Closed);
    }
}

#[test]
fn changes_are_told() {
    let mut bed = Bed::exact();
    let mut changes = bed.shared.watch();
    bed.calls(5, true);
    assert!(changes.has_changed().expect("it lives"));
    assert_eq!(*changes.borrow_and_update(), State::Open);
    bed.pass(5 * SECOND);
    drop(bed.admit());
    assert_eq!(*changes.borrow_and_update(), State::HalfOpen);
}

/// What a test does next.
#[derive(Clone, Debug)]
enum Step {
    Pass(u64),
    Begin,
    End { which: usize, verdict: BreakerVerdict },
    Drop { which: usize },
}

fn step() -> impl Strategy<Value = Step> {
    let verdict = prop_oneof![
        2 => Just(BreakerVerdict::Success),
        5 => Just(BreakerVerdict::Failure),
        1 => Just(BreakerVerdict::Neutral),
    ];
    prop_oneof![
        1 => (0..3_000_u64).prop_map(Step::Pass),
        1 => (3_000..12_000_u64).prop_map(Step::Pass),
        12 => Just(Step::Begin),
        12 => (0..8_usize, verdict).prop_map(|(which, verdict)| Step::End { which, verdict }),
        1 => (0..8_usize).prop_map(|which| Step::Drop { which }),
    ]
}

/// The same rules, said as simply as can be: a list of what happened, and no haste.
struct Naive {
    now: u64,
    epoch: u32,
    phase: NaivePhase,
    again: u32,
    calls: Vec<(u64, bool)>,
}

#[derive(Debug, PartialEq)]
enum NaivePhase {
    Closed,
    Open(u64),
    HalfOpen { successes: u32, probe: bool },
    Ramp { since: u64, credit: u64, all: u32, failed: u32 },
}

impl Naive {
    fn enter(&mut self, phase: NaivePhase) {
        self.epoch += 1;
        self.phase = phase;
    }

    /// The number of the state and whether it is a probe, if let through.
    fn begin(&mut self) -> Option<(u32, bool)> {
        if let NaivePhase::Open(until) = self.phase
            && self.now >= until
        {
            self.enter(NaivePhase::HalfOpen { successes: 0, probe: false });
        }
        if let NaivePhase::Ramp { since, .. } = self.phase
            && self.now >= since + 2_000
        {
            self.calls.clear();
            self.again = 0;
            self.enter(NaivePhase::Closed);
        }
        match &mut self.phase {
            NaivePhase::Closed => Some((self.epoch, false)),
            NaivePhase::Open(_) | NaivePhase::HalfOpen { probe: true, .. } => None,
            NaivePhase::HalfOpen { probe, .. } => {
                *probe = true;
                Some((self.epoch, true))
            }
            NaivePhase::Ramp { since, credit, .. } => {
                *credit += 250 + 750 * (self.now - *since) / 2_000;
                (*credit >= 1_000).then(|| {
                    *credit -= 1_000;
                    (self.epoch, false)
                })
            }
        }
    }

    fn end(&mut self, (epoch, probe): (u32, bool), verdict: Option<bool>) {
        if epoch != self.epoch {
            return;
        }
        let Some(failed) = verdict else {
            if probe && let NaivePhase::HalfOpen { probe, .. } = &mut self.phase {
                *probe = false;
            }
            return;
        };
        let open = |again: u32| [5_000, 10_000, 20_000][again.min(2) as usize];
        match &mut self.phase {
            NaivePhase::Closed => {
                self.calls.push((self.now / 1_000, failed));
                let last = || self.calls.iter().filter(|(at, _)| at + 10 > self.now / 1_000);
                let (all, failures) =
                    (last().count(), last().filter(|(_, failed)| *failed).count());
                if failures >= 5 && (failures == all || (all >= 20 && failures * 2 >= all)) {
                    self.enter(NaivePhase::Open(self.now + open(0)));
                }
            }
            NaivePhase::Open(_) => {}
            NaivePhase::HalfOpen { .. } | NaivePhase::Ramp { all: 0, .. } if failed => {
                self.again += 1;
                self.enter(NaivePhase::Open(self.now + open(self.again)));
            }
            NaivePhase::HalfOpen { successes, probe } => {
                *successes += 1;
                *probe = false;
                if *successes == 2 {
                    let since = self.now;
                    self.enter(NaivePhase::Ramp { since, credit: 750, all: 0, failed: 0 });
                }
            }
            NaivePhase::Ramp { all, failed: failures, .. } => {
                *all += 1;
                *failures += u32::from(failed);
                if failed && *failures * 2 >= *all {
                    self.again += 1;
                    self.enter(NaivePhase::Open(self.now + open(self.again)));
                }
            }
        }
    }

    fn state(&self) -> State {
        match self.phase {
            NaivePhase::Closed => State::Closed,
            NaivePhase::Open(_) => State::Open,
            NaivePhase::HalfOpen { .. } => State::HalfOpen,
            NaivePhase::Ramp { .. } => State::Ramp,
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]
    #[test]
    fn it_does_as_the_naive_model_does(steps in proptest::collection::vec(step(), 0..300)) {
        let mut bed = Bed::exact();
        let mut naive =
            Naive { now: 0, epoch: 0, phase: NaivePhase::Closed, again: 0, calls: Vec::new() };
        let mut under_way: Vec<(Permit, (u32, bool))> = Vec::new();
        for step in steps {
            match step {
                Step::Pass(millis) => {
                    bed.pass(Duration::from_millis(millis));
                    naive.now += millis;
                }
                Step::Begin => {
                    let (real, model) = (bed.own.admit(bed.now), naive.begin());
                    prop_assert_eq!(real.is_ok(), model.is_some());
                    if let (Ok(permit), Some(ticket)) = (real, model) {
                        prop_assert_eq!(permit.probe, ticket.1);
                        under_way.push((permit, ticket));
                    }
                }
                Step::End { which, verdict } if which < under_way.len() => {
                    let (permit, ticket) = under_way.swap_remove(which);
                    permit.settle(Judged { verdict, slow: false, after: None }, bed.now);
                    naive.end(ticket, match verdict {
                        BreakerVerdict::Success => Some(false),
                        BreakerVerdict::Failure => Some(true),
                        BreakerVerdict::Neutral => None,
                    });
                }
                Step::Drop { which } if which < under_way.len() => {
                    let (permit, ticket) = under_way.swap_remove(which);
                    drop(permit);
                    naive.end(ticket, None);
                }
                Step::End { .. } | Step::Drop { .. } => {}
            }
            prop_assert_eq!(bed.own.state(), naive.state());
        }
    }
}
