//! The instances of a callee, and a connection to each that is opened ahead of use.

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use arc_swap::{ArcSwap, ArcSwapOption};
use http::{Request, Response, Uri, uri};
use hyper::{
    body::Incoming,
    client::conn::http2::{self, SendRequest},
};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use tokio::{
    net::TcpStream,
    sync::{Notify, watch},
    time::Instant,
};
use tokio_util::sync::{CancellationToken, DropGuard};
use tonic::body::Body;

use super::long::{self, Lane, Lanes};
use crate::{
    clock,
    registry::{Address, Snapshot},
    status::Failure,
    telemetry,
};

/// How long a connection may take to open: address, TCP, HTTP/2.
const CONNECT: Duration = Duration::from_secs(1);
/// How long a call waits for the first instance that can be reached.
const FAILFAST: Duration = Duration::from_secs(1);
/// Between two tries to connect: full jitter below a ceiling that doubles.
const BACKOFF: (Duration, Duration) = (Duration::from_millis(50), Duration::from_secs(5));
/// HTTP/2 pings: how often on an idle connection, and how long for the answer.
const KEEPALIVE: (Duration, Duration) = (Duration::from_secs(10), Duration::from_secs(3));
/// Flow control windows: of a stream, of a connection, in bytes.
const WINDOWS: (u32, u32) = (2 << 20, 5 << 20);

/// All instances of a callee. Dropping it closes their connections.
#[derive(Debug)]
pub(super) struct Endpoints {
    name: String,
    all: Arc<ArcSwap<Vec<Arc<Endpoint>>>>,
    next: AtomicUsize,
    connected: Arc<Notify>,
    _close: DropGuard,
}

/// One instance.
#[derive(Debug)]
struct Endpoint {
    address: Address,
    authority: uri::Authority,
    connection: ArcSwapOption<SendRequest<Body>>,
    lanes: Lanes,
    gone: CancellationToken,
}

/// How often a long stream is begun anew where a connection did not send it.
const AGAIN: usize = 3;

// === impl Endpoints ===

impl Endpoints {
    /// Begins to connect to every instance, in the background, as they come and go.
    pub(super) fn follow(name: &str, mut snapshots: watch::Receiver<Arc<Snapshot>>) -> Self {
        let connected = Arc::new(Notify::new());
        let close = CancellationToken::new();
        let all: Arc<ArcSwap<Vec<Arc<Endpoint>>>> = Arc::default();
        let take = {
            let (name, all) = (name.to_owned(), Arc::clone(&all));
            let (connected, close) = (Arc::clone(&connected), close.clone());
            move |snapshot: &Snapshot| {
                let next = endpoints(&all.load(), snapshot, &name, &connected, &close);
                all.store(Arc::new(next));
            }
        };
        take(&snapshots.borrow_and_update());
        let followed = async move {
            while snapshots.changed().await.is_ok() {
                let known = Arc::clone(&snapshots.borrow_and_update());
                take(&known);
            }
        };
        if tokio::runtime::Handle::try_current().is_ok() {
            #[expect(
                clippy::disallowed_methods,
                reason = "ends with the channel, not with a call"
            )]
            tokio::spawn(close.clone().run_until_cancelled_owned(followed));
        }
        Self {
            name: name.to_owned(),
            all,
            next: AtomicUsize::new(0),
            connected,
            _close: close.drop_guard(),
        }
    }

    /// Sends `request` over the next connection that is open, round robin. A connection that
    /// hands the request back has not sent it: the next one gets it.
    pub(super) async fn send(
        &self,
        mut request: Request<Body>,
    ) -> Result<Response<Incoming>, Failure> {
        let fails = clock::instant() + FAILFAST;
        loop {
            let (endpoint, connection) = self.pick(fails).await?;
            target(request.uri_mut(), &endpoint.authority);
            let mut sender = SendRequest::clone(&connection);
            match sender.try_send_request(request).await {
                Ok(response) => return Ok(response),
                Err(mut error) => match error.take_message() {
                    Some(unsent) => {
                        telemetry::metrics().resent.inc();
                        endpoint.forget(&connection);
                        request = unsent;
                    }
                    None => return Err(Failure::Broken(self.name.clone())),
                },
            }
        }
    }

    /// The same over a connection for long streams, which the answer holds to its end.
    pub(super) async fn stream(
        &self,
        mut request: Request<Body>,
    ) -> Result<(Response<Incoming>, Arc<Lane>), Failure> {
        for _ in 0..AGAIN {
            // Where short calls arrive there is an instance that answers.
            let (endpoint, _) = self.pick(clock::instant() + FAILFAST).await?;
            let Some(lane) = endpoint.lane().await else { continue };
            target(request.uri_mut(), &endpoint.authority);
            match lane.0.clone().try_send_request(request).await {
                Ok(response) => return Ok((response, lane)),
                Err(mut error) => match error.take_message() {
                    Some(unsent) => {
                        telemetry::metrics().resent.inc();
                        endpoint.lanes.forget(&lane);
                        request = unsent;
                    }
                    None => return Err(Failure::Broken(self.name.clone())),
                },
            }
        }
        Err(Failure::Down(self.name.clone()))
    }

    /// An open connection; waits for one until `fails`.
    async fn pick(
        &self,
        fails: Instant,
    ) -> Result<(Arc<Endpoint>, Arc<SendRequest<Body>>), Failure> {
        loop {
            let connected = self.connected.notified();
            tokio::pin!(connected);
            // Listening before looking: a connection that opens in between is not missed.
            connected.as_mut().enable();
            let first = self.next.fetch_add(1, Ordering::Relaxed);
            let all = self.all.load();
            let open = (0..all.len()).find_map(|step| {
                let endpoint = &all[(first.wrapping_add(step)) % all.len()];
                endpoint.open().map(|connection| (Arc::clone(endpoint), connection))
            });
            if let Some(open) = open {
                return Ok(open);
            }
            if tokio::time::timeout_at(fails, connected).await.is_err() {
                return Err(Failure::Down(self.name.clone()));
            }
        }
    }
}

// === impl Endpoint ===

impl Endpoint {
    fn open(&self) -> Option<Arc<SendRequest<Body>>> {
        self.connection.load_full().filter(|connection| !connection.is_closed())
    }

    fn forget(&self, connection: &Arc<SendRequest<Body>>) {
        self.connection.compare_and_swap(connection, None);
    }

    /// Connects, and connects again whenever the connection ends.
    async fn keep(self: Arc<Self>, callee: String, connected: Arc<Notify>) {
        let (mut ceiling, highest) = BACKOFF;
        loop {
            match tokio::time::timeout(CONNECT, self.dial(WINDOWS)).await {
                Ok(Ok((sender, connection))) => {
                    tracing::debug!(callee, address = %self.address, "connected");
                    ceiling = BACKOFF.0;
                    self.connection.store(Some(Arc::new(sender)));
                    connected.notify_waiters();
                    let ended = connection.await;
                    self.connection.store(None);
                    tracing::debug!(callee, address = %self.address, ?ended, "connection ended");
                }
                Ok(Err(error)) => {
                    tracing::debug!(callee, address = %self.address, %error, "cannot connect");
                }
                Err(_) => {
                    tracing::debug!(callee, address = %self.address, "connecting took too long");
                }
            }
            let nanos = u64::try_from(ceiling.as_nanos()).unwrap_or(u64::MAX);
            tokio::time::sleep(Duration::from_nanos(fastrand::u64(..=nanos))).await;
            ceiling = (ceiling * 2).min(highest);
        }
    }

    /// A connection that has room for one more long stream; `None` if none can be opened.
    async fn lane(&self) -> Option<Arc<Lane>> {
        if let Some(lane) = self.lanes.room() {
            return Some(lane);
        }
        let dialled = tokio::time::timeout(CONNECT, self.dial(long::WINDOWS)).await;
        let (sender, connection) = dialled.ok()?.ok()?;
        #[expect(clippy::disallowed_methods, reason = "ends with the last stream on it")]
        tokio::spawn(connection);
        Some(self.lanes.open(sender))
    }

    async fn dial(
        &self,
        windows: (u32, u32),
    ) -> Result<
        (SendRequest<Body>, impl Future<Output = Result<(), hyper::Error>> + use<>),
        Box<dyn std::error::Error + Send + Sync>,
    > {
        let host = self.address.host.trim_start_matches('[').trim_end_matches(']');
        let stream = TcpStream::connect((host, self.address.port)).await?;
        stream.set_nodelay(true)?;
        let (sender, connection) = http2::Builder::new(TokioExecutor::new())
            .timer(TokioTimer::new())
            .keep_alive_interval(KEEPALIVE.0)
            .keep_alive_timeout(KEEPALIVE.1)
            .keep_alive_while_idle(true)
            .initial_stream_window_size(windows.0)
            .initial_connection_window_size(windows.1)
            .handshake(TokioIo::new(stream))
            .await?;
        Ok((sender, connection))
    }
}

/// The endpoints of this snapshot: those that stay with their connections, the others new.
fn endpoints(
    was: &[Arc<Endpoint>],
    snapshot: &Snapshot,
    name: &str,
    connected: &Arc<Notify>,
    close: &CancellationToken,
) -> Vec<Arc<Endpoint>> {
    let addresses = snapshot.addresses();
    for gone in was.iter().filter(|endpoint| !addresses.contains(&endpoint.address)) {
        gone.gone.cancel();
    }
    let stays = |address: &Address| {
        was.iter().find(|endpoint| endpoint.address == *address).map(Arc::clone)
    };
    let new = |address: &Address| {
        let endpoint = Arc::new(Endpoint {
            address: address.clone(),
            authority: address.to_string().parse().ok()?,
            connection: ArcSwapOption::empty(),
            lanes: Lanes::default(),
            gone: close.child_token(),
        });
        let keep = Arc::clone(&endpoint).keep(name.to_owned(), Arc::clone(connected));
        #[expect(clippy::disallowed_methods, reason = "ends with the channel, not with a call")]
        tokio::spawn(endpoint.gone.clone().run_until_cancelled_owned(keep));
        Some(endpoint)
    };
    addresses.iter().filter_map(|address| stays(address).or_else(|| new(address))).collect()
}

/// Gives a request the scheme and the authority of the instance it goes to.
fn target(uri: &mut Uri, authority: &uri::Authority) {
    let mut parts = std::mem::take(uri).into_parts();
    parts.scheme = Some(uri::Scheme::HTTP);
    parts.authority = Some(authority.clone());
    parts.path_and_query.get_or_insert(uri::PathAndQuery::from_static("/"));
    // Scheme, authority and path are all there: that is a URI.
    *uri = Uri::from_parts(parts).unwrap_or_default();
}
