//! Which pages of other sites a browser lets read our replies: none, or those of a list.
//!
//! There are no cookies, so a foreign page cannot speak for a user by accident; it brings its
//! own token, or none.

use std::{collections::BTreeSet, str::FromStr};

use http::{HeaderMap, HeaderValue, Method, Response, StatusCode, Uri, header, request::Parts};

/// What a page may send beside what every page may.
const SENT: &str = "authorization, content-type, idempotency-key, if-match, if-none-match, \
                    last-event-id, traceparent, x-server-timeout";

/// What a page may read beside what every page may.
const READ: &str = "allow, etag, idempotent-replayed, location, mesh-degraded, ratelimit, \
                    ratelimit-policy, retry-after, www-authenticate, x-trace-id";

/// How long a browser keeps the answer to its question, in seconds.
const KEPT: &str = "7200";

/// A site as browsers name it: `https://shop.example`, with its port unless that is the usual one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Origin(HeaderValue);

// === impl Origin ===

impl FromStr for Origin {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || format!("`{text}` is no origin such as https://shop.example");
        let uri = text.parse::<Uri>().map_err(|_error| wrong())?;
        let (scheme, authority) = uri.scheme_str().zip(uri.authority()).ok_or_else(wrong)?;
        let usual = matches!((scheme, uri.port_u16()), ("http", Some(80)) | ("https", Some(443)));
        // As a browser would send it: anything else never matches.
        let exact = format!("{scheme}://{}", authority.as_str().to_ascii_lowercase()) == text;
        if !matches!(scheme, "http" | "https") || usual || !exact || text.contains('@') {
            return Err(wrong());
        }
        HeaderValue::try_from(text).map(Self).map_err(|_error| wrong())
    }
}

/// The origin of a request, if it is one of these.
#[must_use]
pub fn origin(headers: &HeaderMap, origins: &[Origin]) -> Option<HeaderValue> {
    let mut values = headers.get_all(header::ORIGIN).iter();
    let value = values.next().filter(|_| values.next().is_none())?;
    origins.iter().any(|origin| origin.0 == value).then(|| value.clone())
}

/// Whether a browser asks what it may send; other questions are an OPTIONS like any other.
#[must_use]
pub fn is_preflight(parts: &Parts) -> bool {
    parts.method == Method::OPTIONS
        && parts.headers.contains_key(header::ORIGIN)
        && parts.headers.contains_key(header::ACCESS_CONTROL_REQUEST_METHOD)
}

/// The answer to that question, for a path with these methods. [`apply`] says to whom.
pub fn preflight<B>(response: &mut Response<B>, methods: &BTreeSet<String>) {
    *response.status_mut() = StatusCode::NO_CONTENT;
    let methods = methods.iter().map(String::as_str).collect::<Vec<_>>().join(", ");
    let headers = response.headers_mut();
    headers.extend(
        HeaderValue::try_from(methods)
            .ok()
            .map(|methods| (header::ACCESS_CONTROL_ALLOW_METHODS, methods)),
    );
    headers.insert(header::ACCESS_CONTROL_ALLOW_HEADERS, HeaderValue::from_static(SENT));
    headers.insert(header::ACCESS_CONTROL_MAX_AGE, HeaderValue::from_static(KEPT));
}

/// Lets pages of `origin` read a reply.
pub fn apply(headers: &mut HeaderMap, origin: &HeaderValue) {
    headers.insert(header::ACCESS_CONTROL_ALLOW_ORIGIN, origin.clone());
    headers.insert(header::ACCESS_CONTROL_EXPOSE_HEADERS, HeaderValue::from_static(READ));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_origin_is_exact_and_never_everybody() {
        for good in ["https://shop.example", "http://localhost:3000", "https://a.b:8443"] {
            assert!(good.parse::<Origin>().is_ok(), "{good}");
        }
        for wrong in [
            "*",
            "null",
            "",
            "shop.example",
            "https://",
            "https://shop.example/",
            "https://shop.example/a",
            "https://*.example/",
            "https://Shop.example",
            "https://shop.example:443",
            "http://shop.example:80",
            "https://user@shop.example",
            "ftp://shop.example",
        ] {
            assert!(wrong.parse::<Origin>().is_err(), "{wrong}");
        }
    }

    #[test]
    fn an_origin_of_the_list_is_found_and_no_other() {
        let list = ["https://shop.example".parse::<Origin>().expect("an origin")];
        for (sent, found) in [
            (&["https://shop.example"][..], true),
            (&["https://shop.example.evil"], false),
            (&["https://shop.example:8443"], false),
            (&["http://shop.example"], false),
            (&["null"], false),
            (&["https://shop.example", "https://shop.example"], false),
            (&[], false),
        ] {
            let mut headers = HeaderMap::new();
            for value in sent {
                headers.append(header::ORIGIN, HeaderValue::from_static(value));
            }
            assert_eq!(origin(&headers, &list).is_some(), found, "{sent:?}");
            assert_eq!(origin(&headers, &[]), None);
        }
    }
}
