//! The accept loop: connections in, requests to a service, and an end that loses none.

use std::{
    convert::Infallible,
    io,
    net::{SocketAddr, TcpListener as Bound},
    sync::{Arc, OnceLock},
    time::Duration,
};

use anyhow::Context as _;
use http::{Request, Response};
use hyper::body::Incoming;
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::{TcpListener, TcpStream},
    sync::{OwnedSemaphorePermit, Semaphore},
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use tonic::body::Body;
use tower::Service;

use super::{
    clients::{Clients, Held, TooMany},
    connection::{self, Ended, Why},
    link::Link,
    settings::Settings,
};
use crate::{telemetry, tls};

/// After an error of `accept`, such as too many open files: how long to wait.
const BACKOFF: (Duration, Duration) = (Duration::from_millis(10), Duration::from_secs(1));

/// What is spoken on a listener.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Wire {
    /// HTTP/2 alone: gRPC.
    Http2,
    /// HTTP/1.1 and HTTP/2: the edge, the admin port.
    Http,
}

/// Where connections come from: a socket, or a network that a test plays.
pub(crate) trait Accept: Send + Sync + 'static {
    /// A connection.
    type Io: AsyncRead + AsyncWrite + Unpin + Send + 'static;

    /// The next one, and who opened it.
    fn accept(&self) -> impl Future<Output = io::Result<(Self::Io, SocketAddr)>> + Send;
}

/// A socket that listens, from the start of the process to its end.
#[derive(Debug)]
pub(crate) struct Listener<A = TcpListener> {
    socket: A,
    settings: Settings,
    tls: Option<tls::Acceptor>,
    phases: Phases,
    connections: TaskTracker,
    /// Where one client may not have them all.
    clients: OnceLock<Arc<Clients>>,
}

/// How far the end of a listener has come; each phase begins once.
#[derive(Clone, Debug, Default)]
pub(super) struct Phases {
    /// No new connections, no new calls; those that run may finish.
    pub(super) leave: CancellationToken,
    /// Streams that are still open end now.
    pub(super) streams: CancellationToken,
    /// Whatever still runs ends now.
    pub(super) abort: CancellationToken,
}

// === impl TcpListener ===

impl Accept for TcpListener {
    type Io = TcpStream;

    async fn accept(&self) -> io::Result<(TcpStream, SocketAddr)> {
        let (stream, peer) = Self::accept(self).await?;
        if let Err(error) = stream.set_nodelay(true) {
            tracing::debug!(%error, "cannot set TCP_NODELAY");
        }
        Ok((stream, peer))
    }
}

// === impl Listener ===

impl Listener {
    /// Takes a socket into service. Serves from [`Listener::serve`] on.
    pub(crate) fn new(
        socket: Bound,
        settings: Settings,
        tls: Option<tls::Acceptor>,
    ) -> anyhow::Result<Self> {
        socket.set_nonblocking(true).context("cannot prepare the listening socket")?;
        let socket = TcpListener::from_std(socket).context("cannot watch the listening socket")?;
        Ok(Self::over(socket, settings, tls))
    }
}

impl<A: Accept> Listener<A> {
    /// The same over any socket.
    pub(crate) fn over(socket: A, settings: Settings, tls: Option<tls::Acceptor>) -> Self {
        let (phases, connections) = (Phases::default(), TaskTracker::new());
        Self { socket, settings, tls, phases, connections, clients: OnceLock::new() }
    }

    /// Counts the connections of each client, before any is accepted.
    pub(crate) fn bound_by(&self, clients: Arc<Clients>) {
        // Told twice, the first counts.
        let _first = self.clients.set(clients).is_ok();
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
        let room = Arc::new(Semaphore::new(self.settings.connections_max));
        let mut backoff = Backoff::default();
        loop {
            let accepted = async {
                let permit = Arc::clone(&room).acquire_owned().await;
                let permit = permit.map_err(|_closed| io::Error::other("no room is left"))?;
                let (stream, peer) = self.socket.accept().await?;
                Ok::<_, io::Error>((stream, peer, permit))
            };
            let accepted = tokio::select! {
                biased;
                () = self.phases.leave.cancelled() => return,
                accepted = accepted => accepted,
            };
            match accepted {
                Ok((stream, peer, permit)) => {
                    backoff = Backoff::default();
                    let held = match self.clients.get().map(|it| it.enter(peer.ip())).transpose() {
                        Ok(held) => held.flatten(),
                        Err(TooMany) => {
                            self.refuse(stream, peer);
                            continue;
                        }
                    };
                    let places = (permit, held);
                    let connection =
                        Arc::clone(&self).connection(wire, stream, peer, service.clone(), places);
                    #[expect(clippy::disallowed_methods, reason = "the drain tracks connections")]
                    tokio::spawn(self.connections.track_future(connection));
                }
                Err(error) => {
                    tracing::warn!(%error, "cannot accept a connection");
                    tokio::select! {
                        () = self.phases.leave.cancelled() => return,
                        () = tokio::time::sleep(backoff.next()) => {}
                    }
                }
            }
        }
    }

    /// Lets a client go that has as many connections as it may; in plaintext it is told why, beside
    /// those that are served.
    fn refuse(&self, stream: A::Io, peer: SocketAddr) {
        tracing::debug!(%peer, "a client has as many connections as it may");
        let Some(clients) = self.clients.get().filter(|_| self.tls.is_none()) else { return };
        let (clients, leave) = (Arc::clone(clients), self.phases.leave.clone());
        #[expect(clippy::disallowed_methods, reason = "a second at most, and nobody's call")]
        tokio::spawn(async move {
            tokio::select! {
                () = leave.cancelled() => {}
                () = clients.refuse(stream) => {}
            }
        });
    }

    /// Takes no new connections and tells the clients of open ones to go (GOAWAY).
    pub(crate) fn leave(&self) {
        self.phases.leave.cancel();
        self.connections.close();
    }

    /// Waits until every connection has ended; after [`Listener::leave`].
    pub(crate) async fn drained(&self) {
        self.connections.wait().await;
    }

    /// How many connections are served.
    #[cfg(test)]
    pub(crate) fn connections(&self) -> usize {
        self.connections.len()
    }

    /// Ends the streams that did not end when they were told to.
    pub(crate) fn end_streams(&self) {
        self.phases.streams.cancel();
    }

    /// Ends what still runs. Says how many connections were cut.
    pub(crate) async fn abort(&self) -> usize {
        let cut = self.connections.len();
        self.phases.abort.cancel();
        self.connections.wait().await;
        cut
    }

    async fn connection<S>(
        self: Arc<Self>,
        wire: Wire,
        stream: A::Io,
        peer: SocketAddr,
        service: S,
        _places: (OwnedSemaphorePermit, Option<Held>),
    ) where
        S: Service<Request<Incoming>, Response = Response<Body>, Error = Infallible>
            + Clone
            + Send
            + 'static,
        S::Future: Send,
    {
        let _counted = Counted::begin();
        let ended = tokio::select! {
            biased;
            () = self.phases.abort.cancelled() => return,
            ended = self.serve_one(wire, stream, peer, service) => ended,
        };
        match ended {
            Ended::Finished => {}
            Ended::Failed(error) => tracing::debug!(%peer, error, "a connection ended early"),
            Ended::Cut(why) => tracing::debug!(%peer, ?why, "a connection was cut"),
        }
    }
}

impl<A: Accept> Listener<A> {
    /// Serves one connection, over TLS where there are certificates.
    async fn serve_one<S>(&self, wire: Wire, stream: A::Io, peer: SocketAddr, service: S) -> Ended
    where
        S: Service<Request<Incoming>, Response = Response<Body>, Error = Infallible>
            + Clone
            + Send
            + 'static,
        S::Future: Send,
    {
        let Self { settings, phases, .. } = self;
        let Some(tls) = &self.tls else {
            let link = Arc::new(Link::new(peer, wire, None, phases));
            return connection::serve(stream, link, settings, phases, service).await;
        };
        let shaken = tokio::time::timeout(settings.handshake_timeout, tls.accept(stream, wire));
        let (stream, shown) = tokio::select! {
            biased;
            // Nothing was asked yet: nothing is lost.
            () = phases.leave.cancelled() => return Ended::Cut(Why::Leaving),
            shaken = shaken => match shaken {
                Ok(Ok(shaken)) => shaken,
                Ok(Err(error)) => return Ended::Failed(error.to_string()),
                Err(_late) => return Ended::Cut(Why::Silent),
            },
        };
        let link = Arc::new(Link::new(peer, wire, shown, phases));
        connection::serve(stream, link, settings, phases, service).await
    }
}

/// How long to wait after the errors of `accept` that came in a row.
#[derive(Debug)]
struct Backoff(Duration);

impl Default for Backoff {
    fn default() -> Self {
        Self(BACKOFF.0)
    }
}

impl Backoff {
    fn next(&mut self) -> Duration {
        let now = self.0;
        self.0 = (self.0 * 2).min(BACKOFF.1);
        now
    }
}

/// A connection in the metrics, for as long as it lasts.
#[derive(Debug)]
struct Counted;

impl Counted {
    fn begin() -> Self {
        telemetry::metrics().connections.inc();
        Self
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        telemetry::metrics().connections.dec();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_of_accept_back_off_from_10_ms_to_1_s() {
        let mut backoff = Backoff::default();
        let waits: Vec<u128> = (0..9).map(|_| backoff.next().as_millis()).collect();
        assert_eq!(waits, [10, 20, 40, 80, 160, 320, 640, 1_000, 1_000]);
    }
}
