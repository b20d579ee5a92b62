//! Reservations with their lines: read, locked, listed, written.

use std::collections::HashMap;

use mesh::{
    clock::{from_micros, micros},
    store::{Failure, Txn, execute, rows},
};
use sea_orm::{ConnectionTrait, FromQueryResult, Value};
use uuid::Uuid;

use super::{Store, broken, marks};
use crate::{
    domain::{
        Place, Sku,
        allocation::Allotment,
        reservation::{Reservation, State},
    },
    error::Error,
    events,
};

#[derive(FromQueryResult)]
struct Row {
    id: String,
    order_id: Option<String>,
    saga: Option<String>,
    state: String,
    expires_at: i64,
    overdue_at: Option<i64>,
    committed_at: Option<i64>,
    revision: i64,
    created_at: i64,
    updated_at: i64,
}

#[derive(FromQueryResult)]
struct Part {
    reservation: String,
    line: String,
    sku: String,
    location: String,
    quantity: i64,
    shipped: i64,
    returned: i64,
}

impl Store {
    /// The reservation of this id.
    ///
    /// # Errors
    /// The database cannot be read.
    pub async fn reservation(&self, id: Uuid) -> Result<Option<Reservation>, Failure> {
        let values = vec![id.to_string().into()];
        let found = select(self.mesh.reader(), "WHERE id = $1", values).await?;
        Ok(found.into_iter().next())
    }

    /// At most `limit` reservations in the order of their ids, those after `after`; of one order
    /// alone, if it is given.
    ///
    /// # Errors
    /// The database cannot be read.
    pub async fn reservations(
        &self,
        after: &str,
        order: Option<Uuid>,
        limit: u64,
    ) -> Result<Vec<Reservation>, Failure> {
        let limit = i64::try_from(limit).unwrap_or(i64::MAX);
        let mut values: Vec<Value> = vec![after.into(), limit.into()];
        let which = match order {
            Some(order) => {
                values.push(order.to_string().into());
                "WHERE id > $1 AND order_id = $3 ORDER BY id LIMIT $2"
            }
            None => "WHERE id > $1 ORDER BY id LIMIT $2",
        };
        select(self.mesh.reader(), which, values).await
    }

    /// The reservation of this id, locked until the transaction ends.
    pub(super) async fn locked(&self, txn: &Txn, id: Uuid) -> Result<Option<Reservation>, Failure> {
        let which = ["WHERE id = $1", self.for_update()].concat();
        let found = select(txn, &which, vec![id.to_string().into()]).await?;
        Ok(found.into_iter().next())
    }
}

/// The reservations that `which` selects, with their lines, in the order that it says.
pub(super) async fn select<C: ConnectionTrait>(
    conn: &C,
    which: &str,
    values: Vec<Value>,
) -> Result<Vec<Reservation>, Failure> {
    let sql = ["SELECT * FROM reservation ", which].concat();
    let found: Vec<Row> = rows(conn, "read reservations", &sql, values).await?;
    if found.is_empty() {
        return Ok(Vec::new());
    }
    let marks: Vec<String> = (1..=found.len()).map(|n| format!("${n}")).collect();
    let sql = [
        "SELECT reservation, line, sku, location, quantity, shipped, returned FROM reservation_line \
         WHERE reservation IN (",
        &marks.join(", "),
        ") ORDER BY reservation, part",
    ]
    .concat();
    let ids = found.iter().map(|row| Value::from(row.id.as_str())).collect();
    let lines: Vec<Part> = rows(conn, "read the lines of reservations", &sql, ids).await?;
    let mut parts: HashMap<String, Vec<Allotment>> = HashMap::new();
    for line in lines {
        let allotment = Allotment {
            line: line.line,
            sku: Sku::parse(&line.sku).map_err(|_bad| broken("sku"))?,
            place: Place::parse(&line.location).map_err(|_bad| broken("location"))?,
            quantity: line.quantity,
            shipped: line.shipped,
            returned: line.returned,
        };
        parts.entry(line.reservation).or_default().push(allotment);
    }
    found
        .into_iter()
        .map(|row| {
            let parts = parts.remove(&row.id).unwrap_or_default();
            read(row, parts)
        })
        .collect()
}

/// Adds a reservation and its lines; `false` if the id is taken.
pub(super) async fn insert(txn: &Txn, reservation: &Reservation) -> Result<bool, Failure> {
    let sql = "INSERT INTO reservation (id, order_id, saga, state, expires_at, overdue_at, \
         committed_at, revision, created_at, updated_at) \
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10) ON CONFLICT DO NOTHING";
    let values = vec![
        reservation.id.to_string().into(),
        reservation.order.map(|id| id.to_string()).into(),
        reservation.saga.clone().into(),
        reservation.state.to_string().into(),
        micros(reservation.expires_at).into(),
        reservation.overdue_at.map(micros).into(),
        reservation.committed_at.map(micros).into(),
        reservation.revision.into(),
        micros(reservation.created_at).into(),
        micros(reservation.updated_at).into(),
    ];
    if execute(txn, "add a reservation", sql, values).await? == 0 {
        return Ok(false);
    }
    insert_parts(txn, reservation).await?;
    Ok(true)
}

/// Writes what changed about a reservation that was locked.
pub(super) async fn save(txn: &Txn, reservation: &Reservation) -> Result<(), Error> {
    let sql = "UPDATE reservation SET state = $2, expires_at = $3, overdue_at = $4, \
         committed_at = $5, updated_at = $6, revision = $7 WHERE id = $1 AND revision = $7 - 1";
    let values = vec![
        reservation.id.to_string().into(),
        reservation.state.to_string().into(),
        micros(reservation.expires_at).into(),
        reservation.overdue_at.map(micros).into(),
        reservation.committed_at.map(micros).into(),
        micros(reservation.updated_at).into(),
        reservation.revision.into(),
    ];
    match execute(txn, "change a reservation", sql, values).await? {
        0 => Err(Error::Changed(events::reservation_name(reservation.id))),
        _one => Ok(()),
    }
}

/// Writes how much of each part has left and come back.
pub(super) async fn save_parts(txn: &Txn, reservation: &Reservation) -> Result<(), Failure> {
    let sql = "UPDATE reservation_line SET shipped = $3, returned = $4 \
         WHERE reservation = $1 AND part = $2 AND (shipped <> $3 OR returned <> $4)";
    let id = reservation.id.to_string();
    for (number, part) in (1_i64..).zip(&reservation.parts) {
        let values =
            vec![id.as_str().into(), number.into(), part.shipped.into(), part.returned.into()];
        execute(txn, "count what left", sql, values).await?;
    }
    Ok(())
}

/// Writes from where an expired hold is taken now.
pub(super) async fn replace_parts(txn: &Txn, reservation: &Reservation) -> Result<(), Failure> {
    let sql = "DELETE FROM reservation_line WHERE reservation = $1";
    execute(txn, "move lines", sql, vec![reservation.id.to_string().into()]).await?;
    insert_parts(txn, reservation).await
}

async fn insert_parts(txn: &Txn, reservation: &Reservation) -> Result<(), Failure> {
    const COLUMNS: usize = 6;
    // More than a thousand would have to come from a hundred lines split over ten places each.
    const CHUNK: usize = 1_000;
    let id = reservation.id.to_string();
    let numbered: Vec<(i64, &Allotment)> = (1..).zip(&reservation.parts).collect();
    for chunk in numbered.chunks(CHUNK) {
        let sql = format!(
            "INSERT INTO reservation_line (reservation, part, line, sku, location, quantity) \
             VALUES {}",
            marks(chunk.len(), COLUMNS)
        );
        let mut values: Vec<Value> = Vec::with_capacity(chunk.len() * COLUMNS);
        for (number, part) in chunk {
            values.extend([
                id.as_str().into(),
                (*number).into(),
                part.line.as_str().into(),
                part.sku.as_str().into(),
                part.place.as_str().into(),
                part.quantity.into(),
            ]);
        }
        execute(txn, "add lines", &sql, values).await?;
    }
    Ok(())
}

const STATES: [State; 5] =
    [State::Held, State::Committed, State::Fulfilled, State::Released, State::Expired];

fn read(row: Row, parts: Vec<Allotment>) -> Result<Reservation, Failure> {
    let uuid = |text: &str| Uuid::try_parse(text).map_err(|_error| broken("id"));
    Ok(Reservation {
        id: uuid(&row.id)?,
        order: row.order_id.as_deref().map(uuid).transpose()?,
        saga: row.saga,
        state: STATES
            .into_iter()
            .find(|state| state.to_string() == row.state)
            .ok_or_else(|| broken("state"))?,
        parts,
        expires_at: from_micros(row.expires_at),
        overdue_at: row.overdue_at.map(from_micros),
        committed_at: row.committed_at.map(from_micros),
        revision: row.revision,
        created_at: from_micros(row.created_at),
        updated_at: from_micros(row.updated_at),
    })
}
