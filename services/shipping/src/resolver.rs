//! Brings attempts to their end: asks the carrier, records what it did, and finds it out where no
//! answer came; and takes in what it reports by itself ([`track`]).
//!
//! Between the commit that precedes a call of the carrier and the one that follows it, no caller's
//! deadline counts. What is cut off all the same is found by its row: it is due again.

mod track;
#[cfg(test)]
mod tests;

use std::{future::Future, pin::pin, sync::Arc, time::Duration};

use futures_util::{StreamExt as _, stream::FuturesUnordered};
use mesh::{app::Draining, clock, ctx, failpoint};
use tokio::sync::Notify;
use uuid::Uuid;

use crate::{
    carrier::{Ask, Carrier},
    domain::{AttemptState, Kind, Outcome, Shipment, parcel_of},
    error::Error,
    store::{Due, Store},
};

/// Asks the carrier and takes in what it says. Cheap to clone.
#[derive(Clone)]
pub struct Resolver {
    store: Store,
    carrier: Arc<dyn Carrier>,
    /// How long the carrier may take to answer.
    timeout: Duration,
    /// Rung when an attempt becomes due sooner than was known.
    bell: Arc<Notify>,
    owner: Arc<str>,
}

/// How long one attempt may take with all that follows from it: the carrier's time, twice, and
/// the commits.
const BUDGET: Duration = Duration::from_secs(20);

/// For how long attempts are taken on; longer than one may take.
const LEASE: Duration = Duration::from_secs(30);

/// How many attempts are worked on at once; more are taken on when half of them are done.
const AT_ONCE: usize = 32;

/// The longest that nobody looks for attempts of other processes.
const IDLE: Duration = Duration::from_secs(5);

/// How long to wait when the database fails.
const PAUSE: Duration = Duration::from_secs(1);

// === impl Resolver ===

impl Resolver {
    /// Works on the attempts of `store` with `carrier`, which gets `timeout` to answer.
    #[must_use]
    pub fn new(store: Store, carrier: Arc<dyn Carrier>, timeout: Duration) -> Self {
        let owner = clock::id().to_string().into();
        Self { store, carrier, timeout, bell: Arc::default(), owner }
    }

    /// Says that there is something to do.
    pub fn ring(&self) {
        self.bell.notify_one();
    }

    /// Sends an attempt that was committed as sent, and records what became of it. Goes on
    /// although the caller may leave.
    ///
    /// # Errors
    /// [`Error::Database`] or [`Error::Cut`]: it is not known what became of the attempt, and it
    /// is found out later.
    pub async fn carry_out(&self, shipment: Shipment, attempt: Uuid) -> Result<Shipment, Error> {
        let this = self.clone();
        let work = mesh::detach("carry_out", BUDGET, async move {
            let shipment = this.send(shipment, attempt).await?;
            // What a carrier does not give back it has: its report says so.
            if shipment.attempt(attempt).is_some_and(|it| it.state == AttemptState::Declined) {
                this.collect().await?;
            }
            Ok(shipment)
        });
        work.await.map_err(|error| Error::Cut(Some(error)))?.ok_or(Error::Cut(None))?
    }

    /// Looks for attempts that are due and works on them, until the process leaves.
    ///
    /// # Errors
    /// None: a database that fails is asked again.
    pub async fn run(self, draining: Draining) -> anyhow::Result<()> {
        let mut working = FuturesUnordered::new();
        while !draining.is_draining() {
            let mut pause = IDLE;
            if working.len() <= AT_ONCE / 2 {
                let room = AT_ONCE - working.len();
                match beside(&mut working, self.take(room)).await {
                    Ok((taken, next)) => {
                        working.extend(taken.into_iter().map(|(due, trace)| self.work(due, trace)));
                        pause = next.min(IDLE);
                    }
                    Err(error) => {
                        let causes = mesh::status::with_causes(&error);
                        tracing::warn!("cannot look for attempts that are due: {causes}");
                        pause = PAUSE;
                    }
                }
            }
            tokio::select! {
                () = draining.begun() => {}
                () = self.bell.notified() => {}
                () = tokio::time::sleep(pause) => {}
                Some(()) = working.next() => {}
            }
        }
        while working.next().await.is_some() {}
        Ok(())
    }

    /// Takes on the attempts that are due and asks for each of them once; how many there were.
    ///
    /// # Errors
    /// [`Error::Database`] if it cannot be said which are due.
    pub async fn pass(&self) -> Result<usize, Error> {
        let (taken, _) = self.take(AT_ONCE).await?;
        let count = taken.len();
        let work = taken.into_iter().map(|(due, trace)| self.work(due, trace));
        work.collect::<FuturesUnordered<_>>().collect::<()>().await;
        Ok(count)
    }

    /// Takes on attempts that are due, each with the trace it belongs to; and says how long until
    /// the next one is.
    async fn take(&self, limit: usize) -> Result<(Vec<(Due, Option<String>)>, Duration), Error> {
        // Taking on is a write: look first, where others read.
        match self.store.next_due().await? {
            Some(pause) if pause.is_zero() => {}
            pause => return Ok((Vec::new(), pause.unwrap_or(IDLE))),
        }
        let taken = self.store.take_due(&self.owner, LEASE, limit).await?;
        let ids: Vec<Uuid> = taken.iter().map(|due| due.shipment).collect();
        let traces = self.store.traces(&ids).await?;
        let pause = self.store.next_due().await?.unwrap_or(IDLE);
        let traced = |due: Due| (due, traces.get(&due.shipment).cloned());
        Ok((taken.into_iter().map(traced).collect(), pause))
    }

    /// Works on one attempt, in its own time.
    async fn work(&self, due: Due, trace: Option<String>) {
        let work = async {
            let shipment = self.store.shipment(due.shipment).await?;
            let shipment = shipment.ok_or(Error::NotFound(due.shipment))?;
            self.send(shipment, due.attempt).await
        };
        let Due { shipment: id, attempt } = due;
        match background("resolve", trace.as_deref(), work).await {
            Ok(Ok(shipment)) => {
                let attempt = shipment.attempt(attempt);
                if attempt.is_some_and(|it| it.is_overdue(self.store.pace())) {
                    tracing::error!(
                        shipment.id = %id,
                        "the carrier does not say what it did with shipments/{id}; it is asked on"
                    );
                }
            }
            Ok(Err(error)) => {
                let causes = mesh::status::with_causes(&error);
                tracing::warn!(%attempt, "cannot ask the carrier about shipments/{id}: {causes}");
            }
            Err(late) => tracing::warn!(%attempt, "asking about shipments/{id}: {late}"),
        }
    }

    /// Asks the carrier, records what it did, and does the same for what follows from it.
    async fn send(&self, shipment: Shipment, attempt: Uuid) -> Result<Shipment, Error> {
        let open = shipment.attempt(attempt).filter(|attempt| !attempt.state.is_final());
        let Some(kind) = open.map(|attempt| attempt.kind) else { return Ok(shipment) };
        failpoint::hit("after_intent_before_send");
        let outcome = self.ask(&shipment, kind).await;
        failpoint::hit("after_reply_before_record");
        let (shipment, change) = self.store.apply(shipment.id, attempt, outcome).await?;
        match change.send {
            // A cancellation that waited for the booking; nothing follows from it.
            Some(next) => Box::pin(self.send(shipment, next)).await,
            None => {
                // It may be due again before anybody looks.
                if shipment.attempt(attempt).is_some_and(|it| !it.state.is_final()) {
                    self.ring();
                }
                Ok(shipment)
            }
        }
    }

    async fn ask(&self, shipment: &Shipment, kind: Kind) -> Outcome {
        let ship_to = shipment.plan.ship_to.clone();
        let ask = Ask { kind, parcel: parcel_of(shipment.id), ship_to };
        let answer = tokio::time::timeout(self.timeout, self.carrier.send(&ask)).await;
        answer.unwrap_or(Outcome::Unknown)
    }
}

/// Runs work on a shipment with a deadline of its own, in the trace that it belongs to.
async fn background<F: Future>(
    name: &'static str,
    trace: Option<&str>,
    work: F,
) -> Result<F::Output, mesh::deadline::Late> {
    ctx::background(name, BUDGET, trace, work).await
}

/// Waits for `next` while the work under way goes on. Work that nobody polls would keep the
/// connections that `next` waits for.
async fn beside<T>(
    working: &mut FuturesUnordered<impl Future<Output = ()>>,
    next: impl Future<Output = T>,
) -> T {
    let mut next = pin!(next);
    loop {
        tokio::select! {
            done = &mut next => return done,
            Some(()) = working.next() => {}
        }
    }
}
