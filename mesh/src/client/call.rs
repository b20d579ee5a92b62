//! One call, from the request that a generated client made to the head of the answer.
//!
//! What a call meets, from the outside in: its deadline, a place, attempts one after the other;
//! in each of them the throttle and the breaker, and then an instance. Plain code around state
//! machines: a local refusal at any step is the answer, unless something was sent before.

use std::{convert::Infallible, sync::Arc, time::Duration};

use http::{Request, Response};
use tokio::time::Instant;
use tonic::{Code, body::Body};

use super::{
    Limit, Long,
    attempt::{Attempt, Said},
    callee::{self, Callee, Method, Places},
    classify::End,
    endpoint::{SendError, Tried},
    http2::Incoming,
    kept::{self, Kept},
    outgoing::Outgoing,
    reply::Watch,
    retry::{self, Failed, Next, Pushback},
};
use crate::{
    clock,
    ctx::Ctx,
    deadline, marks,
    status::{self, Failure},
    telemetry::{self, Span},
};

/// A call that has its place.
pub(super) struct Call {
    pub(super) callee: Arc<Callee>,
    pub(super) method: Arc<Method>,
    pub(super) ctx: Ctx,
    /// When it has to be over.
    pub(super) ends: Instant,
    /// Its answer is a stream that may last.
    long: bool,
    /// Whether it may be repeated, by the contract and by what our own caller does.
    pub(super) repeatable: bool,
    /// With all of its attempts.
    pub(super) span: Span,
}

/// What came of an attempt.
#[expect(
    clippy::large_enum_variant,
    reason = "most are heads, and a box would be one more allocation in each call"
)]
pub(super) enum Came {
    /// The head of an answer, and when it came: the call is bound to it.
    Head(Response<Incoming>, Attempt, Instant),
    /// An end.
    Ended(Box<Ended>),
    /// It was not made.
    Refused(Failure),
}

/// An attempt that is over, with what its caller would be told.
pub(super) struct Ended {
    response: Response<Body>,
    code: Code,
    end: End,
    /// Whether a handler may have begun with it.
    begun: bool,
    pushback: Pushback,
    /// The request, where it came back.
    unsent: Option<Box<Request<Outgoing>>>,
}

/// Never fails: what goes wrong is a failing status, as if the callee had answered it.
#[expect(clippy::manual_async_fn, reason = "an `async fn` has room for what it is given twice")]
pub(super) fn call(
    callee: Arc<Callee>,
    mut request: Request<Body>,
) -> impl Future<Output = Result<Response<Body>, Infallible>> + Send {
    async move {
        let started = clock::instant();
        let method = callee.method(request.uri().path().trim_start_matches('/'));
        let ctx = request.extensions_mut().remove::<Ctx>().unwrap_or_else(Ctx::current_or_root);
        let limit = request.extensions_mut().remove::<Limit>();
        let long = request.extensions_mut().remove::<Long>().is_some();

        let mut left = deadline::for_child(ctx.deadline().saturating_duration_since(started));
        // A stream lasts as long as its call.
        let longest = method.policy.longest.filter(|_| method.facts.unary);
        for most in [limit.map(|limit| limit.0), longest].into_iter().flatten() {
            left = left.min(most);
        }
        let ends = started + left;
        let span = callee.spans().call(&ctx, &method.name, &callee.name);
        let watch = Watch {
            span: span.clone(),
            callee: Arc::clone(&callee),
            method: Arc::clone(&method),
            ctx: ctx.clone(),
            started,
            ends,
            over: false,
        };
        // What cannot be over in time is not begun: at the callee it would only cost.
        let least = method.latency.least(started).unwrap_or_default();
        if left.as_micros() == 0 || left < least {
            return Ok(watch.refused(&Failure::Deadline));
        }
        let (places, mut now) =
            match deadline::within_from(started, ends, callee.enter(&method)).await {
                Ok((Ok(places), now)) => (places, now),
                Ok((Err(_full), _now)) => {
                    return Ok(watch.refused(&Failure::Full(callee.name.to_string())));
                }
                Err(deadline::Late) => return Ok(watch.refused(&Failure::Deadline)),
            };
        let kept = if method.facts.unary && !long {
            let (head, mut body) = request.into_parts();
            match deadline::within_from(now, ends, kept::read(&mut body)).await {
                Ok((Ok(read), read_at)) => {
                    now = read_at;
                    Kept::new(Request::from_parts(head, ()), read, body)
                }
                Ok((Err(status), _now)) => {
                    let code = status.code();
                    return Ok(watch.ended(status.into_http(), code));
                }
                Err(deadline::Late) => return Ok(watch.refused(&Failure::Deadline)),
            }
        } else {
            Kept::once(request)
        };
        callee.budget.call(started);
        let repeatable = method.facts.unary && method.facts.idempotent && ctx.attempt() <= 1;
        let call = Call { callee, method, ctx, ends, long, repeatable, span };
        Ok(call.attempts(kept, watch, places, now).await)
    }
}

// === impl Call ===

impl Call {
    /// One attempt after the other, until one is the answer.
    #[expect(clippy::manual_async_fn, reason = "an `async fn` has room for what it is given twice")]
    fn attempts(
        self,
        mut kept: Kept,
        watch: Watch,
        places: Places,
        mut now: Instant,
    ) -> impl Future<Output = Response<Body>> + Send {
        async move {
            let mut tried = Tried::by(self.repeatable);
            let mut before: Option<Box<Ended>> = None;
            let (mut number, mut resent) = (1, 0);
            loop {
                let came = match self.hedge(number, &kept) {
                    Some(after) => {
                        let hedged = Box::pin(self.hedged(after, &mut kept, &mut tried)).await;
                        number = hedged.1;
                        hedged.0
                    }
                    None => {
                        let mut request = kept.request();
                        self.attempt(number, &mut request, &mut tried, now).await
                    }
                };
                let mut ended = match came {
                    Came::Head(response, attempt, now) => {
                        // A stream that lasts has its place on a connection, and needs none here.
                        let places = (!self.long).then_some(places);
                        return watch.response(response, attempt, places, now);
                    }
                    Came::Refused(failure) => match before {
                        Some(ended) => return self.over(*ended, number, watch),
                        None => return watch.refused(&failure),
                    },
                    Came::Ended(ended) => ended,
                };
                if let Some(unsent) = ended.unsent.take() {
                    kept.put_back(unsent);
                }
                let unsent = ended.end == End::Unsent;
                let next = self.next((number, resent), &ended, &kept);
                // What was sent before may have been carried out: that it was is not hidden.
                let ended = match before {
                    Some(before) if before.begun && !ended.begun => before,
                    _ => ended,
                };
                let Next::Attempt(wait) = next else {
                    return self.over(*ended, number, watch);
                };
                if unsent {
                    // What was not begun costs nobody anything, and was no attempt.
                    resent += 1;
                    callee::count(&telemetry::metrics().resent, &self.callee.name);
                } else {
                    if !self.callee.spend() {
                        // Nor should anybody above pay for it: budgets would add up from hop to hop.
                        self.ctx.note_retried();
                        return self.over(*ended, number, watch);
                    }
                    number += 1;
                    callee::count(&telemetry::metrics().retries, &self.callee.name);
                }
                self.span.retried(number, telemetry::code(ended.code));
                tokio::time::sleep(wait).await;
                before = Some(ended);
                now = clock::instant();
            }
        }
    }

    /// One attempt from `now`, with a request that is taken when it is sent: each future on the way
    /// would otherwise have room for it twice.
    pub(super) async fn attempt(
        &self,
        number: u32,
        request: &mut Option<Request<Outgoing>>,
        tried: &mut Tried,
        now: Instant,
    ) -> Came {
        let had = self.time(number, now);
        let Some(head) = request.as_mut().filter(|_| had.as_micros() > 0) else {
            return Came::Refused(Failure::Deadline);
        };
        let headers = head.headers_mut();
        let ends = now + had;
        let mut attempt = match Attempt::begin(&self.callee, &self.method, had, now) {
            Ok(attempt) => attempt,
            Err(failure) => return Came::Refused(failure),
        };
        attempt.span = self.span.attempt(self.callee.spans(), &self.method.name, number);
        self.say(headers, number, &attempt.span);
        self.identify(headers);
        let endpoints = &self.callee.endpoints;
        let sent = if self.long {
            let stream = Box::pin(endpoints.stream(request, (now, ends), tried));
            deadline::within_from(now, ends, stream).await
        } else {
            deadline::within_from(now, ends, endpoints.send(request, (now, ends), tried)).await
        };
        match sent {
            Ok((Ok((response, pick)), now)) => {
                attempt.went(pick);
                match marks::code(response.headers()) {
                    None => Came::Head(response, attempt, now),
                    // Trailers-only: the status stands in the head.
                    Some(code) => Came::Ended(self.answered(response, code, attempt, now)),
                }
            }
            Ok((Err(error), now)) => self.not_sent(error, attempt, now),
            // It waited, for an instance or for a place on the connection to one.
            Err(deadline::Late) if tried.address().is_none() || request.is_some() => {
                attempt.span.judged(Some(telemetry::code(Code::DeadlineExceeded)));
                Came::Refused(Failure::Deadline)
            }
            Err(deadline::Late) => {
                let now = clock::instant();
                let end = attempt.late(now);
                attempt.end_without_answer(end, tried, now);
                Came::Ended(Self::failed(&Failure::Deadline, end))
            }
        }
    }

    fn answered(
        &self,
        mut response: Response<Incoming>,
        code: Code,
        mut attempt: Attempt,
        now: Instant,
    ) -> Box<Ended> {
        let headers = response.headers_mut();
        let (end, said) = (attempt.end_of(code, headers, now), Said::of(code, headers));
        attempt.end(end, said, now);
        if matches!(end, End::Late { .. }) && code != Code::DeadlineExceeded {
            // Some libraries say `CANCELLED` of a deadline; ours do not pass that on.
            return Self::failed(&Failure::Deadline, end);
        }
        let (begun, pushback) = (!response.headers().contains_key(marks::REFUSED), said.pushback);
        let response = response.map(Body::new);
        Box::new(Ended { response, code, end, begun, pushback, unsent: None })
    }

    fn not_sent(&self, error: SendError, mut attempt: Attempt, now: Instant) -> Came {
        let callee = &*self.callee.name;
        let failure = error.failure(callee);
        attempt.span.judged(Some(telemetry::code(Code::Unavailable)));
        match error {
            SendError::Down => Came::Refused(failure),
            SendError::Unsent(unsent) => {
                let ended = Self::failed(&failure, End::Unsent);
                Came::Ended(Box::new(Ended { unsent: Some(unsent), ..*ended }))
            }
            SendError::Refused => Came::Ended(Self::failed(&failure, End::Unsent)),
            SendError::Broken { pick, error } => {
                let (instance, address) = (pick.id(), pick.address());
                tracing::debug!(callee, instance, %address, %error, "an attempt broke off");
                attempt.went(pick);
                attempt.end(End::Broken, Said::NOTHING, now);
                Came::Ended(Self::failed(&failure, End::Broken))
            }
        }
    }

    /// What a caller is told of an attempt that had no answer.
    fn failed(failure: &Failure, end: End) -> Box<Ended> {
        let status = if end == End::Unsent { status::local(failure) } else { status::of(failure) };
        let (code, response) = (status.code(), status.into_http());
        let (begun, pushback) = (end != End::Unsent, Pushback::Silent);
        Box::new(Ended { response, code, end, begun, pushback, unsent: None })
    }

    /// What follows an attempt that ended, of a call that went on so often before because nobody
    /// had begun with it.
    fn next(&self, (attempt, resent): (u32, u32), ended: &Ended, kept: &Kept) -> Next {
        let now = clock::instant();
        let failed = Failed {
            attempt,
            resent,
            instances: self.callee.endpoints.count(),
            inherited: self.ctx.attempt(),
            again: ended.end.outcome().again,
            idempotent: self.method.facts.idempotent,
            aborted: self.method.policy.retry_aborted,
            replayable: kept.is_there(),
            pushback: ended.pushback,
            left: self.ends.saturating_duration_since(now),
            expected: self.method.latency.expected(now),
        };
        retry::decide(failed, &self.method.policy.backoff, fastrand::f64())
    }

    /// The answer of the call.
    fn over(&self, mut ended: Ended, number: u32, watch: Watch) -> Response<Body> {
        if number > 1 && ended.code != Code::Ok {
            // It was tried again here; nobody above should try once more.
            self.ctx.note_retried();
        }
        let local = ended.end == End::Unsent;
        if !local {
            watch.take_in(ended.response.headers_mut());
        }
        watch.ended(ended.response, ended.code)
    }

    /// What an attempt may take: all that is left, unless there could be another one after it.
    fn time(&self, number: u32, now: Instant) -> Duration {
        let policy = &self.method.policy;
        let left = self.ends.saturating_duration_since(now);
        let timeout = policy.timeout.filter(|_| self.method.facts.unary);
        let most = timeout.map_or(left, |timeout| timeout.min(left));
        let after = policy.backoff.retries.saturating_sub(number - 1);
        if !self.repeatable || after == 0 {
            return most;
        }
        let expected = self.method.latency.expected(now);
        most.min((expected * 4).max(left / after.saturating_add(1)))
    }
}

// === impl Came ===

impl Came {
    /// Whether the call need not look for another answer.
    pub(super) fn is_answer(&self) -> bool {
        match self {
            Self::Head(..) => true,
            Self::Ended(ended) => !ended.end.outcome().fallback,
            Self::Refused(_) => false,
        }
    }

    /// Whether it was an attempt: one that nobody has begun with was none.
    pub(super) fn was_made(&self) -> bool {
        match self {
            Self::Head(..) => true,
            Self::Ended(ended) => ended.end != End::Unsent,
            Self::Refused(_) => false,
        }
    }

    /// Of two that are no answers, the one that says that the call may have been carried out.
    pub(super) fn or(self, later: Self) -> Self {
        match &self {
            Self::Ended(ended) if ended.begun && !later.is_answer() => self,
            Self::Head(..) | Self::Ended(_) | Self::Refused(_) => later,
        }
    }
}
