//! A request that can be sent again: kept in memory while it is small.

use std::{
    collections::VecDeque,
    pin::Pin,
    task::{Context, Poll},
};

use bytes::{Bytes, BytesMut};
use http::Request;
use http_body::{Body as _, Frame};
use http_body_util::{BodyExt as _, Full};
use tonic::{Status, body::Body};

/// What is kept of a body.
const KEPT_MAX: usize = 64 << 10;

/// A request and its body.
#[derive(Debug)]
pub(super) enum Kept {
    /// In full: it can be sent as often as wanted.
    Whole {
        /// Everything but the body.
        head: Box<Request<()>>,
        /// The body.
        body: Bytes,
    },
    /// It can be sent once, or has been.
    Once(Option<Box<Request<Body>>>),
}

/// Frames that were read to look at them, and those that follow.
struct Resumed {
    read: VecDeque<Bytes>,
    rest: Body,
}

// === impl Kept ===

impl Kept {
    /// One that is sent once.
    pub(super) fn once(request: Request<Body>) -> Self {
        Self::Once(Some(Box::new(request)))
    }

    /// Reads a request to keep it; one that is too large is sent once.
    ///
    /// # Errors
    /// What went wrong where the body is made.
    pub(super) async fn whole(request: Request<Body>) -> Result<Self, Status> {
        let (head, mut body) = request.into_parts();
        let (mut read, mut size) = (VecDeque::new(), 0);
        while !body.is_end_stream() {
            let Some(frame) = body.frame().await else { break };
            // A request has no trailers in gRPC.
            let Ok(data) = frame?.into_data() else { continue };
            size += data.len();
            read.push_back(data);
            if size > KEPT_MAX {
                let body = Body::new(Resumed { read, rest: body });
                return Ok(Self::once(Request::from_parts(head, body)));
            }
        }
        let head = Box::new(Request::from_parts(head, ()));
        let mut read = read.into_iter();
        let first = read.next().unwrap_or_default();
        if read.len() == 0 {
            return Ok(Self::Whole { head, body: first });
        }
        let mut body = BytesMut::with_capacity(size);
        body.extend_from_slice(&first);
        read.for_each(|data| body.extend_from_slice(&data));
        Ok(Self::Whole { head, body: body.freeze() })
    }

    /// The request, for one attempt; `None` if it is gone.
    pub(super) fn request(&mut self) -> Option<Request<Body>> {
        match self {
            Self::Whole { head, body } => {
                Some(Request::clone(head).map(|()| Body::new(Full::new(body.clone()))))
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
    pub(super) fn put_back(&mut self, unsent: Box<Request<Body>>) {
        if let Self::Once(request) = self {
            *request = Some(unsent);
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

    async fn size(kept: &mut Kept) -> Option<usize> {
        let body = kept.request()?.into_body();
        Some(body.collect().await.expect("a body").to_bytes().len())
    }

    #[tokio::test]
    async fn what_is_small_is_sent_as_often_as_wanted() {
        for chunks in [&[][..], &[5], &[5, 6], &[KEPT_MAX], &[KEPT_MAX - 1, 1]] {
            let mut kept = Kept::whole(request(chunks)).await.expect("kept");
            for _ in 0..3 {
                assert_eq!(size(&mut kept).await, Some(chunks.iter().sum()), "{chunks:?}");
            }
            assert!(kept.is_there());
        }
    }

    #[tokio::test]
    async fn what_is_large_is_sent_once_and_in_full() {
        let chunks = [KEPT_MAX, 1, KEPT_MAX];
        let mut kept = Kept::whole(request(&chunks)).await.expect("kept");
        assert_eq!(size(&mut kept).await, Some(chunks.iter().sum()));
        assert_eq!(size(&mut kept).await, None);
        assert!(!kept.is_there());
    }
}
