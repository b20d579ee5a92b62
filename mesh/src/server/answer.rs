//! The answer on its way out: in the scope of its call, under its deadline, counted at its end.

use std::{
    panic::AssertUnwindSafe,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
};

use bytes::Bytes;
use http::{HeaderMap, Response};
use http_body::Frame;
use tokio::{sync::OwnedSemaphorePermit, time::Instant};
use tokio_util::sync::WaitForCancellationFutureOwned;
use tonic::{Code, Status, body::Body};

use super::methods::Method;
use crate::{
    clock,
    ctx::Ctx,
    deadline, marks,
    status::{self, Failure},
    telemetry::{self, Refusal},
};

/// The largest message that is sent, in bytes; tonic reads none that is larger.
const MESSAGE_MAX: usize = 4 << 20;
/// What stands before a message: whether it is compressed, and its length.
const MESSAGE_HEAD: usize = 5;

/// What is known of a call until its last frame. Dropped before that, the caller has gone:
/// the call counts as `CANCELLED`, and whatever it spawned is cancelled.
#[derive(Debug)]
pub(super) struct Watch {
    method: Arc<Method>,
    started: Instant,
    ctx: Ctx,
    recorded: bool,
    place: Option<Arc<OwnedSemaphorePermit>>,
}

pin_project_lite::pin_project! {
    /// The body of an answer. At the deadline it ends with the trailers of `DEADLINE_EXCEEDED`,
    /// and a stream with those of `DRAINING` when the process can wait no longer.
    pub(super) struct Answer {
        #[pin]
        inner: Body,
        #[pin]
        late: deadline::Timer,
        #[pin]
        cut: Option<WaitForCancellationFutureOwned>,
        watch: Option<Watch>,
    }
}

// === impl Watch ===

impl Watch {
    pub(super) fn new(method: Arc<Method>, started: Instant, ctx: Ctx) -> Self {
        telemetry::metrics().in_flight.inc();
        Self { method, started, ctx, recorded: false, place: None }
    }

    /// The answer whose head was made `now`, and which is over with it if it has a code.
    pub(super) fn response(
        mut self,
        mut response: Response<Body>,
        code: Option<Code>,
        (now, ends): (Instant, Instant),
    ) -> Response<Body> {
        self.place = response.extensions_mut().remove();
        marks::sign(&self.ctx, response.headers_mut(), code);
        let Some(code) = code else {
            return response.map(|body| Body::new(Answer::new(body, (now, ends), self)));
        };
        // Trailers-only: there is no body to watch.
        self.record(code, now);
        response
    }

    pub(super) fn failed(self, failure: &Failure) -> Response<Body> {
        let status = self.ctx.sync_scope(|| status::refused(failure));
        if let Some(why) = why(failure) {
            telemetry::metrics().shed.get_or_create(&Refusal { why }).inc();
        }
        let mut response = status.clone().into_http();
        marks::sign(&self.ctx, response.headers_mut(), Some(status.code()));
        self.record(status.code(), clock::instant());
        response
    }

    fn record(mut self, code: Code, now: Instant) {
        self.count(code, now);
    }

    fn count(&mut self, code: Code, now: Instant) {
        self.recorded = true;
        self.ctx.let_go();
        let took = now.saturating_duration_since(self.started);
        self.method.record(code, took);
        self.ctx.span().answered(code);
        telemetry::metrics().in_flight.dec();
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        if !self.recorded {
            self.count(Code::Cancelled, clock::instant());
        }
        self.ctx.cancel();
    }
}

// === impl Answer ===

impl Answer {
    fn new(inner: Body, (now, ends): (Instant, Instant), watch: Watch) -> Self {
        let cut = watch.method.streaming.then(|| watch.ctx.cut());
        // Its first frame is asked for at once.
        Self { inner, late: deadline::Timer::from(now, ends), cut, watch: Some(watch) }
    }
}

impl http_body::Body for Answer {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        let mut this = self.project();
        let Some(watch) = this.watch.as_ref() else { return Poll::Ready(None) };
        let Ok(now) = this.late.as_mut().look() else {
            return ends(this.watch, &Failure::Deadline);
        };
        let inner = this.inner;
        let polled = AssertUnwindSafe(|| watch.ctx.sync_scope(|| inner.poll_frame(cx)));
        let Ok(polled) = std::panic::catch_unwind(polled) else {
            let failure = Failure::Panic(watch.method.name.clone());
            return ends(this.watch, &failure);
        };
        let Poll::Ready(mut frame) = polled else {
            if this.late.as_mut().poll(cx).is_ready() {
                return ends(this.watch, &Failure::Deadline);
            }
            // The token of a stream that is being read is cancelled by the drain alone.
            let cut = this.cut.as_mut().as_pin_mut().is_some_and(|cut| cut.poll(cx).is_ready());
            return if cut { ends(this.watch, &Failure::Draining) } else { Poll::Pending };
        };
        let code = match &mut frame {
            Some(Ok(frame)) => {
                if let Some(size) = frame.data_ref().and_then(too_large) {
                    return ends(this.watch, &Failure::TooLarge(size));
                }
                frame.trailers_mut().and_then(|trailers| {
                    marks::strip(trailers);
                    let code = marks::code(trailers);
                    marks::sign(&watch.ctx, trailers, code);
                    code
                })
            }
            Some(Err(status)) => Some(status.code()),
            None => Some(Code::Unknown),
        };
        if let Some(code) = code
            && let Some(watch) = this.watch.take()
        {
            watch.record(code, now);
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.watch.is_none()
    }
}

/// Ends an answer with the trailers of a failure.
fn ends(
    watch: &mut Option<Watch>,
    failure: &Failure,
) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
    let Some(watch) = watch.take() else { return Poll::Ready(None) };
    let status = watch.ctx.sync_scope(|| status::of(failure));
    let mut trailers = HeaderMap::new();
    let added = status.add_header(&mut trailers);
    marks::sign(&watch.ctx, &mut trailers, Some(status.code()));
    watch.record(status.code(), clock::instant());
    Poll::Ready(Some(added.map(|()| Frame::trailers(trailers))))
}

/// The size of a message in these bytes that is larger than a message may be. tonic hands on
/// whole messages: only bytes that are more than that can hold one.
fn too_large(bytes: &Bytes) -> Option<usize> {
    if bytes.len() <= MESSAGE_MAX {
        return None;
    }
    let mut rest: &[u8] = bytes;
    while let Some((head, after)) = rest.split_at_checked(MESSAGE_HEAD) {
        let size = u32::from_be_bytes([head[1], head[2], head[3], head[4]]);
        let size = usize::try_from(size).unwrap_or(usize::MAX);
        if size > MESSAGE_MAX {
            return Some(size);
        }
        rest = after.get(size..)?;
    }
    None
}

/// What of a refusal is counted, and as what.
fn why(failure: &Failure) -> Option<&'static str> {
    match failure {
        Failure::Budget { .. } => Some("budget"),
        Failure::Shed(_) => Some("load"),
        Failure::Bulkhead(_) => Some("bulkhead"),
        Failure::Deadline
        | Failure::Timeout(_)
        | Failure::Full(_)
        | Failure::Throttled(_)
        | Failure::CircuitOpen { .. }
        | Failure::Down(_)
        | Failure::Broken(_)
        | Failure::Panic(_)
        | Failure::Duty(_)
        | Failure::Denied(_)
        | Failure::Token(_)
        | Failure::Draining
        | Failure::TooLarge(_)
        | Failure::Certificate(_)
        | Failure::UnknownService(_) => None,
    }
}
