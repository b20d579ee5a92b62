//! What an outcome does to its payment: state, postings, events, and what follows from it.

use time::OffsetDateTime;
use uuid::Uuid;

use super::{
    Attempt, AttemptState, Change, Event, Kind, Outcome, Pace, Payment, Refusal, Source, Started,
    ledger,
};

/// What somebody says became of an attempt.
#[derive(Clone, Debug)]
pub struct Report {
    /// Which attempt.
    pub attempt: Uuid,
    /// What became of it.
    pub outcome: Outcome,
    /// Who says so.
    pub source: Source,
    /// When.
    pub at: OffsetDateTime,
    /// The id of the attempt that the outcome may make necessary.
    pub spare: Uuid,
}

/// Why an authorization that was voided undecided has no effect.
pub const VOIDED: &str = "voided";

// === impl Payment ===

impl Payment {
    /// Takes in what became of an attempt: the one function for answers, the resolver and people.
    /// Outcomes are ordered, and the loser of two changes nothing.
    ///
    /// # Errors
    /// [`Refusal::ProviderId`] if a person says that an authorization or a capture succeeded and
    /// nobody knows what the provider calls it.
    pub fn apply(&mut self, report: Report, pace: &Pace) -> Result<Change, Refusal> {
        let mut change = Change::default();
        let Some(index) = self.attempts.iter().position(|one| one.id == report.attempt) else {
            return Ok(change);
        };
        let Some(attempt) = self.attempts.get_mut(index) else { return Ok(change) };
        let before = attempt.state;
        if !attempt.take(&report.outcome, &report.source, report.at, pace)? {
            return Ok(change);
        }
        let attempt = attempt.clone();
        if before != attempt.state {
            self.updated_at = report.at;
            match attempt.kind {
                Kind::Authorize => self.authorization_became(&attempt, &report, &mut change),
                Kind::Capture => self.capture_became(&attempt, &report, &mut change),
                Kind::Void => self.void_became(&attempt, &report, &mut change),
                Kind::Refund => self.refund_became(&attempt, &report, &mut change, pace),
            }
        }
        if attempt.state.is_doubtful() && !before.is_doubtful() {
            change.events.push(Event::InDoubt { reference: attempt.reference });
        }
        // What was voided meanwhile and went out nevertheless is given back.
        if self.voided_at.is_some() && attempt.kind == Kind::Authorize && self.can_give_back() {
            let started = Started { id: report.spare, at: report.at };
            change.send = Some(self.add(started, Kind::Void, self.money(self.held()), true, pace));
        }
        Ok(change)
    }

    /// Takes in what the resolver learned. If that was nothing new, the next time is set, or the
    /// attempt is left to a person.
    ///
    /// # Errors
    /// Never, for what a provider says; see [`Payment::apply`].
    pub fn learn(&mut self, report: Report, pace: &Pace) -> Result<Change, Refusal> {
        let (id, at) = (report.attempt, report.at);
        let before = self.attempt(id).map(|attempt| attempt.state);
        let change = self.apply(report, pace)?;
        let asked = self.attempts.iter_mut().find(|attempt| attempt.id == id);
        if let Some(attempt) = asked.filter(|attempt| Some(attempt.state) == before) {
            attempt.postpone(at, pace);
        }
        Ok(change)
    }

    fn authorization_became(&mut self, attempt: &Attempt, report: &Report, change: &mut Change) {
        match attempt.state {
            AttemptState::Succeeded => self.set_aside(attempt, change),
            AttemptState::Declined | AttemptState::Failed => {
                change.events.push(Event::Declined {
                    code: attempt.decline_code.clone().unwrap_or_default(),
                    retriable: attempt.retriable,
                });
                // A void that is under way says the same when it is done.
                let voiding = self.last(Kind::Void).is_some_and(|void| !void.state.is_final());
                if self.voided_at.is_some() && !voiding {
                    change.events.push(Event::Voided { amount: None });
                }
            }
            AttemptState::ActionRequired => {
                let url = attempt.action_url.clone().unwrap_or_default();
                change.events.push(Event::ActionRequired { url });
            }
            AttemptState::Created
            | AttemptState::Sent
            | AttemptState::Unknown
            | AttemptState::NeedsReview => {}
        }
        if let Outcome::Succeeded { expires_at, .. } = &report.outcome {
            self.authorization_expires_at = *expires_at;
        }
    }

    fn set_aside(&mut self, attempt: &Attempt, change: &mut Change) {
        self.authorized += attempt.amount.minor;
        change.postings.extend(ledger::authorized(&attempt.reference, attempt.amount));
        change.events.push(Event::Authorized { amount: attempt.amount });
    }

    fn capture_became(&mut self, attempt: &Attempt, report: &Report, change: &mut Change) {
        let Outcome::Succeeded { fee, .. } = report.outcome else { return };
        self.captured += attempt.amount.minor;
        let fee = self.money(fee);
        change.postings.extend(ledger::captured(&attempt.reference, attempt.amount, fee));
        let rest = self.money(self.held());
        if attempt.last && rest.minor > 0 {
            self.authorized = self.captured;
            change.postings.extend(ledger::released(&attempt.reference, rest));
        }
        change.events.push(Event::Captured { amount: attempt.amount, last: attempt.last });
    }

    fn void_became(&mut self, attempt: &Attempt, report: &Report, change: &mut Change) {
        let Outcome::Succeeded { released, .. } = report.outcome else { return };
        // An authorization that was given back before anybody knew what had become of it.
        let undecided = |one: &&mut Attempt| one.kind == Kind::Authorize && !one.state.is_final();
        if let Some(open) = self.attempts.iter_mut().find(undecided) {
            if released.is_some_and(|minor| minor > 0) {
                open.settle(&Outcome::done(None), AttemptState::Succeeded);
                let open = open.clone();
                self.set_aside(&open, change);
            } else {
                open.settle(&Outcome::Failed { code: VOIDED.to_owned() }, AttemptState::Failed);
            }
        }
        let rest = self.money(self.held());
        self.authorized = self.captured;
        if rest.minor > 0 {
            change.postings.extend(ledger::released(&attempt.reference, rest));
        }
        change.events.push(Event::Voided { amount: (rest.minor > 0).then_some(rest) });
    }
}
