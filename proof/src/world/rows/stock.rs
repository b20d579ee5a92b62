//! What the inventory service keeps.

use serde::Deserialize;

use super::super::value::{id, int, text};

/// `stock`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
pub struct Stock {
    /// Of what.
    pub sku: String,
    /// Where.
    pub location: String,
    /// Units that lie there.
    #[serde(deserialize_with = "int")]
    pub on_hand: i64,
    /// Units that are held.
    #[serde(deserialize_with = "int")]
    pub held: i64,
    /// Units that are promised.
    #[serde(deserialize_with = "int")]
    pub allocated: i64,
    /// How far promises may go beyond what lies there.
    #[serde(default, deserialize_with = "int")]
    pub backorder_limit: i64,
}

/// `reservation`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
pub struct Reservation {
    /// Its id.
    pub id: String,
    /// For which order; empty for none.
    #[serde(default, alias = "order_name", deserialize_with = "id")]
    pub order_id: String,
    /// Which saga owns it; empty for none.
    #[serde(default, deserialize_with = "text")]
    pub saga: String,
    /// Where it stands.
    pub state: String,
    /// When a hold ends by time.
    #[serde(default, deserialize_with = "int")]
    pub expires_at: i64,
    /// How often it changed.
    #[serde(default, deserialize_with = "int")]
    pub revision: i64,
    /// When it was made.
    #[serde(default, deserialize_with = "int")]
    pub created_at: i64,
}

/// `reservation_line`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
pub struct Part {
    /// Of which reservation.
    pub reservation: String,
    /// For which line of the order.
    #[serde(deserialize_with = "text")]
    pub line: String,
    /// Of what.
    pub sku: String,
    /// From where.
    pub location: String,
    /// Units.
    #[serde(deserialize_with = "int")]
    pub quantity: i64,
}

/// `movement`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
pub struct Movement {
    /// Its id.
    pub id: String,
    /// Of what.
    pub sku: String,
    /// Where.
    pub location: String,
    /// `HELD`, `SHIPPED` and so on.
    pub kind: String,
    /// Units.
    #[serde(deserialize_with = "int")]
    pub quantity: i64,
    /// For which reservation; empty for none.
    #[serde(default, deserialize_with = "id")]
    pub cause: String,
    /// When.
    #[serde(deserialize_with = "int")]
    pub at: i64,
}
