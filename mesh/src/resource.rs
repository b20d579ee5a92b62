//! Names, etags and request ids, as the API spells them.

use std::fmt;

use uuid::Uuid;

/// A name that does not have the form its collection has.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("must have the form `{collection}/{form}`")]
pub struct NameError {
    collection: &'static str,
    form: Form,
}

/// What stands after the slash of a name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Form {
    Uuid,
    Id,
}

/// A `request_id` that is no UUID.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("must be a UUID in its usual form: 36 characters, not all zero")]
pub struct RequestIdError;

impl fmt::Display for Form {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Uuid => "{uuid}",
            Self::Id => "{id}",
        })
    }
}

/// The id in a name such as `orders/0192…`. One resource has one spelling: lower case, with
/// hyphens.
///
/// # Errors
/// [`NameError`] if the name is of another collection or its id is no UUID in that spelling.
pub fn parse_uuid(collection: &'static str, name: &str) -> Result<Uuid, NameError> {
    let error = || NameError { collection, form: Form::Uuid };
    let id = after(collection, name).ok_or_else(error)?;
    canonical(id).ok_or_else(error)
}

/// The id in a name such as `variants/BLUE-XL`: 1 to 128 letters, digits and `-._~`.
///
/// # Errors
/// [`NameError`] if the name is of another collection or its id has other characters.
pub fn parse_id<'n>(collection: &'static str, name: &'n str) -> Result<&'n str, NameError> {
    let plain = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'.' | b'_' | b'~');
    after(collection, name)
        .filter(|id| (1..=128).contains(&id.len()) && id.bytes().all(plain))
        .ok_or(NameError { collection, form: Form::Id })
}

/// The etag of a row at this revision: `"v17"`, quotes included.
#[must_use]
pub fn etag(revision: i64) -> String {
    format!("\"v{revision}\"")
}

/// The revision that an etag stands for; `None` if [`etag`] did not make it.
#[must_use]
pub fn parse_etag(etag: &str) -> Option<i64> {
    let revision = etag.strip_prefix("\"v")?.strip_suffix('"')?.parse().ok()?;
    // One revision has one spelling: `"v017"` and `"v+17"` are not etags.
    (self::etag(revision) == etag).then_some(revision)
}

/// The id that makes a call safe to repeat; `None` where the caller gave none.
///
/// # Errors
/// [`RequestIdError`] if it is not a UUID of 36 characters, or the nil UUID, which AIP-155 bars.
pub fn parse_request_id(text: &str) -> Result<Option<Uuid>, RequestIdError> {
    if text.is_empty() {
        return Ok(None);
    }
    let id = Uuid::try_parse(text).ok().filter(|id| text.len() == 36 && !id.is_nil());
    id.map(Some).ok_or(RequestIdError)
}

fn after<'n>(collection: &str, name: &'n str) -> Option<&'n str> {
    name.strip_prefix(collection)?.strip_prefix('/')
}

fn canonical(id: &str) -> Option<Uuid> {
    let uuid = Uuid::try_parse(id).ok()?;
    let mut buffer = Uuid::encode_buffer();
    (*uuid.hyphenated().encode_lower(&mut buffer) == *id).then_some(uuid)
}

#[cfg(test)]
mod tests {
    use super::*;

    const ID: &str = "0192f0c1-2345-7abc-8def-0123456789ab";

    #[test]
    fn a_resource_has_one_name_only() {
        assert_eq!(parse_uuid("orders", &format!("orders/{ID}")), Ok(Uuid::try_parse(ID).unwrap()));
        for name in [
            ID.to_owned(),
            format!("order/{ID}"),
            format!("orders/{}", ID.to_uppercase()),
            format!("orders/{}", ID.replace('-', "")),
            format!("orders/{{{ID}}}"),
            format!("orders/{ID}/"),
            "orders/".to_owned(),
            String::new(),
        ] {
            let error = parse_uuid("orders", &name).unwrap_err();
            assert_eq!(error.to_string(), "must have the form `orders/{uuid}`", "{name}");
        }
    }

    #[test]
    fn an_id_of_the_callers_choice_has_no_slash_and_no_spaces() {
        assert_eq!(parse_id("variants", "variants/BLUE-XL_1.0"), Ok("BLUE-XL_1.0"));
        assert_eq!(parse_id("stocks", "stocks/BER~BLUE-XL"), Ok("BER~BLUE-XL"));
        let long = format!("variants/{}", "x".repeat(129));
        for name in ["variants/", "variants/a b", "variants/a/b", "variants/ä", "skus/a", &long] {
            assert!(parse_id("variants", name).is_err(), "{name}");
        }
    }

    #[test]
    fn only_our_own_etags_are_read() {
        assert_eq!(etag(17), "\"v17\"");
        assert_eq!(parse_etag(&etag(17)), Some(17));
        for text in ["v17", "\"17\"", "\"v017\"", "\"v+17\"", "\"v\"", "W/\"v17\"", "", "\"v17"] {
            assert_eq!(parse_etag(text), None, "{text}");
        }
    }

    #[test]
    fn a_request_id_is_a_uuid_or_absent() {
        assert_eq!(parse_request_id(""), Ok(None));
        assert_eq!(parse_request_id(ID), Ok(Some(Uuid::try_parse(ID).unwrap())));
        for text in ["1", &ID.replace('-', ""), "00000000-0000-0000-0000-000000000000", " "] {
            assert_eq!(parse_request_id(text), Err(RequestIdError), "{text}");
        }
    }
}
