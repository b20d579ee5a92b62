//! What is published: each event of the domain as a message of the contract.

use mesh::outbox::Fact;
use prost::Name;
use prost_types::Any;
use proto::inventory::v1 as api;
use time::OffsetDateTime;
use uuid::Uuid;

use crate::domain::{
    Place, Sku, Stock,
    allocation::Allotment,
    reservation::{Event, Reservation},
};

/// The event as it leaves, with the reservation as it is after it.
#[must_use]
pub fn of_reservation(reservation: &Reservation, event: &Event) -> Fact {
    let name = reservation_name(reservation.id);
    let order = reservation.order.map(order_name).unwrap_or_default();
    let released = |parts: &[Allotment], cause: api::stock_released::Cause| {
        let (reservation, order) = (name.clone(), order.clone());
        let message =
            api::StockReleased { reservation, order, lines: lines(parts), cause: cause.into() };
        fact("stock.released", &message)
    };
    match event {
        Event::Held => fact(
            "stock.held",
            &api::StockHeld {
                reservation: name,
                order,
                lines: lines(&reservation.parts),
                expire_time: Some(timestamp(reservation.expires_at)),
            },
        ),
        Event::Extended => fact(
            "stock.hold_extended",
            &api::StockHoldExtended {
                reservation: name,
                order,
                expire_time: Some(timestamp(reservation.expires_at)),
            },
        ),
        Event::Overdue { saga } => fact(
            "stock.hold_overdue",
            &api::StockHoldOverdue {
                reservation: name,
                order,
                saga: saga.clone(),
                hold_time: Some(timestamp(reservation.created_at)),
            },
        ),
        Event::Allocated => fact(
            "stock.allocated",
            &api::StockAllocated { reservation: name, order, lines: lines(&reservation.parts) },
        ),
        Event::Released { parts } => released(parts, api::stock_released::Cause::Released),
        Event::Shipped { parts } => fact(
            "stock.shipped",
            &api::StockShipped { reservation: name, order, lines: lines(parts) },
        ),
        Event::Returned { parts } => fact(
            "stock.returned",
            &api::StockReturned { reservation: name, order, lines: lines(parts) },
        ),
        Event::Expired => released(&reservation.parts, api::stock_released::Cause::Expired),
    }
}

/// That what lies there was adjusted, with the stock as it is after it.
#[must_use]
pub fn of_adjustment(stock: &Stock, delta: i64, movement: Uuid) -> Fact {
    fact(
        "stock.adjusted",
        &api::StockAdjusted {
            stock: stock_name(&stock.place, &stock.sku),
            variant: variant_name(&stock.sku),
            delta,
            on_hand: stock.counters.on_hand,
            held: stock.counters.held,
            allocated: stock.counters.allocated,
            movement: movement_name(movement),
        },
    )
}

/// The name of a reservation, which is also the aggregate of its events.
#[must_use]
pub fn reservation_name(id: Uuid) -> String {
    format!("reservations/{id}")
}

/// The name of a stock, which is also the aggregate of its events.
#[must_use]
pub fn stock_name(place: &Place, sku: &Sku) -> String {
    format!("stocks/{place}~{sku}")
}

/// The name of a variant.
#[must_use]
pub fn variant_name(sku: &Sku) -> String {
    format!("variants/{sku}")
}

/// The name of a location.
#[must_use]
pub fn location_name(place: &Place) -> String {
    format!("locations/{place}")
}

/// The name of an order.
#[must_use]
pub fn order_name(id: Uuid) -> String {
    format!("orders/{id}")
}

/// The name of a movement.
#[must_use]
pub fn movement_name(id: Uuid) -> String {
    format!("movements/{id}")
}

/// A quantity of a line as the contract spells it.
#[must_use]
pub fn quantity(quantity: i64) -> i32 {
    // At most a million in one line: always fits.
    i32::try_from(quantity).unwrap_or(i32::MAX)
}

/// A time as the contract spells it.
#[must_use]
pub fn timestamp(at: OffsetDateTime) -> prost_types::Timestamp {
    // Below a second there are less than 10^9 nanoseconds: always fits.
    let nanos = i32::try_from(at.nanosecond()).unwrap_or_default();
    prost_types::Timestamp { seconds: at.unix_timestamp(), nanos }
}

fn lines(parts: &[Allotment]) -> Vec<api::ReservedStock> {
    let line = |part: &Allotment| api::ReservedStock {
        line_id: part.line.clone(),
        variant: variant_name(&part.sku),
        location: location_name(&part.place),
        quantity: quantity(part.quantity),
    };
    parts.iter().map(line).collect()
}

fn fact<M: Name>(kind: &'static str, message: &M) -> Fact {
    Fact { kind, data: Any { type_url: M::type_url(), value: message.encode_to_vec() } }
}
