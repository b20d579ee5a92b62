//! What an order is and which moves it allows: values in, state and events or a refusal out.
//!
//! A repeat is not the domain's business: the stored answer of its `request_id` comes before
//! any look at the order.

use std::collections::BTreeMap;

use mesh::money::Money;
use time::{Duration, OffsetDateTime};
use uuid::Uuid;

mod goods;
mod parts;
pub mod payment;
pub mod price;
mod quote;
mod refusal;
mod state;

pub use goods::{Cause, FulfillmentState, Parcel, ParcelState, Units};
pub use parts::{
    Address, Ask, CancelReason, Cancellation, Draft, PendingAction, RejectReason, Rejection,
    StockPolicy,
};
pub use payment::{Attempt, Payment, PaymentState};
pub use price::{Agreement, Line, Offer, Offered, Price, Totals, Wanted};
pub use quote::Quote;
pub use refusal::{Refusal, Short, in_stock, may_order};
pub use state::State;

/// An order, without the revision that its row has.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Order {
    /// A `UUIDv7`.
    pub id: Uuid,
    /// `users/{uuid}`.
    pub customer: String,
    /// Empty until it is known.
    pub customer_email: String,
    /// Where it stands.
    pub state: State,
    /// What is known of its payment.
    pub payment: Payment,
    /// What was ordered, as priced.
    pub lines: Vec<Line>,
    /// What it costs.
    pub totals: Totals,
    /// What the customer agreed to pay.
    pub expected_total: Option<Money>,
    /// Whether its prices are those of a quote, which moving prices do not touch.
    pub quoted: bool,
    /// When it must be confirmed, or be given up.
    pub confirm_by: OffsetDateTime,
    /// Where it goes.
    pub ship_to: Option<Address>,
    /// The provider's token.
    pub payment_method: String,
    /// What to do when stock is short.
    pub stock_policy: StockPolicy,
    /// Why it was rejected.
    pub rejection: Option<Rejection>,
    /// What it waits for.
    pub pending: Option<PendingAction>,
    /// When it was placed.
    pub placed_at: OffsetDateTime,
    /// When it last changed.
    pub updated_at: OffsetDateTime,
    /// When it was confirmed.
    pub confirmed_at: Option<OffsetDateTime>,
    /// What left, or never will.
    pub parcels: Vec<Parcel>,
}

/// What happened to an order. Each takes one revision.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// It was placed.
    Created,
    /// It waits for its customer.
    ActionRequired,
    /// The customer agreed to what was asked.
    Revised,
    /// Its money moved, from this state.
    PaymentChanged(PaymentState),
    /// It will be delivered.
    Confirmed,
    /// It ended unfulfilled.
    Rejected,
    /// Somebody called it off.
    Cancelling(Cancellation),
    /// It is called off.
    Cancelled,
    /// It ended because its customer did not act.
    Expired,
    /// Its goods moved, from this state.
    FulfillmentChanged(FulfillmentState),
    /// These units will not be delivered.
    LineCancelled(Cause, Vec<Units>),
    /// The carrier has it: it is not called off after all.
    CancelLost,
    /// It ended well.
    Completed,
}

// === impl Order ===

impl Order {
    /// Places an order of lines that were priced and agreed to.
    ///
    /// # Errors
    /// [`Refusal::TooLarge`] or [`Refusal::CurrencyMismatch`] if the lines have no total.
    pub fn place(
        id: Uuid,
        draft: Draft,
        lines: Vec<Line>,
        agreement: &Agreement,
        at: OffsetDateTime,
    ) -> Result<(Self, Vec<Event>), Refusal> {
        let totals = Totals::of(&lines)?;
        agreement.covers(&lines, &totals)?;
        let order = Self {
            id,
            customer: draft.customer,
            customer_email: draft.customer_email,
            state: State::Pending,
            payment: Payment::default(),
            expected_total: Some(totals.total),
            quoted: draft.quoted,
            lines,
            totals,
            confirm_by: at + draft.patience,
            ship_to: draft.ship_to,
            payment_method: draft.payment_method,
            stock_policy: draft.stock_policy,
            rejection: None,
            pending: None,
            placed_at: at,
            updated_at: at,
            confirmed_at: None,
            parcels: Vec::new(),
        };
        Ok((order, vec![Event::Created]))
    }

    /// Where its money stands.
    #[must_use]
    pub fn payment_state(&self) -> PaymentState {
        self.payment.state(self.totals.total)
    }

    /// Whether a caller who waits for the outcome has it.
    #[must_use]
    pub fn is_settled(&self) -> bool {
        match self.state {
            State::Pending | State::Cancelling => false,
            State::ActionRequired
            | State::Confirmed
            | State::Rejected
            | State::Cancelled
            | State::Expired
            | State::Completed => true,
        }
    }

    /// Stops and asks the customer.
    ///
    /// # Errors
    /// [`Refusal::State`] unless it is pending.
    pub fn ask(&mut self, ask: Ask, expires_at: OffsetDateTime, at: OffsetDateTime) -> Moved {
        match self.state {
            State::Pending => {
                self.pending = Some(PendingAction { ask, expires_at });
                self.moves(State::ActionRequired, Event::ActionRequired, at)
            }
            State::ActionRequired
            | State::Confirmed
            | State::Cancelling
            | State::Rejected
            | State::Cancelled
            | State::Expired
            | State::Completed => Err(Refusal::State(self.state)),
        }
    }

    /// The customer agrees to other prices or to less: the lines become those of the offer, and
    /// the order goes on.
    ///
    /// # Errors
    /// [`Refusal::State`] if nothing is offered, [`Refusal::TooLate`] from the deadline on,
    /// [`Refusal::PriceChanged`] if `total` is not the one that is offered.
    pub fn accept(&mut self, total: Money, patience: Duration, at: OffsetDateTime) -> Moved {
        let offer = match (self.state, &self.pending) {
            (State::ActionRequired, Some(pending)) => match &pending.ask {
                Ask::Price(_) | Ask::Stock(_) if at >= pending.expires_at => {
                    return Err(Refusal::TooLate(pending.expires_at));
                }
                Ask::Price(offer) | Ask::Stock(offer) => offer.clone(),
                Ask::Payment(_) => return Err(Refusal::State(self.state)),
            },
            (
                State::ActionRequired
                | State::Pending
                | State::Confirmed
                | State::Cancelling
                | State::Rejected
                | State::Cancelled
                | State::Expired
                | State::Completed,
                _,
            ) => return Err(Refusal::State(self.state)),
        };
        if total.currency != offer.total.currency {
            return Err(Refusal::ExpectedCurrency);
        }
        if total != offer.total {
            return Err(Refusal::PriceChanged(offer));
        }
        let lines = price::revised(&self.lines, &offer)?;
        self.totals = Totals::of(&lines)?;
        self.lines = lines;
        self.expected_total = Some(self.totals.total);
        self.pending = None;
        self.confirm_by = at + patience;
        self.moves(State::Pending, Event::Revised, at)
    }

    /// Takes in what is known of the payment now. An order that waited for its customer to
    /// finish the payment, and need not any more, goes on. Nothing new gives no event.
    ///
    /// # Errors
    /// [`Refusal::State`] once the order has ended.
    pub fn pay(&mut self, payment: Payment, patience: Duration, at: OffsetDateTime) -> Moved {
        match self.state {
            State::Pending | State::ActionRequired | State::Confirmed | State::Cancelling => {}
            State::Rejected | State::Cancelled | State::Expired | State::Completed => {
                return Err(Refusal::State(self.state));
            }
        }
        let (previous, was) = (self.payment_state(), self.payment);
        // From the deadline on it does not go on any more, whatever the customer did.
        let waited = matches!(
            (self.state, &self.pending),
            (State::ActionRequired, Some(PendingAction { ask: Ask::Payment(_), expires_at }))
                if at < *expires_at
        );
        let acted = waited && payment.attempt != Attempt::Open && !payment.voided;
        self.payment = payment;
        let taken = |payment: Payment| (payment.captured_minor, payment.refunded_minor);
        if !acted && previous == self.payment_state() && taken(was) == taken(payment) {
            return Ok(Vec::new());
        }
        let next = if acted { State::Pending } else { self.state };
        if acted {
            self.pending = None;
            self.confirm_by = at + patience;
        }
        self.moves(next, Event::PaymentChanged(previous), at)
    }

    /// The pivot: stock is held, the money authorized, prices and hold were read again.
    ///
    /// # Errors
    /// [`Refusal::State`] unless it is pending, [`Refusal::Unpaid`] if the authorization does not
    /// cover the total.
    pub fn confirm(&mut self, at: OffsetDateTime) -> Moved {
        match self.state {
            State::Pending if self.payment.covers(self.totals.total) => {
                self.confirmed_at = Some(at);
                self.moves(State::Confirmed, Event::Confirmed, at)
            }
            State::Pending => Err(Refusal::Unpaid),
            State::ActionRequired
            | State::Confirmed
            | State::Cancelling
            | State::Rejected
            | State::Cancelled
            | State::Expired
            | State::Completed => Err(Refusal::State(self.state)),
        }
    }

    /// Starts to call the order off; what was done for it is undone then.
    ///
    /// # Errors
    /// [`Refusal::State`] if it is being called off already, or has ended,
    /// [`Refusal::NotCancellable`] if the carrier has all of it.
    pub fn cancel(&mut self, cancellation: Cancellation, at: OffsetDateTime) -> Moved {
        match self.state {
            State::Confirmed if self.lines.iter().all(|line| line.open() == 0) => {
                Err(Refusal::NotCancellable)
            }
            State::Pending | State::ActionRequired | State::Confirmed => {
                self.pending = None;
                self.moves(State::Cancelling, Event::Cancelling(cancellation), at)
            }
            State::Cancelling
            | State::Rejected
            | State::Cancelled
            | State::Expired
            | State::Completed => Err(Refusal::State(self.state)),
        }
    }

    /// The carrier turns out to have what was being called off: it goes on.
    ///
    /// # Errors
    /// [`Refusal::State`] unless it is being called off and was confirmed.
    pub fn lose_cancel(&mut self, at: OffsetDateTime) -> Moved {
        match self.state {
            State::Cancelling if self.confirmed_at.is_some() => {
                self.moves(State::Confirmed, Event::CancelLost, at)
            }
            State::Cancelling
            | State::Pending
            | State::ActionRequired
            | State::Confirmed
            | State::Rejected
            | State::Cancelled
            | State::Expired
            | State::Completed => Err(Refusal::State(self.state)),
        }
    }

    /// Ends an order for which everything was undone: `rejection` says why, where nobody called
    /// it off and no time passed.
    ///
    /// # Errors
    /// [`Refusal::State`] if it is confirmed or has ended.
    pub fn end(&mut self, rejection: Rejection, at: OffsetDateTime) -> Moved {
        match self.state {
            State::Pending => {
                self.rejection = Some(rejection);
                self.moves(State::Rejected, Event::Rejected, at)
            }
            State::ActionRequired => {
                self.pending = None;
                self.moves(State::Expired, Event::Expired, at)
            }
            State::Cancelling => self.moves(State::Cancelled, Event::Cancelled, at),
            State::Confirmed
            | State::Rejected
            | State::Cancelled
            | State::Expired
            | State::Completed => Err(Refusal::State(self.state)),
        }
    }

    /// What the customer would have to agree to at these prices; `None` if they did not move or
    /// do not matter, because the order was quoted.
    ///
    /// # Errors
    /// [`Refusal::TooLarge`] or [`Refusal::CurrencyMismatch`] if the new prices have no total.
    pub fn drift(&self, prices: &[Price]) -> Result<Option<Offer>, Refusal> {
        if self.quoted { Ok(None) } else { price::drift(&self.lines, prices) }
    }

    /// What the customer would have to agree to with this much in stock; `None` if nothing of
    /// the order can be had.
    ///
    /// # Errors
    /// [`Refusal::TooLarge`] if the rest has no total.
    pub fn reduced(&self, available: &BTreeMap<String, i64>) -> Result<Option<Offer>, Refusal> {
        price::reduced(&self.lines, available)
    }

    fn moves(&mut self, to: State, event: Event, at: OffsetDateTime) -> Moved {
        self.state = to;
        self.updated_at = at;
        Ok(vec![event])
    }
}

/// What happened, or why nothing did.
pub type Moved = Result<Vec<Event>, Refusal>;

#[cfg(test)]
mod tests;
