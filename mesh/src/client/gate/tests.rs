use proptest::{collection::vec, prelude::*};

use super::*;

const SECOND: Duration = Duration::from_secs(1);

/// What a set of instances does with the reports of its calls: the rule of `Set::judge`, with
/// nothing around it.
struct Replicas(Vec<Gate>);

impl Replicas {
    fn of(count: usize) -> Self {
        Self((0..count).map(|_| Gate::default()).collect())
    }

    fn report(&mut self, replica: usize, verdict: EndpointVerdict, at: Duration) {
        if self.0[replica].record(verdict, false, at) != Change::Suspect {
            return;
        }
        let this = self.0[replica].rate(at);
        let peers =
            self.0.iter().enumerate().filter(|(peer, gate)| *peer != replica && !gate.is_out());
        let rest = peers.fold(Rate::default(), |sum, (_, gate)| sum.plus(gate.rate(at)));
        if room(self.0.len(), self.out().len()) && worse(this, rest) {
            self.0[replica].eject(at);
        }
    }

    fn out(&self) -> Vec<usize> {
        (0..self.0.len()).filter(|replica| self.0[*replica].is_out()).collect()
    }
}

#[test]
fn one_sick_instance_of_two_or_three_is_taken_out_after_five_failures() {
    for count in [2, 3] {
        let mut replicas = Replicas::of(count);
        for call in 1..=5 {
            assert!(replicas.out().is_empty(), "call {call}");
            for replica in 0..count {
                let verdict =
                    if replica == 1 { EndpointVerdict::Hard } else { EndpointVerdict::Success };
                replicas.report(replica, verdict, SECOND);
            }
        }
        assert_eq!(replicas.out(), [1], "of {count}");
    }
}

#[test]
fn where_all_fail_alike_none_is_taken_out() {
    for count in [2, 3, 5] {
        let mut replicas = Replicas::of(count);
        for _ in 0..50 {
            for replica in 0..count {
                replicas.report(replica, EndpointVerdict::Hard, SECOND);
            }
        }
        assert!(replicas.out().is_empty(), "{:?} of {count}", replicas.out());
    }
}

#[test]
fn no_more_than_half_are_taken_out_and_never_the_only_one() {
    for (count, most) in [(1, 0), (2, 1), (3, 1), (4, 2), (5, 2)] {
        let mut replicas = Replicas::of(count);
        for replica in 0..count {
            // The others do well, so each in its turn is worse than the rest.
            for peer in (0..count).filter(|peer| *peer > replica) {
                (0..50).for_each(|_| replicas.report(peer, EndpointVerdict::Success, SECOND));
            }
            (0..200).for_each(|_| replicas.report(replica, EndpointVerdict::Hard, SECOND));
        }
        assert_eq!(replicas.out().len(), most, "of {count}");
    }
}

#[test]
fn a_rate_of_failures_counts_from_ten_calls_on_and_busy_is_in_it() {
    for bad in [EndpointVerdict::Hard, EndpointVerdict::Soft] {
        let mut replicas = Replicas::of(2);
        (0..20).for_each(|_| replicas.report(0, EndpointVerdict::Success, SECOND));
        // Never five in a row, and at last more than half of all.
        for (call, verdict) in [
            bad,
            bad,
            bad,
            bad,
            EndpointVerdict::Success,
            bad,
            bad,
            EndpointVerdict::Success,
            EndpointVerdict::Success,
        ]
        .into_iter()
        .enumerate()
        {
            replicas.report(1, verdict, SECOND);
            assert!(replicas.out().is_empty(), "{bad:?} after {call}");
        }
        replicas.report(1, bad, SECOND);
        assert_eq!(replicas.out(), [1], "{bad:?}: 7 of 10");
    }
}

#[test]
fn busy_is_no_failure_in_a_row_and_neutral_is_nothing() {
    let mut gate = Gate::default();
    for _ in 0..9 {
        assert_eq!(gate.record(EndpointVerdict::Soft, false, SECOND), Change::None);
    }
    let before = gate.rate(SECOND);
    assert_eq!(gate.record(EndpointVerdict::Neutral, false, SECOND), Change::None);
    assert_eq!((gate.rate(SECOND), before), (before, Rate { calls: 9, failures: 9 }));
}

#[test]
fn it_stays_out_for_five_seconds_doubled_each_time_up_to_a_minute() {
    let mut gate = Gate::default();
    let mut at = SECOND;
    gate.eject(at);
    for stays in [5, 10, 20, 40, 60, 60, 60] {
        let due = at + stays * SECOND;
        assert!(!gate.probe(due - Duration::from_nanos(1)), "{stays} s");
        assert!(gate.probe(due), "{stays} s");
        at = due;
        assert_eq!(gate.record(EndpointVerdict::Hard, true, at), Change::OutAgain);
    }
    assert!(gate.probe(at + 60 * SECOND));
    at += 60 * SECOND;
    assert_eq!(gate.record(EndpointVerdict::Success, true, at), Change::Back);
    // Soon after it is no better than before; after a minute in a row it is.
    gate.eject(at + 59 * SECOND);
    assert_eq!(gate.due(), Some(at + 119 * SECOND));
    assert!(gate.probe(at + 119 * SECOND));
    at += 119 * SECOND;
    gate.record(EndpointVerdict::Success, true, at);
    gate.eject(at + 60 * SECOND);
    assert_eq!(gate.due(), Some(at + 65 * SECOND));
}

#[test]
fn one_call_at_a_time_tries_whether_it_is_well_again() {
    let out = || {
        let mut gate = Gate::default();
        gate.eject(Duration::ZERO);
        gate
    };
    let at = 5 * SECOND;
    let mut gate = out();
    assert!(gate.probe(at));
    assert!(!gate.probe(at), "the second call is not let through");
    gate.release(at);
    assert!(gate.probe(at), "a probe that was dropped is given back");
    for (verdict, change, stays_out) in [
        (EndpointVerdict::Success, Change::Back, false),
        (EndpointVerdict::Hard, Change::OutAgain, true),
        (EndpointVerdict::Soft, Change::OutAgain, true),
        (EndpointVerdict::Neutral, Change::None, true),
    ] {
        let mut gate = out();
        assert!(gate.probe(at));
        assert_eq!(gate.record(verdict, true, at), change);
        assert_eq!(gate.is_out(), stays_out, "{verdict:?}");
        assert_eq!(gate.probe(at), verdict == EndpointVerdict::Neutral, "{verdict:?}");
    }
}

#[test]
fn a_probe_that_is_judged_after_it_was_dropped_is_judged() {
    let mut gate = Gate::default();
    gate.eject(Duration::ZERO);
    assert!(gate.probe(5 * SECOND));
    gate.release(6 * SECOND);
    assert_eq!(gate.record(EndpointVerdict::Hard, true, 6 * SECOND), Change::OutAgain);
    assert_eq!(gate.due(), Some(16 * SECOND));
}

#[test]
fn calls_from_before_it_was_taken_out_neither_bring_it_back_nor_keep_it_out() {
    let mut gate = Gate::default();
    gate.eject(Duration::ZERO);
    for verdict in [EndpointVerdict::Success, EndpointVerdict::Hard] {
        assert_eq!(gate.record(verdict, false, SECOND), Change::None);
    }
    assert_eq!(gate.due(), Some(5 * SECOND));
}

#[test]
fn worse_is_one_and_a_half_times_as_often() {
    let rate = |failures, calls| Rate { calls, failures };
    for (this, rest, expected) in [
        (rate(3, 10), rate(2, 10), true),
        (rate(29, 100), rate(2, 10), false),
        (rate(1, 100), rate(0, 1), true),
        (rate(5, 5), rate(0, 0), true),
        (rate(0, 10), rate(0, 10), false),
    ] {
        assert_eq!(worse(this, rest), expected, "{this:?} {rest:?}");
    }
}

/// The same rules, said as simply as can be: a list of what happened, in milliseconds.
#[derive(Default)]
struct Naive {
    /// Since it came back, or began.
    calls: Vec<(u64, EndpointVerdict)>,
    out: Option<NaiveOut>,
    times: u32,
    back: Option<u64>,
}

#[derive(Clone, Copy)]
struct NaiveOut {
    until: u64,
    probed: bool,
}

impl Naive {
    fn suspect(&self, now: u64) -> bool {
        let bad = |verdict: &EndpointVerdict| *verdict != EndpointVerdict::Success;
        let row = self.calls.iter().rev().take_while(|(_, verdict)| bad(verdict));
        let hard = row.filter(|(_, verdict)| *verdict == EndpointVerdict::Hard).count();
        let last = || self.calls.iter().filter(|(at, _)| at / 1_000 + 10 > now / 1_000);
        let failures = last().filter(|(_, verdict)| bad(verdict)).count();
        hard >= 5 || (last().count() >= 10 && failures * 2 > last().count())
    }

    fn record(&mut self, verdict: EndpointVerdict, probe: bool, now: u64) -> Change {
        match self.out {
            None if verdict == EndpointVerdict::Neutral => Change::None,
            None => {
                self.calls.push((now, verdict));
                let failed = verdict != EndpointVerdict::Success;
                if failed && self.suspect(now) { Change::Suspect } else { Change::None }
            }
            Some(_) if !probe => Change::None,
            Some(out) => match verdict {
                EndpointVerdict::Success => {
                    (self.out, self.back) = (None, Some(now));
                    self.calls.clear();
                    Change::Back
                }
                EndpointVerdict::Hard | EndpointVerdict::Soft => {
                    self.times += 1;
                    self.stay_out(now);
                    Change::OutAgain
                }
                EndpointVerdict::Neutral => {
                    self.release(out, now);
                    Change::None
                }
            },
        }
    }

    fn release(&mut self, out: NaiveOut, now: u64) {
        if out.probed {
            self.out = Some(NaiveOut { until: now, probed: false });
        }
    }

    fn eject(&mut self, now: u64) {
        let soon = self.back.is_some_and(|back| now < back + 60_000);
        self.times = if soon { self.times + 1 } else { 0 };
        self.stay_out(now);
    }

    fn stay_out(&mut self, now: u64) {
        let stays = [5_000, 10_000, 20_000, 40_000].get(self.times as usize);
        let until = now + stays.copied().unwrap_or(60_000);
        self.out = Some(NaiveOut { until, probed: false });
    }

    fn probe(&mut self, now: u64) -> bool {
        match &mut self.out {
            Some(out) if !out.probed && out.until <= now => {
                out.probed = true;
                true
            }
            Some(_) | None => false,
        }
    }
}

fn verdict() -> impl Strategy<Value = EndpointVerdict> {
    prop_oneof![
        2 => Just(EndpointVerdict::Success),
        5 => Just(EndpointVerdict::Hard),
        2 => Just(EndpointVerdict::Soft),
        1 => Just(EndpointVerdict::Neutral),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]
    #[test]
    fn it_does_as_the_naive_model_does(
        steps in vec((0u64..4_000, verdict(), 0u8..8), 1..200)
    ) {
        let (mut gate, mut naive) = (Gate::default(), Naive::default());
        let (mut at, mut now) = (Duration::ZERO, 0);
        for (wait_ms, verdict, kind) in steps {
            now += wait_ms;
            at += Duration::from_millis(wait_ms);
            let probe = gate.probe(at);
            prop_assert_eq!(probe, naive.probe(now));
            if probe && kind == 0 {
                gate.release(at);
                naive.release(naive.out.unwrap(), now);
            } else {
                let change = gate.record(verdict, probe, at);
                prop_assert_eq!(change, naive.record(verdict, probe, now));
                // Others may do as badly: then it stays.
                if change == Change::Suspect && kind < 4 {
                    gate.eject(at);
                    naive.eject(now);
                }
            }
            prop_assert_eq!(gate.is_out(), naive.out.is_some());
            let due = naive.out.filter(|out| !out.probed).map(|out| out.until);
            prop_assert_eq!(gate.due(), due.map(Duration::from_millis));
        }
    }

    #[test]
    fn the_window_counts_the_last_ten_seconds_and_nothing_else(
        calls in vec((0u64..3_000, any::<bool>()), 1..200)
    ) {
        let mut gate = Gate::default();
        let mut naive: Vec<(u64, bool)> = Vec::new();
        let mut at = Duration::ZERO;
        for (wait_ms, good) in calls {
            at += Duration::from_millis(wait_ms);
            let verdict = if good { EndpointVerdict::Success } else { EndpointVerdict::Soft };
            gate.record(verdict, false, at);
            naive.push((at.as_secs(), good));
            let recent = naive.iter().filter(|(second, _)| second + 10 > at.as_secs());
            let failures = recent.clone().filter(|(_, good)| !good).count();
            let expected = Rate {
                calls: u32::try_from(recent.count()).unwrap(),
                failures: u32::try_from(failures).unwrap(),
            };
            prop_assert_eq!(gate.rate(at), expected);
        }
    }

    #[test]
    fn whatever_happens_half_stay_in_and_a_good_probe_brings_back(
        count in 2usize..6,
        events in vec((0usize..6, 0u8..4, 0u64..2_000), 1..400)
    ) {
        let mut replicas = Replicas::of(count);
        let mut at = Duration::ZERO;
        for (replica, kind, wait_ms) in events {
            at += Duration::from_millis(wait_ms);
            let replica = replica % count;
            let verdict = [
                EndpointVerdict::Success,
                EndpointVerdict::Hard,
                EndpointVerdict::Soft,
                EndpointVerdict::Neutral,
            ][usize::from(kind)];
            let was_out = replicas.0[replica].is_out();
            if replicas.0[replica].probe(at) {
                prop_assert!(was_out && !replicas.0[replica].probe(at));
                replicas.0[replica].record(verdict, true, at);
                prop_assert_eq!(replicas.0[replica].is_out(), verdict != EndpointVerdict::Success);
            } else {
                replicas.report(replica, verdict, at);
            }
            prop_assert!(replicas.out().len() <= count / 2);
        }
        // Nobody is out for longer than a minute without a try.
        for gate in &mut replicas.0 {
            prop_assert!(!gate.is_out() || gate.probe(at + 60 * SECOND));
        }
    }
}
