//! Reading orders.

use std::{collections::HashMap, time::Duration};

use mesh::{
    clock,
    store::{Failure, row, rows},
};
use sea_orm::{ConnectionTrait, Value};
use tokio::time::Instant;
use uuid::Uuid;

use super::{
    Entry, Store, Stored,
    rows::{EventRow, LineRow, OrderRow},
};

const READ: &str = "read the order";

/// How often a waiting call looks although nobody told it to: another process may have moved
/// the order.
const POLL: Duration = Duration::from_millis(250);

/// How soon a call that was told of a revision looks again, if its commit was not through yet.
const SOON: Duration = Duration::from_millis(2);

impl Store {
    /// One order.
    ///
    /// # Errors
    /// [`Failure`] of the database.
    pub async fn order(&self, id: Uuid) -> Result<Option<Stored>, Failure> {
        order(self.mesh.reader(), id).await
    }

    /// These orders, as far as they exist, in any order.
    ///
    /// # Errors
    /// [`Failure`] of the database.
    pub async fn orders(&self, ids: &[Uuid]) -> Result<HashMap<Uuid, Stored>, Failure> {
        if ids.is_empty() {
            return Ok(HashMap::new());
        }
        let sql = format!("SELECT * FROM orders WHERE id IN ({})", placeholders(ids.len()));
        let values = ids.iter().map(|id| id.to_string().into()).collect();
        let found = rows(self.mesh.reader(), READ, &sql, values).await?;
        let stored = with_lines(self.mesh.reader(), found).await?;
        Ok(stored.into_iter().map(|stored| (stored.order.id, stored)).collect())
    }

    /// A page of orders, the newest first: those of `customer`, or everybody's; older than
    /// `before`.
    ///
    /// # Errors
    /// [`Failure`] of the database.
    pub async fn page(
        &self,
        customer: Option<&str>,
        before: Option<Uuid>,
        size: u64,
    ) -> Result<Vec<Stored>, Failure> {
        // Every id sorts before this.
        let before = before.map_or_else(|| "~".to_owned(), |id| id.to_string());
        let limit = i64::try_from(size).unwrap_or(i64::MAX);
        let (sql, values): (_, Vec<Value>) = match customer {
            Some(customer) => (
                "SELECT * FROM orders WHERE customer = $1 AND id < $2 ORDER BY id DESC LIMIT $3",
                vec![customer.into(), before.into(), limit.into()],
            ),
            None => (
                "SELECT * FROM orders WHERE id < $1 ORDER BY id DESC LIMIT $2",
                vec![before.into(), limit.into()],
            ),
        };
        let found = rows(self.mesh.reader(), "list orders", sql, values).await?;
        with_lines(self.mesh.reader(), found).await
    }

    /// A page of what happened to an order, after this revision.
    ///
    /// # Errors
    /// [`Failure`] of the database.
    pub async fn events(&self, id: Uuid, after: i64, size: u64) -> Result<Vec<Entry>, Failure> {
        let sql = "SELECT revision, type AS kind, at, actor, state, payment_state, \
                   fulfillment_state, note \
                   FROM order_event WHERE order_id = $1 AND revision > $2 \
                   ORDER BY revision LIMIT $3";
        let limit = i64::try_from(size).unwrap_or(i64::MAX);
        let values = vec![id.to_string().into(), after.into(), limit.into()];
        let found: Vec<EventRow> =
            rows(self.mesh.reader(), "list what happened", sql, values).await?;
        found.into_iter().map(Entry::try_from).collect()
    }

    /// The order once it is confirmed, has ended or needs its customer; or as it stands when
    /// the time is over. `None` if there is no such order.
    ///
    /// # Errors
    /// [`Failure`] of the database.
    pub async fn settled(&self, id: Uuid, until: Instant) -> Result<Option<Stored>, Failure> {
        let mut waiter = self.waiters.wait(id);
        let mut soon = SOON;
        loop {
            let told = waiter.told();
            let stored = self.order(id).await?;
            let Some(Stored { order, revision }) = &stored else { return Ok(None) };
            if order.is_settled() || clock::instant() >= until {
                return Ok(stored);
            }
            // The word comes shortly before the commit that it speaks of.
            let pause = if *revision < told { soon } else { POLL };
            soon = if *revision < told { (soon * 2).min(POLL) } else { SOON };
            let look = until.min(clock::instant() + pause);
            tokio::select! {
                () = waiter.newer() => {}
                () = tokio::time::sleep_until(look) => {}
            }
        }
    }
}

pub(super) async fn order<C: ConnectionTrait>(
    conn: &C,
    id: Uuid,
) -> Result<Option<Stored>, Failure> {
    let sql = "SELECT * FROM orders WHERE id = $1";
    let found: Option<OrderRow> = row(conn, READ, sql, vec![id.to_string().into()]).await?;
    let Some(found) = found else { return Ok(None) };
    Ok(with_lines(conn, vec![found]).await?.pop())
}

async fn with_lines<C: ConnectionTrait>(
    conn: &C,
    orders: Vec<OrderRow>,
) -> Result<Vec<Stored>, Failure> {
    if orders.is_empty() {
        return Ok(Vec::new());
    }
    let sql = format!(
        "SELECT * FROM order_line WHERE order_id IN ({}) ORDER BY order_id, number",
        placeholders(orders.len())
    );
    let values = orders.iter().map(|order| order.id.as_str().into()).collect();
    let mut lines: HashMap<String, Vec<LineRow>> = HashMap::new();
    for line in rows::<LineRow, _>(conn, READ, &sql, values).await? {
        lines.entry(line.order_id.clone()).or_default().push(line);
    }
    orders
        .into_iter()
        .map(|order| {
            let lines = lines.remove(&order.id).unwrap_or_default();
            order.stored(lines)
        })
        .collect()
}

/// `$1,$2,…`: names for bound values, never values.
fn placeholders(count: usize) -> String {
    (1..=count).map(|number| format!("${number}")).collect::<Vec<_>>().join(",")
}
