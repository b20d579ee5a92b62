//! Brings attempts to their end: sends them, records what became of them, and finds it out where
//! no answer came.
//!
//! Between the commit that precedes a call of the provider and the one that follows it, no
//! caller's deadline counts. What is cut off all the same is found by its row: it is due again.

#[cfg(test)]
mod tests;

use std::{future::Future, sync::Arc, time::Duration};

use futures_util::StreamExt as _;
use mesh::{app::Draining, clock, ctx, failpoint};
use tokio::sync::Notify;
use uuid::Uuid;

use crate::{
    domain::{Attempt, AttemptState, Outcome, Payment, Probe, Report, Source},
    error::Error,
    provider::Provider,
    store::{Due, Store},
};

/// Sends attempts and finds out what became of them. Cheap to clone.
#[derive(Clone)]
pub struct Resolver {
    store: Store,
    provider: Arc<dyn Provider>,
    /// Rung when an attempt becomes due sooner than was known.
    bell: Arc<Notify>,
    owner: Arc<str>,
}

/// How long one attempt may take with all that follows from it: the provider's time, twice, and
/// the commits.
const BUDGET: Duration = Duration::from_secs(20);

/// For how long attempts are taken on; longer than one may take.
const LEASE: Duration = Duration::from_secs(30);

/// How many attempts are taken on at once, and how many of them are asked for at a time.
const TAKEN: u32 = 64;
const AT_ONCE: usize = 8;

/// The longest that nobody looks for attempts of other processes.
const IDLE: Duration = Duration::from_secs(5);

/// How long to wait when the database fails.
const PAUSE: Duration = Duration::from_secs(1);

// === impl Resolver ===

impl Resolver {
    /// Works on the attempts of `store` with `provider`.
    #[must_use]
    pub fn new(store: Store, provider: Arc<dyn Provider>) -> Self {
        let owner = clock::id().to_string().into();
        Self { store, provider, bell: Arc::default(), owner }
    }

    /// Sends an attempt that was committed, and records what became of it. Goes on although the
    /// caller may leave.
    ///
    /// # Errors
    /// [`Error::Database`] or [`Error::Cut`]: it is not known what became of the attempt, and the
    /// resolver finds it out.
    pub async fn carry_out(&self, payment: &Payment, attempt: Uuid) -> Result<Payment, Error> {
        let (this, id) = (self.clone(), payment.id);
        let Some(attempt) = payment.attempt(attempt).cloned() else {
            return Err(Error::NotFound(id));
        };
        let work = mesh::detach("carry_out", BUDGET, async move {
            this.send(id, attempt, Learned::First).await
        });
        work.await.map_err(|error| Error::Cut(Some(error)))?.ok_or(Error::Cut(None))?
    }

    /// Looks for attempts that are due and finds out what became of them, until the process
    /// leaves.
    ///
    /// # Errors
    /// None: a database that fails is asked again.
    pub async fn run(self, draining: Draining) -> anyhow::Result<()> {
        while !draining.is_draining() {
            let pause = match self.pass().await {
                Ok(_) => match self.store.next_due().await {
                    Ok(due) => due.unwrap_or(IDLE).min(IDLE),
                    Err(failure) => Self::failing(&failure.into()),
                },
                Err(error) => Self::failing(&error),
            };
            tokio::select! {
                () = draining.begun() => {}
                () = self.bell.notified() => {}
                () = tokio::time::sleep(pause) => {}
            }
        }
        Ok(())
    }

    /// Takes on the attempts that are due and asks for each of them once; how many there were.
    ///
    /// # Errors
    /// [`Error::Database`] if it cannot be said which are due.
    pub async fn pass(&self) -> Result<usize, Error> {
        // Taking on is a write: look first, where others read.
        if self.store.next_due().await?.is_none_or(|due| !due.is_zero()) {
            return Ok(0);
        }
        let taken = self.store.take_due(&self.owner, LEASE, TAKEN).await?;
        let count = taken.len();
        futures_util::stream::iter(taken)
            .for_each_concurrent(AT_ONCE, |due| async move {
                let work = background("resolve", self.resolve(due));
                match work.await {
                    Ok(Ok(())) => {}
                    Ok(Err(error)) => {
                        let causes = mesh::status::with_causes(&error);
                        tracing::warn!(attempt = %due.attempt, "cannot resolve an attempt: {causes}");
                    }
                    Err(late) => tracing::warn!(attempt = %due.attempt, "resolving: {late}"),
                }
            })
            .await;
        Ok(count)
    }

    /// Asks once what became of an attempt.
    async fn resolve(&self, due: Due) -> Result<(), Error> {
        let Some(attempt) = self.store.attempt(due.attempt).await? else { return Ok(()) };
        if attempt.state == AttemptState::Created {
            self.send(due.payment, attempt, Learned::First).await?;
            return Ok(());
        }
        let mut learned = Learned::Again;
        if attempt.state == AttemptState::Sent {
            // Whoever sent it never said what came of it.
            self.record(due.payment, attempt.id, Outcome::Unknown, Learned::First).await?;
            learned = Learned::Again;
        }
        let at = clock::now();
        match attempt.probe(at, self.store.pace()) {
            None => Ok(()),
            Some(Probe::Send) => {
                self.send(due.payment, attempt, learned).await?;
                Ok(())
            }
            Some(Probe::Ask) => {
                let found = self.provider.ask(&attempt).await;
                failpoint::hit("after_reply_before_record");
                let outcome = found.unwrap_or_else(|| attempt.absent(at, self.store.pace()));
                let (payment, next) =
                    self.record(due.payment, attempt.id, outcome, learned).await?;
                self.follow(payment, next).await?;
                Ok(())
            }
        }
    }

    /// Sends an attempt, records what became of it, and does the same for what follows from it.
    async fn send(
        &self,
        payment: Uuid,
        mut attempt: Attempt,
        learned: Learned,
    ) -> Result<Payment, Error> {
        if attempt.state == AttemptState::Created {
            let sent = self.store.send(Due { payment, attempt: attempt.id }).await?;
            if let Some(sent) = sent.attempt(attempt.id) {
                attempt = sent.clone();
            }
        }
        failpoint::hit("after_intent_before_send");
        let outcome = self.provider.send(&attempt).await;
        failpoint::hit("after_reply_before_record");
        let (payment, next) = self.record(payment, attempt.id, outcome, learned).await?;
        self.follow(payment, next).await
    }

    /// Sends the attempt that an outcome made necessary, if it did: a void, after which nothing
    /// follows.
    async fn follow(&self, payment: Payment, next: Option<Uuid>) -> Result<Payment, Error> {
        let next = next.and_then(|id| payment.attempt(id).cloned());
        let Some(next) = next else { return Ok(payment) };
        Box::pin(self.send(payment.id, next, Learned::First)).await
    }

    async fn record(
        &self,
        payment: Uuid,
        attempt: Uuid,
        outcome: Outcome,
        learned: Learned,
    ) -> Result<(Payment, Option<Uuid>), Error> {
        let (at, spare) = (clock::now(), clock::id());
        let report = Report { attempt, outcome, source: Source::Provider, at, spare };
        let (payment, change) = match learned {
            Learned::First => self.store.apply(payment, report).await?,
            Learned::Again => self.store.learn(payment, report).await?,
        };
        let state = payment.attempt(attempt).map(|attempt| attempt.state);
        if state == Some(AttemptState::NeedsReview) {
            let id = payment.id;
            tracing::error!(payment.id = %id, "payments/{id} needs review: see ResolvePayment");
        }
        if state.is_some_and(|state| !state.is_final()) {
            self.bell.notify_one();
        }
        Ok((payment, change.send))
    }

    fn failing(error: &Error) -> Duration {
        let causes = mesh::status::with_causes(error);
        tracing::warn!("cannot look for attempts that are due: {causes}");
        PAUSE
    }
}

/// Whether an outcome is the answer to the first sending, or was asked for afterwards: then
/// learning nothing counts as well.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Learned {
    First,
    Again,
}

/// Runs work on an attempt with a deadline of its own.
async fn background<F: Future>(
    name: &'static str,
    work: F,
) -> Result<F::Output, mesh::deadline::Late> {
    ctx::background(name, BUDGET, None, work).await
}
