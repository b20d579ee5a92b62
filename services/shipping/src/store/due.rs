//! What is looked for: attempts whose time has come, each taken on by one process.

use std::time::Duration;

use mesh::store::{Failure, row, rows};
use sea_orm::FromQueryResult;
use uuid::Uuid;

use super::Store;
use crate::error::Error;

/// An attempt that somebody has taken on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Due {
    /// Of which shipment.
    pub shipment: Uuid,
    /// Which.
    pub attempt: Uuid,
}

#[derive(FromQueryResult)]
struct DueRow {
    id: String,
    shipment: String,
}

impl Store {
    /// How long until there is something to do, if there will be. What another one has taken on
    /// is its business until the lease is over.
    ///
    /// # Errors
    /// [`Failure`] of the database.
    pub async fn next_due(&self) -> Result<Option<Duration>, Failure> {
        #[derive(FromQueryResult)]
        struct Next {
            next: Option<i64>,
        }
        let sql = "SELECT MIN(CASE WHEN lease_until >= next_try_at THEN lease_until + 1 \
             ELSE next_try_at END) AS next FROM attempt WHERE next_try_at IS NOT NULL";
        let next: Option<Next> = row(self.db.reader(), "look for attempts", sql, vec![]).await?;
        let Some(next) = next.and_then(|row| row.next) else { return Ok(None) };
        let now = self.db.now_micros(self.db.reader()).await?;
        Ok(Some(Duration::from_micros(u64::try_from(next - now).unwrap_or(0))))
    }

    /// Takes on attempts that are due, for as long as `lease` lasts. From then on they count as
    /// sent.
    ///
    /// # Errors
    /// [`Failure`] of the database.
    pub async fn take_due(
        &self,
        owner: &str,
        lease: Duration,
        limit: usize,
    ) -> Result<Vec<Due>, Error> {
        let (store, owner) = (self.clone(), owner.to_owned());
        let limit = i64::try_from(limit).unwrap_or(i64::MAX);
        let lock = if self.db.is_postgres() { "FOR UPDATE SKIP LOCKED" } else { "" };
        let sql = format!(
            "UPDATE attempt SET lease_owner = $1, lease_until = $2, \
             state = CASE state WHEN 'CREATED' THEN 'SENT' ELSE state END WHERE id IN (SELECT id \
             FROM attempt WHERE next_try_at <= $3 AND (lease_until IS NULL OR lease_until < $3) \
             ORDER BY next_try_at LIMIT $4 {lock}) RETURNING id, shipment"
        );
        self.db
            .transaction(move |txn| {
                let (store, owner, sql) = (store.clone(), owner.clone(), sql.clone());
                Box::pin(async move {
                    let now = store.db.now_micros(txn).await?;
                    let until = now.saturating_add(i64::try_from(lease.as_micros()).unwrap_or(now));
                    let values = vec![owner.into(), until.into(), now.into(), limit.into()];
                    let taken: Vec<DueRow> = rows(txn, "take on attempts", &sql, values).await?;
                    taken.into_iter().map(due).collect()
                })
            })
            .await
    }
}

fn due(row: DueRow) -> Result<Due, Error> {
    let id = |text: &str| {
        Uuid::try_parse(text).map_err(|error| Failure::new("take on attempts", error.to_string()))
    };
    Ok(Due { shipment: id(&row.shipment)?, attempt: id(&row.id)? })
}
