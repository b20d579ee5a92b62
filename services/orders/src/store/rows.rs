//! Rows as the database has them, and what they mean.

use mesh::{
    clock,
    money::{Currency, Money},
    store::Failure,
};
use sea_orm::FromQueryResult;
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use uuid::Uuid;

use super::{Entry, Stored};
use crate::domain::{
    Ask, Attempt, CancelReason, FulfillmentState, Line, Offer, Offered, Order, Payment,
    PaymentState, PendingAction, State, StockPolicy, Totals,
};

#[derive(FromQueryResult)]
pub(super) struct OrderRow {
    pub(super) id: String,
    customer: String,
    customer_email: String,
    state: String,
    payment_attempt: String,
    authorized_minor: i64,
    captured_minor: i64,
    refunded_minor: i64,
    payment_voided: bool,
    currency: String,
    items_minor: i64,
    discount_minor: i64,
    shipping_minor: i64,
    tax_minor: i64,
    total_minor: i64,
    expected_minor: Option<i64>,
    quoted: bool,
    ship_to: Option<String>,
    rejection: Option<String>,
    pending: Option<String>,
    parcels: Option<String>,
    payment_method: String,
    stock_policy: String,
    confirm_by: i64,
    placed_at: i64,
    updated_at: i64,
    confirmed_at: Option<i64>,
    revision: i64,
}

#[derive(FromQueryResult)]
pub(super) struct LineRow {
    pub(super) order_id: String,
    number: i64,
    variant: String,
    title: String,
    unit_price_minor: i64,
    price_version: String,
    discount_minor: i64,
    tax_minor: i64,
    total_minor: i64,
    ordered: i64,
    cancelled: i64,
    shipped: i64,
    delivered: i64,
    returned: i64,
}

#[derive(FromQueryResult)]
pub(super) struct EventRow {
    revision: i64,
    kind: String,
    at: i64,
    actor: String,
    state: String,
    payment_state: String,
    fulfillment_state: String,
    note: String,
}

/// The column `pending`.
#[derive(Serialize, Deserialize)]
struct PendingJson {
    kind: Kind,
    expires_at: i64,
    #[serde(default)]
    url: String,
    #[serde(default)]
    total_minor: i64,
    #[serde(default)]
    lines: Vec<OfferedJson>,
}

#[derive(Clone, Copy, Serialize, Deserialize)]
enum Kind {
    Price,
    Stock,
    Payment,
}

#[derive(Serialize, Deserialize)]
struct OfferedJson {
    line_id: String,
    quantity: i64,
    price_minor: i64,
    version: String,
    total_minor: i64,
}

const READ: &str = "read the order";
const WRITE: &str = "write the order";

// === impl OrderRow ===

impl OrderRow {
    pub(super) fn stored(self, lines: Vec<LineRow>) -> Result<Stored, Failure> {
        let currency =
            Currency::parse(&self.currency).map_err(|error| unreadable(&error.to_string()))?;
        let money = |minor| Money::new(minor, currency);
        let pending = self.pending.as_deref().map(read_json::<PendingJson>).transpose()?;
        let order = Order {
            id: Uuid::try_parse(&self.id).map_err(|error| unreadable(&error.to_string()))?,
            customer: self.customer,
            customer_email: self.customer_email,
            state: read_state(&self.state)?,
            payment: Payment {
                attempt: read_attempt(&self.payment_attempt)?,
                authorized_minor: self.authorized_minor,
                captured_minor: self.captured_minor,
                refunded_minor: self.refunded_minor,
                voided: self.payment_voided,
            },
            lines: lines.into_iter().map(|line| line.line(currency)).collect(),
            totals: Totals {
                items: money(self.items_minor),
                discount: money(self.discount_minor),
                shipping: money(self.shipping_minor),
                tax: money(self.tax_minor),
                total: money(self.total_minor),
            },
            expected_total: self.expected_minor.map(money),
            quoted: self.quoted,
            confirm_by: clock::from_micros(self.confirm_by),
            ship_to: self.ship_to.as_deref().map(read_json).transpose()?,
            payment_method: self.payment_method,
            stock_policy: read_stock_policy(&self.stock_policy)?,
            rejection: self.rejection.as_deref().map(read_json).transpose()?,
            pending: pending.map(|pending| pending.action(currency)),
            placed_at: clock::from_micros(self.placed_at),
            updated_at: clock::from_micros(self.updated_at),
            confirmed_at: self.confirmed_at.map(clock::from_micros),
            parcels: self.parcels.as_deref().map(read_json).transpose()?.unwrap_or_default(),
        };
        Ok(Stored { order, revision: self.revision })
    }
}

// === impl LineRow ===

impl LineRow {
    fn line(self, currency: Currency) -> Line {
        let money = |minor| Money::new(minor, currency);
        Line {
            id: self.number.to_string(),
            variant: self.variant,
            title: self.title,
            quantity: self.ordered,
            cancelled: self.cancelled,
            shipped: self.shipped,
            delivered: self.delivered,
            returned: self.returned,
            unit_price: money(self.unit_price_minor),
            price_version: self.price_version,
            discount: money(self.discount_minor),
            tax: money(self.tax_minor),
            total: money(self.total_minor),
        }
    }
}

// === impl EventRow ===

impl TryFrom<EventRow> for Entry {
    type Error = Failure;

    fn try_from(row: EventRow) -> Result<Self, Failure> {
        Ok(Self {
            revision: row.revision,
            kind: row.kind,
            at: clock::from_micros(row.at),
            actor: row.actor,
            state: read_state(&row.state)?,
            payment_state: read_payment_state(&row.payment_state)?,
            fulfillment_state: read_fulfillment_state(&row.fulfillment_state)?,
            note: row.note,
        })
    }
}

// === impl PendingJson ===

impl PendingJson {
    fn action(self, currency: Currency) -> PendingAction {
        let money = |minor| Money::new(minor, currency);
        let lines = self.lines.into_iter().map(|line| Offered {
            line_id: line.line_id,
            quantity: line.quantity,
            unit_price: money(line.price_minor),
            price_version: line.version,
            total: money(line.total_minor),
        });
        let offer = Offer { lines: lines.collect(), total: money(self.total_minor) };
        let ask = match self.kind {
            Kind::Price => Ask::Price(offer),
            Kind::Stock => Ask::Stock(offer),
            Kind::Payment => Ask::Payment(self.url),
        };
        PendingAction { ask, expires_at: clock::from_micros(self.expires_at) }
    }
}

/// The column `pending` of what an order waits for.
pub(super) fn pending(pending: &PendingAction) -> Result<String, Failure> {
    let expires_at = clock::micros(pending.expires_at);
    let offered = |kind, offer: &Offer| PendingJson {
        kind,
        expires_at,
        url: String::new(),
        total_minor: offer.total.minor,
        lines: offer
            .lines
            .iter()
            .map(|line| OfferedJson {
                line_id: line.line_id.clone(),
                quantity: line.quantity,
                price_minor: line.unit_price.minor,
                version: line.price_version.clone(),
                total_minor: line.total.minor,
            })
            .collect(),
    };
    json(&match &pending.ask {
        Ask::Price(offer) => offered(Kind::Price, offer),
        Ask::Stock(offer) => offered(Kind::Stock, offer),
        Ask::Payment(url) => PendingJson {
            kind: Kind::Payment,
            expires_at,
            url: url.clone(),
            total_minor: 0,
            lines: Vec::new(),
        },
    })
}

pub(super) fn json<T: Serialize>(value: &T) -> Result<String, Failure> {
    serde_json::to_string(value).map_err(|error| Failure::new(WRITE, error.to_string()))
}

/// A line's place in its order, which is also its id.
pub(super) fn number(line: &Line) -> Result<i64, Failure> {
    line.id.parse().map_err(|error: std::num::ParseIntError| Failure::new(WRITE, error.to_string()))
}

pub(super) fn payment_state(state: PaymentState) -> &'static str {
    match state {
        PaymentState::Unpaid => "UNPAID",
        PaymentState::Authorizing => "AUTHORIZING",
        PaymentState::Authorized => "AUTHORIZED",
        PaymentState::InDoubt => "IN_DOUBT",
        PaymentState::Voided => "VOIDED",
        PaymentState::Failed => "FAILED",
        PaymentState::PartiallyCaptured => "PARTIALLY_CAPTURED",
        PaymentState::Captured => "CAPTURED",
        PaymentState::PartiallyRefunded => "PARTIALLY_REFUNDED",
        PaymentState::Refunded => "REFUNDED",
        PaymentState::Overcharged => "OVERCHARGED",
    }
}

pub(super) fn attempt(attempt: Attempt) -> &'static str {
    match attempt {
        Attempt::None => "NONE",
        Attempt::Open => "OPEN",
        Attempt::Unknown => "UNKNOWN",
        Attempt::Succeeded => "SUCCEEDED",
        Attempt::Failed => "FAILED",
    }
}

pub(super) fn stock_policy(policy: StockPolicy) -> &'static str {
    match policy {
        StockPolicy::AllOrNothing => "ALL_OR_NOTHING",
        StockPolicy::PartialWithConsent => "PARTIAL_WITH_CONSENT",
    }
}

pub(super) fn cancel_reason(reason: CancelReason) -> &'static str {
    match reason {
        CancelReason::CustomerRequest => "CUSTOMER_REQUEST",
        CancelReason::Duplicate => "DUPLICATE",
        CancelReason::Fraud => "FRAUD",
        CancelReason::NotShippable => "NOT_SHIPPABLE",
    }
}

fn read_state(text: &str) -> Result<State, Failure> {
    let states = [
        State::Pending,
        State::ActionRequired,
        State::Confirmed,
        State::Cancelling,
        State::Rejected,
        State::Cancelled,
        State::Expired,
        State::Completed,
    ];
    states.into_iter().find(|state| state.to_string() == text).ok_or_else(|| unreadable(text))
}

fn read_payment_state(text: &str) -> Result<PaymentState, Failure> {
    let states = [
        PaymentState::Unpaid,
        PaymentState::Authorizing,
        PaymentState::Authorized,
        PaymentState::InDoubt,
        PaymentState::Voided,
        PaymentState::Failed,
        PaymentState::PartiallyCaptured,
        PaymentState::Captured,
        PaymentState::PartiallyRefunded,
        PaymentState::Refunded,
        PaymentState::Overcharged,
    ];
    states.into_iter().find(|state| payment_state(*state) == text).ok_or_else(|| unreadable(text))
}

fn read_fulfillment_state(text: &str) -> Result<FulfillmentState, Failure> {
    let states = [
        FulfillmentState::Unfulfilled,
        FulfillmentState::PartiallyShipped,
        FulfillmentState::Shipped,
        FulfillmentState::PartiallyDelivered,
        FulfillmentState::Delivered,
        FulfillmentState::PartiallyReturned,
        FulfillmentState::Returned,
    ];
    states.into_iter().find(|state| state.to_string() == text).ok_or_else(|| unreadable(text))
}

fn read_attempt(text: &str) -> Result<Attempt, Failure> {
    let attempts =
        [Attempt::None, Attempt::Open, Attempt::Unknown, Attempt::Succeeded, Attempt::Failed];
    attempts.into_iter().find(|known| attempt(*known) == text).ok_or_else(|| unreadable(text))
}

fn read_stock_policy(text: &str) -> Result<StockPolicy, Failure> {
    let policies = [StockPolicy::AllOrNothing, StockPolicy::PartialWithConsent];
    policies.into_iter().find(|known| stock_policy(*known) == text).ok_or_else(|| unreadable(text))
}

fn read_json<T: DeserializeOwned>(text: &str) -> Result<T, Failure> {
    serde_json::from_str(text).map_err(|error| unreadable(&error.to_string()))
}

fn unreadable(what: &str) -> Failure {
    Failure::new(READ, format!("a column holds what this release does not know: {what}"))
}
