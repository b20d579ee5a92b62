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
    sync::{Arc, Mutex, PoisonError},
    task::{Context, Poll, Waker, ready},
};

use bytes::Bytes;
use h2::{
    Reason, RecvStream,
    client::{ResponseFuture, SendRequest},
};
use http::{Request, Response};
use http_body::Frame;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, oneshot};
use tokio_util::task::AbortOnDropHandle;

use super::outgoing::{Outgoing, Pump};

mod driver;

pub(super) use driver::{Connected, handshake};

/// Begins streams on a connection. It stays open for as long as this lives, and then until the last
/// stream has ended.
#[derive(Debug)]
pub(super) struct Sender {
    h2: Mutex<SendRequest<Bytes>>,
    /// A place for each stream that the peer admits; closed when none can begin any more.
    room: Arc<Semaphore>,
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
        rest: Option<AbortOnDropHandle<()>>,
        place: Option<OwnedSemaphorePermit>,
    }
}

/// The body of an answer. Dropping it resets a stream that is not over, and ends what is still to
/// come of the request.
#[derive(Debug)]
pub(super) struct Incoming {
    stream: RecvStream,
    has_data: bool,
    _rest: Option<AbortOnDropHandle<()>>,
    _place: Option<OwnedSemaphorePermit>,
}

// === impl Sender ===

impl Sender {
    /// Whether no stream can begin here any more.
    pub(super) fn is_closed(&self) -> bool {
        self.room.is_closed()
    }

    /// Sends a request that is taken when there is room for its stream, and waits for the head of
    /// its answer.
    ///
    /// # Errors
    /// [`Lost`] says whether it was sent.
    pub(super) async fn send(
        &self,
        request: &mut Option<Request<Outgoing>>,
    ) -> Result<Response<Incoming>, Lost> {
        let place = Arc::clone(&self.room).acquire_owned().await;
        let place = place.map_err(|_closed| Lost::Unsent)?;
        self.begin(request, place)?.await.map_err(Lost::of)
    }

    fn begin(
        &self,
        request: &mut Option<Request<Outgoing>>,
        place: OwnedSemaphorePermit,
    ) -> Result<Sent, Lost> {
        let mut h2 = self.h2.lock().unwrap_or_else(PoisonError::into_inner);
        match h2.poll_ready(&mut Context::from_waker(Waker::noop())) {
            Poll::Ready(Ok(())) => {}
            // A connection that goes takes no request, nor its head.
            Poll::Ready(Err(_)) => return Err(Lost::Unsent),
            // It waits for a stream that was begun before. There is room for this one, as far as we
            // know; and where there is not, it waits for its turn like that one.
            Poll::Pending => *h2 = h2.clone(),
        }
        let (head, body) = request.take().ok_or(Lost::NotBegun)?.into_parts();
        let sent = h2.send_request(Request::from_parts(head, ()), body.is_empty());
        drop(h2);
        // If the connection went in the moment that has passed, nothing of this was sent.
        let (answer, stream) = sent.map_err(|_gone| Lost::NotBegun)?;
        Ok(Sent { answer, first: body.begin(stream), rest: None, place: Some(place) })
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
        {
            #[expect(clippy::disallowed_methods, reason = "ends with the answer")]
            let rest = tokio::spawn(body);
            *this.rest = Some(AbortOnDropHandle::new(rest));
        }
        let response = ready!(this.answer.poll(cx))?;
        let (_rest, _place) = (this.rest.take(), this.place.take());
        Poll::Ready(Ok(response.map(|stream| Incoming { stream, has_data: true, _rest, _place })))
    }
}

// === impl Incoming ===

impl http_body::Body for Incoming {
    type Data = Bytes;
    type Error = h2::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, h2::Error>>> {
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

    fn is_end_stream(&self) -> bool {
        self.stream.is_end_stream()
    }
}

#[cfg(test)]
mod tests;
