use std::{
    collections::HashMap,
    convert::Infallible,
    sync::{Arc, Mutex},
};

use clap::Parser as _;
use http::{HeaderValue, Request};
use http_body::Frame;
use http_body_util::{BodyExt as _, Full, StreamBody};
use mesh::auth::TokenProblem;
use prost_reflect::{DescriptorPool, DynamicMessage};
use serde_json::{Value, json};
use tower::{ServiceExt as _, service_fn};

use super::*;
use crate::{
    Config, Gateway, Outside,
    edge::auth::Verify,
    schema::compile::Access,
    transcode::{PREFIX, json_to_wire::frame},
    upstream::Upstream,
};

mod edge;
mod replies;
mod rest;
mod routing;
mod streams;

/// A gateway in front of something that answers as a test says.
struct Bed {
    gateway: Gateway,
    calls: Arc<Mutex<Vec<Call>>>,
}

/// What came upstream.
#[derive(Clone, Debug)]
struct Call {
    path: String,
    headers: HeaderMap,
    message: Value,
    timeout: Duration,
}

/// What the upstream does.
#[derive(Clone, Debug)]
enum Act {
    /// Sends its request back, or an empty answer where the types differ.
    Echo,
    /// Answers with this message.
    Answer(Value),
    /// Answers with a message, and says this beside it.
    Say(Value, &'static [(&'static str, &'static str)]),
    /// Fails in the trailers.
    Fail(&'static [(&'static str, &'static str)]),
    /// Fails in the head.
    FailAtOnce(&'static [(&'static str, &'static str)]),
    /// Answers with these bytes, then succeeds.
    Bytes(Vec<u8>),
    /// Does not answer.
    Hang,
    /// Answers with whatever a test feeds it, when it does.
    Feed(streams::Feed),
}

/// What came back.
#[derive(Clone, Debug)]
struct Reply {
    status: u16,
    headers: HeaderMap,
    body: Value,
    bytes: Bytes,
}

// === impl Bed ===

impl Bed {
    fn new(act: Act) -> Self {
        Self::with(act, &[])
    }

    fn with(act: Act, flags: &[&str]) -> Self {
        let pool = pool();
        let calls = Arc::new(Mutex::new(Vec::new()));
        let mut args = vec!["gateway", "--upstream=*=echo"];
        args.extend(flags);
        let outside = Outside {
            access: |path: &str| match path.rsplit('/').next() {
                Some("CreateThing" | "UpdateThing" | "DeleteThing" | "StopThing") => Access::Token,
                Some("Between") => Access::Internal,
                _ => Access::Anonymous,
            },
            upstream: |_: &str| upstream(act.clone(), pool.clone(), Arc::clone(&calls)),
            verify: verify(),
        };
        let config = Config::try_parse_from(args).expect("settings");
        let gateway = Gateway::new(pool.clone(), config, outside).expect("a gateway");
        Self { gateway, calls }
    }

    async fn send(&self, request: Request<Full<Bytes>>) -> Reply {
        let response = self.gateway.clone().oneshot(request).await.expect("an answer");
        let (head, body) = response.into_parts();
        let bytes = body.collect().await.expect("a body").to_bytes();
        let body = serde_json::from_slice(&bytes).unwrap_or(Value::Null);
        Reply { status: head.status.as_u16(), headers: head.headers, body, bytes }
    }

    async fn get(&self, path: &str) -> Reply {
        self.send(request("GET", path, &[], "")).await
    }

    /// What came upstream, the last call.
    fn call(&self) -> Call {
        self.calls.lock().expect("no panic").last().expect("a call").clone()
    }

    fn count(&self) -> usize {
        self.calls.lock().expect("no panic").len()
    }
}

// === impl Reply ===

impl Reply {
    fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).and_then(|value| value.to_str().ok())
    }

    fn reason(&self) -> &str {
        self.body["details"][0]["reason"].as_str().unwrap_or_default()
    }

    fn domain(&self) -> &str {
        self.body["details"][0]["domain"].as_str().unwrap_or_default()
    }
}

fn request(method: &str, path: &str, headers: &[(&str, &str)], body: &str) -> Request<Full<Bytes>> {
    let mut request = Request::builder().method(method).uri(path).header("host", "shop.example");
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    request.body(Full::new(Bytes::copy_from_slice(body.as_bytes()))).expect("a request")
}

fn pool() -> DescriptorPool {
    let root = concat!(env!("CARGO_MANIFEST_DIR"), "/testdata");
    let contract = concat!(env!("CARGO_MANIFEST_DIR"), "/../proto");
    let mut compiler = protox::Compiler::new([root, contract]).expect("folders");
    compiler.include_imports(true).open_file("echo.proto").expect("echo.proto compiles");
    DescriptorPool::decode(compiler.encode_file_descriptor_set().as_slice()).expect("a pool")
}

/// `good` is a token, everything else is named for what is wrong with it.
fn verify() -> Verify {
    Arc::new(|token| {
        Box::pin(async move {
            match token.as_str() {
                "good" => Ok(Caller::customer("users/1")),
                "expired" => Err(TokenProblem::Expired),
                "unknowable" => Err(TokenProblem::KeysUnavailable),
                _ => Err(TokenProblem::Invalid),
            }
        })
    })
}

fn upstream(act: Act, pool: DescriptorPool, calls: Arc<Mutex<Vec<Call>>>) -> Upstream {
    Upstream::new(service_fn(move |request: Request<tonic::body::Body>| {
        let (act, pool, calls) = (act.clone(), pool.clone(), Arc::clone(&calls));
        async move {
            let (head, body) = request.into_parts();
            let bytes = body.collect().await.expect("a request").to_bytes();
            let path = head.uri.path().to_owned();
            let (service, method) = path[1..].split_once('/').expect("a method");
            let service = pool.get_service_by_name(service).expect("a service");
            let method = service.methods().find(|m| m.name() == method).expect("a method");
            let input =
                DynamicMessage::decode(method.input(), &bytes[PREFIX..]).expect("a message");
            assert_eq!(
                usize::try_from(u32::from_be_bytes(bytes[1..5].try_into().expect("four"))),
                Ok(bytes.len() - PREFIX)
            );
            let message = serde_json::to_value(&input).expect("JSON");
            let timeout = Ctx::current().expect("a call").time_left();
            let call = Call {
                path: path.clone(),
                headers: head.headers,
                message: message.clone(),
                timeout,
            };
            calls.lock().expect("no panic").push(call);
            let output = |value: Value| {
                let message =
                    DynamicMessage::deserialize(method.output(), value).expect("an answer");
                frame(&message)
            };
            let (bytes, metadata, trailers): (Bytes, _, &[(&str, &str)]) = match act {
                Act::Echo if method.input() == method.output() => (output(message), &[][..], &[]),
                Act::Echo => (output(json!({})), &[], &[]),
                Act::Answer(value) => (output(value), &[], &[]),
                Act::Say(value, said) => (output(value), said, &[]),
                Act::Bytes(bytes) => (bytes.into(), &[], &[]),
                Act::Fail(trailers) => (Bytes::new(), &[], trailers),
                Act::FailAtOnce(head) => return Ok(answer(None, head)),
                Act::Hang => std::future::pending().await,
                Act::Feed(feed) => return Ok(feed.answer(&method.output())),
            };
            let mut end = map(trailers);
            end.entry("grpc-status").or_insert(HeaderValue::from_static("0"));
            let frames = [Ok(Frame::data(bytes)), Ok(Frame::trailers(end))];
            Ok::<_, Infallible>(answer(Some(frames), metadata))
        }
    }))
}

type Frames = [Result<Frame<Bytes>, tonic::Status>; 2];

fn answer(frames: Option<Frames>, headers: &[(&str, &str)]) -> http::Response<tonic::body::Body> {
    let body = frames.map_or_else(tonic::body::Body::empty, |frames| {
        tonic::body::Body::new(StreamBody::new(tokio_stream::iter(frames)))
    });
    let mut response = http::Response::new(body);
    *response.headers_mut() = map(headers);
    response.headers_mut().insert("content-type", HeaderValue::from_static("application/grpc"));
    response
}

fn map(pairs: &[(&str, &str)]) -> HeaderMap {
    let pairs: HashMap<String, String> =
        pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
    HeaderMap::try_from(&pairs).expect("headers")
}
