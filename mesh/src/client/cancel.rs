//! A call is given up by dropping its answer, also while its requests still come.
//!
//! hyper resets the stream of an answer that is dropped only once the requests have ended: a server
//! would wait for the next one until the deadline. So the requests end, as cancelled, with the answer.

use std::{
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    task::{Context, Poll, ready},
};

use bytes::Bytes;
use futures_util::task::AtomicWaker;
use http::{Request, Response};
use http_body::{Frame, SizeHint};
use tonic::{Status, body::Body};

/// Held by an answer; says so when it is dropped.
#[derive(Debug)]
pub(super) struct Held(Arc<Given>);

#[derive(Debug, Default)]
struct Given {
    up: AtomicBool,
    waker: AtomicWaker,
}

pin_project_lite::pin_project! {
    struct Requests {
        #[pin]
        inner: Body,
        given: Arc<Given>,
    }
}

pin_project_lite::pin_project! {
    struct Answer {
        #[pin]
        inner: Body,
        held: Held,
    }
}

/// Ties the requests of a call to what holds its answer.
pub(super) fn tie(request: Request<Body>) -> (Request<Body>, Held) {
    let given = Arc::new(Given::default());
    let held = Held(Arc::clone(&given));
    (request.map(|inner| Body::new(Requests { inner, given })), held)
}

// === impl Held ===

impl Held {
    /// Lets go when the answer is dropped.
    pub(super) fn by(self, answer: Response<Body>) -> Response<Body> {
        answer.map(|inner| Body::new(Answer { inner, held: self }))
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        self.0.up.store(true, Ordering::Release);
        self.0.waker.wake();
    }
}

// === impl Requests ===

impl http_body::Body for Requests {
    type Data = Bytes;
    type Error = Box<dyn std::error::Error + Send + Sync>;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
        let this = self.project();
        if let Poll::Ready(frame) = this.inner.poll_frame(cx) {
            return Poll::Ready(frame.map(|frame| frame.map_err(Into::into)));
        }
        // Listening before looking: what is dropped in between is not missed.
        this.given.waker.register(cx.waker());
        if this.given.up.load(Ordering::Acquire) {
            return Poll::Ready(Some(Err(h2::Error::from(h2::Reason::CANCEL).into())));
        }
        Poll::Pending
    }

    fn is_end_stream(&self) -> bool {
        self.inner.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.inner.size_hint()
    }
}

// === impl Answer ===

impl http_body::Body for Answer {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        Poll::Ready(ready!(self.project().inner.poll_frame(cx)))
    }

    fn is_end_stream(&self) -> bool {
        self.inner.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.inner.size_hint()
    }
}

#[cfg(test)]
mod tests {
    use std::error::Error;

    use futures_util::FutureExt as _;
    use http_body_util::{BodyExt as _, StreamBody};

    use super::*;

    /// Requests of which the first has come, and the second has not.
    fn waiting() -> Request<Body> {
        let first = futures_util::stream::iter([Ok::<_, Status>(Frame::data(Bytes::from("a")))]);
        let rest = futures_util::stream::pending();
        Request::new(Body::new(StreamBody::new(futures_util::StreamExt::chain(first, rest))))
    }

    #[tokio::test]
    async fn requests_end_as_cancelled_with_the_answer() {
        let (request, held) = tie(waiting());
        // One that goes on: with an answer that is over, so are the requests.
        let answer = held.by(Response::new(waiting().into_body()));
        let mut requests = request.into_body();
        assert!(requests.frame().await.expect("a frame").is_ok());
        assert!(requests.frame().now_or_never().is_none());
        let next = requests.frame();
        let dropped = async { drop(answer) };
        let (next, ()) = tokio::join!(next, dropped);
        let status = next.expect("an end").expect_err("cancelled");
        let reason = status.source().and_then(|it| it.downcast_ref::<h2::Error>());
        assert_eq!(reason.and_then(h2::Error::reason), Some(h2::Reason::CANCEL));
    }

    #[tokio::test]
    async fn requests_that_are_over_are_not_cancelled() {
        let (request, held) = tie(Request::new(Body::new(http_body_util::Full::from("a"))));
        drop(held);
        let sent = request.into_body().collect().await.expect("all of it");
        assert_eq!(sent.to_bytes(), "a");
    }
}
