//! From the domain to the contract.

use mesh::{money::Money, resource};
use proto::{google::r#type as google, orders::v1 as api};
use time::OffsetDateTime;

use crate::{
    domain::{
        Address, Ask, CancelReason, Cause, FulfillmentState, Line, Offer, PaymentState,
        PendingAction, RejectReason, Rejection, State, StockPolicy, Totals, Units,
    },
    store::{Entry, Stored},
};

/// An order as its readers see it: without the payment method and the quote.
#[must_use]
pub fn order(stored: &Stored) -> api::Order {
    let Stored { order, revision } = stored;
    api::Order {
        name: crate::events::name(order),
        customer: order.customer.clone(),
        customer_email: order.customer_email.clone(),
        state: state(order.state).into(),
        payment_state: payment_state(order.payment_state()).into(),
        fulfillment_state: fulfillment_state(order.fulfillment_state()).into(),
        lines: order.lines.iter().map(line).collect(),
        ship_to: order.ship_to.as_ref().map(address),
        totals: Some(totals(&order.totals)),
        expected_total: order.expected_total.map(money),
        payment_method: String::new(),
        quote: String::new(),
        stock_policy: stock_policy(order.stock_policy).into(),
        rejection: order.rejection.as_ref().map(rejection),
        pending_action: order.pending.as_ref().map(pending),
        revision: *revision,
        confirm_time: order.confirmed_at.map(timestamp),
        create_time: Some(timestamp(order.placed_at)),
        update_time: Some(timestamp(order.updated_at)),
        etag: resource::etag(*revision),
        customer_details: None,
    }
}

/// One line.
#[must_use]
pub fn line(line: &Line) -> api::OrderLine {
    api::OrderLine {
        line_id: line.id.clone(),
        variant: line.variant.clone(),
        title: line.title.clone(),
        quantity: quantity(line.quantity),
        unit_price: Some(money(line.unit_price)),
        price_version: line.price_version.clone(),
        discount: Some(money(line.discount)),
        tax: Some(money(line.tax)),
        total: Some(money(line.total)),
        cancelled: quantity(line.cancelled),
        shipped: quantity(line.shipped),
        delivered: quantity(line.delivered),
        returned: quantity(line.returned),
    }
}

/// What an order costs.
#[must_use]
pub fn totals(totals: &Totals) -> api::Totals {
    api::Totals {
        items: Some(money(totals.items)),
        discount: Some(money(totals.discount)),
        shipping: Some(money(totals.shipping)),
        tax: Some(money(totals.tax)),
        total: Some(money(totals.total)),
    }
}

/// What an order waits for.
#[must_use]
pub fn pending(pending: &PendingAction) -> api::PendingAction {
    use api::pending_action::Kind;
    let expire_time = Some(timestamp(pending.expires_at));
    let offered = |kind: Kind, offer: &Offer| api::PendingAction {
        kind: kind.into(),
        expire_time,
        url: String::new(),
        options: offer
            .lines
            .iter()
            .map(|line| api::LineOption {
                line_id: line.line_id.clone(),
                quantity: quantity(line.quantity),
                unit_price: Some(money(line.unit_price)),
            })
            .collect(),
        current_total: Some(money(offer.total)),
    };
    match &pending.ask {
        Ask::Price(offer) => offered(Kind::Price, offer),
        Ask::Stock(offer) => offered(Kind::Stock, offer),
        Ask::Payment(url) => api::PendingAction {
            kind: Kind::Payment.into(),
            expire_time,
            url: url.clone(),
            options: Vec::new(),
            current_total: None,
        },
    }
}

/// Why an order was rejected.
#[must_use]
pub fn rejection(rejection: &Rejection) -> api::Rejection {
    api::Rejection {
        reason: reject_reason(rejection.reason).into(),
        metadata: rejection.metadata.clone().into_iter().collect(),
    }
}

/// One entry of the trail.
#[must_use]
pub fn entry(entry: &Entry) -> api::OrderEvent {
    api::OrderEvent {
        revision: entry.revision,
        r#type: entry.kind.clone(),
        event_time: Some(timestamp(entry.at)),
        actor: entry.actor.clone(),
        state: state(entry.state).into(),
        payment_state: payment_state(entry.payment_state).into(),
        fulfillment_state: fulfillment_state(entry.fulfillment_state).into(),
        note: entry.note.clone(),
    }
}

/// An amount.
#[must_use]
pub fn money(money: Money) -> google::Money {
    let (units, nanos) = money.parts();
    google::Money { currency_code: money.currency.code().to_owned(), units, nanos }
}

/// A time.
#[must_use]
pub fn timestamp(at: OffsetDateTime) -> prost_types::Timestamp {
    // Below a second there are less than 10^9 nanoseconds: always fits.
    let nanos = i32::try_from(at.nanosecond()).unwrap_or_default();
    prost_types::Timestamp { seconds: at.unix_timestamp(), nanos }
}

/// The state of an order.
#[must_use]
pub fn state(state: State) -> api::order::State {
    match state {
        State::Pending => api::order::State::Pending,
        State::ActionRequired => api::order::State::ActionRequired,
        State::Confirmed => api::order::State::Confirmed,
        State::Cancelling => api::order::State::Cancelling,
        State::Rejected => api::order::State::Rejected,
        State::Cancelled => api::order::State::Cancelled,
        State::Expired => api::order::State::Expired,
        State::Completed => api::order::State::Completed,
    }
}

/// The state of its money.
#[must_use]
pub fn payment_state(state: PaymentState) -> api::order::PaymentState {
    match state {
        PaymentState::Unpaid => api::order::PaymentState::Unpaid,
        PaymentState::Authorizing => api::order::PaymentState::Authorizing,
        PaymentState::Authorized => api::order::PaymentState::Authorized,
        PaymentState::InDoubt => api::order::PaymentState::InDoubt,
        PaymentState::Voided => api::order::PaymentState::Voided,
        PaymentState::Failed => api::order::PaymentState::Failed,
        PaymentState::PartiallyCaptured => api::order::PaymentState::PartiallyCaptured,
        PaymentState::Captured => api::order::PaymentState::Captured,
        PaymentState::PartiallyRefunded => api::order::PaymentState::PartiallyRefunded,
        PaymentState::Refunded => api::order::PaymentState::Refunded,
        PaymentState::Overcharged => api::order::PaymentState::Overcharged,
    }
}

/// Why an order was called off.
#[must_use]
pub fn cancel_reason(reason: CancelReason) -> api::CancelReason {
    match reason {
        CancelReason::CustomerRequest => api::CancelReason::CustomerRequest,
        CancelReason::Duplicate => api::CancelReason::Duplicate,
        CancelReason::Fraud => api::CancelReason::Fraud,
        CancelReason::NotShippable => api::CancelReason::NotShippable,
    }
}

/// Why an order was rejected, as a call would be refused for it.
#[must_use]
pub fn reject_reason(reason: RejectReason) -> api::Reason {
    match reason {
        RejectReason::OutOfStock => api::Reason::OutOfStock,
        RejectReason::PaymentDeclined => api::Reason::PaymentDeclined,
        RejectReason::LimitExceeded => api::Reason::LimitExceeded,
        RejectReason::CustomerInactive => api::Reason::CustomerInactive,
        RejectReason::NotFulfillable => api::Reason::NotFulfillable,
        RejectReason::TimedOut => api::Reason::TimedOut,
        RejectReason::PriceChanged => api::Reason::PriceChanged,
    }
}

/// The state of its goods.
#[must_use]
pub fn fulfillment_state(state: FulfillmentState) -> api::order::FulfillmentState {
    use api::order::FulfillmentState as Told;
    match state {
        FulfillmentState::Unfulfilled => Told::Unfulfilled,
        FulfillmentState::PartiallyShipped => Told::PartiallyShipped,
        FulfillmentState::Shipped => Told::Shipped,
        FulfillmentState::PartiallyDelivered => Told::PartiallyDelivered,
        FulfillmentState::Delivered => Told::Delivered,
        FulfillmentState::PartiallyReturned => Told::PartiallyReturned,
        FulfillmentState::Returned => Told::Returned,
    }
}

/// Units that will not be delivered.
#[must_use]
pub fn units(units: &Units) -> api::order_line_cancelled::Units {
    api::order_line_cancelled::Units {
        line_id: units.line_id.clone(),
        quantity: quantity(units.quantity),
    }
}

/// Why they will not.
#[must_use]
pub fn cause(cause: Cause) -> api::order_line_cancelled::Cause {
    use api::order_line_cancelled::Cause as Told;
    match cause {
        Cause::CalledOff => Told::CalledOff,
        Cause::Lost => Told::Lost,
        Cause::Returned => Told::Returned,
    }
}

fn stock_policy(policy: StockPolicy) -> api::StockPolicy {
    match policy {
        StockPolicy::AllOrNothing => api::StockPolicy::AllOrNothing,
        StockPolicy::PartialWithConsent => api::StockPolicy::PartialWithConsent,
    }
}

/// An address.
#[must_use]
pub fn address(address: &Address) -> google::PostalAddress {
    let address = address.clone();
    google::PostalAddress {
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

/// At most 999, by the rule for lines.
fn quantity(quantity: i64) -> i32 {
    i32::try_from(quantity).unwrap_or(i32::MAX)
}
