//! The answer on its way out: in the scope of its call, under its deadline, counted at its end.

use std::{
    pin::Pin,
    task::{Context, Poll},
};

use bytes::Bytes;
use http::HeaderMap;
use http_body::Frame;
use tokio::time::{Instant, Sleep};
use tokio_util::sync::DropGuard;
use tonic::{Code, Status, body::Body};

use crate::{
    clock,
    ctx::Ctx,
    marks,
    status::{self, Failure},
    telemetry::{self, Call, names},
};

/// What is known of a call until its last frame. Dropped before that, the caller has gone:
/// the call counts as `CANCELLED`, and whatever it spawned is cancelled.
#[derive(Debug)]
pub(super) struct Watch {
    path: String,
    started: Instant,
    ctx: Ctx,
    recorded: bool,
    _cancels: DropGuard,
}

pin_project_lite::pin_project! {
    /// The body of an answer. At the deadline it ends with the trailers of `DEADLINE_EXCEEDED`.
    pub(super) struct Answer {
        #[pin]
        inner: Body,
        #[pin]
        late: Sleep,
        watch: Option<Watch>,
    }
}

// === impl Watch ===

impl Watch {
    pub(super) fn new(path: &str, started: Instant, ctx: Ctx, cancels: DropGuard) -> Self {
        telemetry::metrics().in_flight.inc();
        Self { path: path.to_owned(), started, ctx, recorded: false, _cancels: cancels }
    }

    pub(super) fn ctx(&self) -> Ctx {
        self.ctx.clone()
    }

    pub(super) fn record(mut self, code: Code) {
        self.count(code);
    }

    fn count(&mut self, code: Code) {
        self.recorded = true;
        let took = clock::instant().saturating_duration_since(self.started);
        let rpc_method = if code == Code::Unimplemented {
            // Whatever a client makes up must not make a series of its own.
            names::OTHER.to_owned()
        } else {
            self.path.trim_start_matches('/').to_owned()
        };
        let labels = Call { rpc_method, rpc_response_status_code: telemetry::code(code) };
        let metrics = telemetry::metrics();
        metrics.server_calls.get_or_create(&labels).observe(took.as_secs_f64());
        metrics.in_flight.dec();
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        if !self.recorded {
            self.count(Code::Cancelled);
        }
    }
}

// === impl Answer ===

impl Answer {
    pub(super) fn new(inner: Body, ends: Instant, watch: Watch) -> Self {
        Self { inner, late: tokio::time::sleep_until(ends), watch: Some(watch) }
    }
}

impl http_body::Body for Answer {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        let this = self.project();
        let Some(watch) = this.watch.as_ref() else { return Poll::Ready(None) };
        let ctx = watch.ctx();
        if this.late.poll(cx).is_ready() {
            let status = ctx.sync_scope(|| status::of(&Failure::Deadline));
            if let Some(watch) = this.watch.take() {
                watch.record(status.code());
            }
            let mut trailers = HeaderMap::new();
            return Poll::Ready(Some(status.add_header(&mut trailers).map(|()| {
                marks::sign(&ctx, &mut trailers);
                Frame::trailers(trailers)
            })));
        }
        let mut frame = std::task::ready!(ctx.sync_scope(|| this.inner.poll_frame(cx)));
        if let Some(Ok(frame)) = &mut frame
            && let Some(trailers) = frame.trailers_mut()
        {
            marks::strip(trailers);
            marks::sign(&ctx, trailers);
        }
        let code = match &frame {
            Some(Ok(frame)) => frame
                .trailers_ref()
                .and_then(|trailers| trailers.get("grpc-status"))
                .map(|code| Code::from_bytes(code.as_bytes())),
            Some(Err(status)) => Some(status.code()),
            None => Some(Code::Unknown),
        };
        if let Some(code) = code
            && let Some(watch) = this.watch.take()
        {
            watch.record(code);
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.watch.is_none()
    }
}
