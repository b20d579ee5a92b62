//! How large a request may be: refused by its head where that is possible, so that what is too
//! large stays unread.

use std::{pin::Pin, time::Duration};

use bytes::{Bytes, BytesMut};
use http::{HeaderMap, header, request::Parts};
use http_body::Body;
use http_body_util::BodyExt as _;
use mesh::deadline::within;

use crate::error::Error;

/// How much of a body is taken in that nobody wants any more, in bytes, and how long it is waited
/// for.
const REST: (u64, Duration) = (64 * 1_024, Duration::from_millis(250));

/// The most that a request may bring.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Method, path and query, in bytes.
    pub line: usize,
    /// Names and values of all headers, in bytes.
    pub headers: usize,
    /// The number of headers.
    pub fields: usize,
    /// The body, in bytes.
    pub body: usize,
    /// What an upstream may answer, in bytes.
    pub reply: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            line: 8 * 1_024,
            headers: 16 * 1_024,
            fields: 100,
            body: 4 * 1_024 * 1_024,
            reply: 16 * 1_024 * 1_024,
        }
    }
}

impl Limits {
    /// Checks the head of a request.
    ///
    /// # Errors
    /// [`Error::UriTooLong`], [`Error::HeadersTooLarge`].
    pub fn head(&self, parts: &Parts) -> Result<(), Error> {
        // As it stood in the request line: `GET /path HTTP/1.1`.
        const VERSION: usize = " HTTP/1.1".len();
        let target = parts.uri.path_and_query().map_or(0, |target| target.as_str().len());
        if parts.method.as_str().len() + 1 + target + VERSION > self.line {
            return Err(Error::UriTooLong { limit: self.line });
        }
        let size: usize =
            parts.headers.iter().map(|(name, value)| name.as_str().len() + value.len()).sum();
        if size > self.headers || parts.headers.len() > self.fields {
            return Err(Error::HeadersTooLarge { limit: self.headers, fields: self.fields });
        }
        Ok(())
    }

    /// Reads a body that is not too large; one that says so itself is not read at all.
    ///
    /// # Errors
    /// [`Error::BodyTooLarge`]; [`Error::MalformedJson`] if it ends before its end.
    pub async fn body<B>(&self, headers: &HeaderMap, body: B) -> Result<Bytes, Error>
    where
        B: Body<Data = Bytes>,
    {
        let too_large = Error::BodyTooLarge { limit: self.body };
        let announced = headers.get(header::CONTENT_LENGTH).and_then(|value| value.to_str().ok());
        if announced.is_some_and(|length| length.parse::<usize>().is_ok_and(|n| n > self.body)) {
            return Err(too_large);
        }
        let mut body = std::pin::pin!(body);
        let mut read = BytesMut::new();
        while let Some(frame) = body.frame().await {
            let Ok(frame) = frame else {
                let problem = "the body was cut off";
                return Err(Error::MalformedJson { at: read.len(), field: String::new(), problem });
            };
            let Ok(data) = frame.into_data() else { continue };
            if read.len() + data.len() > self.body {
                return Err(too_large);
            }
            if read.is_empty() && body.is_end_stream() {
                return Ok(data);
            }
            read.extend_from_slice(&data);
        }
        Ok(read.freeze())
    }
}

/// Takes in the rest of a body whose answer is known without it, if it is small and comes soon. An
/// answer that overtakes its request costs the client the connection (HTTP/1.1) or a reset stream
/// (HTTP/2), and what is malformed in the rest would go unseen (RFC 9113, section 8.1.1).
///
/// Nobody is asked for a body that they keep back until told to continue (RFC 9110, section
/// 10.1.1).
pub(crate) async fn take_rest<B>(headers: &HeaderMap, mut body: Pin<&mut B>)
where
    B: Body<Data = Bytes>,
{
    let (most, wait) = REST;
    if body.is_end_stream()
        || headers.contains_key(header::EXPECT)
        || body.size_hint().lower() > most
    {
        return;
    }
    let rest = async {
        let mut left = most;
        while let Some(Ok(frame)) = body.frame().await {
            let taken = frame.data_ref().map_or(0, Bytes::len);
            let Some(less) = left.checked_sub(taken as u64) else { return };
            left = less;
        }
    };
    // What has not come by then is left to the connection.
    let _late = within(mesh::clock::instant() + wait, rest).await;
}
