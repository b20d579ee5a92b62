//! The cases of gRPC's interoperability tests over mesh's own channel, one per run. The flags are
//! those of gRPC's clients, so whatever drives these drives this.
#![expect(
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "a command line program talks on its terminal"
)]

use std::{future::pending, path::PathBuf, process::ExitCode, time::Duration};

use anyhow::{Context as _, Result, bail, ensure};
use futures_util::stream;
use interop::{
    ECHO_INITIAL, ECHO_TRAILING,
    testing::{
        EchoStatus, Empty, ResponseParameters, SimpleRequest, StreamingInputCallRequest,
        StreamingOutputCallRequest, StreamingOutputCallResponse,
        test_service_client::TestServiceClient,
        unimplemented_service_client::UnimplementedServiceClient,
    },
    zeros,
};
use mesh::{
    Channel, Ctx, Within as _,
    ctx::Trace,
    registry::Address,
    tls::{self, Connector, Files},
};
use tokio::sync::{mpsc, oneshot};
use tonic::{Code, Request, Status, metadata::MetadataValue};

type Client = TestServiceClient<Channel>;

/// The sizes that the descriptions of the cases name: in and out, of a big message and of four.
const LARGE: (i32, i32) = (271_828, 314_159);
const SIZES: [(i32, i32); 4] = [(27_182, 31_415), (8, 9), (1_828, 2_653), (45_904, 58_979)];

/// How long a case may take, and one call of a soak.
const PATIENCE: Duration = Duration::from_secs(20);
const ACCEPTABLE: Duration = Duration::from_secs(1);

/// Runs one case of gRPC's interoperability tests.
#[derive(Clone, Debug, clap::Parser)]
#[command(name = "interop-client", after_help = CASES)]
struct Flags {
    /// Where the server is.
    #[arg(long = "server_host", default_value = "127.0.0.1")]
    host: String,

    /// Its port.
    #[arg(long = "server_port", default_value_t = 10_000)]
    port: u16,

    /// Calls over TLS; the server's certificate must be good for its host.
    #[arg(long = "use_tls", requires = "use_test_ca")]
    use_tls: bool,

    /// Trusts whom `--ca_file` names: there is nobody else to trust.
    #[arg(long = "use_test_ca", requires = "ca_file")]
    use_test_ca: bool,

    /// File with the certificate that the server's must be issued by, as PEM.
    #[arg(long = "ca_file")]
    ca_file: Option<PathBuf>,

    /// What the server's certificate must be good for, in place of its host.
    #[arg(long = "server_host_override")]
    name: Option<String>,

    /// The case.
    #[arg(long = "test_case", default_value = "large_unary")]
    case: String,

    /// How often a soak calls.
    #[arg(long = "soak_iterations", default_value_t = 10)]
    iterations: u32,
}

const CASES: &str = "Cases: empty_unary, large_unary, cacheable_unary, client_streaming, server_streaming, \
ping_pong, empty_stream, timeout_on_sleeping_server, cancel_after_begin, cancel_after_first_response, \
status_code_and_message, special_status_message, custom_metadata, unimplemented_method, \
unimplemented_service, pick_first_unary, rpc_soak, channel_soak";

fn main() -> ExitCode {
    let flags = <Flags as clap::Parser>::parse();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let done = runtime.context("cannot start the runtime").and_then(|runtime| {
        let ctx = Ctx::root(PATIENCE, Trace::new());
        runtime.block_on(ctx.scope(run(&flags)))
    });
    match done {
        Ok(()) => {
            println!("{}: ok", flags.case);
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("{}: {error:#}", flags.case);
            ExitCode::FAILURE
        }
    }
}

async fn run(flags: &Flags) -> Result<()> {
    let channel = channel(flags)?;
    let client = TestServiceClient::new(channel.clone());
    let done = match flags.case.as_str() {
        "empty_unary" => empty_unary(client).await,
        "large_unary" => large_unary(client).await,
        "cacheable_unary" => cacheable_unary(client).await,
        "client_streaming" => client_streaming(client).await,
        "server_streaming" => server_streaming(client).await,
        "ping_pong" => ping_pong(client).await,
        "empty_stream" => empty_stream(client).await,
        "timeout_on_sleeping_server" => timeout_on_sleeping_server(client).await,
        "cancel_after_begin" => cancel_after_begin(client).await,
        "cancel_after_first_response" => cancel_after_first_response(client).await,
        "status_code_and_message" => echo_status(client, "test status message").await,
        "special_status_message" => {
            let words = "\t\ntest with whitespace\r\nand Unicode BMP ☺ and non-BMP 😈\t\n";
            echo_status(client, words).await
        }
        "custom_metadata" => custom_metadata(client).await,
        "unimplemented_method" => unimplemented_method(client).await,
        "unimplemented_service" => unimplemented_service(channel.clone()).await,
        "pick_first_unary" => pick_first_unary(client).await,
        "rpc_soak" => soak(flags, |_| Ok(client.clone())).await,
        "channel_soak" => {
            soak(flags, |flags| Ok(TestServiceClient::new(self::channel(flags)?))).await
        }
        other => bail!("there is no case `{other}`; {CASES}"),
    };
    // A call that fails says that there was no connection; the channel knows why.
    done.map_err(|error| match channel.trouble() {
        Some(trouble) => error.context(trouble),
        None => error,
    })
}

fn channel(flags: &Flags) -> Result<Channel> {
    let addresses = [Address { host: flags.host.clone(), port: flags.port }];
    if !flags.use_tls {
        return Ok(Channel::to("interop", &addresses));
    }
    ensure!(flags.use_test_ca, "whom to trust is not said");
    let mut files = Files::none(tls::Flags::Tls);
    files.ca.clone_from(&flags.ca_file);
    let connector = Connector::new(files)?;
    let connector = match &flags.name {
        Some(name) => connector.named(name),
        None => connector,
    };
    Ok(Channel::over_tls("interop", &addresses, connector))
}

// === Cases ===

async fn empty_unary(mut client: Client) -> Result<()> {
    ensure!(client.empty_call(Empty {}).await?.into_inner() == Empty {}, "not empty");
    Ok(())
}

async fn large_unary(mut client: Client) -> Result<()> {
    let answer = client.unary_call(large()).await?.into_inner();
    holds(answer.payload.map(|it| it.body), LARGE.1)
}

async fn cacheable_unary(mut client: Client) -> Result<()> {
    for _ in 0..2 {
        let answer = client.cacheable_unary_call(large()).await?.into_inner();
        holds(answer.payload.map(|it| it.body), LARGE.1)?;
    }
    Ok(())
}

async fn client_streaming(mut client: Client) -> Result<()> {
    let requests = SIZES.map(|(size, _)| StreamingInputCallRequest { payload: zeros(size) });
    let answer = client.streaming_input_call(stream::iter(requests)).await?.into_inner();
    let sum: i32 = SIZES.iter().map(|(size, _)| size).sum();
    ensure!(answer.aggregated_payload_size == sum, "{} of {sum}", answer.aggregated_payload_size);
    Ok(())
}

async fn server_streaming(mut client: Client) -> Result<()> {
    let request = StreamingOutputCallRequest {
        response_parameters: SIZES.map(|(_, size)| sized(size)).into(),
        ..StreamingOutputCallRequest::default()
    };
    let mut answers = client.streaming_output_call(request).await?.into_inner();
    for (_, size) in SIZES {
        holds(body(answers.message().await?), size)?;
    }
    ensure!(answers.message().await?.is_none(), "a message too many");
    Ok(())
}

async fn ping_pong(mut client: Client) -> Result<()> {
    let (asks, requests) = mpsc::channel(1);
    // A server may keep the head of its answer until it has a first message, and that needs ours.
    asks.send(ping(SIZES[0].0, SIZES[0].1)).await?;
    let mut answers = client.full_duplex_call(received(requests)).await?.into_inner();
    let nexts = SIZES.iter().skip(1).map(Some).chain([None]);
    for ((_, size), next) in SIZES.into_iter().zip(nexts) {
        holds(body(answers.message().await?), size)?;
        if let Some((weight, size)) = next {
            asks.send(ping(*weight, *size)).await.context("the call has ended")?;
        }
    }
    drop(asks);
    ensure!(answers.message().await?.is_none(), "a message too many");
    Ok(())
}

async fn empty_stream(mut client: Client) -> Result<()> {
    let mut answers = client.full_duplex_call(stream::empty()).await?.into_inner();
    ensure!(answers.message().await?.is_none(), "a message that nobody asked for");
    Ok(())
}

async fn timeout_on_sleeping_server(mut client: Client) -> Result<()> {
    // Connected ahead, so that it is the server that sleeps.
    empty_unary(client.clone()).await?;
    let (asks, requests) = mpsc::channel(1);
    asks.send(ping(27_182, 31_415)).await?;
    let call = Request::new(received(requests)).within(Duration::from_millis(1));
    let ended = match client.full_duplex_call(call).await {
        Ok(answers) => {
            let mut answers = answers.into_inner();
            loop {
                match answers.message().await {
                    Ok(Some(_)) => {}
                    Ok(None) => break None,
                    Err(status) => break Some(status),
                }
            }
        }
        Err(status) => Some(status),
    };
    failed_with(ended, Code::DeadlineExceeded)?;
    drop(asks);
    Ok(())
}

/// Whoever drops a call cancels it: no status is left to look at. What must show is that the
/// connection outlives it.
async fn cancel_after_begin(mut client: Client) -> Result<()> {
    let (begun, told) = oneshot::channel();
    let requests = stream::once(async move {
        // Asked for the first message: the head has been sent.
        let _heard = begun.send(()).is_ok();
        pending().await
    });
    tokio::select! {
        answer = client.streaming_input_call(requests) => bail!("answered: {answer:?}"),
        told = told => told.context("the call was not begun")?,
    }
    empty_unary(client).await
}

async fn cancel_after_first_response(mut client: Client) -> Result<()> {
    let (asks, requests) = mpsc::channel(1);
    asks.send(ping(27_182, 31_415)).await?;
    let mut answers = client.full_duplex_call(received(requests)).await?.into_inner();
    holds(body(answers.message().await?), 31_415)?;
    drop(answers);
    // The stream of requests goes with the call.
    asks.closed().await;
    empty_unary(client).await
}

async fn echo_status(mut client: Client, message: &str) -> Result<()> {
    let expected = Some(EchoStatus { code: 2, message: message.to_owned() });
    let said = |status: Option<Status>| {
        let status = failed_with(status, Code::Unknown)?;
        ensure!(status.message() == message, "it says {:?}", status.message());
        Ok(())
    };
    let request = SimpleRequest { response_status: expected.clone(), ..SimpleRequest::default() };
    said(client.unary_call(request).await.err())?;
    let request = StreamingOutputCallRequest {
        response_status: expected,
        ..StreamingOutputCallRequest::default()
    };
    let call = client.full_duplex_call(stream::iter([request]));
    said(match call.await {
        Ok(answers) => answers.into_inner().message().await.err(),
        Err(status) => Some(status),
    })
}

async fn custom_metadata(mut client: Client) -> Result<()> {
    let (initial, trailing) = ("test_initial_metadata_value", [0xab_u8, 0xab, 0xab]);
    fn with<T>(message: T, initial: &'static str, trailing: &[u8]) -> Request<T> {
        let mut request = Request::new(message);
        request.metadata_mut().insert(ECHO_INITIAL, MetadataValue::from_static(initial));
        let value = MetadataValue::from_bytes(trailing);
        request.metadata_mut().insert_bin(ECHO_TRAILING, value);
        request
    }
    let request = SimpleRequest {
        response_size: LARGE.1,
        payload: zeros(LARGE.0),
        ..SimpleRequest::default()
    };
    let answer = client.unary_call(with(request, initial, &trailing)).await?;
    let echoed = answer.metadata().get(ECHO_INITIAL).context("no header came back")?;
    ensure!(echoed == initial, "{echoed:?} came back");
    let echoed = answer.metadata().get_bin(ECHO_TRAILING).context("no trailer came back")?;
    ensure!(echoed.to_bytes()? == trailing[..], "{echoed:?} came back");

    let requests = stream::iter([ping(LARGE.0, LARGE.1)]);
    let answer = client.full_duplex_call(with(requests, initial, &trailing)).await?;
    let echoed = answer.metadata().get(ECHO_INITIAL).context("no header came back")?;
    ensure!(echoed == initial, "{echoed:?} came back");
    ensure!(answer.metadata().get_bin(ECHO_TRAILING).is_none(), "the trailer came too early");
    let mut answers = answer.into_inner();
    holds(body(answers.message().await?), LARGE.1)?;
    let trailers = answers.trailers().await?.context("no trailers")?;
    let echoed = trailers.get_bin(ECHO_TRAILING).context("no trailer came back")?;
    ensure!(echoed.to_bytes()? == trailing[..], "{echoed:?} came back");
    Ok(())
}

async fn unimplemented_method(mut client: Client) -> Result<()> {
    failed_with(client.unimplemented_call(Empty {}).await.err(), Code::Unimplemented).map(drop)
}

async fn unimplemented_service(channel: Channel) -> Result<()> {
    let called = UnimplementedServiceClient::new(channel).unimplemented_call(Empty {}).await;
    failed_with(called.err(), Code::Unimplemented).map(drop)
}

async fn pick_first_unary(mut client: Client) -> Result<()> {
    let mut first = None;
    for _ in 0..100 {
        let request = SimpleRequest {
            response_size: 1,
            payload: zeros(1),
            fill_server_id: true,
            ..SimpleRequest::default()
        };
        let id = client.unary_call(request).await?.into_inner().server_id;
        ensure!(!id.is_empty(), "the server has no id");
        let first = first.get_or_insert_with(|| id.clone());
        ensure!(*first == id, "two servers: {first} and {id}");
    }
    Ok(())
}

/// Large calls one after the other, each in time.
async fn soak(flags: &Flags, mut client: impl FnMut(&Flags) -> Result<Client>) -> Result<()> {
    for iteration in 0..flags.iterations {
        let called = client(flags)?.unary_call(large().within(ACCEPTABLE)).await;
        let answer = called.with_context(|| format!("call {iteration}"))?.into_inner();
        holds(answer.payload.map(|it| it.body), LARGE.1)?;
    }
    Ok(())
}

// === Messages ===

fn large() -> SimpleRequest {
    SimpleRequest { response_size: LARGE.1, payload: zeros(LARGE.0), ..SimpleRequest::default() }
}

fn ping(weight: i32, size: i32) -> StreamingOutputCallRequest {
    StreamingOutputCallRequest {
        response_parameters: vec![sized(size)],
        payload: zeros(weight),
        ..StreamingOutputCallRequest::default()
    }
}

fn sized(size: i32) -> ResponseParameters {
    ResponseParameters { size, interval_us: 0 }
}

fn received<T>(requests: mpsc::Receiver<T>) -> impl futures_util::Stream<Item = T> {
    stream::unfold(requests, async |mut requests| Some((requests.recv().await?, requests)))
}

fn body(answer: Option<StreamingOutputCallResponse>) -> Option<Vec<u8>> {
    Some(answer?.payload?.body)
}

fn holds(body: Option<Vec<u8>>, size: i32) -> Result<()> {
    let body = body.context("an answer without a payload, or none")?;
    ensure!(Ok(size) == i32::try_from(body.len()), "{} bytes, not {size}", body.len());
    ensure!(body.iter().all(|byte| *byte == 0), "not zeros");
    Ok(())
}

fn failed_with(status: Option<Status>, code: Code) -> Result<Status> {
    let status = status.context("it ended well")?;
    ensure!(status.code() == code, "{:?}: {}", status.code(), status.message());
    Ok(status)
}
