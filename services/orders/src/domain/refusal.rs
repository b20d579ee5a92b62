//! The rules that say no, and what they say.

use std::collections::BTreeMap;

use mesh::money::{Money, MoneyError};
use time::OffsetDateTime;

use super::{Offer, State, Wanted};

/// A rule said no.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// Not from this state.
    #[error("the order is {0}: this is not possible")]
    State(State),
    /// The time to act is over.
    #[error("the time to agree was over at {0}")]
    TooLate(OffsetDateTime),
    /// The total is not what the customer saw.
    #[error("the total is {}, not what was expected", .0.total)]
    PriceChanged(Offer),
    /// Amounts in different currencies.
    #[error("amounts are in different currencies")]
    CurrencyMismatch,
    /// What the customer saw is in another currency than the prices.
    #[error("the prices are in another currency")]
    ExpectedCurrency,
    /// The total does not fit.
    #[error("the total is too large")]
    TooLarge,
    /// Not enough in stock.
    #[error("not enough in stock")]
    OutOfStock(Vec<Short>),
    /// The quote's time is over.
    #[error("the quote is no longer honoured")]
    QuoteExpired,
    /// The quote is for other lines.
    #[error("the quote is for other lines")]
    QuoteDiffers,
    /// Above what the customer may order for.
    #[error("the order is above the customer's limit of {0}")]
    Limit(Money),
    /// The customer may not order.
    #[error("the customer may not order")]
    CustomerInactive,
    /// The carrier has all of it.
    #[error("the carrier has all of it: what it delivers can be sent back")]
    NotCancellable,
    /// A parcel holds what the order does not have, or is not where it would have to be.
    #[error("the parcel does not fit the order")]
    Units,
    /// Something is still on its way, or owed.
    #[error("something is still on its way, or owed")]
    Unfinished,
    /// Confirming needs an authorization of the whole total.
    #[error("the payment does not cover the total")]
    Unpaid,
}

/// A variant of which there is not enough.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Short {
    /// The variant's SKU.
    pub sku: String,
    /// How many are wanted.
    pub wanted: i64,
    /// How many there are.
    pub available: i64,
}

impl From<MoneyError> for Refusal {
    fn from(error: MoneyError) -> Self {
        match error {
            MoneyError::CurrencyMismatch(..) => Self::CurrencyMismatch,
            MoneyError::UnknownCurrency(_)
            | MoneyError::NanosOutOfRange
            | MoneyError::MixedSigns
            | MoneyError::TooPrecise { .. }
            | MoneyError::OutOfRange
            | MoneyError::NoWeights => Self::TooLarge,
        }
    }
}

/// Refuses what is plainly short: the wanted units of a variant, over all lines, against what
/// there is. A variant that is not in `available` is not known to be short.
///
/// # Errors
/// [`Refusal::OutOfStock`] with every variant that is short.
pub fn in_stock(wanted: &[Wanted], available: &BTreeMap<String, i64>) -> Result<(), Refusal> {
    let mut sums: BTreeMap<&str, i64> = BTreeMap::new();
    for line in wanted {
        let sum = sums.entry(line.sku()).or_default();
        *sum = sum.saturating_add(line.quantity);
    }
    let short: Vec<Short> = sums
        .into_iter()
        .filter_map(|(sku, wanted)| {
            let available = *available.get(sku)?;
            (available < wanted).then(|| Short { sku: sku.to_owned(), wanted, available })
        })
        .collect();
    if short.is_empty() { Ok(()) } else { Err(Refusal::OutOfStock(short)) }
}

/// Asks whether a customer may order for this total.
///
/// # Errors
/// [`Refusal::CustomerInactive`], [`Refusal::Limit`], or [`Refusal::CurrencyMismatch`] if the
/// limit is in another currency.
pub fn may_order(active: bool, limit: Option<Money>, total: Money) -> Result<(), Refusal> {
    if !active {
        return Err(Refusal::CustomerInactive);
    }
    match limit {
        None => Ok(()),
        Some(limit) if limit.currency != total.currency => Err(Refusal::CurrencyMismatch),
        Some(limit) if total.minor > limit.minor => Err(Refusal::Limit(limit)),
        Some(_) => Ok(()),
    }
}
