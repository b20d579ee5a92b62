//! What the payments service keeps, and the provider's ledger.

use serde::Deserialize;

use super::super::value::{id, int, text};

/// `payment`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
pub struct Payment {
    /// Its id.
    pub id: String,
    /// For which order; empty where it was voided before it came to be.
    #[serde(alias = "order_id", deserialize_with = "id")]
    pub order_name: String,
    /// Where it stands.
    pub state: String,
    /// What is to be paid.
    #[serde(deserialize_with = "int")]
    pub amount_minor: i64,
    /// ISO 4217.
    pub currency: String,
    /// Set aside or taken.
    #[serde(deserialize_with = "int")]
    pub authorized_minor: i64,
    /// Taken.
    #[serde(deserialize_with = "int")]
    pub captured_minor: i64,
    /// Given back of what was taken.
    #[serde(default, deserialize_with = "int")]
    pub refunded_minor: i64,
    /// How many events it has.
    #[serde(default, deserialize_with = "int")]
    pub revision: i64,
}

/// `attempt`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
pub struct Attempt {
    /// Of which payment.
    pub payment: String,
    /// What was asked.
    pub kind: String,
    /// `pay/{payment}/{kind}/{n}`.
    pub reference: String,
    /// How far it has come.
    pub state: String,
    /// How much.
    #[serde(deserialize_with = "int")]
    pub amount_minor: i64,
    /// When it was noted.
    #[serde(default, deserialize_with = "int")]
    pub created_at: i64,
}

/// `refund`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
pub struct Refund {
    /// Its id.
    pub id: String,
    /// Of which payment.
    #[serde(deserialize_with = "id")]
    pub payment: String,
    /// Where it stands.
    pub state: String,
    /// How much.
    #[serde(deserialize_with = "int")]
    pub amount_minor: i64,
    /// Which saga asked for it; empty for a person.
    #[serde(default, deserialize_with = "text")]
    pub saga: String,
    /// When it was granted.
    #[serde(default, deserialize_with = "int")]
    pub created_at: i64,
}

/// `ledger_entry`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
pub struct Posting {
    /// Of which payment.
    pub payment: String,
    /// The attempt's name at the provider.
    pub reference: String,
    /// Why the money moved.
    pub movement: String,
    /// To which account.
    pub account: String,
    /// How much; negative for what leaves the account.
    #[serde(deserialize_with = "int")]
    pub amount_minor: i64,
    /// ISO 4217.
    pub currency: String,
    /// When.
    #[serde(default, deserialize_with = "int")]
    pub at: i64,
}

/// A line of the provider's ledger.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
pub struct ProviderEntry {
    /// Its place in the ledger.
    #[serde(deserialize_with = "int")]
    pub position: i64,
    /// Our name for the attempt.
    pub reference: String,
    /// Why the money moved.
    pub movement: String,
    /// How much.
    #[serde(rename = "amount", deserialize_with = "int")]
    pub amount_minor: i64,
    /// ISO 4217.
    pub currency: String,
    /// What the provider keeps.
    #[serde(rename = "fee", default, deserialize_with = "int")]
    pub fee_minor: i64,
    /// When, in seconds.
    #[serde(default, deserialize_with = "int")]
    pub at: i64,
    /// Whether it stood there before our own ledger was read.
    #[serde(skip)]
    pub settled: bool,
}
