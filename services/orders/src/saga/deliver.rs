//! From the first parcel that leaves to the end of an order. Events only wake this step: what is
//! true is asked of shipping and of payments, and what is done about it is done once, whatever
//! is repeated around it.

mod money;

use std::{sync::Arc, time::Duration};

use futures_util::future::join_all;
use mesh::{
    Within as _, clock,
    money::Money,
    saga::{Effect, Outcome, Why},
};
use proto::{
    inventory::v1::{
        FulfillReservationRequest, ReleaseReservationRequest, RestockReservationRequest,
        fulfill_reservation_request, restock_reservation_request,
    },
    payments::v1::VoidPaymentRequest,
    shipping::v1::{GetShipmentRequest, shipment},
};
use time::OffsetDateTime;

use self::money::Amounts;
use super::{
    ACTOR, Fulfilment, Step, merged, name,
    plan::{Part, Planned},
    unsure, write,
};
use crate::{
    domain::{Cause, Moved, Order, Parcel, ParcelState, Units},
    store::{Change, Stored},
};

const CALL: Duration = Duration::from_secs(5);
const PAY: Duration = Duration::from_secs(30);

/// How seldom shipping is asked for parcels that are on their way, if no event comes.
const LONGEST: Duration = Duration::from_secs(300);

/// How seldom payments is asked for what it is finding out.
const LONGEST_FOR_MONEY: Duration = Duration::from_secs(30);

/// How soon to go on with what could not be finished now, once something else was.
const SOON: Duration = Duration::from_millis(200);

/// An order on its way, as far as this call of the step brought it.
struct Way<'f> {
    saga: &'f Fulfilment,
    order: Order,
    /// Each move with the order after it, so that what is told of it is what was true then.
    changes: Vec<Change>,
    revision: i64,
    at: OffsetDateTime,
}

impl Fulfilment {
    pub(super) async fn deliver(&self) -> Outcome {
        merged(self.try_to_deliver().await)
    }

    async fn try_to_deliver(&self) -> Step {
        let stored = self.confirmed_order().await?;
        let plan = self.plan()?;
        let shipments = join_all(plan.iter().map(|parcel| self.shipment(parcel))).await;
        let parcels: Vec<(&Planned, shipment::State)> = plan
            .iter()
            .zip(shipments)
            .map(|(parcel, state)| Ok((parcel, state?)))
            .collect::<Result<_, Outcome>>()?;
        let at = clock::now();
        let Stored { order, revision } = stored;
        let mut way = Way { saga: self, order, changes: Vec::new(), revision, at };
        let came_to = way.go(&parcels).await;
        way.ends(came_to)
    }

    async fn shipment(&self, parcel: &Planned) -> Result<shipment::State, Outcome> {
        let request = GetShipmentRequest { name: name("shipments", parcel.id) };
        let answer = self.peers.shipping.clone().get_shipment(request.within(CALL)).await?;
        Ok(answer.into_inner().state())
    }
}

// === impl Way ===

impl Way<'_> {
    /// Goes as far as it can be gone now. `Ok` is the end.
    async fn go(&mut self, parcels: &[(&Planned, shipment::State)]) -> Result<(), Outcome> {
        for (parcel, state) in parcels {
            self.track(parcel, *state).await?;
        }
        self.call_off(parcels)?;
        for (parcel, _) in parcels {
            let others = parcels.iter().filter(|(other, _)| other.id != parcel.id);
            let last = !others.clone().any(|(other, state)| self.may_charge(other, *state));
            self.settle(parcel, last).await?;
        }
        if parcels.iter().any(|(parcel, state)| !self.is_done_with(parcel, *state)) {
            return Err(self.wait("parcels are on their way"));
        }
        let arrived = |parcel: &&Planned| {
            let state = self.order.parcel(parcel.id).map(|parcel| parcel.state);
            state.is_some_and(|state| state != ParcelState::Shipped)
        };
        if !parcels.iter().map(|(parcel, _)| parcel).all(arrived) {
            return Err(self.wait("parcels are on their way"));
        }
        self.leave_nothing(parcels).await?;
        self.does(|order, at| order.complete(at))
    }

    /// Takes in where a parcel is.
    async fn track(&mut self, parcel: &Planned, state: shipment::State) -> Result<(), Outcome> {
        use shipment::State;
        match state {
            State::Unspecified | State::Pending | State::Booked | State::Cancelled => {
                return Ok(());
            }
            State::Dispatched
            | State::InTransit
            | State::Delivered
            | State::Lost
            | State::Returned => {}
        }
        if self.order.parcel(parcel.id).is_none() {
            self.fulfil(parcel).await?;
            self.does(|order, at| order.ship(parcel.id, parcel.units.clone(), at))?;
        }
        let on_its_way =
            self.order.parcel(parcel.id).is_some_and(|parcel| parcel.state == ParcelState::Shipped);
        if !on_its_way {
            return Ok(());
        }
        match state {
            State::Delivered => self.does(|order, at| order.deliver(parcel.id, at)),
            State::Lost => self.does(|order, at| order.lose(parcel.id, Cause::Lost, at)),
            State::Returned => {
                self.restock(parcel).await?;
                self.does(|order, at| order.lose(parcel.id, Cause::Returned, at))
            }
            State::Unspecified
            | State::Pending
            | State::Booked
            | State::Cancelled
            | State::Dispatched
            | State::InTransit => Ok(()),
        }
    }

    /// What shipping cancelled will not leave. If nothing ever did, the order is called off.
    fn call_off(&mut self, parcels: &[(&Planned, shipment::State)]) -> Result<(), Outcome> {
        let stays = |(parcel, state): &&(&Planned, shipment::State)| {
            *state == shipment::State::Cancelled && self.order.parcel(parcel.id).is_none()
        };
        let staying: Vec<&Planned> =
            parcels.iter().filter(stays).map(|(parcel, _)| *parcel).collect();
        if staying.len() == parcels.len() {
            return Err(Outcome::recall("NOT_SHIPPABLE", "every shipment was cancelled"));
        }
        // What is called off cannot come back: first something must have left for good.
        if self.order.parcels.is_empty() {
            return Ok(());
        }
        for parcel in staying {
            self.does(|order, at| order.call_off(parcel.id, parcel.units.clone(), at))?;
        }
        Ok(())
    }

    /// Takes the money for a parcel that left, and pays it back for one that will not arrive.
    async fn settle(&mut self, parcel: &Planned, last: bool) -> Result<(), Outcome> {
        let Some(known) = self.order.parcel(parcel.id) else { return Ok(()) };
        if known.is_payable() {
            self.capture(parcel, last).await?;
        } else if known.is_owed() {
            self.refund(parcel).await?;
        }
        Ok(())
    }

    /// Whether money is to be taken for a parcel yet.
    fn may_charge(&self, parcel: &Planned, state: shipment::State) -> bool {
        match self.order.parcel(parcel.id) {
            Some(known) => known.is_payable(),
            None => state != shipment::State::Cancelled,
        }
    }

    /// Whether a parcel is accounted for.
    fn is_done_with(&self, parcel: &Planned, state: shipment::State) -> bool {
        match self.order.parcel(parcel.id) {
            Some(known) => !known.is_payable() && !known.is_owed(),
            None => state == shipment::State::Cancelled,
        }
    }

    async fn fulfil(&self, parcel: &Planned) -> Result<(), Outcome> {
        let request = FulfillReservationRequest {
            name: name("reservations", self.order.id),
            lines: parcel
                .units
                .iter()
                .map(|units| fulfill_reservation_request::Line {
                    line_id: units.line_id.clone(),
                    quantity: count(units),
                    location: parcel.location.clone(),
                })
                .collect(),
            command: Some(self.saga.part(Part::Fulfil.of(parcel.id))),
            ..FulfillReservationRequest::default()
        };
        let mut inventory = self.saga.peers.inventory.clone();
        inventory.fulfill_reservation(request.within(CALL)).await?;
        Ok(())
    }

    async fn restock(&self, parcel: &Planned) -> Result<(), Outcome> {
        let request = RestockReservationRequest {
            name: name("reservations", self.order.id),
            lines: parcel
                .units
                .iter()
                .map(|units| restock_reservation_request::Line {
                    line_id: units.line_id.clone(),
                    quantity: count(units),
                    location: parcel.location.clone(),
                })
                .collect(),
            command: Some(self.saga.part(Part::Restock.of(parcel.id))),
            ..RestockReservationRequest::default()
        };
        let mut inventory = self.saga.peers.inventory.clone();
        inventory.restock_reservation(request.within(CALL)).await?;
        Ok(())
    }

    /// Gives back what the order holds and does not need: the stock of what never left, what is
    /// set aside and will not be taken, and what was taken for what is gone.
    async fn leave_nothing(
        &mut self,
        parcels: &[(&Planned, shipment::State)],
    ) -> Result<(), Outcome> {
        let stayed = self.order.parcels.iter().any(|it| it.state == ParcelState::CalledOff);
        if stayed {
            let request = ReleaseReservationRequest {
                name: name("reservations", self.order.id),
                request_id: String::new(),
                command: Some(self.saga.part("hold_stock".to_owned())),
            };
            let mut inventory = self.saga.peers.inventory.clone();
            inventory.release_reservation(request.within(CALL)).await?;
        }
        let mut unclear = Vec::new();
        for (parcel, _) in parcels {
            let known = self.order.parcel(parcel.id);
            if known.is_some_and(Parcel::is_unclear) && self.price(parcel)?.minor > 0 {
                unclear.push(*parcel);
            }
        }
        if self.order.payment.authorized_minor > 0 || !unclear.is_empty() {
            let request = VoidPaymentRequest {
                name: name("payments", self.order.id),
                request_id: String::new(),
                command: Some(self.saga.part("authorize_payment".to_owned())),
            };
            let mut payments = self.saga.peers.payments.clone();
            let payment = payments.void_payment(request.within(PAY)).await?.into_inner();
            if Amounts::of(&payment)?.live() > 0 {
                return Err(self.wait_at_most(LONGEST_FOR_MONEY, "the payment is being voided"));
            }
            for parcel in unclear {
                self.pay_back_what_was_taken(parcel).await?;
            }
            let known = self.order.payment;
            let left = if known.captured_minor > 0 {
                known.taken(known.captured_minor, known.refunded_minor, 0)
            } else {
                known.void()
            };
            let patience = self.saga.patience.to_confirm();
            self.does(|order, at| order.pay(left, patience, at))?;
        }
        Ok(())
    }

    fn price(&self, parcel: &Planned) -> Result<Money, Outcome> {
        let price = self.order.price_of(&parcel.units);
        price.map_err(|refusal| unsure(&refusal.to_string()))
    }

    fn does(
        &mut self,
        moves: impl FnOnce(&mut Order, OffsetDateTime) -> Moved,
    ) -> Result<(), Outcome> {
        let happened = moves(&mut self.order, self.at).map_err(|refusal| {
            // A bug, or another order than this release knows: a person has to look.
            let why = Why::new("ORDER_STATE", refusal.to_string());
            Outcome::No { why, alert: true }
        })?;
        // What comes of nothing new, such as a parcel that costs nothing, is kept with the next.
        if happened.is_empty() {
            return Ok(());
        }
        let change = Change {
            order: self.order.clone(),
            read: self.revision,
            events: happened,
            actor: ACTOR.to_owned(),
            at: self.at,
        };
        self.revision = change.revision();
        self.changes.push(change);
        Ok(())
    }

    fn wait(&self, why: &str) -> Outcome {
        self.wait_at_most(LONGEST, why)
    }

    fn wait_at_most(&self, longest: Duration, why: &str) -> Outcome {
        let waited = Duration::try_from(self.at - self.order.updated_at).unwrap_or_default();
        let first = self.saga.patience.delivery_look.min(longest);
        Outcome::wait(self.at + waited.clamp(first, longest), why)
    }

    /// What is recorded: how far it came, whatever stopped it.
    fn ends(self, came_to: Result<(), Outcome>) -> Step {
        let Self { saga, changes, at, .. } = self;
        if changes.is_empty() {
            return came_to.map(|()| Outcome::done());
        }
        let (store, changes) = (saga.store.clone(), Arc::new(changes));
        let effect = Effect::new(move |txn| {
            let (store, changes) = (store.clone(), Arc::clone(&changes));
            Box::pin(async move {
                for change in changes.iter() {
                    write(&store, txn, change).await?;
                }
                Ok(())
            })
        });
        Ok(match came_to {
            Ok(()) => Outcome::done(),
            Err(Outcome::Wait { until, why, .. }) => Outcome::wait(until, why),
            // Said again, and then heard, once this is written.
            Err(Outcome::No { why, .. } | Outcome::Recall { why }) => {
                Outcome::wait(at + SOON, why.message)
            }
            Err(Outcome::NotSent { why, after, .. }) => Outcome::wait(at + after.max(SOON), why),
            Err(Outcome::Unsure { why }) => Outcome::wait(at + SOON, why),
            Err(Outcome::Done { .. } | Outcome::Resume { .. }) => Outcome::wait(at, "going on"),
        }
        .with(effect))
    }
}

/// At most 999, by the rule for lines.
fn count(units: &Units) -> i32 {
    i32::try_from(units.quantity).unwrap_or(i32::MAX)
}
