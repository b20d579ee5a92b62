//! The statements of consumers: how far they came, and what they parked.

use prost::Message as _;
use sea_orm::{ConnectionTrait, FromQueryResult, RuntimeErr, Value};

use super::{Consumer, judge::Cause};
use crate::{
    bug::Bug,
    clock::{self, micros},
    log::{Event, Position},
    store::{Failure, Store, Txn, execute, row, rows},
    wire::ordermesh::events::v1 as wire,
};

/// An event that is, or was, parked.
#[derive(Clone, Debug, FromQueryResult)]
pub(super) struct Letter {
    pub(super) id: String,
    pub(super) consumer: String,
    pub(super) source: String,
    pub(super) aggregate: String,
    pub(super) kind: String,
    event: Vec<u8>,
    pub(super) state: String,
    pub(super) cause: String,
    pub(super) error: String,
    pub(super) attempts: i64,
    pub(super) created_at: i64,
    pub(super) updated_at: i64,
    pub(super) actor: Option<String>,
    pub(super) reason: Option<String>,
}

/// The parked events of one aggregate.
#[derive(Clone, Debug, PartialEq, Eq, FromQueryResult)]
pub(super) struct Parked {
    pub(super) consumer: String,
    pub(super) source: String,
    pub(super) aggregate: String,
}

/// Which dead letters are meant; what is empty means all.
#[derive(Clone, Debug, Default)]
pub(super) struct Filter {
    pub(super) state: String,
    pub(super) consumer: String,
    pub(super) source: String,
    pub(super) aggregate: String,
}

#[derive(FromQueryResult)]
struct Number {
    number: i64,
}

const LETTER: &str = "SELECT id, consumer, source, aggregate, type AS kind, event, state, cause, \
    error, attempts, created_at, updated_at, actor, reason FROM dead_letter";

const MOVE: &str = "move a cursor";
const PARK: &str = "park an event";
const LIST: &str = "read dead letters";

/// How far a consumer has come; 0 if it has read nothing yet.
pub(super) async fn position(consumer: &Consumer) -> Result<Position, Failure> {
    let sql = "SELECT position AS number FROM cursor WHERE consumer = $1 AND source = $2";
    let values = vec![consumer.name().into(), consumer.source().into()];
    let found: Option<Number> =
        row(consumer.store().reader(), "read a cursor", sql, values).await?;
    Ok(found.map_or(0, |found| found.number))
}

/// Moves the cursor from `old` to `new`. `false` if it is not at `old` any more. The first
/// statement of its transaction: who comes second waits here, before it has done anything.
pub(super) async fn advance(
    txn: &Txn,
    consumer: &Consumer,
    old: Position,
    new: Position,
) -> Result<bool, Failure> {
    if Bug::SkipCursor.is_seeded() || Bug::SkipInbox.is_seeded() {
        return Ok(true);
    }
    let (name, source) = (consumer.name(), consumer.source());
    if old == 0 {
        let sql = "INSERT INTO cursor (consumer, source, position) VALUES ($1, $2, 0) \
                   ON CONFLICT DO NOTHING";
        execute(txn, MOVE, sql, vec![name.into(), source.into()]).await?;
    }
    let sql = "UPDATE cursor SET position = $4 \
               WHERE consumer = $1 AND source = $2 AND position = $3";
    let values = vec![name.into(), source.into(), old.into(), new.into()];
    Ok(execute(txn, MOVE, sql, values).await? == 1)
}

/// Keeps the consumer from moving on until the transaction ends.
pub(super) async fn hold(txn: &Txn, consumer: &Consumer) -> Result<(), Failure> {
    let sql = "UPDATE cursor SET position = position WHERE consumer = $1 AND source = $2";
    let values = vec![consumer.name().into(), consumer.source().into()];
    execute(txn, MOVE, sql, values).await.map(|_held| ())
}

/// Which of these aggregates are parked.
pub(super) async fn parked(
    txn: &Txn,
    consumer: &Consumer,
    aggregates: &[&str],
) -> Result<Vec<String>, Failure> {
    #[derive(FromQueryResult)]
    struct Found {
        aggregate: String,
    }
    // Mostly nothing is: one look at the index.
    let sql = "SELECT aggregate FROM dead_letter WHERE consumer = $1 AND source = $2 \
               AND state = 'PARKED' LIMIT 1";
    let mut values: Vec<Value> = vec![consumer.name().into(), consumer.source().into()];
    if row::<Found, _>(txn, LIST, sql, values.clone()).await?.is_none() {
        return Ok(Vec::new());
    }
    let places: Vec<_> =
        (3..aggregates.len() + 3).map(|place| ["$", &place.to_string()].concat()).collect();
    let sql = [
        "SELECT DISTINCT aggregate FROM dead_letter WHERE consumer = $1 AND source = $2 \
         AND state = 'PARKED' AND aggregate IN (",
        &places.join(", "),
        ")",
    ]
    .concat();
    values.extend(aggregates.iter().map(|&aggregate| Value::from(aggregate)));
    let found: Vec<Found> = rows(txn, LIST, &sql, values).await?;
    Ok(found.into_iter().map(|found| found.aggregate).collect())
}

/// Parks an event.
pub(super) async fn park(
    txn: &Txn,
    consumer: &Consumer,
    event: &Event,
    cause: Cause,
    error: &str,
    attempts: u32,
) -> Result<(), Failure> {
    // Where an operator set the cursor back, what was parked before is parked anew.
    let sql = "INSERT INTO dead_letter (id, consumer, source, position, event_id, aggregate, \
               type, event, state, cause, error, attempts, created_at, updated_at) \
               VALUES ($1, $2, $3, $4, $5, $6, $7, $8, 'PARKED', $9, $10, $11, $12, $12) \
               ON CONFLICT (consumer, source, event_id) DO UPDATE SET state = 'PARKED', \
               cause = excluded.cause, error = excluded.error, attempts = excluded.attempts, \
               updated_at = excluded.updated_at, actor = NULL, reason = NULL";
    let values = vec![
        clock::id().to_string().into(),
        consumer.name().into(),
        consumer.source().into(),
        event.position.into(),
        event.id.as_str().into(),
        event.aggregate.as_str().into(),
        event.kind.as_str().into(),
        event.to_wire().encode_to_vec().into(),
        cause.as_str().into(),
        error.into(),
        i64::from(attempts).into(),
        micros(clock::now()).into(),
    ];
    execute(txn, PARK, sql, values).await.map(|_parked| ())
}

/// How many events of a consumer are parked.
pub(super) async fn depth(consumer: &Consumer) -> Result<i64, Failure> {
    let sql = "SELECT COUNT(*) AS number FROM dead_letter WHERE consumer = $1 AND state = 'PARKED'";
    let found: Option<Number> =
        row(consumer.store().reader(), LIST, sql, vec![consumer.name().into()]).await?;
    Ok(found.map_or(0, |found| found.number))
}

pub(super) async fn letter<C: ConnectionTrait>(
    conn: &C,
    id: &str,
) -> Result<Option<Letter>, Failure> {
    row(conn, LIST, &[LETTER, " WHERE id = $1"].concat(), vec![id.into()]).await
}

/// A page of dead letters behind the id `after`.
pub(super) async fn letters(
    store: &Store,
    filter: &Filter,
    after: &str,
    limit: u64,
) -> Result<Vec<Letter>, Failure> {
    let sql = [LETTER, WHERE, " AND id > $5 ORDER BY id LIMIT $6"].concat();
    let mut values = filter.values();
    values.push(after.into());
    values.push(i64::try_from(limit).unwrap_or(i64::MAX).into());
    rows(store.reader(), LIST, &sql, values).await
}

/// The aggregates that have parked events, at most `limit`.
pub(super) async fn aggregates(
    store: &Store,
    filter: &Filter,
    limit: i64,
) -> Result<Vec<Parked>, Failure> {
    let sql = [
        "SELECT consumer, source, aggregate FROM dead_letter",
        WHERE,
        " GROUP BY consumer, source, aggregate ORDER BY MIN(id) LIMIT $5",
    ]
    .concat();
    let mut values = filter.values();
    values.push(limit.into());
    rows(store.reader(), LIST, &sql, values).await
}

/// How many dead letters there are.
pub(super) async fn count(store: &Store, filter: &Filter) -> Result<i64, Failure> {
    let sql = ["SELECT COUNT(*) AS number FROM dead_letter", WHERE].concat();
    let found: Option<Number> = row(store.reader(), LIST, &sql, filter.values()).await?;
    Ok(found.map_or(0, |found| found.number))
}

/// The parked events of an aggregate in their order, at most `limit`.
pub(super) async fn queue(txn: &Txn, of: &Parked, limit: i64) -> Result<Vec<Letter>, Failure> {
    let sql = [
        LETTER,
        " WHERE consumer = $1 AND source = $2 AND aggregate = $3 AND state = 'PARKED' \
         ORDER BY position LIMIT $4",
    ]
    .concat();
    let values = vec![
        of.consumer.as_str().into(),
        of.source.as_str().into(),
        of.aggregate.as_str().into(),
        limit.into(),
    ];
    rows(txn, LIST, &sql, values).await
}

/// Says what became of a parked event.
pub(super) async fn end(
    txn: &Txn,
    id: &str,
    state: &str,
    actor: &str,
    reason: &str,
) -> Result<bool, Failure> {
    let sql = "UPDATE dead_letter SET state = $2, actor = $3, reason = $4, updated_at = $5 \
               WHERE id = $1 AND state = 'PARKED'";
    let values =
        vec![id.into(), state.into(), actor.into(), reason.into(), micros(clock::now()).into()];
    Ok(execute(txn, "end a dead letter", sql, values).await? == 1)
}

/// Notes that a replay failed.
pub(super) async fn failed_again(
    txn: &Txn,
    id: &str,
    cause: Cause,
    error: &str,
) -> Result<(), Failure> {
    let sql = "UPDATE dead_letter SET attempts = attempts + 1, cause = $2, error = $3, \
               updated_at = $4 WHERE id = $1 AND state = 'PARKED'";
    let values = vec![id.into(), cause.as_str().into(), error.into(), micros(clock::now()).into()];
    execute(txn, "note a replay", sql, values).await.map(|_noted| ())
}

/// Whether the database understood and said no: a rule of its tables, a value out of range, a
/// statement that is wrong. To ask again does not help.
pub(super) fn is_refusal(failure: &Failure) -> bool {
    use sea_orm::DbErr;
    let (DbErr::Exec(RuntimeErr::SqlxError(error)) | DbErr::Query(RuntimeErr::SqlxError(error))) =
        &failure.source
    else {
        // A column that is missing, or of another type.
        return matches!(failure.source, DbErr::Type(_) | DbErr::ConvertFromU64(_));
    };
    let Some(code) = error.as_database_error().and_then(|error| error.code()) else { return false };
    if code.len() == 5 {
        // PostgreSQL: data exception, integrity constraint violation, a statement after one that
        // failed, syntax or access rule.
        return ["22", "23", "25", "42"].iter().any(|class| code.starts_with(class));
    }
    // SQLite's SQLITE_ERROR, SQLITE_CONSTRAINT, SQLITE_MISMATCH; the extended codes above them.
    code.parse::<u32>().is_ok_and(|code| matches!(code & 0xff, 1 | 19 | 20))
}

const WHERE: &str = " WHERE ($1 = '' OR state = $1) AND ($2 = '' OR consumer = $2) \
    AND ($3 = '' OR source = $3) AND ($4 = '' OR aggregate = $4)";

// === impl Filter ===

impl Filter {
    fn values(&self) -> Vec<Value> {
        [&self.state, &self.consumer, &self.source, &self.aggregate]
            .map(|text| Value::from(text.as_str()))
            .to_vec()
    }
}

// === impl Letter ===

impl Letter {
    /// The event as it came.
    pub(super) fn event(&self) -> Result<wire::Event, Failure> {
        wire::Event::decode(self.event.as_slice())
            .map_err(|error| Failure::new(LIST, format!("an event does not decode: {error}")))
    }
}
