//! Calls to what is not gRPC: a payment provider, a carrier, a webhook.

use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, Method, Request, Response, StatusCode, Uri, header};
use http_body_util::{BodyExt as _, Full, Limited};
use hyper_util::{
    client::legacy::{Client, connect::HttpConnector},
    rt::{TokioExecutor, TokioTimer},
};

use crate::{
    clock,
    ctx::{Ctx, TRACEPARENT, Trace},
    deadline,
};

/// The largest answer that is read, in bytes.
const LARGEST: usize = 4 << 20;

/// One server that speaks HTTP/1.1. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Http {
    base: String,
    client: Client<HttpConnector, Full<Bytes>>,
}

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub enum Failure {
    /// The request was not sent: nothing has happened.
    #[error("not sent: {0}")]
    NotSent(String),
    /// The request may have been carried out.
    #[error("no answer: {0}")]
    Unsure(String),
}

// === impl Http ===

impl Http {
    /// A client of the server at `base`, as `http://host:port`.
    #[must_use]
    pub fn new(base: &str) -> Self {
        let mut connector = HttpConnector::new();
        connector.set_nodelay(true);
        connector.set_connect_timeout(Some(Duration::from_secs(1)));
        let client = Client::builder(TokioExecutor::new())
            .pool_timer(TokioTimer::new())
            .pool_idle_timeout(Duration::from_secs(30))
            .build(connector);
        Self { base: base.trim_end_matches('/').to_owned(), client }
    }

    /// Sends one request and reads the whole answer, within `timeout` and the deadline of the
    /// call this belongs to. Never tries twice what may have been sent.
    ///
    /// # Errors
    /// [`Failure::NotSent`] if nothing was sent, [`Failure::Unsure`] otherwise.
    pub async fn call(
        &self,
        method: Method,
        path: &str,
        headers: HeaderMap,
        body: Bytes,
        timeout: Duration,
    ) -> Result<(StatusCode, Bytes), Failure> {
        let mut request = Request::new(body);
        *request.method_mut() = method;
        *request.uri_mut() = path.parse().map_err(|error| not_sent(&error))?;
        *request.headers_mut() = headers;
        let (head, body) = self.exchange(request, timeout).await?.into_parts();
        Ok((head.status, body))
    }

    /// The same for a request whose URI has a path alone, with the head of the answer.
    pub(crate) async fn exchange(
        &self,
        request: Request<Bytes>,
        timeout: Duration,
    ) -> Result<Response<Bytes>, Failure> {
        let ctx = Ctx::current();
        let ends = clock::instant() + timeout;
        let ends = ctx.as_ref().map_or(ends, |ctx| ends.min(ctx.deadline()));
        if ends <= clock::instant() {
            return Err(not_sent(&"no time is left"));
        }
        let uri = format!("{}{}", self.base, request.uri());
        let uri: Uri = uri.parse().map_err(|error| not_sent(&error))?;
        let mut request = request.map(Full::new);
        *request.uri_mut() = uri;
        let span = ctx.as_ref().map(|ctx| {
            let server = request.uri().host().unwrap_or_default();
            ctx.spans().exchange(ctx, request.method().as_str(), server)
        });
        let span = span.unwrap_or_default();
        let trace = span.trace().or_else(|| ctx.map(|ctx| ctx.trace().child()));
        if let Some(trace) = trace.and_then(Trace::header) {
            request.headers_mut().insert(&TRACEPARENT, trace);
        }
        request
            .headers_mut()
            .entry(header::CONTENT_TYPE)
            .or_insert(header::HeaderValue::from_static("application/json"));
        let exchange = async {
            let response = self.client.request(request).await.map_err(|error| {
                if error.is_connect() {
                    not_sent(&error)
                } else {
                    Failure::Unsure(error.to_string())
                }
            })?;
            let (head, body) = response.into_parts();
            let body = Limited::new(body, LARGEST).collect().await;
            let body = body.map_err(|error| Failure::Unsure(error.to_string()))?;
            Ok(Response::from_parts(head, body.to_bytes()))
        };
        let answer = deadline::within(ends, exchange).await;
        let answer = answer.unwrap_or_else(|late| Err(Failure::Unsure(late.to_string())));
        match &answer {
            Ok(response) => span.exchanged(response.status()),
            Err(Failure::NotSent(_)) => span.failed("not_sent"),
            Err(Failure::Unsure(_)) => span.failed("unsure"),
        }
        span.end();
        answer
    }
}

fn not_sent(error: &dyn std::fmt::Display) -> Failure {
    Failure::NotSent(error.to_string())
}
