//! Which upstream serves a service, and one call to it in raw bytes.

use base64::{
    Engine as _, alphabet,
    engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig},
};
use bytes::{Buf as _, Bytes, BytesMut};
use http::{HeaderMap, HeaderValue, Request, Response, StatusCode, header, uri::PathAndQuery};
use http_body_util::BodyExt as _;
use percent_encoding::percent_decode;
use prost::Message as _;
use tonic::{Code, Status, body::Body};
use tonic_types::pb;
use tower::{ServiceExt as _, util::BoxCloneSyncService};

use crate::{
    error::{Error, Failure, seconds},
    reply::problem::http_status,
    transcode::PREFIX,
};

mod messages;

pub use messages::{Messages, stream};

/// What a call goes to: `mesh::Channel`, or something that a test made up.
pub type Upstream = BoxCloneSyncService<Request<Body>, Response<Body>, std::convert::Infallible>;

/// The bytes of `grpc-status-details-bin`, with or without padding (S43).
const DETAILS: GeneralPurpose = GeneralPurpose::new(
    &alphabet::STANDARD,
    GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent),
);

/// Which services an upstream serves: `ordermesh.{name}.*={name}`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pattern {
    /// What of the service's name stands before `{name}` or `*`.
    before: String,
    /// What follows `{name}`, if that is there.
    after: Option<String>,
    /// Whether anything may follow.
    open: bool,
    /// A registry name or an address; `{name}` in it is what the pattern found.
    target: String,
    /// How much of the left side is literal: the longest pattern wins.
    length: usize,
}

/// A reply that succeeded.
#[derive(Clone, Debug)]
pub struct Answer {
    /// The message.
    pub message: Bytes,
    /// What the service said beside it.
    pub metadata: HeaderMap,
}

const NAME: &str = "{name}";

// === impl Pattern ===

impl std::str::FromStr for Pattern {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || format!("`{text}` is no upstream such as ordermesh.{{name}}.*={{name}}");
        let (pattern, target) = text.split_once('=').ok_or_else(wrong)?;
        let (body, open) = pattern.strip_suffix('*').map_or((pattern, false), |body| (body, true));
        let (before, after) = match body.split_once(NAME) {
            Some((before, after)) => (before, Some(after.to_owned())),
            None => (body, None),
        };
        if target.is_empty() || body.contains('*') || (after.is_none() && target.contains(NAME)) {
            return Err(wrong());
        }
        Ok(Self {
            before: before.to_owned(),
            after,
            open,
            target: target.to_owned(),
            length: body.replace(NAME, "").len(),
        })
    }
}

impl Pattern {
    /// The target for a service, if the pattern is for it.
    fn target(&self, service: &str) -> Option<String> {
        let rest = service.strip_prefix(&self.before)?;
        let Some(after) = &self.after else {
            return (self.open || rest.is_empty()).then(|| self.target.clone());
        };
        let (name, rest) = rest.split_at(rest.find('.').unwrap_or(rest.len()));
        let rest = rest.strip_prefix(after.as_str())?;
        let found = !name.is_empty() && (self.open || rest.is_empty());
        found.then(|| self.target.replace(NAME, name))
    }
}

/// The target for a service: that of the longest pattern that is for it.
#[must_use]
pub fn target(patterns: &[Pattern], service: &str) -> Option<String> {
    patterns
        .iter()
        .filter_map(|pattern| Some((pattern.length, pattern.target(service)?)))
        .max_by_key(|(length, _)| *length)
        .map(|(_, target)| target)
}

/// Makes one unary call.
///
/// # Errors
/// What the service answered, or why that cannot be passed on.
pub async fn call(
    upstream: Upstream,
    path: &PathAndQuery,
    metadata: HeaderMap,
    frame: Bytes,
    limit: usize,
) -> Result<Answer, Failure> {
    let (head, body) = send(upstream, request(path, metadata, frame)).await;
    if head.headers.contains_key(Status::GRPC_STATUS) {
        return Err(failure(&head.headers, &HeaderMap::new()).unwrap_or_else(|| {
            Failure::from(Error::UpstreamMalformed("it succeeded without a message"))
        }));
    }
    if head.status != StatusCode::OK {
        return Err(without_status(head.status));
    }
    let (message, trailers) = collect(body, limit).await?;
    if !trailers.contains_key(Status::GRPC_STATUS) {
        return Err(without_status(head.status));
    }
    if let Some(failure) = failure(&trailers, &head.headers) {
        return Err(failure);
    }
    let message = unframed(message)?;
    let mut metadata = head.headers;
    // What a handler says with its reply comes before it or after it.
    if let Some(replayed) = trailers.get(REPLAYED) {
        metadata.insert(REPLAYED, replayed.clone());
    }
    Ok(Answer { message, metadata })
}

fn request(path: &PathAndQuery, metadata: HeaderMap, frame: Bytes) -> Request<Body> {
    let mut request = Request::new(Body::new(http_body_util::Full::new(frame)));
    *request.method_mut() = http::Method::POST;
    *request.version_mut() = http::Version::HTTP_2;
    *request.uri_mut() = path.clone().into();
    *request.headers_mut() = metadata;
    let headers = request.headers_mut();
    headers.insert(header::TE, HeaderValue::from_static("trailers"));
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/grpc"));
    request
}

async fn send(upstream: Upstream, request: Request<Body>) -> (http::response::Parts, Body) {
    match upstream.oneshot(request).await {
        Ok(response) => response.into_parts(),
        Err(never) => match never {},
    }
}

/// Said by a service whose answer is the one that it gave before to the same `request_id`.
pub const REPLAYED: &str = "mesh-replayed";

/// Reads a body to its trailers.
async fn collect(mut body: Body, limit: usize) -> Result<(Bytes, HeaderMap), Failure> {
    let mut read = BytesMut::new();
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(|status| of_status(&status))?;
        match frame.into_data() {
            Ok(data) => {
                if read.len() + data.len() > limit + PREFIX {
                    return Err(Error::ReplyTooLarge { limit }.into());
                }
                read.extend_from_slice(&data);
            }
            Err(frame) => {
                return Ok((read.freeze(), frame.into_trailers().unwrap_or_default()));
            }
        }
    }
    Ok((read.freeze(), HeaderMap::new()))
}

/// The one message of a unary reply.
fn unframed(mut body: Bytes) -> Result<Bytes, Error> {
    if body.len() < PREFIX {
        return Err(Error::UpstreamMalformed("it succeeded without a message"));
    }
    let compressed = body.get_u8() != 0;
    let length = body.get_u32();
    if compressed {
        return Err(Error::UpstreamMalformed("it is compressed, which was not asked for"));
    }
    if u32::try_from(body.len()) != Ok(length) {
        return Err(Error::UpstreamMalformed("its length is not the one that it announces"));
    }
    Ok(body)
}

/// What went wrong, from the trailers or from a head that stands for them; `None` if nothing
/// did (S43, S44).
fn failure(trailers: &HeaderMap, head: &HeaderMap) -> Option<Failure> {
    let code =
        trailers.get(Status::GRPC_STATUS).map_or(Code::Unknown, |v| Code::from_bytes(v.as_bytes()));
    if code == Code::Ok {
        return None;
    }
    let message = trailers.get(Status::GRPC_MESSAGE).map(HeaderValue::as_bytes).unwrap_or_default();
    let message = percent_decode(message).decode_utf8_lossy().into_owned();
    let details = trailers.get(Status::GRPC_STATUS_DETAILS);
    let details = details.and_then(|details| DETAILS.decode(details).ok()).unwrap_or_default();
    let pushback = [trailers, head].into_iter().find_map(|headers| {
        let value = headers.get("grpc-retry-pushback-ms")?.to_str().ok()?;
        value.parse().ok().map(std::time::Duration::from_millis)
    });
    Some(told(code, message, &details, pushback))
}

/// A failure that never was on the wire.
fn of_status(status: &Status) -> Failure {
    told(status.code(), status.message().to_owned(), status.details(), None)
}

fn told(
    code: Code,
    message: String,
    details: &[u8],
    pushback: Option<std::time::Duration>,
) -> Failure {
    let rich = pb::Status::decode(details).unwrap_or_default();
    let message = if message.is_empty() { rich.message.clone() } else { message };
    if matches!(code, Code::Unknown | Code::Internal | Code::DataLoss) {
        return masked(code, &message);
    }
    // What is for developers does not leave the house.
    let is_debug = |url: &str| url.rsplit('/').next() == Some("google.rpc.DebugInfo");
    let details: Vec<_> =
        rich.details.into_iter().filter(|detail| !is_debug(&detail.type_url)).collect();
    let mut headers = HeaderMap::new();
    if code == Code::Unauthenticated {
        let challenge = crate::error::challenge(None);
        headers
            .extend(HeaderValue::try_from(challenge).ok().map(|v| (header::WWW_AUTHENTICATE, v)));
    }
    if matches!(code, Code::ResourceExhausted | Code::Unavailable) {
        let delay = details.iter().find_map(retry_delay).or(pushback).unwrap_or_default();
        headers.insert(header::RETRY_AFTER, HeaderValue::from(seconds(delay)));
    }
    let details = details
        .into_iter()
        .map(|detail| prost_types::Any { type_url: detail.type_url, value: detail.value })
        .collect();
    Failure { code, http: http_status(code), message, details, headers }
}

/// What broke inside is told to the log; outside, the trace id is enough to find it.
fn masked(code: Code, message: &str) -> Failure {
    let trace_id = mesh::Ctx::current().map(|ctx| ctx.trace_id()).unwrap_or_default();
    let code_name = mesh::telemetry::code(code);
    tracing::error!(trace_id, code = code_name, "an upstream failed: {message}");
    Failure {
        code,
        http: http_status(code),
        message: format!("something broke inside; the trace {trace_id} leads to it"),
        details: Vec::new(),
        headers: HeaderMap::new(),
    }
}

fn retry_delay(detail: &prost_types::Any) -> Option<std::time::Duration> {
    let is_retry = detail.type_url.rsplit('/').next() == Some("google.rpc.RetryInfo");
    let info = is_retry.then(|| pb::RetryInfo::decode(detail.value.as_slice()).ok()).flatten()?;
    info.retry_delay?.try_into().ok()
}

/// S44: an answer that is not gRPC's.
fn without_status(status: StatusCode) -> Failure {
    let code = match status.as_u16() {
        400 => Code::Internal,
        401 => Code::Unauthenticated,
        403 => Code::PermissionDenied,
        404 => Code::Unimplemented,
        429 | 502..=504 => Code::Unavailable,
        _ => Code::Unknown,
    };
    told(code, "the service answered without a status".to_owned(), &[], None)
}

#[cfg(test)]
mod tests;
