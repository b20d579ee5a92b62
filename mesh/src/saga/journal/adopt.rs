//! Sagas of an older release go on under the list that goes on with theirs.

use sea_orm::FromQueryResult;

use super::Definition;
use crate::store::{Failure, Store, Txn, execute, rows};

#[derive(FromQueryResult)]
struct Row {
    id: String,
    state: String,
}

const DOING: &str = "take a saga over";

/// As many as one transaction takes over.
const BATCH: i64 = 200;

/// Takes over sagas of `older` that nobody works on; says how many.
pub(in crate::saga) async fn adopt(
    store: &Store,
    txn: &Txn,
    definition: &Definition,
    older: &Definition,
) -> Result<u64, Failure> {
    let now = store.now_micros(txn).await?;
    let lock = if store.is_postgres() { " FOR UPDATE SKIP LOCKED" } else { "" };
    let sql = [
        "SELECT id, state FROM saga WHERE kind = $1 AND definition = $2 \
         AND (lease_until IS NULL OR lease_until < $3) LIMIT $4",
        lock,
    ]
    .concat();
    let values = vec![older.kind.into(), older.steps.as_str().into(), now.into(), BATCH.into()];
    let found: Vec<Row> = rows(txn, DOING, &sql, values).await?;
    let mut adopted = 0;
    for Row { id, state } in found {
        let ended = state == "DONE";
        if ended {
            // Its last step is done once more: the participant answers what it answered.
            let last = older.steps.rsplit(' ').next().unwrap_or_default();
            let sql = "UPDATE saga_step SET state = 'INTENT', reply = NULL, ended_at = NULL \
                 WHERE saga = $1 AND step_key = $2 AND direction = 'DO'";
            execute(txn, DOING, sql, vec![id.as_str().into(), last.into()]).await?;
        }
        let sql = "UPDATE saga SET kind = $2, definition = $3, \
             state = CASE WHEN state = 'DONE' THEN 'RUNNING' ELSE state END, \
             next_run_at = CASE WHEN state = 'DONE' THEN $4 ELSE next_run_at END, \
             lease_owner = NULL, lease_until = NULL, fence = fence + 1, revision = revision + 1 \
             WHERE id = $1";
        let values = vec![
            id.as_str().into(),
            definition.kind.into(),
            definition.steps.as_str().into(),
            now.into(),
        ];
        adopted += execute(txn, DOING, sql, values).await?;
    }
    Ok(adopted)
}
