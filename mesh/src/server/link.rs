//! What is known of a connection while its calls are served: whose it is, what goes over it.

use std::{
    io,
    net::SocketAddr,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicI64, AtomicU64, AtomicUsize, Ordering},
    },
    task::{Context, Poll, ready},
    time::Duration,
};

use bytes::{Buf as _, Bytes};
use http::{Request, Response};
use http_body::Frame;
use hyper::body::Incoming;
use rustls::pki_types::CertificateDer;
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    sync::Notify,
    time::Instant,
};
use tokio_util::sync::CancellationToken;
use tonic::{Status, body::Body};
use tower::{Service, ServiceExt as _, util::Oneshot};

use super::{
    accept::{Phases, Wire},
    connection::HEAD,
};
use crate::clock;

/// A call that is given up sooner than this, before its answer, is one of those of a rapid reset.
const RAPID: Duration = Duration::from_millis(10);
/// A client that has given up this many such calls more than it has waited for is not one that
/// changed its mind (CVE-2023-44487).
const RAPID_MAX: i64 = 1_000;

/// The address of the client, in the extensions of every request at the edge.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Peer(pub SocketAddr);

/// How a call came, in the extensions of every request between services.
#[derive(Clone, Debug)]
pub(super) struct Arrived {
    pub(super) over: Arc<Link>,
    pub(super) at: Instant,
}

/// One connection, as its calls see it.
#[derive(Debug)]
pub(super) struct Link {
    pub(super) peer: SocketAddr,
    pub(super) wire: Wire,
    /// What the client has shown, over TLS.
    pub(super) certificate: Option<CertificateDer<'static>>,
    /// The process leaves, or the connection is old: streams should end.
    pub(super) leave: CancellationToken,
    /// The parent of the tokens of streams.
    pub(super) streams: CancellationToken,
    /// A flood of resets has come.
    pub(super) flooded: Notify,
    born: Instant,
    /// Bytes in both directions, as far as the sockets took them; and those that came in.
    moved: AtomicU64,
    read: AtomicU64,
    /// When the head of a request began to come in that is not whole yet, in milliseconds after
    /// `born` and one more; 0 if none does. And when bytes came last that may be of one.
    head: AtomicU64,
    heard: AtomicU64,
    open: AtomicUsize,
    /// When the last call ended, in milliseconds after `born`.
    ended: AtomicU64,
    /// Calls that were given up at once, less those that were answered.
    given_up: AtomicI64,
}

/// Bytes of a connection, counted; the first of them were read already.
#[derive(Debug)]
pub(super) struct Metered<I> {
    io: I,
    first: Bytes,
    link: Arc<Link>,
}

/// Hands requests to a service, and knows which are open.
#[derive(Debug)]
pub(super) struct Served<S> {
    inner: S,
    link: Arc<Link>,
}

pin_project_lite::pin_project! {
    /// A request on its way to its answer.
    pub(super) struct Serving<S>
    where
        S: Service<Request<Incoming>>,
    {
        #[pin]
        inner: Oneshot<S, Request<Incoming>>,
        open: Option<Open>,
    }
}

pin_project_lite::pin_project! {
    /// The body of an answer; its call is open until it is dropped.
    pub(super) struct Answered {
        #[pin]
        inner: Body,
        open: Option<Open>,
    }
}

/// A call that has come and not ended.
#[derive(Debug)]
struct Open {
    link: Arc<Link>,
    begun: Instant,
    answered: bool,
}

// === impl Link ===

impl Link {
    pub(super) fn new(
        peer: SocketAddr,
        wire: Wire,
        certificate: Option<CertificateDer<'static>>,
        phases: &Phases,
    ) -> Self {
        Self {
            peer,
            wire,
            certificate,
            // A child: what calls do with it does not contend with other connections.
            leave: phases.leave.child_token(),
            streams: phases.streams.child_token(),
            flooded: Notify::new(),
            born: clock::instant(),
            moved: AtomicU64::new(0),
            read: AtomicU64::new(0),
            // Its first bytes have come already.
            head: AtomicU64::new(1),
            heard: AtomicU64::new(1),
            open: AtomicUsize::new(0),
            ended: AtomicU64::new(0),
            given_up: AtomicI64::new(0),
        }
    }

    /// Whether a call is open.
    pub(super) fn busy(&self) -> bool {
        self.open.load(Ordering::Acquire) > 0
    }

    /// Since when there is no call; `None` while there is one.
    pub(super) fn idle_since(&self) -> Option<Instant> {
        let ended = Duration::from_millis(self.ended.load(Ordering::Acquire));
        (!self.busy()).then(|| self.born + ended)
    }

    /// Since when the head of a request comes in, and when something of it came last; `None` if
    /// there is nothing of one.
    pub(super) fn head_since(&self) -> Option<(Instant, Instant)> {
        let time = |at: &AtomicU64| {
            let at = at.load(Ordering::Relaxed).checked_sub(1)?;
            Some(self.born + Duration::from_millis(at))
        };
        if self.busy() { None } else { time(&self.head).zip(time(&self.heard)) }
    }

    /// Bytes came that belong to no call: the head of the next, or what an answer did not wait
    /// for. After a pause it is taken for a new head.
    fn hears(&self, pause: Duration) {
        let (now, heard) = (self.age(clock::instant()) + 1, self.heard.load(Ordering::Relaxed));
        let paused = u128::from(now.saturating_sub(heard)) >= pause.as_millis();
        if paused || self.head.load(Ordering::Relaxed) == 0 {
            self.head.store(now, Ordering::Relaxed);
        }
        self.heard.store(now, Ordering::Relaxed);
    }

    /// How many bytes went over the connection, in either direction.
    pub(super) fn moved(&self) -> u64 {
        self.moved.load(Ordering::Relaxed)
    }

    /// How many bytes came from the client, without the first 24.
    pub(super) fn read(&self) -> u64 {
        self.read.load(Ordering::Relaxed)
    }

    /// How old it is at this time, in milliseconds.
    fn age(&self, at: Instant) -> u64 {
        let age = at.saturating_duration_since(self.born).as_millis();
        u64::try_from(age).unwrap_or(u64::MAX)
    }

    fn open(self: &Arc<Self>, begun: Instant) -> Open {
        self.head.store(0, Ordering::Relaxed);
        self.open.fetch_add(1, Ordering::AcqRel);
        Open { link: Arc::clone(self), begun, answered: false }
    }

    fn answered(&self) {
        if self.given_up.load(Ordering::Relaxed) > 0 {
            self.given_up.fetch_sub(1, Ordering::Relaxed);
        }
    }

    fn gave_up(&self) {
        if self.given_up.fetch_add(1, Ordering::Relaxed) == RAPID_MAX {
            self.flooded.notify_one();
        }
    }
}

// === impl Open ===

impl Drop for Open {
    fn drop(&mut self) {
        let now = clock::instant();
        if !self.answered && now.saturating_duration_since(self.begun) < RAPID {
            self.link.gave_up();
        }
        self.link.ended.store(self.link.age(now), Ordering::Release);
        self.link.open.fetch_sub(1, Ordering::AcqRel);
    }
}

// === impl Served ===

impl<S> Served<S> {
    pub(super) fn new(inner: S, link: Arc<Link>) -> Self {
        Self { inner, link }
    }
}

impl<S> hyper::service::Service<Request<Incoming>> for Served<S>
where
    S: Service<Request<Incoming>, Response = Response<Body>> + Clone,
{
    type Response = Response<Answered>;
    type Error = S::Error;
    type Future = Serving<S>;

    fn call(&self, mut request: Request<Incoming>) -> Self::Future {
        let (over, at) = (Arc::clone(&self.link), clock::instant());
        let open = over.open(at);
        match self.link.wire {
            Wire::Http => request.extensions_mut().insert(Peer(self.link.peer)).is_some(),
            Wire::Http2 => request.extensions_mut().insert(Arrived { over, at }).is_some(),
        };
        Serving { inner: self.inner.clone().oneshot(request), open: Some(open) }
    }
}

// === impl Serving ===

impl<S> Future for Serving<S>
where
    S: Service<Request<Incoming>, Response = Response<Body>>,
{
    type Output = Result<Response<Answered>, S::Error>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = self.project();
        let answer = ready!(this.inner.poll(cx));
        let mut open = this.open.take();
        if let Some(open) = open.as_mut() {
            open.answered = true;
            open.link.answered();
        }
        Poll::Ready(answer.map(|answer| answer.map(|inner| Answered { inner, open })))
    }
}

// === impl Answered ===

impl http_body::Body for Answered {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        self.project().inner.poll_frame(cx)
    }

    fn is_end_stream(&self) -> bool {
        self.inner.is_end_stream()
    }

    fn size_hint(&self) -> http_body::SizeHint {
        self.inner.size_hint()
    }
}

// === impl Metered ===

impl<I> Metered<I> {
    /// The connection `io`, of which `first` was read already.
    pub(super) fn new(io: I, first: Bytes, link: Arc<Link>) -> Self {
        Self { io, first, link }
    }

    fn wrote(&self, written: &io::Result<usize>) {
        if let Ok(written) = written {
            count(&self.link.moved, *written);
        }
    }
}

impl<I: AsyncRead + Unpin> AsyncRead for Metered<I> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = &mut *self;
        if !this.first.is_empty() {
            let some = this.first.len().min(buf.remaining());
            buf.put_slice(&this.first[..some]);
            this.first.advance(some);
            return Poll::Ready(Ok(()));
        }
        let before = buf.filled().len();
        ready!(Pin::new(&mut this.io).poll_read(cx, buf))?;
        let read = buf.filled().len().saturating_sub(before);
        // Only over HTTP/1.1 a head may come in pieces; elsewhere nobody asks.
        if this.link.wire == Wire::Http && !this.link.busy() {
            this.link.hears(HEAD);
        }
        count(&this.link.read, read);
        count(&this.link.moved, read);
        Poll::Ready(Ok(()))
    }
}

impl<I: AsyncWrite + Unpin> AsyncWrite for Metered<I> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        let written = ready!(Pin::new(&mut self.io).poll_write(cx, buf));
        self.wrote(&written);
        Poll::Ready(written)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let written = ready!(Pin::new(&mut self.io).poll_write_vectored(cx, bufs));
        self.wrote(&written);
        Poll::Ready(written)
    }

    fn is_write_vectored(&self) -> bool {
        self.io.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_shutdown(cx)
    }
}

/// Only the task of the connection writes.
fn count(counter: &AtomicU64, bytes: usize) {
    let bytes = u64::try_from(bytes).unwrap_or(u64::MAX);
    counter.store(counter.load(Ordering::Relaxed).wrapping_add(bytes), Ordering::Relaxed);
}
