//! What an order is made of besides its lines.

use std::{collections::BTreeMap, fmt};

use serde::{Deserialize, Serialize};
use time::{Duration, OffsetDateTime};

use super::Offer;

/// Everything about an order that is said by whoever places it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Draft {
    /// `users/{uuid}`.
    pub customer: String,
    /// Empty if users could not be asked.
    pub customer_email: String,
    /// Where it goes.
    pub ship_to: Option<Address>,
    /// The provider's token.
    pub payment_method: String,
    /// What to do when stock is short.
    pub stock_policy: StockPolicy,
    /// Whether the prices are those of a quote.
    pub quoted: bool,
    /// How long it may take to be confirmed.
    pub patience: Duration,
}

/// A postal address, field by field as `google.type.PostalAddress` has them.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[expect(missing_docs, reason = "documented by google.type.PostalAddress")]
pub struct Address {
    pub region_code: String,
    pub language_code: String,
    pub postal_code: String,
    pub sorting_code: String,
    pub administrative_area: String,
    pub locality: String,
    pub sublocality: String,
    pub address_lines: Vec<String>,
    pub recipients: Vec<String>,
    pub organization: String,
}

/// Why an order could not be fulfilled, with the facts.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rejection {
    /// The reason.
    pub reason: RejectReason,
    /// The facts, by the names that the contract documents.
    pub metadata: BTreeMap<String, String>,
}

/// Why an order could not be fulfilled.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum RejectReason {
    /// Not enough in stock.
    OutOfStock,
    /// The provider said no.
    PaymentDeclined,
    /// Above what the customer may order for.
    LimitExceeded,
    /// The customer may not order.
    CustomerInactive,
    /// Another service refused to take part.
    NotFulfillable,
    /// Not arranged in time.
    TimedOut,
    /// Prices rose while the payment was being authorized.
    PriceChanged,
}

/// What an order waits for, and until when.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PendingAction {
    /// What is asked.
    pub ask: Ask,
    /// From then on it is too late.
    pub expires_at: OffsetDateTime,
}

/// What a customer is asked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Ask {
    /// Prices moved.
    Price(Offer),
    /// Not everything is in stock.
    Stock(Offer),
    /// The payment is finished by the customer, at this address.
    Payment(String),
}

/// Who calls an order off, and why.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cancellation {
    /// The reason.
    pub reason: CancelReason,
    /// `users/{uuid}` or `services/{name}`.
    pub actor: String,
    /// In words.
    pub note: String,
}

/// Why somebody calls an order off.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CancelReason {
    /// Not wanted any more.
    CustomerRequest,
    /// Ordered twice.
    Duplicate,
    /// Looks like fraud.
    Fraud,
    /// Cannot be shipped: said by the mesh itself.
    NotShippable,
}

/// What to do when stock is short.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StockPolicy {
    /// Reject.
    AllOrNothing,
    /// Ask the customer whether less will do.
    PartialWithConsent,
}

// === impl Rejection ===

impl Rejection {
    /// A reason that needs no facts.
    #[must_use]
    pub fn plain(reason: RejectReason) -> Self {
        Self { reason, metadata: BTreeMap::new() }
    }

    /// A reason with one fact.
    #[must_use]
    pub fn with(mut self, key: &str, value: impl fmt::Display) -> Self {
        self.metadata.insert(key.to_owned(), value.to_string());
        self
    }
}
