//! What is sent, and where to.

use serde::{Deserialize, Serialize};

/// What is sent, for whom, from where and where to.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Plan {
    /// `orders/{uuid}`.
    pub order: String,
    /// `users/{uuid}`.
    pub customer: String,
    /// `locations/{location}`.
    pub location: String,
    /// What is sent.
    pub lines: Vec<Line>,
    /// Where to.
    pub ship_to: Option<Address>,
}

/// How much of one line of the order is sent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Line {
    /// The id of the order's line.
    pub id: String,
    /// `variants/{sku}`.
    pub variant: String,
    /// How many.
    pub quantity: i32,
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
