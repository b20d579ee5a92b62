//! One connection: address, TCP, TLS, HTTP/2.

use std::{
    io,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    task::{Context, Poll},
    time::Duration,
};

use http::uri::Scheme;
use hyper::client::conn::http2::{self, SendRequest};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::TcpStream,
    sync::oneshot,
};

use super::outgoing::Outgoing;
use crate::{registry::Address, tls};

/// What connections are like.
#[derive(Clone, Debug)]
pub(super) struct Settings {
    /// How long one may take to open: address, TCP, TLS, HTTP/2 up to the peer's settings.
    pub(super) timeout: Duration,
    /// HTTP/2 pings: how often where nothing is heard, and how long for the answer.
    pub(super) keepalive: (Duration, Duration),
    /// Flow control windows: of a stream, of the connection, in bytes.
    pub(super) windows: (u32, u32),
    pub(super) network: Network,
}

/// What connections run over.
#[derive(Clone, Debug, Default)]
pub(super) enum Network {
    #[default]
    Tcp,
    /// TCP, and TLS over it.
    Tls(tls::Connector),
    /// Pipes, to hosts that a test plays: there time can be paused.
    #[cfg(test)]
    Memory(Hosts),
}

/// Who accepts pipes, by name.
#[cfg(test)]
pub(crate) type Hosts = Arc<
    std::sync::Mutex<
        std::collections::HashMap<
            String,
            tokio::sync::mpsc::UnboundedSender<tokio::io::DuplexStream>,
        >,
    >,
>;

/// An open connection.
pub(super) struct Connected {
    pub(super) sender: SendRequest<Outgoing>,
    /// How many streams the peer admits at once.
    pub(super) admits: Arc<AtomicUsize>,
    /// Has to be awaited for requests to go out; ends with the connection, or with the last
    /// sender.
    pub(super) ends: Pin<Box<dyn Future<Output = Result<(), hyper::Error>> + Send>>,
}

/// There is no connection.
#[derive(Debug, thiserror::Error)]
pub(super) enum Error {
    /// It took too long.
    #[error("no connection after {0:?}")]
    Late(Duration),
    /// The network said no.
    #[error("cannot connect: {0}")]
    Network(#[from] io::Error),
    /// What answered does not speak HTTP/2, or ended it.
    #[error("no HTTP/2: {0}")]
    Http(#[from] hyper::Error),
    /// It hung up before it said anything.
    #[error("the peer hung up")]
    HungUp,
    /// It broke off after TLS was there, as one does that was shown no certificate.
    #[error("{0}; if it asks for a certificate, {1}cert and {1}key name ours")]
    BrokeOff(Box<Error>, &'static str),
}

/// A stream that says when its peer is first heard.
struct Heard<T> {
    inner: T,
    told: Option<oneshot::Sender<()>>,
}

// === impl Network ===

impl Network {
    /// What requests that go over it say of it.
    pub(super) fn scheme(&self) -> Scheme {
        match self {
            Self::Tcp => Scheme::HTTP,
            Self::Tls(_) => Scheme::HTTPS,
            #[cfg(test)]
            Self::Memory(_) => Scheme::HTTP,
        }
    }
}

// === impl Settings ===

impl Default for Settings {
    fn default() -> Self {
        Self {
            timeout: Duration::from_secs(1),
            keepalive: (Duration::from_secs(10), Duration::from_secs(3)),
            windows: (2 << 20, 5 << 20),
            network: Network::default(),
        }
    }
}

// === impl Connected ===

impl std::fmt::Debug for Connected {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Connected").field("sender", &self.sender).finish_non_exhaustive()
    }
}

// === impl Heard ===

impl<T: AsyncRead + Unpin> AsyncRead for Heard<T> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        let polled = Pin::new(&mut self.inner).poll_read(cx, buf);
        if buf.filled().len() > before
            && let Some(told) = self.told.take()
        {
            // Whoever listened may have given up.
            let _heard = told.send(()).is_ok();
        }
        polled
    }
}

impl<T: AsyncWrite + Unpin> AsyncWrite for Heard<T> {
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

/// Connects to `address`.
pub(super) async fn dial(address: &Address, settings: &Settings) -> Result<Connected, Error> {
    // Boxed, since the shaking of hands in it is large, and every call could come to it.
    let dialled = Box::pin(async {
        match &settings.network {
            Network::Tcp => handshake(tcp(address).await?, settings).await,
            Network::Tls(connector) => {
                let stream = tcp(address).await?;
                let stream = connector.connect(host(address), stream).await?;
                // Whether it takes our certificate, a server says only after our last word.
                let files = connector.files();
                handshake(stream, settings).await.map_err(|error| match files.distrust(&error) {
                    Some(why) => Error::Network(io::Error::other(why)),
                    None if files.cert.is_none() => Error::BrokeOff(Box::new(error), files.flags),
                    None => error,
                })
            }
            #[cfg(test)]
            Network::Memory(hosts) => {
                let (ours, theirs) = tokio::io::duplex(64 << 10);
                let host = hosts.lock().unwrap().get(&address.host).cloned();
                let accepted = host.is_some_and(|host| host.send(theirs).is_ok());
                if !accepted {
                    return Err(io::Error::from(io::ErrorKind::ConnectionRefused).into());
                }
                handshake(ours, settings).await
            }
        }
    });
    match tokio::time::timeout(settings.timeout, dialled).await {
        Ok(dialled) => dialled,
        Err(_elapsed) => Err(Error::Late(settings.timeout)),
    }
}

async fn tcp(address: &Address) -> io::Result<TcpStream> {
    let stream = TcpStream::connect((host(address), address.port)).await?;
    stream.set_nodelay(true)?;
    Ok(stream)
}

/// An IP address of version 6 has brackets in a URL, and nowhere else.
fn host(address: &Address) -> &str {
    address.host.trim_start_matches('[').trim_end_matches(']')
}

/// Speaks HTTP/2 over `io`, and has heard the peer do the same.
pub(super) async fn handshake<T>(io: T, settings: &Settings) -> Result<Connected, Error>
where
    T: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let (told, heard) = oneshot::channel();
    let io = TokioIo::new(Heard { inner: io, told: Some(told) });
    let (sender, mut connection) = http2::Builder::new(TokioExecutor::new())
        .timer(TokioTimer::new())
        .keep_alive_interval(settings.keepalive.0)
        .keep_alive_timeout(settings.keepalive.1)
        .keep_alive_while_idle(true)
        .initial_stream_window_size(settings.windows.0)
        .initial_connection_window_size(settings.windows.1)
        .handshake(io)
        .await?;
    let admits = Arc::new(AtomicUsize::new(connection.current_max_send_streams()));
    let mut ends: Pin<Box<dyn Future<Output = _> + Send>> = Box::pin({
        let admits = Arc::clone(&admits);
        std::future::poll_fn(move |cx| {
            let polled = Pin::new(&mut connection).poll(cx);
            // The peer may change its mind; hyper shows it here and nowhere else.
            admits.store(connection.current_max_send_streams(), Ordering::Relaxed);
            polled
        })
    });
    // hyper is content when our own settings are on their way. A peer that never answers, such
    // as one whose process is stopped, would look connected until the first ping is due.
    tokio::select! {
        biased;
        ended = &mut ends => return Err(ended.err().map_or(Error::HungUp, Error::Http)),
        heard = heard => heard.map_err(|_hung_up| Error::HungUp)?,
    }
    Ok(Connected { sender, admits, ends })
}
