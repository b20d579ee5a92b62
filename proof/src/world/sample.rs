//! Small worlds without a fault, for tests to break.

mod parts;

use self::parts::{
    answer, attempt, authorize, capture, cursors, hold, log, mail, postings, provider, record,
    saga, ship, watch,
};
use crate::{
    check::{Finding, HISTORY},
    history::Asked,
    world::{Movement, Order, OrderEvent, OrderLine, Posting, Refund, World},
};

pub(crate) const ORDER: &str = "018f3333-0000-7000-8000-000000000001";
pub(crate) const SHIPMENT: &str = "018f3333-0000-5000-8000-000000000001";
const CUSTOMER: &str = "users/018f3333-0000-7000-8000-00000000000a";
const SAGA: &str = "018f3333-0000-7000-8000-0000000000f0";
const REQUEST: &str = "018f3333-0000-4000-8000-0000000000f1";
const NOON: i64 = 1_714_564_800_000_000;
const SECOND: i64 = 1_000_000;

pub(crate) fn order_name() -> String {
    format!("orders/{ORDER}")
}

pub(crate) fn payment_name() -> String {
    format!("payments/{ORDER}")
}

/// What findings are about.
pub(crate) fn subjects(findings: &[Finding]) -> Vec<&str> {
    findings.iter().map(|it| it.subject.as_str()).collect()
}

/// An order of two units, delivered and paid for.
pub(crate) fn completed() -> World {
    let mut world = base();
    tell(
        &mut world,
        &[
            ("created", "PENDING", "UNPAID"),
            ("payment_changed", "PENDING", "AUTHORIZED"),
            ("confirmed", "CONFIRMED", "AUTHORIZED"),
            ("payment_changed", "CONFIRMED", "CAPTURED"),
            ("fulfillment_changed", "CONFIRMED", "CAPTURED"),
            ("completed", "COMPLETED", "CAPTURED"),
        ],
    );
    world.lines[0].shipped = 2;
    world.lines[0].delivered = 2;
    hold(&mut world, "FULFILLED", &["HELD", "ALLOCATED", "SHIPPED"], [8, 0, 0]);
    authorize(&mut world);
    capture(&mut world);
    ship(&mut world, "DELIVERED", &["created", "booked", "dispatched", "in_transit", "delivered"]);
    saga(&mut world, "DONE", &["hold_stock", "authorize_payment", "commit_stock", "ship"], &[]);
    mail(&mut world);
    watch(&mut world, true);
    world
}

/// The same, lost on its way and refunded.
pub(crate) fn refunded() -> World {
    let mut world = completed();
    world.events.clear();
    world.outboxes.remove("orders");
    world.history.clear();
    tell(
        &mut world,
        &[
            ("created", "PENDING", "UNPAID"),
            ("confirmed", "CONFIRMED", "AUTHORIZED"),
            ("payment_changed", "CONFIRMED", "CAPTURED"),
            ("line_cancelled", "CONFIRMED", "OVERCHARGED"),
            ("payment_changed", "CONFIRMED", "REFUNDED"),
            ("completed", "COMPLETED", "REFUNDED"),
        ],
    );
    world.notifications.clear();
    world.mails.clear();
    mail(&mut world);
    let line = &mut world.lines[0];
    (line.cancelled, line.shipped, line.delivered, line.total_minor) = (2, 0, 0, 0);
    world.shipments[0].state = "LOST".to_owned();
    if let Some(last) = world.outboxes.get_mut("shipping").and_then(|log| log.last_mut()) {
        last.kind = "shipment.lost".to_owned();
    }
    let reference = format!("pay/{ORDER}/refund/1");
    world.postings.extend(refund_postings(&reference, 1_000));
    world.refunds.push(Refund { saga: SAGA.to_owned(), ..refund("lost", 1_000) });
    world.provider.push(provider(3, &reference, "refunded", 1_000, 0));
    world.attempts.push(attempt("REFUND", &reference));
    world.payments[0].refunded_minor = 1_000;
    world
}

/// An order that was confirmed and then called off.
pub(crate) fn cancelled() -> World {
    let mut world = base();
    tell(
        &mut world,
        &[
            ("created", "PENDING", "UNPAID"),
            ("payment_changed", "PENDING", "AUTHORIZED"),
            ("confirmed", "CONFIRMED", "AUTHORIZED"),
            ("cancelling", "CANCELLING", "AUTHORIZED"),
            ("payment_changed", "CANCELLING", "VOIDED"),
            ("cancelled", "CANCELLED", "VOIDED"),
        ],
    );
    hold(&mut world, "RELEASED", &["HELD", "ALLOCATED", "DEALLOCATED"], [10, 0, 0]);
    authorize(&mut world);
    let reference = format!("pay/{ORDER}/void/1");
    let sides = [("HOLD", -1_000), ("CUSTOMER", 1_000)];
    world.postings.extend(postings(&reference, "RELEASED", &sides));
    world.provider.push(provider(2, &reference, "released", 1_000, 0));
    world.attempts.push(attempt("VOID", &reference));
    world.payments[0].authorized_minor = 0;
    world.payments[0].state = "VOIDED".to_owned();
    saga(&mut world, "COMPENSATED", &["hold_stock"], &["authorize_payment", "hold_stock"]);
    mail(&mut world);
    let asked = Asked::Cancel { order: order_name(), request_id: REQUEST.to_owned() };
    let answer = answer("CANCELLING", 4);
    world.history.push(record(2, asked, Some(answer)));
    watch(&mut world, true);
    world
}

/// An order whose stock is held and whose payment is not asked for yet.
pub(crate) fn in_flight() -> World {
    let mut world = base();
    tell(&mut world, &[("created", "PENDING", "UNPAID")]);
    hold(&mut world, "HELD", &["HELD"], [10, 2, 0]);
    saga(&mut world, "RUNNING", &["hold_stock"], &[]);
    mail(&mut world);
    watch(&mut world, false);
    world
}

pub(crate) fn movement(kind: &str, quantity: i64, second: i64) -> Movement {
    let cause = if kind == "RECEIVED" { String::new() } else { ORDER.to_owned() };
    Movement {
        id: format!("m{second}"),
        sku: "SKU".to_owned(),
        location: "north".to_owned(),
        kind: kind.to_owned(),
        quantity,
        cause,
        at: NOON + second * SECOND,
    }
}

pub(crate) fn refund(id: &str, amount_minor: i64) -> Refund {
    Refund {
        id: id.to_owned(),
        payment: ORDER.to_owned(),
        state: "SUCCEEDED".to_owned(),
        amount_minor,
        saga: String::new(),
        created_at: NOON + 9 * SECOND,
    }
}

pub(crate) fn refund_postings(reference: &str, amount: i64) -> Vec<Posting> {
    let mut sides =
        postings(reference, "REFUND_GRANTED", &[("RECEIVABLE", -amount), ("PAYABLE", amount)]);
    sides.extend(postings(reference, "REFUNDED", &[("PAYABLE", -amount), ("CUSTOMER", amount)]));
    sides
}

fn base() -> World {
    let mut world = World { at: NOON + 3_600 * SECOND, ..World::default() };
    cursors(&mut world);
    for table in [
        "orders",
        "order_line",
        "order_event",
        "saga",
        "saga_step",
        "outbox",
        "cursor",
        "dead_letter",
        "stock",
        "reservation",
        "reservation_line",
        "movement",
        "payment",
        "attempt",
        "refund",
        "ledger_entry",
        "provider",
        "shipment",
        "shipment_line",
        "carrier_parcel",
        "carrier_event",
        "notification",
        HISTORY,
    ] {
        world.tables.insert(table.to_owned());
    }
    world.lines.push(OrderLine {
        order_id: ORDER.to_owned(),
        number: "1".to_owned(),
        variant: "SKU".to_owned(),
        total_minor: 1_000,
        ordered: 2,
        ..OrderLine::default()
    });
    world
}

/// The order, its history and its events, a second apart, and the call that made it.
fn tell(world: &mut World, history: &[(&str, &str, &str)]) {
    for (revision, (kind, state, payment_state)) in (1..).zip(history) {
        let kind = format!("order.{kind}");
        let at = NOON + revision * SECOND;
        world.events.push(OrderEvent {
            order_id: ORDER.to_owned(),
            revision,
            kind: kind.clone(),
            at,
            actor: "services/orders".to_owned(),
            state: (*state).to_owned(),
            payment_state: (*payment_state).to_owned(),
            note: String::new(),
        });
        log(world, "orders", &order_name(), revision, &kind);
    }
    let last = world.events.last().unwrap();
    let confirmed = world.events.iter().find(|it| it.kind == "order.confirmed");
    world.orders = vec![Order {
        id: ORDER.to_owned(),
        customer: CUSTOMER.to_owned(),
        state: last.state.clone(),
        payment_state: last.payment_state.clone(),
        currency: "EUR".to_owned(),
        total_minor: 1_000,
        request_id: REQUEST.to_owned(),
        placed_at: NOON,
        confirmed_at: confirmed.map(|it| it.at),
        revision: last.revision,
        ..Order::default()
    }];
    let asked = Asked::Create { request_id: REQUEST.to_owned() };
    world.history.push(record(1, asked, Some(answer("PENDING", 1))));
}
