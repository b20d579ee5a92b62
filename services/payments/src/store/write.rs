//! What is written: the row of a payment, locked first, with all that follows from a change.

use mesh::{
    clock::{self, micros},
    outbox,
    store::{self as db, Failure, Txn},
};
use time::OffsetDateTime;
use uuid::Uuid;

use super::{
    read::{attempts_of, refunds_of},
    rows::{self, ATTEMPT, ENTRY, PAYMENT, PaymentRow, REFUND},
};
use crate::{
    domain::{Attempt, Change, Payment, RefundOverview, balanced},
    error::Error,
    events,
};

/// Reads a payment and keeps others from changing it until the transaction ends. The write does
/// nothing but lock: both databases know it.
pub(super) async fn locked(txn: &Txn, id: Uuid) -> Result<Option<Payment>, Failure> {
    let sql =
        format!("UPDATE payment SET updated_at = updated_at WHERE id = $1 RETURNING {PAYMENT}");
    let values = vec![id.to_string().into()];
    let row: Option<PaymentRow> = db::row(txn, "lock a payment", &sql, values).await?;
    let Some(row) = row else { return Ok(None) };
    let attempts = attempts_of(txn, id).await?;
    let refunds = if row.is_taken() { refunds_of(txn, id).await? } else { Vec::new() };
    row.payment(attempts, refunds).map(Some)
}

/// Writes a payment that [`locked`] read: its row, the refunds and attempts that changed, the
/// postings, and one event per revision.
pub(super) async fn save(
    txn: &Txn,
    before: &Payment,
    after: &mut Payment,
    change: &Change,
    at: OffsetDateTime,
) -> Result<(), Error> {
    balanced(&change.postings)?;
    after.revision = before.revision + i64::try_from(change.events.len()).unwrap_or(0);
    if !change.events.is_empty() {
        after.updated_at = at;
    }
    if after != before {
        update(txn, after).await?;
    }
    for refund in &after.refunds {
        let known = before.refund_overview(refund.id);
        let shown = after.refund_overview(refund.id).filter(|shown| known.as_ref() != Some(shown));
        if let Some(shown) = shown {
            write_refund(txn, &shown, known.is_none()).await?;
        }
    }
    for (place, attempt) in after.attempts.iter().enumerate() {
        match before.attempts.get(place) {
            None => insert_attempt(txn, after.id, place, attempt).await?,
            Some(known) if known != attempt => update_attempt(txn, after.id, attempt).await?,
            Some(_) => {}
        }
    }
    for posting in &change.postings {
        let values = rows::of_posting(clock::id(), after.id, posting, micros(at));
        let sql = insert_into("ledger_entry", ENTRY, values.len());
        db::execute(txn, "post to the ledger", &sql, values).await?;
    }
    let aggregate = format!("payments/{}", after.id);
    for (seq, event) in (before.revision + 1..).zip(&change.events) {
        let fact = events::published(after, event);
        outbox::append(txn, &aggregate, seq, fact, at).await?;
    }
    Ok(())
}

/// Whether the payment is new.
pub(super) async fn insert(txn: &Txn, payment: &Payment) -> Result<bool, Failure> {
    let values = rows::of_payment(payment);
    let sql = insert_into("payment", PAYMENT, values.len()) + " ON CONFLICT DO NOTHING";
    Ok(db::execute(txn, "write a payment", &sql, values).await? == 1)
}

async fn update(txn: &Txn, payment: &Payment) -> Result<(), Failure> {
    let values = rows::of_payment(payment);
    let sql = format!("UPDATE payment SET {} WHERE id = $1", assignments(PAYMENT));
    db::execute(txn, "write a payment", &sql, values).await?;
    Ok(())
}

async fn write_refund(txn: &Txn, refund: &RefundOverview, is_new: bool) -> Result<(), Error> {
    let values = rows::of_refund(refund);
    let sql = if is_new {
        insert_into("refund", REFUND, values.len()) + " ON CONFLICT DO NOTHING"
    } else {
        format!("UPDATE refund SET {} WHERE id = $1", assignments(REFUND))
    };
    match db::execute(txn, "write a refund", &sql, values).await? {
        0 => Err(Error::RefundTaken(refund.refund.id)),
        _written => Ok(()),
    }
}

async fn insert_attempt(
    txn: &Txn,
    payment: Uuid,
    place: usize,
    attempt: &Attempt,
) -> Result<(), Failure> {
    let mut values = rows::of_attempt(payment, attempt);
    values.push(i64::try_from(place).unwrap_or(i64::MAX).into());
    let sql = insert_into("attempt", &format!("{ATTEMPT}, place"), values.len());
    db::execute(txn, "write an attempt", &sql, values).await?;
    Ok(())
}

/// Also gives the lease back: what there was to do is done, or is due later.
async fn update_attempt(txn: &Txn, payment: Uuid, attempt: &Attempt) -> Result<(), Failure> {
    let values = rows::of_attempt(payment, attempt);
    let sql = format!(
        "UPDATE attempt SET {}, lease_owner = NULL, lease_until = NULL WHERE id = $1",
        assignments(ATTEMPT)
    );
    db::execute(txn, "write an attempt", &sql, values).await?;
    Ok(())
}

fn insert_into(table: &str, columns: &str, count: usize) -> String {
    let places: Vec<String> = (1..=count).map(|place| format!("${place}")).collect();
    format!("INSERT INTO {table} ({columns}) VALUES ({})", places.join(", "))
}

/// `order_name = $2, customer = $3, …`: all but the id, which is `$1`.
fn assignments(columns: &str) -> String {
    let columns = columns.split(',').map(str::trim).zip(1..).skip(1);
    let each: Vec<String> = columns.map(|(column, place)| format!("{column} = ${place}")).collect();
    each.join(", ")
}
