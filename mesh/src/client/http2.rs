//! One HTTP/2 connection from the caller's side: its streams, how many of them its peer admits, and
//! whether that peer is still there.
//!
//! Over h2 itself, which is also what hyper's client speaks through: that one hands each request to
//! the task of its connection, spawns a task for its body and another one for its answer, and looks
//! at the clock with each frame. Here whoever calls writes its request and reads its answer; only a
//! body that is still to come has a task.

use std::{
    convert::Infallible,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, Waker, ready},
    time::Duration,
};

use bytes::Bytes;
use h2::{
    Reason, RecvStream,
    client::{ResponseFuture, SendRequest},
};
use http::{HeaderName, Request, Response, header};
use http_body::Frame;
use tokio::{
    sync::{TryAcquireError, oneshot},
    time::Instant,
};
use tokio_util::task::AbortOnDropHandle;

use super::outgoing::{Outgoing, Pump};
use crate::deadline;

mod driver;
mod room;

pub(super) use driver::{Connected, handshake};
use room::{Place, Room};

/// Headers that are about a connection of HTTP/1.1, and no header of HTTP/2 (RFC 9113, 8.2.2).
const OF_CONNECTIONS: [HeaderName; 5] = [
    header::CONNECTION,
    header::TRANSFER_ENCODING,
    header::UPGRADE,
    HeaderName::from_static("keep-alive"),
    HeaderName::from_static("proxy-connection"),
];

/// Begins streams on a connection. It stays open for as long as this lives, and then until the last
/// stream has ended.
#[derive(Debug)]
pub(super) struct Sender {
    h2: SendRequest<Bytes>,
    room: Arc<Room>,
    _held: oneshot::Sender<Infallible>,
}

/// What became of a request that has no answer.
#[derive(Debug)]
pub(super) enum Lost {
    /// It was not sent, and is where it was.
    Unsent,
    /// It was not sent, or the peer has not begun with it (GOAWAY, `REFUSED_STREAM`); but it is gone.
    NotBegun,
    /// It was sent, and the answer failed to come.
    Broken(h2::Error),
}

pin_project_lite::pin_project! {
    /// A request that was sent, until the head of its answer is there. Dropping it resets the stream.
    struct Sent {
        #[pin]
        answer: ResponseFuture,
        first: Option<Pump>,
        held: Option<Held>,
    }
}

/// What a stream holds until it is over.
#[derive(Debug)]
struct Held {
    _place: Place,
    /// What is still to come of the request: not sent any more.
    rest: Option<AbortOnDropHandle<()>>,
}

/// The body of an answer. Dropping it resets a stream that is not over, and ends what is still to
/// come of the request.
#[derive(Debug)]
pub(super) struct Incoming {
    stream: RecvStream,
    has_data: bool,
    /// Nothing any more when its last frame was read: an answer may be kept for longer.
    held: Option<Held>,
}

// === impl Sender ===

impl Sender {
    /// Whether no stream can begin here any more.
    pub(super) fn is_closed(&self) -> bool {
        self.room.is_closed()
    }

    /// How many streams the peer admits at once.
    pub(super) fn admits(&self) -> usize {
        self.room.admits()
    }

    /// Sends a request that is taken when there is room for its stream, and waits for the head of
    /// its answer. Whoever calls watches its end; that little time is left, it says of itself.
    ///
    /// # Errors
    /// [`Lost`] says whether it was sent.
    pub(super) async fn send(
        &self,
        request: &mut Option<Request<Outgoing>>,
        (now, ends): (Instant, Instant),
    ) -> Result<Response<Incoming>, Lost> {
        let (place, now) = match self.room.enter() {
            Ok(place) => (place, now),
            Err(TryAcquireError::NoPermits) => self.room.wait().await?,
            Err(TryAcquireError::Closed) => return Err(Lost::Unsent),
        };
        let left = ends.saturating_duration_since(now).max(Duration::from_micros(1));
        self.begin(request, place, left)?.await.map_err(Lost::of)
    }

    fn begin(
        &self,
        request: &mut Option<Request<Outgoing>>,
        place: Place,
        left: Duration,
    ) -> Result<Sent, Lost> {
        // A handle of its own: one that has sent a stream holds on to it, when it is the last that
        // has room, and dropping its answer would not reset it.
        let mut h2 = self.h2.clone();
        if let Poll::Ready(Err(_)) = h2.poll_ready(&mut Context::from_waker(Waker::noop())) {
            // A connection that goes takes no request, nor its head.
            return Err(Lost::Unsent);
        }
        let (mut head, body) = request.take().ok_or(Lost::NotBegun)?.into_parts();
        if let Some(left) = deadline::header(left) {
            head.headers.insert(&deadline::TIMEOUT, left);
        }
        if head.headers.keys().any(|name| OF_CONNECTIONS.contains(name)) {
            for name in &OF_CONNECTIONS {
                head.headers.remove(name);
            }
        }
        let empty = body.is_empty();
        let sent = h2.send_request(Request::from_parts(head, ()), empty);
        // If the connection went in the moment that has passed, nothing of this was sent.
        let (answer, stream) = sent.map_err(|_gone| Lost::NotBegun)?;
        let first = if empty { None } else { body.begin(stream) };
        Ok(Sent { answer, first, held: Some(Held { _place: place, rest: None }) })
    }
}

// === impl Lost ===

impl Lost {
    fn of(error: h2::Error) -> Self {
        let refused = error.is_reset() && error.reason() == Some(Reason::REFUSED_STREAM);
        // Given only to the streams above the last one that the GOAWAY names.
        let left_out =
            error.is_go_away() && error.is_remote() && error.reason() == Some(Reason::NO_ERROR);
        if refused || left_out { Self::NotBegun } else { Self::Broken(error) }
    }
}

// === impl Sent ===

impl Future for Sent {
    type Output = Result<Response<Incoming>, h2::Error>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = self.project();
        if let Some(mut body) = this.first.take()
            && Pin::new(&mut body).poll(cx).is_pending()
            && let Some(held) = this.held
        {
            #[expect(clippy::disallowed_methods, reason = "ends with the answer")]
            let rest = tokio::spawn(body);
            held.rest = Some(AbortOnDropHandle::new(rest));
        }
        let response = ready!(this.answer.poll(cx))?;
        let held = this.held.take();
        Poll::Ready(Ok(response.map(|stream| {
            // A status that stands in the head is all of an answer.
            let held = held.filter(|_| !stream.is_end_stream());
            Incoming { stream, has_data: true, held }
        })))
    }
}

// === impl Incoming ===

impl Incoming {
    fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, h2::Error>>> {
        if self.has_data {
            match ready!(self.stream.poll_data(cx)) {
                Some(Ok(data)) => {
                    // Whoever asks has room for it: the peer may send as much again. Of a stream
                    // that is over it no longer matters.
                    drop(self.stream.flow_control().release_capacity(data.len()));
                    return Poll::Ready(Some(Ok(Frame::data(data))));
                }
                Some(Err(error)) => return Poll::Ready(Some(Err(error))),
                None => self.has_data = false,
            }
        }
        let trailers = ready!(self.stream.poll_trailers(cx));
        Poll::Ready(trailers.transpose().map(|trailers| trailers.map(Frame::trailers)))
    }
}

impl http_body::Body for Incoming {
    type Data = Bytes;
    type Error = h2::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, h2::Error>>> {
        let next = ready!(self.poll_next(cx));
        let goes_on = next.as_ref().is_some_and(|frame| frame.as_ref().is_ok_and(Frame::is_data));
        if !goes_on {
            self.held = None;
        }
        Poll::Ready(next)
    }

    fn is_end_stream(&self) -> bool {
        self.stream.is_end_stream()
    }
}

#[cfg(test)]
mod tests;
