//! The admin port: `/health`, `/ready`, `/metrics`, `/upstreams`, in debug builds failpoints. Last to close.

use std::{sync::Arc, time::Duration};

use axum::{
    Json, Router,
    http::{StatusCode, header},
    response::IntoResponse,
    routing::get,
};
use futures_util::future::{BoxFuture, join_all};
use serde_json::json;
use tokio::{sync::watch, time::Instant};

use super::upstreams::upstreams;
use crate::{app::Draining, clock, ctx, deadline::Late, telemetry};

/// How long a check may take before it counts as failed.
const PATIENCE: Duration = Duration::from_secs(1);
/// How often the checks run: while something is missing, and when all is well.
const INTERVAL: (Duration, Duration) = (Duration::from_millis(25), Duration::from_secs(1));

/// Asks whether one thing that the process needs is there; the error says what is missing.
pub(crate) type Check = Box<dyn Fn() -> BoxFuture<'static, Result<(), String>> + Send + Sync>;

/// What the process needs to serve, and what of it is missing now.
pub(crate) struct Readiness {
    checks: Vec<(&'static str, Check)>,
    missing: watch::Sender<Vec<String>>,
    ready: watch::Sender<bool>,
}

// === impl Readiness ===

impl Readiness {
    pub(crate) fn new(checks: Vec<(&'static str, Check)>) -> Self {
        let missing = vec!["starting".to_owned()];
        Self { checks, missing: watch::Sender::new(missing), ready: watch::Sender::new(false) }
    }

    /// Whether everything is there.
    pub(crate) fn ready(&self) -> watch::Receiver<bool> {
        self.ready.subscribe()
    }

    pub(crate) fn missing(&self) -> watch::Receiver<Vec<String>> {
        self.missing.subscribe()
    }

    /// Runs the checks again and again until the process leaves; from then on it is not ready.
    pub(crate) async fn keep(self, draining: Draining) {
        loop {
            let missing = self.ask().await;
            let ready = missing.is_empty();
            self.say(missing);
            let wait = if ready { INTERVAL.1 } else { INTERVAL.0 };
            tokio::select! {
                () = draining.begun() => break,
                () = tokio::time::sleep(wait) => {}
            }
        }
        self.say(vec!["draining".to_owned()]);
    }

    async fn ask(&self) -> Vec<String> {
        let asked = self.checks.iter().map(async |(name, check)| {
            match ctx::background(name, PATIENCE, None, check()).await {
                Ok(Ok(())) => None,
                Ok(Err(missing)) => Some(format!("{name}: {missing}")),
                Err(Late) => Some(format!("{name}: no answer within {} s", PATIENCE.as_secs())),
            }
        });
        join_all(asked).await.into_iter().flatten().collect()
    }

    fn say(&self, missing: Vec<String>) {
        let ready = missing.is_empty();
        let turned = self.ready.send_if_modified(|was| std::mem::replace(was, ready) != ready);
        if turned && ready {
            tracing::info!("ready");
        } else if turned {
            tracing::warn!(missing = missing.join(", "), "not ready");
        }
        self.missing.send_if_modified(|was| {
            let changed = *was != missing;
            *was = missing;
            changed
        });
    }
}

/// Arms failpoints, where a process was started with them.
#[cfg(debug_assertions)]
pub(crate) fn failpoints(router: Router) -> Router {
    use axum::extract::{Path, Query};

    #[derive(serde::Deserialize)]
    struct When {
        after: Option<u32>,
    }
    let arm = |Path(name): Path<String>, Query(When { after }): Query<When>| async move {
        if crate::failpoint::arm(&name, after.unwrap_or(1)) {
            tracing::warn!("this process dies at {name}");
            (StatusCode::OK, Json(json!({"armed": name})))
        } else {
            (StatusCode::NOT_FOUND, Json(json!({"points": crate::failpoint::POINTS})))
        }
    };
    let disarm = |Path(name): Path<String>| async move {
        crate::failpoint::disarm(&name);
        Json(json!({"disarmed": name}))
    };
    router.route("/debug/failpoints/{name}", axum::routing::post(arm).delete(disarm))
}

/// A release has none.
#[cfg(not(debug_assertions))]
pub(crate) fn failpoints(router: Router) -> Router {
    tracing::warn!("--failpoints: this is a release build, which has none");
    router
}

/// The routes of the admin port.
pub(crate) fn admin(missing: watch::Receiver<Vec<String>>, started: Instant) -> Router {
    let missing = Arc::new(missing);
    let health = move || async move {
        let uptime = clock::instant().saturating_duration_since(started).as_secs();
        Json(json!({"status": "ok", "version": env!("CARGO_PKG_VERSION"), "uptime": uptime}))
    };
    let ready = move || async move {
        let missing = missing.borrow().clone();
        if missing.is_empty() {
            (StatusCode::OK, Json(json!({"ready": true})))
        } else {
            let body = Json(json!({"ready": false, "missing": missing}));
            (StatusCode::SERVICE_UNAVAILABLE, body)
        }
    };
    let metrics = || async {
        let kind = "application/openmetrics-text; version=1.0.0; charset=utf-8";
        ([(header::CONTENT_TYPE, kind)], telemetry::metrics().encode()).into_response()
    };
    Router::new()
        .route("/health", get(health))
        .route("/ready", get(ready))
        .route("/metrics", get(metrics))
        .route("/upstreams", get(upstreams))
}
