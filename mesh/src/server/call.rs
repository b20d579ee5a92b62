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
use http::{HeaderMap, HeaderValue, Request, Response};
use hyper::body::Incoming;
use tokio::time::Instant;
use tokio_util::task::TaskTracker;
use tonic::{Code, body::Body, service::Routes};
use tower::Service;

use super::{
    answer::Watch,
    limit::{Limiter, Permit, Shed},
    link::{Arrived, Link},
    median::Took,
    methods::{Method, Methods},
};
use crate::{
    auth::Auth,
    busy, clock,
    ctx::{Criticality, Ctx, Inbound, TRACEPARENT_NAME, Trace},
    deadline, failpoint, marks,
    status::Failure,
    telemetry::Spans,
    tls,
};

#[cfg(feature = "testing")]
pub(crate) mod layers;

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

/// What a call brings beside its request: found in one pass, for there are few headers and all of
/// these are looked for in each call.
#[derive(Clone, Copy, Debug, Default)]
struct Brought<'h> {
    timeout: Option<&'h HeaderValue>,
    trace: Option<&'h HeaderValue>,
    criticality: Option<&'h HeaderValue>,
    attempts: Option<&'h HeaderValue>,
}

/// A call that is being served.
struct Served<'c> {
    method: &'c Method,
    ctx: &'c Ctx,
    link: Option<&'c Link>,
}

/// The answer of a handler.
struct Handled {
    response: Response<Body>,
    /// Of an answer that is over with its head.
    code: Option<Code>,
    /// When its head was there.
    done: Instant,
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

    /// What goes wrong is a failing status.
    #[expect(clippy::manual_async_fn, reason = "an `async fn` has room for what it is given twice")]
    fn call(
        self,
        mut request: Request<Body>,
    ) -> impl Future<Output = Result<Response<Body>, Infallible>> + Send {
        async move {
            let arrived = request.extensions_mut().remove::<Arrived>();
            let started = arrived.as_ref().map_or_else(clock::instant, |arrived| arrived.at);
            let link = arrived.map(|arrived| arrived.over);
            let method = Arc::clone(self.0.methods.at(request.uri().path()));
            let brought = Brought::by(request.headers());
            let timeout = brought.timeout();
            let asked = timeout.unwrap_or(None).unwrap_or(Duration::MAX);
            // It is the deadline of the handler too: whom it asks would otherwise have as long as
            // it has itself, and leave it no time to say so, or to do without them.
            let ends = early(started + asked.min(method.longest));
            let cancelled = match &link {
                // The drain ends streams by it.
                Some(link) if method.streaming => Some(link.streams.child_token()),
                Some(_) | None => None,
            };
            let inbound = brought.inbound(link.as_deref());
            let inbound = self.0.believed(inbound, link.as_deref(), request.headers());
            let tracker = self.0.tracker.clone();
            let ctx = Ctx::served(ends, brought.trace(), tracker, cancelled, inbound);
            let ctx = self.0.recorded(ctx, &method);
            let watch = Watch::new(Arc::clone(&method), started, ctx.clone());

            let answer = match timeout {
                Err(malformed) => Err(Failure::from(malformed)),
                Ok(_) => {
                    let link = link.as_deref();
                    let served = Served { method: &method, ctx: &ctx, link };
                    self.serve(&served, &mut request).await
                }
            };
            Ok(match answer {
                Ok(Handled { response, code, done }) => {
                    watch.response(response, code, (done, ends))
                }
                Err(failure) => watch.failed(&failure),
            })
        }
    }

    /// From the outside in: time enough, a place, the handler and what stands before it.
    ///
    /// The request is taken by the handler: each future on the way would otherwise have room for it.
    async fn serve(
        &self,
        call: &Served<'_>,
        request: &mut Request<Body>,
    ) -> Result<Handled, Failure> {
        let method = call.method;
        // It may have come a while ago: its task had to wait for its turn.
        let now = clock::instant();
        // Expired work must not take a place from work that has a chance.
        let left = call.ctx.deadline().saturating_duration_since(now);
        let chance = method.admits(now, left).map_err(|needs| {
            let (left_ms, needs_ms) = (left.as_millis(), needs.as_millis());
            Failure::Budget { method: method.name.clone(), left_ms, needs_ms }
        })?;
        let place = self.place(call, now).await?;
        let begun = place.as_ref().map_or(now, Permit::begun);
        call.ctx.hold(place);
        // So may one that was given a place.
        let now = if begun == now { now } else { clock::instant() };
        let answer = self.handle(call, now, request).await;
        let done = clock::instant();
        // What it waited for has a little less time than the call, and says so before our timer.
        let over = matches!(answer, Err(Failure::Deadline));
        let said = answer.as_ref().ok().map(|(_, code)| code.unwrap_or(Code::Ok));
        let late = over || said == Some(Code::DeadlineExceeded);
        let tells = !method.streaming && call.ctx.only_worked();
        if tells && (late || said == Some(Code::Ok)) {
            let took = done.saturating_duration_since(begun);
            let took = if late { Took::Late(took) } else { Took::Done(took) };
            method.took(done, took, chance);
            if over || !late {
                call.ctx.sample(done);
            }
        }
        let (response, code) = answer?;
        Ok(Handled { response, code, done })
    }

    async fn place(&self, call: &Served<'_>, now: Instant) -> Result<Option<Permit>, Failure> {
        let limiter = &self.0.limiter;
        let permit = match call.method {
            method if method.exempt => return Ok(None),
            method if method.streaming => limiter.stream(now),
            _ => limiter.call(call.ctx.criticality(), now, call.ctx.deadline()).await,
        };
        match permit {
            Ok(permit) => Ok(Some(permit)),
            Err(Shed { pushback }) => Err(Failure::Shed(pushback)),
        }
    }

    /// The head of the answer, and the code that is in it: what comes behind it has its own.
    async fn handle(
        &self,
        call: &Served<'_>,
        now: Instant,
        request: &mut Request<Body>,
    ) -> Result<(Response<Body>, Option<Code>), Failure> {
        let Served { method, ctx, .. } = *call;
        let handled = ctx.scope(async {
            self.0.auth.admit(ctx, request.uri().path(), request.headers()).await?;
            call.shows_its_own()?;
            call.hears_of(request.headers());
            let bulkhead = method.bulkhead.clone().map(|places| places.try_acquire_owned());
            let Ok(place) = bulkhead.transpose() else {
                return Err(Failure::Bulkhead(method.name.clone()));
            };
            // Routes are always ready.
            let routed = self.0.routes.clone().call(std::mem::take(request));
            let Ok(response) = routed.await;
            Ok((response, place))
        });
        let handled = AssertUnwindSafe(handled).catch_unwind();
        let handled = deadline::within_from(now, call.ctx.deadline(), handled);
        let mut handled = std::pin::pin!(handled);
        let handled = match call.link {
            Some(link) if method.streaming => tokio::select! {
                biased;
                () = link.streams.cancelled() => return Err(Failure::Draining),
                handled = handled.as_mut() => handled,
            },
            Some(_) | None => handled.await,
        };
        let (mut response, place) = match handled {
            Err(deadline::Late) => return Err(Failure::Deadline),
            Ok((Err(_panic), _now)) => return Err(Failure::Panic(method.name.clone())),
            Ok((Ok(answer), _now)) => answer?,
        };
        // What a child call said of itself is not said of this one.
        marks::strip(response.headers_mut());
        if let Some(place) = place {
            response.extensions_mut().insert(Arc::new(place));
        }
        let code = marks::code(response.headers());
        if code.is_none_or(|code| code == Code::Ok) {
            if ctx.owes_duty() {
                return Err(Failure::Duty(method.name.clone()));
            }
            if method.mutation {
                failpoint::hit("after_commit_before_answer");
            }
        }
        Ok((response, code))
    }
}

// === impl Brought ===

impl<'h> Brought<'h> {
    fn by(headers: &'h HeaderMap) -> Self {
        let mut brought = Self::default();
        for (name, value) in headers {
            let place = match name.as_str() {
                deadline::TIMEOUT_NAME => &mut brought.timeout,
                TRACEPARENT_NAME => &mut brought.trace,
                Criticality::HEADER => &mut brought.criticality,
                marks::ATTEMPTS => &mut brought.attempts,
                _ => continue,
            };
            // Of several the first counts.
            place.get_or_insert(value);
        }
        brought
    }

    fn timeout(self) -> Result<Option<Duration>, deadline::Malformed> {
        let Some(value) = self.timeout else { return Ok(None) };
        let text = value.to_str().map_err(|_not_text| deadline::Malformed)?;
        deadline::decode(text).map(Some)
    }

    fn trace(self) -> Trace {
        text(self.trace).and_then(Trace::parse).unwrap_or_default()
    }

    fn inbound(self, link: Option<&Link>) -> Inbound {
        Inbound {
            attempt: marks::attempt(text(self.attempts)),
            criticality: text(self.criticality).and_then(Criticality::parse).unwrap_or_default(),
            draining: link.map(|link| link.leave.clone()).unwrap_or_default(),
        }
    }
}

// === impl Inner ===

impl Inner {
    /// What a call says of itself, as far as that is believed before it is known whose it is: the
    /// limiter, which has to know, comes before tokens are verified. That it is critical is believed
    /// of who has shown a certificate, and of a service whose token was verified in an earlier call.
    fn believed(&self, says: Inbound, link: Option<&Link>, headers: &HeaderMap) -> Inbound {
        let shown = |link: &Link| link.certificate.is_some();
        let plain = says.criticality != Criticality::Critical;
        if plain || link.is_some_and(shown) || self.auth.is_known_service(headers) {
            return says;
        }
        Inbound { criticality: Criticality::Normal, ..says }
    }

    /// The context of a call with its span, if it has one. Health and reflection have none.
    fn recorded(&self, ctx: Ctx, method: &Method) -> Ctx {
        if method.exempt || !self.spans.are_recorded() {
            return ctx;
        }
        let span = self.spans.served(ctx.trace(), &method.name);
        ctx.recorded(&self.spans, span)
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

    /// What all of this is about is believed of a service that was let in, and of nobody else: it
    /// stands in the spans of whoever is called from here on.
    fn hears_of(&self, headers: &HeaderMap) {
        if self.ctx.span().is_recorded()
            && self.ctx.caller().is_some_and(|caller| caller.service().is_some())
            && let Some(order) = marks::order(headers)
        {
            self.ctx.about(order);
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
        // One future and no block around it: that would hold the request twice.
        Box::pin(busy::working(self.clone().call(request.map(Body::new))))
    }
}

fn text(value: Option<&HeaderValue>) -> Option<&str> {
    value?.to_str().ok()
}

fn early(ends: Instant) -> Instant {
    ends.checked_sub(EARLY).unwrap_or(ends)
}
