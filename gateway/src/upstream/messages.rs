//! A stream of messages from an upstream, one at a time: what nobody has asked for stays there.

use bytes::{Buf as _, Bytes, BytesMut};
use http::{HeaderMap, StatusCode, uri::PathAndQuery};
use http_body_util::BodyExt as _;
use tonic::{Status, body::Body};

use super::{Upstream, failure, of_status, request, send, without_status};
use crate::{
    error::{Error, Failure},
    transcode::PREFIX,
};

/// The messages of one answer. Dropped before its end, it cancels the call.
#[derive(Debug)]
pub struct Messages {
    head: HeaderMap,
    /// `None` once it ended.
    body: Option<Body>,
    /// What came of the next message.
    read: BytesMut,
    limit: usize,
}

/// Makes a call that is answered with a stream, whose messages have at most `limit` bytes.
///
/// # Errors
/// What the service answered in place of a stream.
pub async fn stream(
    upstream: Upstream,
    path: &PathAndQuery,
    metadata: HeaderMap,
    frame: Bytes,
    limit: usize,
) -> Result<Messages, Failure> {
    let mut request = request(path, metadata, frame);
    request.extensions_mut().insert(mesh::client::Long);
    let (head, body) = send(upstream, request).await;
    let mut body = Some(body);
    if head.headers.contains_key(Status::GRPC_STATUS) {
        if let Some(failure) = failure(&head.headers, &HeaderMap::new()) {
            return Err(failure);
        }
        body = None;
    } else if head.status != StatusCode::OK {
        return Err(without_status(head.status));
    }
    Ok(Messages { head: head.headers, body, read: BytesMut::new(), limit })
}

// === impl Messages ===

impl Messages {
    /// What the service said before its first message.
    #[must_use]
    pub fn metadata(&self) -> &HeaderMap {
        &self.head
    }

    /// The next message; `None` after the last one. Loses nothing if it is dropped meanwhile.
    ///
    /// # Errors
    /// The stream failed, or cannot be passed on.
    pub async fn next(&mut self) -> Result<Option<Bytes>, Failure> {
        loop {
            if let Some(message) = self.whole()? {
                return Ok(Some(message));
            }
            let Some(body) = self.body.as_mut() else { return Ok(None) };
            let Some(frame) = body.frame().await else {
                self.body = None;
                return Err(without_status(StatusCode::OK));
            };
            match frame.map_err(|status| of_status(&status))?.into_data() {
                Ok(data) => self.read.extend_from_slice(&data),
                Err(frame) => {
                    self.body = None;
                    let trailers = frame.into_trailers().unwrap_or_default();
                    return self.failed(&trailers).map_or(Ok(None), Err);
                }
            }
        }
    }

    /// What the trailers have against the stream, or its end against its contract.
    fn failed(&self, trailers: &HeaderMap) -> Option<Failure> {
        if !trailers.contains_key(Status::GRPC_STATUS) {
            return Some(without_status(StatusCode::OK));
        }
        let cut = Error::UpstreamMalformed("the stream ends within a message");
        failure(trailers, &self.head)
            .or_else(|| (!self.read.is_empty()).then(|| Failure::from(cut)))
    }

    /// A message that has come to its end.
    fn whole(&mut self) -> Result<Option<Bytes>, Error> {
        let Some((prefix, rest)) = self.read.split_first_chunk::<PREFIX>() else {
            return Ok(None);
        };
        let [compressed, length @ ..] = *prefix;
        if compressed != 0 {
            return Err(Error::UpstreamMalformed("it is compressed, which was not asked for"));
        }
        let length = usize::try_from(u32::from_be_bytes(length)).unwrap_or(usize::MAX);
        if length > self.limit {
            return Err(Error::ReplyTooLarge { limit: self.limit });
        }
        if rest.len() < length {
            return Ok(None);
        }
        self.read.advance(PREFIX);
        Ok(Some(self.read.split_to(length).freeze()))
    }
}
