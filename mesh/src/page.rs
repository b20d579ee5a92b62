//! Pages of a list: how large they are and where the next one begins.
//!
//! A page token is the last key of the page before, sealed, so that it can neither be read nor
//! be made up, and bound to the arguments of its list. It grants nothing: permission is asked
//! anew on every page.

use aws_lc_rs::{
    aead::{AES_256_GCM, Aad, NONCE_LEN, Nonce, RandomizedNonceKey},
    digest::{Context, SHA256},
};
use base64::{Engine, prelude::BASE64_URL_SAFE_NO_PAD};

/// Seals and opens the page tokens of one service. Its replicas share the secret.
#[derive(Clone)]
pub struct Pages {
    secret: [u8; 32],
}

/// A page that is asked for. Read one row more than `size`, then [`Pages::cut`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Page {
    /// The key that the page begins after; empty for the first.
    pub after: String,
    /// How many rows.
    pub size: u64,
    args: [u8; 32],
}

/// Why a page cannot be given.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NoPage {
    /// Of the field `page_size`.
    #[error(transparent)]
    Size(#[from] NegativePageSize),
    /// Of the field `page_token`.
    #[error(transparent)]
    Token(#[from] PageTokenMismatch),
}

/// The token is not one of this list with these arguments.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the page token does not belong to this list with these arguments")]
pub struct PageTokenMismatch;

/// A page of fewer than no rows was asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("must not be negative")]
pub struct NegativePageSize;

/// How many rows a page has if the caller does not say.
pub const SIZE_DEFAULT: u64 = 50;

/// The most rows a page has.
pub const SIZE_MAX: u64 = 1_000;

/// What a token says that could not be sealed. It opens nothing, so that the caller hears of it
/// with the next page; an empty token would have told them that the list ends here.
const UNSEALED: &str = "-";

// === impl Pages ===

impl Pages {
    /// Tokens sealed with this secret.
    #[must_use]
    pub fn new(secret: [u8; 32]) -> Self {
        Self { secret }
    }

    /// Reads what a List request says about its page; `parts` as for [`args`].
    ///
    /// # Errors
    /// [`NoPage`] says which field is wrong.
    pub fn page(&self, size: i32, token: &str, parts: &[&str]) -> Result<Page, NoPage> {
        let args = args(parts);
        let after = match token {
            "" => String::new(),
            token => self.open(token, &args)?,
        };
        Ok(Page { after, size: self::size(size)?, args })
    }

    /// Cuts what was read, one row more than asked for, to its page; answers the token of the
    /// next, empty if there is none.
    pub fn cut<T>(&self, page: &Page, found: &mut Vec<T>, key: impl Fn(&T) -> String) -> String {
        if u64::try_from(found.len()).is_ok_and(|found| found <= page.size) {
            return String::new();
        }
        found.pop();
        found.last().map_or_else(String::new, |last| self.seal(&key(last), &page.args))
    }

    /// The token of the page that begins after `last_key`; `args` by [`args`].
    #[must_use]
    pub fn seal(&self, last_key: &str, args: &[u8]) -> String {
        let mut sealed = last_key.as_bytes().to_vec();
        let nonce = RandomizedNonceKey::new(&AES_256_GCM, &self.secret)
            .and_then(|key| key.seal_in_place_append_tag(Aad::from(args), &mut sealed));
        nonce.map_or_else(
            |_unspecified| UNSEALED.to_owned(),
            |nonce| {
                let token = [nonce.as_ref().as_slice(), &sealed].concat();
                BASE64_URL_SAFE_NO_PAD.encode(token)
            },
        )
    }

    /// The key that the page begins after.
    ///
    /// # Errors
    /// [`PageTokenMismatch`] if the token is of another list, of other arguments, or nobody's.
    pub fn open(&self, token: &str, args: &[u8]) -> Result<String, PageTokenMismatch> {
        self.opened(token, args).ok_or(PageTokenMismatch)
    }

    fn opened(&self, token: &str, args: &[u8]) -> Option<String> {
        let bytes = BASE64_URL_SAFE_NO_PAD.decode(token).ok()?;
        let (nonce, sealed) = bytes.split_at_checked(NONCE_LEN)?;
        let nonce = Nonce::try_assume_unique_for_key(nonce).ok()?;
        let key = RandomizedNonceKey::new(&AES_256_GCM, &self.secret).ok()?;
        let mut sealed = sealed.to_vec();
        let plain = key.open_in_place(nonce, Aad::from(args), &mut sealed).ok()?;
        String::from_utf8(plain.to_vec()).ok()
    }
}

/// How many rows to answer: 50 if the caller does not say, at most 1,000.
///
/// # Errors
/// [`NegativePageSize`].
pub fn size(page_size: i32) -> Result<u64, NegativePageSize> {
    match u64::try_from(page_size) {
        Ok(0) => Ok(SIZE_DEFAULT),
        Ok(size) => Ok(size.min(SIZE_MAX)),
        Err(_negative) => Err(NegativePageSize),
    }
}

/// The arguments of a list that its tokens are bound to: its name, its filter, its order, and
/// whose rows it shows.
#[must_use]
pub fn args(parts: &[&str]) -> [u8; 32] {
    let mut context = Context::new(&SHA256);
    for part in parts {
        // The length keeps ["ab", "c"] from being ["a", "bc"].
        context.update(&part.len().to_be_bytes());
        context.update(part.as_bytes());
    }
    let mut hash = [0; 32];
    for (byte, digest) in hash.iter_mut().zip(context.finish().as_ref()) {
        *byte = *digest;
    }
    hash
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_page_has_fifty_rows_unless_the_caller_says_and_never_more_than_a_thousand() {
        for (asked, given) in [
            (0, Ok(50)),
            (1, Ok(1)),
            (1_000, Ok(1_000)),
            (i32::MAX, Ok(1_000)),
            (-1, Err(NegativePageSize)),
        ] {
            assert_eq!(size(asked), given, "{asked}");
        }
    }

    #[test]
    fn a_token_opens_for_its_own_list_and_arguments_only() {
        let pages = Pages::new([7; 32]);
        let mine = args(&["ListOrders", "users/1"]);
        let token = pages.seal("0192f0c1", &mine);
        assert_eq!(pages.open(&token, &mine), Ok("0192f0c1".to_owned()));
        for (what, opened) in [
            ("arguments of another", pages.open(&token, &args(&["ListOrders", "users/2"]))),
            ("arguments cut otherwise", pages.open(&token, &args(&["ListOrdersusers/1"]))),
            ("another secret", Pages::new([8; 32]).open(&token, &mine)),
            ("cut short", pages.open(&token[..10], &mine)),
            ("made up", pages.open("bWFkZSB1cA", &mine)),
            ("not even base64", pages.open("%%", &mine)),
            ("unsealed", pages.open(UNSEALED, &mine)),
            ("empty", pages.open("", &mine)),
        ] {
            assert_eq!(opened, Err(PageTokenMismatch), "{what}");
        }
    }

    #[test]
    fn a_token_hides_its_key_and_differs_each_time() {
        let pages = Pages::new([7; 32]);
        let (one, two) = (pages.seal("secret-key", &[]), pages.seal("secret-key", &[]));
        assert_ne!(one, two);
        let bytes = BASE64_URL_SAFE_NO_PAD.decode(one).unwrap();
        assert!(!bytes.windows(6).any(|window| window == b"secret"));
    }
}
