//! The answer of a callee on its way to the caller: under the call's deadline to its last frame,
//! where the attempt is judged and the call's places are given back.

use std::{
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
};

use bytes::Bytes;
use http::{HeaderMap, Response};
use http_body::Frame;
use tokio::time::Instant;
use tonic::{Code, Status, body::Body};

use super::{
    attempt::{Attempt, Said},
    callee::{Callee, Method, Places},
    classify::End,
    http2::Incoming,
    retry::Pushback,
};
use crate::{
    clock,
    ctx::Ctx,
    deadline, marks,
    status::{self, Failure},
    telemetry::{self, Call, Refused, Span},
};

/// What is known of a call until its last frame.
#[derive(Debug)]
pub(super) struct Watch {
    pub(super) span: Span,
    pub(super) callee: Arc<Callee>,
    pub(super) method: Arc<Method>,
    pub(super) ctx: Ctx,
    pub(super) started: Instant,
    pub(super) ends: Instant,
    /// Whether its end was recorded.
    pub(super) over: bool,
}

pin_project_lite::pin_project! {
    /// The body of an answer. Ends with `DEADLINE_EXCEEDED` at the deadline, with
    /// `UNAVAILABLE` if the connection breaks; dropping it resets the stream.
    struct Reply {
        #[pin]
        inner: Incoming,
        #[pin]
        late: deadline::Timer,
        watch: Option<Watch>,
        attempt: Attempt,
        places: Option<Places>,
    }
}

// === impl Watch ===

impl Watch {
    /// The answer whose head has come just `now`.
    pub(super) fn response(
        self,
        mut response: Response<Incoming>,
        attempt: Attempt,
        places: Option<Places>,
        now: Instant,
    ) -> Response<Body> {
        self.take_in(response.headers_mut());
        let ends = self.ends;
        // An answer that is one message is read at once.
        let unary = self.method.facts.unary;
        response.map(|inner| {
            let late =
                if unary { deadline::Timer::from(now, ends) } else { deadline::Timer::new(ends) };
            Body::new(Reply { inner, late, watch: Some(self), attempt, places })
        })
    }

    /// The answer that is over with its head.
    pub(super) fn ended(mut self, mut response: Response<Body>, code: Code) -> Response<Body> {
        if code != Code::Ok {
            marks::from(response.headers_mut(), &self.callee.name);
        }
        self.record(code, clock::instant());
        response
    }

    /// The answer to a call that was not sent.
    pub(super) fn refused(self, failure: &Failure) -> Response<Body> {
        use status::Explain as _;
        let labels = Refused {
            dependency: self.callee.name.to_string(),
            reason: failure.explain().reason(),
        };
        telemetry::metrics().refused.get_or_create(&labels).inc();
        self.span.refused(labels.reason);
        let status = status::local(failure);
        let code = status.code();
        self.ended(status.into_http(), code)
    }

    /// Takes in what the callee says beside its answer, and leaves what concerns the caller.
    pub(super) fn take_in(&self, headers: &mut HeaderMap) {
        if !marks::are_in(headers) {
            return;
        }
        marks::inherit(&self.ctx, headers);
        if Pushback::of(headers) == Pushback::Stop {
            self.ctx.note_retried();
        }
        // What only this process may say about its own calls is not believed of others.
        for mark in [marks::LOCAL, marks::DEPENDENCY, marks::PUSHBACK] {
            headers.remove(mark);
        }
    }

    fn record(&mut self, code: Code, now: Instant) {
        self.span.answered(code);
        self.measure(code, now);
    }

    fn measure(&mut self, code: Code, now: Instant) {
        self.over = true;
        let took = now.saturating_duration_since(self.started).as_secs_f64();
        if code == Code::Ok {
            self.method.answered.observe(took);
            return;
        }
        let labels = Call {
            rpc_method: self.method.name.to_string(),
            rpc_response_status_code: telemetry::code(code),
        };
        telemetry::metrics().client_calls.get_or_create(&labels).observe(took);
    }
}

impl Drop for Watch {
    /// Whoever called has gone. Its span says so by itself.
    fn drop(&mut self) {
        if !self.over {
            self.measure(Code::Cancelled, clock::instant());
        }
    }
}

// === impl Reply ===

impl http_body::Body for Reply {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        let this = self.project();
        let Some(watch) = this.watch.as_mut() else { return Poll::Ready(None) };
        let inner = this.inner;
        let polled = deadline::poll_within(this.late, cx, |cx| inner.poll_frame(cx));
        let (failure, end) = match std::task::ready!(polled) {
            Err(deadline::Late) => (Failure::Deadline, this.attempt.late(clock::instant())),
            Ok((Some(Ok(mut frame)), now)) => {
                let Some(trailers) = frame.trailers_mut() else {
                    this.attempt.heard();
                    return Poll::Ready(Some(Ok(frame)));
                };
                let code = marks::code(trailers).unwrap_or(Code::Unknown);
                let end = this.attempt.end_of(code, trailers, now);
                this.attempt.end(end, Said::of(code, trailers), now);
                watch.take_in(trailers);
                if code != Code::Ok {
                    marks::from(trailers, &watch.callee.name);
                }
                watch.record(code, now);
                (*this.watch, *this.places) = (None, None);
                return Poll::Ready(Some(Ok(frame)));
            }
            // An answer that ends without a status was cut off.
            Ok((Some(Err(_)) | None, _now)) => {
                (Failure::Broken(watch.callee.name.to_string()), End::Broken)
            }
        };
        let now = clock::instant();
        this.attempt.end(end, Said::NOTHING, now);
        let mut status = status::of(&failure);
        status::from(&mut status, &watch.callee.name);
        watch.record(status.code(), now);
        (*this.watch, *this.places) = (None, None);
        Poll::Ready(Some(Err(status)))
    }

    fn is_end_stream(&self) -> bool {
        self.watch.is_none()
    }
}
