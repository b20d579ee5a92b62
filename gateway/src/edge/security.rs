//! The headers of every reply: what a browser may do with it, and who may keep it.

use http::{HeaderMap, HeaderName, HeaderValue, header};

/// The set of helmet, for an API that serves no pages.
const SECURITY: [(&str, &str); 11] = [
    ("content-security-policy", "default-src 'none'; frame-ancestors 'none'"),
    ("x-content-type-options", "nosniff"),
    ("x-frame-options", "DENY"),
    ("referrer-policy", "no-referrer"),
    ("cross-origin-opener-policy", "same-origin"),
    ("cross-origin-resource-policy", "same-origin"),
    ("origin-agent-cluster", "?1"),
    ("x-dns-prefetch-control", "off"),
    ("x-download-options", "noopen"),
    ("x-permitted-cross-domain-policies", "none"),
    ("x-xss-protection", "0"),
];

/// Adds what every reply carries. A `Cache-Control` that is there stays.
pub fn apply(headers: &mut HeaderMap) {
    for (name, value) in SECURITY {
        headers.insert(HeaderName::from_static(name), HeaderValue::from_static(value));
    }
    headers.insert(header::VARY, HeaderValue::from_static("Accept, Accept-Encoding, Origin"));
    if !headers.contains_key(header::CACHE_CONTROL) {
        // With an ETag a cache of one user may keep it, and asks whether it still holds.
        let kept = headers.contains_key(header::ETAG);
        let policy = if kept { "private, no-cache" } else { "no-store" };
        headers.insert(header::CACHE_CONTROL, HeaderValue::from_static(policy));
    }
    headers.remove(header::SERVER);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reply_is_kept_by_nobody_unless_it_has_an_etag_or_the_service_says_so() {
        for (set, expected) in [
            (None, "no-store"),
            (Some((header::ETAG, "\"v1\"")), "private, no-cache"),
            (Some((header::CACHE_CONTROL, "public, max-age=300")), "public, max-age=300"),
        ] {
            let mut headers = HeaderMap::new();
            if let Some((name, value)) = set {
                headers.insert(name, HeaderValue::from_static(value));
            }
            apply(&mut headers);
            assert_eq!(headers[header::CACHE_CONTROL], expected);
            assert_eq!(headers["x-content-type-options"], "nosniff");
        }
    }
}
