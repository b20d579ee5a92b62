//! Values of the domain become messages.

use mesh::resource;
use proto::inventory::v1 as api;

use crate::{
    domain::{
        Counters, Movement, Reason, Sku, Stock,
        allocation::Allotment,
        reservation::{Reservation, State},
    },
    events::{
        location_name, movement_name, order_name, quantity, reservation_name, stock_name,
        timestamp, variant_name,
    },
    store::{Location, Moved},
};

pub(super) fn location(location: &Location) -> api::Location {
    api::Location {
        name: location_name(&location.place),
        display_name: location.display_name.clone(),
        create_time: Some(timestamp(location.created_at)),
    }
}

pub(super) fn stock(stock: &Stock) -> api::Stock {
    api::Stock {
        name: stock_name(&stock.place, &stock.sku),
        location: location_name(&stock.place),
        etag: resource::etag(stock.revision),
        create_time: Some(timestamp(stock.created_at)),
        update_time: Some(timestamp(stock.updated_at)),
        ..counters(&stock.sku, stock.counters)
    }
}

/// What there is of a variant everywhere.
pub(super) fn sum(sku: &Sku, stocks: &[Stock]) -> api::Stock {
    let of_it = stocks.iter().filter(|stock| stock.sku == *sku);
    let sum = of_it.fold(Counters::default(), |sum, stock| Counters {
        on_hand: sum.on_hand + stock.counters.on_hand,
        held: sum.held + stock.counters.held,
        allocated: sum.allocated + stock.counters.allocated,
    });
    api::Stock { name: format!("stocks/-~{sku}"), ..counters(sku, sum) }
}

pub(super) fn movement(moved: &Moved) -> api::Movement {
    let kind = match moved.movement {
        Movement::Received => api::movement::Kind::Received,
        Movement::Returned => api::movement::Kind::Returned,
        Movement::Held => api::movement::Kind::Held,
        Movement::HoldReleased => api::movement::Kind::HoldReleased,
        Movement::HoldExpired => api::movement::Kind::HoldExpired,
        Movement::Allocated => api::movement::Kind::Allocated,
        Movement::Deallocated => api::movement::Kind::Deallocated,
        Movement::Shipped => api::movement::Kind::Shipped,
        Movement::Adjusted => api::movement::Kind::Adjusted,
    };
    let reason = match moved.reason {
        None => api::AdjustmentReason::Unspecified,
        Some(Reason::Received) => api::AdjustmentReason::Received,
        Some(Reason::Counted) => api::AdjustmentReason::Counted,
        Some(Reason::Damaged) => api::AdjustmentReason::Damaged,
        Some(Reason::Lost) => api::AdjustmentReason::Lost,
    };
    api::Movement {
        name: movement_name(moved.id),
        stock: stock_name(&moved.place, &moved.sku),
        kind: kind.into(),
        quantity: moved.quantity,
        reason: reason.into(),
        note: moved.note.clone(),
        cause: moved.cause.map(reservation_name).unwrap_or_default(),
        actor: moved.actor.clone(),
        create_time: Some(timestamp(moved.at)),
    }
}

pub(super) fn reservation(reservation: &Reservation) -> api::Reservation {
    let state = match reservation.state {
        State::Held => api::reservation::State::Held,
        State::Committed => api::reservation::State::Committed,
        State::Fulfilled => api::reservation::State::Fulfilled,
        State::Released => api::reservation::State::Released,
        State::Expired => api::reservation::State::Expired,
    };
    let is_held = reservation.state == State::Held;
    api::Reservation {
        name: reservation_name(reservation.id),
        order: reservation.order.map(order_name).unwrap_or_default(),
        state: state.into(),
        lines: lines(&reservation.parts),
        expire_time: is_held.then(|| timestamp(reservation.expires_at)),
        etag: resource::etag(reservation.revision),
        create_time: Some(timestamp(reservation.created_at)),
        update_time: Some(timestamp(reservation.updated_at)),
    }
}

fn counters(sku: &Sku, counters: Counters) -> api::Stock {
    api::Stock {
        variant: variant_name(sku),
        on_hand: counters.on_hand,
        held: counters.held,
        allocated: counters.allocated,
        available: counters.available(),
        ..api::Stock::default()
    }
}

/// The parts of a line stand together, in the order of the lines.
fn lines(parts: &[Allotment]) -> Vec<api::reservation::Line> {
    parts
        .chunk_by(|a, b| a.line == b.line)
        .filter_map(|parts| {
            let first = parts.first()?;
            let allotment = |part: &Allotment| api::reservation::Allotment {
                location: location_name(&part.place),
                quantity: quantity(part.quantity),
                shipped: quantity(part.shipped),
                returned: quantity(part.returned),
            };
            Some(api::reservation::Line {
                line_id: first.line.clone(),
                variant: variant_name(&first.sku),
                quantity: quantity(parts.iter().map(|part| part.quantity).sum()),
                allotments: parts.iter().map(allotment).collect(),
            })
        })
        .collect()
}
