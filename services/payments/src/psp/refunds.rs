//! `POST /v1/captures/{id}/refunds`: gives back what was taken.

use std::sync::Arc;

use axum::{
    extract::{Path, State},
    response::Response,
};
use bytes::Bytes;
use http::HeaderMap;
use serde::Deserialize;

use super::{
    Psp,
    domain::Verdict,
    faults::{Fault, Operation},
    http::{Call, malformed},
    store::Task,
};

#[derive(Deserialize)]
struct Refund {
    reference: String,
    amount: i64,
}

pub(super) async fn refund(
    State(psp): State<Arc<Psp>>,
    Path(id): Path<String>,
    headers: HeaderMap,
    body: Bytes,
) -> Response {
    let asked: Refund = match serde_json::from_slice(&body) {
        Ok(asked) => asked,
        Err(error) => return malformed(&error.to_string()),
    };
    let capture = psp.store.capture(&id).await.ok().flatten();
    let token = match &capture {
        Some(capture) => psp.token(&capture.hold).await,
        None => None,
    };
    let fault = psp.fault(Operation::Refund, token.as_deref(), &asked.reference);
    let declined = match &fault {
        Some(Fault::Verdict(Verdict::Decline(code))) => Some(code.clone()),
        _ => None,
    };
    let path = format!("/v1/captures/{id}/refunds");
    let task = Task::Refund { capture: id, amount: asked.amount, declined };
    let call = Call { path, reference: asked.reference, task, fault, magic: None };
    psp.answer(&headers, &body, call).await
}
