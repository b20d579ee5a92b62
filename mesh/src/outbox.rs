//! Events leave with the transaction that they tell of: both, or neither.
//!
//! This is the writing half: the log's positions are given after the commit, by the sequencer.

use prost::Message;
use time::OffsetDateTime;

use crate::{
    clock,
    ctx::{Ctx, Trace},
    store::{Failure, Txn, execute},
    telemetry::Spans,
};

/// What happened, in the past tense.
#[derive(Clone, Debug, PartialEq)]
pub struct Fact {
    /// The type of the event, such as `order.created`.
    pub kind: &'static str,
    /// The event itself.
    pub data: prost_types::Any,
}

/// What is written beside an event: the CloudEvents extensions of ours.
#[derive(Clone, PartialEq, Message)]
pub struct Headers {
    /// The call or the saga's step that the event came from (W3C Trace Context).
    #[prost(string, tag = "1")]
    pub traceparent: String,
    /// What caused the event: the span of that call.
    #[prost(string, tag = "2")]
    pub causation_id: String,
    /// What belongs together: the trace, from the first request to the last consequence.
    #[prost(string, tag = "3")]
    pub correlation_id: String,
}

// === impl Fact ===

impl Fact {
    /// What happened, as its message of the contract says it.
    #[must_use]
    pub fn of<M: prost::Name>(kind: &'static str, message: &M) -> Self {
        let data = prost_types::Any { type_url: M::type_url(), value: message.encode_to_vec() };
        Self { kind, data }
    }
}

// === impl Headers ===

impl Headers {
    /// Those of the call that this code works for; empty where there is none.
    #[must_use]
    pub fn current() -> Self {
        Ctx::current().map_or_else(Self::default, |ctx| Self::of(&ctx, ctx.trace()))
    }

    /// Those of an event that is written now: what comes of it is below the span that says so.
    fn created(id: &str, kind: &str) -> Self {
        Ctx::current().map_or_else(Self::default, |ctx| {
            let span = Spans::created(&ctx, id, kind);
            Self::of(&ctx, span.trace().unwrap_or(ctx.trace()))
        })
    }

    fn of(ctx: &Ctx, trace: Trace) -> Self {
        Self {
            traceparent: trace.to_string(),
            causation_id: ctx.trace().span_id(),
            correlation_id: ctx.trace_id(),
        }
    }
}

/// Writes an event of `aggregate` (`orders/…`). Before it, in the same transaction, the
/// aggregate's row took one more revision for this event: that revision is `seq`, and the row's
/// lock makes the order of events the order of commits.
///
/// # Errors
/// [`Failure`] of the database; [`Failure::is_duplicate`] if the aggregate has an event of this
/// `seq`: the revision was not advanced before.
pub async fn append(
    txn: &Txn,
    aggregate: &str,
    seq: i64,
    fact: Fact,
    at: OffsetDateTime,
) -> Result<(), Failure> {
    let sql = "INSERT INTO outbox \
               (event_id, aggregate, seq, type, headers, payload, created_at, available_at) \
               VALUES ($1, $2, $3, $4, $5, $6, $7, $7)";
    let id = clock::id().to_string();
    let headers = Headers::created(&id, fact.kind);
    let values = vec![
        id.into(),
        aggregate.into(),
        seq.into(),
        fact.kind.into(),
        headers.encode_to_vec().into(),
        fact.data.encode_to_vec().into(),
        clock::micros(at).into(),
    ];
    execute(txn, "append an event", sql, values).await?;
    Ok(())
}

#[cfg(test)]
mod tests;
