//! What lines cost, and what a customer agreed to pay: computed in whole minor units, so that
//! the lines sum to the total exactly.

use std::collections::BTreeMap;

use mesh::money::{Currency, Money};

use super::Refusal;

/// A line as it is asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Wanted {
    /// `variants/{sku}`.
    pub variant: String,
    /// 1 to 999.
    pub quantity: i64,
}

/// What a variant costs now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Price {
    /// `variants/{sku}`.
    pub variant: String,
    /// What it is called.
    pub title: String,
    /// One unit.
    pub unit: Money,
    /// The catalog's name for this price.
    pub version: String,
}

/// A line as it was priced. `total` is that of the units that are kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Line {
    /// Its name within the order, from `1`.
    pub id: String,
    /// `variants/{sku}`.
    pub variant: String,
    /// What it was called.
    pub title: String,
    /// How many were ordered.
    pub quantity: i64,
    /// How many of them will not be delivered.
    pub cancelled: i64,
    /// How many the carrier was given.
    pub shipped: i64,
    /// How many of these arrived.
    pub delivered: i64,
    /// How many of these came back.
    pub returned: i64,
    /// One unit.
    pub unit_price: Money,
    /// The catalog's name for this price.
    pub price_version: String,
    /// Taken off.
    pub discount: Money,
    /// Put on.
    pub tax: Money,
    /// `unit_price` for each unit kept, less `discount`, plus `tax`.
    pub total: Money,
}

/// What an order costs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Totals {
    /// All units at their prices.
    pub items: Money,
    /// Taken off.
    pub discount: Money,
    /// The delivery.
    pub shipping: Money,
    /// Put on.
    pub tax: Money,
    /// What the customer pays.
    pub total: Money,
}

/// On what the customer agreed to the total.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Agreement {
    /// They saw this one.
    Seen(Money),
    /// Whatever it is now.
    Current,
    /// They were quoted it.
    Quoted,
}

/// Lines as they would be, and what they would cost.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Offer {
    /// One for each line of the order.
    pub lines: Vec<Offered>,
    /// What the customer would pay.
    pub total: Money,
}

/// A line as it would be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Offered {
    /// Which line.
    pub line_id: String,
    /// How many units would be kept.
    pub quantity: i64,
    /// At which price.
    pub unit_price: Money,
    /// The catalog's name for this price.
    pub price_version: String,
    /// What the line would cost.
    pub total: Money,
}

// === impl Wanted ===

impl Wanted {
    /// What stock knows the variant by.
    #[must_use]
    pub fn sku(&self) -> &str {
        sku(&self.variant)
    }
}

// === impl Line ===

impl Line {
    /// How many units the customer still wants.
    #[must_use]
    pub fn kept(&self) -> i64 {
        self.quantity - self.cancelled
    }

    /// How many of them are yet to be shipped.
    #[must_use]
    pub fn open(&self) -> i64 {
        self.kept() - self.shipped
    }

    /// What stock knows the variant by.
    #[must_use]
    pub fn sku(&self) -> &str {
        sku(&self.variant)
    }

    pub(super) fn totalled(mut self) -> Result<Self, Refusal> {
        self.total = self
            .unit_price
            .checked_mul(self.kept())?
            .checked_sub(self.discount)?
            .checked_add(self.tax)?;
        Ok(self)
    }
}

// === impl Totals ===

impl Totals {
    /// The sums over these lines.
    ///
    /// # Errors
    /// [`Refusal::CurrencyMismatch`] or [`Refusal::TooLarge`].
    pub fn of(lines: &[Line]) -> Result<Self, Refusal> {
        let currency = currency(lines)?;
        let mut items = Money::zero(currency);
        for line in lines {
            items = items.checked_add(line.unit_price.checked_mul(line.kept())?)?;
        }
        let discount = Money::sum(currency, lines.iter().map(|line| line.discount))?;
        let tax = Money::sum(currency, lines.iter().map(|line| line.tax))?;
        let shipping = Money::zero(currency);
        let lines = Money::sum(currency, lines.iter().map(|line| line.total))?;
        Ok(Self { items, discount, shipping, tax, total: lines.checked_add(shipping)? })
    }
}

// === impl Agreement ===

impl Agreement {
    /// Asks whether the customer agreed to what these lines cost.
    ///
    /// # Errors
    /// [`Refusal::PriceChanged`], or [`Refusal::ExpectedCurrency`] if they agreed to an amount in
    /// another currency.
    pub fn covers(&self, lines: &[Line], totals: &Totals) -> Result<(), Refusal> {
        match self {
            Self::Current | Self::Quoted => Ok(()),
            Self::Seen(seen) if seen.currency != totals.total.currency => {
                Err(Refusal::ExpectedCurrency)
            }
            Self::Seen(seen) if *seen == totals.total => Ok(()),
            Self::Seen(_) => Err(Refusal::PriceChanged(Offer {
                lines: lines.iter().map(Offered::from).collect(),
                total: totals.total,
            })),
        }
    }
}

impl From<&Line> for Offered {
    fn from(line: &Line) -> Self {
        Self {
            line_id: line.id.clone(),
            quantity: line.kept(),
            unit_price: line.unit_price,
            price_version: line.price_version.clone(),
            total: line.total,
        }
    }
}

/// Prices the lines that are asked for; `prices` has one for each, in their order.
///
/// # Errors
/// [`Refusal::CurrencyMismatch`] if they are in several currencies, [`Refusal::TooLarge`] if
/// there is no total.
pub fn price(wanted: &[Wanted], prices: &[Price]) -> Result<Vec<Line>, Refusal> {
    let lines: Vec<Line> = (1_u32..)
        .zip(wanted.iter().zip(prices))
        .map(|(number, (wanted, price))| {
            let zero = Money::zero(price.unit.currency);
            Line {
                id: number.to_string(),
                variant: wanted.variant.clone(),
                title: price.title.clone(),
                quantity: wanted.quantity,
                cancelled: 0,
                shipped: 0,
                delivered: 0,
                returned: 0,
                unit_price: price.unit,
                price_version: price.version.clone(),
                discount: zero,
                tax: zero,
                total: zero,
            }
            .totalled()
        })
        .collect::<Result<_, _>>()?;
    Totals::of(&lines)?;
    Ok(lines)
}

/// The lines as an offer has them.
pub(super) fn revised(lines: &[Line], offer: &Offer) -> Result<Vec<Line>, Refusal> {
    lines
        .iter()
        .map(|line| match offer.lines.iter().find(|offered| offered.line_id == line.id) {
            None => Ok(line.clone()),
            Some(offered) => Line {
                cancelled: line.quantity - offered.quantity,
                unit_price: offered.unit_price,
                price_version: offered.price_version.clone(),
                ..line.clone()
            }
            .totalled(),
        })
        .collect()
}

/// The offer at these prices; `None` if no unit costs another amount than it did.
pub(super) fn drift(lines: &[Line], prices: &[Price]) -> Result<Option<Offer>, Refusal> {
    let mut moved = false;
    let mut now = Vec::with_capacity(lines.len());
    for line in lines {
        let price = prices.iter().find(|price| price.variant == line.variant);
        let (unit_price, price_version) = match price {
            // A new version of the same amount is nothing that the customer has to agree to.
            Some(price) if price.unit != line.unit_price && line.kept() > 0 => {
                moved = true;
                (price.unit, price.version.clone())
            }
            Some(_) | None => (line.unit_price, line.price_version.clone()),
        };
        now.push(Line { unit_price, price_version, ..line.clone() }.totalled()?);
    }
    if moved { offer(&now).map(Some) } else { Ok(None) }
}

/// The offer with this much in stock; lines are served in their order. `None` if nothing is left.
pub(super) fn reduced(
    lines: &[Line],
    available: &BTreeMap<String, i64>,
) -> Result<Option<Offer>, Refusal> {
    let mut left = available.clone();
    let mut now = Vec::with_capacity(lines.len());
    for line in lines {
        let kept = match left.get_mut(line.sku()) {
            None => line.kept(),
            Some(left) => {
                let kept = line.kept().min(*left).max(0);
                *left -= kept;
                kept
            }
        };
        now.push(Line { cancelled: line.quantity - kept, ..line.clone() }.totalled()?);
    }
    if now.iter().all(|line| line.kept() == 0) { Ok(None) } else { offer(&now).map(Some) }
}

fn offer(lines: &[Line]) -> Result<Offer, Refusal> {
    let total = Totals::of(lines)?.total;
    Ok(Offer { lines: lines.iter().map(Offered::from).collect(), total })
}

/// The one currency of these lines. There is at least one line.
pub(super) fn currency(lines: &[Line]) -> Result<Currency, Refusal> {
    let mut currencies = lines.iter().map(|line| line.unit_price.currency);
    let first = currencies.next().ok_or(Refusal::TooLarge)?;
    if currencies.all(|currency| currency == first) {
        Ok(first)
    } else {
        Err(Refusal::CurrencyMismatch)
    }
}

fn sku(variant: &str) -> &str {
    variant.strip_prefix("variants/").unwrap_or(variant)
}
