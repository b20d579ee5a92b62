//! One call, from its head to the head of its answer.

use std::{
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

use super::{
    answer::Watch,
    limit::{Limiter, Permit, Shed},
    link::Link,
    methods::{Method, Methods},
};
use crate::{
    auth::Auth,
    busy, clock,
    ctx::{Criticality, Ctx, Inbound, TRACEPARENT, Trace},
    deadline, failpoint, marks,
    status::Failure,
    telemetry::Spans,
    tls,
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
    methods: Methods,
    limiter: Arc<Limiter>,
    tracker: TaskTracker,
    spans: Spans,
}

/// A call that is being served.
struct Served<'c> {
    path: &'c str,
    method: &'c Method,
    ctx: &'c Ctx,
    link: Option<&'c Link>,
    /// When it is late.
    ends: Instant,
}

// === impl Calls ===

impl Calls {
    pub(crate) fn new(
        routes: Routes,
        auth: Auth,
        methods: Methods,
        limiter: Arc<Limiter>,
        tracker: TaskTracker,
        spans: Spans,
    ) -> Self {
        Self(Arc::new(Inner { routes: routes.prepare(), auth, methods, limiter, tracker, spans }))
    }

    /// Never fails: what goes wrong is a failing status.
    async fn call<B>(self, mut request: Request<B>) -> Response<Body>
    where
        B: http_body::Body<Data = bytes::Bytes> + Send + 'static,
        B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
    {
        let started = clock::instant();
        let link = request.extensions_mut().remove::<Arc<Link>>();
        let path = request.uri().path().to_owned();
        let method = Arc::clone(self.0.methods.at(&path));
        let timeout = timeout(request.headers());
        let ends = started
            + timeout.unwrap_or(None).map_or(method.longest, |asked| asked.min(method.longest));
        let cancelled = match &link {
            // The drain ends streams by it.
            Some(link) if method.streaming => link.streams.child_token(),
            Some(_) | None => CancellationToken::new(),
        };
        let guard = cancelled.clone().drop_guard();
        let inbound = inbound(request.headers(), link.as_deref());
        let trace = trace(request.headers());
        let ctx = Ctx::served(ends, trace, self.0.tracker.clone(), cancelled, inbound);
        let ctx = self.0.recorded(ctx, &method, request.headers());
        let watch = Watch::new(Arc::clone(&method), started, ctx.clone(), guard);

        let answer = match timeout {
            Err(malformed) => Err(Failure::from(malformed)),
            Ok(_) => {
                let ends = early(ends);
                let link = link.as_deref();
                let served = Served { path: &path, method: &method, ctx: &ctx, link, ends };
                self.serve(&served, started, request).await
            }
        };
        match answer {
            Ok(response) => watch.response(response, early(ends)),
            Err(failure) => watch.failed(&failure),
        }
    }

    /// From the outside in: time enough, a place, the handler and what stands before it.
    async fn serve<B>(
        &self,
        call: &Served<'_>,
        started: Instant,
        request: Request<B>,
    ) -> Result<Response<Body>, Failure>
    where
        B: http_body::Body<Data = bytes::Bytes> + Send + 'static,
        B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
    {
        let (method, ends) = (call.method, call.ends);
        // Expired work must not take a place from work that has a chance.
        let (left, needs) = (ends.saturating_duration_since(started), method.needs(started));
        if !method.exempt && left < needs {
            let (left_ms, needs_ms) = (left.as_millis(), needs.as_millis());
            return Err(Failure::Budget { method: method.name.clone(), left_ms, needs_ms });
        }
        call.ctx.hold(self.place(call).await?);
        let begun = clock::instant();
        let response = self.handle(call, request).await;
        let late = matches!(response, Err(Failure::Deadline));
        let tells = !method.streaming && call.ctx.only_worked();
        if tells && (late || response.as_ref().is_ok_and(is_ok)) {
            let now = clock::instant();
            method.took(now, now.saturating_duration_since(begun));
            call.ctx.sample();
        }
        response
    }

    async fn place(&self, call: &Served<'_>) -> Result<Option<Permit>, Failure> {
        let limiter = &self.0.limiter;
        let permit = match call.method {
            method if method.exempt => return Ok(None),
            method if method.streaming => limiter.stream(),
            _ => limiter.call(call.ctx.criticality(), call.ends).await,
        };
        match permit {
            Ok(permit) => Ok(Some(permit)),
            Err(Shed { pushback }) => Err(Failure::Shed(pushback)),
        }
    }

    async fn handle<B>(
        &self,
        call: &Served<'_>,
        request: Request<B>,
    ) -> Result<Response<Body>, Failure>
    where
        B: http_body::Body<Data = bytes::Bytes> + Send + 'static,
        B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
    {
        let Served { path, method, ctx, .. } = *call;
        let handled = ctx.scope(async {
            self.0.auth.admit(ctx, path, request.headers()).await?;
            call.shows_its_own()?;
            let bulkhead = method.bulkhead.clone().map(|places| places.try_acquire_owned());
            let Ok(place) = bulkhead.transpose() else {
                return Err(Failure::Bulkhead(method.name.clone()));
            };
            let response = self.0.routes.clone().oneshot(request.map(Body::new)).await;
            let response = response.unwrap_or_else(|never: Infallible| match never {});
            Ok((response, place))
        });
        let handled = deadline::within(call.ends, AssertUnwindSafe(handled).catch_unwind());
        let handled = match call.link {
            Some(link) if method.streaming => tokio::select! {
                biased;
                () = link.streams.cancelled() => return Err(Failure::Draining),
                handled = handled => handled,
            },
            Some(_) | None => handled.await,
        };
        let (mut response, place) = match handled {
            Err(deadline::Late) => return Err(Failure::Deadline),
            Ok(Err(_panic)) => return Err(Failure::Panic(path.to_owned())),
            Ok(Ok(answer)) => answer?,
        };
        // What a child call said of itself is not said of this one.
        marks::strip(response.headers_mut());
        if let Some(place) = place {
            response.extensions_mut().insert(Arc::new(place));
        }
        if is_ok(&response) {
            if ctx.owes_duty() {
                return Err(Failure::Duty(path.to_owned()));
            }
            if method.mutation {
                failpoint::hit("after_commit_before_answer");
            }
        }
        Ok(response)
    }
}

// === impl Inner ===

impl Inner {
    /// The context of a call with its span, if it has one. Health and reflection have none.
    fn recorded(&self, ctx: Ctx, method: &Method, headers: &HeaderMap) -> Ctx {
        if method.exempt || !self.spans.are_recorded() {
            return ctx;
        }
        let span = self.spans.served(ctx.trace(), &method.name);
        let ctx = ctx.recorded(&self.spans, span);
        if ctx.span().is_recorded()
            && let Some(order) = marks::order(headers)
        {
            ctx.about(order);
        }
        ctx
    }
}

// === impl Served ===

impl Served<'_> {
    /// Whether a service that shows a certificate is the one that its token names.
    fn shows_its_own(&self) -> Result<(), Failure> {
        let certificate = self.link.and_then(|link| link.certificate.as_ref());
        let service = self.ctx.caller().and_then(|caller| caller.service());
        match (certificate, service) {
            (Some(certificate), Some(name)) if !tls::is_of(certificate, name) => {
                Err(Failure::Certificate(name.to_owned()))
            }
            (Some(_) | None, Some(_) | None) => Ok(()),
        }
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

/// Whether an answer did not fail, as far as its head says.
fn is_ok(response: &Response<Body>) -> bool {
    let code = response.headers().get("grpc-status");
    code.is_none_or(|code| Code::from_bytes(code.as_bytes()) == Code::Ok)
}

fn trace(headers: &HeaderMap) -> Trace {
    let header = headers.get(&TRACEPARENT).and_then(|value| value.to_str().ok());
    header.and_then(Trace::parse).unwrap_or_default()
}

fn inbound(headers: &HeaderMap, link: Option<&Link>) -> Inbound {
    let criticality = text(headers, Criticality::HEADER).and_then(Criticality::parse);
    Inbound {
        attempt: marks::attempt(headers),
        criticality: criticality.unwrap_or_default(),
        draining: link.map(|link| link.leave.clone()).unwrap_or_default(),
    }
}

fn text<'h>(headers: &'h HeaderMap, name: &str) -> Option<&'h str> {
    headers.get(name)?.to_str().ok()
}

fn timeout(headers: &HeaderMap) -> Result<Option<Duration>, deadline::Malformed> {
    let Some(value) = headers.get(&deadline::TIMEOUT) else { return Ok(None) };
    let text = value.to_str().map_err(|_not_text| deadline::Malformed)?;
    deadline::decode(text).map(Some)
}

fn early(ends: Instant) -> Instant {
    ends.checked_sub(EARLY).unwrap_or(ends)
}
