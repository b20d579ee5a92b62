//! What follows an outcome: pure, so that every case can be looked at.

use std::{fmt, time::Duration};

use time::OffsetDateTime;

use super::{Settings, TIMED_OUT, Why};

/// Where a saga stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// Its steps are being done.
    Running,
    /// Its steps are being undone.
    Compensating,
    /// Every step is done.
    Done,
    /// Every step is undone.
    Compensated,
    /// Waits for a person; tried now and then all the same.
    Stuck,
    /// A person holds it.
    Paused,
}

/// What a step is to the saga.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Compensable,
    Pivot,
    Retriable,
    /// Past the pivot, and can be called back for a while.
    Recallable,
}

/// Which way a saga goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Way {
    Forward,
    Back,
}

/// Where a saga stands when an outcome comes in.
#[derive(Clone, Copy, Debug)]
pub(super) struct Position<'s> {
    pub(super) steps: &'s [Kind],
    pub(super) step: usize,
    pub(super) way: Way,
    /// Tries of this step that came to nothing known.
    pub(super) attempts: u32,
    /// Tries since then that were not sent: they count for the pause, not as tries.
    pub(super) misses: u32,
    pub(super) deadline: OffsetDateTime,
}

/// An outcome, without what is written with it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Heard {
    Done,
    No(Why),
    Recall(Why),
    Resume,
    /// Not before this time is over.
    NotSent(Duration),
    Unsure,
    Wait(OffsetDateTime),
}

/// What is to be done next.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Next {
    /// Record the step as done, intend this one.
    Step(usize),
    /// Record the step as done: that was all.
    Finish,
    /// Record the step as it is, and begin to undo here; everything is undone if there is nothing.
    TurnRound(Option<usize>, Why),
    /// Record the undo, intend the undo of this step.
    Undo(usize),
    /// Record the undo as failed, intend this step again: it goes forward.
    Resume(usize),
    /// Record the undo: that was all.
    Compensated,
    /// The same step with the same command, after this time.
    Again { after: Duration, attempts: u32 },
    /// The same step with the same command, at this time.
    Wait(OffsetDateTime),
    /// A person has to look.
    Stuck,
}

// === impl Position ===

impl Position<'_> {
    /// What follows; `spread` from 0 to 1 is where in its range a back-off falls.
    pub(super) fn next(
        &self,
        heard: Heard,
        now: OffsetDateTime,
        settings: &Settings,
        spread: f64,
    ) -> Next {
        match self.way {
            Way::Forward => self.forward(heard, now, settings, spread),
            Way::Back => self.back(heard, settings, spread),
        }
    }

    fn forward(&self, heard: Heard, now: OffsetDateTime, settings: &Settings, spread: f64) -> Next {
        let can_turn = !self.is_past_pivot();
        let late = self.is_late(now);
        let timed_out =
            || Next::TurnRound(self.undoable(), Why::new(TIMED_OUT, "not done in time"));
        match heard {
            // What was done before the pivot in time is undone; what was done at it, is not
            // committed.
            Heard::Done if late => timed_out(),
            Heard::Done if self.step + 1 == self.steps.len() => Next::Finish,
            Heard::Done => Next::Step(self.step + 1),
            Heard::No(why) if can_turn => Next::TurnRound(self.undoable(), why),
            Heard::Recall(why) if can_turn || self.is_recallable() => {
                Next::TurnRound(self.undoable(), why)
            }
            Heard::No(_) | Heard::Recall(_) | Heard::Resume => Next::Stuck,
            Heard::NotSent(_) | Heard::Unsure | Heard::Wait(_) if late => timed_out(),
            Heard::NotSent(after) => self.postponed(after, settings, spread),
            Heard::Unsure => self.again(self.attempts + 1, settings, spread),
            Heard::Wait(until) if can_turn => Next::Wait(until.min(self.deadline)),
            Heard::Wait(until) => Next::Wait(until),
        }
    }

    fn back(&self, heard: Heard, settings: &Settings, spread: f64) -> Next {
        match heard {
            Heard::Done => match self.before(self.step) {
                Some(step) => Next::Undo(step),
                None => Next::Compensated,
            },
            Heard::Resume
                if self.kind() == Kind::Recallable && self.step + 1 < self.steps.len() =>
            {
                Next::Resume(self.step + 1)
            }
            Heard::No(_) | Heard::Recall(_) | Heard::Resume => Next::Stuck,
            Heard::Unsure if self.attempts + 1 >= settings.undo_tries => Next::Stuck,
            Heard::Unsure => self.again(self.attempts + 1, settings, spread),
            Heard::NotSent(after) => self.postponed(after, settings, spread),
            Heard::Wait(until) => Next::Wait(until),
        }
    }

    /// Whether the pivot can no longer be reached in time.
    pub(super) fn is_late(&self, now: OffsetDateTime) -> bool {
        self.way == Way::Forward && !self.is_past_pivot() && now >= self.deadline
    }

    /// The step to undo first: the last that was intended and can be.
    pub(super) fn undoable(&self) -> Option<usize> {
        self.before(self.step.saturating_add(1))
    }

    /// Whether the saga stands behind its pivot.
    pub(super) fn is_past_pivot(&self) -> bool {
        matches!(self.kind(), Kind::Retriable | Kind::Recallable)
    }

    fn is_recallable(&self) -> bool {
        self.steps.iter().take(self.step.saturating_add(1)).any(|kind| *kind == Kind::Recallable)
    }

    fn before(&self, step: usize) -> Option<usize> {
        let undone = |kind: &Kind| matches!(kind, Kind::Compensable | Kind::Recallable);
        self.steps.iter().take(step).rposition(undone)
    }

    fn kind(&self) -> Kind {
        self.steps.get(self.step).copied().unwrap_or(Kind::Retriable)
    }

    fn again(&self, attempts: u32, settings: &Settings, spread: f64) -> Next {
        Next::Again { after: settings.ceiling(attempts).mul_f64(spread), attempts }
    }

    /// It was not sent, so no try is counted; but a peer that is away is not asked without end.
    fn postponed(&self, after: Duration, settings: &Settings, spread: f64) -> Next {
        let ceiling = settings.ceiling(self.attempts.saturating_add(self.misses) + 1);
        // All are told the same time: they do not come together when it is over.
        let after = after.min(settings.backoff_max) + ceiling.mul_f64(spread);
        Next::Again { after, attempts: self.attempts }
    }
}

impl Settings {
    /// The longest pause before the try after this many: it doubles with each.
    pub(super) fn ceiling(&self, tries: u32) -> Duration {
        let doubled = 1_u32.checked_shl(tries.saturating_sub(1)).unwrap_or(u32::MAX);
        self.backoff_first.saturating_mul(doubled).min(self.backoff_max)
    }
}

// === impl State ===

impl State {
    pub(super) fn parse(text: &str) -> Option<Self> {
        [
            Self::Running,
            Self::Compensating,
            Self::Done,
            Self::Compensated,
            Self::Stuck,
            Self::Paused,
        ]
        .into_iter()
        .find(|state| state.as_str() == text)
    }

    /// As it is kept.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Running => "RUNNING",
            Self::Compensating => "COMPENSATING",
            Self::Done => "DONE",
            Self::Compensated => "COMPENSATED",
            Self::Stuck => "STUCK",
            Self::Paused => "PAUSED",
        }
    }
}

impl fmt::Display for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use time::macros::datetime;

    use super::*;

    const NOON: OffsetDateTime = datetime!(2026-01-31 12:00 UTC);
    const ONE: OffsetDateTime = datetime!(2026-01-31 13:00 UTC);
    const STEPS: [Kind; 5] =
        [Kind::Compensable, Kind::Compensable, Kind::Pivot, Kind::Retriable, Kind::Retriable];

    fn next(step: usize, way: Way, heard: Heard, now: OffsetDateTime) -> Next {
        let position = Position { steps: &STEPS, step, way, attempts: 0, misses: 0, deadline: ONE };
        position.next(heard, now, &Settings::default(), 1.0)
    }

    fn no() -> Why {
        Why::new("NO", "a rule")
    }

    #[test]
    fn steps_follow_each_other_to_the_end() {
        for (step, expected) in [
            (0, Next::Step(1)),
            (1, Next::Step(2)),
            (2, Next::Step(3)),
            (3, Next::Step(4)),
            (4, Next::Finish),
        ] {
            assert_eq!(next(step, Way::Forward, Heard::Done, NOON), expected, "step {step}");
        }
    }

    #[test]
    fn a_no_turns_round_up_to_the_pivot_and_waits_for_a_person_behind_it() {
        for (step, undo) in [(0, Some(0)), (1, Some(1)), (2, Some(1))] {
            let expected = Next::TurnRound(undo, no());
            assert_eq!(next(step, Way::Forward, Heard::No(no()), NOON), expected, "step {step}");
        }
        for step in [3, 4] {
            assert_eq!(next(step, Way::Forward, Heard::No(no()), NOON), Next::Stuck);
        }
    }

    #[test]
    fn what_can_be_called_back_past_the_pivot_is_undone_first_or_goes_on_behind_it() {
        let steps =
            [Kind::Compensable, Kind::Pivot, Kind::Retriable, Kind::Recallable, Kind::Retriable];
        let next = |step, way, heard| {
            let position =
                Position { steps: &steps, step, way, attempts: 0, misses: 0, deadline: NOON };
            position.next(heard, ONE, &Settings::default(), 1.0)
        };
        // Before there is anything to call back, and for a plain no, a person has to look.
        assert_eq!(next(2, Way::Forward, Heard::Recall(no())), Next::Stuck);
        assert_eq!(next(3, Way::Forward, Heard::No(no())), Next::Stuck);
        for step in [3, 4] {
            let turned = next(step, Way::Forward, Heard::Recall(no()));
            assert_eq!(turned, Next::TurnRound(Some(3), no()), "step {step}");
            assert!(!matches!(next(step, Way::Forward, Heard::Unsure), Next::TurnRound(..)));
        }
        assert_eq!(next(3, Way::Back, Heard::Done), Next::Undo(0));
        assert_eq!(next(3, Way::Back, Heard::Resume), Next::Resume(4));
        assert_eq!(next(0, Way::Back, Heard::Resume), Next::Stuck);
        assert_eq!(next(4, Way::Forward, Heard::Resume), Next::Stuck);
    }

    #[test]
    fn the_deadline_turns_round_up_to_the_pivot_whatever_was_heard() {
        for heard in [Heard::Done, Heard::NotSent(Duration::ZERO), Heard::Unsure, Heard::Wait(ONE)]
        {
            let turned = next(2, Way::Forward, heard.clone(), ONE);
            assert!(matches!(turned, Next::TurnRound(Some(1), ref why) if why.reason == TIMED_OUT));
            let goes_on = next(3, Way::Forward, heard, ONE);
            assert!(!matches!(goes_on, Next::TurnRound(..)), "{goes_on:?}");
        }
    }

    #[test]
    fn undoing_goes_back_to_the_first_step() {
        assert_eq!(next(1, Way::Back, Heard::Done, ONE), Next::Undo(0));
        assert_eq!(next(0, Way::Back, Heard::Done, ONE), Next::Compensated);
        assert_eq!(next(0, Way::Back, Heard::No(no()), ONE), Next::Stuck);
    }

    #[test]
    fn an_undo_that_stays_unknown_waits_for_a_person_and_a_step_that_was_not_sent_does_not_count() {
        let position = Position {
            steps: &STEPS,
            step: 0,
            way: Way::Back,
            attempts: 9,
            misses: 0,
            deadline: ONE,
        };
        let settings = Settings::default();
        assert_eq!(position.next(Heard::Unsure, NOON, &settings, 0.0), Next::Stuck);
        let again = position.next(Heard::NotSent(Duration::ZERO), NOON, &settings, 0.0);
        assert_eq!(again, Next::Again { after: Duration::ZERO, attempts: 9 });
    }

    #[test]
    fn who_is_told_when_to_come_again_does_not_come_sooner_and_not_with_all_others() {
        let told = Duration::from_secs(5);
        let position = Position {
            steps: &STEPS,
            step: 0,
            way: Way::Forward,
            attempts: 0,
            misses: 0,
            deadline: ONE,
        };
        for (spread, more) in [(0.0, 0), (0.5, 50), (1.0, 100)] {
            let next = position.next(Heard::NotSent(told), NOON, &Settings::default(), spread);
            let after = told + Duration::from_millis(more);
            assert_eq!(next, Next::Again { after, attempts: 0 });
        }
    }

    #[test]
    fn waiting_never_outlasts_the_deadline_before_the_pivot() {
        let late = ONE + Duration::from_secs(60);
        assert_eq!(next(1, Way::Forward, Heard::Wait(late), NOON), Next::Wait(ONE));
        assert_eq!(next(3, Way::Forward, Heard::Wait(late), NOON), Next::Wait(late));
    }

    proptest! {
        #[test]
        fn a_back_off_stays_below_its_ceiling(attempts in 0u32..100, spread in 0.0..1.0) {
            let position =
                Position { steps: &STEPS, step: 0, way: Way::Forward, attempts, misses: 0, deadline: ONE };
            let settings = Settings::default();
            let next = position.next(Heard::Unsure, NOON, &settings, spread);
            let Next::Again { after, attempts: counted } = next else {
                return Err(TestCaseError::fail(format!("{next:?}")));
            };
            prop_assert_eq!(counted, attempts + 1);
            prop_assert!(after <= settings.backoff_max);
        }

        /// Participants keep barriers, so a command is carried out at most once, and not after
        /// its undo; an answer may be lost after it was carried out.
        #[test]
        fn whatever_is_heard_a_saga_ends_with_everything_done_or_nothing_left(
            answers in prop::collection::vec((0u8..6, any::<bool>()), 0..60),
            late_from in 0usize..60,
        ) {
            let settings = Settings { undo_tries: 3, ..Settings::default() };
            let (mut done, mut undone) = ([false; STEPS.len()], [false; STEPS.len()]);
            let (mut step, mut way, mut attempts) = (0, Way::Forward, 0);
            // Once faults stop, everything answers.
            let answers = answers.into_iter().chain(std::iter::repeat_n((0, true), 50));
            for (turn, (answer, carried_out)) in answers.enumerate() {
                let now = if turn >= late_from { ONE } else { NOON };
                let position =
                    Position { steps: &STEPS, step, way, attempts, misses: 0, deadline: ONE };
                let heard = match answer {
                    1 => Heard::Unsure,
                    2 => Heard::NotSent(Duration::ZERO),
                    3 => Heard::Wait(ONE),
                    4 if way == Way::Forward => Heard::No(no()),
                    _ => Heard::Done,
                };
                let arrives =
                    heard == Heard::Done || (heard == Heard::Unsure && carried_out);
                // The pivot is our own commit: it is done only if it is recorded.
                let records = matches!(STEPS[step], Kind::Pivot);
                match way {
                    Way::Forward if arrives && !records && !undone[step] => done[step] = true,
                    Way::Back if arrives => (done[step], undone[step]) = (false, true),
                    Way::Forward | Way::Back => {}
                }
                let mut turned = |undo: Option<usize>| {
                    (way, attempts) = (Way::Back, 0);
                    undo
                };
                match position.next(heard, now, &settings, 1.0) {
                    Next::Step(next) => {
                        done[step] = true;
                        (step, attempts) = (next, 0);
                    }
                    Next::Finish => {
                        done[step] = true;
                        prop_assert_eq!(done, [true; STEPS.len()]);
                        return Ok(());
                    }
                    Next::TurnRound(undo, _) => match turned(undo) {
                        Some(undo) => step = undo,
                        None => return Err(TestCaseError::fail("the first can be undone")),
                    },
                    Next::Undo(next) => (step, attempts) = (next, 0),
                    Next::Resume(_) => return Err(TestCaseError::fail("nothing was resumed")),
                    Next::Compensated => {
                        prop_assert_eq!(done, [false; STEPS.len()]);
                        return Ok(());
                    }
                    Next::Again { attempts: counted, .. } => attempts = counted,
                    Next::Wait(_) | Next::Stuck => {}
                }
            }
            prop_assert!(false, "it never ends");
        }
    }
}
