//! One request from its head to its reply, step by step; each step may refuse it.

use std::{collections::BTreeSet, net::IpAddr, pin::pin, sync::Arc, time::Duration};

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Method, Response, header, request::Parts};
use http_body::Body;
use mesh::{Ctx, auth::Caller, ctx::Trace, deadline::within, server::Peer};
use prost_reflect::FieldDescriptor;

use crate::{
    Inner, Route,
    edge::{
        auth::{bearer, refusal},
        client_ip::client_ip,
        cors, deadline, headers,
        limits::take_rest,
        rate_limit::Admitted,
    },
    error::{Error, Failure},
    observe::{self, Line},
    reply::{conditional, idempotency, negotiate},
    route::{
        template::bad_escape,
        trie::{ANY, Found, Missed},
    },
    schema::{Binding, Body as RequestBody, compile::is_http_body},
    stream::{Stream, reply::Format},
    transcode::{Input, json_to_wire, wire_to_json},
    upstream,
};

mod answer;

use answer::{Content, finish, options};

/// What is known of a request by the time it is answered, well or not.
#[derive(Debug, Default)]
struct Seen {
    route: String,
    /// The field of the request that is the body.
    body: Option<String>,
    rate: Option<Admitted>,
    /// The site of the page that may read the reply.
    origin: Option<HeaderValue>,
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
        let above = trace.and_then(Trace::parse).map_or_else(Trace::new, Trace::from_outside);
        let span = self.spans().request(above, observe::known(&parts.method));
        let timeout = deadline::timeout(&parts.headers, self.default_timeout, self.max_timeout);
        let ctx = Ctx::root(timeout.clone().unwrap_or(self.default_timeout), above.child());
        let ctx = ctx.recorded(self.spans(), span);
        let mut seen = Seen::default();
        let mut body = pin!(body);
        let answer = self.answer(&ctx, &parts, body.as_mut(), timeout, &mut seen);
        let answer = ctx.scope(Box::pin(answer)).await;
        let trace_id = ctx.trace_id();
        let mut response = match answer {
            Ok(response) => response,
            Err(failure) => self.failed(failure, &parts, &seen, &trace_id).map(Content::Whole),
        };
        finish(&mut response, &parts.method, &seen, &trace_id);
        if !matches!(response.body(), Content::Stream(_)) {
            observe::answered(&parts.method, &seen.route, response.status(), started, &trace_id);
            let status = response.status().as_u16();
            ctx.span().routed(observe::known(&parts.method), &seen.route, status);
        }
        take_rest(&parts.headers, body).await;
        response.map(|content| match content {
            Content::Whole(bytes) => tonic::body::Body::new(http_body_util::Full::new(bytes)),
            Content::Stream(stream) => tonic::body::Body::new(stream),
            Content::Unsaid => tonic::body::Body::empty(),
        })
    }

    /// The steps, in the order of section 5 of the gateway's design.
    async fn answer<B>(
        &self,
        ctx: &Ctx,
        parts: &Parts,
        body: B,
        timeout: Result<Duration, Error>,
        seen: &mut Seen,
    ) -> Result<Response<Content>, Failure>
    where
        B: Body<Data = Bytes> + Send,
    {
        self.limits.head(parts)?;
        headers::check(parts)?;
        let peer = parts.extensions.get::<Peer>().map_or(IpAddr::from([0; 4]), |peer| peer.0.ip());
        let client = client_ip(peer, &parts.headers, &self.trusted_proxies)?;
        let path = parts.uri.path();
        seen.origin = cors::origin(&parts.headers, &self.cors_origins);
        if cors::is_preflight(parts) {
            return Ok(self.preflight(path, seen)?.map(Content::Whole));
        }
        let caller = self.caller(ctx, &parts.headers).await;
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
            Err(allow) => return Ok(options(&allow).map(Content::Whole)),
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
        let format = acceptable(binding, &parts.headers)?;
        let metadata = headers::forwarded(parts, client)?;
        let frame = self.frame(ctx, parts, body, &found, caller.as_ref(), seen).await?;
        if binding.method.streams {
            return self.stream(ctx, parts, found.route, format, metadata, frame).await;
        }
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
        Ok(self.succeeded(parts, binding, reply, &answer).map(Content::Whole))
    }

    /// A call that is answered with a stream: its time is its own, for nobody waits for its end.
    async fn stream(
        &self,
        ctx: &Ctx,
        parts: &Parts,
        route: &Route,
        format: Format,
        metadata: HeaderMap,
        frame: Bytes,
    ) -> Result<Response<Content>, Failure> {
        let age = self.max_stream_age;
        let span = ctx.span().clone();
        let ctx = Ctx::root(deadline::timeout(&parts.headers, age, age)?, ctx.trace())
            .recorded(self.spans(), span.clone());
        let binding = &route.binding;
        let call = upstream::stream(
            route.upstream.clone(),
            &binding.method.path,
            metadata,
            frame,
            self.limits.reply,
        );
        let (started, trace) = (mesh::clock::instant(), ctx.trace_id());
        let (shared, pool) = (Arc::clone(binding), self.pool.clone());
        let begun = Stream::begin(&ctx, call, shared, format, pool, self.leaving.clone());
        ctx.scope(async {
            let stream = begun.await?;
            let mut headers = headers::returned(stream.metadata());
            stream.head(&mut headers);
            let content = if parts.method == Method::HEAD {
                Content::Unsaid
            } else {
                let (method, route) = (parts.method.clone(), binding.template.text.clone());
                Content::Stream(stream.body(Line::new(method, route, started, trace, span)))
            };
            let mut response = Response::new(content);
            *response.headers_mut() = headers;
            Ok(response)
        })
        .await
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

    /// S13: what a page of another site may ask of a path.
    fn preflight(&self, path: &str, seen: &Seen) -> Result<Response<Bytes>, Error> {
        let allow = self.route(&Method::OPTIONS, path)?.err().unwrap_or_default();
        let mut response = options(&allow);
        if seen.origin.is_some() {
            cors::preflight(&mut response, &allow);
        }
        Ok(response)
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
        let resume = match &binding.resume {
            Some(_) => conditional::last_event_id(&parts.headers)?,
            None => None,
        };
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
            resume,
            ignored: &self.ignored_parameters,
        };
        json_to_wire(binding, &input)
    }
}

/// Checks that what is answered may be, and says how a stream of it looks.
fn acceptable(binding: &Binding, headers: &HeaderMap) -> Result<Format, Error> {
    let raw = |field: &FieldDescriptor| field.kind().as_message().is_some_and(is_http_body);
    if is_http_body(&binding.method.output) || binding.response.as_ref().is_some_and(raw) {
        return Ok(Format::Raw);
    }
    if binding.method.streams {
        return negotiate::format(headers);
    }
    let json = negotiate::shape(headers).1;
    json.then_some(Format::Array).ok_or(Error::NotAcceptable("application/json"))
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
