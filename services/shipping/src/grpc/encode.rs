//! Values become messages.

use mesh::resource;
use proto::{google::r#type::PostalAddress, shipping::v1 as api};

use crate::{
    domain::{Address, Shipment, State},
    events::{lines, name, reason, timestamp},
};

/// A shipment.
pub(super) fn shipment(shipment: &Shipment) -> api::Shipment {
    let plan = &shipment.plan;
    let booking = shipment.booking.clone();
    let (carrier, tracking) = booking.map(|it| (it.carrier, it.tracking)).unwrap_or_default();
    // What is going to be cancelled is not, until the carrier agrees.
    let cancelled = shipment.cancel_reason.filter(|_| shipment.state == State::Cancelled);
    api::Shipment {
        name: name(shipment.id),
        order: plan.order.clone(),
        customer: plan.customer.clone(),
        state: state(shipment.state).into(),
        lines: lines(shipment),
        location: plan.location.clone(),
        ship_to: plan.ship_to.as_ref().map(address),
        carrier,
        tracking,
        cancel_reason: reason(cancelled).into(),
        create_time: Some(timestamp(shipment.created_at)),
        update_time: Some(timestamp(shipment.updated_at)),
        etag: resource::etag(shipment.revision),
    }
}

fn state(state: State) -> api::shipment::State {
    use api::shipment::State as Told;
    match state {
        State::Pending => Told::Pending,
        State::Booked => Told::Booked,
        State::Dispatched => Told::Dispatched,
        State::InTransit => Told::InTransit,
        State::Delivered => Told::Delivered,
        State::Lost => Told::Lost,
        State::Returned => Told::Returned,
        State::Cancelled => Told::Cancelled,
    }
}

fn address(address: &Address) -> PostalAddress {
    let address = address.clone();
    PostalAddress {
        revision: 0,
        region_code: address.region_code,
        language_code: address.language_code,
        postal_code: address.postal_code,
        sorting_code: address.sorting_code,
        administrative_area: address.administrative_area,
        locality: address.locality,
        sublocality: address.sublocality,
        address_lines: address.address_lines,
        recipients: address.recipients,
        organization: address.organization,
    }
}
