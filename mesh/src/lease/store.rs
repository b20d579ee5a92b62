//! The statements about leases; the time is the database's, which replicas share.

use sea_orm::FromQueryResult;

use crate::store::{Failure, Store, Txn, execute, row};

#[derive(FromQueryResult)]
struct Fence {
    fence: i64,
}

/// Takes the lease `name` for `lease` microseconds if it is nobody's, or was not renewed, and
/// answers its fence, which has risen; `None` while another one has it.
///
/// On SQLite it is always taken: one process has the file, and whoever it says was there before
/// is dead.
pub(crate) async fn take(
    store: &Store,
    txn: &Txn,
    name: &str,
    owner: &str,
    lease: i64,
) -> Result<Option<i64>, Failure> {
    const DOING: &str = "take a lease";
    let now = store.now_micros(txn).await?;
    let sql = "INSERT INTO lease (name, owner, until, fence) VALUES ($1, NULL, 0, 0) \
               ON CONFLICT DO NOTHING";
    execute(txn, DOING, sql, vec![name.into()]).await?;
    let sql = "UPDATE lease SET owner = $2, until = $3, fence = fence + 1 \
               WHERE name = $1 AND (until < $4 OR owner = $2 OR $5) RETURNING fence";
    let values = vec![
        name.into(),
        owner.into(),
        now.saturating_add(lease).into(),
        now.into(),
        (!store.is_postgres()).into(),
    ];
    let taken: Option<Fence> = row(txn, DOING, sql, values).await?;
    Ok(taken.map(|taken| taken.fence))
}

/// Keeps a lease for another `lease` microseconds. `false` if it has been taken since.
pub(crate) async fn renew(
    store: &Store,
    txn: &Txn,
    name: &str,
    fence: i64,
    lease: i64,
) -> Result<bool, Failure> {
    let until = store.now_micros(txn).await?.saturating_add(lease);
    let sql = "UPDATE lease SET until = $3 WHERE name = $1 AND fence = $2";
    let values = vec![name.into(), fence.into(), until.into()];
    Ok(execute(txn, "renew a lease", sql, values).await? == 1)
}

/// Lets another one have it at once.
pub(crate) async fn give_back(txn: &Txn, name: &str, fence: i64) -> Result<(), Failure> {
    let sql = "UPDATE lease SET owner = NULL, until = 0 WHERE name = $1 AND fence = $2";
    execute(txn, "give a lease back", sql, vec![name.into(), fence.into()]).await.map(|_given| ())
}
