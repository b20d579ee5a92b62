//! One call, from its head to the head of its answer.

use std::{
    collections::{HashMap, HashSet},
    convert::Infallible,
    future::Future,
    panic::AssertUnwindSafe,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use futures_util::FutureExt as _;
use http::{HeaderMap, Request, Response};
use hyper::body::Incoming;
use tokio::time::Instant;
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use tonic::{Code, body::Body, service::Routes};
use tower::{Service, ServiceExt as _};

use super::answer::{Answer, Watch};
use crate::{
    auth::Auth,
    busy, clock,
    ctx::{Ctx, Trace},
    deadline, failpoint, marks,
    status::Failure,
};

/// How much earlier than its deadline a call is answered: a plain gRPC client then hears our
/// code before its own timer makes one up.
const EARLY: Duration = Duration::from_millis(1);

/// Everything between a connection and the generated services. Cheap to clone.
#[derive(Clone, Debug)]
pub(crate) struct Calls(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    routes: Routes,
    auth: Auth,
    limits: Limits,
    tracker: TaskTracker,
}

/// What is special about methods, by their paths.
#[derive(Debug)]
pub(crate) struct Limits {
    /// The longest that a call may take.
    pub(crate) longest: Duration,
    /// Methods that may take longer, or less long.
    pub(crate) by_path: HashMap<&'static str, Duration>,
    /// Methods after which the process may be told to die.
    pub(crate) mutations: HashSet<String>,
}

// === impl Calls ===

impl Calls {
    pub(crate) fn new(routes: Routes, auth: Auth, limits: Limits, tracker: TaskTracker) -> Self {
        Self(Arc::new(Inner { routes: routes.prepare(), auth, limits, tracker }))
    }

    /// Never fails: what goes wrong is a failing status.
    async fn call<B>(self, request: Request<B>) -> Response<Body>
    where
        B: http_body::Body<Data = bytes::Bytes> + Send + 'static,
        B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
    {
        let started = clock::instant();
        let path = request.uri().path().to_owned();
        let trace = trace(request.headers());
        let Limits { longest, by_path, .. } = &self.0.limits;
        let longest = by_path.get(path.as_str()).copied().unwrap_or(*longest);
        let timeout = timeout(request.headers());
        let ends = started + timeout.unwrap_or(None).map_or(longest, |asked| asked.min(longest));
        let cancelled = CancellationToken::new();
        let guard = cancelled.clone().drop_guard();
        let ctx = Ctx::new(ends, trace, self.0.tracker.clone(), cancelled)
            .attempted(marks::attempt(request.headers()));
        let watch = Watch::new(&path, started, ctx.clone(), guard);

        let answer = match timeout {
            Err(malformed) => Err(Failure::from(malformed)),
            Ok(_) => self.handle(&ctx, &path, early(ends), request).await,
        };
        match answer {
            Ok(response) => watch.response(response, early(ends)),
            Err(failure) => watch.failed(&failure),
        }
    }

    async fn handle<B>(
        &self,
        ctx: &Ctx,
        path: &str,
        ends: Instant,
        request: Request<B>,
    ) -> Result<Response<Body>, Failure>
    where
        B: http_body::Body<Data = bytes::Bytes> + Send + 'static,
        B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
    {
        let handled = ctx.scope(async {
            self.0.auth.admit(ctx, path, request.headers()).await?;
            let response = self.0.routes.clone().oneshot(request.map(Body::new)).await;
            Ok::<_, Failure>(response.unwrap_or_else(|never: Infallible| match never {}))
        });
        let handled = AssertUnwindSafe(handled).catch_unwind();
        let mut response = match deadline::within(ends, handled).await {
            Err(deadline::Late) => return Err(Failure::Deadline),
            Ok(Err(_panic)) => return Err(Failure::Panic(path.to_owned())),
            Ok(Ok(answer)) => answer?,
        };
        // What a child call said of itself is not said of this one.
        marks::strip(response.headers_mut());
        let ok = response
            .headers()
            .get("grpc-status")
            .is_none_or(|code| Code::from_bytes(code.as_bytes()) == Code::Ok);
        if ok && ctx.owes_duty() {
            return Err(Failure::Duty(path.to_owned()));
        }
        if ok && self.0.limits.mutations.contains(path) {
            failpoint::hit("after_commit_before_answer");
        }
        Ok(response)
    }
}

impl Service<Request<Incoming>> for Calls {
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, Infallible>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<Incoming>) -> Self::Future {
        let calls = self.clone();
        Box::pin(busy::working(async move { Ok(calls.call(request).await) }))
    }
}

impl Watch {
    fn response(self, mut response: Response<Body>, ends: Instant) -> Response<Body> {
        marks::sign(&self.ctx(), response.headers_mut());
        match response.headers().get("grpc-status") {
            // Trailers-only: there is no body to watch.
            Some(code) => {
                self.record(Code::from_bytes(code.as_bytes()));
                response
            }
            None => response.map(|body| Body::new(Answer::new(body, ends, self))),
        }
    }

    fn failed(self, failure: &Failure) -> Response<Body> {
        let status = self.ctx().sync_scope(|| crate::status::of(failure));
        let ctx = self.ctx();
        self.record(status.code());
        let mut response = status.into_http();
        marks::sign(&ctx, response.headers_mut());
        response
    }
}

fn trace(headers: &HeaderMap) -> Trace {
    headers
        .get("traceparent")
        .and_then(|value| value.to_str().ok())
        .and_then(Trace::parse)
        .unwrap_or_default()
}

fn timeout(headers: &HeaderMap) -> Result<Option<Duration>, deadline::Malformed> {
    let Some(value) = headers.get("grpc-timeout") else { return Ok(None) };
    let text = value.to_str().map_err(|_not_text| deadline::Malformed)?;
    deadline::decode(text).map(Some)
}

fn early(ends: Instant) -> Instant {
    ends.checked_sub(EARLY).unwrap_or(ends)
}
