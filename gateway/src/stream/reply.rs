//! How a stream looks in HTTP (S45 to S47): an array, a line per message, an event per message,
//! or plain bytes.

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, header};

use crate::transcode::Reply;

/// The form of a stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// One JSON array.
    Array,
    /// A JSON text per line.
    Lines,
    /// Server-sent events (HTML, section 9.2).
    Events,
    /// The bytes of `google.api.HttpBody` (S50).
    Raw,
}

// === impl Format ===

impl Format {
    /// What a client may ask for, our favourite first.
    pub const OFFERED: [Self; 3] = [Self::Array, Self::Lines, Self::Events];

    /// Its media type; that of raw bytes stands in their first message.
    #[must_use]
    pub fn content_type(self) -> &'static str {
        match self {
            Self::Array => "application/json",
            Self::Lines => "application/x-ndjson",
            Self::Events => "text/event-stream",
            Self::Raw => "application/octet-stream",
        }
    }

    /// Sets what the head of the reply says.
    pub fn head(self, headers: &mut HeaderMap, first: Option<&Reply>) {
        let own = HeaderValue::from_static(self.content_type());
        let given =
            first.and_then(|reply| HeaderValue::try_from(reply.content_type.as_ref()?).ok());
        headers.insert(header::CONTENT_TYPE, given.unwrap_or(own));
        if self == Self::Events {
            headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-cache"));
        }
        if self != Self::Raw {
            // A proxy that collects what comes would hold back what is news.
            let buffering = HeaderName::from_static("x-accel-buffering");
            headers.insert(buffering, HeaderValue::from_static("no"));
        }
    }

    /// A message; `first` says that none stands before it.
    #[must_use]
    pub fn message(self, reply: &Reply, first: bool) -> Bytes {
        let json = &reply.body[..];
        match self {
            Self::Array if first => [b"[", json].concat().into(),
            Self::Array => [b",\n", json].concat().into(),
            Self::Lines => [json, b"\n"].concat().into(),
            Self::Events => {
                let id = reply.resume_token.as_deref().and_then(id).unwrap_or_default();
                // JSON of ours has no line breaks: it is one line of data.
                [id.as_bytes(), b"data: ", json, b"\n\n"].concat().into()
            }
            Self::Raw => reply.body.clone(),
        }
    }

    /// What says that nothing has happened; `None` where a reader could take it for a message.
    #[must_use]
    pub fn heartbeat(self) -> Option<Bytes> {
        match self {
            Self::Array => Some(Bytes::from_static(b"\n")),
            Self::Events => Some(Bytes::from_static(b":\n\n")),
            Self::Lines | Self::Raw => None,
        }
    }

    /// What ends a stream that succeeded; `none` says that it had no messages.
    #[must_use]
    pub fn end(self, none: bool) -> Bytes {
        Bytes::from_static(match self {
            Self::Array if none => b"[]",
            Self::Array => b"]",
            // A browser that sees the connection close would ask again: it is told not to.
            Self::Events => b"event: end\ndata: {}\n\n",
            Self::Lines | Self::Raw => b"",
        })
    }

    /// What ends a stream that failed, with its status as JSON; `None` where nothing can be said
    /// but by cutting it off. `retry` is when to come again, in milliseconds.
    #[must_use]
    pub fn error(self, status: &str, retry: Option<u64>) -> Option<Bytes> {
        match self {
            Self::Array | Self::Raw => None,
            Self::Lines => Some(format!("{{\"error\":{status}}}\n").into()),
            Self::Events => {
                let retry = retry.map(|ms| format!("retry: {ms}\n")).unwrap_or_default();
                Some(format!("{retry}event: error\ndata: {status}\n\n").into())
            }
        }
    }
}

/// The line that a client sends back as `Last-Event-ID`.
fn id(token: &str) -> Option<String> {
    let fits = !token.contains(['\n', '\r', '\0']);
    fits.then(|| format!("id: {token}\n"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reply(token: Option<&str>) -> Reply {
        Reply {
            content_type: None,
            body: Bytes::from_static(b"{\"a\":1}"),
            etag: None,
            name: None,
            resume_token: token.map(str::to_owned),
        }
    }

    #[test]
    fn s47_a_message_is_an_element_a_line_or_an_event_with_the_id_to_go_on_from() {
        let plain = reply(None);
        for (format, first, expected) in [
            (Format::Array, true, "[{\"a\":1}"),
            (Format::Array, false, ",\n{\"a\":1}"),
            (Format::Lines, true, "{\"a\":1}\n"),
            (Format::Events, true, "data: {\"a\":1}\n\n"),
            (Format::Raw, true, "{\"a\":1}"),
        ] {
            assert_eq!(format.message(&plain, first), expected, "{format:?}");
        }
        let event = Format::Events.message(&reply(Some("t 1")), false);
        assert_eq!(event, "id: t 1\ndata: {\"a\":1}\n\n");
        // A line break in a token would begin a field of the client's choosing.
        for token in ["a\nevent: error", "a\rb", "a\0b"] {
            let event = Format::Events.message(&reply(Some(token)), false);
            assert_eq!(event, "data: {\"a\":1}\n\n", "{token:?}");
        }
    }

    #[test]
    fn s45_and_s46_an_end_is_no_failure_and_a_failure_is_no_end() {
        for (format, none, some, error) in [
            (Format::Array, "[]", "]", None),
            (Format::Lines, "", "", Some("{\"error\":{}}\n")),
            (
                Format::Events,
                "event: end\ndata: {}\n\n",
                "event: end\ndata: {}\n\n",
                Some("event: error\ndata: {}\n\n"),
            ),
            (Format::Raw, "", "", None),
        ] {
            assert_eq!((format.end(true), format.end(false)), (none.into(), some.into()));
            assert_eq!(format.error("{}", None), error.map(Bytes::from), "{format:?}");
        }
        let told = Format::Events.error("{}", Some(1_500)).expect("an event");
        assert_eq!(told, "retry: 1500\nevent: error\ndata: {}\n\n");
    }
}
