//! What reads and writes a connection, and knows whether its peer is there.

use std::{
    convert::Infallible,
    io,
    pin::Pin,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    task::{Context, Poll, ready},
    time::Duration,
};

use bytes::Bytes;
use h2::{
    Ping, PingPong, Reason,
    client::{Builder, Connection, SendRequest},
};
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    sync::oneshot,
    time::{Instant, Sleep},
};

use super::{Room, Sender};
use crate::{
    client::connect::{Error, Settings},
    clock,
};

/// The head of an answer, in bytes (the peer is told so).
const HEAD: u32 = 16 << 10;
/// What waits to be written on one stream, in bytes, before a body is asked for more.
const STREAM_BUFFER: usize = 1 << 20;
/// What h2 may keep for frames that are small, per byte of the connection's window: each costs what
/// it lacks to 256 bytes. As much as all that the window takes in frames of thirty.
const SMALL_FRAMES: usize = 8;
/// Streams before the peer has said how many it admits.
const STREAMS_AT_FIRST: usize = 100;
/// More streams at once than any connection carries, where the peer names no number.
const STREAMS_MOST: usize = 1 << 20;

/// An open connection.
#[derive(Debug)]
pub(in crate::client) struct Connected {
    pub(in crate::client) sender: Sender,
    /// Comes when no stream can begin any more: the peer said so, or the connection is gone. Those
    /// that have begun may go on.
    pub(in crate::client) ends: oneshot::Receiver<Result<(), Error>>,
}

/// Reads and writes a connection to its end.
struct Driver<T> {
    connection: Connection<Io<T>, Bytes>,
    seen: Arc<Seen>,
    /// Knows whether streams may begin. h2 keeps a connection open for it: it goes with the senders.
    probe: Option<SendRequest<Bytes>>,
    senders: oneshot::Receiver<Infallible>,
    room: Arc<Room>,
    alive: Alive,
    /// Who is told that no stream can begin any more.
    told: Option<oneshot::Sender<Result<(), Error>>>,
}

/// Whether the peer is there: pings it when nothing was heard of it for a while.
struct Alive {
    pings: Option<PingPong>,
    every: Duration,
    timeout: Duration,
    /// Whether it ever was.
    heard: bool,
    last: Instant,
    /// Since when an answer to a ping is waited for.
    asked: Option<Instant>,
    due: Instant,
    timer: Pin<Box<Sleep>>,
}

/// The bytes of a connection.
struct Io<T> {
    inner: T,
    seen: Arc<Seen>,
}

/// What the driver of a connection and its bytes have between them.
#[derive(Debug, Default)]
struct Seen {
    /// Nothing is read for now.
    deaf: AtomicBool,
    /// Something was read.
    heard: AtomicBool,
    /// Why nothing more can be: h2 keeps the words of it alone.
    broke: Mutex<Option<io::Error>>,
}

/// Speaks HTTP/2 over `io`, and has heard the peer do the same.
pub(in crate::client) async fn handshake<T>(io: T, settings: &Settings) -> Result<Connected, Error>
where
    T: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let seen = Arc::<Seen>::default();
    let io = Io { inner: io, seen: Arc::clone(&seen) };
    let (h2, mut connection) = Builder::new()
        .enable_push(false)
        .initial_window_size(settings.windows.0)
        .initial_connection_window_size(settings.windows.1)
        .initial_max_send_streams(STREAMS_AT_FIRST)
        .max_header_list_size(HEAD)
        .max_send_buffer_size(STREAM_BUFFER)
        .data_frame_budget(SMALL_FRAMES.saturating_mul(settings.window()))
        .handshake(io)
        .await?;
    let (held, senders) = oneshot::channel();
    let (told, ends) = oneshot::channel();
    let room = Arc::new(Room::default());
    let alive = Alive::new(connection.ping_pong(), settings.keepalive);
    let mut driver = Driver {
        connection,
        probe: Some(h2.clone()),
        senders,
        room: Arc::clone(&room),
        seen,
        alive,
        told: Some(told),
    };
    // h2 is content when our own settings are on their way. A peer that never answers, such as one
    // whose process is stopped, would look connected until the first ping is due.
    std::future::poll_fn(|cx| match driver.poll_ends(cx) {
        Poll::Ready(Ok(())) => Poll::Ready(Err(Error::HungUp)),
        Poll::Ready(Err(error)) => Poll::Ready(Err(error)),
        Poll::Pending if driver.alive.heard => Poll::Ready(Ok(())),
        Poll::Pending => Poll::Pending,
    })
    .await?;
    #[expect(clippy::disallowed_methods, reason = "ends with the last stream on it")]
    tokio::spawn(driver);
    let sender = Sender { h2, room, _held: held };
    Ok(Connected { sender, ends })
}

// === impl Driver ===

impl<T: AsyncRead + AsyncWrite + Unpin> Driver<T> {
    /// Ends with the connection; with [`Error::Silent`] if the peer is not there.
    fn poll_ends(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Error>> {
        // Writing comes first. With a GOAWAY a peer sends a ping, and takes what it has before the
        // answer to that: h2 by itself would answer, and then write what was begun before.
        for deaf in [true, false] {
            self.seen.deaf.store(deaf, Ordering::Relaxed);
            if let Poll::Ready(ended) = Pin::new(&mut self.connection).poll(cx) {
                return Poll::Ready(ended.map_err(|error| self.seen.why(error)));
            }
        }
        if self.probe.is_some() && Pin::new(&mut self.senders).poll(cx).is_ready() {
            self.no_more(Ok(()));
        }
        let open = self.probe.as_mut().map_or(Poll::Pending, |probe| probe.poll_ready(cx));
        if let Poll::Ready(Err(error)) = open {
            let goes = error.is_go_away() && error.reason() == Some(Reason::NO_ERROR);
            self.no_more(if goes { Ok(()) } else { Err(Error::Http(error)) });
        }
        let admits = self.connection.max_concurrent_send_streams().min(STREAMS_MOST);
        if admits != self.room.admits() {
            self.room.resize(admits);
        }
        let heard = self.seen.heard.swap(false, Ordering::Relaxed);
        self.alive.poll(heard, cx).map(|()| Err(Error::Silent))
    }

    /// Streams can begin here no more: those who wait for a place go elsewhere.
    fn no_more(&mut self, why: Result<(), Error>) {
        self.probe = None;
        self.room.close();
        if let Some(told) = self.told.take() {
            // It may be that nobody listens any more.
            drop(told.send(why));
        }
    }
}

impl<T: AsyncRead + AsyncWrite + Unpin> Future for Driver<T> {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let ended = ready!(self.poll_ends(cx));
        self.no_more(ended);
        Poll::Ready(())
    }
}

// === impl Alive ===

impl Alive {
    fn new(pings: Option<PingPong>, (every, timeout): (Duration, Duration)) -> Self {
        let last = clock::instant();
        let due = last + every;
        let timer = Box::pin(tokio::time::sleep_until(due));
        Self { pings, every, timeout, heard: false, last, asked: None, due, timer }
    }

    /// Ends when the peer was asked and said nothing, not even anything else, in its time.
    fn poll(&mut self, heard: bool, cx: &mut Context<'_>) -> Poll<()> {
        if heard {
            (self.heard, self.last, self.asked) = (true, clock::instant(), None);
        }
        while self.timer.as_mut().poll(cx).is_ready() {
            let now = clock::instant();
            // This process stood still: an answer may be there, and was not read.
            let stood = now >= self.due + self.timeout / 2;
            self.due = match self.asked {
                Some(asked) if now < asked + self.timeout => asked + self.timeout,
                Some(_) if stood => now + self.timeout / 2,
                Some(_) => return Poll::Ready(()),
                None if now < self.last + self.every => self.last + self.every,
                None => {
                    self.ask(cx);
                    self.asked = Some(now);
                    now + self.timeout
                }
            };
            self.timer.as_mut().reset(self.due);
        }
        Poll::Pending
    }

    fn ask(&mut self, cx: &mut Context<'_>) {
        let Some(pings) = &mut self.pings else { return };
        // The answer to the one before, which is taken in only here. One that has not come is still
        // asked for, and its connection is about to end: nothing is lost if this one is not sent.
        let _answered = pings.poll_pong(cx).is_ready();
        drop(pings.send_ping(Ping::opaque()));
    }
}

// === impl Seen ===

impl Seen {
    /// Why a connection has ended with an error.
    fn why(&self, error: h2::Error) -> Error {
        let mut broke = self.broke.lock().unwrap_or_else(PoisonError::into_inner);
        broke.take().map_or(Error::Http(error), Error::Network)
    }
}

// === impl Io ===

impl<T: AsyncRead + Unpin> AsyncRead for Io<T> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if self.seen.deaf.load(Ordering::Relaxed) {
            // Whoever made it so asks again at once.
            return Poll::Pending;
        }
        let before = buf.filled().len();
        let polled = Pin::new(&mut self.inner).poll_read(cx, buf);
        if let Poll::Ready(Err(error)) = polled {
            let words = io::Error::new(error.kind(), error.to_string());
            *self.seen.broke.lock().unwrap_or_else(PoisonError::into_inner) = Some(error);
            return Poll::Ready(Err(words));
        }
        if buf.filled().len() > before {
            self.seen.heard.store(true, Ordering::Relaxed);
        }
        polled
    }
}

impl<T: AsyncWrite + Unpin> AsyncWrite for Io<T> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.inner).poll_write(cx, buf)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.inner).poll_write_vectored(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        self.inner.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_shutdown(cx)
    }
}
