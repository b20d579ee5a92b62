//! What operators did, written with what they did.

use crate::{
    clock,
    store::{Failure, Txn, execute},
};

/// Notes an operator's action in its transaction.
pub(crate) async fn note(
    txn: &Txn,
    actor: &str,
    action: &str,
    target: &str,
    reason: &str,
) -> Result<(), Failure> {
    let sql = "INSERT INTO operator_action (id, actor, action, target, reason, at) \
               VALUES ($1, $2, $3, $4, $5, $6)";
    let values = vec![
        clock::id().to_string().into(),
        actor.into(),
        action.into(),
        target.into(),
        reason.into(),
        clock::micros(clock::now()).into(),
    ];
    execute(txn, "note an operator's action", sql, values).await?;
    tracing::info!(actor, action, target, reason, "{action} of {target} by {actor}");
    Ok(())
}
