//! How long things are kept: what waits in vain is given up, what is old is erased.

use std::time::Duration;

use mesh::store::{Failure, execute};

use super::Store;

/// How many rows one transaction touches.
const ROWS: i64 = 1_000;

impl Store {
    /// Gives up what has waited for an address longer than `patience`; how many there were.
    ///
    /// # Errors
    /// [`Failure`] of the database.
    pub async fn give_up(&self, patience: Duration) -> Result<u64, Failure> {
        let sql = "UPDATE notification SET state = 'FAILED', problem = 'no address became known' \
             WHERE id IN (SELECT id FROM notification WHERE state = 'WAITING' \
             AND created_at < $1 LIMIT $2)";
        self.in_batches("give up what waits in vain", sql, patience).await
    }

    /// Erases what is older than `age` and is not to be sent any more; how many rows there were.
    ///
    /// # Errors
    /// [`Failure`] of the database.
    pub async fn erase(&self, age: Duration) -> Result<u64, Failure> {
        let doing = "erase what is old";
        let told = "DELETE FROM notification WHERE id IN (SELECT id FROM notification \
             WHERE created_at < $1 AND state IN ('SENT', 'SUPPRESSED', 'FAILED') LIMIT $2)";
        let known = "DELETE FROM recipient WHERE order_id IN \
             (SELECT order_id FROM recipient WHERE updated_at < $1 LIMIT $2)";
        Ok(self.in_batches(doing, told, age).await? + self.in_batches(doing, known, age).await?)
    }

    /// Executes a statement about rows from before `$1`, `$2` of them at a time.
    async fn in_batches(
        &self,
        doing: &'static str,
        sql: &'static str,
        age: Duration,
    ) -> Result<u64, Failure> {
        let now = self.mesh.now_micros(self.mesh.reader()).await?;
        let before = now.saturating_sub(i64::try_from(age.as_micros()).unwrap_or(i64::MAX));
        let mut all = 0;
        loop {
            let batch = self.mesh.transaction(move |txn| {
                Box::pin(
                    async move { execute(txn, doing, sql, vec![before.into(), ROWS.into()]).await },
                )
            });
            let rows: Result<u64, Failure> = batch.await;
            let rows = rows?;
            all += rows;
            if i64::try_from(rows).is_ok_and(|rows| rows < ROWS) {
                return Ok(all);
            }
        }
    }
}
