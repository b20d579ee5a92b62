//! tonic's own transport: what mesh does without, and is compared with.

use std::net::TcpListener;

use anyhow::Context as _;
use meshbench::{
    api::{echo_service_client::EchoServiceClient, echo_service_server::EchoServiceServer},
    echo::{Echoer, Seen},
    transport::{Serving, Transport},
};
use tonic::transport::{Channel, Endpoint, Server, server::TcpIncoming};

/// Its Channel and Server, as they come.
#[derive(Debug)]
pub(crate) enum Tonic {}

// === impl Tonic ===

impl Transport for Tonic {
    const NAME: &'static str = "tonic";

    type Caller = EchoServiceClient<Channel>;

    async fn serve(bound: TcpListener, echo: Echoer) -> anyhow::Result<Serving> {
        bound.set_nonblocking(true)?;
        let listener = tokio::net::TcpListener::from_std(bound)?;
        let incoming = TcpIncoming::from(listener).with_nodelay(Some(true));
        let served = Server::builder().add_service(EchoServiceServer::new(echo));
        Ok(Serving::task(async move {
            // A failure of it is seen by every call.
            drop(served.serve_with_incoming(incoming).await);
        }))
    }

    async fn connect(ports: &[u16], _: &Seen) -> anyhow::Result<Self::Caller> {
        let at = |port: &u16| Endpoint::from_shared(format!("http://127.0.0.1:{port}"));
        let endpoints = ports.iter().map(at).collect::<Result<Vec<_>, _>>()?;
        let channel = match endpoints.as_slice() {
            [one] => one.connect().await.context("nobody serves")?,
            several => Channel::balance_list(several.iter().cloned()),
        };
        Ok(EchoServiceClient::new(channel))
    }
}
