//! What the shipping service keeps, and the carrier.

use serde::Deserialize;

use super::super::value::{id, int, text};

/// `shipment`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
pub struct Shipment {
    /// Its id.
    pub id: String,
    /// For which order; empty where it was cancelled before it came to be.
    #[serde(alias = "order_id", deserialize_with = "id")]
    pub order_name: String,
    /// Where it stands.
    pub state: String,
    /// From where.
    #[serde(default, deserialize_with = "text")]
    pub location: String,
    /// Who carries it.
    #[serde(default, deserialize_with = "text")]
    pub carrier: String,
    /// The carrier's name for the parcel.
    #[serde(default, deserialize_with = "text")]
    pub tracking: String,
    /// How often it changed.
    #[serde(default, deserialize_with = "int")]
    pub revision: i64,
    /// When it was made.
    #[serde(default, deserialize_with = "int")]
    pub created_at: i64,
}

/// `shipment_line`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
pub struct ShipmentLine {
    /// Of which shipment.
    #[serde(alias = "shipment_id", deserialize_with = "id")]
    pub shipment: String,
    /// Which line of the order.
    #[serde(alias = "line_id", deserialize_with = "text")]
    pub line: String,
    /// Of what.
    #[serde(alias = "sku", deserialize_with = "id")]
    pub variant: String,
    /// Units.
    #[serde(deserialize_with = "int")]
    pub quantity: i64,
}

/// `carrier_parcel`: what the carrier was given.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
pub struct Parcel {
    /// Our name for it: `ship/{shipment}/{what was asked}/{n}`.
    pub reference: String,
    /// The carrier's name for it.
    #[serde(deserialize_with = "text")]
    pub tracking: String,
    /// Where it stands.
    #[serde(deserialize_with = "text")]
    pub stage: String,
}

/// `carrier_event`: what the carrier says happened.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
pub struct CarrierEvent {
    /// Of which parcel.
    pub reference: String,
    /// What happened.
    #[serde(deserialize_with = "text")]
    pub kind: String,
    /// When.
    #[serde(default, deserialize_with = "int")]
    pub at: i64,
}

// === impl Parcel ===

impl Parcel {
    /// The id of the shipment that it was booked for.
    #[must_use]
    pub fn shipment(&self) -> &str {
        self.reference.split('/').nth(1).unwrap_or(&self.reference)
    }
}
