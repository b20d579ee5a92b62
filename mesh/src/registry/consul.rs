//! `consul://host:port` and `consul+tls://host:port`: Consul's HTTP API, from its version 1.8.7 on.
//!
//! Written by us, because the crate that offers this takes a refused registration for a success,
//! sends tokens where Consul does not look, and asks without a pause.

use std::{
    path::PathBuf,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use bytes::Bytes;
use futures_util::future::BoxFuture;
use http::{HeaderValue, Method, Request, Response, StatusCode};
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use tokio::sync::{Notify, watch};

use super::{
    Address, Backend, Failure, Found, Malformed, Options, Registration, lease::Keeper, query,
};
use crate::{
    client::http::{self as client, Http},
    config, tls,
};

mod answer;
mod keep;
mod follow;

/// How long Consul may hold a question until something changes.
const WAIT: Duration = Duration::from_secs(55);
/// The longest that it holds one, by its own documentation.
const WAIT_MAX: Duration = Duration::from_secs(600);
/// How long any other answer may take.
const PATIENCE: Duration = Duration::from_secs(2);
/// What may stand in a path or in the value of a query as it is.
const PLAIN: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'_').remove(b'.').remove(b'~');
/// Of an answer that we do not understand, so much is quoted.
const QUOTED: usize = 200;

/// Consul, as one agent of it knows the world.
pub(super) struct Consul {
    agent: Arc<Agent>,
    settings: Settings,
}

/// What the URL says beside the agent's address.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Settings {
    /// The datacentre that is asked; the agent's own without it.
    datacenter: Option<String>,
    wait: Duration,
    /// Where it says nothing, what the instance is like decides.
    check: Option<Check>,
}

/// Who finds out whether an instance is ready.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Check {
    /// The agent asks.
    Asked,
    /// The instance says so, again and again: where the agent cannot reach it, or would have to
    /// show a certificate.
    Told,
}

/// One agent, and what is needed to be let in.
struct Agent {
    exchange: Box<dyn Exchange>,
    namespace: Option<String>,
    token: Token,
    /// Whether the last question had no answer.
    silent: Mutex<bool>,
    /// How often it has come back: it may have forgotten everything.
    returns: watch::Sender<u64>,
}

/// Carries a request to the agent: HTTP, over TLS or not, or in tests the rules that Consul
/// documents.
pub(crate) trait Exchange: Send + Sync {
    /// The answer to a request whose URI has a path alone.
    fn exchange(
        &self,
        request: Request<Bytes>,
        timeout: Duration,
    ) -> BoxFuture<'_, Result<Response<Bytes>, client::Failure>>;
}

/// The token, which is in no log, no URL and no error.
struct Token {
    file: Option<PathBuf>,
    value: Mutex<Option<HeaderValue>>,
}

// === impl Consul ===

impl Consul {
    /// Reads `host:port?dc=…&ns=…&wait=55s&check=grpc|ttl`.
    pub(super) fn open(rest: &str, options: &Options) -> Result<Self, Malformed> {
        let (address, parameters) = split(rest)?;
        if !address.is_loopback() && !options.allow_plaintext {
            return Err(Malformed::Setting(format!(
                "consul://{address} is not loopback, and what is said to it is not encrypted: \
                 consul+tls:// encrypts it, --allow-plaintext allows it"
            )));
        }
        let exchange = Box::new(Http::new(&format!("http://{address}")));
        Self::over(exchange, parameters, options)
    }

    /// The same over TLS.
    pub(super) fn open_tls(rest: &str, options: &Options) -> Result<Self, Malformed> {
        let (address, parameters) = split(rest)?;
        let wrong = |why: String| Malformed::Setting(format!("consul+tls://{address}: {why}"));
        let files = options.tls.clone().unwrap_or_else(|| tls::Files::none(tls::Flags::Consul));
        let tls = tls::Connector::http(files).map_err(|error| wrong(format!("{error:#}")))?;
        let exchange = Box::new(Http::over_tls(&format!("https://{address}"), tls));
        Self::over(exchange, parameters, options)
    }

    fn over(
        exchange: Box<dyn Exchange>,
        parameters: &str,
        options: &Options,
    ) -> Result<Self, Malformed> {
        let mut settings = Settings { datacenter: None, wait: WAIT, check: None };
        let mut namespace = None;
        for (key, value) in query(parameters)? {
            let wrong = |why: &str| Malformed::Setting(format!("{key}={value}: {why}"));
            match key.as_str() {
                "dc" => settings.datacenter = Some(value),
                "ns" => namespace = Some(value),
                "wait" => {
                    let wait = config::duration(&value).map_err(|why| wrong(&why))?;
                    if wait < Duration::from_secs(1) || wait > WAIT_MAX {
                        return Err(wrong("Consul waits from 1s to 10m"));
                    }
                    settings.wait = wait;
                }
                "check" => {
                    settings.check = Some(match value.as_str() {
                        "grpc" => Check::Asked,
                        "ttl" => Check::Told,
                        _ => return Err(wrong("a check is grpc or ttl")),
                    });
                }
                "token" => {
                    let why = "a token in a URL is read by others: --consul-token-file, or \
                               CONSUL_HTTP_TOKEN";
                    return Err(Malformed::Setting(why.to_owned()));
                }
                _ => return Err(wrong("Consul is told dc, ns, wait and check")),
            }
        }
        let token = Token::new(options)?;
        let agent = Agent {
            exchange,
            namespace,
            token,
            silent: Mutex::new(false),
            returns: watch::Sender::new(0),
        };
        Ok(Self { agent: Arc::new(agent), settings })
    }
}

impl Backend for Consul {
    fn source(&self, service: &str, _hurry: Arc<Notify>) -> Found {
        let agent = Arc::clone(&self.agent);
        Found::Asked(Box::new(follow::Follow::new(agent, &self.settings, service)))
    }

    fn keeper(&self, registration: Registration) -> Option<Box<dyn Keeper>> {
        let agent = Arc::clone(&self.agent);
        Some(Box::new(keep::Keep::new(agent, &self.settings, registration)))
    }
}

// === impl Agent ===

impl Agent {
    /// Asks, and looks at the status before anybody looks at the body.
    async fn ask(
        &self,
        method: Method,
        path: &str,
        parameters: &[(&str, &str)],
        body: Bytes,
        timeout: Duration,
    ) -> Result<Response<Bytes>, Failure> {
        let mut uri = path.to_owned();
        let namespace = self.namespace.as_deref().map(|namespace| ("ns", namespace));
        let mut separator = '?';
        for (key, value) in parameters.iter().copied().chain(namespace) {
            uri.push(separator);
            separator = '&';
            uri.push_str(key);
            if !value.is_empty() {
                uri.push('=');
                uri.extend(utf8_percent_encode(value, PLAIN));
            }
        }
        let mut request = Request::new(body);
        *request.method_mut() = method;
        *request.uri_mut() =
            uri.parse().map_err(|error| Failure::Unreachable(format!("{uri}: {error}")))?;
        if let Some(token) = self.token.header() {
            request.headers_mut().insert("x-consul-token", token);
        }
        let answered = match self.exchange.exchange(request, timeout).await {
            // An agent that is starting, or has lost its servers, is as good as none.
            Ok(answer) if answer.status().is_server_error() => {
                Err(Failure::Answered(quoted(&answer)))
            }
            Ok(answer) => Ok(answer),
            Err(client::Failure::Untrusted(why)) => Err(Failure::Untrusted(why)),
            Err(failure) => Err(Failure::Unreachable(failure.to_string())),
        };
        let silent = answered.is_err();
        let was = std::mem::replace(
            &mut *self.silent.lock().unwrap_or_else(PoisonError::into_inner),
            silent,
        );
        if was && !silent {
            self.returns.send_modify(|count| *count += 1);
        }
        let answer = answered?;
        match answer.status() {
            status if status.is_success() => Ok(answer),
            StatusCode::FORBIDDEN | StatusCode::UNAUTHORIZED => {
                let why = format!("{} ({})", quoted(&answer), self.token.origin());
                self.token.read_again();
                Err(Failure::Denied(why))
            }
            _ => Err(Failure::Answered(quoted(&answer))),
        }
    }

    async fn put(
        &self,
        path: &str,
        parameters: &[(&str, &str)],
        body: Bytes,
    ) -> Result<(), Failure> {
        self.ask(Method::PUT, path, parameters, body, PATIENCE).await.map(drop)
    }
}

// === impl Exchange ===

impl Exchange for Http {
    fn exchange(
        &self,
        request: Request<Bytes>,
        timeout: Duration,
    ) -> BoxFuture<'_, Result<Response<Bytes>, client::Failure>> {
        Box::pin(self.exchange(request, timeout))
    }
}

// === impl Token ===

impl Token {
    fn new(options: &Options) -> Result<Self, Malformed> {
        let value = match (&options.consul_token_file, &options.consul_token) {
            (Some(path), _) => Some(read(path)?),
            (None, Some(token)) => Some(secret(token).ok_or_else(|| {
                Malformed::Setting("CONSUL_HTTP_TOKEN is not a token".to_owned())
            })?),
            (None, None) => None,
        };
        Ok(Self { file: options.consul_token_file.clone(), value: Mutex::new(value) })
    }

    fn header(&self) -> Option<HeaderValue> {
        self.value.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Where the token that was refused comes from.
    fn origin(&self) -> String {
        match &self.file {
            Some(file) => format!("with the token in {}", file.display()),
            None if self.header().is_some() => "with the token in CONSUL_HTTP_TOKEN".to_owned(),
            None => "without a token: set CONSUL_HTTP_TOKEN or --consul-token-file".to_owned(),
        }
    }

    /// A token that was refused may have been replaced in its file.
    fn read_again(&self) {
        let Some(file) = &self.file else { return };
        match read(file) {
            Ok(token) => {
                *self.value.lock().unwrap_or_else(PoisonError::into_inner) = Some(token);
            }
            Err(error) => tracing::warn!(%error, "the token for Consul stays as it was"),
        }
    }
}

fn read(path: &PathBuf) -> Result<HeaderValue, Malformed> {
    let wrong = |why: &dyn std::fmt::Display| {
        Malformed::Setting(format!("the token for Consul in {}: {why}", path.display()))
    };
    let text = std::fs::read_to_string(path).map_err(|error| wrong(&error))?;
    secret(text.trim()).ok_or_else(|| wrong(&"it is not a token"))
}

fn secret(token: &str) -> Option<HeaderValue> {
    let mut value = HeaderValue::from_str(token).ok().filter(|value| !value.is_empty())?;
    value.set_sensitive(true);
    Some(value)
}

/// The address, and what stands behind it.
fn split(rest: &str) -> Result<(Address, &str), Malformed> {
    let (address, parameters) = rest.split_once('?').unwrap_or((rest, ""));
    Ok((address.trim_end_matches('/').parse()?, parameters))
}

/// A path with one segment of somebody's choosing at its end.
fn path(prefix: &str, segment: &str) -> String {
    format!("{prefix}{}", utf8_percent_encode(segment, PLAIN))
}

/// The status, and the beginning of what was said with it.
fn quoted(answer: &Response<Bytes>) -> String {
    let text = String::from_utf8_lossy(answer.body());
    let said: String = text.trim().chars().filter(|c| !c.is_control()).take(QUOTED).collect();
    if said.is_empty() {
        answer.status().to_string()
    } else {
        format!("{}: {said}", answer.status())
    }
}

#[cfg(test)]
mod tests;
