//! Doing one saga: call the step, hear what it came to, record it, go on; under a lease that is
//! kept as long as that takes.

use std::{sync::Arc, time::Duration};

use tokio::time::Instant;

use super::{
    super::{
        Outcome, Run, Stale,
        decide::{Heard, Next, Position, State, Way},
        journal::{self, Entry, Held, StepState},
    },
    Runner,
    writing::{When, Writing},
};
use crate::{
    app::Draining,
    barrier::Command,
    bug::Bug,
    clock::{self, micros},
    ctx::{Ctx, Trace},
    deadline, failpoint,
    store::{Failure, Txn, TxnError},
    telemetry::Spans,
};

/// How long recording a step may take.
const RECORD: Duration = Duration::from_secs(10);

/// A back-off up to this long is waited for with the lease in hand.
const SHORT: Duration = Duration::from_secs(1);

/// How long a process is asleep that makes [`Bug::ForgetFence`].
const ASLEEP: Duration = Duration::from_secs(3);

/// Why a step was not recorded.
#[derive(Debug, thiserror::Error)]
enum NotRecorded {
    /// Another one holds the saga, or it was woken in the meantime.
    #[error("the saga is not as it was")]
    Lost,
    /// The step's effect does not fit what is there now.
    #[error(transparent)]
    Stale(#[from] Stale),
    #[error(transparent)]
    Failed(#[from] Failure),
}

impl Runner {
    /// Does a saga's steps, until there is nothing to do now or it is another's.
    pub(super) async fn drive(self, held: Held, draining: Draining) {
        let (id, fence, leased) = (held.id.clone(), held.fence, held.leased);
        let steps = Box::pin(self.steps(held, draining));
        tokio::select! {
            biased;
            () = self.lose(&id, fence, leased) => tracing::debug!(saga.id = id, "lease lost"),
            () = steps => {}
        }
    }

    async fn steps(&self, mut held: Held, draining: Draining) {
        loop {
            if draining.is_draining() {
                return self.give_back(&held).await;
            }
            let ctx = self.context(&held);
            let _ends = ctx.ending();
            // What is too late for the pivot is not even begun: it would only be undone.
            let outcome = if self.position(&held).is_late(clock::now()) {
                Outcome::Unsure { why: "the deadline passed".to_owned() }
            } else {
                self.call(&held, &ctx).await
            };
            outcome.tell(ctx.span());
            failpoint::hit("after_reply_before_record");
            if matches!(outcome, Outcome::NotSent { shed: true, .. }) {
                self.0.share.shed(clock::instant());
            }
            let (heard, mut writing, note) = self.heard(&held, outcome);
            let spread = fastrand::f64();
            let next =
                self.position(&held).next(heard.clone(), clock::now(), &self.0.settings, spread);
            if let Next::Again { after, attempts } = next
                && after <= SHORT
                && !draining.is_draining()
            {
                tracing::debug!(saga.key = held.key, reason = note, attempts, "again");
                held.attempts = attempts;
                held.misses += u32::from(matches!(heard, Heard::NotSent(_)));
                ctx.span().end();
                pause(after, &draining).await;
                continue;
            }
            let goes_on = self.follow(&held, &heard, next, note, &mut writing);
            // What is written with a step knows by itself whether it is too late.
            if Bug::ForgetFence.is_seeded() && goes_on && writing.effect.is_none() {
                tokio::time::sleep(ASLEEP).await;
            }
            let recorded_at = clock::instant();
            match self.record(&held, writing.clone(), &ctx).await {
                Ok(()) if !goes_on => return,
                Ok(()) => held = advanced(held, writing.entry, recorded_at),
                Err(problem) => {
                    ctx.span().end();
                    match self.again(held, &problem, &draining).await {
                        Some(as_it_is) => held = as_it_is,
                        None => return,
                    }
                }
            }
        }
    }

    /// Calls the step function that is intended.
    async fn call(&self, held: &Held, ctx: &Ctx) -> Outcome {
        let Some(step) = self.0.steps.get(held.step) else {
            return Outcome::no("UNKNOWN_STEP", format!("there is no step {}", held.step));
        };
        let act = match held.way() {
            Way::Forward => Some(&step.act),
            Way::Back => step.undo.as_ref(),
        };
        let Some(act) = act else { return Outcome::done() };
        let call = act(self.describe(held));
        failpoint::hit("after_intent_before_send");
        match ctx.scope(deadline::within(ctx.deadline(), call)).await {
            Ok(outcome) => outcome,
            Err(late) => Outcome::Unsure { why: late.to_string() },
        }
    }

    /// One try of a step: what is called, and what is written of it, is below one span.
    fn context(&self, held: &Held) -> Ctx {
        let timeout = self.0.settings.step_timeout;
        let above = held.traceparent.as_deref().and_then(Trace::parse);
        let spans = Spans::here();
        let step = self.0.steps.get(held.step).map_or("", |step| step.key);
        let back = match held.way() {
            Way::Forward => false,
            Way::Back => true,
        };
        let span = above.map(|above| spans.step(above, back, step, held.attempts + 1));
        let trace = above.map_or_else(Trace::new, Trace::child);
        let ctx = Ctx::root(timeout, trace).recorded(&spans, span.unwrap_or_default());
        ctx.about(&held.key);
        ctx
    }

    /// Resolves when the lease is another's; renews it until then, each time a third of it is
    /// over, whatever the steps are at.
    async fn lose(&self, id: &str, fence: i64, leased: Instant) {
        let third = self.0.settings.lease / 3;
        tokio::time::sleep_until(leased + third).await;
        loop {
            let (runner, saga) = (self.clone(), id.to_owned());
            let renewed = self.0.store.transaction(move |txn| {
                let (runner, saga) = (runner.clone(), saga.clone());
                Box::pin(async move {
                    let until = runner.lease_until(txn).await?;
                    journal::renew(txn, &saga, &runner.0.owner, fence, until).await
                })
            });
            match renewed.await {
                Ok(true) => {}
                Ok(false) => return,
                // The step goes on: what it does is recorded under the fence, or not at all.
                Err(failure) => {
                    let error = crate::status::with_causes(&failure);
                    tracing::warn!(error, saga.id = id, "a lease was not renewed");
                }
            }
            tokio::time::sleep(third).await;
        }
    }

    /// Writes the effect and the record of a step: both, or neither.
    async fn record(&self, held: &Held, writing: Writing, ctx: &Ctx) -> Result<(), NotRecorded> {
        let (runner, held) = (self.clone(), held.clone());
        let ctx = ctx.lasting(RECORD);
        let recorded = self.0.store.transaction(move |txn| {
            let (runner, held, writing) = (runner.clone(), held.clone(), writing.clone());
            Box::pin(async move { runner.write(txn, &held, writing).await })
        });
        match ctx.scope(deadline::within(ctx.deadline(), recorded)).await {
            Ok(recorded) => recorded.inspect(|()| _ = crate::telemetry::metrics().saga_steps.inc()),
            // It may have been written: what is there says so.
            Err(_late) => Err(NotRecorded::Lost),
        }
    }

    async fn write(&self, txn: &Txn, held: &Held, writing: Writing) -> Result<(), NotRecorded> {
        let Writing { mut entry, when, keep, effect } = writing;
        if let Some(effect) = effect {
            // First the row it speaks of, then the saga: the order in which a cancellation locks.
            (effect.0)(txn).await?;
        }
        let now = self.0.store.now_micros(txn).await?;
        entry.next_run_at = match when {
            When::Now => now,
            When::After(after) => {
                now.saturating_add(i64::try_from(after.as_micros()).unwrap_or(i64::MAX))
            }
            When::At(at) => micros(at),
        };
        entry.lease = if keep { Some(self.lease_until(txn).await?) } else { None };
        if journal::record(txn, held, &entry).await? { Ok(()) } else { Err(NotRecorded::Lost) }
    }

    /// The saga as it is, after a step of it was not recorded; `None` if it is another's. Asked
    /// after a pause that grows, for what was not recorded once may never be.
    async fn again(&self, held: Held, problem: &NotRecorded, draining: &Draining) -> Option<Held> {
        let reason = crate::status::with_causes(problem);
        if matches!(problem, NotRecorded::Failed(_) | NotRecorded::Stale(Stale::Failed(_))) {
            tracing::warn!(error = reason, saga.key = held.key, "a step was not recorded");
        } else {
            tracing::debug!(reason, saga.key = held.key, "a step was not recorded");
        }
        let ceiling = self.0.settings.ceiling(held.misses + 1).min(SHORT);
        pause(ceiling.mul_f64(fastrand::f64()), draining).await;
        match journal::held(self.0.store.reader(), &held.id, held.fence).await {
            Ok(as_it_is) => as_it_is
                .filter(|held| {
                    matches!(held.state, State::Running | State::Compensating | State::Stuck)
                })
                // What this process alone knows.
                .map(|as_it_is| Held { misses: held.misses + 1, leased: held.leased, ..as_it_is }),
            Err(failure) => {
                let error = crate::status::with_causes(&failure);
                tracing::warn!(error, saga.key = held.key, "left until its lease expires");
                None
            }
        }
    }

    pub(super) async fn give_back(&self, held: &Held) {
        let (id, fence) = (held.id.clone(), held.fence);
        let given = self.0.store.transaction(move |txn| {
            let id = id.clone();
            Box::pin(async move { journal::give_back(txn, &id, fence).await })
        });
        if let Err(failure) = given.await {
            let error = crate::status::with_causes(&failure);
            tracing::warn!(error, saga.key = held.key, "a lease was not given back");
        }
    }

    pub(super) fn position(&self, held: &Held) -> Position<'_> {
        Position {
            steps: &self.0.kinds,
            step: held.step,
            way: held.way(),
            attempts: held.attempts,
            misses: held.misses,
            deadline: held.deadline,
        }
    }

    pub(super) fn describe(&self, held: &Held) -> Run {
        Run {
            key: held.key.clone(),
            data: held.data.clone(),
            command: Command {
                saga: held.id.clone(),
                step_key: self.0.steps.get(held.step).map_or("", |step| step.key).to_owned(),
                command_id: held.command_id,
                fence: held.fence,
            },
            attempt: held.attempts + 1,
            deadline: held.deadline,
            replies: Arc::new(held.replies.clone()),
        }
    }
}

// === impl NotRecorded ===

impl TxnError for NotRecorded {
    fn failure(&self) -> Option<&Failure> {
        match self {
            Self::Lost => None,
            Self::Stale(stale) => stale.failure(),
            Self::Failed(failure) => Some(failure),
        }
    }
}

/// The saga after its step was recorded: what the database has, without asking it.
fn advanced(mut held: Held, entry: Entry, recorded_at: Instant) -> Held {
    if let Some((key, Way::Forward, StepState::Ok, reply)) = entry.ended {
        held.replies.insert(key.to_owned(), reply);
    }
    if let Some((_, _, command_id)) = entry.intent {
        held.command_id = command_id;
    }
    Held {
        state: entry.state,
        step: entry.step,
        attempts: entry.attempts,
        why: entry.why,
        revision: held.revision + 1,
        misses: 0,
        leased: recorded_at,
        ..held
    }
}

async fn pause(pause: Duration, draining: &Draining) {
    tokio::select! {
        () = draining.begun() => {}
        () = tokio::time::sleep(pause) => {}
    }
}
