//! Movements: appended, read, listed.

use mesh::{
    clock::{from_micros, micros},
    store::{Failure, Txn, execute, row, rows},
};
use sea_orm::{FromQueryResult, Value};
use uuid::Uuid;

use super::{Moved, Store, broken, marks};
use crate::domain::{Movement, Place, Reason, Sku};

/// At most this many in one statement: PostgreSQL takes 65,535 values, SQLite 32,766.
const CHUNK: usize = 1_000;

const COLUMNS: usize = 10;

#[derive(FromQueryResult)]
struct Row {
    id: String,
    sku: String,
    location: String,
    kind: String,
    quantity: i64,
    reason: Option<String>,
    note: String,
    cause: Option<String>,
    actor: String,
    at: i64,
}

impl Store {
    /// The movement of this id.
    ///
    /// # Errors
    /// The database cannot be read.
    pub async fn movement(&self, id: Uuid) -> Result<Option<Moved>, Failure> {
        let sql = "SELECT * FROM movement WHERE id = $1";
        let values = vec![id.to_string().into()];
        let found: Option<Row> = row(self.mesh.reader(), "read a movement", sql, values).await?;
        found.map(read).transpose()
    }

    /// At most `limit` movements, oldest first, those after `after`; of one stock or of one
    /// reservation alone, if they are given.
    ///
    /// # Errors
    /// The database cannot be read.
    pub async fn movements(
        &self,
        after: &str,
        stock: Option<(&Place, &Sku)>,
        cause: Option<Uuid>,
        limit: u64,
    ) -> Result<Vec<Moved>, Failure> {
        let limit = i64::try_from(limit).unwrap_or(i64::MAX);
        let mut values: Vec<Value> = vec![after.into(), limit.into()];
        let mut sql = "SELECT * FROM movement WHERE id > $1".to_owned();
        if let Some((place, sku)) = stock {
            values.extend([sku.as_str().into(), place.as_str().into()]);
            sql.push_str(" AND sku = $3 AND location = $4");
        }
        if let Some(cause) = cause {
            values.push(cause.to_string().into());
            sql.push_str(&format!(" AND cause = ${}", values.len()));
        }
        sql.push_str(" ORDER BY id LIMIT $2");
        let found: Vec<Row> = rows(self.mesh.reader(), "list movements", &sql, values).await?;
        found.into_iter().map(read).collect()
    }
}

pub(super) async fn append(txn: &Txn, moved: &[Moved]) -> Result<(), Failure> {
    for chunk in moved.chunks(CHUNK) {
        let sql = format!(
            "INSERT INTO movement (id, sku, location, kind, quantity, reason, note, cause, actor, \
             at) VALUES {}",
            marks(chunk.len(), COLUMNS)
        );
        let mut values: Vec<Value> = Vec::with_capacity(chunk.len() * COLUMNS);
        for it in chunk {
            values.extend([
                it.id.to_string().into(),
                it.sku.as_str().into(),
                it.place.as_str().into(),
                kind(it.movement).into(),
                it.quantity.into(),
                it.reason.map(reason).into(),
                it.note.as_str().into(),
                it.cause.map(|id| id.to_string()).into(),
                it.actor.as_str().into(),
                micros(it.at).into(),
            ]);
        }
        execute(txn, "append movements", &sql, values).await?;
    }
    Ok(())
}

fn read(row: Row) -> Result<Moved, Failure> {
    let uuid = |text: &str| Uuid::try_parse(text).map_err(|_error| broken("id"));
    Ok(Moved {
        id: uuid(&row.id)?,
        sku: Sku::parse(&row.sku).map_err(|_bad| broken("sku"))?,
        place: Place::parse(&row.location).map_err(|_bad| broken("location"))?,
        movement: KINDS
            .into_iter()
            .find(|it| kind(*it) == row.kind)
            .ok_or_else(|| broken("kind"))?,
        quantity: row.quantity,
        reason: match row.reason {
            None => None,
            Some(text) => Some(
                REASONS
                    .into_iter()
                    .find(|it| reason(*it) == text)
                    .ok_or_else(|| broken("reason"))?,
            ),
        },
        note: row.note,
        cause: row.cause.as_deref().map(uuid).transpose()?,
        actor: row.actor,
        at: from_micros(row.at),
    })
}

const KINDS: [Movement; 9] = [
    Movement::Received,
    Movement::Returned,
    Movement::Held,
    Movement::HoldReleased,
    Movement::HoldExpired,
    Movement::Allocated,
    Movement::Deallocated,
    Movement::Shipped,
    Movement::Adjusted,
];

const REASONS: [Reason; 4] = [Reason::Received, Reason::Counted, Reason::Damaged, Reason::Lost];

fn kind(movement: Movement) -> &'static str {
    match movement {
        Movement::Received => "RECEIVED",
        Movement::Returned => "RETURNED",
        Movement::Held => "HELD",
        Movement::HoldReleased => "HOLD_RELEASED",
        Movement::HoldExpired => "HOLD_EXPIRED",
        Movement::Allocated => "ALLOCATED",
        Movement::Deallocated => "DEALLOCATED",
        Movement::Shipped => "SHIPPED",
        Movement::Adjusted => "ADJUSTED",
    }
}

fn reason(reason: Reason) -> &'static str {
    match reason {
        Reason::Received => "RECEIVED",
        Reason::Counted => "COUNTED",
        Reason::Damaged => "DAMAGED",
        Reason::Lost => "LOST",
    }
}
