//! A quote: prices that are honoured for a while, although they move.

use mesh::money::{Currency, Money};
use serde::{Deserialize, Serialize};
use time::OffsetDateTime;

use super::{Line, Price, Refusal, Wanted, price::currency};

/// Prices that are honoured for a while: what a sealed quote holds.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Quote {
    /// ISO 4217.
    pub currency: String,
    /// Until when, in seconds since 1970.
    pub expires: i64,
    /// The lines.
    pub lines: Vec<Quoted>,
}

/// A line of a quote; the names are short because a quote travels in requests.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Quoted {
    /// `variants/{sku}`.
    #[serde(rename = "v")]
    pub variant: String,
    /// What it is called.
    #[serde(rename = "t")]
    pub title: String,
    /// How many.
    #[serde(rename = "q")]
    pub quantity: i64,
    /// One unit, in minor units.
    #[serde(rename = "p")]
    pub price_minor: i64,
    /// The catalog's name for this price.
    #[serde(rename = "r")]
    pub version: String,
}

// === impl Quote ===

impl Quote {
    /// Keeps what these lines cost, to be honoured until then.
    ///
    /// # Errors
    /// [`Refusal::CurrencyMismatch`].
    pub fn of(lines: &[Line], expires_at: OffsetDateTime) -> Result<Self, Refusal> {
        Ok(Self {
            currency: currency(lines)?.code().to_owned(),
            expires: expires_at.unix_timestamp(),
            lines: lines
                .iter()
                .map(|line| Quoted {
                    variant: line.variant.clone(),
                    title: line.title.clone(),
                    quantity: line.quantity,
                    price_minor: line.unit_price.minor,
                    version: line.price_version.clone(),
                })
                .collect(),
        })
    }

    /// The prices that were quoted, one for each line.
    ///
    /// # Errors
    /// [`Refusal::QuoteExpired`] from its end on, [`Refusal::QuoteDiffers`] for other lines.
    pub fn prices(&self, wanted: &[Wanted], at: OffsetDateTime) -> Result<Vec<Price>, Refusal> {
        if at.unix_timestamp() >= self.expires {
            return Err(Refusal::QuoteExpired);
        }
        let quoted = self.lines.iter().map(|line| (line.variant.as_str(), line.quantity));
        let asked = wanted.iter().map(|line| (line.variant.as_str(), line.quantity));
        if !quoted.eq(asked) {
            return Err(Refusal::QuoteDiffers);
        }
        let currency = Currency::parse(&self.currency)?;
        Ok(self
            .lines
            .iter()
            .map(|line| Price {
                variant: line.variant.clone(),
                title: line.title.clone(),
                unit: Money::new(line.price_minor, currency),
                version: line.version.clone(),
            })
            .collect())
    }
}
