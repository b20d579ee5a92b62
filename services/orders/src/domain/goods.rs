//! Where an order's goods stand, and what moves them: parcels leave, arrive, are lost, or come
//! back, and the counts of the lines follow.

use std::fmt;

use mesh::money::Money;
use serde::{Deserialize, Serialize};
use time::OffsetDateTime;
use uuid::Uuid;

use super::{Event, Moved, Order, Payment, Refusal, State, Totals};

/// Where an order's goods stand: derived from the counts of its lines.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum FulfillmentState {
    /// Nothing was shipped.
    Unfulfilled,
    /// Some of what is kept was.
    PartiallyShipped,
    /// All of it was.
    Shipped,
    /// Some of what is kept arrived.
    PartiallyDelivered,
    /// All of it did.
    Delivered,
    /// Some of what arrived came back.
    PartiallyReturned,
    /// All of it did.
    Returned,
}

/// So many units of a line.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Units {
    /// Which line.
    #[serde(rename = "l")]
    pub line_id: String,
    /// How many.
    #[serde(rename = "q")]
    pub quantity: i64,
}

/// What travels together, from the moment on at which it counts: it left, or it never will.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Parcel {
    /// That of its shipment.
    pub id: Uuid,
    /// What is in it.
    pub units: Vec<Units>,
    /// Where it is.
    pub state: ParcelState,
    /// Whether it is paid for.
    pub charged: bool,
    /// Whether what was paid for it was paid back.
    pub refunded: bool,
}

/// Where a parcel is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum ParcelState {
    /// On its way.
    Shipped,
    /// Where it belongs.
    Delivered,
    /// Nobody knows.
    Lost,
    /// Back again: it could not be delivered.
    Returned,
    /// Never left.
    CalledOff,
}

/// Why units are cancelled.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Cause {
    /// Called back before the carrier had them.
    CalledOff,
    /// The carrier lost them.
    Lost,
    /// The carrier brought them back.
    Returned,
}

// === impl Order ===

impl Order {
    /// Where its goods stand: the first that holds.
    #[must_use]
    pub fn fulfillment_state(&self) -> FulfillmentState {
        let [mut kept, mut shipped, mut delivered, mut returned] = [0_i64; 4];
        for line in &self.lines {
            kept = kept.saturating_add(line.kept());
            shipped = shipped.saturating_add(line.shipped);
            delivered = delivered.saturating_add(line.delivered);
            returned = returned.saturating_add(line.returned);
        }
        match () {
            () if returned > 0 && returned == delivered && delivered == kept => {
                FulfillmentState::Returned
            }
            () if returned > 0 => FulfillmentState::PartiallyReturned,
            () if delivered > 0 && delivered == kept => FulfillmentState::Delivered,
            () if delivered > 0 => FulfillmentState::PartiallyDelivered,
            () if shipped > 0 && shipped == kept => FulfillmentState::Shipped,
            () if shipped > 0 => FulfillmentState::PartiallyShipped,
            () => FulfillmentState::Unfulfilled,
        }
    }

    /// What is known of a parcel; `None` while it can still be called back.
    #[must_use]
    pub fn parcel(&self, id: Uuid) -> Option<&Parcel> {
        self.parcels.iter().find(|parcel| parcel.id == id)
    }

    /// What these units cost. An order has no discount, tax or shipping of its own in this
    /// release; they would go with its last parcel.
    ///
    /// # Errors
    /// [`Refusal::TooLarge`] or [`Refusal::Units`] for what is not of this order.
    pub fn price_of(&self, units: &[Units]) -> Result<Money, Refusal> {
        let mut sum = Money::zero(self.totals.total.currency);
        for Units { line_id, quantity } in units {
            let line = self.lines.iter().find(|line| line.id == *line_id);
            let line = line.ok_or(Refusal::Units)?;
            sum = sum.checked_add(line.unit_price.checked_mul(*quantity)?)?;
        }
        Ok(sum)
    }

    /// A parcel left: the carrier has it.
    ///
    /// # Errors
    /// [`Refusal::State`] unless the order is confirmed, [`Refusal::Units`] if more leaves than is
    /// open, or the parcel left before.
    pub fn ship(&mut self, id: Uuid, units: Vec<Units>, at: OffsetDateTime) -> Moved {
        self.begun(id)?;
        self.whole(|order| {
            let previous = order.fulfillment_state();
            order.count(&units, |line, quantity| {
                line.shipped += quantity;
                line.open() >= 0
            })?;
            order.parcels.push(Parcel::new(id, units, ParcelState::Shipped));
            order.moves(order.state, Event::FulfillmentChanged(previous), at)
        })
    }

    /// A parcel arrived.
    ///
    /// # Errors
    /// [`Refusal::State`] unless the order is confirmed, [`Refusal::Units`] unless the parcel is
    /// on its way.
    pub fn deliver(&mut self, id: Uuid, at: OffsetDateTime) -> Moved {
        self.whole(|order| {
            let units = order.leaves(id, ParcelState::Delivered)?;
            let previous = order.fulfillment_state();
            order.count(&units, |line, quantity| {
                line.delivered += quantity;
                line.delivered <= line.shipped
            })?;
            order.moves(order.state, Event::FulfillmentChanged(previous), at)
        })
    }

    /// A parcel will not arrive: what is in it is cancelled, and what was paid for it is owed.
    ///
    /// # Errors
    /// As [`Order::deliver`].
    pub fn lose(&mut self, id: Uuid, cause: Cause, at: OffsetDateTime) -> Moved {
        let to = match cause {
            Cause::Lost => ParcelState::Lost,
            Cause::Returned => ParcelState::Returned,
            Cause::CalledOff => return Err(Refusal::Units),
        };
        self.whole(|order| {
            let units = order.leaves(id, to)?;
            order.cancels(units, cause, at, |line, quantity| {
                line.shipped -= quantity;
                line.cancelled += quantity;
                line.shipped >= line.delivered
            })
        })
    }

    /// A parcel never leaves: what would be in it is cancelled.
    ///
    /// # Errors
    /// As [`Order::ship`].
    pub fn call_off(&mut self, id: Uuid, units: Vec<Units>, at: OffsetDateTime) -> Moved {
        self.begun(id)?;
        self.whole(|order| {
            order.parcels.push(Parcel::new(id, units.clone(), ParcelState::CalledOff));
            order.cancels(units, Cause::CalledOff, at, |line, quantity| {
                line.cancelled += quantity;
                line.open() >= 0
            })
        })
    }

    /// The money for a parcel that left was taken, though it may be gone by now.
    ///
    /// # Errors
    /// [`Refusal::State`] unless the order is confirmed, [`Refusal::Units`] if the parcel never
    /// left, or was paid for.
    pub fn charge(&mut self, id: Uuid, payment: Payment, at: OffsetDateTime) -> Moved {
        self.confirmed()?;
        let parcel = self.parcels.iter_mut().find(|parcel| parcel.id == id);
        let parcel = parcel
            .filter(|parcel| parcel.is_payable() || parcel.is_unclear())
            .ok_or(Refusal::Units)?;
        parcel.charged = true;
        let (previous, was) = (self.payment_state(), self.payment);
        self.payment = payment;
        if was == payment {
            return Ok(Vec::new());
        }
        self.moves(self.state, Event::PaymentChanged(previous), at)
    }

    /// What was paid for a parcel that will not arrive was paid back.
    ///
    /// # Errors
    /// [`Refusal::State`] unless the order is confirmed, [`Refusal::Units`] if nothing is owed for
    /// the parcel.
    pub fn refund(&mut self, id: Uuid, refunded_minor: i64, at: OffsetDateTime) -> Moved {
        self.confirmed()?;
        let parcel = self.parcels.iter_mut().find(|parcel| parcel.id == id);
        let parcel = parcel.filter(|parcel| parcel.is_owed()).ok_or(Refusal::Units)?;
        parcel.refunded = true;
        let previous = self.payment_state();
        self.payment.refunded_minor = self.payment.refunded_minor.max(refunded_minor);
        self.moves(self.state, Event::PaymentChanged(previous), at)
    }

    /// Everything arrived or is cancelled, and nothing is owed either way.
    ///
    /// # Errors
    /// [`Refusal::State`] unless it is confirmed, [`Refusal::Unfinished`] otherwise.
    pub fn complete(&mut self, at: OffsetDateTime) -> Moved {
        self.confirmed()?;
        let arrived = self.lines.iter().all(|line| line.delivered == line.kept());
        let owed = self.parcels.iter().any(|parcel| parcel.is_owed() || parcel.is_payable());
        if !arrived || owed || !self.payment.is_settled(self.totals.total) {
            return Err(Refusal::Unfinished);
        }
        self.moves(State::Completed, Event::Completed, at)
    }

    fn confirmed(&self) -> Result<(), Refusal> {
        match self.state {
            State::Confirmed => Ok(()),
            State::Pending
            | State::ActionRequired
            | State::Cancelling
            | State::Rejected
            | State::Cancelled
            | State::Expired
            | State::Completed => Err(Refusal::State(self.state)),
        }
    }

    /// A parcel that nothing is known of yet.
    fn begun(&self, id: Uuid) -> Result<(), Refusal> {
        self.confirmed()?;
        if self.parcel(id).is_some() { Err(Refusal::Units) } else { Ok(()) }
    }

    /// A parcel that is on its way ends it.
    fn leaves(&mut self, id: Uuid, to: ParcelState) -> Result<Vec<Units>, Refusal> {
        self.confirmed()?;
        let parcel = self.parcels.iter_mut().find(|parcel| parcel.id == id);
        let parcel = parcel.filter(|parcel| parcel.state == ParcelState::Shipped);
        let parcel = parcel.ok_or(Refusal::Units)?;
        parcel.state = to;
        Ok(parcel.units.clone())
    }

    /// A move as a whole: refused, it changes nothing.
    fn whole(&mut self, moves: impl FnOnce(&mut Self) -> Moved) -> Moved {
        let mut next = self.clone();
        let happened = moves(&mut next)?;
        *self = next;
        Ok(happened)
    }

    fn cancels(
        &mut self,
        units: Vec<Units>,
        cause: Cause,
        at: OffsetDateTime,
        counts: impl Fn(&mut super::Line, i64) -> bool,
    ) -> Moved {
        let (goods, money) = (self.fulfillment_state(), self.payment_state());
        self.count(&units, counts)?;
        for line in &mut self.lines {
            *line = line.clone().totalled()?;
        }
        self.totals = Totals::of(&self.lines)?;
        let mut happened = self.moves(self.state, Event::LineCancelled(cause, units), at)?;
        if goods != self.fulfillment_state() {
            happened.push(Event::FulfillmentChanged(goods));
        }
        if money != self.payment_state() {
            happened.push(Event::PaymentChanged(money));
        }
        Ok(happened)
    }

    fn count(
        &mut self,
        units: &[Units],
        counts: impl Fn(&mut super::Line, i64) -> bool,
    ) -> Result<(), Refusal> {
        for Units { line_id, quantity } in units {
            let line = self.lines.iter_mut().find(|line| line.id == *line_id);
            let line = line.filter(|_| *quantity > 0).ok_or(Refusal::Units)?;
            if !counts(line, *quantity) {
                return Err(Refusal::Units);
            }
        }
        Ok(())
    }
}

// === impl Parcel ===

impl Parcel {
    fn new(id: Uuid, units: Vec<Units>, state: ParcelState) -> Self {
        Self { id, units, state, charged: false, refunded: false }
    }

    /// Whether it is to be paid for, and was not yet.
    #[must_use]
    pub fn is_payable(&self) -> bool {
        match self.state {
            ParcelState::Shipped | ParcelState::Delivered => !self.charged,
            ParcelState::Lost | ParcelState::Returned | ParcelState::CalledOff => false,
        }
    }

    /// Whether it is gone, and nothing is known of money for it: that may have been taken by
    /// somebody who could not write it down.
    #[must_use]
    pub fn is_unclear(&self) -> bool {
        match self.state {
            ParcelState::Lost | ParcelState::Returned => !self.charged,
            ParcelState::Shipped | ParcelState::Delivered | ParcelState::CalledOff => false,
        }
    }

    /// Whether what was paid for it is to be paid back, and was not yet.
    #[must_use]
    pub fn is_owed(&self) -> bool {
        match self.state {
            ParcelState::Lost | ParcelState::Returned => self.charged && !self.refunded,
            ParcelState::Shipped | ParcelState::Delivered | ParcelState::CalledOff => false,
        }
    }
}

// === impl FulfillmentState ===

/// As the contract spells it, without the prefix.
impl fmt::Display for FulfillmentState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Unfulfilled => "UNFULFILLED",
            Self::PartiallyShipped => "PARTIALLY_SHIPPED",
            Self::Shipped => "SHIPPED",
            Self::PartiallyDelivered => "PARTIALLY_DELIVERED",
            Self::Delivered => "DELIVERED",
            Self::PartiallyReturned => "PARTIALLY_RETURNED",
            Self::Returned => "RETURNED",
        })
    }
}
