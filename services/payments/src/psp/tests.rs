use std::time::Duration;

use axum::http::{HeaderMap, Method};
use futures_util::future::join_all;
use mesh::testing;
use serde_json::{Value, json};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
};

use crate::harness::{On, Psp, on_both_databases, psp_database};

on_both_databases! {
    the_same_key_is_answered_the_same_and_never_serves_another_body
    twenty_equal_requests_at_once_move_money_once
    a_key_is_forgotten_after_a_day
    a_dropped_answer_has_no_byte_and_a_reset_one_has_half
    control_decides_what_goes_wrong_how_often_and_with_whom
    what_is_malformed_is_refused_and_nothing_moves
    a_refund_is_paid_once_under_its_key_and_no_more_than_was_taken
}

const AUTHORIZATIONS: &str = "/v1/authorizations";

fn asked(reference: &str, token: &str) -> Value {
    json!({"reference": reference, "amount": 1_050, "currency": "EUR", "token": token})
}

async fn post(psp: &Psp, path: &str, key: &str, body: &Value) -> (u16, Value) {
    let mut headers = HeaderMap::new();
    headers.insert("idempotency-key", key.parse().unwrap());
    let body = body.to_string().into();
    let call = psp.http.call(Method::POST, path, headers, body, Duration::from_secs(5));
    let (status, body) = testing::as_nobody(call).await.unwrap();
    (status.as_u16(), serde_json::from_slice(&body).unwrap())
}

async fn moved(psp: &Psp) -> usize {
    psp.get("/v1/ledger").await["entries"].as_array().unwrap().len()
}

async fn the_same_key_is_answered_the_same_and_never_serves_another_body(on: On) {
    let db = psp_database(on).await;
    let psp = Psp::start(&db).await;
    let first = post(&psp, AUTHORIZATIONS, "k", &asked("pay/1", "tok_visa")).await;
    assert_eq!((first.0, &first.1["status"]), (201, &json!("authorized")));
    assert_eq!(post(&psp, AUTHORIZATIONS, "k", &asked("pay/1", "tok_visa")).await, first);
    let (status, answer) = post(&psp, AUTHORIZATIONS, "k", &asked("pay/2", "tok_visa")).await;
    assert_eq!((status, &answer["error"]["code"]), (422, &json!("idempotency_key_reused")));
    assert_eq!(moved(&psp).await, 1);
    // A refusal is an answer, too.
    let void = format!("{AUTHORIZATIONS}/{}/void", first.1["id"].as_str().unwrap());
    let done = post(&psp, &void, "v1", &json!({"reference": "void/1"})).await;
    assert_eq!((done.0, &done.1["released"]), (200, &json!(1_050)));
    let refused = post(&psp, &void, "v2", &json!({"reference": "void/2"})).await;
    assert_eq!((refused.0, &refused.1["error"]["code"]), (409, &json!("not_authorized")));
    assert_eq!(post(&psp, &void, "v2", &json!({"reference": "void/2"})).await, refused);
    assert_eq!(moved(&psp).await, 2);
}

async fn twenty_equal_requests_at_once_move_money_once(on: On) {
    let db = psp_database(on).await;
    let psp = Psp::start(&db).await;
    let body = asked("pay/1", "tok_visa");
    let answers = join_all((0..20).map(|_| post(&psp, AUTHORIZATIONS, "k", &body))).await;
    assert!(answers.iter().all(|answer| *answer == answers[0]), "{answers:?}");
    assert_eq!((answers[0].0, moved(&psp).await), (201, 1));
}

async fn a_key_is_forgotten_after_a_day(on: On) {
    let db = psp_database(on).await;
    let psp = Psp::start(&db).await;
    let body = asked("pay/1", "tok_visa");
    let (_, first) = post(&psp, AUTHORIZATIONS, "k", &body).await;
    assert_eq!(psp.post("/control/advance", json!({"seconds": 24 * 3_600})).await, 200);
    // This is why nobody may send an old key again.
    let (_, second) = post(&psp, AUTHORIZATIONS, "k", &body).await;
    assert_ne!(first["id"], second["id"]);
    assert_eq!(moved(&psp).await, 2);
    assert_eq!(psp.post("/control/advance", json!({"seconds": -1})).await, 400);
}

async fn a_dropped_answer_has_no_byte_and_a_reset_one_has_half(on: On) {
    let db = psp_database(on).await;
    let psp = Psp::start(&db).await;
    for (token, applied) in [("tok_apply_drop", 1), ("tok_drop", 0), ("tok_reset", 1)] {
        let before = moved(&psp).await;
        let body = asked(token, token).to_string();
        let request = format!(
            "POST {AUTHORIZATIONS} HTTP/1.1\r\nhost: psp\r\nidempotency-key: {token}\r\n\
             content-length: {}\r\n\r\n{body}",
            body.len()
        );
        let mut stream = TcpStream::connect(("127.0.0.1", psp.port)).await.unwrap();
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut answer = Vec::new();
        // Closed or reset: either way it is over.
        let _ended = stream.read_to_end(&mut answer).await;
        let text = String::from_utf8(answer).unwrap();
        assert_eq!(text.is_empty(), token != "tok_reset", "{token}: {text}");
        assert!(!text.contains("expires_at\":") || !text.ends_with("0\r\n\r\n"), "{text}");
        assert_eq!(moved(&psp).await - before, applied, "{token}");
    }
}

async fn control_decides_what_goes_wrong_how_often_and_with_whom(on: On) {
    let db = psp_database(on).await;
    let psp = Psp::start(&db).await;
    let rule = json!({
        "operation": "authorize", "reference_prefix": "pay/2", "fault": "decline",
        "decline_code": "fraud", "count": 1,
    });
    assert_eq!(psp.post("/control/faults", rule).await, 204);
    let rule = json!({"operation": "authorize", "token": "tok_x", "fault": "error_before"});
    assert_eq!(psp.post("/control/faults", rule).await, 204);
    for (reference, token, status, field, value) in [
        ("pay/1", "tok_visa", 201, "status", json!("authorized")),
        ("pay/2", "tok_visa", 201, "decline_code", json!("fraud")),
        ("pay/2b", "tok_visa", 201, "status", json!("authorized")),
        ("pay/3", "tok_x", 500, "status", Value::Null),
    ] {
        let (got, answer) = post(&psp, AUTHORIZATIONS, reference, &asked(reference, token)).await;
        assert_eq!((got, &answer[field]), (status, &value), "{reference}");
    }
    assert_eq!(psp.post("/control/faults", json!({"fault": "miracle"})).await, 400);
    let call = psp.http.call(
        Method::DELETE,
        "/control/faults",
        HeaderMap::new(),
        bytes::Bytes::new(),
        Duration::from_secs(5),
    );
    assert_eq!(testing::as_nobody(call).await.unwrap().0.as_u16(), 204);
    let (status, _) = post(&psp, AUTHORIZATIONS, "pay/4", &asked("pay/4", "tok_x")).await;
    assert_eq!(status, 201);
}

async fn what_is_malformed_is_refused_and_nothing_moves(on: On) {
    let db = psp_database(on).await;
    let psp = Psp::start(&db).await;
    let good = asked("pay/1", "tok_visa");
    for (field, value) in [
        ("amount", json!(0)),
        ("amount", json!(-1)),
        ("amount", json!("1")),
        ("currency", json!("ZZZ")),
        ("token", Value::Null),
    ] {
        let mut body = good.clone();
        body[field] = value;
        let (status, _) = post(&psp, AUTHORIZATIONS, "k", &body).await;
        assert_eq!(status, 400, "{body}");
    }
    // Without a key nothing could be repeated.
    assert_eq!(psp.post(AUTHORIZATIONS, good).await, 400);
    let void = json!({"reference": "void/1"});
    let (status, _) = post(&psp, "/v1/authorizations/auth_none/void", "v", &void).await;
    assert_eq!((status, moved(&psp).await), (404, 0));
}

async fn a_refund_is_paid_once_under_its_key_and_no_more_than_was_taken(on: On) {
    let db = psp_database(on).await;
    let psp = Psp::start(&db).await;
    let (_, hold) = post(&psp, AUTHORIZATIONS, "a", &asked("pay/1", "tok_visa")).await;
    let path = format!("{AUTHORIZATIONS}/{}/captures", hold["id"].as_str().unwrap());
    let body = json!({"reference": "cap/1", "amount": 1_000, "final": true});
    let (_, capture) = post(&psp, &path, "c", &body).await;
    let path = format!("/v1/captures/{}/refunds", capture["id"].as_str().unwrap());
    let before = moved(&psp).await;
    let body = json!({"reference": "ref/1", "amount": 600});
    let first = post(&psp, &path, "r", &body).await;
    assert_eq!((first.0, &first.1["status"]), (201, &json!("refunded")));
    assert_eq!(post(&psp, &path, "r", &body).await, first);
    assert_eq!(moved(&psp).await - before, 1);
    for (key, path, amount, status, code) in [
        ("r", path.as_str(), 400, 422, "idempotency_key_reused"),
        ("s", path.as_str(), 401, 422, "amount_exceeds_capture"),
        ("t", path.as_str(), 0, 422, "amount_exceeds_capture"),
        ("u", "/v1/captures/cap_none/refunds", 1, 404, "not_found"),
    ] {
        let body = json!({"reference": "ref/2", "amount": amount});
        let (got, answer) = post(&psp, path, key, &body).await;
        assert_eq!((got, &answer["error"]["code"]), (status, &json!(code)), "{key}");
    }
    assert_eq!(moved(&psp).await - before, 1);
    let ledger = psp.get("/v1/ledger").await;
    let last = ledger["entries"].as_array().unwrap().last().unwrap().clone();
    assert_eq!(
        (&last["movement"], &last["amount"], &last["reference"]),
        (&json!("refunded"), &json!(600), &json!("ref/1"))
    );
}
