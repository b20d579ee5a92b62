//! What is compared: ways to carry a call, each with a server and a client.

use std::{future::Future, net::TcpListener, time::Duration};

use anyhow::Context as _;
use http::{Request, Response};
use mesh::{
    App, Channel, Config, client::Bare as BareChannel, config::Bound, registry::Address,
    server::Settings, testing,
};
use tokio::task::JoinHandle;
use tonic::{Status, body::Body, service::Routes};
use tower::Service;

use crate::{
    DESCRIPTORS,
    api::{echo_service_client::EchoServiceClient, echo_service_server::EchoServiceServer},
    echo::{Echoer, HOLD, Seen, ping},
};

/// A way to carry a call.
pub trait Transport: 'static {
    /// What figures call it.
    const NAME: &'static str;

    /// Its client.
    type Caller: Call;

    /// Serves `echo` on a socket, until the answer is dropped.
    fn serve(
        bound: TcpListener,
        echo: Echoer,
    ) -> impl Future<Output = anyhow::Result<Serving>> + Send;

    /// Calls whoever serves on these ports of loopback, over one connection each; `seen` is what
    /// its own server looks at.
    fn connect(
        ports: &[u16],
        seen: &Seen,
    ) -> impl Future<Output = anyhow::Result<Self::Caller>> + Send;
}

/// Who makes a call.
pub trait Call: Clone + Send + Sync + 'static {
    /// One call, from the message to its answer.
    fn call(&mut self) -> impl Future<Output = Result<(), Status>> + Send;
}

/// A server; it ends with this value.
#[derive(Debug)]
pub struct Serving(Option<JoinHandle<()>>);

/// The connections and the accept loop of mesh, and nothing that a call meets behind them.
#[derive(Debug)]
pub enum Bare {}

/// All that a process of the mesh puts before a call, on both ends, as `App` builds it.
#[derive(Debug)]
pub enum Stack {}

/// The stack, and every call is recorded: of each there are three spans. They go through a queue as
/// they do in a process with a collector, and then nowhere.
#[derive(Debug)]
pub enum Sampled {}

/// The stack of a caller alone: what it calls is served by the accept loop and nothing behind it.
#[derive(Debug)]
pub enum StackOut {}

/// The stack of a server alone: its callers bring neither deadline nor trace.
#[derive(Debug)]
pub enum StackIn {}

/// A stream that is open may stay so for as long as a run takes.
const RUN: Duration = Duration::from_secs(600);

// === impl Serving ===

impl Serving {
    /// A server that is a task.
    #[must_use]
    pub fn task<F: Future<Output = ()> + Send + 'static>(serves: F) -> Self {
        #[expect(clippy::disallowed_methods, reason = "ends with what is measured")]
        Self(Some(tokio::spawn(serves)))
    }
}

impl Drop for Serving {
    fn drop(&mut self) {
        if let Some(task) = self.0.take() {
            task.abort();
        }
    }
}

/// A free port of loopback.
///
/// # Errors
/// There is none.
pub fn bind() -> anyhow::Result<(TcpListener, u16)> {
    let bound = Bound::free()?.listen;
    let port = bound.local_addr()?.port();
    Ok((bound, port))
}

/// Where these ports are.
fn addresses(ports: &[u16]) -> Vec<Address> {
    ports.iter().map(|&port| Address { host: "127.0.0.1".to_owned(), port }).collect()
}

// === impl Call ===

impl<C> Call for EchoServiceClient<C>
where
    C: Service<Request<Body>, Response = Response<Body>, Future: Send>
        + Clone
        + Send
        + Sync
        + 'static,
    C::Error: Into<Box<dyn std::error::Error + Send + Sync>> + Send,
{
    async fn call(&mut self) -> Result<(), Status> {
        self.echo(ping()).await.map(drop)
    }
}

// === impl Bare ===

impl Transport for Bare {
    const NAME: &'static str = "bare";

    type Caller = EchoServiceClient<BareChannel>;

    async fn serve(bound: TcpListener, echo: Echoer) -> anyhow::Result<Serving> {
        testing::serve(bound, Settings::default(), Routes::new(EchoServiceServer::new(echo)))?;
        Ok(Serving(None))
    }

    async fn connect(ports: &[u16], _: &Seen) -> anyhow::Result<Self::Caller> {
        Ok(EchoServiceClient::new(BareChannel::to("echo", &addresses(ports))))
    }
}

// === impl Stack ===

impl Stack {
    /// What its clients call the callee.
    pub const CALLEE: &str = "echo";

    fn app(name: &'static str, listen: TcpListener, registry: &str) -> anyhow::Result<App> {
        let bound = Bound { listen, admin: Bound::free()?.admin };
        App::new(name, DESCRIPTORS, Config::for_tests(bound, registry))
    }

    /// A channel as every process gets it: by a name of the registry, under the rules of the
    /// contract.
    ///
    /// # Errors
    /// No port is free.
    pub fn channel(callee: &str, ports: &[u16]) -> anyhow::Result<Channel> {
        Ok(Self::caller(callee, ports)?.channel(callee))
    }

    fn caller(callee: &str, ports: &[u16]) -> anyhow::Result<App> {
        let at: Vec<String> = addresses(ports).iter().map(ToString::to_string).collect();
        Self::app("caller", bind()?.0, &format!("static://?{callee}={}", at.join(",")))
    }

    /// A process that serves.
    fn served(bound: TcpListener, echo: Echoer) -> anyhow::Result<App> {
        let app = Self::app("echo", bound, "static://")?;
        Ok(app.grpc(EchoServiceServer::new(echo)).longest(HOLD, RUN))
    }

    fn serving(app: App) -> Serving {
        Serving::task(async move {
            // It never leaves by itself, and a failure of it is seen by every call.
            drop(app.serve(std::future::pending()).await);
        })
    }
}

impl Transport for Stack {
    const NAME: &'static str = "stack";

    type Caller = EchoServiceClient<Channel>;

    async fn serve(bound: TcpListener, echo: Echoer) -> anyhow::Result<Serving> {
        Ok(Self::serving(Self::served(bound, echo)?))
    }

    async fn connect(ports: &[u16], _: &Seen) -> anyhow::Result<Self::Caller> {
        Ok(EchoServiceClient::new(Self::channel(Self::CALLEE, ports).context("no channel")?))
    }
}

// === impl Sampled ===

impl Sampled {
    /// What its clients call the callee: another than the stack's, so that each is counted alone.
    pub const CALLEE: &str = "sampled";
}

impl Transport for Sampled {
    const NAME: &'static str = "sampled";

    type Caller = <Stack as Transport>::Caller;

    async fn serve(bound: TcpListener, echo: Echoer) -> anyhow::Result<Serving> {
        let spans = echo.seen.record().clone();
        Ok(Stack::serving(spans.record(Stack::served(bound, echo)?)))
    }

    async fn connect(ports: &[u16], seen: &Seen) -> anyhow::Result<Self::Caller> {
        let caller = seen.record().record(Stack::caller(Self::CALLEE, ports)?);
        Ok(EchoServiceClient::new(caller.channel(Self::CALLEE)))
    }
}

// === impl StackOut ===

impl Transport for StackOut {
    const NAME: &'static str = "stack_out";

    type Caller = <Stack as Transport>::Caller;

    async fn serve(bound: TcpListener, echo: Echoer) -> anyhow::Result<Serving> {
        Bare::serve(bound, echo).await
    }

    async fn connect(ports: &[u16], seen: &Seen) -> anyhow::Result<Self::Caller> {
        Stack::connect(ports, seen).await
    }
}

// === impl StackIn ===

impl Transport for StackIn {
    const NAME: &'static str = "stack_in";

    type Caller = <Bare as Transport>::Caller;

    async fn serve(bound: TcpListener, echo: Echoer) -> anyhow::Result<Serving> {
        Stack::serve(bound, echo).await
    }

    async fn connect(ports: &[u16], seen: &Seen) -> anyhow::Result<Self::Caller> {
        Bare::connect(ports, seen).await
    }
}
