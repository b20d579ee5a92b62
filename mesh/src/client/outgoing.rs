//! What goes out of a request behind its head.

use std::{
    pin::Pin,
    task::{Context, Poll},
};

use bytes::Bytes;
use http_body::Frame;
use tonic::{Status, body::Body};

/// The body of a request on a connection. How long it is stays unsaid: messages say that themselves.
///
/// Its end goes with its last frame wherever that is known by then, as it is of every unary call: a
/// frame of its own for it would be one more to write and to read.
#[derive(Debug)]
pub(super) enum Outgoing {
    /// All of it, until it is taken.
    Whole(Bytes),
    /// As it comes.
    Streamed(Streamed),
}

/// A body of which one frame more is known than was taken.
#[derive(Debug)]
pub(super) struct Streamed {
    body: Body,
    next: Option<Result<Frame<Bytes>, Status>>,
    ended: bool,
}

// === impl Outgoing ===

impl Outgoing {
    pub(super) fn streamed(body: Body) -> Self {
        Self::Streamed(Streamed { body, next: None, ended: false })
    }
}

impl http_body::Body for Outgoing {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        match self.get_mut() {
            Self::Whole(bytes) if bytes.is_empty() => Poll::Ready(None),
            Self::Whole(bytes) => Poll::Ready(Some(Ok(Frame::data(std::mem::take(bytes))))),
            Self::Streamed(body) => body.poll_frame(cx),
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Whole(bytes) => bytes.is_empty(),
            Self::Streamed(body) => body.next.is_none() && (body.ended || is_over(&body.body)),
        }
    }
}

// === impl Streamed ===

impl Streamed {
    fn poll_frame(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        let frame = match self.next.take() {
            Some(frame) => frame,
            None => match std::task::ready!(self.poll_body(cx)) {
                Some(frame) => frame,
                None => return Poll::Ready(None),
            },
        };
        if frame.is_ok()
            && let Poll::Ready(next) = self.poll_body(cx)
        {
            self.next = next;
        }
        Poll::Ready(Some(frame))
    }

    fn poll_body(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        if self.ended {
            return Poll::Ready(None);
        }
        let frame = std::task::ready!(http_body::Body::poll_frame(Pin::new(&mut self.body), cx));
        self.ended = frame.is_none();
        Poll::Ready(frame)
    }
}

fn is_over(body: &Body) -> bool {
    http_body::Body::is_end_stream(body)
}

#[cfg(test)]
mod tests {
    use futures_util::{FutureExt as _, StreamExt as _, stream};
    use http_body_util::{BodyExt as _, StreamBody};

    use super::*;

    type Frames = Result<Frame<Bytes>, Status>;

    fn data(text: &'static str) -> Frames {
        Ok(Frame::data(Bytes::from_static(text.as_bytes())))
    }

    fn streamed(frames: impl futures_util::Stream<Item = Frames> + Send + 'static) -> Outgoing {
        Outgoing::streamed(Body::new(StreamBody::new(frames)))
    }

    /// Every frame, and whether the end was known with it.
    async fn sent(mut outgoing: Outgoing) -> Vec<(String, bool)> {
        let mut sent = Vec::new();
        while let Some(frame) = outgoing.frame().await {
            let text = match frame {
                Ok(frame) => {
                    String::from_utf8_lossy(&frame.into_data().expect("data")).into_owned()
                }
                Err(status) => status.message().to_owned(),
            };
            sent.push((text, http_body::Body::is_end_stream(&outgoing)));
        }
        sent
    }

    fn frames(expected: &[(&str, bool)]) -> Vec<(String, bool)> {
        expected.iter().map(|(text, last)| ((*text).to_owned(), *last)).collect()
    }

    #[tokio::test]
    async fn the_end_goes_with_the_last_frame() {
        assert_eq!(sent(Outgoing::Whole(Bytes::from("a"))).await, frames(&[("a", true)]));
        assert_eq!(sent(Outgoing::Whole(Bytes::new())).await, []);
        assert_eq!(sent(streamed(stream::iter([]))).await, []);
        let three = stream::iter(["a", "b", "c"].map(data));
        let expected = frames(&[("a", false), ("b", false), ("c", true)]);
        assert_eq!(sent(streamed(three)).await, expected);
    }

    #[tokio::test]
    #[expect(clippy::disallowed_methods, reason = "a status that came from elsewhere")]
    async fn a_failure_behind_a_frame_comes_behind_it() {
        let broken = stream::iter([data("a"), Err(Status::aborted("broken"))]);
        assert_eq!(sent(streamed(broken)).await, frames(&[("a", false), ("broken", false)]));
    }

    #[tokio::test]
    async fn a_frame_does_not_wait_for_the_next_one() {
        let mut outgoing = streamed(stream::iter([data("a")]).chain(stream::pending()));
        let first = outgoing.frame().now_or_never().flatten().expect("a frame").expect("data");
        assert_eq!(first.into_data().expect("data"), "a");
        assert!(!http_body::Body::is_end_stream(&outgoing));
        assert!(outgoing.frame().now_or_never().is_none());
    }
}
