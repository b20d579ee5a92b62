//! The accept loop: connections in, requests to a service, and an end that loses none.

use std::{
    convert::Infallible,
    io,
    net::{SocketAddr, TcpListener as Bound},
    sync::Arc,
    time::Duration,
};

use anyhow::Context as _;
use http::{Request, Response};
use hyper::body::Incoming;
use hyper_util::{
    rt::{TokioExecutor, TokioIo, TokioTimer},
    server::conn::auto,
    service::TowerToHyperService,
};
use tokio::{
    net::{TcpListener, TcpStream},
    sync::{OwnedSemaphorePermit, Semaphore},
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use tonic::body::Body;
use tower::Service;

use crate::telemetry;

/// Connections beyond this many wait to be accepted.
const CONNECTIONS: usize = 10_000;
/// Calls at once on one connection (HTTP/2 streams).
const STREAMS: u32 = 256;
/// The headers of a request, in bytes.
const HEADERS: u32 = 16 * 1_024;
/// HTTP/1.1: what waits to be written to a client that reads slowly, in bytes; the head of a
/// request fits in.
const BUFFER: usize = 64 << 10;
/// HTTP/2 pings: how often on an idle connection, and how long for the answer.
const KEEPALIVE: (Duration, Duration) = (Duration::from_secs(20), Duration::from_secs(5));
/// How long a client may take to send the first bytes, and the head of a request.
const HEAD: Duration = Duration::from_secs(10);
/// After an error of `accept`, such as too many open files: how long to wait.
const BACKOFF: (Duration, Duration) = (Duration::from_millis(10), Duration::from_secs(1));

/// The address of the client, in the extensions of every request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Peer(pub SocketAddr);

/// What is spoken on a listener.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Wire {
    /// HTTP/2 alone: gRPC.
    Http2,
    /// HTTP/1.1 and HTTP/2: the edge, the admin port.
    Http,
}

/// A socket that listens, from the start of the process to its end.
#[derive(Debug)]
pub(crate) struct Listener {
    socket: TcpListener,
    /// No new connections, no new requests; those that run may finish.
    leave: CancellationToken,
    /// Whatever still runs ends now.
    abort: CancellationToken,
    connections: TaskTracker,
}

// === impl Listener ===

impl Listener {
    /// Takes a socket into service. Serves from [`Listener::serve`] on.
    pub(crate) fn new(socket: Bound) -> anyhow::Result<Self> {
        socket.set_nonblocking(true).context("cannot prepare the listening socket")?;
        Ok(Self {
            socket: TcpListener::from_std(socket).context("cannot watch the listening socket")?,
            leave: CancellationToken::new(),
            abort: CancellationToken::new(),
            connections: TaskTracker::new(),
        })
    }

    /// Accepts until [`Listener::leave`].
    pub(crate) async fn serve<S>(self: Arc<Self>, wire: Wire, service: S)
    where
        S: Service<Request<Incoming>, Response = Response<Body>, Error = Infallible>
            + Clone
            + Send
            + 'static,
        S::Future: Send,
    {
        let room = Arc::new(Semaphore::new(CONNECTIONS));
        let mut backoff = BACKOFF.0;
        loop {
            let accepted = async {
                let permit = Arc::clone(&room).acquire_owned().await;
                let permit = permit.map_err(|_closed| io::Error::other("no room is left"))?;
                let (stream, peer) = self.socket.accept().await?;
                Ok::<_, io::Error>((stream, peer, permit))
            };
            let accepted = tokio::select! {
                biased;
                () = self.leave.cancelled() => return,
                accepted = accepted => accepted,
            };
            match accepted {
                Ok((stream, peer, permit)) => {
                    backoff = BACKOFF.0;
                    let connection =
                        Arc::clone(&self).connection(wire, stream, peer, service.clone(), permit);
                    #[expect(clippy::disallowed_methods, reason = "the drain tracks connections")]
                    tokio::spawn(self.connections.track_future(connection));
                }
                Err(error) => {
                    tracing::warn!(%error, "cannot accept a connection");
                    tokio::time::sleep(backoff).await;
                    backoff = (backoff * 2).min(BACKOFF.1);
                }
            }
        }
    }

    /// Takes no new connections and tells the clients of open ones to go (GOAWAY).
    pub(crate) fn leave(&self) {
        self.leave.cancel();
        self.connections.close();
    }

    /// Waits until every connection has ended; after [`Listener::leave`].
    pub(crate) async fn drained(&self) {
        self.connections.wait().await;
    }

    /// Ends what still runs. Says how many connections were cut.
    pub(crate) async fn abort(&self) -> usize {
        let cut = self.connections.len();
        self.abort.cancel();
        self.connections.wait().await;
        cut
    }

    async fn connection<S>(
        self: Arc<Self>,
        wire: Wire,
        stream: TcpStream,
        peer: SocketAddr,
        service: S,
        _permit: OwnedSemaphorePermit,
    ) where
        S: Service<Request<Incoming>, Response = Response<Body>, Error = Infallible>
            + Clone
            + Send
            + 'static,
        S::Future: Send,
    {
        telemetry::metrics().connections.inc();
        if let Err(error) = stream.set_nodelay(true) {
            tracing::debug!(%error, "cannot set TCP_NODELAY");
        }
        let service =
            tower::util::MapRequest::new(service, move |mut request: Request<Incoming>| {
                request.extensions_mut().insert(Peer(peer));
                request
            });
        let builder = builder(wire);
        let connection =
            builder.serve_connection(TokioIo::new(stream), TowerToHyperService::new(service));
        tokio::pin!(connection);
        let ended = tokio::select! {
            biased;
            () = self.abort.cancelled() => Ok(()),
            ended = connection.as_mut() => ended,
            () = self.leave.cancelled() => {
                connection.as_mut().graceful_shutdown();
                tokio::select! {
                    biased;
                    () = self.abort.cancelled() => Ok(()),
                    ended = connection => ended,
                }
            }
        };
        if let Err(error) = ended {
            tracing::debug!(%peer, error, "a connection ended early");
        }
        telemetry::metrics().connections.dec();
    }
}

fn builder(wire: Wire) -> auto::Builder<TokioExecutor> {
    let mut builder = auto::Builder::new(TokioExecutor::new());
    builder
        .http2()
        .timer(TokioTimer::new())
        .max_concurrent_streams(STREAMS)
        .max_header_list_size(HEADERS)
        .keep_alive_interval(KEEPALIVE.0)
        .keep_alive_timeout(KEEPALIVE.1);
    // A client that closes its side has gone: a stream that waits for news ends there and then.
    builder
        .http1()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD)
        .half_close(false)
        .max_buf_size(BUFFER);
    match wire {
        Wire::Http2 => builder.http2_only(),
        Wire::Http => builder,
    }
}
