//! The answer of a callee on its way to the caller: under the call's deadline to its last frame.

use std::{
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
};

use bytes::Bytes;
use http::{HeaderMap, Response};
use http_body::Frame;
use hyper::body::Incoming;
use tokio::time::{Instant, Sleep};
use tonic::{Code, Status, body::Body};

use super::long::Lane;
use crate::{
    clock,
    status::{self, Failure},
    telemetry::{self, Call},
};

/// What is known of a call until its last frame.
#[derive(Debug)]
pub(super) struct Watch {
    pub(super) method: String,
    pub(super) callee: String,
    pub(super) started: Instant,
    pub(super) ends: Instant,
}

pin_project_lite::pin_project! {
    /// The body of an answer. Ends with `DEADLINE_EXCEEDED` at the deadline, with
    /// `UNAVAILABLE` if the connection breaks; dropping it resets the stream.
    struct Reply {
        #[pin]
        inner: Incoming,
        #[pin]
        late: Sleep,
        watch: Option<Watch>,
        // The place on a connection of long streams.
        lane: Option<Arc<Lane>>,
    }
}

// === impl Watch ===

impl Watch {
    pub(super) fn response(
        self,
        mut response: Response<Incoming>,
        lane: Option<Arc<Lane>>,
    ) -> Response<Body> {
        // What only this process may say about its own calls is not believed of others.
        response.headers_mut().remove(status::LOCAL);
        // Trailers-only: the status stands in the head.
        if let Some(code) = code(response.headers()) {
            self.record(code);
            return response.map(Body::new);
        }
        let ends = self.ends;
        response.map(|inner| {
            let late = tokio::time::sleep_until(ends);
            Body::new(Reply { inner, late, watch: Some(self), lane })
        })
    }

    pub(super) fn record(self, code: Code) {
        let labels =
            Call { rpc_method: self.method, rpc_response_status_code: telemetry::code(code) };
        let took = clock::instant().saturating_duration_since(self.started);
        telemetry::metrics().client_calls.get_or_create(&labels).observe(took.as_secs_f64());
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
        let Some(watch) = this.watch.as_ref() else { return Poll::Ready(None) };
        let failure = if this.late.poll(cx).is_ready() {
            Failure::Deadline
        } else {
            match std::task::ready!(this.inner.poll_frame(cx)) {
                Some(Ok(mut frame)) => {
                    if let Some(trailers) = frame.trailers_mut() {
                        trailers.remove(status::LOCAL);
                    }
                    if let Some(code) = frame.trailers_ref().and_then(code)
                        && let Some(watch) = this.watch.take()
                    {
                        watch.record(code);
                    }
                    return Poll::Ready(Some(Ok(frame)));
                }
                // An answer that ends without a status was cut off.
                Some(Err(_)) | None => Failure::Broken(watch.callee.clone()),
            }
        };
        let status = status::of(&failure);
        if let Some(watch) = this.watch.take() {
            watch.record(status.code());
        }
        Poll::Ready(Some(Err(status)))
    }

    fn is_end_stream(&self) -> bool {
        self.watch.is_none()
    }
}

fn code(headers: &HeaderMap) -> Option<Code> {
    headers.get("grpc-status").map(|value| Code::from_bytes(value.as_bytes()))
}
