//! What operators read of sagas, and the three things that they may do to one.

use sea_orm::FromQueryResult;

use super::{
    State,
    journal::{self, Record},
};
use crate::store::{Failure, Store, Txn, execute, row, rows};

/// A saga as it is kept, without its steps.
#[derive(Clone, Debug)]
pub(crate) struct Kept {
    pub(crate) id: String,
    pub(crate) kind: String,
    pub(crate) key: String,
    pub(crate) state: State,
    pub(crate) reason: Option<String>,
    pub(crate) last_error: Option<String>,
    pub(crate) attempts: i64,
    pub(crate) next_run_at: i64,
    pub(crate) deadline_at: i64,
    pub(crate) created_at: i64,
    pub(crate) traceparent: Option<String>,
}

/// Which sagas are meant; what is empty means all.
#[derive(Clone, Debug, Default)]
pub(crate) struct Filter {
    pub(crate) state: &'static str,
    pub(crate) kind: String,
    pub(crate) key: String,
}

/// What an operator may do to a saga.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Change {
    /// Due now, its tries counted from zero.
    Retry,
    /// Held where it stands.
    Pause,
    /// Let go on.
    Resume,
}

#[derive(FromQueryResult)]
struct Row {
    id: String,
    kind: String,
    key: String,
    state: String,
    reason: Option<String>,
    last_error: Option<String>,
    attempts: i64,
    next_run_at: i64,
    deadline_at: i64,
    created_at: i64,
    traceparent: Option<String>,
}

const COLUMNS: &str = "SELECT id, kind, key, state, reason, last_error, attempts, next_run_at, \
    deadline_at, created_at, traceparent FROM saga";

const READ: &str = "read sagas";

/// A page of sagas behind the id `after`.
pub(crate) async fn list(
    store: &Store,
    filter: &Filter,
    after: &str,
    limit: u64,
) -> Result<Vec<Kept>, Failure> {
    let sql = [
        COLUMNS,
        " WHERE ($1 = '' OR state = $1) AND ($2 = '' OR kind = $2) AND ($3 = '' OR key = $3) \
         AND id > $4 ORDER BY id LIMIT $5",
    ]
    .concat();
    let values = vec![
        filter.state.into(),
        filter.kind.as_str().into(),
        filter.key.as_str().into(),
        after.into(),
        i64::try_from(limit).unwrap_or(i64::MAX).into(),
    ];
    let found: Vec<Row> = rows(store.reader(), READ, &sql, values).await?;
    found.into_iter().map(Row::kept).collect()
}

/// A saga with its steps.
pub(crate) async fn get(store: &Store, id: &str) -> Result<Option<(Kept, Vec<Record>)>, Failure> {
    let sql = [COLUMNS, " WHERE id = $1"].concat();
    let found: Option<Row> = row(store.reader(), READ, &sql, vec![id.into()]).await?;
    let Some(found) = found else { return Ok(None) };
    let steps = journal::records(store.reader(), id).await?;
    Ok(Some((found.kept()?, steps)))
}

/// Does it. Answers the state before and whether it was changed; `None` if there is no such saga.
///
/// Whoever works on it can record nothing any more: the revision, and on a pause the fence, rises.
pub(crate) async fn change(
    store: &Store,
    txn: &Txn,
    id: &str,
    change: Change,
) -> Result<Option<(State, bool)>, Failure> {
    const DOING: &str = "change a saga";
    let lock = if store.is_postgres() { " FOR UPDATE" } else { "" };
    let sql = [COLUMNS, " WHERE id = $1", lock].concat();
    let found: Option<Row> = row(txn, READ, &sql, vec![id.into()]).await?;
    let Some(found) = found else { return Ok(None) };
    let before = found.kept()?.state;
    if !change.fits(before) {
        return Ok(Some((before, false)));
    }
    let now = store.now_micros(txn).await?;
    let (sql, values) = match change {
        Change::Retry => (
            "UPDATE saga SET next_run_at = $2, attempts = 0, revision = revision + 1 \
             WHERE id = $1",
            vec![id.into(), now.into()],
        ),
        Change::Pause => (
            "UPDATE saga SET state = 'PAUSED', lease_owner = NULL, lease_until = NULL, \
             fence = fence + 1, revision = revision + 1 WHERE id = $1",
            vec![id.into()],
        ),
        // Once there is a reason to undo it, it goes back.
        Change::Resume => (
            "UPDATE saga SET state = CASE WHEN reason IS NULL THEN 'RUNNING' \
             ELSE 'COMPENSATING' END, next_run_at = $2, attempts = 0, revision = revision + 1 \
             WHERE id = $1",
            vec![id.into(), now.into()],
        ),
    };
    let changed = execute(txn, DOING, sql, values).await?;
    Ok(Some((before, changed == 1)))
}

// === impl Change ===

impl Change {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Retry => "RetrySagaStep",
            Self::Pause => "PauseSaga",
            Self::Resume => "ResumeSaga",
        }
    }

    fn fits(self, state: State) -> bool {
        let lives = matches!(state, State::Running | State::Compensating | State::Stuck);
        match self {
            Self::Retry | Self::Pause => lives,
            Self::Resume => state == State::Paused,
        }
    }

    /// Whether a saga in this state is as it would be afterwards.
    pub(crate) fn is_done(self, state: State) -> bool {
        match self {
            Self::Retry => false,
            Self::Pause => state == State::Paused,
            Self::Resume => {
                matches!(state, State::Running | State::Compensating | State::Stuck)
            }
        }
    }
}

// === impl Row ===

impl Row {
    fn kept(self) -> Result<Kept, Failure> {
        let state = State::parse(&self.state)
            .ok_or_else(|| Failure::new(READ, "its state is malformed"))?;
        Ok(Kept {
            state,
            id: self.id,
            kind: self.kind,
            key: self.key,
            reason: self.reason,
            last_error: self.last_error,
            attempts: self.attempts,
            next_run_at: self.next_run_at,
            deadline_at: self.deadline_at,
            created_at: self.created_at,
            traceparent: self.traceparent,
        })
    }
}
