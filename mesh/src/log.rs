//! The outbox as a log: events in the order of positions that are dense and given after the
//! commit, read here and by others.
//!
//! [`sequencer`] gives the positions, [`tail`] shares what is read among those who follow,
//! `service` serves it to other processes, `retention` deletes what nobody needs any more.

mod read;
pub(crate) mod retention;
pub(crate) mod sequencer;
pub(crate) mod service;
mod store;
mod tail;

use futures_util::Stream;
use time::OffsetDateTime;

use crate::{
    clock,
    consume::Trouble,
    outbox::Headers,
    store::{Failure, Store},
    wire::ordermesh::events::v1 as wire,
};

pub use read::Unread;
pub use sequencer::sequence;
pub(crate) use store::backlog;
pub(crate) use tail::Tail;

/// A place in a log: the first event has 1, and none is left out. 0 is before all of them.
pub type Position = i64;

/// The most events that are read, or sent, at once.
pub const BATCH: usize = 256;

/// A fact of a service with its envelope.
#[derive(Clone, Debug, PartialEq)]
pub struct Event {
    /// A UUID, the same at every delivery.
    pub id: String,
    /// The service that says it; empty where a log is followed in a process that publishes none.
    pub source: String,
    /// What happened, such as `sample.created`.
    pub kind: String,
    /// When it happened.
    pub at: OffsetDateTime,
    /// What it happened to: within it, events are in order.
    pub aggregate: String,
    /// The place in that order: the aggregate's revision.
    pub seq: i64,
    /// The place in the log of its source.
    pub position: Position,
    /// The fact itself.
    pub data: prost_types::Any,
    /// The trace in which it happened (W3C Trace Context); empty if there was none.
    pub traceparent: String,
    /// What caused it.
    pub causation_id: String,
    /// What it belongs to as a whole.
    pub correlation_id: String,
}

// === impl Event ===

impl Event {
    /// The fact, as its message of the contract.
    ///
    /// # Errors
    /// [`Trouble::Permanent`] if it is another message, or does not decode.
    pub fn decode<M: prost::Name + Default>(&self) -> Result<M, Trouble> {
        let name = self.data.type_url.rsplit('/').next().unwrap_or_default();
        if name != M::full_name() {
            let (kind, wanted) = (&self.kind, M::full_name());
            return Err(Trouble::Permanent(format!("{kind} holds a `{name}`, not a `{wanted}`")));
        }
        M::decode(self.data.value.as_slice())
            .map_err(|error| Trouble::Permanent(format!("{name} does not decode: {error}")))
    }

    /// As it travels.
    pub(crate) fn to_wire(&self) -> wire::Event {
        let nanos = i32::try_from(self.at.nanosecond()).unwrap_or_default();
        wire::Event {
            id: self.id.clone(),
            source: self.source.clone(),
            r#type: self.kind.clone(),
            time: Some(prost_types::Timestamp { seconds: self.at.unix_timestamp(), nanos }),
            subject: self.aggregate.clone(),
            dataschema: self.data.type_url.rsplit('/').next().unwrap_or_default().to_owned(),
            data: Some(self.data.clone()),
            aggregate: self.aggregate.clone(),
            aggregateseq: self.seq,
            traceparent: self.traceparent.clone(),
            causationid: self.causation_id.clone(),
            correlationid: self.correlation_id.clone(),
            position: self.position,
        }
    }

    /// As it came.
    pub(crate) fn from_wire(event: wire::Event) -> Self {
        let time = event.time.unwrap_or_default();
        let micros =
            time.seconds.saturating_mul(1_000_000).saturating_add(i64::from(time.nanos / 1_000));
        Self {
            id: event.id,
            source: event.source,
            kind: event.r#type,
            at: clock::from_micros(micros),
            aggregate: event.aggregate,
            seq: event.aggregateseq,
            position: event.position,
            data: event.data.unwrap_or_default(),
            traceparent: event.traceparent,
            causation_id: event.causationid,
            correlation_id: event.correlationid,
        }
    }
}

/// This database's own log from behind `after`: what is there at once, then what comes. Ends
/// with the failure that it meets; also if what was asked for is not kept any more, which
/// [`oldest`] tells beforehand.
///
/// The log grows where a process publishes: see `App::publishes`.
pub fn follow(
    store: &Store,
    after: Position,
) -> impl Stream<Item = Result<Vec<Event>, Failure>> + Send + Unpin + 'static {
    let tail = Tail::of(store);
    let read = futures_util::stream::unfold(Some((tail, after)), async |state| {
        let (tail, after) = state?;
        match tail.next(after).await {
            Ok(events) => {
                let after = events.last().map_or(after, |event| event.position);
                Some((Ok(events), Some((tail, after))))
            }
            Err(unread) => Some((Err(unread.into()), None)),
        }
    });
    Box::pin(read)
}

/// The newest position; 0 if there was none yet.
///
/// # Errors
/// [`Failure`] of the database.
pub async fn head(store: &Store) -> Result<Position, Failure> {
    store::head(store.reader()).await
}

/// The oldest position that is kept; one beyond [`head`] if none is.
///
/// # Errors
/// [`Failure`] of the database.
pub async fn oldest(store: &Store) -> Result<Position, Failure> {
    store::oldest(store.reader()).await
}

#[cfg(test)]
mod tests;
