//! What goes out of a request behind its head.

use std::{
    pin::Pin,
    task::{Context, Poll, ready},
};

use bytes::Bytes;
use h2::{Reason, SendStream};
use http_body::{Body as _, Frame};
use tonic::body::Body;

/// So much of a body, in bytes, goes out at once, before the peer has said how much it takes: it
/// has been made, and waits in one place or the other.
const AT_ONCE: usize = 64 << 10;

/// The body of a request. How long it is stays unsaid: messages say that themselves.
#[derive(Debug)]
pub(super) enum Outgoing {
    /// All of it.
    Whole(Bytes),
    /// As it comes.
    Streamed(Body),
}

/// Sends a body that comes, to its end or to that of the stream.
///
/// Its end goes with its last frame wherever that is known by then, as it is of every unary call: a
/// frame of its own for it would be one more to write and to read.
#[derive(Debug)]
pub(super) struct Pump {
    body: Body,
    stream: SendStream<Bytes>,
    /// What comes behind that which is sent, as far as that is known: `None` in it for a failure.
    next: Option<Option<Bytes>>,
    /// What is sent, and whether it is the last.
    data: Option<(Bytes, bool)>,
    /// What may still go out at once.
    at_once: usize,
}

// === impl Outgoing ===

impl Outgoing {
    /// Whether nothing goes out behind the head.
    pub(super) fn is_empty(&self) -> bool {
        match self {
            Self::Whole(bytes) => bytes.is_empty(),
            Self::Streamed(body) => body.is_end_stream(),
        }
    }

    /// Sends what is there of one that is not empty; what has to be awaited comes back.
    pub(super) fn begin(self, mut stream: SendStream<Bytes>) -> Option<Pump> {
        match self {
            Self::Whole(bytes) => {
                // A stream that is over by now says so where its answer is awaited.
                drop(stream.send_data(bytes, true));
                None
            }
            Self::Streamed(body) => {
                Some(Pump { body, stream, next: None, data: None, at_once: AT_ONCE })
            }
        }
    }
}

// === impl Pump ===

impl Pump {
    /// Waits until the peer takes more of the stream; `None` if it is over.
    fn poll_room(&mut self, cx: &mut Context<'_>) -> Poll<Option<()>> {
        // A claim on the connection's window that is as small as can be: whoever waits holds up
        // nobody else.
        self.stream.reserve_capacity(1);
        while self.stream.capacity() == 0 {
            let Some(Ok(_more)) = ready!(self.stream.poll_capacity(cx)) else {
                return Poll::Ready(None);
            };
        }
        Poll::Ready(Some(()))
    }

    /// Takes the next frame; `None` if the body is over, or cannot go on.
    fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<Option<Bytes>> {
        let next = match self.next.take() {
            Some(next) => Some(next),
            None => ready!(self.poll_body(cx)),
        };
        match next {
            Some(Some(_)) => {}
            Some(None) => self.stream.send_reset(Reason::CANCEL),
            None => drop(self.stream.send_data(Bytes::new(), true)),
        }
        Poll::Ready(next.flatten())
    }

    fn poll_body(&mut self, cx: &mut Context<'_>) -> Poll<Option<Option<Bytes>>> {
        let frame = ready!(Pin::new(&mut self.body).poll_frame(cx));
        // A request has no trailers in gRPC.
        let data = |frame: Frame<Bytes>| frame.into_data().unwrap_or_default();
        Poll::Ready(frame.map(|frame| frame.ok().map(data)))
    }

    /// Whether nothing comes behind what was taken.
    fn is_last(&mut self, cx: &mut Context<'_>) -> bool {
        if self.body.is_end_stream() {
            return true;
        }
        match self.poll_body(cx) {
            Poll::Ready(None) => true,
            Poll::Ready(next) => {
                self.next = next;
                false
            }
            Poll::Pending => false,
        }
    }
}

impl Future for Pump {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let this = &mut *self;
        loop {
            if this.data.is_none() {
                // Of a stream that was reset no more is wanted.
                if this.stream.poll_reset(cx).is_ready() {
                    return Poll::Ready(());
                }
                let Some(data) = ready!(this.poll_next(cx)) else { return Poll::Ready(()) };
                let last = this.is_last(cx);
                // A frame of nothing is a frame to read, and peers bear few of them.
                if data.is_empty() && !last {
                    continue;
                }
                this.data = Some((data, last));
            }
            let held = this.data.as_ref().is_some_and(|(data, _)| data.len() > this.at_once);
            if held && ready!(this.poll_room(cx)).is_none() {
                return Poll::Ready(());
            }
            let Some((data, last)) = this.data.take() else { return Poll::Ready(()) };
            this.at_once = this.at_once.saturating_sub(data.len());
            if this.stream.send_data(data, last).is_err() || last {
                return Poll::Ready(());
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use futures_util::{StreamExt as _, stream};
    use http_body_util::StreamBody;
    use tokio::io::AsyncReadExt as _;
    use tonic::Status;

    use super::*;

    type Frames = Result<Frame<Bytes>, Status>;

    const DATA: u8 = 0;
    const RESET: u8 = 3;
    const LAST: u8 = 1;

    fn data(text: &'static str) -> Frames {
        Ok(Frame::data(Bytes::from_static(text.as_bytes())))
    }

    fn streamed(frames: impl futures_util::Stream<Item = Frames> + Send + 'static) -> Outgoing {
        Outgoing::Streamed(Body::new(StreamBody::new(frames)))
    }

    /// What goes out behind the head up to the frame that is the last, frame by frame: kind, flags,
    /// content.
    async fn sent(outgoing: Outgoing, last: impl Fn(usize, u8) -> bool) -> Vec<(u8, u8, String)> {
        let (ours, mut theirs) = tokio::io::duplex(1 << 20);
        let (mut h2, connection) = h2::client::handshake(ours).await.expect("a connection");
        let request = http::Request::post("http://a/").body(()).expect("a request");
        let (_answer, stream) = h2.send_request(request, outgoing.is_empty()).expect("a stream");
        let pump = async {
            if let Some(pump) = outgoing.begin(stream) {
                pump.await;
            }
            std::future::pending::<()>().await;
        };
        let read = async {
            let mut preface = [0; 24];
            theirs.read_exact(&mut preface).await.expect("a preface");
            let mut frames: Vec<(u8, u8, String)> = Vec::new();
            while frames.last().is_none_or(|(kind, ..)| !last(frames.len(), *kind)) {
                let mut head = [0; 9];
                theirs.read_exact(&mut head).await.expect("a head");
                let size = usize::from(head[1]) << 8 | usize::from(head[2]);
                let mut content = vec![0; size];
                theirs.read_exact(&mut content).await.expect("a frame");
                if [DATA, RESET].contains(&head[3]) {
                    frames.push((head[3], head[4], String::from_utf8(content).expect("text")));
                }
            }
            frames
        };
        tokio::select! {
            frames = tokio::time::timeout(std::time::Duration::from_secs(60), read) => {
                frames.expect("it never comes")
            }
            () = pump => unreachable!("pending"),
            ended = connection => panic!("{ended:?}"),
        }
    }

    /// So many frames.
    fn all(count: usize) -> impl Fn(usize, u8) -> bool {
        move |so_far, _kind| so_far == count
    }

    fn frames(expected: &[(&str, bool)]) -> Vec<(u8, u8, String)> {
        expected.iter().map(|(text, last)| (DATA, u8::from(*last), (*text).to_owned())).collect()
    }

    #[tokio::test(start_paused = true)]
    async fn the_end_goes_with_the_last_frame() {
        assert_eq!(LAST, 1);
        assert_eq!(sent(Outgoing::Whole(Bytes::from("a")), all(1)).await, frames(&[("a", true)]));
        assert_eq!(sent(streamed(stream::iter([])), all(1)).await, frames(&[("", true)]));
        let three = stream::iter(["a", "b", "c"].map(data));
        let expected = frames(&[("a", false), ("b", false), ("c", true)]);
        assert_eq!(sent(streamed(three), all(3)).await, expected);
        assert!(Outgoing::Whole(Bytes::new()).is_empty());
        assert!(Outgoing::Streamed(Body::empty()).is_empty());
    }

    #[tokio::test(start_paused = true)]
    #[expect(clippy::disallowed_methods, reason = "a status that came from elsewhere")]
    async fn a_body_that_fails_resets_its_stream_and_never_ends_it() {
        let broken = stream::iter([data("a"), Err(Status::aborted("broken"))]);
        let mut sent = sent(streamed(broken), |_so_far, kind| kind == RESET).await;
        let cancelled = String::from_utf8(vec![0, 0, 0, 8]).expect("text");
        assert_eq!(sent.pop(), Some((RESET, 0, cancelled)));
        // What waits to be written goes with the stream; what was written does not end it.
        assert!(sent.is_empty() || sent == frames(&[("a", false)]), "{sent:?}");
    }

    #[tokio::test(start_paused = true)]
    async fn a_frame_does_not_wait_for_the_next_one() {
        let first = streamed(stream::iter([data("a")]).chain(stream::pending()));
        assert_eq!(sent(first, all(1)).await, frames(&[("a", false)]));
    }

    #[tokio::test(start_paused = true)]
    async fn no_more_is_sent_than_the_peer_takes_but_for_the_first_of_it() {
        let (ours, theirs) = tokio::io::duplex(1 << 20);
        let (mut h2, connection) = h2::client::handshake(ours).await.expect("a connection");
        let mut server = h2::server::handshake(theirs);
        let request = http::Request::post("http://a/").body(()).expect("a request");
        let (_answer, stream) = h2.send_request(request, false).expect("a stream");
        let asked = std::sync::Arc::new(std::sync::atomic::AtomicUsize::new(0));
        let counted = std::sync::Arc::clone(&asked);
        // A peer takes 64 KiB less one byte before it is asked to take more.
        let chunks = stream::iter(0..100).map(move |_| {
            counted.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
            Ok(Frame::data(Bytes::from(vec![7; 16 << 10])))
        });
        let pump = streamed(chunks).begin(stream).expect("some of it waits");
        let serve = async {
            let mut server = (&mut server).await.expect("a server");
            let (request, _answer) = server.accept().await.expect("a stream").expect("a stream");
            let mut body = request.into_body();
            let mut seen = 0;
            while seen < (64 << 10) - 1 {
                let more = tokio::select! {
                    more = body.data() => more.expect("data").expect("data"),
                    _ = server.accept() => unreachable!("one stream"),
                };
                seen += more.len();
            }
            // Nobody takes more: what the window holds, one chunk that waits, and one to be next.
            assert_eq!(seen, (64 << 10) - 1);
            assert!((4..=6).contains(&asked.load(std::sync::atomic::Ordering::Relaxed)));
        };
        tokio::select! {
            () = serve => {}
            () = pump => panic!("it does not end"),
            ended = connection => panic!("{ended:?}"),
        }
    }
}
