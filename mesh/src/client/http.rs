//! Calls to what is not gRPC: a payment provider, a carrier, a webhook.

use std::{
    error::Error,
    io,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use bytes::Bytes;
use futures_util::future::BoxFuture;
use http::{HeaderMap, Method, Request, Response, StatusCode, Uri, header};
use http_body_util::{BodyExt as _, Full, Limited};
use hyper_util::{
    client::legacy::{
        Client,
        connect::{Connected, Connection, HttpConnector},
    },
    rt::{TokioExecutor, TokioIo, TokioTimer},
};
use tokio::io::{AsyncRead, AsyncWrite};

use super::{
    classify::BreakerVerdict,
    guarded::{Guard, Time},
    policy::Policy,
};
use crate::{
    clock,
    ctx::{Ctx, TRACEPARENT, Trace},
    deadline, tls,
};

/// The largest answer that is read, in bytes.
const LARGEST: usize = 4 << 20;

/// How long TCP may take, and TLS after it.
const CONNECT: Duration = Duration::from_secs(1);
const HANDSHAKE: Duration = Duration::from_secs(2);

/// One server that speaks HTTP/1.1. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Http {
    base: String,
    tls: Option<tls::Connector>,
    client: Client<Dial, Full<Bytes>>,
    guard: Option<Arc<Guard>>,
}

/// Opens connections: TCP, and TLS over it where we were told whom to trust.
#[derive(Clone, Debug)]
struct Dial {
    tcp: HttpConnector,
    tls: Option<tls::Connector>,
}

/// What a connection runs over.
trait Io: AsyncRead + AsyncWrite + Send + Unpin {}

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub enum Failure {
    /// The request was not sent: nothing has happened.
    #[error("not sent: {0}")]
    NotSent(String),
    /// The request may have been carried out.
    #[error("no answer: {0}")]
    Unsure(String),
    /// The server is not who it should be, or does not take us for whom it lets in: nothing has
    /// happened.
    #[error("no trust: {0}")]
    Untrusted(String),
}

// === impl Http ===

impl Http {
    /// A client of the server at `base`, as `http://host:port`.
    #[must_use]
    pub fn new(base: &str) -> Self {
        Self::over(base, None)
    }

    /// The same over TLS, for `https://host:port`.
    #[must_use]
    pub(crate) fn over_tls(base: &str, tls: tls::Connector) -> Self {
        Self::over(base, Some(tls))
    }

    fn over(base: &str, tls: Option<tls::Connector>) -> Self {
        let mut tcp = HttpConnector::new();
        tcp.set_nodelay(true);
        tcp.set_connect_timeout(Some(CONNECT));
        tcp.enforce_http(tls.is_none());
        let client = Client::builder(TokioExecutor::new())
            .pool_timer(TokioTimer::new())
            .pool_idle_timeout(Duration::from_secs(30))
            .build(Dial { tcp, tls: tls.clone() });
        Self { base: base.trim_end_matches('/').to_owned(), tls, client, guard: None }
    }

    /// The same as an upstream that is called `name`: with places, and refused as
    /// [`Failure::NotSent`] while it fails. An answer of 500 and above is a failure of the server,
    /// 429 says nothing of it. Of the policy counts what is about one attempt.
    #[must_use]
    pub fn guarded(self, name: &str, policy: Policy) -> Self {
        Self { guard: Some(Guard::new(name, policy)), ..self }
    }

    /// Sends one request and reads the whole answer, within `timeout` and the deadline of the
    /// call this belongs to. Never tries twice what may have been sent.
    ///
    /// # Errors
    /// [`Failure::NotSent`] if nothing was sent, [`Failure::Untrusted`] if nothing was taken in,
    /// [`Failure::Unsure`] otherwise.
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
        let longest = self.guard.as_ref().and_then(|guard| guard.longest());
        let time = Time::of(longest.map_or(timeout, |longest| longest.min(timeout)), ctx.as_ref());
        if time.ends <= clock::instant() {
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
        let answer = self.send(request, time).await;
        match &answer {
            Ok(response) => span.exchanged(response.status()),
            Err(Failure::NotSent(_) | Failure::Untrusted(_)) => span.failed("not_sent"),
            Err(Failure::Unsure(_)) => span.failed("unsure"),
        }
        span.end();
        answer
    }

    /// The exchange, if nothing is against it.
    async fn send(
        &self,
        request: Request<Full<Bytes>>,
        time: Time,
    ) -> Result<Response<Bytes>, Failure> {
        let entry = match &self.guard {
            Some(guard) => Some(guard.enter(time).await.map_err(|refused| not_sent(&refused))?),
            None => None,
        };
        let exchange = async {
            let response = self.client.request(request).await.map_err(|error| {
                if let Some(why) = self.distrust(&error) {
                    Failure::Untrusted(why)
                } else if error.is_connect() {
                    Failure::NotSent(whole(&error))
                } else {
                    Failure::Unsure(whole(&error))
                }
            })?;
            let (head, body) = response.into_parts();
            let body = Limited::new(body, LARGEST).collect().await;
            let body = body.map_err(|error| Failure::Unsure(error.to_string()))?;
            Ok(Response::from_parts(head, body.to_bytes()))
        };
        match deadline::within(time.ends, exchange).await {
            Ok(answer) => {
                if let Some(entry) = entry {
                    entry.ended(verdict(&answer));
                }
                answer
            }
            Err(late) => {
                if let Some(entry) = entry {
                    entry.late();
                }
                Err(Failure::Unsure(late.to_string()))
            }
        }
    }

    /// What to do if an error is that there is no trust. That it does not take our certificate, a
    /// server says only when we have sent something: before it has read any of it.
    fn distrust(&self, error: &(dyn Error + 'static)) -> Option<String> {
        let shook = tls::untrusted(error).map(ToString::to_string);
        shook.or_else(|| Some(self.tls.as_ref()?.files().distrust(error)?.to_string()))
    }
}

// === impl Dial ===

impl tower::Service<Uri> for Dial {
    type Response = TokioIo<Box<dyn Io>>;
    type Error = Box<dyn Error + Send + Sync>;
    type Future = BoxFuture<'static, Result<Self::Response, Self::Error>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        self.tcp.poll_ready(cx).map_err(Into::into)
    }

    fn call(&mut self, uri: Uri) -> Self::Future {
        let host = uri.host().unwrap_or_default().trim_matches(['[', ']']).to_owned();
        let stream = self.tcp.call(uri);
        let tls = self.tls.clone();
        Box::pin(async move {
            let stream = stream.await?.into_inner();
            let Some(tls) = tls else { return Ok(TokioIo::new(Box::new(stream) as Box<dyn Io>)) };
            // Connections last long: what changed since the last one is read now.
            tls.reload();
            let late = |_late| io::Error::new(io::ErrorKind::TimedOut, "no TLS in time");
            let shaken = tokio::time::timeout(HANDSHAKE, tls.shake(&host, stream)).await;
            Ok(TokioIo::new(Box::new(shaken.map_err(late)??) as Box<dyn Io>))
        })
    }
}

// === impl Io ===

impl<T: AsyncRead + AsyncWrite + Send + Unpin> Io for T {}

impl Connection for Box<dyn Io> {
    fn connected(&self) -> Connected {
        Connected::new()
    }
}

/// What an answer, or none, says of a server of which there is no other instance to go to.
fn verdict(answer: &Result<Response<Bytes>, Failure>) -> BreakerVerdict {
    match answer.as_ref().map(Response::status) {
        Ok(StatusCode::TOO_MANY_REQUESTS) => BreakerVerdict::Neutral,
        Ok(status) if !status.is_server_error() => BreakerVerdict::Success,
        Ok(_) | Err(_) => BreakerVerdict::Failure,
    }
}

fn not_sent(error: &dyn std::fmt::Display) -> Failure {
    Failure::NotSent(error.to_string())
}

/// An error with all that led to it.
fn whole(error: &(dyn Error + 'static)) -> String {
    let (mut text, mut next) = (error.to_string(), error.source());
    while let Some(cause) = next {
        text.push_str(": ");
        text.push_str(&cause.to_string());
        next = cause.source();
    }
    text
}
