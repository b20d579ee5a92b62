//! The last step of a request: what it is answered, and what stands on every reply.

use std::collections::BTreeSet;

use bytes::Bytes;
use http::{HeaderName, HeaderValue, Method, Response, StatusCode, header, request::Parts};

use super::Seen;
use crate::{
    Inner,
    edge::{cors, headers, rate_limit::Admitted, security},
    error::{Failure, seconds},
    reply::{conditional, negotiate, problem},
    schema::Binding,
    stream,
    transcode::Reply,
    upstream::{self, Answer},
};

/// The body of a reply.
#[derive(Debug)]
pub(super) enum Content {
    Whole(Bytes),
    Stream(stream::Body),
    /// There is none: the head of a stream was asked for.
    Unsaid,
}

impl Inner {
    pub(super) fn succeeded(
        &self,
        parts: &Parts,
        binding: &Binding,
        reply: Reply,
        answer: &Answer,
    ) -> Response<Bytes> {
        let mut response = Response::new(reply.body);
        *response.headers_mut() = headers::returned(&answer.metadata);
        let headers = response.headers_mut();
        let content_type = reply.content_type.and_then(|value| HeaderValue::try_from(value).ok());
        let json = HeaderValue::from_static("application/json");
        headers.insert(header::CONTENT_TYPE, content_type.unwrap_or(json));
        if answer.metadata.get(upstream::REPLAYED).is_some_and(|value| value == "true") {
            let name = HeaderName::from_static("idempotent-replayed");
            headers.insert(name, HeaderValue::from_static("true"));
        }
        let tag = reply.etag.as_deref().and_then(conditional::entity_tag);
        if let Some(tag) = &tag {
            headers.insert(header::ETAG, tag.clone());
        }
        if binding.method.creates && parts.method == Method::POST {
            if let Some(location) = reply.name.and_then(|name| self.location(binding, &name)) {
                headers.insert(header::LOCATION, location);
            }
            *response.status_mut() = StatusCode::CREATED;
        }
        let reads = matches!(parts.method, Method::GET | Method::HEAD);
        if reads && tag.is_some_and(|tag| conditional::is_unchanged(&parts.headers, &tag)) {
            *response.status_mut() = StatusCode::NOT_MODIFIED;
            response.headers_mut().remove(header::CONTENT_TYPE);
            *response.body_mut() = Bytes::new();
        }
        response
    }

    /// S53: where a new resource is read, if it can be read here.
    fn location(&self, binding: &Binding, name: &str) -> Option<HeaderValue> {
        use percent_encoding::{AsciiSet, CONTROLS, utf8_percent_encode};
        const UNSAFE: &AsciiSet = &CONTROLS
            .add(b' ')
            .add(b'"')
            .add(b'#')
            .add(b'%')
            .add(b'<')
            .add(b'>')
            .add(b'?')
            .add(b'[')
            .add(b'\\')
            .add(b']')
            .add(b'^')
            .add(b'`')
            .add(b'{')
            .add(b'|')
            .add(b'}');
        let version = binding.template.text.split('/').nth(1)?;
        let path = format!("/{version}/{}", utf8_percent_encode(name, UNSAFE));
        self.router.find(Method::GET.as_str(), &path).ok()?;
        HeaderValue::try_from(path).ok()
    }

    pub(super) fn failed(
        &self,
        mut failure: Failure,
        parts: &Parts,
        seen: &Seen,
        trace_id: &str,
    ) -> Response<Bytes> {
        if failure.code == tonic::Code::Aborted && seen.conditional {
            failure.http = StatusCode::PRECONDITION_FAILED;
        }
        let (shape, _) = negotiate::shape(&parts.headers);
        let about = problem::About { path: parts.uri.path(), body: seen.body.as_deref(), trace_id };
        let (content_type, body) = problem::body(&failure, shape, &self.pool, about);
        let mut response = Response::new(Bytes::from(body));
        *response.status_mut() = failure.http;
        *response.headers_mut() = failure.headers;
        response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static(content_type));
        response
    }
}

/// What stands on every reply, whatever became of the request.
pub(super) fn finish(
    response: &mut Response<Content>,
    method: &Method,
    seen: &Seen,
    trace_id: &str,
) {
    let status = response.status();
    let length = match response.body() {
        Content::Whole(bytes) => Some(bytes.len()),
        Content::Stream(_) | Content::Unsaid => None,
    };
    let length = length
        .filter(|_| !matches!(status, StatusCode::NO_CONTENT | StatusCode::NOT_MODIFIED))
        .map(|length| (header::CONTENT_LENGTH, HeaderValue::from(length)));
    let headers = response.headers_mut();
    headers.extend(length);
    let mut set = |name: &'static str, value: String| {
        if let Ok(value) = HeaderValue::try_from(value) {
            headers.insert(name, value);
        }
    };
    set("x-trace-id", trace_id.to_owned());
    if let Some(Admitted { rule, quota, remaining, reset }) = &seen.rate {
        let window = quota.window.as_secs();
        set("ratelimit-policy", format!("\"{rule}\";q={};w={window}", quota.limit));
        set("ratelimit", format!("\"{rule}\";r={remaining};t={}", seconds(*reset)));
    }
    security::apply(headers);
    if let Some(origin) = &seen.origin {
        cors::apply(headers, origin);
    }
    if *method == Method::HEAD {
        *response.body_mut() = Content::Unsaid;
    }
}

/// The answer to OPTIONS.
pub(super) fn options(allow: &BTreeSet<String>) -> Response<Bytes> {
    let mut response = Response::new(Bytes::new());
    *response.status_mut() = StatusCode::NO_CONTENT;
    let allow = allow.iter().map(String::as_str).collect::<Vec<_>>().join(", ");
    if let Ok(allow) = HeaderValue::try_from(allow) {
        response.headers_mut().insert(header::ALLOW, allow);
    }
    response
}
