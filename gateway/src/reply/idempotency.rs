//! `Idempotency-Key` (S52): whatever a client calls its attempt, the service sees an id.

use aws_lc_rs::digest::{SHA256, digest};
use http::{HeaderMap, HeaderName};
use uuid::{Builder, Uuid, Version};

use super::conditional::one;
use crate::error::Error;

/// The longest key, in characters.
const LONGEST: usize = 128;

/// The key that a request brings, without the quotes that the header's draft standard puts
/// around it.
///
/// # Errors
/// [`Error::MalformedHeader`] if it is not 1 to 128 printable characters.
pub fn key(headers: &HeaderMap) -> Result<Option<&str>, Error> {
    const NAME: HeaderName = HeaderName::from_static("idempotency-key");
    let Some(value) = one(headers, NAME)? else { return Ok(None) };
    let unquoted = value.strip_prefix('"').and_then(|value| value.strip_suffix('"'));
    let key = unquoted.unwrap_or(value);
    if key.is_empty() || key.len() > LONGEST {
        let problem = "1 to 128 printable characters are expected";
        return Err(Error::MalformedHeader { header: NAME.to_string(), problem });
    }
    Ok(Some(key))
}

/// The id that stands for a key: a random UUID is one already, any other text is hashed with
/// whose key it is.
#[must_use]
pub fn id(principal: &str, key: &str) -> String {
    const HYPHENATED: usize = 36;
    let random = Uuid::try_parse(key)
        .ok()
        .filter(|uuid| key.len() == HYPHENATED && uuid.get_version() == Some(Version::Random));
    let uuid = random.unwrap_or_else(|| {
        let text = [principal.as_bytes(), b"\0", key.as_bytes()].concat();
        let mut bytes = [0; 16];
        for (byte, hashed) in bytes.iter_mut().zip(digest(&SHA256, &text).as_ref()) {
            *byte = *hashed;
        }
        Builder::from_random_bytes(bytes).into_uuid()
    });
    uuid.to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn s52_a_key_stands_for_the_same_id_every_time_and_for_another_of_another_caller() {
        let first = id("users/1", "order of Monday");
        assert_eq!(id("users/1", "order of Monday"), first);
        assert_ne!(id("users/2", "order of Monday"), first);
        assert_ne!(id("users/1", "order of Tuesday"), first);
        let uuid = Uuid::try_parse(&first).expect("a UUID");
        assert_eq!(uuid.get_version(), Some(Version::Random));
    }

    #[test]
    fn s52_a_random_uuid_stands_for_itself() {
        let uuid = "0E7D2A44-5D1C-4A6F-9E0B-3C8F1E2D4B5A";
        assert_eq!(id("users/1", uuid), uuid.to_lowercase());
        // Version 7: not random, so it is hashed as any other text.
        let ordered = "01890a5d-ac96-774b-bcce-b302099a8057";
        assert_ne!(id("users/1", ordered), ordered);
    }

    #[test]
    fn s52_a_key_is_1_to_128_printable_characters() {
        for (value, expected) in [
            ("a", Some("a")),
            ("\"quoted\"", Some("quoted")),
            (" with space ", Some("with space")),
            ("\"\"", None),
            ("", None),
            (&"x".repeat(128), Some("x".repeat(128).as_str())),
            (&"x".repeat(129), None),
            ("é", None),
        ] {
            let mut headers = HeaderMap::new();
            let value = http::HeaderValue::from_bytes(value.as_bytes()).expect("a value");
            headers.insert("idempotency-key", value);
            assert_eq!(key(&headers).ok().flatten(), expected);
        }
        let mut twice = HeaderMap::new();
        twice.append("idempotency-key", http::HeaderValue::from_static("a"));
        twice.append("idempotency-key", http::HeaderValue::from_static("a"));
        assert!(key(&twice).is_err());
    }
}
