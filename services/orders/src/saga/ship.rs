//! Handing the goods to shipping, one shipment for each location, and calling them back.

use std::time::Duration;

use futures_util::future::join_all;
use mesh::{
    Within as _,
    client::{Verdict, judge},
    clock,
    saga::Outcome,
    status,
};
use proto::shipping::v1::{
    self as shipping, CancelShipmentRequest, CreateShipmentRequest, Shipment, shipment,
};
use time::OffsetDateTime;
use tonic::Status;

use super::{ACTOR, Fulfilment, LATER, Step, growing, merged, name, order_name, plan::Planned};
use crate::{
    domain::{CancelReason, Cancellation, Moved, Order, ParcelState, State},
    grpc::encode,
    store::Stored,
};

const CALL: Duration = Duration::from_secs(5);

/// How seldom a shipment is asked for that the carrier is being asked about.
const LONGEST: Duration = Duration::from_secs(10);

/// What became of a parcel that was to be called back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum CalledBack {
    /// It stays.
    Yes,
    /// The carrier has it.
    TooLate,
}

impl Fulfilment {
    pub(super) async fn ship(&self) -> Outcome {
        merged(self.try_to_ship().await)
    }

    /// The first undoing of a confirmed order: as long as the carrier has none of it, it can be
    /// called off; else the cancellation is lost, and the order goes on without what could be
    /// called back.
    pub(super) async fn call_back(&self) -> Outcome {
        merged(self.try_to_call_back().await)
    }

    /// The order, if it is confirmed; else the saga was turned round meanwhile, and what this step
    /// comes to is not recorded.
    pub(super) async fn confirmed_order(&self) -> Result<Stored, Outcome> {
        let stored = self.stored().await?;
        match stored.order.state {
            State::Confirmed => Ok(stored),
            State::Pending
            | State::ActionRequired
            | State::Cancelling
            | State::Rejected
            | State::Cancelled
            | State::Expired
            | State::Completed => Err(Outcome::wait(clock::now() + LATER, "the order moved on")),
        }
    }

    async fn try_to_ship(&self) -> Step {
        let stored = self.confirmed_order().await?;
        let plan = self.plan()?;
        let created = plan.iter().map(|parcel| {
            let request = self.creation(&stored.order, parcel);
            let mut shipping = self.peers.shipping.clone();
            async move { shipping.create_shipment(request.within(CALL)).await }
        });
        for created in join_all(created).await {
            created.map_err(refused)?;
        }
        Ok(Outcome::done())
    }

    fn creation(&self, order: &Order, parcel: &Planned) -> CreateShipmentRequest {
        let lines = parcel.units.iter().map(|units| {
            let line = order.lines.iter().find(|line| line.id == units.line_id);
            shipment::Line {
                line_id: units.line_id.clone(),
                variant: line.map(|line| line.variant.clone()).unwrap_or_default(),
                quantity: i32::try_from(units.quantity).unwrap_or(i32::MAX),
            }
        });
        CreateShipmentRequest {
            shipment: Some(Shipment {
                order: order_name(order),
                customer: order.customer.clone(),
                lines: lines.collect(),
                location: parcel.location.clone(),
                ship_to: order.ship_to.as_ref().map(encode::address),
                ..Shipment::default()
            }),
            shipment_id: parcel.id.to_string(),
            request_id: String::new(),
            command: Some(self.part(parcel.step_key())),
        }
    }

    async fn try_to_call_back(&self) -> Step {
        let stored = self.stored().await?;
        let plan = self.plan()?;
        let asked = plan.iter().map(|parcel| self.called_back(&stored, parcel));
        let mut back = Vec::new();
        let mut too_late = false;
        for (parcel, called) in plan.iter().zip(join_all(asked).await) {
            match called? {
                CalledBack::Yes => back.push(parcel),
                CalledBack::TooLate => too_late = true,
            }
        }
        let at = clock::now();
        if too_late {
            let effect = self.moved(&stored, at, |order| lost(order, &back, at))?;
            return Ok(Outcome::Resume { effect });
        }
        let effect = self.moved(&stored, at, |order| called_off(order, at))?;
        Ok(Outcome::Done { reply: Vec::new(), effect })
    }

    async fn called_back(&self, stored: &Stored, parcel: &Planned) -> Result<CalledBack, Outcome> {
        match stored.order.parcel(parcel.id).map(|parcel| parcel.state) {
            Some(ParcelState::CalledOff) => return Ok(CalledBack::Yes),
            Some(
                ParcelState::Shipped
                | ParcelState::Delivered
                | ParcelState::Lost
                | ParcelState::Returned,
            ) => return Ok(CalledBack::TooLate),
            None => {}
        }
        let request = CancelShipmentRequest {
            name: name("shipments", parcel.id),
            reason: shipping::CancelReason::OrderCancelled.into(),
            command: Some(self.part(parcel.step_key())),
            ..CancelShipmentRequest::default()
        };
        let answer = self.peers.shipping.clone().cancel_shipment(request.within(CALL)).await;
        match answer.map(|answer| answer.into_inner().state()) {
            Ok(shipment::State::Cancelled) => Ok(CalledBack::Yes),
            Ok(
                shipment::State::Dispatched
                | shipment::State::InTransit
                | shipment::State::Delivered
                | shipment::State::Lost
                | shipment::State::Returned,
            ) => Ok(CalledBack::TooLate),
            Ok(
                shipment::State::Pending | shipment::State::Booked | shipment::State::Unspecified,
            ) => Err(asked_again(stored)),
            Err(status) => match status::reason(&status).map(|info| info.reason).as_deref() {
                Some("SHIPMENT_STATE") => Ok(CalledBack::TooLate),
                Some("REQUEST_IN_PROGRESS") => Err(asked_again(stored)),
                Some(_) | None => Err(status.into()),
            },
        }
    }
}

/// The cancellation is lost. What could be called back is cancelled all the same.
fn lost(order: &mut Order, back: &[&Planned], at: OffsetDateTime) -> Moved {
    let mut happened = match order.state {
        State::Cancelling => order.lose_cancel(at)?,
        State::Pending
        | State::ActionRequired
        | State::Confirmed
        | State::Rejected
        | State::Cancelled
        | State::Expired
        | State::Completed => Vec::new(),
    };
    for parcel in back {
        if order.parcel(parcel.id).is_none() {
            happened.extend(order.call_off(parcel.id, parcel.units.clone(), at)?);
        }
    }
    Ok(happened)
}

/// Nobody called it off: it cannot be shipped.
fn called_off(order: &mut Order, at: OffsetDateTime) -> Moved {
    match order.state {
        State::Confirmed => {
            let cancellation = Cancellation {
                reason: CancelReason::NotShippable,
                actor: ACTOR.to_owned(),
                note: String::new(),
            };
            order.cancel(cancellation, at)
        }
        State::Pending
        | State::ActionRequired
        | State::Cancelling
        | State::Rejected
        | State::Cancelled
        | State::Expired
        | State::Completed => Ok(Vec::new()),
    }
}

fn asked_again(stored: &Stored) -> Outcome {
    let until = growing(stored.order.updated_at, clock::now(), LONGEST);
    Outcome::wait(until, "the carrier is being asked")
}

/// A no of shipping opens the cancellation.
fn refused(failure: Status) -> Outcome {
    match judge(&failure) {
        Verdict::No => {
            tracing::warn!(code = ?failure.code(), "shipping does not take it: {failure}");
            Outcome::recall("NOT_SHIPPABLE", failure.message())
        }
        Verdict::NotSent | Verdict::Unsure => failure.into(),
    }
}
