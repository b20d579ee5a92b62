//! One attempt: leave to make it, and the verdict when it has ended.
//!
//! Dropped before it ended, it says nothing of anybody and gives back what it holds.

use std::{sync::Arc, time::Duration};

use http::HeaderMap;
use tokio::time::Instant;
use tonic::{Code, Status};
use tonic_types::StatusExt as _;

use super::{
    breaker::{self, Judged, Leave},
    callee::{Callee, Method},
    classify::{self, BreakerVerdict, End, EndpointVerdict, Outcome},
    endpoint::{Pick, Tried},
    retry::Pushback,
};
use crate::{clock, marks, status::Failure, telemetry::Span};

/// An attempt under way.
#[derive(Debug)]
pub(super) struct Attempt {
    callee: Arc<Callee>,
    method: Arc<Method>,
    leave: Option<Leave>,
    pick: Option<Pick>,
    began: Instant,
    had: Duration,
    pub(super) span: Span,
}

/// What the callee said of when to come again.
#[derive(Clone, Copy, Debug)]
pub(super) struct Said {
    pub(super) pushback: Pushback,
    /// The pushback, or `RetryInfo`.
    pub(super) after: Option<Duration>,
}

// === impl Attempt ===

impl Attempt {
    /// Leave to make an attempt that may take `had`.
    pub(super) fn begin(
        callee: &Arc<Callee>,
        method: &Arc<Method>,
        had: Duration,
        now: Instant,
    ) -> Result<Self, Failure> {
        if method.policy.throttle && !callee.throttle.admits(fastrand::f64(), now) {
            return Err(Failure::Throttled(callee.name.to_string()));
        }
        let leave = breaker::admit(&method.breaker, &callee.shared, now).map_err(|refused| {
            Failure::CircuitOpen { callee: callee.name.to_string(), after: refused.after }
        })?;
        Ok(Self {
            callee: Arc::clone(callee),
            method: Arc::clone(method),
            leave: Some(leave),
            pick: None,
            began: now,
            had,
            span: Span::default(),
        })
    }

    /// It was given to an instance.
    pub(super) fn went(&mut self, pick: Pick) {
        self.span.went(pick.address());
        self.pick = Some(pick);
    }

    /// How an answer with these headers, or trailers, ends it.
    pub(super) fn end_of(&self, code: Code, headers: &HeaderMap, now: Instant) -> End {
        let marked = marks::are_in(headers);
        let refused = if marked { headers.get(marks::REFUSED) } else { None };
        if refused.is_some_and(|why| why == marks::BUDGET) {
            return End::RefusedForTime;
        }
        // Whoever has too much to do says so, or says when to come again.
        let silent = !marked || (refused.is_none() && Pushback::of(headers) == Pushback::Silent);
        if code == Code::ResourceExhausted && silent {
            return End::Quota;
        }
        if code == Code::Ok {
            return End::Answered(code);
        }
        let late = now.saturating_duration_since(self.began) >= self.had;
        End::of(code, self.had, self.fair(now), late)
    }

    /// How it ends if nothing came in its time.
    pub(super) fn late(&self, now: Instant) -> End {
        End::Late { had: self.had, fair: self.fair(now) }
    }

    fn fair(&self, now: Instant) -> Duration {
        classify::fair(self.method.latency.quantile(50, now))
    }

    /// The first message of a stream came: a probe need not wait for the last.
    pub(super) fn heard(&mut self) {
        if self.method.facts.unary {
            return;
        }
        if let Some(pick) = &mut self.pick {
            pick.heard(self.began);
        }
        if !self.leave.as_ref().is_some_and(Leave::is_probe) {
            return;
        }
        if let Some(leave) = self.leave.take() {
            let judged = Judged { verdict: BreakerVerdict::Success, slow: false, after: None };
            leave.settle(judged, clock::instant());
        }
    }

    /// Tells everybody how it ended. Only the first end counts.
    pub(super) fn end(&mut self, end: End, said: Said, now: Instant) -> Outcome {
        let (outcome, took) = self.judge(end, said, now);
        if let Some(mut pick) = self.pick.take() {
            match (outcome.endpoint, said.pushback.after()) {
                (EndpointVerdict::Hard, Some(after)) => pick.push_back(after, now),
                (verdict, _) => pick.report(verdict, took, now),
            }
        }
        outcome
    }

    /// The same for one that was given up while it was on its way.
    pub(super) fn end_without_answer(
        &mut self,
        end: End,
        tried: &mut Tried,
        now: Instant,
    ) -> Outcome {
        if let Some(address) = tried.address() {
            self.span.went(address);
        }
        let (outcome, took) = self.judge(end, Said::NOTHING, now);
        tried.report(outcome.endpoint, took, now);
        outcome
    }

    /// Where the breakers stand that this attempt has a say in.
    fn breakers(&self) -> [&'static str; 2] {
        [self.method.breaker.state().name(), self.callee.shared.state().name()]
    }

    fn judge(&mut self, end: End, said: Said, now: Instant) -> (Outcome, Duration) {
        let outcome = end.outcome();
        let took = now.saturating_duration_since(self.began);
        let Some(leave) = self.leave.take() else {
            self.span.judged(end.error());
            return (outcome, took);
        };
        let slow = took > self.had / 2;
        let stood = self.span.is_recorded().then(|| self.breakers());
        leave.settle(Judged { verdict: outcome.breaker, slow, after: said.after }, now);
        self.span.moved(stood, || self.breakers());
        self.span.judged(end.error());
        if matches!(end, End::Late { .. }) && self.method.facts.unary {
            // It takes longer than this: without that, a method that always does never had more.
            let least = self.method.latency.expected(now).max(took);
            self.method.latency.record(least, now);
        }
        let accepted = end != End::Answered(Code::ResourceExhausted);
        match outcome.breaker {
            BreakerVerdict::Neutral if accepted => return (outcome, took),
            BreakerVerdict::Neutral => self.callee.budget.ended(true),
            BreakerVerdict::Failure => self.callee.budget.ended(true),
            BreakerVerdict::Success => {
                self.callee.budget.ended(false);
                if self.method.facts.unary {
                    self.method.latency.record(took, now);
                }
            }
        }
        self.callee.throttle.ended(accepted, now);
        (outcome, took)
    }
}

// === impl Said ===

impl Said {
    pub(super) const NOTHING: Self = Self { pushback: Pushback::Silent, after: None };

    /// What stands in the headers of an answer with this code.
    pub(super) fn of(code: Code, headers: &HeaderMap) -> Self {
        if code == Code::Ok {
            return Self::NOTHING;
        }
        let pushback = Pushback::of(headers);
        let info = || {
            let info = Status::from_header_map(headers)?.get_details_retry_info()?;
            info.retry_delay
        };
        Self { pushback, after: pushback.after().or_else(info) }
    }
}
