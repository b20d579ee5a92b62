use std::net::SocketAddr;

use super::*;

const SHOP: (&str, &str) = ("origin", "https://shop.example");
const ASKS: (&str, &str) = ("access-control-request-method", "PATCH");

#[tokio::test]
async fn s13_a_page_of_a_listed_site_may_ask_send_and_read_and_no_other() {
    let bed = Bed::with(Act::Echo, &["--cors-origin=https://shop.example"]);
    let reply = bed.send(request("OPTIONS", "/v1/things/1", &[SHOP, ASKS], "")).await;
    assert_eq!((reply.status, reply.bytes.len()), (204, 0));
    assert_eq!(reply.header("access-control-allow-origin"), Some("https://shop.example"));
    assert_eq!(
        reply.header("access-control-allow-methods"),
        Some("DELETE, GET, HEAD, OPTIONS, PATCH")
    );
    let sent = reply.header("access-control-allow-headers").expect("headers");
    assert!(sent.contains("authorization") && sent.contains("last-event-id"), "{sent}");
    assert_eq!(reply.header("access-control-allow-credentials"), None);
    assert_eq!(bed.count(), 0);
    // Replies can be read, errors too.
    for (path, status) in [("/v1/things/1", 200), ("/v1/nowhere", 404)] {
        let reply = bed.send(request("GET", path, &[SHOP], "")).await;
        assert_eq!(reply.status, status);
        assert_eq!(reply.header("access-control-allow-origin"), Some("https://shop.example"));
        let read = reply.header("access-control-expose-headers").expect("headers");
        assert!(read.contains("x-trace-id"), "{read}");
        assert!(reply.header("vary").expect("vary").contains("Origin"));
    }
    let nowhere = bed.send(request("OPTIONS", "/v1/nowhere", &[SHOP, ASKS], "")).await;
    assert_eq!(nowhere.status, 404);
    let evil = ("origin", "https://evil.example");
    for (bed, headers) in [(&bed, [evil, ASKS]), (&Bed::new(Act::Echo), [SHOP, ASKS])] {
        for method in ["OPTIONS", "GET"] {
            let reply = bed.send(request(method, "/v1/things/1", &headers, "")).await;
            let told = reply.headers.keys().any(|name| name.as_str().starts_with("access-"));
            assert!(!told, "{method} {:?}", reply.headers);
        }
    }
}

#[tokio::test]
async fn a_page_that_asks_needs_no_token_and_is_not_counted() {
    let bed =
        Bed::with(Act::Echo, &["--cors-origin=https://shop.example", "--rate-limit=/v1/*=2/15m"]);
    for _ in 0..5 {
        let reply = bed.send(request("OPTIONS", "/v1/things", &[SHOP, ASKS], "")).await;
        assert_eq!((reply.status, reply.header("ratelimit")), (204, None));
    }
    assert_eq!(bed.get("/v1/things/1").await.status, 200);
}

const GOOD: (&str, &str) = ("authorization", "Bearer good");

fn from(peer: &str, mut request: Request<Full<Bytes>>) -> Request<Full<Bytes>> {
    request.extensions_mut().insert(Peer(SocketAddr::new(peer.parse().expect(peer), 4_711)));
    request
}

#[tokio::test]
async fn a_token_is_asked_for_before_anything_is_called() {
    let bed = Bed::new(Act::Echo);
    for (path, authorization, status, reason) in [
        ("/v1/things", None, 401, "TOKEN_MISSING"),
        ("/v1/things", Some("Bearer bad"), 401, "TOKEN_INVALID"),
        ("/v1/things", Some("Bearer expired"), 401, "TOKEN_EXPIRED"),
        ("/v1/things", Some("Basic dTpw"), 401, "TOKEN_INVALID"),
        ("/v1/things", Some("Bearer"), 401, "TOKEN_INVALID"),
        ("/v1/things", Some("Bearer unknowable"), 503, "KEYS_UNAVAILABLE"),
        // On a public route too, and where there is none: never silently anonymous.
        ("/v1/all", Some("Bearer bad"), 401, "TOKEN_INVALID"),
        ("/v1/nowhere", Some("Bearer bad"), 401, "TOKEN_INVALID"),
        ("/v1/all", Some("bearer good"), 200, ""),
        ("/v1/all", None, 200, ""),
    ] {
        let headers: Vec<_> =
            authorization.map(|value| ("authorization", value)).into_iter().collect();
        let before = bed.count();
        let reply = bed.send(request("POST", path, &headers, "{}")).await;
        assert_eq!((reply.status, reply.reason()), (status, reason), "{path} {authorization:?}");
        if status == 401 {
            let challenge = reply.header("www-authenticate").expect("a challenge");
            assert!(challenge.starts_with("Bearer realm=\"ordermesh\""), "{challenge}");
            assert_eq!(challenge.contains("invalid_token"), authorization.is_some(), "{challenge}");
        }
        assert_eq!(bed.count() - before, usize::from(status == 200));
    }
    let reply = bed.send(request("POST", "/v1/things", &[GOOD], "{}")).await;
    assert_eq!(reply.status, 201);
}

#[tokio::test]
async fn without_a_token_a_hundred_calls_pass_and_the_next_is_429() {
    let bed = Bed::new(Act::Echo);
    let get = |headers: &'static [(&str, &str)], peer: &'static str| {
        bed.send(from(peer, request("GET", "/v1/all", headers, "")))
    };
    for left in (0..100).rev() {
        let reply = get(&[], "1.2.3.4").await;
        assert_eq!(reply.status, 200);
        assert_eq!(reply.header("ratelimit-policy"), Some("\"/v1/*\";q=100;w=900"));
        assert!(
            reply
                .header("ratelimit")
                .expect("a header")
                .starts_with(&format!("\"/v1/*\";r={left};t="))
        );
    }
    let reply = get(&[], "1.2.3.4").await;
    assert_eq!(
        (reply.status, reply.reason(), reply.body["code"].as_i64()),
        (429, "RATE_LIMITED", Some(8))
    );
    assert_eq!(reply.header("retry-after"), Some("9"));
    let details: Vec<_> = reply.body["details"]
        .as_array()
        .expect("details")
        .iter()
        .map(|detail| {
            detail["@type"]
                .as_str()
                .unwrap_or_default()
                .rsplit('.')
                .next()
                .unwrap_or_default()
                .to_owned()
        })
        .collect();
    assert_eq!(details, ["ErrorInfo", "QuotaFailure", "RetryInfo"]);
    // A token frees, one that is no good does not; others are not touched.
    assert_eq!(get(&[GOOD], "1.2.3.4").await.status, 200);
    assert_eq!(get(&[GOOD], "1.2.3.4").await.header("ratelimit"), None);
    assert_eq!(get(&[("authorization", "Bearer bad")], "1.2.3.4").await.status, 429);
    assert_eq!(get(&[], "1.2.3.5").await.status, 200);
    // Nor is what stands outside of /v1.
    let other = from("1.2.3.4", request("GET", "/other", &[], ""));
    assert_eq!(bed.send(other).await.status, 404);
}

#[tokio::test]
async fn failed_tokens_are_counted_and_sign_in_has_a_count_of_its_own() {
    let flags = ["--rate-limit=/v1/*=2/1m", "--rate-limit=/v1/keys:*=1/1m"];
    let bed = Bed::with(Act::Echo, &flags);
    let bad = [("authorization", "Bearer bad")];
    for status in [401, 401, 429] {
        assert_eq!(bed.send(request("GET", "/v1/all", &bad, "")).await.status, status);
    }
    for status in [200, 429] {
        assert_eq!(bed.send(request("POST", "/v1/keys:issue", &[], "{}")).await.status, status);
    }
}

#[tokio::test]
async fn the_client_is_found_past_proxies_that_are_trusted_and_only_those() {
    let bed = Bed::with(Act::Echo, &["--trusted-proxy=10.0.0.0/8", "--rate-limit=/v1/*=1/1m"]);
    for (peer, forwarded, client, status) in [
        ("10.0.0.1", "9.9.9.9", "9.9.9.9", 200),
        ("10.0.0.1", "6.6.6.6, 9.9.9.9", "9.9.9.9", 429),
        ("10.0.0.1", "8.8.8.8", "8.8.8.8", 200),
        // Not a proxy of ours: whatever it says, it is itself.
        ("7.7.7.7", "5.5.5.5", "7.7.7.7", 200),
        ("7.7.7.7", "4.4.4.4", "7.7.7.7", 429),
    ] {
        let headers = [("x-forwarded-for", forwarded)];
        let reply = bed.send(from(peer, request("GET", "/v1/all", &headers, ""))).await;
        assert_eq!(reply.status, status, "{peer} {forwarded}");
        if status == 200 {
            assert_eq!(bed.call().headers["x-forwarded-for"], client);
        }
    }
}

#[tokio::test]
async fn what_is_too_large_is_refused_by_its_head() {
    let bed = Bed::new(Act::Echo);
    let line = |length: usize| format!("/v1/all?text={}", "x".repeat(length));
    assert_eq!(bed.get(&line(8_000)).await.status, 200);
    let reply = bed.get(&line(8_192)).await;
    assert_eq!((reply.status, reply.reason()), (414, "URI_TOO_LONG"));
    let large = "x".repeat(16 * 1_024);
    let reply = bed.send(request("GET", "/v1/all", &[("x-large", &large)], "")).await;
    assert_eq!((reply.status, reply.reason()), (431, "HEADERS_TOO_LARGE"));
    let many = vec![("x-many", "x"); 100];
    assert_eq!(bed.send(request("GET", "/v1/all", &many, "")).await.status, 431);

    let body = |length: usize| format!(r#"{{"text":"{}"}}"#, "x".repeat(length - 11));
    let most = 4 * 1_024 * 1_024;
    assert_eq!(bed.send(request("POST", "/v1/all", &[], &body(most))).await.status, 200);
    let reply = bed.send(request("POST", "/v1/all", &[], &body(most + 1))).await;
    assert_eq!((reply.status, reply.reason()), (413, "BODY_TOO_LARGE"));
}

#[tokio::test]
async fn what_could_be_read_in_two_ways_is_400() {
    let bed = Bed::new(Act::Echo);
    for headers in [
        &[("host", "other.example")][..],
        &[("content-length", "2"), ("content-length", "2")],
        &[("content-length", "2"), ("transfer-encoding", "chunked")],
        &[("x-data-bin", "a b")],
    ] {
        let reply = bed.send(request("POST", "/v1/all", headers, "{}")).await;
        assert_eq!((reply.status, reply.reason()), (400, "MALFORMED_HEADER"), "{headers:?}");
    }
}

#[tokio::test]
async fn every_reply_has_the_security_headers_and_its_trace() {
    let bed = Bed::new(Act::Echo);
    let trace = "4bf92f3577b34da6a3ce929d0e0e4736";
    let parent = format!("00-{trace}-00f067aa0ba902b7-01");
    for (method, path, status) in [
        ("GET", "/v1/all", 200),
        ("GET", "/nowhere", 404),
        ("OPTIONS", "/v1/all", 204),
        ("POST", "/v1/things", 401),
        ("BREW", "/v1/all", 501),
    ] {
        let headers = [("traceparent", parent.as_str())];
        let reply = bed.send(request(method, path, &headers, "")).await;
        assert_eq!(reply.status, status);
        assert_eq!(reply.header("x-trace-id"), Some(trace), "{path}");
        assert_eq!(reply.header("x-content-type-options"), Some("nosniff"));
        assert_eq!(reply.header("x-frame-options"), Some("DENY"));
        assert_eq!(reply.header("cache-control"), Some("no-store"));
        assert_eq!(reply.header("server"), None);
    }
    // A trace of our own where none came, or one that cannot be read.
    for headers in [&[][..], &[("traceparent", "00-0-0-0")]] {
        let reply = bed.send(request("GET", "/v1/all", headers, "")).await;
        assert_eq!(reply.header("x-trace-id").map(str::len), Some(32));
    }
}

#[tokio::test]
async fn what_was_served_shows_in_the_metrics_by_its_template() {
    let bed = Bed::new(Act::Echo);
    bed.get("/v1/text/secret?small=7").await;
    bed.get("/v1/text/secret/nowhere").await;
    let metrics = mesh::telemetry::metrics().encode();
    assert!(
        metrics.contains(r#"http_route="/v1/text/{text}",http_response_status_code="200""#),
        "{metrics}"
    );
    assert!(metrics.contains(r#"http_errors_total{status="404"}"#), "{metrics}");
    assert!(!metrics.contains("secret"));
}
