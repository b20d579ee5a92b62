//! What is kept of sagas: which step is intended, what came of those before, who works on it.

use std::collections::HashMap;

use sea_orm::{ConnectionTrait, FromQueryResult, Value};
use time::OffsetDateTime;
use uuid::Uuid;

use super::{
    New, Why,
    decide::{State, Way},
};
use crate::{
    clock::{self, from_micros, micros},
    ctx::Ctx,
    store::{Failure, Store, Txn, execute, row, rows},
};

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

/// How a step is recorded, and what comes after it.
#[derive(Clone, Debug)]
pub(super) struct Entry {
    /// The step that ended: its key, what came of it, what it answered.
    pub(super) ended: Option<(&'static str, Way, StepState, Vec<u8>)>,
    /// The step that is intended.
    pub(super) intent: Option<(&'static str, Way, Uuid)>,
    pub(super) state: State,
    pub(super) step: usize,
    pub(super) attempts: u32,
    pub(super) why: Option<Why>,
    pub(super) last_error: Option<String>,
    pub(super) next_run_at: i64,
    /// Kept until then, or given back.
    pub(super) lease: Option<i64>,
}

#[derive(FromQueryResult)]
struct SagaRow {
    id: String,
    key: String,
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

const DOING: &str = "keep a saga";

/// Writes a new saga with its first intent, leased to `owner`.
pub(super) async fn create(
    txn: &Txn,
    kind: &str,
    first: &str,
    new: &New,
    owner: &str,
    lease_until: i64,
) -> Result<Held, Failure> {
    let now = micros(clock::now());
    let traceparent = Ctx::current().map(|ctx| ctx.traceparent());
    let held = Held {
        id: clock::id().to_string(),
        key: new.key.clone(),
        state: State::Running,
        step: 0,
        revision: 1,
        data: new.data.clone(),
        deadline: new.deadline,
        attempts: 0,
        fence: 1,
        why: None,
        traceparent,
        command_id: Uuid::new_v4(),
        replies: HashMap::new(),
    };
    let sql = "INSERT INTO saga (id, kind, key, state, step, revision, data, definition, \
         next_run_at, deadline_at, attempts, lease_owner, lease_until, fence, traceparent, \
         created_at) VALUES ($1, $2, $3, 'RUNNING', 0, 1, $4, $2, $5, $6, 0, $7, $8, 1, $9, $5)";
    let values = vec![
        held.id.as_str().into(),
        kind.into(),
        held.key.as_str().into(),
        held.data.clone().into(),
        now.into(),
        micros(held.deadline).into(),
        owner.into(),
        lease_until.into(),
        held.traceparent.clone().into(),
    ];
    execute(txn, DOING, sql, values).await?;
    intend(txn, &held.id, first, Way::Forward, held.command_id, now).await?;
    Ok(held)
}

/// Leases up to `limit` sagas that are due and nobody's.
pub(super) async fn claim(
    store: &Store,
    txn: &Txn,
    kind: &str,
    owner: &str,
    lease: i64,
    limit: i64,
) -> Result<Vec<Held>, Failure> {
    let now = store.now_micros(txn).await?;
    let lock = if store.is_postgres() { " FOR UPDATE SKIP LOCKED" } else { "" };
    let sql = [
        "UPDATE saga SET lease_owner = $1, lease_until = $2, fence = fence + 1 \
         WHERE id IN (SELECT id FROM saga WHERE kind = $3 \
         AND state IN ('RUNNING', 'COMPENSATING', 'STUCK') AND next_run_at <= $4 \
         AND (lease_until IS NULL OR lease_until < $4) ORDER BY next_run_at LIMIT $5",
        lock,
        ") RETURNING id, key, state, step, revision, data, next_run_at, deadline_at, attempts, \
         fence, reason, message, last_error, traceparent",
    ]
    .concat();
    let values: Vec<Value> =
        vec![owner.into(), (now + lease).into(), kind.into(), now.into(), limit.into()];
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
    kind: &str,
    key: &str,
) -> Result<Option<Held>, Failure> {
    let lock = if store.is_postgres() { " FOR UPDATE" } else { "" };
    let sql = ["SELECT * FROM saga WHERE kind = $1 AND key = $2", lock].concat();
    let found: Option<SagaRow> =
        row(txn, "read a saga", &sql, vec![kind.into(), key.into()]).await?;
    match found {
        Some(saga) => read(txn, saga).await.map(Some),
        None => Ok(None),
    }
}

/// Renews the lease. Says whether it was still ours.
pub(super) async fn renew(txn: &Txn, id: &str, fence: i64, until: i64) -> Result<bool, Failure> {
    let sql = "UPDATE saga SET lease_until = $3 WHERE id = $1 AND fence = $2";
    let values = vec![id.into(), fence.into(), until.into()];
    Ok(execute(txn, "renew a lease", sql, values).await? == 1)
}

/// Gives the lease back; the saga is due at once.
pub(super) async fn give_back(txn: &Txn, id: &str, fence: i64) -> Result<(), Failure> {
    let sql = "UPDATE saga SET lease_owner = NULL, lease_until = NULL WHERE id = $1 AND fence = $2";
    execute(txn, "give a lease back", sql, vec![id.into(), fence.into()]).await.map(|_given| ())
}

/// Makes a saga due that waits, and tells whoever is about to let it wait that it must not.
pub(super) async fn wake(txn: &Txn, kind: &str, key: &str, now: i64) -> Result<(), Failure> {
    let sql = "UPDATE saga SET next_run_at = $3, revision = revision + 1 \
         WHERE kind = $1 AND key = $2 AND state IN ('RUNNING', 'COMPENSATING', 'STUCK')";
    execute(txn, "wake a saga", sql, vec![kind.into(), key.into(), now.into()]).await.map(|_| ())
}

/// Records what came of a step and intends the next. Says whether the saga was still ours and
/// as we knew it: without that, nothing may be recorded.
pub(super) async fn record(txn: &Txn, held: &Held, entry: &Entry) -> Result<bool, Failure> {
    let step = i64::try_from(entry.step).unwrap_or(i64::MAX);
    let sql = "UPDATE saga SET state = $4, step = $5, attempts = $6, reason = $7, message = $8, \
         last_error = $9, next_run_at = $10, lease_until = $11, \
         lease_owner = CASE WHEN $12 THEN lease_owner ELSE NULL END, revision = revision + 1 \
         WHERE id = $1 AND fence = $2 AND revision = $3";
    let why = entry.why.as_ref();
    let values = vec![
        held.id.as_str().into(),
        held.fence.into(),
        held.revision.into(),
        entry.state.as_str().into(),
        step.into(),
        i64::from(entry.attempts).into(),
        why.map(|why| why.reason.clone()).into(),
        why.map(|why| why.message.clone()).into(),
        entry.last_error.clone().into(),
        entry.next_run_at.into(),
        entry.lease.into(),
        entry.lease.is_some().into(),
    ];
    if execute(txn, DOING, sql, values).await? == 0 {
        return Ok(false);
    }
    let now = micros(clock::now());
    if let Some((key, way, state, reply)) = &entry.ended {
        let sql = "UPDATE saga_step SET state = $4, reply = $5, ended_at = $6 \
             WHERE saga = $1 AND step_key = $2 AND direction = $3";
        let values = vec![
            held.id.as_str().into(),
            (*key).into(),
            way.as_str().into(),
            state.as_str().into(),
            reply.clone().into(),
            now.into(),
        ];
        execute(txn, DOING, sql, values).await?;
    }
    if let Some((key, way, command_id)) = &entry.intent {
        intend(txn, &held.id, key, *way, *command_id, now).await?;
    }
    Ok(true)
}

/// Turns a saga round in the transaction of whoever asks: the fence rises, so that whoever works
/// on it can record nothing any more.
pub(super) async fn turn(
    txn: &Txn,
    held: &Held,
    first: Option<(&'static str, usize)>,
    why: &Why,
    owner: &str,
    lease_until: i64,
) -> Result<Held, Failure> {
    let now = micros(clock::now());
    let step = first.map_or(0, |(_, step)| step);
    let turned = Held {
        state: State::Compensating,
        step,
        revision: held.revision + 1,
        attempts: 0,
        fence: held.fence + 1,
        why: Some(why.clone()),
        command_id: Uuid::new_v4(),
        ..held.clone()
    };
    let sql = "UPDATE saga SET state = 'COMPENSATING', step = $4, attempts = 0, reason = $5, \
         message = $6, last_error = NULL, next_run_at = $7, lease_owner = $8, lease_until = $9, \
         fence = fence + 1, revision = revision + 1 WHERE id = $1 AND fence = $2 AND revision = $3";
    let values = vec![
        held.id.as_str().into(),
        held.fence.into(),
        held.revision.into(),
        i64::try_from(step).unwrap_or(i64::MAX).into(),
        why.reason.as_str().into(),
        why.message.as_str().into(),
        now.into(),
        owner.into(),
        lease_until.into(),
    ];
    if execute(txn, "turn a saga round", sql, values).await? == 0 {
        return Err(Failure::new("turn a saga round", "it changed while it was locked"));
    }
    // What was under way is not waited for: its own undoing meets it at the participant.
    let sql = "UPDATE saga_step SET state = 'UNKNOWN', ended_at = $2 \
         WHERE saga = $1 AND state = 'INTENT'";
    execute(txn, "turn a saga round", sql, vec![held.id.as_str().into(), now.into()]).await?;
    if let Some((key, _)) = first {
        intend(txn, &held.id, key, Way::Back, turned.command_id, now).await?;
    }
    Ok(turned)
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
    let steps =
        steps(conn, &saga.id).await?.into_iter().map(record_of).collect::<Result<_, _>>()?;
    Ok(Some(History {
        state: State::parse(&saga.state).ok_or_else(|| broken("state"))?,
        why: why(saga.reason, saga.message),
        last_error: saga.last_error,
        next_run_at: from_micros(saga.next_run_at),
        id: saga.id,
        steps,
    }))
}

async fn intend(
    txn: &Txn,
    saga: &str,
    key: &str,
    way: Way,
    command_id: Uuid,
    now: i64,
) -> Result<(), Failure> {
    let sql = "INSERT INTO saga_step (saga, step_key, direction, state, command_id, started_at) \
         VALUES ($1, $2, $3, 'INTENT', $4, $5)";
    let values = vec![
        saga.into(),
        key.into(),
        way.as_str().into(),
        command_id.to_string().into(),
        now.into(),
    ];
    execute(txn, "intend a step", sql, values).await.map(|_one| ())
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
