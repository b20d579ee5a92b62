//! The statements that delete by age, a bounded number of rows each.

use crate::store::{Failure, Store, execute};

/// What grows old.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Old {
    /// Request ids that were answered.
    RequestKeys,
    /// Commands that were done or undone.
    Barriers,
    /// Dead letters that were dealt with.
    DeadLetters,
}

/// Deletes all rows that are older than `before`, at most `batch` in a transaction; how many.
pub(super) async fn delete(
    store: &Store,
    old: Old,
    before: i64,
    batch: i64,
) -> Result<u64, Failure> {
    // What another replica is deleting is left to it.
    let lock = if store.is_postgres() { " FOR UPDATE SKIP LOCKED" } else { "" };
    let (head, rest) = old.statement();
    let sql: &str = &[head, rest, lock, ")"].concat();
    let mut deleted = 0;
    loop {
        let sql = sql.to_owned();
        let done = store.transaction(move |txn| {
            let sql = sql.clone();
            Box::pin(async move {
                execute(txn, "delete old rows", &sql, vec![before.into(), batch.into()]).await
            })
        });
        let done: u64 = done.await?;
        deleted += done;
        if i64::try_from(done).unwrap_or(i64::MAX) < batch {
            return Ok(deleted);
        }
    }
}

// === impl Old ===

impl Old {
    fn statement(self) -> (&'static str, &'static str) {
        match self {
            // One that is at work has no answer to give yet: whoever finishes it has to find it.
            Self::RequestKeys => (
                "DELETE FROM request_key WHERE (principal, method, request_id) IN (",
                "SELECT principal, method, request_id FROM request_key \
                 WHERE at < $1 AND state <> 'RUNNING' ORDER BY at LIMIT $2",
            ),
            Self::Barriers => (
                "DELETE FROM barrier WHERE (saga, step_key, op) IN (",
                "SELECT saga, step_key, op FROM barrier WHERE at < $1 ORDER BY at LIMIT $2",
            ),
            Self::DeadLetters => (
                "DELETE FROM dead_letter WHERE id IN (",
                "SELECT id FROM dead_letter WHERE updated_at < $1 AND state <> 'PARKED' \
                 ORDER BY updated_at LIMIT $2",
            ),
        }
    }
}
