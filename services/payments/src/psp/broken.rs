//! Answers that never come whole: what an HTTP server gives when it means to break off.

use std::{
    collections::VecDeque,
    pin::Pin,
    task::{Context, Poll},
};

use axum::response::Response;
use bytes::Bytes;
use hyper::body::Frame;

use super::store::Told;

/// An answer that never comes whole: what stands in it is sent, then the connection ends.
#[derive(Debug)]
pub(super) struct Broken(VecDeque<Step>);

#[derive(Debug)]
enum Step {
    Send(Bytes),
    /// Lets the connection write what it has.
    Pause,
}

/// Why an answer breaks off.
#[derive(Clone, Copy, Debug, thiserror::Error)]
#[error("the answer is broken off on purpose")]
pub(super) struct BrokenOff;

// === impl Broken ===

impl Broken {
    /// No answer at all: the connection ends before the head of one is written.
    pub(super) fn at_once() -> Response {
        Self::response(VecDeque::new())
    }

    /// An answer that breaks off in the middle.
    pub(super) fn half(told: &Told) -> Response {
        let text = told.answer.to_string();
        let half = text.get(..text.len() / 2).unwrap_or_default().to_owned();
        Self::response(VecDeque::from([Step::Send(half.into()), Step::Pause]))
    }

    fn response(steps: VecDeque<Step>) -> Response {
        Response::new(axum::body::Body::new(Self(steps)))
    }
}

impl hyper::body::Body for Broken {
    type Data = Bytes;
    type Error = BrokenOff;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BrokenOff>>> {
        match self.0.pop_front() {
            Some(Step::Send(bytes)) => Poll::Ready(Some(Ok(Frame::data(bytes)))),
            Some(Step::Pause) => {
                cx.waker().wake_by_ref();
                Poll::Pending
            }
            // The connection cannot go on after this, and what it has not written it drops.
            None => Poll::Ready(Some(Err(BrokenOff))),
        }
    }
}
