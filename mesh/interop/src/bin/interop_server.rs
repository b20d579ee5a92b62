//! `grpc.testing.TestService`, served the way every process of the mesh serves: by an `App`.

use std::{
    convert::Infallible,
    process::ExitCode,
    task::{Context, Poll},
    time::Duration,
};

use futures_util::{
    FutureExt as _, Stream, StreamExt as _, TryStreamExt as _,
    future::BoxFuture,
    stream::{self, BoxStream},
};
use http::{Request as HttpRequest, Response as HttpResponse};
use http_body::Frame;
use http_body_util::BodyExt as _;
use interop::{
    DESCRIPTORS, ECHO_INITIAL, ECHO_TRAILING,
    testing::{
        EchoStatus, Empty, Payload, ResponseParameters, SimpleRequest, SimpleResponse,
        StreamingInputCallRequest, StreamingInputCallResponse, StreamingOutputCallRequest,
        StreamingOutputCallResponse,
        test_service_server::{TestService, TestServiceServer},
    },
    zeros,
};
use mesh::{App, Config};
use tonic::{Code, Request, Response, Status, Streaming, body::Body, server::NamedService};
use tower::Service;

/// The settings: those of every process.
#[derive(Clone, Debug, clap::Parser)]
#[command(
    name = "interop-server",
    about = "Serves grpc.testing.TestService",
    mut_args = mesh::config::serves_on(10_000)
)]
struct Settings {
    #[command(flatten)]
    mesh: Config,
}

#[derive(Debug)]
struct Tester {
    id: String,
}

/// Sends two headers back: one at the head of the answer, one at its end, where a handler cannot.
#[derive(Clone, Debug)]
struct Echo<S>(S);

fn main() -> ExitCode {
    mesh::run(app)
}

async fn app(settings: Settings) -> anyhow::Result<App> {
    let tester = Tester { id: uuid::Uuid::new_v4().to_string() };
    let app = App::new("interop", DESCRIPTORS, settings.mesh)?;
    Ok(app.grpc(Echo(TestServiceServer::new(tester))))
}

impl AsRef<Config> for Settings {
    fn as_ref(&self) -> &Config {
        &self.mesh
    }
}

// === impl Tester ===

type Answers = BoxStream<'static, Result<StreamingOutputCallResponse, Status>>;

#[tonic::async_trait]
impl TestService for Tester {
    type StreamingOutputCallStream = Answers;
    type FullDuplexCallStream = Answers;
    type HalfDuplexCallStream = Answers;

    async fn empty_call(&self, _: Request<Empty>) -> Result<Response<Empty>, Status> {
        Ok(Response::new(Empty {}))
    }

    async fn unary_call(
        &self,
        request: Request<SimpleRequest>,
    ) -> Result<Response<SimpleResponse>, Status> {
        let request = request.into_inner();
        asked_to_fail(request.response_status)?;
        let payload = Some(payload(request.response_size)?);
        let server_id = if request.fill_server_id { self.id.clone() } else { String::new() };
        Ok(Response::new(SimpleResponse { payload, server_id }))
    }

    async fn cacheable_unary_call(
        &self,
        request: Request<SimpleRequest>,
    ) -> Result<Response<SimpleResponse>, Status> {
        self.unary_call(request).await
    }

    async fn streaming_output_call(
        &self,
        request: Request<StreamingOutputCallRequest>,
    ) -> Result<Response<Answers>, Status> {
        Ok(Response::new(answers(request.into_inner()).boxed()))
    }

    async fn streaming_input_call(
        &self,
        request: Request<Streaming<StreamingInputCallRequest>>,
    ) -> Result<Response<StreamingInputCallResponse>, Status> {
        let sizes = request.into_inner().map_ok(|it| it.payload.map_or(0, |it| it.body.len()));
        let sum = sizes.try_fold(0_usize, |sum, size| async move { Ok(sum + size) }).await?;
        let aggregated_payload_size =
            i32::try_from(sum).map_err(|error| Status::new(Code::OutOfRange, error.to_string()))?;
        Ok(Response::new(StreamingInputCallResponse { aggregated_payload_size }))
    }

    async fn full_duplex_call(
        &self,
        request: Request<Streaming<StreamingOutputCallRequest>>,
    ) -> Result<Response<Answers>, Status> {
        Ok(Response::new(request.into_inner().map_ok(answers).try_flatten().boxed()))
    }

    async fn half_duplex_call(
        &self,
        request: Request<Streaming<StreamingOutputCallRequest>>,
    ) -> Result<Response<Answers>, Status> {
        let requests: Vec<_> = request.into_inner().try_collect().await?;
        Ok(Response::new(stream::iter(requests).flat_map(answers).boxed()))
    }

    async fn unimplemented_call(&self, _: Request<Empty>) -> Result<Response<Empty>, Status> {
        Err(Status::new(Code::Unimplemented, "stays unimplemented"))
    }
}

/// What a message of a stream asks for, one after the other.
fn answers(
    request: StreamingOutputCallRequest,
) -> impl Stream<Item = Result<StreamingOutputCallResponse, Status>> + Send {
    let wanted = match asked_to_fail(request.response_status) {
        Ok(()) => request.response_parameters.into_iter().map(Ok).collect(),
        Err(status) => vec![Err(status)],
    };
    stream::iter(wanted).and_then(|ResponseParameters { size, interval_us }| async move {
        let pause = Duration::from_micros(u64::try_from(interval_us).unwrap_or_default());
        tokio::time::sleep(pause).await;
        Ok(StreamingOutputCallResponse { payload: Some(payload(size)?) })
    })
}

fn payload(size: i32) -> Result<Payload, Status> {
    zeros(size).ok_or_else(|| Status::new(Code::InvalidArgument, format!("{size} is not a size")))
}

fn asked_to_fail(status: Option<EchoStatus>) -> Result<(), Status> {
    match status {
        Some(EchoStatus { code, message }) if code != 0 => {
            Err(Status::new(Code::from_i32(code), message))
        }
        Some(_) | None => Ok(()),
    }
}

// === impl Echo ===

impl<S: NamedService> NamedService for Echo<S> {
    const NAME: &'static str = S::NAME;
}

impl<S> Service<HttpRequest<Body>> for Echo<S>
where
    S: Service<HttpRequest<Body>, Response = HttpResponse<Body>, Error = Infallible>,
    S::Future: Send + 'static,
{
    type Response = HttpResponse<Body>;
    type Error = Infallible;
    type Future = BoxFuture<'static, Result<HttpResponse<Body>, Infallible>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        self.0.poll_ready(cx)
    }

    fn call(&mut self, request: HttpRequest<Body>) -> Self::Future {
        let initial = request.headers().get(ECHO_INITIAL).cloned();
        let trailing = request.headers().get(ECHO_TRAILING).cloned();
        let answer = self.0.call(request);
        let echo = move |mut response: HttpResponse<Body>| {
            if let Some(value) = initial {
                response.headers_mut().insert(ECHO_INITIAL, value);
            }
            let Some(value) = trailing else { return response };
            // Trailers-only: the head is the end.
            if response.headers().contains_key("grpc-status") {
                response.headers_mut().insert(ECHO_TRAILING, value);
                return response;
            }
            response.map(|body| {
                Body::new(body.map_frame(move |frame| match frame.into_trailers() {
                    Ok(mut trailers) => {
                        trailers.insert(ECHO_TRAILING, value.clone());
                        Frame::trailers(trailers)
                    }
                    Err(data) => data,
                }))
            })
        };
        answer.map(|answer| answer.map(echo)).boxed()
    }
}
