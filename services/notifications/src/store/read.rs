//! What is read without a lock: notifications, and pages of them.

use mesh::store::{Failure, row, rows};
use sea_orm::Value;
use uuid::Uuid;

use super::{
    Store,
    rows::{COLUMNS, Row},
};
use crate::domain::Notification;

impl Store {
    /// One notification.
    ///
    /// # Errors
    /// [`Failure`] of the database.
    pub async fn notification(&self, id: Uuid) -> Result<Option<Notification>, Failure> {
        let sql = format!("SELECT {COLUMNS} FROM notification WHERE id = $1");
        let values = vec![id.to_string().into()];
        let found: Option<Row> =
            row(self.mesh.reader(), "read a notification", &sql, values).await?;
        found.map(Row::notification).transpose()
    }

    /// At most `limit` notifications, the newest first, those before `before` unless it is empty:
    /// those of one customer or all, about one order or all.
    ///
    /// # Errors
    /// [`Failure`] of the database.
    pub async fn notifications(
        &self,
        customer: Option<&str>,
        order: Option<Uuid>,
        before: &str,
        limit: u64,
    ) -> Result<Vec<Notification>, Failure> {
        let mut sql = format!("SELECT {COLUMNS} FROM notification WHERE 1 = 1");
        let mut values: Vec<Value> = Vec::new();
        let mut only = |clause: &str, value: Value| {
            values.push(value);
            sql.push_str(&format!(" AND {clause} ${}", values.len()));
        };
        if let Some(customer) = customer {
            only("recipient =", customer.into());
        }
        if let Some(order) = order {
            only("order_id =", order.to_string().into());
        }
        if !before.is_empty() {
            only("id <", before.into());
        }
        values.push(i64::try_from(limit).unwrap_or(i64::MAX).into());
        sql.push_str(&format!(" ORDER BY id DESC LIMIT ${}", values.len()));
        let found: Vec<Row> = rows(self.mesh.reader(), "list notifications", &sql, values).await?;
        found.into_iter().map(Row::notification).collect()
    }
}
