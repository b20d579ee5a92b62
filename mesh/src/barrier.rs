//! What a participant of sagas keeps, so that every command has its effect once: repeated,
//! overtaken by its own undoing, or undone without ever having come.
//!
//! ```text
//! DO    begin_do   · effect  · finish_do   · outbox · commit
//! UNDO  begin_undo · reverse · finish_undo · outbox · commit
//! ```

use sea_orm::FromQueryResult;
use uuid::Uuid;

use crate::{
    bug::Bug,
    clock,
    store::{Failure, Txn, execute, row},
};

/// What a saga asks of a participant. Repeated until it is answered, always with the same ids.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Command {
    /// The id of the saga.
    pub saga: String,
    /// The step's key; one that is done again under changed circumstances is `authorize#2`.
    pub step_key: String,
    /// The id of this command; also the `request_id` of the call.
    pub command_id: Uuid,
    /// The saga's lease under which it was sent.
    pub fence: i64,
}

/// What was found when a command was to be done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Begun {
    /// It is new: have the effect, then [`finish_do`].
    First,
    /// It was done: answer this again. Empty if it got half-way (an effect outside of the
    /// database, between two commits): then answer the resource as it stands.
    Repeated(Vec<u8>),
    /// It was undone before it came: FAILED_PRECONDITION `UNDONE`, and no effect ever.
    Undone,
}

/// What was found when a command was to be undone.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Undo {
    /// It never came, and from now on may not: answer OK.
    NothingDone,
    /// Reverse what was done, by the result that [`finish_do`] kept; then [`finish_undo`].
    First(Vec<u8>),
    /// It was undone before: answer this again. Empty if that got half-way.
    Repeated(Vec<u8>),
}

#[derive(FromQueryResult)]
struct Row {
    reason: String,
    result: Option<Vec<u8>>,
}

const DO: &str = "DO";
const UNDO: &str = "UNDO";

/// The first statement of the transaction that does a command.
///
/// # Errors
/// [`Failure`] of the database.
pub async fn begin_do(txn: &Txn, command: &Command) -> Result<Begun, Failure> {
    if insert(txn, command, DO, DO).await? || Bug::SkipBarrier.is_seeded() {
        return Ok(Begun::First);
    }
    let found = read(txn, command, DO).await?;
    Ok(if found.reason == UNDO {
        Begun::Undone
    } else {
        Begun::Repeated(found.result.unwrap_or_default())
    })
}

/// Keeps what the command's answer was, and what undoing it must know.
///
/// # Errors
/// [`Failure`] of the database.
pub async fn finish_do(txn: &Txn, command: &Command, result: &[u8]) -> Result<(), Failure> {
    keep(txn, command, DO, result).await
}

/// The first statement of the transaction that undoes a command. If the command never came, what
/// is left is a tombstone that refuses it.
///
/// # Errors
/// [`Failure`] of the database.
pub async fn begin_undo(txn: &Txn, command: &Command) -> Result<Undo, Failure> {
    if insert(txn, command, DO, UNDO).await? {
        return Ok(Undo::NothingDone);
    }
    let done = read(txn, command, DO).await?;
    if done.reason == UNDO {
        return Ok(Undo::NothingDone);
    }
    if insert(txn, command, UNDO, UNDO).await? {
        return Ok(Undo::First(done.result.unwrap_or_default()));
    }
    Ok(Undo::Repeated(read(txn, command, UNDO).await?.result.unwrap_or_default()))
}

/// Keeps what the undoing's answer was.
///
/// # Errors
/// [`Failure`] of the database.
pub async fn finish_undo(txn: &Txn, command: &Command, result: &[u8]) -> Result<(), Failure> {
    keep(txn, command, UNDO, result).await
}

async fn insert(txn: &Txn, command: &Command, op: &str, reason: &str) -> Result<bool, Failure> {
    let sql = "INSERT INTO barrier (saga, step_key, op, reason, command_id, at) \
               VALUES ($1, $2, $3, $4, $5, $6) ON CONFLICT DO NOTHING";
    let values = vec![
        command.saga.as_str().into(),
        command.step_key.as_str().into(),
        op.into(),
        reason.into(),
        command.command_id.to_string().into(),
        clock::micros(clock::now()).into(),
    ];
    Ok(execute(txn, "put up a barrier", sql, values).await? == 1)
}

async fn read(txn: &Txn, command: &Command, op: &str) -> Result<Row, Failure> {
    const DOING: &str = "read a barrier";
    let sql = "SELECT reason, result FROM barrier WHERE saga = $1 AND step_key = $2 AND op = $3";
    let values = vec![command.saga.as_str().into(), command.step_key.as_str().into(), op.into()];
    let found = row::<Row, _>(txn, DOING, sql, values).await?;
    found.ok_or_else(|| Failure::new(DOING, "it was deleted while in use"))
}

async fn keep(txn: &Txn, command: &Command, op: &str, result: &[u8]) -> Result<(), Failure> {
    const DOING: &str = "keep the result of a command";
    let sql = "UPDATE barrier SET result = $1 WHERE saga = $2 AND step_key = $3 AND op = $4";
    let values = vec![
        result.to_vec().into(),
        command.saga.as_str().into(),
        command.step_key.as_str().into(),
        op.into(),
    ];
    match execute(txn, DOING, sql, values).await? {
        1 => Ok(()),
        _missing => Err(Failure::new(DOING, "the command was not begun")),
    }
}

#[cfg(test)]
mod tests;
