//! Having the effect of events: cursor, effects and what is parked in one transaction.

use std::{any::Any, collections::HashSet, panic::AssertUnwindSafe, sync::Arc, time::Duration};

use futures_util::FutureExt as _;

use super::{
    Consumer, Trouble,
    judge::{Cause, Fault, Next},
    store,
};
use crate::{
    app::Draining,
    bug::Bug,
    clock,
    ctx::{self, Ctx, Trace},
    failpoint,
    log::{Event, Position},
    store::{Failure, Txn, TxnError},
    telemetry::{self, Spans, Taken},
};

/// Why a transaction of a consumer was undone.
#[derive(Debug, thiserror::Error)]
pub(super) enum Undone {
    /// The cursor is not where it was: another replica moved it.
    #[error("the cursor was moved by another")]
    Moved,
    /// The handler did not take an event in.
    #[error(transparent)]
    Refused(Trouble),
    /// The handler panicked.
    #[error("the handler panicked: {0}")]
    Panicked(String),
    /// A statement of our own failed.
    #[error(transparent)]
    Failed(#[from] Failure),
}

/// Where the cursor is not known any more: it has to be read.
#[derive(Debug)]
pub(super) struct Lost;

/// Events that share a transaction while all goes well: all that one message brings, since a commit
/// costs as much as the effects of a hundred.
const TOGETHER: usize = crate::log::BATCH;

/// How long one transaction may take.
const LONGEST: Duration = Duration::from_secs(30);

// === impl Consumer ===

impl Consumer {
    /// Takes events in, from the cursor at `old` on. Answers where it is then.
    pub(super) async fn take_in(
        &self,
        events: &[Event],
        mut old: Position,
        draining: &Draining,
    ) -> Result<Position, Lost> {
        for together in events.chunks(TOGETHER) {
            let Some(last) = together.last() else { continue };
            let all: Arc<[Event]> = together.into();
            match self.commit(Arc::clone(&all), old, None).await {
                Ok(()) => old = last.position,
                Err(Undone::Moved) => return Err(Lost),
                Err(why) => {
                    tracing::debug!(%why, consumer.source = self.source(), "events are taken in one by one");
                    for event in together {
                        old = self.one(event, old, draining).await?;
                    }
                }
            }
        }
        Ok(old)
    }

    /// Takes one event in, or parks it, however long that takes.
    async fn one(
        &self,
        event: &Event,
        old: Position,
        draining: &Draining,
    ) -> Result<Position, Lost> {
        let alone: Arc<[Event]> = Arc::from([event.clone()]);
        let mut tries = 0_u32;
        let mut park = None;
        loop {
            let undone = match self.commit(Arc::clone(&alone), old, park.clone()).await {
                Ok(()) => return Ok(event.position),
                Err(Undone::Moved) => return Err(Lost),
                Err(undone) => undone,
            };
            tries = tries.saturating_add(1);
            let fault = undone.fault();
            self.count("failed", 1);
            let pause = match fault.next(tries) {
                Next::Again(pause) => pause.mul_f64(self.0.settings.pace),
                Next::Park => {
                    park = Some((fault.cause(), fault.why().to_owned(), tries));
                    Duration::ZERO
                }
            };
            if park.is_none() && tries >= 3 {
                tracing::warn!(
                    error = fault.why(),
                    event.id,
                    event.aggregate,
                    tries,
                    "{} waits at an event of {}",
                    self.name(),
                    self.source()
                );
            }
            tokio::select! {
                () = draining.begun() => return Err(Lost),
                () = tokio::time::sleep(pause) => {}
            }
        }
    }

    /// One transaction: the cursor to behind the last of `events`, and their effects. With
    /// `park`, the first is not handed over but parked for that reason.
    async fn commit(
        &self,
        events: Arc<[Event]>,
        old: Position,
        park: Option<(Cause, String, u32)>,
    ) -> Result<(), Undone> {
        let (consumer, within) = (self.clone(), Arc::clone(&events));
        let parks = park.is_some();
        if let (Some((_, why, _)), Some(event)) = (&park, events.first()) {
            tracing::error!(
                error = why,
                event.id,
                event.kind,
                event.aggregate,
                "{} cannot take in {} of {}: parked",
                self.name(),
                event.kind,
                event.aggregate
            );
        }
        if let (true, Some(last)) = (Bug::AckBeforeEffect.is_seeded(), events.last()) {
            self.pass(old, last.position).await.map_err(|Lost| Undone::Moved)?;
            failpoint::hit("after_effect_before_ack");
        }
        let done = self.store().transaction(move |txn| {
            let (consumer, events, park) = (consumer.clone(), Arc::clone(&within), park.clone());
            Box::pin(async move { consumer.within(txn, &events, old, park).await })
        });
        let parked = match ctx::background("take events in", LONGEST, None, done).await {
            Ok(done) => done?,
            // It may have been committed: the cursor says so.
            Err(_late) => return Err(Undone::Moved),
        };
        failpoint::hit("after_effect_before_ack");
        for event in events.iter().filter(|event| !parked.contains(&event.position)) {
            self.tell(event);
        }
        self.count("done", events.len() - parked.len());
        self.count("parked", parked.len());
        if parks || !parked.is_empty() {
            self.measure().await;
        }
        Ok(())
    }

    /// The work of one transaction. Answers the positions that were parked.
    pub(super) async fn within(
        &self,
        txn: &Txn,
        events: &[Event],
        old: Position,
        park: Option<(Cause, String, u32)>,
    ) -> Result<HashSet<Position>, Undone> {
        let last = events.last().map_or(old, |event| event.position);
        if !Bug::AckBeforeEffect.is_seeded() && !store::advance(txn, self, old, last).await? {
            return Err(Undone::Moved);
        }
        let aggregates: HashSet<_> = events.iter().map(|event| event.aggregate.as_str()).collect();
        let aggregates: Vec<_> = aggregates.into_iter().collect();
        let behind = store::parked(txn, self, &aggregates).await?;
        let mut parked = HashSet::new();
        for event in events {
            if let Some((cause, why, tries)) = &park {
                store::park(txn, self, event, *cause, why, *tries).await?;
            } else if behind.contains(&event.aggregate) {
                store::park(txn, self, event, Cause::Behind, "", 0).await?;
            } else {
                self.hand_over(txn, event).await?;
                continue;
            }
            parked.insert(event.position);
        }
        Ok(parked)
    }

    /// Has the effect of one event, in its trace.
    pub(super) async fn hand_over(&self, txn: &Txn, event: &Event) -> Result<(), Undone> {
        let unknown = Bug::SkipInbox
            .is_seeded()
            .then(|| Event { id: clock::id().to_string(), ..event.clone() });
        let event = unknown.as_ref().unwrap_or(event);
        let created = Trace::parse(&event.traceparent);
        let spans = Spans::here();
        let span = created.map(|created| spans.processed(created, event)).unwrap_or_default();
        let trace = created.map_or_else(Trace::new, Trace::child);
        let ctx = Ctx::root(LONGEST, trace).recorded(&spans, span.clone());
        // The handler may panic before it makes its future.
        let handled = AssertUnwindSafe(async { self.0.handler.handle(txn, event).await });
        match ctx.scope(handled.catch_unwind()).await {
            Ok(handled) => handled.map_err(|trouble| {
                span.failed(trouble.word());
                Undone::Refused(trouble)
            }),
            Err(panic) => {
                span.failed("panic");
                Err(Undone::Panicked(words(panic.as_ref())))
            }
        }
    }

    /// Says that an effect is committed.
    pub(super) fn tell(&self, event: &Event) {
        let told = std::panic::catch_unwind(AssertUnwindSafe(|| self.0.handler.committed(event)));
        if told.is_err() {
            tracing::error!(event.id, "what is told of a committed event panicked");
        }
    }

    /// Moves the cursor over events of other types.
    pub(super) async fn pass(&self, old: Position, new: Position) -> Result<(), Lost> {
        let consumer = self.clone();
        let moved = self.store().transaction(move |txn| {
            let consumer = consumer.clone();
            Box::pin(async move { store::advance(txn, &consumer, old, new).await })
        });
        match moved.await {
            Ok(true) => Ok(()),
            Ok(false) => Err(Lost),
            Err(failure) => {
                let failure: Failure = failure;
                tracing::debug!(%failure, "a cursor stays where it is");
                Err(Lost)
            }
        }
    }

    /// Shows how much is parked.
    pub(crate) async fn measure(&self) {
        match store::depth(self).await {
            Ok(depth) => {
                let labels = telemetry::Consumer { consumer: self.name().to_owned() };
                telemetry::metrics().dead_letters.get_or_create(&labels).set(depth);
            }
            Err(failure) => tracing::debug!(%failure, "what is parked was not counted"),
        }
    }

    fn count(&self, outcome: &'static str, count: usize) {
        if count > 0 {
            let labels = Taken { source: self.source().to_owned(), outcome };
            let count = u64::try_from(count).unwrap_or(u64::MAX);
            telemetry::metrics().consumer_events.get_or_create(&labels).inc_by(count);
        }
    }
}

// === impl Undone ===

impl Undone {
    pub(super) fn fault(self) -> Fault {
        match self {
            Self::Refused(trouble) => Fault::of(trouble),
            Self::Panicked(words) => Fault::Bug(format!("the handler panicked: {words}")),
            Self::Failed(failure) => Fault::of(Trouble::Failed(failure)),
            Self::Moved => Fault::Away("the cursor was moved by another".to_owned()),
        }
    }
}

impl TxnError for Undone {
    fn failure(&self) -> Option<&Failure> {
        match self {
            Self::Failed(failure) | Self::Refused(Trouble::Failed(failure)) => Some(failure),
            Self::Moved
            | Self::Panicked(_)
            | Self::Refused(Trouble::Transient(_) | Trouble::Permanent(_)) => None,
        }
    }
}

/// What a panic said.
fn words(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<&str>().copied();
    let text = text.or_else(|| panic.downcast_ref::<String>().map(String::as_str));
    text.unwrap_or("no words").to_owned()
}
