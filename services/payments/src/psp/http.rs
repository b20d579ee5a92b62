//! The provider's API over HTTP, with the faults that it was told to have.

use std::{
    convert::Infallible,
    sync::{Arc, PoisonError},
    time::Duration,
};

use aws_lc_rs::digest::{SHA256, digest};
use axum::{
    Json, Router,
    extract::{Path, Query, State},
    response::{IntoResponse, Response},
    routing::{get, post},
};
use bytes::Bytes;
use http::{HeaderMap, Request, StatusCode, header};
use hyper::body::Incoming;
use mesh::{
    ctx,
    money::{Currency, Money},
};
use serde::Deserialize;
use tonic::body::Body;
use tower::{Service, util::MapResponse};

use super::{
    Psp, answers,
    broken::Broken,
    control,
    domain::Verdict,
    faults::{Fault, Operation},
    refunds,
    store::{Asked, Error, Task, Told},
};

type Shared = State<Arc<Psp>>;

#[derive(Deserialize)]
struct Authorize {
    reference: String,
    amount: i64,
    currency: String,
    token: String,
}

#[derive(Deserialize)]
struct Capture {
    reference: String,
    amount: i64,
    #[serde(rename = "final", default)]
    last: bool,
}

#[derive(Deserialize)]
struct Void {
    reference: String,
}

#[derive(Deserialize)]
struct Act {
    result: ActionResult,
}

#[derive(Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
enum ActionResult {
    Succeeded,
    Failed,
}

#[derive(Deserialize)]
struct ByReference {
    reference: String,
}

#[derive(Deserialize)]
struct Behind {
    #[serde(default)]
    after: i64,
}

/// A request that changes something, decoded.
pub(super) struct Call {
    pub(super) path: String,
    pub(super) reference: String,
    pub(super) task: Task,
    /// What `/control` asked to go wrong with it.
    pub(super) fault: Option<Fault>,
    /// What its token asks to go wrong, the first time.
    pub(super) magic: Option<Fault>,
}

/// Lines of the ledger per answer.
const LEDGER_MAX: i64 = 1_000;

/// The longest that a request works, its delays not counted.
const PATIENCE: Duration = Duration::from_secs(10);

/// How many references are remembered as struck by their token.
const STRUCK_MAX: usize = 100_000;

/// The API, as a process serves it.
pub fn service(
    psp: Arc<Psp>,
) -> impl Service<Request<Incoming>, Response = http::Response<Body>, Error = Infallible, Future: Send>
+ Clone
+ Send
+ Sync {
    let mut routes = Router::new()
        .route("/v1/authorizations", post(authorize))
        .route("/v1/authorizations/{id}", get(authorization))
        .route("/v1/authorizations/{id}/captures", post(capture))
        .route("/v1/authorizations/{id}/void", post(void))
        .route("/v1/captures/{id}/refunds", post(refunds::refund))
        .route("/v1/actions/{id}", post(act))
        .route("/v1/operations", get(operations))
        .route("/v1/ledger", get(ledger));
    if psp.config.control {
        routes = routes.merge(control::routes());
    }
    MapResponse::new(routes.with_state(psp), |response: Response| response.map(Body::new))
}

async fn authorize(State(psp): Shared, headers: HeaderMap, body: Bytes) -> Response {
    let asked: Authorize = match serde_json::from_slice(&body) {
        Ok(asked) => asked,
        Err(error) => return malformed(&error.to_string()),
    };
    let currency = match Currency::parse(&asked.currency) {
        Ok(currency) if asked.amount > 0 => currency,
        Ok(_) => return malformed("the amount must be positive"),
        Err(error) => return malformed(&error.to_string()),
    };
    let amount = Money::new(asked.amount, currency);
    let fault = psp.fault(Operation::Authorize, Some(&asked.token), &asked.reference);
    let verdict = match &fault {
        Some(Fault::Verdict(verdict)) => verdict.clone(),
        Some(
            Fault::Delay(_)
            | Fault::DelayBefore(_)
            | Fault::ApplyDrop
            | Fault::Drop
            | Fault::Reset
            | Fault::ErrorAfter
            | Fault::ErrorBefore,
        )
        | None => Verdict::of_token(&asked.token),
    };
    let magic = Fault::of_token(&asked.token, psp.config.slow);
    let task = Task::Authorize { amount, token: asked.token, verdict };
    let path = "/v1/authorizations".to_owned();
    let call = Call { path, reference: asked.reference, task, fault, magic };
    psp.answer(&headers, &body, call).await
}

async fn capture(
    State(psp): Shared,
    Path(id): Path<String>,
    headers: HeaderMap,
    body: Bytes,
) -> Response {
    let asked: Capture = match serde_json::from_slice(&body) {
        Ok(asked) => asked,
        Err(error) => return malformed(&error.to_string()),
    };
    let token = psp.token(&id).await;
    let fault = psp.fault(Operation::Capture, token.as_deref(), &asked.reference);
    let path = format!("/v1/authorizations/{id}/captures");
    let fee_basis_points = psp.config.fee_basis_points;
    let Capture { reference, amount, last } = asked;
    let task = Task::Capture { hold: id, amount, last, fee_basis_points };
    psp.answer(&headers, &body, Call { path, reference, task, fault, magic: None }).await
}

async fn void(
    State(psp): Shared,
    Path(id): Path<String>,
    headers: HeaderMap,
    body: Bytes,
) -> Response {
    let asked: Void = match serde_json::from_slice(&body) {
        Ok(asked) => asked,
        Err(error) => return malformed(&error.to_string()),
    };
    let token = psp.token(&id).await;
    let fault = psp.fault(Operation::Void, token.as_deref(), &asked.reference);
    let path = format!("/v1/authorizations/{id}/void");
    let task = Task::Void { hold: id };
    let call = Call { path, reference: asked.reference, task, fault, magic: None };
    psp.answer(&headers, &body, call).await
}

async fn authorization(State(psp): Shared, Path(id): Path<String>, headers: HeaderMap) -> Response {
    match psp.store.hold(&id).await {
        Ok(Some(hold)) => Json(answers::current(&hold, &base(&headers))).into_response(),
        Ok(None) => {
            let (status, answer) = answers::refused(super::domain::Refused::NotFound);
            told(status, answer)
        }
        Err(failure) => failed(&failure.into()),
    }
}

async fn act(
    State(psp): Shared,
    Path(id): Path<String>,
    headers: HeaderMap,
    body: Bytes,
) -> Response {
    let asked: Act = match serde_json::from_slice(&body) {
        Ok(asked) => asked,
        Err(error) => return malformed(&error.to_string()),
    };
    match psp.store.act(id, asked.result == ActionResult::Succeeded, psp.now()).await {
        Ok(Some(hold)) => Json(answers::current(&hold, &base(&headers))).into_response(),
        Ok(None) => told(404, answers::problem("not_found", "there is no such action")),
        Err(error) => failed(&error),
    }
}

async fn operations(
    State(psp): Shared,
    Query(by): Query<ByReference>,
    headers: HeaderMap,
) -> Response {
    match psp.store.operations(&by.reference, &base(&headers)).await {
        Ok(operations) => Json(serde_json::json!({"operations": operations})).into_response(),
        Err(failure) => failed(&failure.into()),
    }
}

async fn ledger(State(psp): Shared, Query(behind): Query<Behind>) -> Response {
    match psp.store.ledger(behind.after, LEDGER_MAX).await {
        Ok(entries) => {
            let last = entries.last().and_then(|entry| entry.get("position")).cloned();
            let last = last.unwrap_or_else(|| behind.after.into());
            Json(serde_json::json!({"entries": entries, "next": last})).into_response()
        }
        Err(failure) => failed(&failure.into()),
    }
}

// === impl Psp ===

impl Psp {
    /// What was asked to go wrong with a request.
    pub(super) fn fault(
        &self,
        operation: Operation,
        token: Option<&str>,
        reference: &str,
    ) -> Option<Fault> {
        let mut faults = self.faults.lock().unwrap_or_else(PoisonError::into_inner);
        faults.strike(operation, token, reference, fastrand::f64)
    }

    /// What the customer of an authorization pays with, if a rule wants to know.
    pub(super) async fn token(&self, id: &str) -> Option<String> {
        let is_asked = {
            let faults = self.faults.lock().unwrap_or_else(PoisonError::into_inner);
            faults.asks_for_token()
        };
        if !is_asked {
            return None;
        }
        let hold = self.store.hold(id).await.ok().flatten();
        hold.map(|hold| hold.token)
    }

    /// Carries a request out and answers it, as far as its fault lets it.
    pub(super) async fn answer(&self, headers: &HeaderMap, body: &[u8], call: Call) -> Response {
        let key = headers.get("idempotency-key").and_then(|key| key.to_str().ok());
        let Some(key) = key.filter(|key| !key.is_empty()) else {
            return malformed("the header Idempotency-Key is missing");
        };
        let Call { path, reference, task, fault, magic } = call;
        let magic = magic.filter(|fault| !fault.is_before() || self.is_new(&reference));
        if let Some(answer) = before(fault.as_ref().or(magic.as_ref())).await {
            return answer;
        }
        let fingerprint = digest(&SHA256, &[path.as_bytes(), b"\n", body].concat());
        let asked = Asked {
            key: key.to_owned(),
            fingerprint: fingerprint.as_ref().to_vec(),
            reference,
            task,
            at: self.now(),
            keys_kept: self.config.keys_kept,
            base: base(headers),
        };
        let trace = headers.get("traceparent").and_then(|trace| trace.to_str().ok());
        let work = self.store.carry_out(asked);
        let done = match ctx::background("carry_out", PATIENCE, trace, work).await {
            Ok(Ok(done)) => done,
            Ok(Err(Error::Reused)) => {
                let message = "this key was used for another request";
                return told(422, answers::problem("idempotency_key_reused", message));
            }
            Ok(Err(error)) => return failed(&error),
            Err(late) => return told(500, answers::problem("late", &late.to_string())),
        };
        if !self.config.latency.is_zero() {
            tokio::time::sleep(self.config.latency).await;
        }
        // A token's own fault strikes the first time; else it could never be found out.
        after(fault.or(magic.filter(|_| !done.is_replayed)), done).await
    }

    /// Whether a token's fault has not yet struck under this reference.
    fn is_new(&self, reference: &str) -> bool {
        let mut struck = self.struck.lock().unwrap_or_else(PoisonError::into_inner);
        if struck.len() >= STRUCK_MAX {
            struck.clear();
        }
        struck.insert(reference.to_owned())
    }
}

/// What a fault does before the request is carried out.
async fn before(fault: Option<&Fault>) -> Option<Response> {
    match fault? {
        Fault::Drop => Some(Broken::at_once()),
        Fault::ErrorBefore => Some(out_of_order()),
        Fault::DelayBefore(delay) => {
            tokio::time::sleep(*delay).await;
            None
        }
        Fault::Delay(_)
        | Fault::ApplyDrop
        | Fault::Reset
        | Fault::ErrorAfter
        | Fault::Verdict(_) => None,
    }
}

/// What a fault does to the answer of a request that was carried out.
async fn after(fault: Option<Fault>, done: Told) -> Response {
    match fault {
        Some(Fault::ApplyDrop) => return Broken::at_once(),
        Some(Fault::Reset) => return Broken::half(&done),
        Some(Fault::ErrorAfter) => return out_of_order(),
        Some(Fault::Delay(delay)) => tokio::time::sleep(delay).await,
        Some(Fault::Drop | Fault::ErrorBefore | Fault::DelayBefore(_) | Fault::Verdict(_))
        | None => {}
    }
    let mut answer = told(done.status_code, done.answer);
    if done.is_replayed {
        let name = header::HeaderName::from_static("idempotent-replayed");
        answer.headers_mut().insert(name, header::HeaderValue::from_static("true"));
    }
    answer
}

fn told(status: u16, answer: serde_json::Value) -> Response {
    let status = StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    (status, Json(answer)).into_response()
}

pub(super) fn malformed(problem: &str) -> Response {
    told(400, answers::problem("malformed", problem))
}

fn out_of_order() -> Response {
    told(500, answers::problem("internal", "out of order"))
}

fn failed(error: &Error) -> Response {
    let causes = mesh::status::with_causes(error);
    tracing::error!("cannot answer: {causes}");
    out_of_order()
}

/// Where the client reaches the simulator.
fn base(headers: &HeaderMap) -> String {
    let host = headers.get(header::HOST).and_then(|host| host.to_str().ok());
    format!("http://{}", host.unwrap_or("127.0.0.1"))
}
