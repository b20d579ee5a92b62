//! What a customer pays with: a provider's token, never a card number.

/// A provider's token for a card or an account. Never a card number.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Method(String);

/// Why a text is no payment method.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum MethodError {
    /// Empty, too long, or of other characters.
    #[error("must be 1 to 128 letters, digits, `_`, `-` or `.`")]
    Malformed,
    /// It might be a card number, and those are never kept.
    #[error("must be the provider's token, not a card number")]
    CardNumber,
}

// === impl Method ===

impl Method {
    /// Reads a token.
    ///
    /// # Errors
    /// [`MethodError`] says what is wrong with it.
    pub fn parse(token: &str) -> Result<Self, MethodError> {
        let known = |letter: char| letter.is_ascii_alphanumeric() || "_-.".contains(letter);
        if token.is_empty() || token.len() > 128 || !token.chars().all(known) {
            return Err(MethodError::Malformed);
        }
        if looks_like_a_card(token) {
            return Err(MethodError::CardNumber);
        }
        Ok(Self(token.to_owned()))
    }

    /// What was kept: parsed when it came in.
    #[must_use]
    pub fn kept(token: String) -> Self {
        Self(token)
    }

    /// The token.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// Whether a text holds 13 to 19 digits in a row, however grouped, whose check digit is right.
fn looks_like_a_card(text: &str) -> bool {
    let runs = text.split(|letter: char| letter.is_ascii_alphabetic());
    runs.into_iter().any(|run| {
        let digits: Vec<u32> = run.chars().filter_map(|letter| letter.to_digit(10)).collect();
        let sum: u32 = digits
            .iter()
            .rev()
            .enumerate()
            .map(|(place, digit)| match (place % 2, *digit) {
                (0, digit) => digit,
                (_, digit) if digit > 4 => 2 * digit - 9,
                (_, digit) => 2 * digit,
            })
            .sum();
        (13..=19).contains(&digits.len()) && sum.is_multiple_of(10)
    })
}
