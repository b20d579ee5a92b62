//! What a body is and what a reply may be (S40, S47).

use http::{HeaderMap, header};

use crate::{error::Error, stream::reply::Format};

/// How an error looks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shape {
    /// `google.rpc.Status` as `application/json`.
    Status,
    /// `application/problem+json` (RFC 9457).
    Problem,
}

const JSON: &str = "application/json";
const PROBLEM: &str = "application/problem+json";

/// How errors look to this client, and whether it takes JSON at all.
#[must_use]
pub fn shape(headers: &HeaderMap) -> (Shape, bool) {
    let ranges = ranges(headers);
    if ranges.is_empty() {
        return (Shape::Status, true);
    }
    let (json, problem) = (quality(&ranges, JSON), quality(&ranges, PROBLEM));
    let shape = if problem > json { Shape::Problem } else { Shape::Status };
    (shape, json > 0 || problem > 0)
}

/// How a stream looks to this client: the form it likes best, of equals the first of
/// [`Format::OFFERED`].
///
/// # Errors
/// [`Error::NotAcceptable`].
pub fn format(headers: &HeaderMap) -> Result<Format, Error> {
    let ranges = ranges(headers);
    if ranges.is_empty() {
        return Ok(Format::Array);
    }
    // Of equals `max_by_key` finds the last.
    let liked = Format::OFFERED.into_iter().rev().map(|f| (quality(&ranges, f.content_type()), f));
    liked
        .filter(|(quality, _)| *quality > 0)
        .max_by_key(|(quality, _)| *quality)
        .map(|(_, format)| format)
        .ok_or(Error::NotAcceptable("application/json, application/x-ndjson or text/event-stream"))
}

/// Whether the body is JSON, by its headers; a body without a type is.
///
/// # Errors
/// [`Error::MediaType`], [`Error::Encoding`].
pub fn json_body(headers: &HeaderMap) -> Result<(), Error> {
    let encodings = headers.get_all(header::CONTENT_ENCODING);
    if encodings.iter().any(|value| !value.as_bytes().eq_ignore_ascii_case(b"identity")) {
        return Err(Error::Encoding);
    }
    let mut types = headers.get_all(header::CONTENT_TYPE).iter();
    let Some(first) = types.next() else { return Ok(()) };
    let first = first.to_str().ok().filter(|_| types.next().is_none());
    if first.is_some_and(is_json) { Ok(()) } else { Err(Error::MediaType) }
}

fn is_json(content_type: &str) -> bool {
    let mut parts = content_type.split(';').map(|part| part.trim().to_ascii_lowercase());
    let media = parts.next().unwrap_or_default();
    let json = media == JSON
        || media.split_once('/').is_some_and(|(_, subtype)| subtype.ends_with("+json"));
    json && parts.all(|parameter| {
        parameter
            .strip_prefix("charset=")
            .is_none_or(|charset| matches!(charset.trim_matches('"'), "utf-8" | "utf8"))
    })
}

fn ranges(headers: &HeaderMap) -> Vec<(String, u32)> {
    headers
        .get_all(header::ACCEPT)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .filter_map(range)
        .collect()
}

/// A media range with its quality in thousandths. Parameters other than `q` play no part.
fn range(text: &str) -> Option<(String, u32)> {
    let mut parts = text.split(';').map(str::trim);
    let media = parts.next().filter(|media| !media.is_empty())?.to_ascii_lowercase();
    let quality = parts
        .find_map(|part| part.strip_prefix("q=").or_else(|| part.strip_prefix("Q=")))
        .map_or(Some(1.0), |q| q.parse::<f32>().ok())
        .filter(|q| (0.0..=1.0).contains(q))?;
    // Up to three digits are allowed, so a comparison of thousandths is exact.
    let thousandths = (0..=1_000_u16).find(|n| f32::from(*n) >= quality * 1_000.0 - 0.5);
    Some((media, u32::from(thousandths.unwrap_or(0))))
}

/// The quality of a type: that of the most specific range that has it.
fn quality(ranges: &[(String, u32)], media: &str) -> u32 {
    let of = |wanted: &str| ranges.iter().find(|(range, _)| range == wanted).map(|(_, q)| *q);
    let any = media.split_once('/').map(|(kind, _)| format!("{kind}/*")).unwrap_or_default();
    of(media).or_else(|| of(&any)).or_else(|| of("*/*")).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(name: header::HeaderName, value: Option<&str>) -> HeaderMap {
        let value = value.map(|value| (name, value.parse().expect("a header")));
        value.into_iter().collect()
    }

    #[test]
    fn s40_accept_says_how_errors_look_and_may_refuse_json() {
        for (accept, expected) in [
            (None, (Shape::Status, true)),
            (Some("*/*"), (Shape::Status, true)),
            (Some("application/json"), (Shape::Status, true)),
            (Some("application/*;q=0.1"), (Shape::Status, true)),
            (Some("application/problem+json"), (Shape::Problem, true)),
            (Some("application/json, application/problem+json"), (Shape::Status, true)),
            (
                Some("application/json;q=0.8, application/problem+json;q=0.9"),
                (Shape::Problem, true),
            ),
            (Some("application/problem+json, */*;q=0.5"), (Shape::Problem, true)),
            (Some("text/html, application/xhtml+xml, */*;q=0.8"), (Shape::Status, true)),
            (Some("text/html"), (Shape::Status, false)),
            (Some("application/json;q=0"), (Shape::Status, false)),
            (Some("*/*, application/json;q=0"), (Shape::Problem, true)),
        ] {
            assert_eq!(shape(&headers(header::ACCEPT, accept)), expected, "{accept:?}");
        }
    }

    #[test]
    fn s47_accept_says_how_a_stream_looks_and_an_array_is_the_default() {
        for (accept, expected) in [
            (None, Some(Format::Array)),
            (Some("*/*"), Some(Format::Array)),
            (Some("application/json"), Some(Format::Array)),
            (Some("application/*"), Some(Format::Array)),
            (Some("application/x-ndjson"), Some(Format::Lines)),
            (Some("application/x-ndjson, */*;q=0.1"), Some(Format::Lines)),
            (Some("text/event-stream"), Some(Format::Events)),
            (Some("text/*"), Some(Format::Events)),
            (Some("application/json;q=0.5, text/event-stream"), Some(Format::Events)),
            (Some("text/event-stream, application/json"), Some(Format::Array)),
            (Some("*/*, application/json;q=0"), Some(Format::Lines)),
            (Some("text/html"), None),
            (Some("text/event-stream;q=0"), None),
        ] {
            let found = format(&headers(header::ACCEPT, accept)).ok();
            assert_eq!(found, expected, "{accept:?}");
        }
    }

    #[test]
    fn s40_a_body_is_json_in_utf8_or_refused() {
        for (content_type, expected) in [
            (None, true),
            (Some("application/json"), true),
            (Some("Application/JSON; Charset=UTF-8"), true),
            (Some("application/json;charset=\"utf-8\""), true),
            (Some("application/merge-patch+json"), true),
            (Some("application/json; charset=latin1"), false),
            (Some("text/plain"), false),
            (Some("application/x-www-form-urlencoded"), false),
            (Some("application/jsonp"), false),
            (Some(""), false),
        ] {
            let found = json_body(&headers(header::CONTENT_TYPE, content_type)).is_ok();
            assert_eq!(found, expected, "{content_type:?}");
        }
        for (encoding, expected) in [("identity", true), ("gzip", false), ("br", false)] {
            let found = json_body(&headers(header::CONTENT_ENCODING, Some(encoding))).is_ok();
            assert_eq!(found, expected, "{encoding}");
        }
    }
}
