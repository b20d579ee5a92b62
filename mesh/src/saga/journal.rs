//! What is kept of sagas: which step is intended, what came of those before, who works on it.

mod adopt;
mod write;

use std::collections::HashMap;

use sea_orm::{ConnectionTrait, FromQueryResult, Value};
use time::OffsetDateTime;
use tokio::time::Instant;
use uuid::Uuid;

use super::{
    Why,
    decide::{State, Way},
};
use crate::{
    clock::{self, from_micros},
    store::{Failure, Store, Txn, row, rows},
};

pub(super) use adopt::adopt;
pub use write::due_now;
pub(super) use write::{
    Entry, create, due_forward, due_if_waiting, give_back, record, renew, turn,
};

/// A kind of saga and its list of steps, which a saga keeps to the end.
#[derive(Clone, Debug)]
pub(super) struct Definition {
    pub(super) kind: &'static str,
    /// Their keys in order.
    pub(super) steps: String,
}

/// A saga that this process holds the lease of, as far as it knows.
#[derive(Clone, Debug)]
pub(super) struct Held {
    pub(super) id: String,
    pub(super) key: String,
    pub(super) state: State,
    pub(super) step: usize,
    pub(super) revision: i64,
    pub(super) data: Vec<u8>,
    pub(super) deadline: OffsetDateTime,
    pub(super) attempts: u32,
    pub(super) fence: i64,
    pub(super) why: Option<Why>,
    pub(super) traceparent: Option<String>,
    /// The command of the step that is intended.
    pub(super) command_id: Uuid,
    pub(super) replies: HashMap<String, Vec<u8>>,
    /// How often in a row this step was not sent, or not recorded: known to this process only.
    pub(super) misses: u32,
    /// When this process was given the lease, or renewed it with a record.
    pub(super) leased: Instant,
}

/// Whether a step was done or undone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Direction {
    /// Done.
    Do,
    /// Undone.
    Undo,
}

/// What is known of a step.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StepState {
    /// It is being done, or undone.
    Intent,
    /// It is.
    Ok,
    /// The participant said no.
    Failed,
    /// It was not waited for any longer.
    Unknown,
}

/// A saga as it is kept.
#[derive(Clone, Debug)]
pub struct History {
    /// Its id.
    pub id: String,
    /// Where it stands.
    pub state: State,
    /// Why it is undone, if it is.
    pub why: Option<Why>,
    /// What was heard last of a step that does not succeed.
    pub last_error: Option<String>,
    /// When it is looked at next, unless somebody works on it.
    pub next_run_at: OffsetDateTime,
    /// Its steps in the order in which they were intended.
    pub steps: Vec<Record>,
}

/// A step as it is kept.
#[derive(Clone, Debug)]
pub struct Record {
    /// Its key.
    pub step_key: String,
    /// Whether it was done or undone.
    pub direction: Direction,
    /// What is known of it.
    pub state: StepState,
    /// The id of its command.
    pub command_id: Uuid,
    /// When it was intended.
    pub started_at: OffsetDateTime,
    /// When its outcome was recorded.
    pub ended_at: Option<OffsetDateTime>,
}

#[derive(FromQueryResult)]
struct SagaRow {
    id: String,
    key: String,
    definition: String,
    state: String,
    step: i64,
    revision: i64,
    data: Vec<u8>,
    next_run_at: i64,
    deadline_at: i64,
    attempts: i64,
    fence: i64,
    reason: Option<String>,
    message: Option<String>,
    last_error: Option<String>,
    traceparent: Option<String>,
}

#[derive(FromQueryResult)]
struct StepRow {
    step_key: String,
    direction: String,
    state: String,
    command_id: String,
    reply: Option<Vec<u8>>,
    started_at: i64,
    ended_at: Option<i64>,
}

/// Whether [`claim`] would find anything.
pub(super) async fn is_due(store: &Store, definition: &Definition) -> Result<bool, Failure> {
    #[derive(FromQueryResult)]
    struct Due {
        id: String,
    }
    let now = store.now_micros(store.reader()).await?;
    let sql = "SELECT id FROM saga WHERE kind = $1 AND definition = $3 \
         AND state IN ('RUNNING', 'COMPENSATING', 'STUCK') AND next_run_at <= $2 \
         AND (lease_until IS NULL OR lease_until < $2) LIMIT 1";
    let values = vec![definition.kind.into(), now.into(), definition.steps.as_str().into()];
    let due: Option<Due> = row(store.reader(), "look for sagas", sql, values).await?;
    Ok(due.is_some_and(|due| !due.id.is_empty()))
}

/// The list of steps of a live saga of this kind that follows another one.
pub(super) async fn stranger<C: ConnectionTrait>(
    conn: &C,
    definition: &Definition,
) -> Result<Option<String>, Failure> {
    #[derive(FromQueryResult)]
    struct Stranger {
        definition: String,
    }
    let sql = "SELECT definition FROM saga WHERE kind = $1 AND definition <> $2 \
         AND state NOT IN ('DONE', 'COMPENSATED') LIMIT 1";
    let values = vec![definition.kind.into(), definition.steps.as_str().into()];
    let found: Option<Stranger> = row(conn, "look for sagas", sql, values).await?;
    Ok(found.map(|found| found.definition))
}

/// Leases up to `limit` sagas that are due and nobody's.
pub(super) async fn claim(
    store: &Store,
    txn: &Txn,
    definition: &Definition,
    owner: &str,
    lease: i64,
    limit: i64,
) -> Result<Vec<Held>, Failure> {
    let now = store.now_micros(txn).await?;
    let lock = if store.is_postgres() { " FOR UPDATE SKIP LOCKED" } else { "" };
    let sql = [
        "UPDATE saga SET lease_owner = $1, lease_until = $2, fence = fence + 1 \
         WHERE id IN (SELECT id FROM saga WHERE kind = $3 AND definition = $6 \
         AND state IN ('RUNNING', 'COMPENSATING', 'STUCK') AND next_run_at <= $4 \
         AND (lease_until IS NULL OR lease_until < $4) ORDER BY next_run_at LIMIT $5",
        lock,
        ") RETURNING id, key, definition, state, step, revision, data, next_run_at, deadline_at, attempts, \
         fence, reason, message, last_error, traceparent",
    ]
    .concat();
    let values: Vec<Value> = vec![
        owner.into(),
        (now + lease).into(),
        definition.kind.into(),
        now.into(),
        limit.into(),
        definition.steps.as_str().into(),
    ];
    let found: Vec<SagaRow> = rows(txn, "claim sagas", &sql, values).await?;
    let mut held = Vec::new();
    for saga in found {
        held.push(read(txn, saga).await?);
    }
    Ok(held)
}

/// The saga of this id as it is, if it is still held under `fence`.
pub(super) async fn held<C: ConnectionTrait>(
    conn: &C,
    id: &str,
    fence: i64,
) -> Result<Option<Held>, Failure> {
    let sql = "SELECT * FROM saga WHERE id = $1 AND fence = $2";
    let found: Option<SagaRow> =
        row(conn, "read a saga", sql, vec![id.into(), fence.into()]).await?;
    match found {
        Some(saga) => read(conn, saga).await.map(Some),
        None => Ok(None),
    }
}

/// The saga of this key, locked where the database can.
pub(super) async fn find(
    store: &Store,
    txn: &Txn,
    definition: &Definition,
    key: &str,
) -> Result<Option<Held>, Failure> {
    let lock = if store.is_postgres() { " FOR UPDATE" } else { "" };
    let sql = ["SELECT * FROM saga WHERE kind = $1 AND key = $2", lock].concat();
    let found: Option<SagaRow> =
        row(txn, "read a saga", &sql, vec![definition.kind.into(), key.into()]).await?;
    match found {
        Some(saga) if saga.definition != definition.steps => Err(broken("definition")),
        Some(saga) => read(txn, saga).await.map(Some),
        None => Ok(None),
    }
}

/// A saga and its steps, for people to read.
///
/// # Errors
/// The database cannot be read.
pub async fn history<C: ConnectionTrait>(
    conn: &C,
    kind: &str,
    key: &str,
) -> Result<Option<History>, Failure> {
    let sql = "SELECT * FROM saga WHERE kind = $1 AND key = $2";
    let found: Option<SagaRow> =
        row(conn, "read a saga", sql, vec![kind.into(), key.into()]).await?;
    let Some(saga) = found else { return Ok(None) };
    let steps = records(conn, &saga.id).await?;
    Ok(Some(History {
        state: State::parse(&saga.state).ok_or_else(|| broken("state"))?,
        why: why(saga.reason, saga.message),
        last_error: saga.last_error,
        next_run_at: from_micros(saga.next_run_at),
        id: saga.id,
        steps,
    }))
}

/// The steps of a saga, for people to read.
pub(super) async fn records<C: ConnectionTrait>(
    conn: &C,
    saga: &str,
) -> Result<Vec<Record>, Failure> {
    steps(conn, saga).await?.into_iter().map(record_of).collect()
}

async fn steps<C: ConnectionTrait>(conn: &C, saga: &str) -> Result<Vec<StepRow>, Failure> {
    let sql = "SELECT step_key, direction, state, command_id, reply, started_at, ended_at \
         FROM saga_step WHERE saga = $1 ORDER BY started_at, direction";
    rows(conn, "read the steps of a saga", sql, vec![saga.into()]).await
}

/// A row with its steps: the intended one gives the command, those that are done the replies.
async fn read<C: ConnectionTrait>(conn: &C, saga: SagaRow) -> Result<Held, Failure> {
    let mut command_id = None;
    let mut replies = HashMap::new();
    for step in steps(conn, &saga.id).await? {
        if step.state == StepState::Intent.as_str() {
            let id = Uuid::try_parse(&step.command_id).map_err(|_error| broken("command_id"))?;
            command_id = Some(id);
        } else if let (Some(reply), "DO") = (step.reply, step.direction.as_str()) {
            replies.insert(step.step_key, reply);
        }
    }
    Ok(Held {
        state: State::parse(&saga.state).ok_or_else(|| broken("state"))?,
        step: usize::try_from(saga.step).map_err(|_negative| broken("step"))?,
        revision: saga.revision,
        data: saga.data,
        deadline: from_micros(saga.deadline_at),
        attempts: u32::try_from(saga.attempts).unwrap_or(u32::MAX),
        fence: saga.fence,
        why: why(saga.reason, saga.message),
        traceparent: saga.traceparent,
        // A saga that has ended intends nothing; nobody asks for its command.
        command_id: command_id.unwrap_or_default(),
        replies,
        misses: 0,
        leased: clock::instant(),
        id: saga.id,
        key: saga.key,
    })
}

fn record_of(step: StepRow) -> Result<Record, Failure> {
    let direction = if step.direction == "DO" { Direction::Do } else { Direction::Undo };
    Ok(Record {
        step_key: step.step_key,
        direction,
        state: StepState::parse(&step.state).ok_or_else(|| broken("state"))?,
        command_id: Uuid::try_parse(&step.command_id).map_err(|_error| broken("command_id"))?,
        started_at: from_micros(step.started_at),
        ended_at: step.ended_at.map(from_micros),
    })
}

fn why(reason: Option<String>, message: Option<String>) -> Option<Why> {
    reason.map(|reason| Why { reason, message: message.unwrap_or_default() })
}

fn broken(what: &'static str) -> Failure {
    Failure::new("read a saga", format!("its {what} is malformed"))
}

// === impl Way ===

impl Way {
    fn as_str(self) -> &'static str {
        match self {
            Self::Forward => "DO",
            Self::Back => "UNDO",
        }
    }
}

// === impl StepState ===

impl StepState {
    fn parse(text: &str) -> Option<Self> {
        [Self::Intent, Self::Ok, Self::Failed, Self::Unknown]
            .into_iter()
            .find(|state| state.as_str() == text)
    }

    /// As it is kept.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Intent => "INTENT",
            Self::Ok => "OK",
            Self::Failed => "FAILED",
            Self::Unknown => "UNKNOWN",
        }
    }
}

// === impl Held ===

impl Held {
    /// Which way it goes: once there is a reason to undo it, back.
    pub(super) fn way(&self) -> Way {
        if self.why.is_some() { Way::Back } else { Way::Forward }
    }
}
