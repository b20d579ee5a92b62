//! What is written about a step: what it came to, what comes next, and the effect beside it.

use std::time::Duration;

use time::OffsetDateTime;
use uuid::Uuid;

use super::{
    super::{
        Effect, Outcome,
        decide::{Heard, Next, State, Way},
        journal::{Entry, Held, StepState},
    },
    Runner,
};

/// When a saga is looked at next.
#[derive(Clone, Copy, Debug)]
pub(super) enum When {
    Now,
    After(Duration),
    At(OffsetDateTime),
}

/// What is to be written about a step.
#[derive(Clone)]
pub(super) struct Writing {
    pub(super) entry: Entry,
    pub(super) when: When,
    /// Whether the saga stays ours.
    pub(super) keep: bool,
    pub(super) effect: Option<Effect>,
}

impl Runner {
    /// Takes an outcome apart: what it says, what is written with it, what is told of it.
    pub(super) fn heard(&self, held: &Held, outcome: Outcome) -> (Heard, Writing, String) {
        let mut writing = Writing {
            entry: Entry {
                ended: None,
                intent: None,
                state: match held.way() {
                    Way::Forward => State::Running,
                    Way::Back => State::Compensating,
                },
                step: held.step,
                attempts: 0,
                why: held.why.clone(),
                last_error: None,
                next_run_at: 0,
                lease: None,
            },
            when: When::Now,
            keep: false,
            effect: None,
        };
        let key = self.0.steps.get(held.step).map_or("", |step| step.key);
        let mut ended = |state, reply| writing.entry.ended = Some((key, held.way(), state, reply));
        let (heard, note) = match outcome {
            Outcome::Done { reply, effect } => {
                ended(StepState::Ok, reply);
                writing.effect = effect;
                (Heard::Done, String::new())
            }
            Outcome::No { why, alert } => {
                ended(StepState::Failed, Vec::new());
                let note = format!("{}: {}", why.reason, why.message);
                if alert {
                    tracing::warn!(saga.key = held.key, step = key, reason = note, "unexpected no");
                }
                (Heard::No(why), note)
            }
            Outcome::Recall { why } => {
                ended(StepState::Failed, Vec::new());
                let note = format!("{}: {}", why.reason, why.message);
                (Heard::Recall(why), note)
            }
            Outcome::Resume { effect } => {
                ended(StepState::Failed, Vec::new());
                writing.effect = effect;
                (Heard::Resume, "it cannot be called back".to_owned())
            }
            Outcome::NotSent { why, after, .. } => (Heard::NotSent(after), why),
            Outcome::Unsure { why } => (Heard::Unsure, why),
            Outcome::Wait { until, why, effect } => {
                writing.effect = effect;
                (Heard::Wait(until), why)
            }
        };
        (heard, writing, note)
    }

    /// Fills in what is written for `next`. Says whether the saga goes on at once.
    pub(super) fn follow(
        &self,
        held: &Held,
        heard: &Heard,
        next: Next,
        note: String,
        writing: &mut Writing,
    ) -> bool {
        let key = |step: usize| self.0.steps.get(step).map_or("", |step| step.key);
        let entry = &mut writing.entry;
        match next {
            Next::Step(step) => {
                entry.intent = Some((key(step), Way::Forward, Uuid::new_v4()));
                entry.step = step;
            }
            Next::Undo(step) => {
                entry.intent = Some((key(step), Way::Back, Uuid::new_v4()));
                entry.step = step;
            }
            Next::Resume(step) => {
                tracing::info!(saga.key = held.key, "{} goes on after all", held.key);
                entry.intent = Some((key(step), Way::Forward, Uuid::new_v4()));
                entry.step = step;
                entry.state = State::Running;
                entry.why = None;
            }
            Next::TurnRound(undo, why) => {
                tracing::info!(saga.key = held.key, reason = why.reason, "{} is undone", held.key);
                // Whatever came too late for the pivot is not written.
                writing.effect = None;
                let state = if matches!(heard, Heard::No(_) | Heard::Recall(_)) {
                    StepState::Failed
                } else {
                    StepState::Unknown
                };
                entry.ended = Some((key(held.step), Way::Forward, state, Vec::new()));
                entry.why = Some(why);
                entry.state = State::Compensating;
                match undo {
                    Some(step) => {
                        entry.intent = Some((key(step), Way::Back, Uuid::new_v4()));
                        entry.step = step;
                    }
                    None => return self.ends(held, writing, State::Compensated),
                }
            }
            Next::Finish => return self.ends(held, writing, State::Done),
            Next::Compensated => return self.ends(held, writing, State::Compensated),
            Next::Again { after, attempts } => {
                entry.attempts = attempts;
                entry.last_error = Some(note);
                writing.when = When::After(after);
                return false;
            }
            Next::Wait(until) => {
                entry.attempts = held.attempts;
                entry.last_error = Some(note);
                writing.when = When::At(until);
                return false;
            }
            Next::Stuck => {
                tracing::error!(
                    saga.key = held.key,
                    step = key(held.step),
                    reason = note,
                    "{} is stuck: somebody has to look",
                    held.key
                );
                // Intended still: it is tried again now and then.
                writing.effect = None;
                entry.ended = None;
                entry.state = State::Stuck;
                entry.attempts = held.attempts;
                entry.last_error = Some(note);
                writing.when = When::After(self.0.settings.stuck_retry);
                return false;
            }
        }
        writing.keep = true;
        true
    }

    /// The last record of a saga; an undone one ends with its own effect.
    fn ends(&self, held: &Held, writing: &mut Writing, state: State) -> bool {
        writing.entry.state = state;
        if state == State::Compensated
            && let Some(why) = &writing.entry.why
        {
            let end = (self.0.end)(self.describe(held), why);
            writing.effect = match (writing.effect.take(), end) {
                (Some(undone), Some(end)) => Some(undone.then(end)),
                (undone, end) => undone.or(end),
            };
        }
        false
    }
}
