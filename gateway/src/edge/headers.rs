//! Which headers pass (S48): what a client may say to a service, and a service to a client.

use std::{collections::HashSet, net::IpAddr};

use http::{HeaderMap, HeaderName, HeaderValue, Version, header, request::Parts};

use super::deadline;
use crate::error::Error;

/// They belong to one connection (RFC 9110, section 7.6.1).
const HOP_BY_HOP: [&str; 10] = [
    "connection",
    "http2-settings",
    "keep-alive",
    "proxy-authenticate",
    "proxy-authorization",
    "proxy-connection",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
];

/// They were for the gateway itself, or are written anew.
const OURS: [&str; 22] = [
    "accept",
    "accept-charset",
    "accept-encoding",
    "baggage",
    "content-encoding",
    "content-length",
    "content-type",
    "cookie",
    "expect",
    "forwarded",
    "host",
    "idempotency-key",
    "if-match",
    "if-none-match",
    "last-event-id",
    "traceparent",
    "tracestate",
    "x-forwarded-for",
    "x-forwarded-host",
    "x-forwarded-proto",
    "x-real-ip",
    "x-trace-id",
];

/// Only the mesh itself says these.
const RESERVED: [&str; 3] = ["grpc-", "mesh-", "x-envoy-"];

/// A service never sets these on a reply.
const NOT_FOR_CLIENTS: [&str; 9] = [
    "alt-svc",
    "content-length",
    "content-type",
    "date",
    "etag",
    "server",
    "set-cookie",
    "traceparent",
    "x-powered-by",
];

/// Refuses what two readers could read in two ways (request smuggling).
///
/// # Errors
/// [`Error::MalformedHeader`] names the header.
pub fn check(parts: &Parts) -> Result<(), Error> {
    let headers = &parts.headers;
    let count = |name: HeaderName| headers.get_all(name).iter().count();
    if count(header::CONTENT_LENGTH) > 1 {
        return Err(malformed("content-length", "it may come once"));
    }
    if headers.contains_key(header::TRANSFER_ENCODING)
        && headers.contains_key(header::CONTENT_LENGTH)
    {
        return Err(malformed("content-length", "it may not come with Transfer-Encoding"));
    }
    let host = headers.get(header::HOST);
    match count(header::HOST) {
        0 if parts.version == Version::HTTP_11 => return Err(malformed("host", "it is missing")),
        0 | 1 => {}
        _ => return Err(malformed("host", "it may come once")),
    }
    if let (Some(host), Some(authority)) = (host, parts.uri.authority())
        && !host.as_bytes().eq_ignore_ascii_case(authority.as_str().as_bytes())
    {
        return Err(malformed("host", "it differs from the authority of the request"));
    }
    Ok(())
}

/// What of a client's headers goes to the service.
///
/// # Errors
/// [`Error::MalformedHeader`] names a header that gRPC cannot carry.
pub fn forwarded(parts: &Parts, client: IpAddr) -> Result<HeaderMap, Error> {
    let listed = listed(&parts.headers);
    let mut metadata = HeaderMap::with_capacity(parts.headers.len() + 3);
    for (name, value) in &parts.headers {
        let text = name.as_str();
        if is_dropped(text) || listed.contains(text) {
            continue;
        }
        if !value.as_bytes().iter().all(|byte| matches!(byte, 0x20..=0x7e)) {
            return Err(malformed(text, "printable ASCII is expected"));
        }
        if text.ends_with("-bin") && !is_base64(value) {
            return Err(malformed(text, "base64 is expected"));
        }
        metadata.append(name.clone(), value.clone());
    }
    let mut set = |name: &'static str, value: &str| {
        if let Ok(value) = HeaderValue::from_str(value) {
            metadata.insert(name, value);
        }
    };
    set("x-forwarded-for", &client.to_string());
    set("x-forwarded-proto", parts.uri.scheme_str().unwrap_or("http"));
    let host = parts.headers.get(header::HOST).and_then(|host| host.to_str().ok());
    let host = host.or(parts.uri.authority().map(http::uri::Authority::as_str));
    if let Some(host) = host {
        set("x-forwarded-host", host);
    }
    Ok(metadata)
}

/// What of a service's metadata goes to the client.
#[must_use]
pub fn returned(metadata: &HeaderMap) -> HeaderMap {
    let mut headers = HeaderMap::new();
    for (name, value) in metadata {
        let text = name.as_str();
        let reserved = RESERVED.iter().any(|prefix| text.starts_with(prefix));
        let dropped = (reserved && text != "mesh-degraded")
            || HOP_BY_HOP.contains(&text)
            || NOT_FOR_CLIENTS.contains(&text);
        if !dropped {
            headers.append(name.clone(), value.clone());
        }
    }
    headers
}

fn is_dropped(name: &str) -> bool {
    // Some servers read `_` as `-`: a way past every other rule here.
    name.contains('_')
        || RESERVED.iter().any(|prefix| name.starts_with(prefix))
        || HOP_BY_HOP.contains(&name)
        || OURS.contains(&name)
        || deadline::HEADERS.contains(&name)
}

/// The names that `Connection` lists.
fn listed(headers: &HeaderMap) -> HashSet<String> {
    let values = headers.get_all(header::CONNECTION).iter().filter_map(|value| value.to_str().ok());
    values.flat_map(|value| value.split(',')).map(|name| name.trim().to_ascii_lowercase()).collect()
}

fn is_base64(value: &HeaderValue) -> bool {
    let values = value.to_str().map(|value| {
        value.split(',').all(|part| crate::transcode::base64::decoded(part.trim()).is_some())
    });
    values.unwrap_or(false)
}

fn malformed(header: &str, problem: &'static str) -> Error {
    Error::MalformedHeader { header: header.to_owned(), problem }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parts(headers: &[(&'static str, &[u8])]) -> Parts {
        let mut request = http::Request::new(());
        for (name, value) in headers {
            let value = HeaderValue::from_bytes(value).expect("a value");
            request.headers_mut().append(*name, value);
        }
        request.into_parts().0
    }

    #[test]
    fn s48_a_client_cannot_speak_as_the_mesh_or_as_another_address() {
        let parts = parts(&[
            ("host", b"shop.example"),
            ("authorization", b"Bearer t"),
            ("x-custom", b"a"),
            ("x-custom", b"b"),
            ("x-data-bin", b"AQI"),
            ("grpc-timeout", b"1S"),
            ("grpc-status", b"0"),
            ("mesh-on-behalf-of", b"x"),
            ("x-envoy-original-path", b"x"),
            ("x_custom", b"x"),
            ("cookie", b"a=b"),
            ("connection", b"close, X-Once"),
            ("x-once", b"x"),
            ("te", b"trailers"),
            ("x-forwarded-for", b"6.6.6.6"),
            ("forwarded", b"for=6.6.6.6"),
            ("content-type", b"application/json"),
            ("if-match", b"\"v1\""),
            ("traceparent", b"x"),
        ]);
        let metadata = forwarded(&parts, "1.2.3.4".parse().expect("an address")).expect("fine");
        let mut found: Vec<_> = metadata
            .iter()
            .map(|(name, value)| format!("{name}: {}", value.to_str().expect("ASCII")))
            .collect();
        found.sort();
        assert_eq!(
            found,
            [
                "authorization: Bearer t",
                "x-custom: a",
                "x-custom: b",
                "x-data-bin: AQI",
                "x-forwarded-for: 1.2.3.4",
                "x-forwarded-host: shop.example",
                "x-forwarded-proto: http",
            ]
        );
    }

    #[test]
    fn s48_a_header_that_cannot_be_carried_is_named() {
        let client = "1.2.3.4".parse().expect("an address");
        for (name, value) in
            [("x-a", &b"\xc3\xa9"[..]), ("x-b", b"a\tb"), ("x-bin", b"a b"), ("x-bin", b"a")]
        {
            let error = forwarded(&parts(&[("host", b"h"), (name, value)]), client);
            assert!(
                matches!(&error, Err(Error::MalformedHeader { header, .. }) if header == name),
                "{name}: {error:?}"
            );
        }
    }

    #[test]
    fn what_could_be_read_in_two_ways_is_refused() {
        for (headers, blamed) in [
            (&[("host", &b"a"[..])][..], None),
            (&[], Some("host")),
            (&[("host", b"a"), ("host", b"a")], Some("host")),
            (
                &[("host", b"a"), ("content-length", b"1"), ("content-length", b"1")],
                Some("content-length"),
            ),
            (
                &[("host", b"a"), ("content-length", b"1"), ("transfer-encoding", b"chunked")],
                Some("content-length"),
            ),
        ] {
            let found = match check(&parts(headers)) {
                Err(Error::MalformedHeader { header, .. }) => Some(header),
                Err(other) => panic!("{other}"),
                Ok(()) => None,
            };
            assert_eq!(found.as_deref(), blamed, "{headers:?}");
        }
        let mut parts = parts(&[("host", b"a.example")]);
        parts.uri = "http://b.example/".parse().expect("a URI");
        assert!(check(&parts).is_err());
        parts.uri = "http://A.example/".parse().expect("a URI");
        assert!(check(&parts).is_ok());
    }

    #[test]
    fn s48_a_service_sets_no_cookies_and_no_protocol_headers() {
        let mut metadata = HeaderMap::new();
        for name in [
            "x-custom",
            "set-cookie",
            "grpc-encoding",
            "mesh-replayed",
            "mesh-degraded",
            "server",
            "content-length",
            "trailer",
            "cache-control",
        ] {
            metadata.insert(name, HeaderValue::from_static("x"));
        }
        let mut found: Vec<_> =
            returned(&metadata).keys().map(|name| name.as_str().to_owned()).collect();
        found.sort();
        assert_eq!(found, ["cache-control", "mesh-degraded", "x-custom"]);
    }
}
