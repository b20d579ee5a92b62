use super::*;

const GOOD: (&str, &str) = ("authorization", "Bearer good");

#[tokio::test]
async fn s17_s30_and_s34_a_wrong_request_is_400_and_names_its_field() {
    let bed = Bed::new(Act::Echo);
    for (method, path, body, reason, field) in [
        ("POST", "/v1/all", "{", "MALFORMED_JSON", ""),
        ("POST", "/v1/all", r#"{"inner": {"text": }}"#, "MALFORMED_JSON", "inner.text"),
        ("POST", "/v1/all", r#"{"inner": {"small": "x"}}"#, "FIELD_VIOLATION", "inner.small"),
        ("POST", "/v1/all", r#"{"colour": 1}"#, "FIELD_VIOLATION", "colour"),
        (
            "POST",
            "/v1/inner",
            r#"{"inner": {"small": []}}"#,
            "FIELD_VIOLATION",
            "inner.inner.small",
        ),
        ("POST", "/v1/all/a", r#"{"text": "b"}"#, "BINDING_CONFLICT", "text"),
        ("POST", "/v1/all?text=a", "{}", "FIELD_VIOLATION", "text"),
        ("GET", "/v1/all?unsignedSmall=x", "", "FIELD_VIOLATION", "unsigned_small"),
        ("GET", "/v1/all?nope=1", "", "FIELD_VIOLATION", "nope"),
        ("GET", "/v1/all", "{}", "BINDING_CONFLICT", "body"),
        ("GET", "/v1/flags/x/1/COLOR_RED/2024-01-01T00:00:00Z", "", "FIELD_VIOLATION", "flag"),
    ] {
        let reply = bed.send(request(method, path, &[], body)).await;
        assert_eq!((reply.status, reply.reason()), (400, reason), "{path} {body}");
        assert_eq!(reply.domain(), "ordermesh.gateway.v1");
        assert_eq!(reply.body["code"], 3);
        let bad = &reply.body["details"][1];
        assert_eq!(bad["@type"], "type.googleapis.com/google.rpc.BadRequest");
        let named = bad["fieldViolations"][0]["field"].as_str().unwrap_or_default();
        assert_eq!(named, field, "{path} {body}");
    }
    assert_eq!(bed.count(), 0);
}

#[tokio::test]
async fn s40_a_body_is_json_and_a_reply_too() {
    let bed = Bed::new(Act::Echo);
    for (headers, status) in [
        (&[("content-type", "application/json; charset=utf-8")][..], 200),
        (&[("content-type", "application/merge-patch+json")], 200),
        (&[], 200),
        (&[("content-type", "text/plain")], 415),
        (&[("content-type", "application/json; charset=utf-16")], 415),
        (&[("content-encoding", "gzip")], 415),
        (&[("accept", "text/html")], 406),
        (&[("accept", "application/*")], 200),
    ] {
        let reply = bed.send(request("POST", "/v1/all", headers, "{}")).await;
        assert_eq!(reply.status, status, "{headers:?}");
    }
    let reply = bed.send(request("POST", "/v1/all", &[("content-encoding", "gzip")], "{}")).await;
    assert_eq!(reply.header("accept-encoding"), Some("identity"));
    // Without a body its type plays no part.
    let reply = bed.send(request("POST", "/v1/all", &[("content-type", "text/plain")], "")).await;
    assert_eq!(reply.status, 200);
}

#[tokio::test]
async fn s41_and_s44_a_failure_looks_alike_in_the_head_and_in_the_trailers() {
    let pairs: &[(&str, &str)] = &[("grpc-status", "9"), ("grpc-message", "2 left, 3%25 wanted")];
    for act in [Act::Fail(pairs), Act::FailAtOnce(pairs)] {
        let reply = Bed::new(act).get("/v1/things/1").await;
        assert_eq!(reply.status, 400);
        assert_eq!(reply.body, json!({"code": 9, "message": "2 left, 3% wanted"}));
        assert_eq!(reply.header("cache-control"), Some("no-store"));
        assert!(reply.header("x-trace-id").is_some());
    }
}

#[tokio::test]
async fn s42_what_http_wants_beside_a_status_is_there() {
    for (code, status, header) in [
        ("16", 401, Some("www-authenticate")),
        ("8", 429, Some("retry-after")),
        ("14", 503, Some("retry-after")),
        ("10", 409, None),
        ("4", 504, None),
        ("1", 499, None),
        ("12", 501, None),
    ] {
        let pairs: &'static [(&str, &str)] = vec![("grpc-status", code)].leak();
        let reply = Bed::new(Act::Fail(pairs)).get("/v1/things/1").await;
        assert_eq!(reply.status, status, "{code}");
        if let Some(header) = header {
            assert!(reply.header(header).is_some(), "{code}");
        }
    }
}

#[tokio::test]
async fn s42_an_answer_that_breaks_its_contract_is_502() {
    for bytes in [
        vec![],
        vec![0, 0, 0, 0],
        vec![0, 0, 0, 0, 9, 1],
        vec![1, 0, 0, 0, 0],
        vec![0, 0, 0, 0, 3, 0x0a, 1, 0xff],
        vec![0; 17 * 1_024 * 1_024],
    ] {
        let reply = Bed::new(Act::Bytes(bytes.clone())).get("/v1/things/1").await;
        assert_eq!(
            (reply.status, reply.domain()),
            (502, "ordermesh.gateway.v1"),
            "{}",
            bytes.len()
        );
    }
}

#[tokio::test]
async fn what_broke_inside_leaves_as_a_trace_id() {
    for (code, status) in [("13", 500), ("2", 500), ("15", 500)] {
        let message = ("grpc-message", "connection to db.internal refused");
        let pairs: &'static [(&str, &str)] = vec![("grpc-status", code), message].leak();
        let reply = Bed::new(Act::Fail(pairs)).get("/v1/things/1").await;
        assert_eq!(reply.status, status);
        let text = reply.body["message"].as_str().expect("a message");
        assert!(
            !text.contains("internal") && text.contains(reply.header("x-trace-id").expect("an id")),
            "{text}"
        );
    }
}

#[tokio::test]
async fn s48_metadata_passes_both_ways_but_not_what_is_reserved() {
    let said: &[(&str, &str)] = &[
        ("x-custom", "a"),
        ("set-cookie", "b=c"),
        ("mesh-degraded", "price"),
        ("grpc-encoding", "identity"),
        ("mesh-instance", "10.0.0.7"),
        ("cache-control", "public, max-age=60"),
    ];
    let bed = Bed::new(Act::Say(json!({"name": "things/1"}), said));
    let headers = [GOOD, ("x-question", "why"), ("mesh-on-behalf-of", "x"), ("cookie", "a=b")];
    let reply = bed.send(request("GET", "/v1/things/1", &headers, "")).await;
    let call = bed.call();
    assert_eq!(call.headers["authorization"], "Bearer good");
    assert_eq!(call.headers["x-question"], "why");
    assert!(
        !call.headers.contains_key("mesh-on-behalf-of") && !call.headers.contains_key("cookie")
    );
    assert_eq!(reply.header("x-custom"), Some("a"));
    assert_eq!(reply.header("mesh-degraded"), Some("price"));
    assert_eq!(reply.header("cache-control"), Some("public, max-age=60"));
    for name in ["set-cookie", "grpc-encoding", "mesh-instance", "grpc-status", "server"] {
        assert_eq!(reply.header(name), None, "{name}");
    }
}

#[tokio::test]
async fn s50_an_http_body_has_its_own_type() {
    let body = json!({"contentType": "text/plain; charset=utf-8", "data": "aGk="});
    let bed = Bed::new(Act::Answer(body));
    let reply = bed.send(request("GET", "/v1/files/a/b", &[("accept", "text/plain")], "")).await;
    assert_eq!((reply.status, &reply.bytes[..]), (200, &b"hi"[..]));
    assert_eq!(reply.header("content-type"), Some("text/plain; charset=utf-8"));
    assert_eq!(reply.header("x-content-type-options"), Some("nosniff"));
}

#[tokio::test]
async fn s51_a_patch_carries_the_mask_of_what_it_changes() {
    let bed = Bed::new(Act::Echo);
    let reply = bed.send(request("PATCH", "/v1/things/1", &[GOOD], r#"{"title": "t"}"#)).await;
    assert_eq!(reply.status, 200);
    assert_eq!(
        bed.call().message,
        json!({"thing": {"name": "things/1", "title": "t"}, "updateMask": "title"})
    );
}

#[tokio::test]
async fn s52_an_etag_goes_out_comes_back_and_spares_a_body() {
    let bed = Bed::new(Act::Answer(json!({"name": "things/1", "etag": "\"v1\""})));
    let reply = bed.get("/v1/things/1").await;
    assert_eq!((reply.status, reply.header("etag")), (200, Some("\"v1\"")));
    assert_eq!(reply.header("cache-control"), Some("private, no-cache"));
    for (condition, status) in
        [("\"v1\"", 304), ("W/\"v1\", \"v9\"", 304), ("*", 304), ("\"v2\"", 200)]
    {
        let headers = [("if-none-match", condition)];
        for method in ["GET", "HEAD"] {
            let reply = bed.send(request(method, "/v1/things/1", &headers, "")).await;
            assert_eq!(reply.status, status, "{condition}");
            assert_eq!(reply.header("etag"), Some("\"v1\""));
            if status == 304 {
                assert_eq!((reply.bytes.len(), reply.header("content-length")), (0, None));
            }
        }
    }
    let headers = [GOOD, ("if-match", "\"v1\"")];
    assert_eq!(bed.send(request("PATCH", "/v1/things/1", &headers, "{}")).await.status, 200);
    assert_eq!(bed.call().message["thing"]["etag"], "\"v1\"");
}

#[tokio::test]
async fn s52_a_condition_that_cannot_be_kept_is_refused() {
    let bed = Bed::new(Act::Echo);
    for (method, path, header, reason) in [
        ("POST", "/v1/things", ("if-match", "\"v1\""), "PRECONDITION_UNSUPPORTED"),
        ("GET", "/v1/things/1", ("if-match", "\"v1\""), "PRECONDITION_UNSUPPORTED"),
        ("PATCH", "/v1/things/1", ("if-match", "\"v1\", \"v2\""), "PRECONDITION_UNSUPPORTED"),
        ("PATCH", "/v1/things/1", ("if-none-match", "*"), "PRECONDITION_UNSUPPORTED"),
        ("PATCH", "/v1/things/1", ("if-match", "v1"), "MALFORMED_HEADER"),
        ("POST", "/v1/things", ("idempotency-key", ""), "MALFORMED_HEADER"),
    ] {
        let reply = bed.send(request(method, path, &[GOOD, header], "")).await;
        assert_eq!((reply.status, reply.reason()), (400, reason), "{method} {header:?}");
    }
    assert_eq!(bed.count(), 0);
}

#[tokio::test]
async fn s52_aborted_is_412_only_for_who_named_a_revision() {
    let bed = Bed::new(Act::Fail(&[("grpc-status", "10")]));
    for (headers, status) in [(&[GOOD][..], 409), (&[GOOD, ("if-match", "\"v1\"")], 412)] {
        let reply = bed.send(request("DELETE", "/v1/things/1", headers, "")).await;
        assert_eq!((reply.status, reply.body["code"].as_i64()), (status, Some(10)));
    }
}

#[tokio::test]
async fn s52_a_key_becomes_the_request_id_and_a_replay_is_marked() {
    let bed = Bed::new(Act::Say(json!({"name": "things/1"}), &[("mesh-replayed", "true")]));
    let headers = [GOOD, ("idempotency-key", "the order of Monday")];
    let reply = bed.send(request("POST", "/v1/things", &headers, "{}")).await;
    assert_eq!((reply.status, reply.header("idempotent-replayed")), (201, Some("true")));
    assert_eq!(reply.header("mesh-replayed"), None);
    let id = bed.call().message["requestId"].as_str().expect("an id").to_owned();
    assert_eq!(id.len(), 36);
    bed.send(request("POST", "/v1/things", &headers, "{}")).await;
    assert_eq!(bed.call().message["requestId"], id.as_str());
    for (given, status) in [("the%20order%20of%20Monday", 201), (id.as_str(), 201), ("other", 400)]
    {
        let path = format!("/v1/things?request_id={given}");
        let reply = bed.send(request("POST", &path, &headers, "{}")).await;
        assert_eq!(reply.status, status, "{given}");
    }
    let fresh = Bed::new(Act::Answer(json!({"name": "things/1"})));
    let reply = fresh.send(request("POST", "/v1/things", &headers, "{}")).await;
    assert_eq!(reply.header("idempotent-replayed"), None);
}

#[tokio::test]
async fn s53_what_is_created_has_a_location_and_empty_is_an_object() {
    for (name, location) in [
        ("things/1", Some("/v1/things/1")),
        ("things/a b%", Some("/v1/things/a%20b%25")),
        ("nowhere/1", None),
        ("", None),
    ] {
        let bed = Bed::new(Act::Answer(json!({ "name": name })));
        let reply = bed.send(request("POST", "/v1/things", &[GOOD], "{}")).await;
        assert_eq!((reply.status, reply.header("location")), (201, location), "{name}");
    }
    let bed = Bed::new(Act::Echo);
    let reply = bed.send(request("DELETE", "/v1/things/1", &[GOOD], "")).await;
    assert_eq!((reply.status, &reply.bytes[..]), (200, &b"{}"[..]));
    assert_eq!(reply.header("vary"), Some("Accept, Accept-Encoding, Origin"));
}

#[tokio::test(start_paused = true)]
async fn s49_an_upstream_that_hangs_is_504_when_the_client_stops_waiting() {
    let bed = Bed::new(Act::Hang);
    for (headers, waited) in [
        (&[][..], 10_000),
        (&[("grpc-timeout", "250m")], 250),
        (&[("x-server-timeout", "2.5")], 2_500),
        (&[("x-server-timeout", "900")], 60_000),
    ] {
        let began = mesh::clock::instant();
        let reply = bed.send(request("GET", "/v1/things/1", headers, "")).await;
        assert_eq!((reply.status, reply.reason()), (504, "DEADLINE"), "{headers:?}");
        let took = (mesh::clock::instant() - began).as_millis();
        assert!((waited..waited + 10).contains(&took), "{headers:?}: {took}");
        assert!(bed.call().timeout.as_millis() <= waited);
    }
    let reply = bed.send(request("GET", "/v1/things/1", &[("grpc-timeout", "1n2")], "")).await;
    assert_eq!((reply.status, reply.reason()), (400, "MALFORMED_TIMEOUT"));
}
