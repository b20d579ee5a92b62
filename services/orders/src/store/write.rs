//! Writing orders, in a transaction that somebody else opened.

use mesh::{
    clock, outbox,
    store::{Failure, Txn, execute, row},
};
use sea_orm::{FromQueryResult, Value};
use uuid::Uuid;

use super::{Change, Stored, WriteError, read, rows};
use crate::{
    domain::{Event, Line, Order},
    events,
};

#[derive(FromQueryResult)]
struct Found {
    #[expect(dead_code, reason = "the row itself is the answer")]
    id: String,
}

const WRITE: &str = "write the order";
const LINE_COLUMNS: usize = 12;

/// The order as this transaction sees it.
///
/// # Errors
/// [`Failure`] of the database.
pub async fn load(txn: &Txn, id: Uuid) -> Result<Option<Stored>, Failure> {
    read::order(txn, id).await
}

/// Inserts an order that is new, with its lines and its first event.
pub(super) async fn place(
    txn: &Txn,
    change: &Change,
    request_id: Option<Uuid>,
) -> Result<(), WriteError> {
    let order = &change.order;
    let mut values = vec![order.id.to_string().into(), order.customer.as_str().into()];
    values.push(request_id.map(|id| id.to_string()).into());
    values.push(order.totals.total.currency.code().into());
    values.push(order.quoted.into());
    values.push(order.ship_to.as_ref().map(rows::json).transpose()?.into());
    values.push(order.payment_method.as_str().into());
    values.push(rows::stock_policy(order.stock_policy).into());
    values.push(clock::micros(order.placed_at).into());
    values.extend(mutable(order)?);
    values.push(change.revision().into());
    let sql = "INSERT INTO orders (id, customer, request_id, currency, quoted, ship_to, \
               payment_method, stock_policy, placed_at, customer_email, state, payment_state, \
               fulfillment_state, payment_attempt, authorized_minor, captured_minor, \
               refunded_minor, payment_voided, items_minor, discount_minor, shipping_minor, \
               tax_minor, total_minor, expected_minor, rejection, pending, parcels, confirm_by, \
               updated_at, confirmed_at, revision) \
               VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16, $17, \
               $18, $19, $20, $21, $22, $23, $24, $25, $26, $27, $28, $29, $30, $31) \
               ON CONFLICT DO NOTHING";
    if execute(txn, WRITE, sql, values).await? == 0 {
        let sql = "SELECT id FROM orders WHERE id = $1";
        let taken: Option<Found> = row(txn, WRITE, sql, vec![order.id.to_string().into()]).await?;
        return Err(if taken.is_some() { WriteError::Exists } else { WriteError::Reused });
    }
    insert_lines(txn, order).await?;
    publish(txn, change).await
}

/// Writes a change of an order that exists, with its events.
///
/// # Errors
/// [`WriteError::Changed`] if the order has another revision than the one that was read: read
/// it anew and decide again.
pub async fn save(txn: &Txn, change: &Change) -> Result<(), WriteError> {
    if change.events.is_empty() {
        return Ok(());
    }
    let order = &change.order;
    let mut values = mutable(order)?;
    values.push(change.revision().into());
    values.push(order.id.to_string().into());
    values.push(change.read.into());
    let sql = "UPDATE orders SET customer_email = $1, state = $2, payment_state = $3, \
               fulfillment_state = $4, payment_attempt = $5, authorized_minor = $6, \
               captured_minor = $7, refunded_minor = $8, payment_voided = $9, items_minor = $10, \
               discount_minor = $11, shipping_minor = $12, tax_minor = $13, total_minor = $14, \
               expected_minor = $15, rejection = $16, pending = $17, parcels = $18, \
               confirm_by = $19, updated_at = $20, confirmed_at = $21, revision = $22 \
               WHERE id = $23 AND revision = $24";
    if execute(txn, WRITE, sql, values).await? == 0 {
        return Err(WriteError::Changed);
    }
    if change.events.iter().any(touches_lines) {
        for line in &order.lines {
            revise_line(txn, order, line).await?;
        }
    }
    publish(txn, change).await
}

/// Whether an event leaves other lines behind.
fn touches_lines(event: &Event) -> bool {
    match event {
        Event::Revised | Event::FulfillmentChanged(_) | Event::LineCancelled(..) => true,
        Event::Created
        | Event::ActionRequired
        | Event::PaymentChanged(_)
        | Event::Confirmed
        | Event::Rejected
        | Event::Cancelling(_)
        | Event::Cancelled
        | Event::Expired
        | Event::CancelLost
        | Event::Completed => false,
    }
}

/// What can change about an order, in the order of the columns in [`place`] and [`save`].
fn mutable(order: &Order) -> Result<Vec<Value>, Failure> {
    let totals = &order.totals;
    Ok(vec![
        order.customer_email.as_str().into(),
        order.state.to_string().into(),
        rows::payment_state(order.payment_state()).into(),
        order.fulfillment_state().to_string().into(),
        rows::attempt(order.payment.attempt).into(),
        order.payment.authorized_minor.into(),
        order.payment.captured_minor.into(),
        order.payment.refunded_minor.into(),
        order.payment.voided.into(),
        totals.items.minor.into(),
        totals.discount.minor.into(),
        totals.shipping.minor.into(),
        totals.tax.minor.into(),
        totals.total.minor.into(),
        order.expected_total.map(|total| total.minor).into(),
        order.rejection.as_ref().map(rows::json).transpose()?.into(),
        order.pending.as_ref().map(rows::pending).transpose()?.into(),
        Some(&order.parcels).filter(|all| !all.is_empty()).map(rows::json).transpose()?.into(),
        clock::micros(order.confirm_by).into(),
        clock::micros(order.updated_at).into(),
        order.confirmed_at.map(clock::micros).into(),
    ])
}

async fn insert_lines(txn: &Txn, order: &Order) -> Result<(), Failure> {
    let mut values: Vec<Value> = Vec::with_capacity(order.lines.len() * LINE_COLUMNS);
    let mut groups = Vec::with_capacity(order.lines.len());
    for line in &order.lines {
        let first = values.len() + 1;
        values.push(order.id.to_string().into());
        values.push(rows::number(line)?.into());
        values.push(line.variant.as_str().into());
        values.push(line.title.as_str().into());
        values.push(line.unit_price.minor.into());
        values.push(line.price_version.as_str().into());
        values.push(line.discount.minor.into());
        values.push(line.tax.minor.into());
        values.push(line.total.minor.into());
        values.push(line.quantity.into());
        values.push(line.cancelled.into());
        values.push(line.kept().into());
        let names: Vec<String> =
            (first..first + LINE_COLUMNS).map(|number| format!("${number}")).collect();
        groups.push(format!("({})", names.join(",")));
    }
    let sql = format!(
        "INSERT INTO order_line (order_id, number, variant, title, unit_price_minor, \
         price_version, discount_minor, tax_minor, total_minor, ordered, cancelled, open) VALUES {}",
        groups.join(",")
    );
    execute(txn, WRITE, &sql, values).await?;
    Ok(())
}

async fn revise_line(txn: &Txn, order: &Order, line: &Line) -> Result<(), Failure> {
    let sql = "UPDATE order_line SET unit_price_minor = $1, price_version = $2, \
               discount_minor = $3, tax_minor = $4, total_minor = $5, cancelled = $6, open = $7, \
               shipped = $8, delivered = $9, returned = $10 WHERE order_id = $11 AND number = $12";
    let values = vec![
        line.unit_price.minor.into(),
        line.price_version.as_str().into(),
        line.discount.minor.into(),
        line.tax.minor.into(),
        line.total.minor.into(),
        line.cancelled.into(),
        line.open().into(),
        line.shipped.into(),
        line.delivered.into(),
        line.returned.into(),
        order.id.to_string().into(),
        rows::number(line)?.into(),
    ];
    execute(txn, WRITE, sql, values).await?;
    Ok(())
}

/// One entry and one event for each revision, after the row was written: its lock makes their
/// order the order of commits.
async fn publish(txn: &Txn, change: &Change) -> Result<(), WriteError> {
    let Change { order, read, events, actor, at } = change;
    let aggregate = events::name(order);
    for (seq, event) in (read.saturating_add(1)..).zip(events) {
        let fact = events::published(order, event);
        let sql = "INSERT INTO order_event \
                   (order_id, revision, type, at, actor, state, payment_state, \
                   fulfillment_state, note) VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9)";
        let values = vec![
            order.id.to_string().into(),
            seq.into(),
            fact.kind.into(),
            clock::micros(*at).into(),
            actor.as_str().into(),
            order.state.to_string().into(),
            rows::payment_state(order.payment_state()).into(),
            order.fulfillment_state().to_string().into(),
            events::note(order, event).into(),
        ];
        execute(txn, "note what happened", sql, values).await?;
        if let Event::Cancelling(cancellation) = event {
            let sql = "INSERT INTO cancellation (order_id, revision, reason, actor, note, at) \
                       VALUES ($1, $2, $3, $4, $5, $6)";
            let values = vec![
                order.id.to_string().into(),
                seq.into(),
                rows::cancel_reason(cancellation.reason).into(),
                cancellation.actor.as_str().into(),
                cancellation.note.as_str().into(),
                clock::micros(*at).into(),
            ];
            execute(txn, "note the cancellation", sql, values).await?;
        }
        outbox::append(txn, &aggregate, seq, fact, *at).await?;
    }
    Ok(())
}
