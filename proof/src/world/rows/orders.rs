//! What the orders service keeps: orders, their history, and the sagas that lead them.

use serde::Deserialize;

use super::super::value::{id, int, maybe_int, text};

/// `orders`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
pub struct Order {
    /// Its id.
    pub id: String,
    /// `users/{uuid}`.
    pub customer: String,
    /// Where it stands.
    pub state: String,
    /// Where its money stands.
    pub payment_state: String,
    /// Where its goods stand.
    #[serde(default, deserialize_with = "text")]
    pub fulfillment_state: String,
    /// ISO 4217.
    pub currency: String,
    /// What the delivery costs.
    #[serde(default, deserialize_with = "int")]
    pub shipping_minor: i64,
    /// What it costs.
    #[serde(deserialize_with = "int")]
    pub total_minor: i64,
    /// Under which id it was asked for.
    #[serde(default, deserialize_with = "text")]
    pub request_id: String,
    /// When it must be confirmed.
    #[serde(default, deserialize_with = "int")]
    pub confirm_by: i64,
    /// When it was placed.
    #[serde(deserialize_with = "int")]
    pub placed_at: i64,
    /// When it was confirmed.
    #[serde(default, deserialize_with = "maybe_int")]
    pub confirmed_at: Option<i64>,
    /// How often it changed.
    #[serde(deserialize_with = "int")]
    pub revision: i64,
}

/// `order_line`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
pub struct OrderLine {
    /// Of which order.
    #[serde(alias = "order_name", deserialize_with = "id")]
    pub order_id: String,
    /// Its place in the order.
    #[serde(deserialize_with = "text")]
    pub number: String,
    /// `variants/{sku}`, without the collection.
    #[serde(deserialize_with = "id")]
    pub variant: String,
    /// What is due for what is kept.
    #[serde(deserialize_with = "int")]
    pub total_minor: i64,
    /// Units.
    #[serde(deserialize_with = "int")]
    pub ordered: i64,
    /// Units.
    #[serde(deserialize_with = "int")]
    pub cancelled: i64,
    /// Units.
    #[serde(default, deserialize_with = "int")]
    pub shipped: i64,
    /// Units.
    #[serde(default, deserialize_with = "int")]
    pub delivered: i64,
    /// Units.
    #[serde(default, deserialize_with = "int")]
    pub returned: i64,
}

/// `order_event`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
pub struct OrderEvent {
    /// Of which order.
    #[serde(alias = "order_name", deserialize_with = "id")]
    pub order_id: String,
    /// The revision that it made.
    #[serde(deserialize_with = "int")]
    pub revision: i64,
    /// `order.…`.
    #[serde(rename = "type")]
    pub kind: String,
    /// When.
    #[serde(deserialize_with = "int")]
    pub at: i64,
    /// Who.
    #[serde(default, deserialize_with = "text")]
    pub actor: String,
    /// Where the order stood after the change that this event was part of.
    pub state: String,
    /// Where its money stood then.
    pub payment_state: String,
    /// More, in words.
    #[serde(default, deserialize_with = "text")]
    pub note: String,
}

/// `saga`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
pub struct Saga {
    /// Its id.
    pub id: String,
    /// Which list of steps.
    #[serde(default, deserialize_with = "text")]
    pub kind: String,
    /// The order, without the collection.
    #[serde(deserialize_with = "id")]
    pub key: String,
    /// Where it stands.
    pub state: String,
    /// When it is looked at next.
    #[serde(default, deserialize_with = "int")]
    pub next_run_at: i64,
    /// Why it is undone.
    #[serde(default, deserialize_with = "text")]
    pub reason: String,
    /// What was heard last of a step that does not succeed.
    #[serde(default, deserialize_with = "text")]
    pub last_error: String,
    /// The trace that it belongs to.
    #[serde(default, deserialize_with = "text")]
    pub traceparent: String,
}

/// `saga_step`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
pub struct SagaStep {
    /// Of which saga.
    pub saga: String,
    /// Which step.
    pub step_key: String,
    /// `DO` or `UNDO`.
    pub direction: String,
    /// What is known of it.
    pub state: String,
    /// When it was intended.
    #[serde(deserialize_with = "int")]
    pub started_at: i64,
    /// When its outcome was recorded.
    #[serde(default, deserialize_with = "maybe_int")]
    pub ended_at: Option<i64>,
}
