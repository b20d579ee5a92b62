//! Takes one bad instance out and lets it come back: a state machine without I/O, time is handed
//! in since the start of the channel.
//!
//! An instance is taken out if it fails, and only if it fails more than the others: what all
//! have in common is not cured by moving calls between them. So no count of one instance is
//! enough; [`Gate::record`] only raises a suspicion, and [`worse`] compares.

use std::time::Duration;

use super::classify::EndpointVerdict;

/// Hard failures in a row that raise a suspicion.
const CONSECUTIVE: u32 = 5;
/// Calls in the window below which the rate of failures raises none.
const CALLS: u32 = 10;
/// What is looked back at: this many parts of a second each.
const PARTS: usize = 10;
/// How long an instance stays out: at first, and at most. Each time doubles it.
const OUT: (Duration, Duration) = (Duration::from_secs(5), Duration::from_secs(60));
/// An instance that was back for this long begins at the beginning when it is taken out again.
const FORGIVEN: Duration = Duration::from_secs(60);

/// Calls and failures of the last ten seconds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Rate {
    pub(super) calls: u32,
    pub(super) failures: u32,
}

/// What is known of one instance.
#[derive(Debug, Default)]
pub(super) struct Gate {
    state: State,
    /// Hard failures since the last answer.
    row: u32,
    window: [Part; PARTS],
    /// How often it was taken out without being forgiven in between.
    times: u32,
    /// When it last came back.
    back: Option<Duration>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum State {
    #[default]
    In,
    /// Out; from `until` on one call may try.
    Out { until: Duration },
    /// Out, and a call is under way to see whether it is well again.
    Probed,
}

/// One second of the window.
#[derive(Clone, Copy, Debug, Default)]
struct Part {
    second: u64,
    rate: Rate,
}

/// What a report changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Change {
    /// Nothing.
    None,
    /// It may have to be taken out: compare it with the others.
    Suspect,
    /// It is back.
    Back,
    /// The probe failed: it stays out.
    OutAgain,
}

// === impl Gate ===

impl Gate {
    /// Takes in how a call went; `probe` says whether it was let through to see.
    pub(super) fn record(&mut self, verdict: EndpointVerdict, probe: bool, at: Duration) -> Change {
        match self.state {
            State::In => self.count(verdict, at),
            // Its probe was dropped before this was known of it: that is a verdict all the same.
            State::Out { .. } | State::Probed if probe => self.probed(verdict, at),
            // A call from before it was taken out.
            State::Out { .. } | State::Probed => Change::None,
        }
    }

    /// Takes the instance out.
    pub(super) fn eject(&mut self, at: Duration) {
        let again = self.back.is_some_and(|back| at.saturating_sub(back) < FORGIVEN);
        self.times = if again { self.times.saturating_add(1) } else { 0 };
        self.out(at);
    }

    /// Whether this call may try an instance that is out, and for how long it is. Who gets it
    /// must end it by [`Gate::record`] or [`Gate::release`].
    pub(super) fn probe(&mut self, at: Duration) -> bool {
        match self.state {
            State::Out { until } if until <= at => {
                self.state = State::Probed;
                true
            }
            State::In | State::Out { .. } | State::Probed => false,
        }
    }

    /// A probe that says nothing: the next call may try.
    pub(super) fn release(&mut self, at: Duration) {
        if self.state == State::Probed {
            self.state = State::Out { until: at };
        }
    }

    /// When the next call may try it; `None` if it is not out, or being tried.
    pub(super) fn due(&self) -> Option<Duration> {
        match self.state {
            State::Out { until } => Some(until),
            State::In | State::Probed => None,
        }
    }

    pub(super) fn is_out(&self) -> bool {
        self.state != State::In
    }

    /// What became of the calls of the last ten seconds.
    pub(super) fn rate(&self, at: Duration) -> Rate {
        let recent = |part: &&Part| part.second + u64_of(PARTS) > at.as_secs();
        self.window.iter().filter(recent).fold(Rate::default(), |sum, part| sum.plus(part.rate))
    }

    fn count(&mut self, verdict: EndpointVerdict, at: Duration) -> Change {
        let failed = match verdict {
            EndpointVerdict::Neutral => return Change::None,
            EndpointVerdict::Success => {
                self.row = 0;
                false
            }
            EndpointVerdict::Hard => {
                self.row = self.row.saturating_add(1);
                true
            }
            EndpointVerdict::Soft => true,
        };
        let second = at.as_secs();
        let index = usize::try_from(second % u64_of(PARTS)).unwrap_or_default();
        if let Some(part) = self.window.get_mut(index) {
            if part.second != second {
                *part = Part { second, rate: Rate::default() };
            }
            part.rate = part.rate.plus(Rate { calls: 1, failures: u32::from(failed) });
        }
        if !failed {
            return Change::None;
        }
        let rate = self.rate(at);
        let often = rate.calls >= CALLS && u64::from(rate.failures) * 2 > u64::from(rate.calls);
        if self.row >= CONSECUTIVE || often { Change::Suspect } else { Change::None }
    }

    fn probed(&mut self, verdict: EndpointVerdict, at: Duration) -> Change {
        match verdict {
            EndpointVerdict::Success => {
                *self = Self { times: self.times, back: Some(at), ..Self::default() };
                Change::Back
            }
            EndpointVerdict::Hard | EndpointVerdict::Soft => {
                self.times = self.times.saturating_add(1);
                self.out(at);
                Change::OutAgain
            }
            EndpointVerdict::Neutral => {
                self.release(at);
                Change::None
            }
        }
    }

    fn out(&mut self, at: Duration) {
        let doubled = 2_u32.checked_pow(self.times).and_then(|times| OUT.0.checked_mul(times));
        let stays = doubled.map_or(OUT.1, |stays| stays.min(OUT.1));
        self.state = State::Out { until: at + stays };
    }
}

// === impl Rate ===

impl Rate {
    pub(super) fn plus(self, other: Self) -> Self {
        Self {
            calls: self.calls.saturating_add(other.calls),
            failures: self.failures.saturating_add(other.failures),
        }
    }
}

/// Whether an instance fails at least one and a half times as often as the rest together.
pub(super) fn worse(this: Rate, rest: Rate) -> bool {
    let product = |a: u32, b: u32| u128::from(a) * u128::from(b);
    // A rest that got no calls has not failed: moving calls there is worth trying.
    this.failures > 0
        && 2 * product(this.failures, rest.calls) >= 3 * product(rest.failures, this.calls)
}

/// Whether one more of `all` may be taken out: half of them, rounded down; one of two, and never
/// the only one.
pub(super) fn room(all: usize, out: usize) -> bool {
    out < all / 2
}

fn u64_of(count: usize) -> u64 {
    u64::try_from(count).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests;
