//! The rules of the catalog: values in, state and events or a refusal out.

mod values;

use std::fmt;

use mesh::money::{Currency, Money};
use time::OffsetDateTime;
use uuid::Uuid;

pub use values::{Amount, Description, Problem, Sku, Title};

/// Something that is sold, in one form or several.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Product {
    /// Its id.
    pub id: Uuid,
    /// What customers read.
    pub title: Title,
    /// More to read.
    pub description: Description,
    /// When it was added.
    pub created_at: OffsetDateTime,
    /// When it last changed.
    pub updated_at: OffsetDateTime,
    /// When it was taken off sale.
    pub deleted_at: Option<OffsetDateTime>,
}

/// A form in which a product is sold, with the price that holds now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Variant {
    /// What it is ordered by.
    pub sku: Sku,
    /// The product it is a form of.
    pub product: Uuid,
    /// What customers read.
    pub title: Title,
    /// What one unit costs.
    pub price: Amount,
    /// Which price that is.
    pub price_version: Uuid,
    /// When it was added.
    pub created_at: OffsetDateTime,
    /// When it last changed.
    pub updated_at: OffsetDateTime,
}

/// What a variant costs from some time on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Price {
    /// Its id: the version.
    pub id: Uuid,
    /// What it is the price of.
    pub sku: Sku,
    /// What one unit costs.
    pub amount: Amount,
    /// From when on.
    pub effective_at: OffsetDateTime,
    /// When it was set.
    pub created_at: OffsetDateTime,
}

/// Whether a product is sold.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// It is.
    Active,
    /// It is not.
    Deleted,
}

/// What happened to a product.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ProductEvent {
    /// It was added.
    Created,
    /// It was changed or brought back.
    Updated,
    /// It was taken off sale.
    Deleted,
}

/// What happened to a variant.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum VariantEvent {
    /// It was added with this price.
    Created(Price),
    /// It was changed.
    Updated,
    /// It has, or will have, this price.
    Priced(Price),
}

/// A rule said no.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// The product is deleted, or is not.
    #[error("the product is {0}")]
    State(State),
    /// A variant keeps its currency.
    #[error("the variant is priced in {0}")]
    Currency(Currency),
    /// A price cannot begin in the past.
    #[error("a price cannot begin in the past")]
    Past,
}

// === impl Product ===

impl Product {
    /// Adds a product.
    #[must_use]
    pub fn create(
        id: Uuid,
        title: Title,
        description: Description,
        at: OffsetDateTime,
    ) -> (Self, ProductEvent) {
        let product =
            Self { id, title, description, created_at: at, updated_at: at, deleted_at: None };
        (product, ProductEvent::Created)
    }

    /// Whether it is sold.
    #[must_use]
    pub fn state(&self) -> State {
        if self.deleted_at.is_some() { State::Deleted } else { State::Active }
    }

    /// Changes what customers read.
    ///
    /// # Errors
    /// [`Refusal::State`] if it is deleted: bring it back first.
    pub fn update(
        &mut self,
        title: Option<Title>,
        description: Option<Description>,
        at: OffsetDateTime,
    ) -> Result<ProductEvent, Refusal> {
        self.must_be(State::Active)?;
        if let Some(title) = title {
            self.title = title;
        }
        if let Some(description) = description {
            self.description = description;
        }
        self.updated_at = at;
        Ok(ProductEvent::Updated)
    }

    /// Takes it off sale, with its variants.
    ///
    /// # Errors
    /// [`Refusal::State`] if it is deleted already.
    pub fn delete(&mut self, at: OffsetDateTime) -> Result<ProductEvent, Refusal> {
        self.must_be(State::Active)?;
        self.deleted_at = Some(at);
        self.updated_at = at;
        Ok(ProductEvent::Deleted)
    }

    /// Brings it back.
    ///
    /// # Errors
    /// [`Refusal::State`] if it is not deleted.
    pub fn undelete(&mut self, at: OffsetDateTime) -> Result<ProductEvent, Refusal> {
        self.must_be(State::Deleted)?;
        self.deleted_at = None;
        self.updated_at = at;
        Ok(ProductEvent::Updated)
    }

    /// Adds a form in which it is sold.
    ///
    /// # Errors
    /// [`Refusal::State`] if it is deleted.
    pub fn variant(
        &self,
        sku: Sku,
        title: Title,
        amount: Amount,
        price_version: Uuid,
        at: OffsetDateTime,
    ) -> Result<(Variant, VariantEvent), Refusal> {
        self.must_be(State::Active)?;
        let price =
            Price { id: price_version, sku: sku.clone(), amount, effective_at: at, created_at: at };
        let variant = Variant {
            sku,
            product: self.id,
            title,
            price: amount,
            price_version,
            created_at: at,
            updated_at: at,
        };
        Ok((variant, VariantEvent::Created(price)))
    }

    fn must_be(&self, state: State) -> Result<(), Refusal> {
        let is = self.state();
        if is == state { Ok(()) } else { Err(Refusal::State(is)) }
    }
}

// === impl Variant ===

impl Variant {
    /// Changes what customers read.
    pub fn update(&mut self, title: Option<Title>, at: OffsetDateTime) -> VariantEvent {
        if let Some(title) = title {
            self.title = title;
        }
        self.updated_at = at;
        VariantEvent::Updated
    }

    /// Appends a price, which holds from `effective_at` on; now, if that is not given.
    ///
    /// # Errors
    /// [`Refusal::Currency`] if it is in another currency than the variant's,
    /// [`Refusal::Past`] if it would begin in the past.
    pub fn set_price(
        &mut self,
        version: Uuid,
        amount: Amount,
        effective_at: Option<OffsetDateTime>,
        at: OffsetDateTime,
    ) -> Result<VariantEvent, Refusal> {
        let currency = self.price.money().currency;
        if amount.money().currency != currency {
            return Err(Refusal::Currency(currency));
        }
        let effective_at = effective_at.unwrap_or(at);
        if effective_at < at {
            return Err(Refusal::Past);
        }
        if effective_at == at {
            self.price = amount;
            self.price_version = version;
        }
        self.updated_at = at;
        let sku = self.sku.clone();
        Ok(VariantEvent::Priced(Price { id: version, sku, amount, effective_at, created_at: at }))
    }
}

// === impl State ===

impl fmt::Display for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Active => "ACTIVE",
            Self::Deleted => "DELETED",
        })
    }
}

// === impl Amount ===

impl From<Amount> for Money {
    fn from(amount: Amount) -> Self {
        amount.money()
    }
}

#[cfg(test)]
mod tests;
