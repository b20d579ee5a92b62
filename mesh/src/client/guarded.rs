//! What is not gRPC, behind what a call of ours meets going out: places, a breaker, a time.

use std::{
    future::Future,
    sync::{Arc, Mutex, PoisonError, Weak},
    time::Duration,
};

use tokio::time::Instant;

use super::{
    breaker::{Breaker, Judged, Permit, Told},
    bulkhead::{Bulkhead, Full, Place},
    callee,
    classify::{self, BreakerVerdict, End},
    latency::Latency,
    policy::Policy,
};
use crate::{
    clock,
    ctx::Ctx,
    deadline::{self, Late},
    status::{Explain as _, Failure},
    telemetry::{self, Refused},
};

/// Why something guarded gave nothing.
#[derive(Debug, thiserror::Error)]
pub enum Unserved<E> {
    /// It was not begun: nothing has happened.
    #[error(transparent)]
    Refused(Failure),
    /// It took longer than it may: it may have been done.
    #[error("no answer: {0}")]
    Late(Late),
    /// What it said itself.
    #[error("{0}")]
    Failed(E),
}

/// Somebody outside of the mesh.
#[derive(Debug)]
pub(super) struct Guard {
    pub(super) name: Arc<str>,
    pub(super) policy: Policy,
    pub(super) breaker: Arc<Breaker>,
    pub(super) bulkhead: Bulkhead,
    latency: Latency,
}

/// Leave to call them once. Dropped without an end, it gives back what it holds and says nothing.
#[derive(Debug)]
pub(super) struct Entry {
    guard: Arc<Guard>,
    permit: Permit,
    _place: Place,
    began: Instant,
    time: Time,
}

/// How long something may take.
#[derive(Clone, Copy, Debug)]
pub(super) struct Time {
    pub(super) ends: Instant,
    /// Whether that is all that anybody gets, not what the call that it belongs to has left.
    whole: bool,
}

static ALL: Mutex<Vec<Weak<Guard>>> = Mutex::new(Vec::new());

/// Runs `future` as a call of `name`, who is outside of the mesh: a broker, a mail server.
///
/// It has a place among those of `name`, the time that the policy and the call that it belongs to
/// leave it, and is not begun while `name` fails. A failure is what `future` says is one. It is
/// made once: what of the policy is about attempts after the first does not count.
///
/// Names under one policy are known to the whole process: they are few, and stand in the code.
///
/// # Errors
/// [`Unserved`], which says whether anything may have happened.
pub async fn guarded<T, E>(
    name: &'static str,
    policy: &Policy,
    future: impl Future<Output = Result<T, E>>,
) -> Result<T, Unserved<E>> {
    Guard::named(name, policy).call(future).await
}

// === impl Guard ===

impl Guard {
    pub(super) fn new(name: &str, policy: Policy) -> Arc<Self> {
        let name: Arc<str> = name.into();
        let told = Told { dependency: Arc::clone(&name), method: "".into(), tell: callee::tell };
        let guard = Arc::new(Self {
            breaker: Breaker::new(policy.breaker, told, clock::instant()),
            bulkhead: Bulkhead::new(policy.bulkhead, policy.queue_timeout),
            latency: Latency::new(),
            name,
            policy,
        });
        let mut all = ALL.lock().unwrap_or_else(PoisonError::into_inner);
        all.retain(|one| one.strong_count() > 0);
        all.push(Arc::downgrade(&guard));
        guard
    }

    /// The one of this process with that name and policy.
    fn named(name: &str, policy: &Policy) -> Arc<Self> {
        static NAMED: Mutex<Vec<Arc<Guard>>> = Mutex::new(Vec::new());
        let mut named = NAMED.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(known) = named.iter().find(|it| &*it.name == name && it.policy == *policy) {
            return Arc::clone(known);
        }
        let guard = Self::new(name, policy.clone());
        named.push(Arc::clone(&guard));
        guard
    }

    /// Everybody outside whom this process calls.
    pub(super) fn all() -> Vec<Arc<Self>> {
        let all = ALL.lock().unwrap_or_else(PoisonError::into_inner);
        all.iter().filter_map(Weak::upgrade).collect()
    }

    async fn call<T, E>(
        self: &Arc<Self>,
        future: impl Future<Output = Result<T, E>>,
    ) -> Result<T, Unserved<E>> {
        let ctx = Ctx::current_or_root();
        let time = match self.longest() {
            Some(longest) => Time::of(longest, Some(&ctx)),
            None => Time { ends: ctx.deadline(), whole: false },
        };
        let entry = self.enter(time).await.map_err(Unserved::Refused)?;
        let part = ctx.until(time.ends);
        match part.scope(deadline::within(time.ends, future)).await {
            Ok(Ok(answer)) => {
                entry.ended(BreakerVerdict::Success);
                Ok(answer)
            }
            Ok(Err(error)) => {
                entry.ended(BreakerVerdict::Failure);
                Err(Unserved::Failed(error))
            }
            Err(late) => {
                entry.late();
                Err(Unserved::Late(late))
            }
        }
    }

    /// The longest that the policy lets anything take.
    pub(super) fn longest(&self) -> Option<Duration> {
        [self.policy.timeout, self.policy.longest].into_iter().flatten().min()
    }

    /// Leave for a call that may take so long.
    pub(super) async fn enter(self: &Arc<Self>, time: Time) -> Result<Entry, Failure> {
        let entered = self.admit(time).await;
        if let Err(failure) = &entered {
            let (dependency, reason) = (self.name.to_string(), failure.explain().reason());
            let refused = &telemetry::metrics().refused;
            refused.get_or_create(&Refused { dependency, reason }).inc();
        }
        entered
    }

    async fn admit(self: &Arc<Self>, time: Time) -> Result<Entry, Failure> {
        let place = deadline::within(time.ends, self.bulkhead.enter()).await;
        let place = place.map_err(|Late| Failure::Deadline)?;
        let place = place.map_err(|Full| Failure::Full(self.name.to_string()))?;
        let began = clock::instant();
        let permit = self.breaker.admit(began).map_err(|refused| Failure::CircuitOpen {
            callee: self.name.to_string(),
            after: refused.after,
        })?;
        Ok(Entry { guard: Arc::clone(self), permit, _place: place, began, time })
    }
}

// === impl Entry ===

impl Entry {
    /// It ended by itself.
    pub(super) fn ended(self, verdict: BreakerVerdict) {
        let now = clock::instant();
        let took = now.saturating_duration_since(self.began);
        if verdict == BreakerVerdict::Success {
            self.guard.latency.record(took, now);
        }
        let slow = took > self.had() / 2;
        self.permit.settle(Judged { verdict, slow, after: None }, now);
    }

    /// It was given up when its time was over.
    pub(super) fn late(self) {
        let p50 = self.guard.latency.quantile(50, clock::instant());
        let end = End::Late { had: self.had(), fair: classify::fair(p50) };
        // Whoever takes longer than anybody waits for them fails, however long they take as a rule.
        let failed = self.time.whole;
        let verdict = if failed { BreakerVerdict::Failure } else { end.outcome().breaker };
        self.ended(verdict);
    }

    fn had(&self) -> Duration {
        self.time.ends.saturating_duration_since(self.began)
    }
}

// === impl Time ===

impl Time {
    /// From now on, as long as the call that it belongs to has time.
    pub(super) fn of(longest: Duration, ctx: Option<&Ctx>) -> Self {
        let own = clock::instant() + longest;
        let ends = ctx.map_or(own, |ctx| own.min(ctx.deadline()));
        Self { ends, whole: ends == own }
    }
}

#[cfg(test)]
mod tests;
