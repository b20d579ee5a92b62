//! `/control`: faults on request, and a clock that can be advanced.

use std::{
    sync::{Arc, PoisonError, atomic::Ordering},
    time::Duration,
};

use axum::{
    Json, Router,
    extract::State,
    response::{IntoResponse, Response},
    routing::post,
};
use bytes::Bytes;
use http::StatusCode;
use serde::Deserialize;

use super::{
    Psp,
    domain::Verdict,
    faults::{Fault, Operation, Rule},
    http::malformed,
};

type Shared = State<Arc<Psp>>;

#[derive(Deserialize)]
struct Advance {
    seconds: i64,
}

/// A rule as `/control/faults` takes it.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct FaultRule {
    operation: Option<Operation>,
    token: Option<String>,
    reference_prefix: Option<String>,
    fault: FaultName,
    #[serde(default = "always")]
    probability: f64,
    count: Option<u64>,
    /// For `delay` and `delay_before`.
    #[serde(default)]
    delay_ms: u64,
    /// For `decline`.
    decline_code: Option<String>,
}

#[derive(Clone, Copy, Deserialize)]
#[serde(rename_all = "snake_case")]
enum FaultName {
    Delay,
    DelayBefore,
    ApplyDrop,
    Drop,
    Reset,
    ErrorAfter,
    ErrorBefore,
    Pending,
    ActionRequired,
    Decline,
}

/// The routes of `/control`.
pub(super) fn routes() -> Router<Arc<Psp>> {
    Router::new()
        .route("/control/faults", post(add_fault).delete(clear_faults))
        .route("/control/advance", post(advance))
}

async fn add_fault(State(psp): Shared, body: Bytes) -> Response {
    let asked: FaultRule = match serde_json::from_slice(&body) {
        Ok(asked) => asked,
        Err(error) => return malformed(&error.to_string()),
    };
    psp.faults.lock().unwrap_or_else(PoisonError::into_inner).add(asked.rule());
    StatusCode::NO_CONTENT.into_response()
}

async fn clear_faults(State(psp): Shared) -> Response {
    psp.faults.lock().unwrap_or_else(PoisonError::into_inner).clear();
    StatusCode::NO_CONTENT.into_response()
}

async fn advance(State(psp): Shared, body: Bytes) -> Response {
    match serde_json::from_slice::<Advance>(&body) {
        Ok(asked) if asked.seconds >= 0 => {
            let micros = asked.seconds.saturating_mul(1_000_000);
            psp.ahead.fetch_add(micros, Ordering::Relaxed);
            Json(serde_json::json!({"now": psp.now().unix_timestamp()})).into_response()
        }
        Ok(_) => malformed("time goes forward"),
        Err(error) => malformed(&error.to_string()),
    }
}

// === impl FaultRule ===

impl FaultRule {
    fn rule(self) -> Rule {
        let delay = Duration::from_millis(self.delay_ms);
        let fault = match self.fault {
            FaultName::Delay => Fault::Delay(delay),
            FaultName::DelayBefore => Fault::DelayBefore(delay),
            FaultName::ApplyDrop => Fault::ApplyDrop,
            FaultName::Drop => Fault::Drop,
            FaultName::Reset => Fault::Reset,
            FaultName::ErrorAfter => Fault::ErrorAfter,
            FaultName::ErrorBefore => Fault::ErrorBefore,
            FaultName::Pending => Fault::Verdict(Verdict::Wait),
            FaultName::ActionRequired => Fault::Verdict(Verdict::AskCustomer),
            FaultName::Decline => {
                let code = self.decline_code.unwrap_or_else(|| "do_not_honor".to_owned());
                Fault::Verdict(Verdict::Decline(code))
            }
        };
        Rule {
            operation: self.operation,
            token: self.token,
            reference_prefix: self.reference_prefix,
            probability: self.probability,
            count: self.count,
            fault,
        }
    }
}

fn always() -> f64 {
    1.0
}
