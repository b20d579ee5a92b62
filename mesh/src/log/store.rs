//! The statements of the log: what is read of it, and how positions are given.

use prost::Message as _;
use sea_orm::{ConnectionTrait, FromQueryResult};

use super::{Event, Headers, Position};
use crate::{
    clock,
    store::{Failure, Store, Txn, execute, row, rows},
};

/// What waits in an outbox.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Backlog {
    /// Events without a position.
    pub(crate) unsequenced: i64,
    /// When the oldest of them was written, in microseconds.
    pub(crate) since: Option<i64>,
}

#[derive(FromQueryResult)]
struct Number {
    number: i64,
}

#[derive(FromQueryResult)]
struct EventRow {
    event_id: String,
    aggregate: String,
    seq: i64,
    kind: String,
    headers: Vec<u8>,
    payload: Vec<u8>,
    created_at: i64,
    position: i64,
}

/// The lease of whoever gives positions.
pub(super) const SEQUENCER: &str = "sequencer";

const GIVE: &str = "give events their positions";
const READ: &str = "read the log";

pub(super) async fn head<C: ConnectionTrait>(conn: &C) -> Result<Position, Failure> {
    let sql = "SELECT next - 1 AS number FROM log WHERE id = 1";
    let head: Option<Number> = row(conn, "read the head of the log", sql, vec![]).await?;
    Ok(head.map_or(0, |head| head.number))
}

pub(super) async fn oldest<C: ConnectionTrait>(conn: &C) -> Result<Position, Failure> {
    // One statement, so that the head is not older than the rows.
    let sql = "SELECT COALESCE((SELECT MIN(position) FROM outbox WHERE position IS NOT NULL), \
               (SELECT next FROM log WHERE id = 1)) AS number";
    let oldest: Option<Number> = row(conn, "read the beginning of the log", sql, vec![]).await?;
    Ok(oldest.map_or(1, |oldest| oldest.number))
}

/// At most `limit` events behind `after`, in order.
pub(super) async fn read<C: ConnectionTrait>(
    conn: &C,
    source: &str,
    after: Position,
    limit: usize,
) -> Result<Vec<Event>, Failure> {
    let sql = "SELECT event_id, aggregate, seq, type AS kind, headers, payload, created_at, \
               position FROM outbox WHERE position > $1 AND position <= $2 ORDER BY position";
    // Dense: as many as that stand in the range.
    let last = after.saturating_add(i64::try_from(limit).unwrap_or(i64::MAX));
    let found: Vec<EventRow> = rows(conn, READ, sql, vec![after.into(), last.into()]).await?;
    found.into_iter().map(|row| row.event(source)).collect()
}

/// Whether events wait for a position.
pub(super) async fn is_waiting(store: &Store) -> Result<bool, Failure> {
    let sql = "SELECT id AS number FROM outbox WHERE position IS NULL LIMIT 1";
    let found: Option<Number> = row(store.reader(), GIVE, sql, vec![]).await?;
    Ok(found.is_some_and(|found| found.number > 0))
}

/// Counts what waits for a position.
pub(crate) async fn backlog(store: &Store) -> Result<Backlog, Failure> {
    #[derive(FromQueryResult)]
    struct Waiting {
        number: i64,
        since: Option<i64>,
    }
    let sql = "SELECT COUNT(*) AS number, MIN(created_at) AS since FROM outbox \
               WHERE position IS NULL";
    let found: Option<Waiting> = row(store.reader(), "count what waits", sql, vec![]).await?;
    Ok(found.map_or(Backlog { unsequenced: 0, since: None }, |found| Backlog {
        unsequenced: found.number,
        since: found.since,
    }))
}

/// Makes `owner` the one who gives positions, until `until`, and answers its fence; `None` while
/// another one is. What the one before is still writing ends before this, or is refused.
pub(super) async fn take(
    store: &Store,
    txn: &Txn,
    owner: &str,
    lease: i64,
) -> Result<Option<i64>, Failure> {
    let Some(fence) = crate::lease::take(store, txn, SEQUENCER, owner, lease).await? else {
        return Ok(None);
    };
    let sql = "UPDATE log SET fence = $1 WHERE id = 1 AND fence < $1";
    execute(txn, "take the log over", sql, vec![fence.into()]).await?;
    Ok(Some(fence))
}

/// Gives positions to at most `limit` events, in the order of their ids. `None` if another one
/// has taken over since.
pub(super) async fn give(
    store: &Store,
    txn: &Txn,
    fence: i64,
    limit: i64,
) -> Result<Option<u64>, Failure> {
    let lock = if store.is_postgres() { " FOR UPDATE" } else { "" };
    // The row is held from here to the commit: one after the other, and in order to be seen.
    let sql = ["SELECT next AS number FROM log WHERE id = 1 AND fence = $1", lock].concat();
    let next: Option<Number> = row(txn, GIVE, &sql, vec![fence.into()]).await?;
    let Some(Number { number: next }) = next else { return Ok(None) };
    let sql = "UPDATE outbox SET position = $1 + waiting.place - 1 \
               FROM (SELECT id, row_number() OVER (ORDER BY id) AS place FROM outbox \
                     WHERE position IS NULL ORDER BY id LIMIT $2) AS waiting \
               WHERE outbox.id = waiting.id";
    let given = execute(txn, GIVE, sql, vec![next.into(), limit.into()]).await?;
    if given == 0 {
        return Ok(Some(0));
    }
    let count = i64::try_from(given).unwrap_or(i64::MAX);
    let sql = "UPDATE log SET next = next + $1 WHERE id = 1 AND fence = $2";
    let counted = execute(txn, GIVE, sql, vec![count.into(), fence.into()]).await?;
    Ok((counted == 1).then_some(given))
}

/// Deletes the events of at most `count` positions from the oldest on that were written before
/// `before`. Says how many.
pub(super) async fn delete(txn: &Txn, before: i64, count: i64) -> Result<u64, Failure> {
    const DOING: &str = "delete old events";
    let sql = "SELECT position AS number FROM outbox WHERE position IS NOT NULL \
               ORDER BY position LIMIT 1";
    let oldest: Option<Number> = row(txn, DOING, sql, vec![]).await?;
    let Some(Number { number: oldest }) = oldest else { return Ok(0) };
    let end = oldest.saturating_add(count);
    let sql = "SELECT position AS number FROM outbox \
               WHERE position >= $1 AND position < $2 AND created_at >= $3 \
               ORDER BY position LIMIT 1";
    let young: Option<Number> =
        row(txn, DOING, sql, vec![oldest.into(), end.into(), before.into()]).await?;
    let end = young.map_or(end, |young| young.number);
    let sql = "DELETE FROM outbox WHERE position >= $1 AND position < $2";
    execute(txn, DOING, sql, vec![oldest.into(), end.into()]).await
}

// === impl EventRow ===

impl EventRow {
    fn event(self, source: &str) -> Result<Event, Failure> {
        let broken = |error: prost::DecodeError| Failure::new(READ, error.to_string());
        let Headers { traceparent, causation_id, correlation_id } =
            Headers::decode(self.headers.as_slice()).map_err(broken)?;
        Ok(Event {
            data: prost_types::Any::decode(self.payload.as_slice()).map_err(broken)?,
            id: self.event_id,
            source: source.to_owned(),
            kind: self.kind,
            at: clock::from_micros(self.created_at),
            aggregate: self.aggregate,
            seq: self.seq,
            position: self.position,
            traceparent,
            causation_id,
            correlation_id,
        })
    }
}
