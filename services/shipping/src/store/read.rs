//! What is read: shipments with their lines and attempts, one or a page.

use std::collections::HashMap;

use mesh::{
    clock::micros,
    page::Page,
    store::{Failure, rows},
};
use sea_orm::{ConnectionTrait, FromQueryResult, Value};
use uuid::Uuid;

use super::{
    Store,
    rows::{ATTEMPT, AttemptRow, LineRow, SHIPMENT, ShipmentRow},
};
use crate::domain::{Attempt, Line, Shipment};

/// Which shipments a list shows.
#[derive(Clone, Debug, Default)]
pub struct Only {
    /// Only this customer's.
    pub customer: Option<String>,
    /// Only this order's.
    pub order: Option<String>,
}

impl Store {
    /// A shipment.
    ///
    /// # Errors
    /// [`Failure`] of the database.
    pub async fn shipment(&self, id: Uuid) -> Result<Option<Shipment>, Failure> {
        let sql = format!("SELECT {SHIPMENT} FROM shipment WHERE id = $1");
        let values = vec![id.to_string().into()];
        Ok(select(self.db.reader(), &sql, values, "").await?.into_iter().next())
    }

    /// Shipments, the newest first: one row more than the page has, if there is one. Those that
    /// were cancelled before they came to be are nobody's.
    ///
    /// # Errors
    /// [`Failure`] of the database.
    pub async fn shipments(&self, only: &Only, page: &Page) -> Result<Vec<Shipment>, Failure> {
        let mut sql = format!("SELECT {SHIPMENT} FROM shipment WHERE order_name <> ''");
        let mut values: Vec<Value> = Vec::new();
        for (column, value) in [("customer", &only.customer), ("order_name", &only.order)] {
            let Some(value) = value else { continue };
            values.push(value.as_str().into());
            sql.push_str(&format!(" AND {column} = ${}", values.len()));
        }
        if let Some((at, id)) = last_of(page)? {
            values.extend([at.into(), id.into()]);
            let (at, id) = (values.len() - 1, values.len());
            sql.push_str(&format!(" AND (created_at, id) < (${at}, ${id})"));
        }
        values.push(i64::try_from(page.size + 1).unwrap_or(i64::MAX).into());
        sql.push_str(&format!(" ORDER BY created_at DESC, id DESC LIMIT ${}", values.len()));
        select(self.db.reader(), &sql, values, "").await
    }

    /// The traces that shipments came from, where they are known.
    ///
    /// # Errors
    /// [`Failure`] of the database.
    pub async fn traces(&self, ids: &[Uuid]) -> Result<HashMap<Uuid, String>, Failure> {
        #[derive(FromQueryResult)]
        struct Trace {
            id: String,
            traceparent: String,
        }
        if ids.is_empty() {
            return Ok(HashMap::new());
        }
        let marks = marks(ids.len());
        let sql = format!(
            "SELECT id, traceparent FROM shipment WHERE traceparent IS NOT NULL AND id IN ({marks})"
        );
        let values = ids.iter().map(|id| Value::from(id.to_string())).collect();
        let found: Vec<Trace> = rows(self.db.reader(), "read traces", &sql, values).await?;
        let known = |trace: Trace| Some((Uuid::try_parse(&trace.id).ok()?, trace.traceparent));
        Ok(found.into_iter().filter_map(known).collect())
    }
}

/// What the key of a shipment in lists is.
#[must_use]
pub fn key(shipment: &Shipment) -> String {
    format!("{}/{}", micros(shipment.created_at), shipment.id)
}

/// The shipments that `sql` selects, with their lines and attempts, in the order that it says.
pub(super) async fn select<C: ConnectionTrait>(
    conn: &C,
    sql: &str,
    values: Vec<Value>,
    for_update: &str,
) -> Result<Vec<Shipment>, Failure> {
    let found: Vec<ShipmentRow> = rows(conn, "read shipments", sql, values).await?;
    if found.is_empty() {
        return Ok(Vec::new());
    }
    let ids: Vec<Value> = found.iter().map(|row| Value::from(row.id())).collect();
    let marks = marks(ids.len());
    let sql = format!(
        "SELECT shipment, line, variant, quantity FROM shipment_line WHERE shipment IN ({marks}) \
         ORDER BY shipment, place"
    );
    let mut lines: HashMap<String, Vec<Line>> = HashMap::new();
    for row in rows::<LineRow, _>(conn, "read lines", &sql, ids.clone()).await? {
        let (shipment, line) = row.line()?;
        lines.entry(shipment).or_default().push(line);
    }
    let sql = format!(
        "SELECT {ATTEMPT}, shipment FROM attempt WHERE shipment IN ({marks}) \
         ORDER BY shipment, place {for_update}"
    );
    let mut attempts: HashMap<String, Vec<Attempt>> = HashMap::new();
    for row in rows::<AttemptRow, _>(conn, "read attempts", &sql, ids).await? {
        let (shipment, attempt) = row.attempt()?;
        attempts.entry(shipment).or_default().push(attempt);
    }
    found
        .into_iter()
        .map(|row| {
            let lines = lines.remove(row.id()).unwrap_or_default();
            let attempts = attempts.remove(row.id()).unwrap_or_default();
            row.shipment(lines, attempts)
        })
        .collect()
}

fn last_of(page: &Page) -> Result<Option<(i64, String)>, Failure> {
    if page.after.is_empty() {
        return Ok(None);
    }
    // The token was sealed by us: it says what `key` said.
    let parts = page.after.split_once('/').and_then(|(at, id)| Some((at.parse().ok()?, id)));
    let (at, id) = parts.ok_or_else(|| Failure::new("read a page", "its key is malformed"))?;
    Ok(Some((at, id.to_owned())))
}

fn marks(count: usize) -> String {
    let marks: Vec<String> = (1..=count).map(|n| format!("${n}")).collect();
    marks.join(", ")
}
