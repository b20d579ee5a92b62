//! Values that cannot be wrong once they exist.

use mesh::money::Money;

/// What is wrong with a value; reads on from the name of its field.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Problem {
    /// Not the form of a SKU.
    #[error("must be 1 to 64 of A-Z a-z 0-9 . _ -, beginning with a letter or a digit")]
    Sku,
    /// Not the length of a title.
    #[error("must be 1 to 200 characters, not only spaces, without control characters")]
    Title,
    /// Not the length of a description.
    #[error("must be at most 5,000 characters")]
    Description,
    /// Not a price.
    #[error("must be from 0 to 1,000,000,000,000 minor units")]
    Amount,
}

/// Stock keeping unit: what a variant is ordered by.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Sku(String);

/// What customers read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Title(String);

/// More to read.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Description(String);

/// What one unit costs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Amount(Money);

impl Sku {
    /// The longest, in characters.
    const LONGEST: usize = 64;

    /// Reads a SKU.
    ///
    /// # Errors
    /// [`Problem::Sku`].
    pub fn parse(text: &str) -> Result<Self, Problem> {
        let plain = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'-');
        let begins = text.bytes().next().is_some_and(|b| b.is_ascii_alphanumeric());
        if begins && text.len() <= Self::LONGEST && text.bytes().all(plain) {
            Ok(Self(text.to_owned()))
        } else {
            Err(Problem::Sku)
        }
    }

    /// As it is written.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl Title {
    /// The longest, in characters.
    const LONGEST: usize = 200;

    /// Reads a title.
    ///
    /// # Errors
    /// [`Problem::Title`].
    pub fn parse(text: &str) -> Result<Self, Problem> {
        let blank = text.trim().is_empty();
        if blank || text.chars().count() > Self::LONGEST || text.chars().any(char::is_control) {
            return Err(Problem::Title);
        }
        Ok(Self(text.to_owned()))
    }

    /// As it is written.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl Description {
    /// The longest, in characters.
    const LONGEST: usize = 5_000;

    /// Reads a description.
    ///
    /// # Errors
    /// [`Problem::Description`].
    pub fn parse(text: &str) -> Result<Self, Problem> {
        if text.contains('\0') || text.chars().count() > Self::LONGEST {
            return Err(Problem::Description);
        }
        Ok(Self(text.to_owned()))
    }

    /// As it is written.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl Amount {
    /// The highest, in minor units: a line of 999 units and an order of 100 such lines still
    /// count without overflow.
    const HIGHEST: i64 = 1_000_000_000_000;

    /// Takes an amount for a price.
    ///
    /// # Errors
    /// [`Problem::Amount`].
    pub fn parse(money: Money) -> Result<Self, Problem> {
        if (0..=Self::HIGHEST).contains(&money.minor) {
            Ok(Self(money))
        } else {
            Err(Problem::Amount)
        }
    }

    /// The amount.
    #[must_use]
    pub fn money(self) -> Money {
        self.0
    }
}
