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
    echo::{Echoer, HOLD, ping},
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

    /// Calls whoever serves on these ports of loopback, over one connection each.
    fn connect(ports: &[u16]) -> impl Future<Output = anyhow::Result<Self::Caller>> + Send;
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

    async fn connect(ports: &[u16]) -> anyhow::Result<Self::Caller> {
        Ok(EchoServiceClient::new(BareChannel::to("echo", &addresses(ports))))
    }
}

// === impl Stack ===

impl Stack {
    fn app(name: &'static str, listen: TcpListener, registry: &str) -> anyhow::Result<App> {
        let bound = Bound { listen, admin: Bound::free()?.admin };
        App::new(name, DESCRIPTORS, Config::for_tests(bound, registry))
    }

    /// A channel as every process gets it: by a name of the registry, under the rules of the
    /// contract.
    ///
    /// # Errors
    /// No port is free.
    pub fn channel(ports: &[u16]) -> anyhow::Result<Channel> {
        let at: Vec<String> = addresses(ports).iter().map(ToString::to_string).collect();
        let caller = Self::app("caller", bind()?.0, &format!("static://?echo={}", at.join(",")))?;
        Ok(caller.channel("echo"))
    }
}

impl Transport for Stack {
    const NAME: &'static str = "stack";

    type Caller = EchoServiceClient<Channel>;

    async fn serve(bound: TcpListener, echo: Echoer) -> anyhow::Result<Serving> {
        let app = Self::app("echo", bound, "static://")?
            .grpc(EchoServiceServer::new(echo))
            .longest(HOLD, RUN);
        Ok(Serving::task(async move {
            // It never leaves by itself, and a failure of it is seen by every call.
            drop(app.serve(std::future::pending()).await);
        }))
    }

    async fn connect(ports: &[u16]) -> anyhow::Result<Self::Caller> {
        Ok(EchoServiceClient::new(Self::channel(ports).context("no channel")?))
    }
}

// === impl StackOut ===

impl Transport for StackOut {
    const NAME: &'static str = "stack_out";

    type Caller = <Stack as Transport>::Caller;

    async fn serve(bound: TcpListener, echo: Echoer) -> anyhow::Result<Serving> {
        Bare::serve(bound, echo).await
    }

    async fn connect(ports: &[u16]) -> anyhow::Result<Self::Caller> {
        Stack::connect(ports).await
    }
}

// === impl StackIn ===

impl Transport for StackIn {
    const NAME: &'static str = "stack_in";

    type Caller = <Bare as Transport>::Caller;

    async fn serve(bound: TcpListener, echo: Echoer) -> anyhow::Result<Serving> {
        Stack::serve(bound, echo).await
    }

    async fn connect(ports: &[u16]) -> anyhow::Result<Self::Caller> {
        Bare::connect(ports).await
    }
}
