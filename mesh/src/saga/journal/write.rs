//! What is written about sagas: each in one transaction, under the fence of its lease.

use std::collections::HashMap;

use uuid::Uuid;

use super::{
    super::{
        New, Why,
        decide::{State, Way},
    },
    Definition, Held, StepState,
};
use crate::{
    bug::Bug,
    clock::{self, micros},
    ctx::Ctx,
    store::{Failure, Txn, execute},
    telemetry::Spans,
};

/// How a step is recorded, and what comes after it.
#[derive(Clone, Debug)]
pub(in crate::saga) struct Entry {
    /// The step that ended: its key, what came of it, what it answered.
    pub(in crate::saga) ended: Option<(&'static str, Way, StepState, Vec<u8>)>,
    /// The step that is intended.
    pub(in crate::saga) intent: Option<(&'static str, Way, Uuid)>,
    pub(in crate::saga) state: State,
    pub(in crate::saga) step: usize,
    pub(in crate::saga) attempts: u32,
    pub(in crate::saga) why: Option<Why>,
    pub(in crate::saga) last_error: Option<String>,
    pub(in crate::saga) next_run_at: i64,
    /// Kept until then, or given back.
    pub(in crate::saga) lease: Option<i64>,
}

const DOING: &str = "keep a saga";

/// Writes a new saga with its first intent, leased to `owner`.
pub(in crate::saga) async fn create(
    txn: &Txn,
    definition: &Definition,
    first: &str,
    new: &New,
    owner: &str,
    lease_until: i64,
) -> Result<Held, Failure> {
    let now = micros(clock::now());
    let traceparent = Ctx::current().map(|ctx| {
        // Its steps are below a span that is over at once: they may be done after a restart.
        let span = Spans::saga(&ctx, definition.kind, &new.key);
        span.trace().unwrap_or(ctx.trace()).to_string()
    });
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
        misses: 0,
        leased: clock::instant(),
    };
    let sql = "INSERT INTO saga (id, kind, key, state, step, revision, data, definition, \
         next_run_at, deadline_at, attempts, lease_owner, lease_until, fence, traceparent, \
         created_at) VALUES ($1, $2, $3, 'RUNNING', 0, 1, $4, $10, $5, $6, 0, $7, $8, 1, $9, $5)";
    let values = vec![
        held.id.as_str().into(),
        definition.kind.into(),
        held.key.as_str().into(),
        held.data.clone().into(),
        now.into(),
        micros(held.deadline).into(),
        owner.into(),
        lease_until.into(),
        held.traceparent.clone().into(),
        definition.steps.as_str().into(),
    ];
    execute(txn, DOING, sql, values).await?;
    intend(txn, &held.id, first, Way::Forward, held.command_id, now).await?;
    Ok(held)
}

/// Renews the lease, unless it was given back or taken. Says whether it was still `owner`'s.
pub(in crate::saga) async fn renew(
    txn: &Txn,
    id: &str,
    owner: &str,
    fence: i64,
    until: i64,
) -> Result<bool, Failure> {
    let sql = "UPDATE saga SET lease_until = $4 WHERE id = $1 AND lease_owner = $2 AND fence = $3";
    let values = vec![id.into(), owner.into(), fence.into(), until.into()];
    Ok(execute(txn, "renew a lease", sql, values).await? == 1)
}

/// Gives the lease back; the saga is due at once.
pub(in crate::saga) async fn give_back(txn: &Txn, id: &str, fence: i64) -> Result<(), Failure> {
    let sql = "UPDATE saga SET lease_owner = NULL, lease_until = NULL WHERE id = $1 AND fence = $2";
    execute(txn, "give a lease back", sql, vec![id.into(), fence.into()]).await.map(|_given| ())
}

/// Makes the saga of this kind about `key` due at `now` (the store's `now_micros`), in the caller's
/// transaction, and tells whoever is about to let it wait that it must not: what an event does
/// that a saga waits for. `false` if there is none that lives. Nudge the runner after the commit.
///
/// # Errors
/// [`Failure`] of the database.
pub async fn due_now(txn: &Txn, kind: &str, key: &str, now: i64) -> Result<bool, Failure> {
    let sql = "UPDATE saga SET next_run_at = $3, revision = revision + 1 \
         WHERE kind = $1 AND key = $2 AND state IN ('RUNNING', 'COMPENSATING', 'STUCK')";
    let woken = execute(txn, "wake a saga", sql, vec![kind.into(), key.into(), now.into()]).await?;
    Ok(woken == 1)
}

/// The same where nobody works on the saga just now.
pub(in crate::saga) async fn due_if_waiting(
    txn: &Txn,
    kind: &str,
    key: &str,
    now: i64,
) -> Result<(), Failure> {
    let sql = "UPDATE saga SET next_run_at = $3 WHERE kind = $1 AND key = $2 \
         AND state IN ('RUNNING', 'COMPENSATING', 'STUCK') AND lease_owner IS NULL";
    let values = vec![kind.into(), key.into(), now.into()];
    execute(txn, "wake a saga", sql, values).await.map(|_woken| ())
}

/// The same where the saga goes forward; says whether it does.
pub(in crate::saga) async fn due_forward(
    txn: &Txn,
    kind: &str,
    key: &str,
    now: i64,
) -> Result<bool, Failure> {
    let sql = "UPDATE saga SET next_run_at = $3, revision = revision + 1 WHERE kind = $1 \
         AND key = $2 AND state IN ('RUNNING', 'STUCK', 'PAUSED') AND reason IS NULL";
    let values = vec![kind.into(), key.into(), now.into()];
    Ok(execute(txn, "wake a saga", sql, values).await? == 1)
}

/// Records what came of a step and intends the next. Says whether the saga was still ours and
/// as we knew it: without that, nothing may be recorded.
pub(in crate::saga) async fn record(
    txn: &Txn,
    held: &Held,
    entry: &Entry,
) -> Result<bool, Failure> {
    let step = i64::try_from(entry.step).unwrap_or(i64::MAX);
    let sql = [
        "UPDATE saga SET state = $4, step = $5, attempts = $6, reason = $7, message = $8, \
         last_error = $9, next_run_at = $10, lease_until = $11, \
         lease_owner = CASE WHEN $12 THEN lease_owner ELSE NULL END, revision = revision + 1 ",
        if Bug::ForgetFence.is_seeded() {
            "WHERE id = $1 AND fence <> -$2 AND revision <> -$3"
        } else {
            "WHERE id = $1 AND fence = $2 AND revision = $3"
        },
    ]
    .concat();
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
    if execute(txn, DOING, &sql, values).await? == 0 {
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
pub(in crate::saga) async fn turn(
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
        leased: clock::instant(),
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

/// A step is intended again where a saga went back and forth: the last time counts.
async fn intend(
    txn: &Txn,
    saga: &str,
    key: &str,
    way: Way,
    command_id: Uuid,
    now: i64,
) -> Result<(), Failure> {
    let sql = "INSERT INTO saga_step (saga, step_key, direction, state, command_id, started_at) \
         VALUES ($1, $2, $3, 'INTENT', $4, $5) \
         ON CONFLICT (saga, step_key, direction) DO UPDATE SET state = 'INTENT', \
         command_id = $4, reply = NULL, started_at = $5, ended_at = NULL";
    let values = vec![
        saga.into(),
        key.into(),
        way.as_str().into(),
        command_id.to_string().into(),
        now.into(),
    ];
    execute(txn, "intend a step", sql, values).await.map(|_one| ())
}
