//! What reads and writes a connection, and knows whether its peer is there.

use std::{
    convert::Infallible,
    io,
    pin::Pin,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicUsize, Ordering},
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
    sync::{Semaphore, oneshot},
    time::{Instant, Sleep},
};

use super::Sender;
use crate::{
    client::connect::{Error, Settings},
    clock,
};

/// The head of an answer, in bytes (the peer is told so).
const HEAD: u32 = 16 << 10;
/// What waits to be written on one stream, in bytes, before a body is asked for more.
const STREAM_BUFFER: usize = 1 << 20;
/// Streams before the peer has said how many it admits.
const STREAMS_AT_FIRST: usize = 100;
/// More streams at once than any connection carries, where the peer names no number.
const STREAMS_MOST: usize = 1 << 20;

/// An open connection.
#[derive(Debug)]
pub(in crate::client) struct Connected {
    pub(in crate::client) sender: Sender,
    /// How many streams the peer admits at once.
    pub(in crate::client) admits: Arc<AtomicUsize>,
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
    room: Arc<Semaphore>,
    admits: Arc<AtomicUsize>,
    /// Places that there are in `room`, taken or not.
    places: usize,
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
        .handshake(io)
        .await?;
    let (held, senders) = oneshot::channel();
    let (told, ends) = oneshot::channel();
    let room = Arc::new(Semaphore::new(0));
    let admits = Arc::new(AtomicUsize::new(0));
    let alive = Alive::new(connection.ping_pong(), settings.keepalive);
    let mut driver = Driver {
        connection,
        probe: Some(h2.clone()),
        senders,
        room: Arc::clone(&room),
        admits: Arc::clone(&admits),
        places: 0,
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
    let sender = Sender { h2: Mutex::new(h2), room, _held: held };
    Ok(Connected { sender, admits, ends })
}

// === impl Driver ===

impl<T: AsyncRead + AsyncWrite + Unpin> Driver<T> {
    /// Ends with the connection; with [`Error::Silent`] if the peer is not there.
    fn poll_ends(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Error>> {
        // Writing comes first. With a GOAWAY a peer sends a ping, and takes what it has before the
        // answer to that: h2 by itself would answer, and then write what was begun before.
        for deaf in [true, false] {
            self.seen.deaf.store(deaf, Ordering::Relaxed);
            let ended = Pin::new(&mut self.connection).poll(cx).map_err(Error::Http);
            if ended.is_ready() {
                return ended;
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
        self.count();
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

    /// The peer may change its mind on how many streams it admits.
    fn count(&mut self) {
        let admits = self.connection.max_concurrent_send_streams();
        self.admits.store(admits, Ordering::Relaxed);
        let admits = admits.min(STREAMS_MOST);
        if admits > self.places {
            self.room.add_permits(admits - self.places);
            self.places = admits;
        } else if admits < self.places {
            // Places that are taken go when the connection is polled after they were given back.
            self.places -= self.room.forget_permits(self.places - admits);
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
        let timer = Box::pin(tokio::time::sleep_until(last + every));
        Self { pings, every, timeout, heard: false, last, asked: None, timer }
    }

    /// Ends when the peer was asked and said nothing, not even anything else, in its time.
    fn poll(&mut self, heard: bool, cx: &mut Context<'_>) -> Poll<()> {
        if heard {
            (self.heard, self.last, self.asked) = (true, clock::instant(), None);
        }
        while self.timer.as_mut().poll(cx).is_ready() {
            let now = clock::instant();
            let due = match self.asked {
                Some(asked) if now >= asked + self.timeout => return Poll::Ready(()),
                Some(asked) => asked + self.timeout,
                None if now < self.last + self.every => self.last + self.every,
                None => {
                    self.ask(cx);
                    self.asked = Some(now);
                    now + self.timeout
                }
            };
            self.timer.as_mut().reset(due);
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
