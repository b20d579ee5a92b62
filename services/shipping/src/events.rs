//! What is published about a shipment; what is consumed: nothing.

use mesh::outbox::Fact;
use proto::shipping::v1::{self as api, shipment::Line};
use time::OffsetDateTime;
use uuid::Uuid;

use crate::domain::{CancelReason, Event, Shipment};

/// The published form of what happened to a shipment.
#[must_use]
pub fn published(shipment: &Shipment, event: Event) -> Fact {
    let name = name(shipment.id);
    let plan = &shipment.plan;
    let (order, customer) = (plan.order.clone(), plan.customer.clone());
    let (lines, location) = (lines(shipment), plan.location.clone());
    let booking = shipment.booking.clone();
    let (carrier, tracking) = booking.map(|it| (it.carrier, it.tracking)).unwrap_or_default();
    match event {
        Event::Created => {
            let message = api::ShipmentCreated { shipment: name, order, customer, lines, location };
            Fact::of("shipment.created", &message)
        }
        Event::Booked => Fact::of(
            "shipment.booked",
            &api::ShipmentBooked {
                shipment: name,
                order,
                customer,
                lines,
                location,
                carrier,
                tracking,
            },
        ),
        Event::Dispatched => Fact::of(
            "shipment.dispatched",
            &api::ShipmentDispatched {
                shipment: name,
                order,
                customer,
                lines,
                location,
                carrier,
                tracking,
            },
        ),
        Event::InTransit => {
            let message =
                api::ShipmentInTransit { shipment: name, order, customer, lines, location };
            Fact::of("shipment.in_transit", &message)
        }
        Event::Delivered => {
            let message =
                api::ShipmentDelivered { shipment: name, order, customer, lines, location };
            Fact::of("shipment.delivered", &message)
        }
        Event::Lost => {
            let message = api::ShipmentLost { shipment: name, order, customer, lines, location };
            Fact::of("shipment.lost", &message)
        }
        Event::Returned => {
            let message =
                api::ShipmentReturned { shipment: name, order, customer, lines, location };
            Fact::of("shipment.returned", &message)
        }
        Event::Cancelled => {
            let reason = reason(shipment.cancel_reason).into();
            let message =
                api::ShipmentCancelled { shipment: name, order, customer, lines, location, reason };
            Fact::of("shipment.cancelled", &message)
        }
    }
}

/// The name of a shipment, which is also the aggregate of its events.
#[must_use]
pub fn name(id: Uuid) -> String {
    format!("shipments/{id}")
}

/// What is sent, as the API writes it.
#[must_use]
pub fn lines(shipment: &Shipment) -> Vec<Line> {
    let line = |line: &crate::domain::Line| Line {
        line_id: line.id.clone(),
        variant: line.variant.clone(),
        quantity: line.quantity,
    };
    shipment.plan.lines.iter().map(line).collect()
}

/// Why a shipment is cancelled, as the API writes it.
#[must_use]
pub fn reason(reason: Option<CancelReason>) -> api::CancelReason {
    match reason {
        None => api::CancelReason::Unspecified,
        Some(CancelReason::OrderCancelled) => api::CancelReason::OrderCancelled,
        Some(CancelReason::GoodsUnavailable) => api::CancelReason::GoodsUnavailable,
        Some(CancelReason::CarrierRefused) => api::CancelReason::CarrierRefused,
    }
}

/// A time as the API writes it.
#[must_use]
pub fn timestamp(at: OffsetDateTime) -> prost_types::Timestamp {
    // Below one second there are less than 10^9 nanoseconds: always fits.
    let nanos = i32::try_from(at.nanosecond()).unwrap_or_default();
    prost_types::Timestamp { seconds: at.unix_timestamp(), nanos }
}

#[cfg(test)]
mod tests {
    use prost::Message as _;

    use super::*;
    use crate::domain::{Booking, Line, Plan, Started};

    #[test]
    fn an_event_says_whose_goods_these_are_and_who_takes_them() {
        let plan = Plan {
            order: "orders/1".to_owned(),
            customer: "users/2".to_owned(),
            location: "locations/north".to_owned(),
            lines: vec![Line {
                id: "1".to_owned(),
                variant: "variants/MUG".to_owned(),
                quantity: 2,
            }],
            ship_to: None,
        };
        let started = Started { id: Uuid::nil(), at: OffsetDateTime::UNIX_EPOCH };
        let (mut shipment, _) = Shipment::create(Uuid::nil(), plan, started);
        let tracking = "MP1".to_owned();
        shipment.booking = Some(Booking { carrier: "mesh-parcel".to_owned(), tracking });
        let fact = published(&shipment, Event::Dispatched);
        let told = "type.googleapis.com/ordermesh.shipping.v1.ShipmentDispatched";
        assert_eq!((fact.kind, fact.data.type_url.as_str()), ("shipment.dispatched", told));
        let read = api::ShipmentDispatched::decode(fact.data.value.as_slice()).unwrap();
        assert_eq!((read.order.as_str(), read.customer.as_str()), ("orders/1", "users/2"));
        assert_eq!((read.carrier.as_str(), read.tracking.as_str()), ("mesh-parcel", "MP1"));
        assert_eq!((read.lines[0].variant.as_str(), read.lines[0].quantity), ("variants/MUG", 2));
    }
}
