//! The parts that a sample is put together from.

use super::{CUSTOMER, NOON, ORDER, SAGA, SECOND, SHIPMENT, movement, order_name, payment_name};
use crate::{
    history::{Answer, Asked, Outcome, Record, Seen},
    world::{
        Attempt, CarrierEvent, Cursor, Mail, Message, Notification, Parcel, Part, Payment, Posting,
        ProviderEntry, Reservation, Saga, SagaStep, Shipment, ShipmentLine, Stock, World,
    },
};

pub(super) fn log(world: &mut World, service: &str, aggregate: &str, seq: i64, kind: &str) {
    let log = world.outboxes.entry(service.to_owned()).or_default();
    let position = i64::try_from(log.len()).unwrap() + 1;
    log.push(Message {
        event_id: format!("{service}-{position}"),
        aggregate: aggregate.to_owned(),
        seq,
        kind: kind.to_owned(),
        created_at: NOON + seq * SECOND,
        position: Some(position),
    });
}

pub(super) fn hold(world: &mut World, state: &str, movements: &[&str], counters: [i64; 3]) {
    let [on_hand, held, allocated] = counters;
    world.stocks.push(Stock {
        sku: "SKU".to_owned(),
        location: "north".to_owned(),
        on_hand,
        held,
        allocated,
        backorder_limit: 0,
    });
    world.movements.push(movement("RECEIVED", 10, 0));
    for (second, kind) in (1..).zip(movements) {
        world.movements.push(movement(kind, 2, second));
    }
    let revision = i64::try_from(movements.len()).unwrap();
    world.reservations.push(Reservation {
        id: ORDER.to_owned(),
        order_id: ORDER.to_owned(),
        saga: SAGA.to_owned(),
        state: state.to_owned(),
        expires_at: NOON + 86_400 * SECOND,
        revision,
        created_at: NOON + SECOND,
    });
    for seq in 1..=revision {
        log(world, "inventory", &format!("reservations/{ORDER}"), seq, "stock.held");
    }
    world.parts.push(Part {
        reservation: ORDER.to_owned(),
        line: "1".to_owned(),
        sku: "SKU".to_owned(),
        location: "north".to_owned(),
        quantity: 2,
    });
}

pub(super) fn authorize(world: &mut World) {
    let reference = format!("pay/{ORDER}/authorize/1");
    world.payments.push(Payment {
        id: ORDER.to_owned(),
        order_name: ORDER.to_owned(),
        state: "AUTHORIZED".to_owned(),
        amount_minor: 1_000,
        currency: "EUR".to_owned(),
        authorized_minor: 1_000,
        captured_minor: 0,
        refunded_minor: 0,
        revision: 1,
    });
    log(world, "payments", &payment_name(), 1, "payment.authorized");
    let sides = [("HOLD", 1_000), ("CUSTOMER", -1_000)];
    world.postings.extend(postings(&reference, "AUTHORIZED", &sides));
    world.provider.push(provider(1, &reference, "authorized", 1_000, 0));
    world.attempts.push(attempt("AUTHORIZE", &reference));
}

pub(super) fn capture(world: &mut World) {
    let reference = format!("pay/{ORDER}/capture/1");
    let sides = [("HOLD", -1_000), ("RECEIVABLE", 985), ("FEES", 15)];
    world.postings.extend(postings(&reference, "CAPTURED", &sides));
    world.provider.push(provider(2, &reference, "captured", 1_000, 15));
    world.attempts.push(attempt("CAPTURE", &reference));
    world.payments[0].captured_minor = 1_000;
    world.payments[0].revision = 2;
    log(world, "payments", &payment_name(), 2, "payment.captured");
}

pub(super) fn ship(world: &mut World, state: &str, events: &[&str]) {
    let revision = i64::try_from(events.len()).unwrap();
    world.shipments.push(Shipment {
        id: SHIPMENT.to_owned(),
        order_name: ORDER.to_owned(),
        state: state.to_owned(),
        location: "north".to_owned(),
        carrier: "built-in".to_owned(),
        tracking: "T1".to_owned(),
        revision,
        created_at: NOON + 4 * SECOND,
    });
    world.shipment_lines.push(ShipmentLine {
        shipment: SHIPMENT.to_owned(),
        line: "1".to_owned(),
        variant: "SKU".to_owned(),
        quantity: 2,
    });
    let reference = format!("ship/{SHIPMENT}/book/1");
    world.parcels.push(Parcel {
        reference: reference.clone(),
        tracking: "T1".to_owned(),
        stage: state.to_owned(),
    });
    for (seq, kind) in (1..).zip(events) {
        log(world, "shipping", &format!("shipments/{SHIPMENT}"), seq, &format!("shipment.{kind}"));
        world.carrier_events.push(CarrierEvent {
            reference: reference.clone(),
            kind: kind.to_uppercase(),
            at: NOON + (4 + seq) * SECOND,
        });
    }
}

pub(super) fn saga(world: &mut World, state: &str, done: &[&str], undone: &[&str]) {
    world.sagas.push(Saga {
        id: SAGA.to_owned(),
        kind: "orders.fulfilment.v1".to_owned(),
        key: ORDER.to_owned(),
        state: state.to_owned(),
        next_run_at: NOON + 3_600 * SECOND,
        ..Saga::default()
    });
    let done = done.iter().map(|key| (key, "DO"));
    let steps = done.chain(undone.iter().map(|key| (key, "UNDO")));
    world.steps.extend((1..).zip(steps).map(|(second, (key, direction))| SagaStep {
        saga: SAGA.to_owned(),
        step_key: (*key).to_owned(),
        direction: direction.to_owned(),
        state: "OK".to_owned(),
        started_at: NOON + second * SECOND,
        ended_at: Some(NOON + second * SECOND + 1_000),
    }));
}

/// A letter for the order's creation, and one for its confirmation.
pub(super) fn mail(world: &mut World) {
    let log = world.outboxes.get("orders").cloned().unwrap_or_default();
    let told = log.iter().filter(|it| matches!(&*it.kind, "order.created" | "order.confirmed"));
    for event in told {
        let message_id = format!("<{}@ordermesh.example>", event.event_id);
        world.notifications.push(Notification {
            id: format!("n{}", event.seq),
            event_id: event.event_id.clone(),
            order_id: ORDER.to_owned(),
            channel: "EMAIL".to_owned(),
            recipient: "ada@example.org".to_owned(),
            kind: event.kind.replace('.', "_").to_uppercase(),
            state: "SENT".to_owned(),
            message_id: message_id.clone(),
            created_at: event.created_at + 1_000,
        });
        world.mails.push(Mail {
            file: format!("new/{}", event.event_id),
            message_id,
            to: "ada@example.org".to_owned(),
            subject: event.kind.clone(),
            order_id: ORDER.to_owned(),
        });
    }
}

/// Everybody has read everything.
pub(super) fn cursors(world: &mut World) {
    let readers = [
        ("notifications", "orders"),
        ("notifications", "shipping"),
        ("orders", "payments"),
        ("orders", "shipping"),
    ];
    world.cursors.extend(readers.map(|(consumer, source)| Cursor {
        consumer: consumer.to_owned(),
        source: source.to_owned(),
        position: 99,
    }));
}

pub(super) fn watch(world: &mut World, ended: bool) {
    let seen = world.events.iter().map(|it| Seen {
        revision: it.revision,
        event: if it.revision == 1 { String::new() } else { it.kind.clone() },
        first: it.revision == 1,
    });
    let asked = Asked::Watch { order: order_name(), seen: seen.collect(), ended };
    world.history.push(record(9, asked, None));
}

pub(super) fn postings(reference: &str, movement: &str, sides: &[(&str, i64)]) -> Vec<Posting> {
    let posting = |(account, amount_minor): &(&str, i64)| Posting {
        payment: ORDER.to_owned(),
        reference: reference.to_owned(),
        movement: movement.to_owned(),
        account: (*account).to_owned(),
        amount_minor: *amount_minor,
        currency: "EUR".to_owned(),
        at: NOON + 2 * SECOND,
    };
    sides.iter().map(posting).collect()
}

pub(super) fn provider(
    position: i64,
    reference: &str,
    movement: &str,
    amount: i64,
    fee: i64,
) -> ProviderEntry {
    ProviderEntry {
        position,
        reference: reference.to_owned(),
        movement: movement.to_owned(),
        amount_minor: amount,
        currency: "EUR".to_owned(),
        fee_minor: fee,
        at: NOON / SECOND + 2,
        settled: true,
    }
}

pub(super) fn attempt(kind: &str, reference: &str) -> Attempt {
    Attempt {
        payment: ORDER.to_owned(),
        kind: kind.to_owned(),
        reference: reference.to_owned(),
        state: "SUCCEEDED".to_owned(),
        amount_minor: 1_000,
        created_at: NOON + 2 * SECOND,
    }
}

pub(super) fn record(number: u64, asked: Asked, answer: Option<Answer>) -> Record {
    Record {
        number,
        by: CUSTOMER.to_owned(),
        invoke: NOON,
        complete: NOON + SECOND,
        asked,
        outcome: Outcome::Ok,
        why: String::new(),
        answer,
    }
}

pub(super) fn answer(state: &str, revision: i64) -> Answer {
    Answer {
        order: order_name(),
        state: state.to_owned(),
        revision,
        digest: format!("d{revision}"),
        replayed: false,
    }
}
