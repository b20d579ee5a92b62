//! The floor: an echo of bytes by hyper alone, over HTTP/2, without gRPC.

use std::net::TcpListener;

use anyhow::Context as _;
use bytes::Bytes;
use http::{Request, Response};
use http_body_util::{BodyExt as _, Full};
use hyper::{
    body::Incoming,
    client::conn::http2::{self, SendRequest},
    service::service_fn,
};
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::net::TcpStream;
use tonic::Status;

use crate::{
    echo::{Echoer, Seen},
    transport::{Call, Serving, Transport},
};

/// hyper, and nothing else.
#[derive(Debug)]
pub enum Floor {}

/// Its client: one connection.
#[derive(Clone, Debug)]
pub struct Caller {
    sender: SendRequest<Full<Bytes>>,
    port: u16,
}

/// As many bytes as a call of the others sends.
const BODY: &[u8] = &[7; 100];

// === impl Floor ===

impl Transport for Floor {
    const NAME: &'static str = "hyper";

    type Caller = Caller;

    async fn serve(bound: TcpListener, _: Echoer) -> anyhow::Result<Serving> {
        bound.set_nonblocking(true)?;
        let listener = tokio::net::TcpListener::from_std(bound)?;
        Ok(Serving::task(async move {
            while let Ok((stream, _)) = listener.accept().await {
                if stream.set_nodelay(true).is_err() {
                    continue;
                }
                let connection = hyper::server::conn::http2::Builder::new(TokioExecutor::new())
                    .serve_connection(TokioIo::new(stream), service_fn(echo));
                // It ends with its client.
                #[expect(clippy::disallowed_methods, reason = "ends with what is measured")]
                tokio::spawn(async move { drop(connection.await) });
            }
        }))
    }

    async fn connect(ports: &[u16], _: &Seen) -> anyhow::Result<Caller> {
        let port = *ports.first().context("no port")?;
        let stream = TcpStream::connect(("127.0.0.1", port)).await?;
        stream.set_nodelay(true)?;
        let (sender, connection) =
            http2::handshake(TokioExecutor::new(), TokioIo::new(stream)).await?;
        // It ends with the last sender.
        #[expect(clippy::disallowed_methods, reason = "ends with what is measured")]
        tokio::spawn(async move { drop(connection.await) });
        Ok(Caller { sender, port })
    }
}

async fn echo(request: Request<Incoming>) -> Result<Response<Full<Bytes>>, hyper::Error> {
    let body = request.into_body().collect().await?.to_bytes();
    Ok(Response::new(Full::new(body)))
}

// === impl Caller ===

impl Call for Caller {
    async fn call(&mut self) -> Result<(), Status> {
        let uri = format!("http://127.0.0.1:{}/echo", self.port);
        let request = Request::post(uri).body(Full::new(Bytes::from_static(BODY)));
        let request = request.map_err(|error| Status::from_error(error.into()))?;
        let answer = async {
            let response = self.sender.send_request(request).await?;
            response.into_body().collect().await
        };
        answer.await.map(drop).map_err(|error| Status::from_error(error.into()))
    }
}
