//! Conditions on a resource's revision (S52): `ETag`, `If-Match`, `If-None-Match`.

use http::{HeaderMap, HeaderName, HeaderValue, Method, header};

use crate::{error::Error, schema::Binding};

/// A revision as a header: quoted, unless the service did so itself.
#[must_use]
pub fn entity_tag(etag: &str) -> Option<HeaderValue> {
    let tag = if is_entity_tag(etag) { etag.to_owned() } else { format!("\"{etag}\"") };
    is_entity_tag(&tag).then(|| HeaderValue::try_from(tag).ok()).flatten()
}

/// The revision that the client's change is for. `*` asks for any, which a change needs anyway.
///
/// # Errors
/// [`Error::PreconditionUnsupported`] where the condition would be dropped silently: that loses
/// an update. [`Error::MalformedHeader`] for what is no entity tag.
pub fn if_match<'a>(
    headers: &'a HeaderMap,
    method: &Method,
    binding: &Binding,
) -> Result<Option<&'a str>, Error> {
    let unsupported = |header, problem| Err(Error::PreconditionUnsupported { header, problem });
    let reads = matches!(*method, Method::GET | Method::HEAD);
    if !reads && headers.contains_key(header::IF_NONE_MATCH) {
        return unsupported("if-none-match", "it is kept when something is read");
    }
    let Some(value) = one(headers, header::IF_MATCH)? else { return Ok(None) };
    if binding.etag.is_none() {
        return unsupported("if-match", "it takes no etag");
    }
    if value == "*" {
        return Ok(None);
    }
    if is_entity_tag(value) {
        return Ok(Some(value));
    }
    if value.contains(',') {
        return unsupported("if-match", "one entity tag can be compared, not several");
    }
    let problem = "an entity tag in double quotes is expected";
    Err(Error::MalformedHeader { header: "if-match".to_owned(), problem })
}

/// Where a client's stream ended, for it to go on from there; `None` if it has none. Unlike other
/// headers it is UTF-8 (HTML, section 9.2).
///
/// # Errors
/// [`Error::MalformedHeader`].
pub fn last_event_id(headers: &HeaderMap) -> Result<Option<&str>, Error> {
    const NAME: HeaderName = HeaderName::from_static("last-event-id");
    let malformed = |problem| Error::MalformedHeader { header: NAME.to_string(), problem };
    let mut values = headers.get_all(NAME).iter();
    let Some(value) = values.next() else { return Ok(None) };
    if values.next().is_some() {
        return Err(malformed("it may come once"));
    }
    let text = std::str::from_utf8(value.as_bytes());
    let text = text.map_err(|_error| malformed("UTF-8 is expected"))?;
    Ok((!text.is_empty()).then_some(text))
}

/// Whether the client has this revision already.
#[must_use]
pub fn is_unchanged(headers: &HeaderMap, tag: &HeaderValue) -> bool {
    // The weak comparison (RFC 9110, section 13.1.2).
    fn strong(tag: &str) -> &str {
        tag.strip_prefix("W/").unwrap_or(tag)
    }
    let Ok(tag) = tag.to_str() else { return false };
    let values = headers.get_all(header::IF_NONE_MATCH).iter();
    values.filter_map(|value| value.to_str().ok()).any(|value| {
        value.trim() == "*" || value.split(',').any(|other| strong(other.trim()) == strong(tag))
    })
}

/// The only value of a header.
///
/// # Errors
/// [`Error::MalformedHeader`] if it comes twice or is not printable ASCII.
pub fn one(headers: &HeaderMap, name: HeaderName) -> Result<Option<&str>, Error> {
    let malformed = |problem| Error::MalformedHeader { header: name.to_string(), problem };
    let mut values = headers.get_all(&name).iter();
    let Some(value) = values.next() else { return Ok(None) };
    if values.next().is_some() {
        return Err(malformed("it may come once"));
    }
    let value = value.to_str().map_err(|_error| malformed("printable ASCII is expected"))?;
    Ok(Some(value.trim()))
}

/// `"…"` or `W/"…"` (RFC 9110, section 8.8.3).
fn is_entity_tag(text: &str) -> bool {
    let quoted = text.strip_prefix("W/").unwrap_or(text);
    let inner = quoted.strip_prefix('"').and_then(|rest| rest.strip_suffix('"'));
    inner.is_some_and(|inner| inner.bytes().all(|byte| matches!(byte, 0x21 | 0x23..=0x7e)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn s52_an_etag_is_quoted_once() {
        for (etag, expected) in [
            ("\"v1\"", Some("\"v1\"")),
            ("W/\"v1\"", Some("W/\"v1\"")),
            ("v1", Some("\"v1\"")),
            ("a\"b", None),
            ("a b", None),
            ("é", None),
        ] {
            let tag = entity_tag(etag);
            assert_eq!(
                tag.as_ref().map(HeaderValue::as_bytes),
                expected.map(str::as_bytes),
                "{etag}"
            );
        }
    }

    #[test]
    fn s52_if_none_match_compares_weakly() {
        for (header, expected) in [
            ("\"v1\"", true),
            ("W/\"v1\"", true),
            ("\"v0\", \"v1\"", true),
            ("*", true),
            ("\"v2\"", false),
            ("v1", false),
        ] {
            let mut headers = HeaderMap::new();
            headers.insert(header::IF_NONE_MATCH, header.parse().expect("a header"));
            assert_eq!(
                is_unchanged(&headers, &HeaderValue::from_static("\"v1\"")),
                expected,
                "{header}"
            );
        }
    }
}
