//! A request that can be sent again: kept in memory while it is small.

use std::{
    collections::VecDeque,
    pin::Pin,
    task::{Context, Poll},
};

use bytes::{Bytes, BytesMut};
use http::{Extensions, HeaderMap, HeaderValue, Method, Request, Uri, Version, header};
use http_body::{Body as _, Frame};
use http_body_util::BodyExt as _;
use tonic::{Status, body::Body};

use super::outgoing::Outgoing;

/// What is kept of a body.
const KEPT_MAX: usize = 64 << 10;

/// The headers that a generated client gives a call for which nobody wanted any more, in its order.
static PLAIN: [(header::HeaderName, HeaderValue); 2] = [
    (header::TE, HeaderValue::from_static("trailers")),
    (header::CONTENT_TYPE, HeaderValue::from_static("application/grpc")),
];

/// A request and its body.
#[derive(Debug)]
#[expect(
    clippy::large_enum_variant,
    reason = "each call has one, and a box would be one more allocation"
)]
pub(super) enum Kept {
    /// In full: it can be sent as often as wanted.
    Whole {
        /// Everything but the body, until it is sent.
        head: Option<Request<()>>,
        /// What is sent after that.
        copy: Copy,
        /// The body.
        body: Bytes,
    },
    /// It can be sent once, or has been.
    Once(Option<Box<Request<Outgoing>>>),
}

/// The head of a request that was sent. Most calls are sent once, so that it is made anew for
/// those that are sent again, where it can be.
#[derive(Debug)]
pub(super) enum Copy {
    /// It goes to this path, and says nothing else.
    Plain(Uri),
    /// It says more.
    Full(Box<Request<()>>),
}

/// A body that was read, as far as it is kept.
pub(super) enum Read {
    Whole(Bytes),
    /// It is larger; its frames so far.
    Part(VecDeque<Bytes>),
}

/// Frames that were read to look at them, and those that follow.
struct Resumed {
    read: VecDeque<Bytes>,
    rest: Body,
}

/// Reads a body to keep it.
///
/// # Errors
/// What went wrong where the body is made.
pub(super) async fn read(body: &mut Body) -> Result<Read, Status> {
    let (mut first, mut more, mut size) = (Bytes::new(), VecDeque::new(), 0);
    while !body.is_end_stream() {
        let Some(frame) = body.frame().await else { break };
        // A request has no trailers in gRPC.
        let Ok(data) = frame?.into_data() else { continue };
        size += data.len();
        if first.is_empty() {
            first = data;
        } else {
            more.push_back(data);
        }
        if size > KEPT_MAX {
            more.push_front(first);
            return Ok(Read::Part(more));
        }
    }
    if more.is_empty() {
        return Ok(Read::Whole(first));
    }
    let mut whole = BytesMut::with_capacity(size);
    whole.extend_from_slice(&first);
    more.into_iter().for_each(|data| whole.extend_from_slice(&data));
    Ok(Read::Whole(whole.freeze()))
}

// === impl Kept ===

impl Kept {
    /// One that is sent once.
    pub(super) fn once(request: Request<Body>) -> Self {
        Self::Once(Some(Box::new(request.map(Outgoing::Streamed))))
    }

    /// One whose body was read; one that is too large is sent once.
    pub(super) fn new(mut head: Request<()>, read: Read, rest: Body) -> Self {
        match read {
            Read::Whole(body) => {
                // They are for whoever calls, and nobody behind a connection sees them.
                *head.extensions_mut() = Extensions::new();
                let copy = Copy::of(&head);
                Self::Whole { head: Some(head), copy, body }
            }
            Read::Part(read) => Self::once(head.map(|()| Body::new(Resumed { read, rest }))),
        }
    }

    /// The request, for one attempt; `None` if it is gone.
    pub(super) fn request(&mut self) -> Option<Request<Outgoing>> {
        match self {
            Self::Whole { head, copy, body } => {
                let head = head.take().unwrap_or_else(|| copy.head());
                Some(head.map(|()| Outgoing::Whole(body.clone())))
            }
            Self::Once(request) => request.take().map(|request| *request),
        }
    }

    /// Whether there is something to be sent.
    pub(super) fn is_there(&self) -> bool {
        match self {
            Self::Whole { .. } => true,
            Self::Once(request) => request.is_some(),
        }
    }

    /// Takes back a request that was not sent.
    pub(super) fn put_back(&mut self, unsent: Box<Request<Outgoing>>) {
        if let Self::Once(request) = self {
            *request = Some(unsent);
        }
    }
}

// === impl Copy ===

impl Copy {
    fn of(head: &Request<()>) -> Self {
        let plain = head.headers().iter().eq(PLAIN.iter().map(|(name, value)| (name, value)));
        if plain && head.method() == Method::POST {
            Self::Plain(head.uri().clone())
        } else {
            Self::Full(Box::new(head.clone()))
        }
    }

    fn head(&self) -> Request<()> {
        match self {
            Self::Plain(uri) => {
                let mut head = Request::new(());
                *head.method_mut() = Method::POST;
                *head.version_mut() = Version::HTTP_2;
                *head.uri_mut() = uri.clone();
                *head.headers_mut() = HeaderMap::from_iter(PLAIN.iter().cloned());
                head
            }
            Self::Full(head) => Request::clone(head),
        }
    }
}

// === impl Resumed ===

impl http_body::Body for Resumed {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        match self.read.pop_front() {
            Some(data) => Poll::Ready(Some(Ok(Frame::data(data)))),
            None => Pin::new(&mut self.rest).poll_frame(cx),
        }
    }

    fn is_end_stream(&self) -> bool {
        self.read.is_empty() && self.rest.is_end_stream()
    }
}

#[cfg(test)]
mod tests {
    use http_body_util::StreamBody;

    use super::*;

    fn request(chunks: &[usize]) -> Request<Body> {
        let frames: Vec<_> = chunks
            .iter()
            .map(|len| Ok::<_, Status>(Frame::data(Bytes::from(vec![7_u8; *len]))))
            .collect();
        Request::new(Body::new(StreamBody::new(tokio_stream::iter(frames))))
    }

    async fn kept(chunks: &[usize]) -> Kept {
        let (head, mut body) = request(chunks).into_parts();
        let read = read(&mut body).await.expect("read");
        Kept::new(Request::from_parts(head, ()), read, body)
    }

    async fn size(kept: &mut Kept) -> Option<usize> {
        Some(match kept.request()?.into_body() {
            Outgoing::Whole(body) => body.len(),
            Outgoing::Streamed(body) => body.collect().await.expect("a body").to_bytes().len(),
        })
    }

    #[tokio::test]
    async fn what_is_small_is_sent_as_often_as_wanted() {
        for chunks in [&[][..], &[5], &[5, 6], &[KEPT_MAX], &[KEPT_MAX - 1, 1]] {
            let mut kept = kept(chunks).await;
            for _ in 0..3 {
                assert_eq!(size(&mut kept).await, Some(chunks.iter().sum()), "{chunks:?}");
            }
            assert!(kept.is_there());
        }
    }

    #[tokio::test]
    async fn what_is_large_is_sent_once_and_in_full() {
        let chunks = [KEPT_MAX, 1, KEPT_MAX];
        let mut kept = kept(&chunks).await;
        assert_eq!(size(&mut kept).await, Some(chunks.iter().sum()));
        assert_eq!(size(&mut kept).await, None);
        assert!(!kept.is_there());
    }

    #[test]
    fn what_is_sent_again_says_what_was_said_the_first_time() {
        let plain = || {
            let request = Request::post("/a.B/C").version(Version::HTTP_2);
            request.header("te", "trailers").header("content-type", "application/grpc")
        };
        for (request, is_plain) in [
            (plain(), true),
            (plain().header("authorization", "Bearer x"), false),
            (plain().header("te", "trailers"), false),
            (plain().method("GET"), false),
            (Request::post("/a.B/C").header("te", "trailers").header("x", "y"), false),
            (Request::post("/a.B/C?x"), false),
        ] {
            let head = request.body(()).expect("a request");
            let wanted = head.clone();
            let mut kept = Kept::new(head, Read::Whole(Bytes::from("body")), Body::empty());
            let Kept::Whole { copy, .. } = &kept else { panic!("kept") };
            assert_eq!(matches!(copy, Copy::Plain(_)), is_plain, "{wanted:?}");
            for _ in 0..3 {
                let sent = kept.request().expect("a request");
                assert_eq!(sent.headers(), wanted.headers());
                assert_eq!((sent.method(), sent.uri()), (wanted.method(), wanted.uri()));
                assert_eq!(sent.version(), wanted.version());
            }
        }
    }
}
