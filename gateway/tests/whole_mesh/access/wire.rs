//! One call over gRPC, with messages made from the contract: no generated client stands between.

use std::{collections::HashMap, time::Duration};

use bytes::{BufMut as _, Bytes, BytesMut};
use http::HeaderMap;
use http_body_util::{BodyExt as _, Full};
use mesh::{
    Channel, Ctx,
    auth::{Rule, Rules},
    ctx::Trace,
};
use prost::Message as _;
use prost_reflect::{DescriptorPool, DynamicMessage, MethodDescriptor};
use serde_json::Value;
use tonic::{Code, Status, body::Body};
use tonic_types::StatusExt as _;
use tower::ServiceExt as _;

/// How long a call may take.
const PATIENCE: Duration = Duration::from_secs(10);

/// What the descriptors say.
#[derive(Debug)]
pub struct Contract {
    methods: HashMap<String, MethodDescriptor>,
    rules: Rules,
}

/// What a call was answered.
pub struct Answer {
    pub code: Code,
    pub message: String,
    pub details: Bytes,
    /// The message as JSON; null where there is none.
    pub body: Value,
}

// === impl Contract ===

impl Contract {
    pub fn read() -> Self {
        let pool = DescriptorPool::decode(proto::DESCRIPTORS).expect("descriptors");
        let rules = Rules::of(proto::DESCRIPTORS).expect("descriptors");
        let methods = pool
            .services()
            .filter(|service| service.full_name().starts_with("ordermesh."))
            .flat_map(|service| service.methods().collect::<Vec<_>>())
            .map(|method| (method.full_name().to_owned(), method))
            .collect();
        Self { methods, rules }
    }

    /// Every rpc of ours, by its full name.
    pub fn methods(&self) -> Vec<String> {
        let mut names: Vec<String> = self.methods.keys().cloned().collect();
        names.sort();
        names
    }

    pub fn rule(&self, method: &str) -> Option<&Rule> {
        self.rules.rule(&path(self.method(method)))
    }

    fn method(&self, name: &str) -> &MethodDescriptor {
        self.methods.get(name).unwrap_or_else(|| panic!("the contract has no {name}"))
    }

    /// Makes one call. What is answered by a stream is answered by its first message, or by its
    /// end if that comes first.
    pub async fn call(
        &self,
        channel: Channel,
        method: &str,
        token: Option<&str>,
        request: &Value,
    ) -> Answer {
        let method = self.method(method);
        let message = DynamicMessage::deserialize(method.input(), request)
            .unwrap_or_else(|error| panic!("{}: {error}: {request}", method.full_name()));
        let mut call = http::Request::post(path(method))
            .version(http::Version::HTTP_2)
            .header(http::header::TE, "trailers")
            .header(http::header::CONTENT_TYPE, "application/grpc");
        if let Some(token) = token {
            call = call.header(http::header::AUTHORIZATION, format!("Bearer {token}"));
        }
        let call = call.body(Body::new(Full::new(framed(&message)))).expect("a request");
        let ctx = Ctx::root(PATIENCE, Trace::new());
        let exchange = ctx.scope(async {
            let (head, body) = channel.oneshot(call).await.expect("an answer").into_parts();
            match Status::from_header_map(&head.headers) {
                Some(status) => Ok((Bytes::new(), Some(status))),
                None => read(body, method.is_server_streaming()).await,
            }
        });
        match exchange.await {
            Err(status) => Answer::of(&status, Value::Null),
            Ok((frame, status)) => {
                let body = if frame.is_empty() { Value::Null } else { unframed(method, frame) };
                Answer::of(&status.unwrap_or_else(|| Status::ok("")), body)
            }
        }
    }
}

// === impl Answer ===

impl Answer {
    fn of(status: &Status, body: Value) -> Self {
        Self {
            code: status.code(),
            message: status.message().to_owned(),
            details: Bytes::copy_from_slice(status.details()),
            body,
        }
    }

    /// The reason of a failure.
    pub fn reason(&self) -> String {
        let status = Status::with_details(self.code, self.message.clone(), self.details.clone());
        status.get_details_error_info().map(|info| info.reason).unwrap_or_default()
    }
}

impl std::fmt::Debug for Answer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{:?} {} \"{}\"", self.code, self.reason(), self.message)
    }
}

fn path(method: &MethodDescriptor) -> String {
    format!("/{}/{}", method.parent_service().full_name(), method.name())
}

/// The first frame and, unless that is enough, the status in the end.
async fn read(mut body: Body, first: bool) -> Result<(Bytes, Option<Status>), Status> {
    let mut read = BytesMut::new();
    let mut trailers = HeaderMap::new();
    while let Some(frame) = body.frame().await {
        match frame?.into_data() {
            Ok(data) => read.extend_from_slice(&data),
            Err(frame) => trailers = frame.into_trailers().unwrap_or_default(),
        }
        if first && let Some(frame) = whole(&read) {
            return Ok((frame, None));
        }
    }
    let status = Status::from_header_map(&trailers).expect("a status in the end");
    Ok((read.freeze(), Some(status)))
}

/// The first frame, if all of it is there.
fn whole(read: &[u8]) -> Option<Bytes> {
    let (head, _) = read.split_first_chunk::<5>()?;
    let length = u32::from_be_bytes([head[1], head[2], head[3], head[4]]);
    let end = 5 + usize::try_from(length).expect("a small message");
    read.get(..end).map(Bytes::copy_from_slice)
}

/// A message behind its five bytes: not compressed, and its length.
fn framed(message: &DynamicMessage) -> Bytes {
    let mut frame = BytesMut::new();
    frame.put_u8(0);
    frame.put_u32(u32::try_from(message.encoded_len()).expect("a small message"));
    message.encode(&mut frame).expect("room");
    frame.freeze()
}

fn unframed(method: &MethodDescriptor, frame: Bytes) -> Value {
    let message = DynamicMessage::decode(method.output(), frame.slice(5..)).expect("a message");
    serde_json::to_value(message).expect("JSON")
}
