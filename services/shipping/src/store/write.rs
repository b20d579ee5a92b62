//! What is written: the row of a shipment, locked first, with all that follows from a change.

use mesh::{
    Ctx, outbox,
    store::{Failure, Txn, execute},
};
use sea_orm::Value;
use time::OffsetDateTime;
use uuid::Uuid;

use super::{
    read::select,
    rows::{self, ATTEMPT, SHIPMENT},
};
use crate::{
    domain::{Attempt, Change, Event, Shipment},
    error::Error,
    events,
};

/// Reads a shipment and keeps others from changing it until the transaction ends. The write does
/// nothing but lock: both databases know it.
pub(super) async fn locked(
    txn: &Txn,
    id: Uuid,
    for_update: &str,
) -> Result<Option<Shipment>, Failure> {
    let sql =
        format!("UPDATE shipment SET updated_at = updated_at WHERE id = $1 RETURNING {SHIPMENT}");
    Ok(select(txn, &sql, vec![id.to_string().into()], for_update).await?.into_iter().next())
}

/// Writes a shipment that [`locked`] read: its row, the attempts that changed, and one event per
/// revision.
pub(super) async fn save(
    txn: &Txn,
    before: &Shipment,
    after: &mut Shipment,
    change: &Change,
    at: OffsetDateTime,
) -> Result<(), Error> {
    after.revision = before.revision + i64::try_from(change.events.len()).unwrap_or(0);
    if !change.events.is_empty() {
        after.updated_at = at;
    }
    if after != before {
        update(txn, after).await?;
    }
    for (place, attempt) in after.attempts.iter().enumerate() {
        match before.attempts.get(place) {
            None => insert_attempt(txn, after.id, place, attempt).await?,
            Some(known) if known != attempt => update_attempt(txn, attempt).await?,
            Some(_) => {}
        }
    }
    publish(txn, after, before.revision, &change.events, at).await
}

/// Tells what happened to a shipment whose row has taken the revisions after `revision`.
pub(super) async fn publish(
    txn: &Txn,
    shipment: &Shipment,
    revision: i64,
    happened: &[Event],
    at: OffsetDateTime,
) -> Result<(), Error> {
    let aggregate = events::name(shipment.id);
    for (seq, event) in (revision + 1..).zip(happened) {
        let fact = events::published(shipment, *event);
        outbox::append(txn, &aggregate, seq, fact, at).await?;
    }
    Ok(())
}

/// Adds a shipment, its lines and its attempts; `false` if the id is taken.
pub(super) async fn insert(txn: &Txn, shipment: &Shipment) -> Result<bool, Failure> {
    let mut values = rows::of_shipment(shipment)?;
    // What happens to it later belongs to the call that it came from.
    values.push(Ctx::current().map(|ctx| ctx.traceparent()).into());
    let columns = format!("{SHIPMENT}, traceparent");
    let sql = insert_into("shipment", &columns, values.len()) + " ON CONFLICT DO NOTHING";
    if execute(txn, "note a shipment", &sql, values).await? == 0 {
        return Ok(false);
    }
    insert_lines(txn, shipment).await?;
    for (place, attempt) in shipment.attempts.iter().enumerate() {
        insert_attempt(txn, shipment.id, place, attempt).await?;
    }
    Ok(true)
}

/// At most 100 lines: they fit one statement.
async fn insert_lines(txn: &Txn, shipment: &Shipment) -> Result<(), Failure> {
    const COLUMNS: usize = 5;
    if shipment.plan.lines.is_empty() {
        return Ok(());
    }
    let mut values: Vec<Value> = Vec::with_capacity(shipment.plan.lines.len() * COLUMNS);
    for (place, line) in (0_i64..).zip(&shipment.plan.lines) {
        values.extend([
            shipment.id.to_string().into(),
            place.into(),
            line.id.as_str().into(),
            line.variant.as_str().into(),
            i64::from(line.quantity).into(),
        ]);
    }
    let marks = |row: usize| {
        let marks = (1..=COLUMNS).map(|column| format!("${}", row * COLUMNS + column));
        format!("({})", marks.collect::<Vec<_>>().join(", "))
    };
    let marks: Vec<String> = (0..shipment.plan.lines.len()).map(marks).collect();
    let sql = [
        "INSERT INTO shipment_line (shipment, place, line, variant, quantity) VALUES ",
        &marks.join(", "),
    ]
    .concat();
    execute(txn, "note the lines of a shipment", &sql, values).await?;
    Ok(())
}

/// The plan of a shipment never changes.
async fn update(txn: &Txn, shipment: &Shipment) -> Result<(), Failure> {
    let values = rows::of_shipment(shipment)?;
    let sql = format!("UPDATE shipment SET {} WHERE id = $1", assignments(SHIPMENT));
    execute(txn, "change a shipment", &sql, values).await?;
    Ok(())
}

async fn insert_attempt(
    txn: &Txn,
    shipment: Uuid,
    place: usize,
    attempt: &Attempt,
) -> Result<(), Failure> {
    let mut values = rows::of_attempt(attempt);
    values.push(shipment.to_string().into());
    values.push(i64::try_from(place).unwrap_or(i64::MAX).into());
    let columns = format!("{ATTEMPT}, shipment, place");
    let sql = insert_into("attempt", &columns, values.len());
    execute(txn, "note an attempt", &sql, values).await?;
    Ok(())
}

/// Also gives the lease back: what there was to do is done, or is due later.
async fn update_attempt(txn: &Txn, attempt: &Attempt) -> Result<(), Failure> {
    let values = rows::of_attempt(attempt);
    let sql = format!(
        "UPDATE attempt SET {}, lease_owner = NULL, lease_until = NULL WHERE id = $1",
        assignments(ATTEMPT)
    );
    execute(txn, "change an attempt", &sql, values).await?;
    Ok(())
}

fn insert_into(table: &str, columns: &str, count: usize) -> String {
    let places: Vec<String> = (1..=count).map(|place| format!("${place}")).collect();
    format!("INSERT INTO {table} ({columns}) VALUES ({})", places.join(", "))
}

/// `state = $2, tries = $3, …`: all but the id, which is `$1`.
fn assignments(columns: &str) -> String {
    let columns = columns.split(',').map(str::trim).zip(1..).skip(1);
    let each: Vec<String> = columns.map(|(column, place)| format!("{column} = ${place}")).collect();
    each.join(", ")
}
