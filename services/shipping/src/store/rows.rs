//! Rows: how shipments, lines and attempts are kept, and read back.

use mesh::{
    clock::{from_micros, micros},
    store::Failure,
};
use sea_orm::{FromQueryResult, Value};
use uuid::Uuid;

use crate::domain::{
    Attempt, AttemptState, Booking, CancelReason, Kind, Line, Plan, Shipment, Sign, State,
};

/// A row of `shipment`, less its trace.
#[derive(FromQueryResult)]
pub(super) struct ShipmentRow {
    id: String,
    order_name: String,
    customer: String,
    location: String,
    ship_to: Option<String>,
    state: String,
    cancel_reason: Option<String>,
    carrier: Option<String>,
    tracking: Option<String>,
    revision: i64,
    created_at: i64,
    updated_at: i64,
}

/// A row of `shipment_line`.
#[derive(FromQueryResult)]
pub(super) struct LineRow {
    shipment: String,
    line: String,
    variant: String,
    quantity: i64,
}

/// A row of `attempt`, less its lease.
#[derive(FromQueryResult)]
pub(super) struct AttemptRow {
    id: String,
    kind: String,
    reference: String,
    state: String,
    tries: i64,
    next_try_at: Option<i64>,
    decline_code: Option<String>,
    created_at: i64,
    shipment: String,
}

/// The columns of [`ShipmentRow`].
pub(super) const SHIPMENT: &str = "id, order_name, customer, location, ship_to, state, \
     cancel_reason, carrier, tracking, revision, created_at, updated_at";

/// The columns of [`AttemptRow`], less its shipment.
pub(super) const ATTEMPT: &str =
    "id, kind, reference, state, tries, next_try_at, decline_code, created_at";

// === impl ShipmentRow ===

impl ShipmentRow {
    pub(super) fn id(&self) -> &str {
        &self.id
    }

    pub(super) fn shipment(
        self,
        lines: Vec<Line>,
        attempts: Vec<Attempt>,
    ) -> Result<Shipment, Failure> {
        let ship_to = self.ship_to.as_deref().map(serde_json::from_str).transpose();
        let ship_to = ship_to.map_err(|error| unreadable(error.to_string()))?;
        let booking = match (self.carrier, self.tracking) {
            (Some(carrier), Some(tracking)) => Some(Booking { carrier, tracking }),
            (None, _) | (_, None) => None,
        };
        let reason = self.cancel_reason.as_deref();
        Ok(Shipment {
            id: uuid(&self.id)?,
            plan: Plan {
                order: self.order_name,
                customer: self.customer,
                location: self.location,
                lines,
                ship_to,
            },
            state: known(&STATES, &self.state)?,
            cancel_reason: reason.map(|reason| known(&REASONS, reason)).transpose()?,
            booking,
            attempts,
            revision: self.revision,
            created_at: from_micros(self.created_at),
            updated_at: from_micros(self.updated_at),
        })
    }
}

/// The values of a shipment, in the order of [`SHIPMENT`].
pub(super) fn of_shipment(shipment: &Shipment) -> Result<Vec<Value>, Failure> {
    let plan = &shipment.plan;
    let ship_to = plan.ship_to.as_ref().map(serde_json::to_string).transpose();
    let ship_to = ship_to.map_err(|error| Failure::new("write an address", error.to_string()))?;
    let booking = shipment.booking.as_ref();
    Ok(vec![
        shipment.id.to_string().into(),
        plan.order.as_str().into(),
        plan.customer.as_str().into(),
        plan.location.as_str().into(),
        ship_to.into(),
        text(&STATES, shipment.state).into(),
        shipment.cancel_reason.map(|reason| text(&REASONS, reason)).into(),
        booking.map(|booking| booking.carrier.clone()).into(),
        booking.map(|booking| booking.tracking.clone()).into(),
        shipment.revision.into(),
        micros(shipment.created_at).into(),
        micros(shipment.updated_at).into(),
    ])
}

// === impl LineRow ===

impl LineRow {
    pub(super) fn line(self) -> Result<(String, Line), Failure> {
        let quantity = i32::try_from(self.quantity);
        let quantity = quantity.map_err(|error| unreadable(error.to_string()))?;
        Ok((self.shipment, Line { id: self.line, variant: self.variant, quantity }))
    }
}

// === impl AttemptRow ===

impl AttemptRow {
    pub(super) fn attempt(self) -> Result<(String, Attempt), Failure> {
        let tries = usize::try_from(self.tries);
        let attempt = Attempt {
            id: uuid(&self.id)?,
            kind: known(&KINDS, &self.kind)?,
            reference: self.reference,
            state: known(&ATTEMPT_STATES, &self.state)?,
            tries: tries.map_err(|error| unreadable(error.to_string()))?,
            next_try_at: self.next_try_at.map(from_micros),
            decline_code: self.decline_code,
            created_at: from_micros(self.created_at),
        };
        Ok((self.shipment, attempt))
    }
}

/// The values of an attempt, in the order of [`ATTEMPT`].
pub(super) fn of_attempt(attempt: &Attempt) -> Vec<Value> {
    vec![
        attempt.id.to_string().into(),
        text(&KINDS, attempt.kind).into(),
        attempt.reference.as_str().into(),
        text(&ATTEMPT_STATES, attempt.state).into(),
        i64::try_from(attempt.tries).unwrap_or(i64::MAX).into(),
        attempt.next_try_at.map(micros).into(),
        attempt.decline_code.clone().into(),
        micros(attempt.created_at).into(),
    ]
}

const STATES: [(State, &str); 8] = [
    (State::Pending, "PENDING"),
    (State::Booked, "BOOKED"),
    (State::Dispatched, "DISPATCHED"),
    (State::InTransit, "IN_TRANSIT"),
    (State::Delivered, "DELIVERED"),
    (State::Lost, "LOST"),
    (State::Returned, "RETURNED"),
    (State::Cancelled, "CANCELLED"),
];

const REASONS: [(CancelReason, &str); 3] = [
    (CancelReason::OrderCancelled, "ORDER_CANCELLED"),
    (CancelReason::GoodsUnavailable, "GOODS_UNAVAILABLE"),
    (CancelReason::CarrierRefused, "CARRIER_REFUSED"),
];

const KINDS: [(Kind, &str); 3] =
    [(Kind::Book, "BOOK"), (Kind::HandOver, "HAND_OVER"), (Kind::Cancel, "CANCEL")];

const ATTEMPT_STATES: [(AttemptState, &str); 6] = [
    (AttemptState::Created, "CREATED"),
    (AttemptState::Sent, "SENT"),
    (AttemptState::Succeeded, "SUCCEEDED"),
    (AttemptState::Declined, "DECLINED"),
    (AttemptState::Failed, "FAILED"),
    (AttemptState::Unknown, "UNKNOWN"),
];

pub(super) const SIGNS: [(Sign, &str); 5] = [
    (Sign::PickedUp, "PICKED_UP"),
    (Sign::InTransit, "IN_TRANSIT"),
    (Sign::Delivered, "DELIVERED"),
    (Sign::Lost, "LOST"),
    (Sign::Returned, "RETURNED"),
];

pub(super) fn text<T: PartialEq>(names: &[(T, &'static str)], value: T) -> &'static str {
    names.iter().find(|(known, _)| *known == value).map_or("", |(_, name)| name)
}

fn known<T: Copy>(names: &[(T, &'static str)], text: &str) -> Result<T, Failure> {
    let found = names.iter().find(|(_, name)| *name == text).map(|(value, _)| *value);
    found.ok_or_else(|| unreadable(format!("`{text}` is not known")))
}

fn uuid(text: &str) -> Result<Uuid, Failure> {
    Uuid::try_parse(text).map_err(|error| unreadable(format!("`{text}`: {error}")))
}

fn unreadable(problem: String) -> Failure {
    Failure::new("read a row", problem)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn every_state_has_a_name_of_its_own() {
        let names: BTreeSet<_> = STATES.iter().map(|(_, name)| name).collect();
        assert_eq!(names.len(), STATES.len());
        for (state, name) in STATES {
            assert_eq!((state.to_string().as_str(), text(&STATES, state)), (name, name));
        }
        let names: BTreeSet<_> = ATTEMPT_STATES.iter().map(|(_, name)| name).collect();
        assert_eq!(names.len(), ATTEMPT_STATES.len());
    }
}
