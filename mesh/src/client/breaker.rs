//! Fails fast while a dependency is sick.
//!
//! A breaker belongs to a method. As long as a method has fewer calls than its rule asks for, it
//! is judged together with the other such methods of its service, by a breaker that they share.
//! The clock is handed in; nothing here waits.

use std::{
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use tokio::{sync::watch, time::Instant};

use super::{
    classify::BreakerVerdict,
    window::{Counts, Window},
};

mod rule;
mod state;

pub use rule::{Rule, Share, opossum, opossum_10s, seed_count, slow_calls};
pub use state::State;

/// The seconds that are judged.
const SECONDS: usize = 10;
/// The share of calls let through at the start of a ramp, and the whole, in thousandths.
const RAMP: (u64, u64) = (250, 1_000);
/// When a caller should come again while a probe is under way.
const PROBING: Duration = Duration::from_secs(1);

/// One breaker.
#[derive(Debug)]
pub(super) struct Breaker {
    rule: Rule,
    born: Instant,
    /// A number that grows with every change of state; odd while closed.
    word: AtomicU64,
    failures: Window<SECONDS>,
    slow: Option<Window<SECONDS>>,
    inner: Mutex<Inner>,
    changes: watch::Sender<State>,
    told: Told,
}

/// Who is told of every change besides those who watch, and of which breaker.
#[derive(Clone, Debug)]
pub(super) struct Told {
    pub(super) dependency: Arc<str>,
    /// Empty for the breaker that methods share.
    pub(super) method: Arc<str>,
    pub(super) tell: fn(&Self, State),
}

#[derive(Debug)]
struct Inner {
    phase: Phase,
    /// How often it opened again since it was closed.
    again: u32,
}

#[derive(Clone, Copy, Debug)]
enum Phase {
    Closed,
    Open { until: Instant },
    HalfOpen { successes: u32, probing: bool },
    Ramp { since: Instant, credit: u64, seen: Counts },
}

/// Leave to make one attempt. Dropped without a verdict, a probe is given back.
#[derive(Debug)]
pub(super) struct Permit {
    breaker: Arc<Breaker>,
    word: u64,
    probe: bool,
}

/// Leave to make one attempt of a method, by the breaker that decides about it.
#[derive(Debug)]
pub(super) struct Leave {
    own: Arc<Breaker>,
    permit: Permit,
}

/// What an attempt came to.
#[derive(Clone, Copy, Debug)]
pub(super) struct Judged {
    pub(super) verdict: BreakerVerdict,
    /// It took more than half of the time it had.
    pub(super) slow: bool,
    /// When the callee asked to be called again.
    pub(super) after: Option<Duration>,
}

/// No attempt is made: try again after this.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Refused {
    pub(super) after: Duration,
}

/// Admits an attempt of a method: by its own breaker, or by the `shared` one while that has to do
/// for it. It is always one of them that decides: two would let a quarter of a quarter through.
pub(super) fn admit(
    own: &Arc<Breaker>,
    shared: &Arc<Breaker>,
    now: Instant,
) -> Result<Leave, Refused> {
    let together = own.is_closed() && own.is_small(now);
    let permit = if together { shared.admit(now)? } else { own.admit(now)? };
    Ok(Leave { own: Arc::clone(own), permit })
}

// === impl Leave ===

impl Leave {
    /// Whether a verdict is waited for: it should come as early as it can.
    pub(super) fn is_probe(&self) -> bool {
        self.permit.probe
    }

    /// Takes the verdict.
    pub(super) fn settle(self, judged: Judged, now: Instant) {
        if !Arc::ptr_eq(&self.own, &self.permit.breaker) {
            self.own.note(judged, now);
        }
        self.permit.settle(judged, now);
    }
}

// === impl Permit ===

impl Permit {
    /// Takes the verdict.
    pub(super) fn settle(mut self, judged: Judged, now: Instant) {
        let failed = match judged.verdict {
            BreakerVerdict::Success => false,
            BreakerVerdict::Failure => true,
            // The drop gives a probe back.
            BreakerVerdict::Neutral => return,
        };
        let probe = std::mem::take(&mut self.probe);
        if self.word.is_multiple_of(2) {
            self.breaker.settle_half_open(self.word, probe, failed, judged.after, now);
        } else {
            self.breaker.settle_closed(self.word, failed, judged, now);
        }
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        if !self.probe {
            return;
        }
        let mut inner = self.breaker.lock();
        if self.breaker.word.load(Ordering::Relaxed) == self.word
            && let Phase::HalfOpen { probing, .. } = &mut inner.phase
        {
            *probing = false;
        }
    }
}

// === impl Breaker ===

impl Breaker {
    pub(super) fn new(rule: Rule, told: Told, now: Instant) -> Arc<Self> {
        Arc::new(Self {
            slow: rule.slow_percent.map(|_| Window::new()),
            rule,
            born: now,
            word: AtomicU64::new(1),
            failures: Window::new(),
            inner: Mutex::new(Inner { phase: Phase::Closed, again: 0 }),
            changes: watch::Sender::new(State::Closed),
            told,
        })
    }

    /// Where the breaker stands, and every change of it.
    pub(super) fn watch(&self) -> watch::Receiver<State> {
        self.changes.subscribe()
    }

    pub(super) fn state(&self) -> State {
        *self.changes.borrow()
    }

    /// Calls and failures of the last 10 s.
    pub(super) fn counts(&self, now: Instant) -> (u64, u64) {
        let Counts { all, some } = self.failures.sum(self.tick(now));
        (all, some)
    }

    fn is_closed(&self) -> bool {
        !self.word.load(Ordering::Acquire).is_multiple_of(2)
    }

    /// Whether there are too few calls to judge the method by itself.
    fn is_small(&self, now: Instant) -> bool {
        self.failures.sum(self.tick(now)).all < u64::from(self.rule.calls_min)
    }

    pub(super) fn admit(self: &Arc<Self>, now: Instant) -> Result<Permit, Refused> {
        let word = self.word.load(Ordering::Acquire);
        let permit = |word, probe| Permit { breaker: Arc::clone(self), word, probe };
        if !word.is_multiple_of(2) {
            return Ok(permit(word, false));
        }
        let mut inner = self.lock();
        let word = self.word.load(Ordering::Relaxed);
        match &mut inner.phase {
            Phase::Closed => Ok(permit(word, false)),
            Phase::Open { until } if now < *until => Err(Refused { after: *until - now }),
            Phase::Open { .. } => {
                let word = self.enter(&mut inner, Phase::HalfOpen { successes: 0, probing: true });
                Ok(permit(word, true))
            }
            Phase::HalfOpen { probing: true, .. } => Err(Refused { after: PROBING }),
            Phase::HalfOpen { probing, .. } => {
                *probing = true;
                Ok(permit(word, true))
            }
            Phase::Ramp { since, credit, .. } => {
                let (spent, whole) = (now.saturating_duration_since(*since), self.rule.ramp);
                if spent >= whole {
                    let word = self.close(&mut inner);
                    return Ok(permit(word, false));
                }
                *credit += share(spent, whole);
                if *credit < RAMP.1 {
                    return Err(Refused { after: whole - spent });
                }
                *credit -= RAMP.1;
                Ok(permit(word, false))
            }
        }
    }

    /// Takes note of an attempt about which another breaker decides, until there are enough.
    fn note(&self, judged: Judged, now: Instant) {
        let word = self.word.load(Ordering::Acquire);
        let failed = match judged.verdict {
            BreakerVerdict::Success => false,
            BreakerVerdict::Failure => true,
            BreakerVerdict::Neutral => return,
        };
        if word.is_multiple_of(2) {
            return;
        }
        if self.counts(now).0 + 1 >= u64::from(self.rule.calls_min) {
            self.settle_closed(word, failed, judged, now);
        } else {
            self.failures.count(self.tick(now), failed);
        }
    }

    fn settle_closed(&self, word: u64, failed: bool, judged: Judged, now: Instant) {
        if self.word.load(Ordering::Acquire) != word {
            // Begun before a change of state: says nothing of the time after it.
            return;
        }
        let tick = self.tick(now);
        self.failures.count(tick, failed);
        let mut opens = self.rule.opens(self.failures.sum(tick));
        if let (Some(window), Some(percent)) = (&self.slow, self.rule.slow_percent) {
            window.count(tick, judged.slow);
            let Counts { all, some } = window.sum(tick);
            let enough = all >= u64::from(self.rule.calls_min);
            opens |= enough && some * 100 >= all * u64::from(percent);
        }
        if !opens {
            return;
        }
        let mut inner = self.lock();
        if self.word.load(Ordering::Relaxed) == word {
            self.open(&mut inner, judged.after, now);
        }
    }

    fn settle_half_open(
        &self,
        word: u64,
        probe: bool,
        failed: bool,
        after: Option<Duration>,
        now: Instant,
    ) {
        let mut inner = self.lock();
        if self.word.load(Ordering::Relaxed) != word {
            return;
        }
        match &mut inner.phase {
            Phase::HalfOpen { .. } if failed => self.open_again(&mut inner, after, now),
            Phase::HalfOpen { successes, probing } => {
                *successes += 1;
                if probe {
                    *probing = false;
                }
                if *successes < self.rule.probes {
                    return;
                }
                if self.rule.ramp.is_zero() {
                    self.close(&mut inner);
                    return;
                }
                // The first call finds its way at once.
                let (since, credit) = (now, RAMP.1 - RAMP.0);
                self.enter(&mut inner, Phase::Ramp { since, credit, seen: Counts::default() });
            }
            Phase::Ramp { seen, .. } => {
                seen.all += 1;
                seen.some += u64::from(failed);
                // By rate: at 1 000 calls/s there is a failure in almost every ramp of a
                // dependency that is well, and it must be able to close.
                if failed && seen.some * 2 >= seen.all {
                    self.open_again(&mut inner, after, now);
                }
            }
            Phase::Closed | Phase::Open { .. } => {}
        }
    }

    fn open_again(&self, inner: &mut Inner, after: Option<Duration>, now: Instant) {
        inner.again += 1;
        self.open(inner, after, now);
    }

    fn open(&self, inner: &mut Inner, after: Option<Duration>, now: Instant) {
        let asked = after.unwrap_or_default().min(self.rule.open_max);
        let until = now + self.rule.open_for(inner.again).max(asked);
        self.enter(inner, Phase::Open { until });
    }

    fn close(&self, inner: &mut Inner) -> u64 {
        inner.again = 0;
        self.failures.clear();
        if let Some(slow) = &self.slow {
            slow.clear();
        }
        self.enter(inner, Phase::Closed)
    }

    /// The only way from one state to another; gives the number of the new one.
    fn enter(&self, inner: &mut Inner, phase: Phase) -> u64 {
        inner.phase = phase;
        let state = phase.state();
        let word = self.word.load(Ordering::Relaxed);
        let even = word + 2 - word % 2;
        let word = if state == State::Closed { even + 1 } else { even };
        self.word.store(word, Ordering::Release);
        self.changes.send_replace(state);
        (self.told.tell)(&self.told, state);
        word
    }

    fn tick(&self, now: Instant) -> u64 {
        now.saturating_duration_since(self.born).as_secs()
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

// === impl Phase ===

impl Phase {
    fn state(self) -> State {
        match self {
            Self::Closed => State::Closed,
            Self::Open { .. } => State::Open,
            Self::HalfOpen { .. } => State::HalfOpen,
            Self::Ramp { .. } => State::Ramp,
        }
    }
}

/// How many calls of 1 000 go through after `spent` of a ramp of `whole`.
fn share(spent: Duration, whole: Duration) -> u64 {
    let (least, all) = RAMP;
    let part = u128::from(all - least) * spent.as_micros() / whole.as_micros().max(1);
    least + u64::try_from(part).unwrap_or(all - least)
}

#[cfg(test)]
mod tests;
