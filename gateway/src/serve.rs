//! One request from its head to its reply, step by step; each step may refuse it.

use std::{collections::BTreeSet, net::IpAddr, time::Duration};

use bytes::Bytes;
use http::{
    HeaderMap, HeaderName, HeaderValue, Method, Response, StatusCode, header, request::Parts,
};
use http_body::Body;
use mesh::{Ctx, auth::Caller, ctx::Trace, deadline::within, server::Peer};

use crate::{
    Inner, Route,
    edge::{
        auth::{bearer, refusal},
        client_ip::client_ip,
        deadline, headers,
        rate_limit::Admitted,
        security,
    },
    error::{Error, Failure, seconds},
    observe,
    reply::{conditional, idempotency, negotiate, problem},
    route::{
        template::bad_escape,
        trie::{ANY, Found, Missed},
    },
    schema::{Binding, Body as RequestBody, compile::is_http_body},
    transcode::{Input, Reply, json_to_wire, wire_to_json},
    upstream::{self, Answer},
};

/// What is known of a request by the time it is answered, well or not.
#[derive(Debug, Default)]
struct Seen {
    route: String,
    /// The field of the request that is the body.
    body: Option<String>,
    rate: Option<Admitted>,
    conditional: bool,
}

/// Every method that a path can have.
const METHODS: [&str; 7] = ["DELETE", "GET", "HEAD", "OPTIONS", "PATCH", "POST", "PUT"];

impl Inner {
    /// Answers a request. Never fails: what goes wrong is a reply too.
    pub(crate) async fn serve<B>(&self, request: http::Request<B>) -> Response<tonic::body::Body>
    where
        B: Body<Data = Bytes> + Send,
    {
        let started = mesh::clock::instant();
        let (parts, body) = request.into_parts();
        let trace = parts.headers.get("traceparent").and_then(|value| value.to_str().ok());
        let trace = trace.and_then(Trace::parse).map_or_else(Trace::new, Trace::child);
        let timeout = deadline::timeout(&parts.headers, self.default_timeout, self.max_timeout);
        let ctx = Ctx::root(timeout.clone().unwrap_or(self.default_timeout), trace);
        let mut seen = Seen::default();
        let answer = ctx.scope(Box::pin(self.answer(&ctx, &parts, body, timeout, &mut seen))).await;
        let trace_id = ctx.trace_id();
        let mut response = match answer {
            Ok(response) => response,
            Err(failure) => self.failed(failure, &parts, &seen, &trace_id),
        };
        finish(&mut response, &parts.method, &seen, &trace_id);
        observe::answered(&parts.method, &seen.route, response.status(), started, &trace_id);
        response.map(|body| tonic::body::Body::new(http_body_util::Full::new(body)))
    }

    /// The steps, in the order of section 5 of the gateway's design.
    async fn answer<B>(
        &self,
        ctx: &Ctx,
        parts: &Parts,
        body: B,
        timeout: Result<Duration, Error>,
        seen: &mut Seen,
    ) -> Result<Response<Bytes>, Failure>
    where
        B: Body<Data = Bytes> + Send,
    {
        self.limits.head(parts)?;
        headers::check(parts)?;
        let peer = parts.extensions.get::<Peer>().map_or(IpAddr::from([0; 4]), |peer| peer.0.ip());
        let client = client_ip(peer, &parts.headers, &self.trusted_proxies)?;
        let caller = self.caller(ctx, &parts.headers).await;
        let path = parts.uri.path();
        // A token that cannot be checked now may be a good one: it is not held against anybody.
        if !matches!(caller, Ok(Some(_)) | Err(Error::KeysUnavailable)) {
            seen.rate = self.limiter.admit(path, client, mesh::clock::instant())?;
        }
        let caller = caller?;
        if let Some(at) = bad_escape(path.as_bytes()) {
            let problem = "`%` needs two hexadecimal digits";
            return Err(Error::MalformedPath { at, problem }.into());
        }
        let found = match self.route(&parts.method, path)? {
            Ok(found) => found,
            Err(allow) => return Ok(options(&allow)),
        };
        let binding = &found.route.binding;
        seen.route.clone_from(&binding.template.text);
        if let RequestBody::Field(field) = &binding.body {
            seen.body = Some(field.name().to_owned());
        }
        if caller.is_none() && !binding.method.anonymous {
            return Err(Error::TokenMissing.into());
        }
        timeout?;
        if !negotiate::shape(&parts.headers).1 && !is_http_body(&binding.method.output) {
            return Err(Error::NotAcceptable.into());
        }
        let metadata = headers::forwarded(parts, client)?;
        let frame = self.frame(ctx, parts, body, &found, caller.as_ref(), seen).await?;
        let call = upstream::call(
            found.route.upstream.clone(),
            &binding.method.path,
            metadata,
            frame,
            self.limits.reply,
        );
        let answer = within(ctx.deadline(), call)
            .await
            .map_err(|_late| Failure::from(Error::Deadline))??;
        let reply = wire_to_json(binding, &answer.message)?;
        Ok(self.succeeded(parts, binding, reply, &answer))
    }

    /// Who calls; `None` for whoever brings no token.
    async fn caller(&self, ctx: &Ctx, headers: &HeaderMap) -> Result<Option<Caller>, Error> {
        let Some(token) = bearer(headers)? else { return Ok(None) };
        match within(ctx.deadline(), (self.verify)(token)).await {
            Ok(Ok(caller)) => Ok(Some(caller)),
            Ok(Err(problem)) => Err(refusal(problem)),
            Err(_late) => Err(Error::Deadline),
        }
    }

    /// Finds the route (S13); the inner `Err` is what OPTIONS asks for.
    fn route<'a>(
        &'a self,
        method: &Method,
        path: &'a str,
    ) -> Result<Result<Found<'a, Route>, BTreeSet<String>>, Error> {
        let missed = match self.router.find(method.as_str(), path) {
            Ok(found) => return Ok(Ok(found)),
            Err(missed) => missed,
        };
        if *method == Method::HEAD
            && let Ok(found) = self.router.find(Method::GET.as_str(), path)
        {
            return Ok(Ok(found));
        }
        let known = METHODS.contains(&method.as_str());
        let hop = matches!(*method, Method::TRACE | Method::CONNECT);
        if !known && !hop {
            return Err(Error::MethodUnknown(crate::transcode::path::brief(method.as_str())));
        }
        let allow = match missed {
            Missed::Method(methods) => allowed(methods),
            Missed::Path if *method == Method::OPTIONS && path == "*" => {
                allowed([ANY.to_owned()].into())
            }
            Missed::Path if hop => BTreeSet::new(),
            Missed::Path => return Err(Error::RouteNotFound),
        };
        if *method == Method::OPTIONS {
            return Ok(Err(allow));
        }
        Err(Error::MethodNotAllowed { method: method.to_string(), allow })
    }

    /// Reads what the request says and makes the one frame that goes upstream.
    async fn frame<B>(
        &self,
        ctx: &Ctx,
        parts: &Parts,
        body: B,
        found: &Found<'_, Route>,
        caller: Option<&Caller>,
        seen: &mut Seen,
    ) -> Result<Bytes, Error>
    where
        B: Body<Data = Bytes> + Send,
    {
        let binding = &found.route.binding;
        let etag = conditional::if_match(&parts.headers, &parts.method, binding)?;
        seen.conditional = parts.headers.contains_key(header::IF_MATCH);
        let key = idempotency::key(&parts.headers)?;
        let request_id = key.map(|key| {
            let principal = caller.map_or("anonymous", Caller::principal);
            (key, idempotency::id(principal, key))
        });
        if binding.body != RequestBody::None && !body.is_end_stream() {
            negotiate::json_body(&parts.headers)?;
        }
        let read = self.limits.body(&parts.headers, body);
        let body = within(ctx.deadline(), read).await.map_err(|_late| Error::TooSlow)??;
        let variables = &binding.template.variables;
        let input = Input {
            variables: variables.iter().map(|v| found.value(v.first, v.end)).collect(),
            query: parts.uri.query().unwrap_or_default(),
            body: &body,
            etag,
            request_id,
            ignored: &self.ignored_parameters,
        };
        json_to_wire(binding, &input)
    }

    fn succeeded(
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

    fn failed(
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
fn finish(response: &mut Response<Bytes>, method: &Method, seen: &Seen, trace_id: &str) {
    let status = response.status();
    let length = response.body().len();
    let headers = response.headers_mut();
    if !matches!(status, StatusCode::NO_CONTENT | StatusCode::NOT_MODIFIED) {
        headers.insert(header::CONTENT_LENGTH, HeaderValue::from(length));
    }
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
    if *method == Method::HEAD {
        *response.body_mut() = Bytes::new();
    }
}

/// The answer to OPTIONS.
fn options(allow: &BTreeSet<String>) -> Response<Bytes> {
    let mut response = Response::new(Bytes::new());
    *response.status_mut() = StatusCode::NO_CONTENT;
    let allow = allow.iter().map(String::as_str).collect::<Vec<_>>().join(", ");
    if let Ok(allow) = HeaderValue::try_from(allow) {
        response.headers_mut().insert(header::ALLOW, allow);
    }
    response
}

/// What `Allow` names: what is bound, and what follows from that.
fn allowed(mut methods: BTreeSet<String>) -> BTreeSet<String> {
    if methods.remove(ANY) {
        methods.extend(METHODS.map(str::to_owned));
    }
    if methods.contains("GET") {
        methods.insert("HEAD".to_owned());
    }
    methods.insert("OPTIONS".to_owned());
    methods
}

#[cfg(test)]
mod tests;
