//! One connection, from its first byte to its last.
//!
//! hyper speaks HTTP; here is what it leaves open: who speaks at all and for how long, when a
//! connection has lived enough, and how it ends without a call being lost.

use std::{convert::Infallible, io, sync::Arc, time::Duration};

use bytes::Bytes;
use http::{Request, Response};
use hyper::{
    body::Incoming,
    server::conn::{http1, http2},
};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use tokio::{
    io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _},
    time::{Instant, sleep, sleep_until, timeout},
};
use tonic::body::Body;
use tower::Service;

use super::{
    accept::{Phases, Wire},
    link::{Link, Metered, Served},
    settings::Settings,
};
use crate::clock;

/// How an HTTP/2 client begins (RFC 9113, 3.4), and the least that must follow: the head of its
/// SETTINGS.
const PREFACE: &[u8; 24] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
const SETTINGS_HEAD: u64 = 9;
/// What a client of HTTP/1.1 is told on a port of HTTP/2.
const WRONG_VERSION: &[u8] = b"HTTP/1.1 505 HTTP Version Not Supported\r\nconnection: close\r\n\
    content-type: text/plain\r\ncontent-length: 39\r\n\r\nThis port speaks gRPC, over HTTP/2 only";
/// How long it is read on for that, and how much.
const LINGER: (Duration, u64) = (Duration::from_secs(1), 64 << 10);
/// HTTP/1.1: what waits to be written to a client that reads slowly, in bytes; the head of a
/// request fits in.
const BUFFER: usize = 64 << 10;
/// HTTP/1.1: how long the head of a request may come in, from its first byte. One that stops coming
/// is an idle connection.
pub(super) const HEAD: Duration = Duration::from_secs(10);
/// HTTP/1.1: how long a connection without calls is kept at most. Longer than pools of clients keep
/// one (hyper's 90 s), so that their end closes it, with no request on its way.
const KEPT: Duration = Duration::from_secs(120);
/// HTTP/2: streams that were reset before they were taken up, or by us for the client's errors.
const RESETS: (usize, usize) = (20, 256);
/// HTTP/2: what waits to be written on one stream, in bytes.
const STREAM_BUFFER: usize = 256 << 10;
/// How long a client without calls may say nothing after a GOAWAY.
const SILENT: Duration = Duration::from_secs(1);

/// How a connection ended.
#[derive(Debug)]
pub(super) enum Ended {
    /// By itself, or after a GOAWAY.
    Finished,
    /// It broke, or the client broke the protocol.
    Failed(String),
    /// By us, while the client was not done.
    Cut(Why),
}

/// Why a connection should end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Why {
    /// The process leaves.
    Leaving,
    /// It is as old as a connection may become.
    Age,
    /// It has had no calls for long.
    Idle,
    /// The client says nothing, not even that it is there.
    Silent,
    /// The client opens calls only to give them up.
    Resets,
}

/// A version of HTTP.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Version {
    Http1,
    Http2,
}

/// A connection that hyper drives: of either version.
trait Driven: Future<Output = Result<(), hyper::Error>> {
    fn goaway(self: std::pin::Pin<&mut Self>);
}

/// Serves `io` to its end.
pub(super) async fn serve<I, S>(
    mut io: I,
    link: Arc<Link>,
    settings: &Settings,
    phases: &Phases,
    service: S,
) -> Ended
where
    I: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    S: Service<Request<Incoming>, Response = Response<Body>, Error = Infallible>
        + Clone
        + Send
        + 'static,
    S::Future: Send,
{
    let begun = clock::instant();
    let first = timeout(settings.preface_timeout, first(&mut io, link.wire));
    let (version, first) = tokio::select! {
        biased;
        // Nothing was asked yet: nothing is lost.
        () = phases.leave.cancelled() => return Ended::Cut(Why::Leaving),
        first = first => match first {
            Ok(Ok(first)) => first,
            Ok(Err(error)) => return Ended::Failed(error.to_string()),
            Err(_late) => return Ended::Cut(Why::Silent),
        },
    };
    let io = TokioIo::new(Metered::new(io, first, Arc::clone(&link)));
    let served = Served::new(service, Arc::clone(&link));
    match version {
        Version::Http1 => {
            let kept = settings.connection_idle.min(KEPT);
            let settings = &Settings { connection_idle: kept, ..settings.clone() };
            let connection = http1().serve_connection(io, served);
            tokio::select! {
                biased;
                ended = drive(connection, &link, settings) => ended,
                () = slow_head(&link) => Ended::Cut(Why::Silent),
            }
        }
        Version::Http2 => {
            let connection = http2(settings).serve_connection(io, served);
            tokio::select! {
                biased;
                ended = drive(connection, &link, settings) => ended,
                () = mute(&link, settings, begun) => Ended::Cut(Why::Silent),
                () = link.flooded.notified() => {
                    tracing::warn!(peer = %link.peer, "a client resets its calls as fast as it opens them");
                    Ended::Cut(Why::Resets)
                }
            }
        }
    }
}

/// Reads until it is clear what the client speaks.
async fn first<I>(io: &mut I, wire: Wire) -> io::Result<(Version, Bytes)>
where
    I: AsyncRead + AsyncWrite + Unpin,
{
    let mut seen = [0; PREFACE.len()];
    let mut filled = 0;
    while filled < seen.len() {
        let read = io.read(&mut seen[filled..]).await?;
        if read == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        filled += read;
        if seen[..filled] != PREFACE[..filled] {
            let first = Bytes::copy_from_slice(&seen[..filled]);
            return match wire {
                Wire::Http => Ok((Version::Http1, first)),
                Wire::Http2 => Err(refuse(io, &first).await),
            };
        }
    }
    Ok((Version::Http2, Bytes::from_static(PREFACE)))
}

/// Tells a client of HTTP/1.1 what is wrong; others would not understand anything.
async fn refuse<I: AsyncRead + AsyncWrite + Unpin>(io: &mut I, first: &[u8]) -> io::Error {
    let methods = [&b"GET "[..], b"POST ", b"HEAD ", b"PUT ", b"OPTIONS ", b"DELETE ", b"PATCH "];
    if methods.iter().any(|method| first.starts_with(method))
        && let Err(error) = tell(io, WRONG_VERSION).await
    {
        return error;
    }
    io::Error::new(io::ErrorKind::InvalidData, "the client does not speak HTTP/2")
}

/// Says this as the last thing on a connection.
pub(super) async fn tell<I>(io: &mut I, words: &[u8]) -> io::Result<()>
where
    I: AsyncRead + AsyncWrite + Unpin,
{
    let told = async {
        io.write_all(words).await?;
        io.shutdown().await?;
        // What is closed with bytes unread is reset, and the answer with it is lost.
        tokio::io::copy(&mut io.take(LINGER.1), &mut tokio::io::sink()).await
    };
    match timeout(LINGER.0, told).await {
        Ok(Err(error)) => Err(error),
        Ok(Ok(_)) | Err(_) => Ok(()),
    }
}

/// Lets a connection live until it ends, or until it should: then it is told to go, and has the
/// time that the reason allows.
async fn drive(connection: impl Driven, link: &Link, settings: &Settings) -> Ended {
    tokio::pin!(connection);
    let why = tokio::select! {
        biased;
        ended = connection.as_mut() => return finished(ended),
        () = link.leave.cancelled() => Why::Leaving,
        why = lived(link, settings) => why,
    };
    connection.as_mut().goaway();
    // Streams on it should end by themselves, and go on elsewhere.
    link.leave.cancel();
    let patience = async {
        if why == Why::Leaving {
            // The process says when its time is over.
            std::future::pending::<()>().await;
        }
        sleep(settings.connection_age_grace).await;
        link.streams.cancel();
        sleep(SILENT).await;
    };
    tokio::select! {
        biased;
        ended = connection => finished(ended),
        () = patience => Ended::Cut(why),
        () = silent(link) => Ended::Cut(Why::Silent),
    }
}

/// Resolves when a connection has lived long enough.
async fn lived(link: &Link, settings: &Settings) -> Why {
    // A tenth earlier or later: connections that were opened together do not end together.
    let age = settings.connection_age.mul_f64(0.9 + 0.2 * fastrand::f64());
    let ages = clock::instant() + age;
    loop {
        let now = clock::instant();
        let idles = link.idle_since().unwrap_or(now) + settings.connection_idle;
        if now >= ages {
            return Why::Age;
        }
        if now >= idles {
            return Why::Idle;
        }
        sleep_until(ages.min(idles)).await;
    }
}

/// Resolves once nothing has moved for a while on a connection that has no calls. Whoever hears
/// us answers a GOAWAY, or takes what is still on its way.
async fn silent(link: &Link) {
    loop {
        let moved = link.moved();
        sleep(SILENT).await;
        if !link.busy() && link.moved() == moved {
            return;
        }
    }
}

/// Resolves when an HTTP/2 client does not go on after its preface, and when one has said nothing
/// for so long that it must have missed our pings. hyper cuts it too, but only if its last words
/// to the client can be written.
async fn mute(link: &Link, settings: &Settings, begun: Instant) {
    sleep_until(begun + settings.preface_timeout).await;
    if link.read() < SETTINGS_HEAD {
        return;
    }
    loop {
        let read = link.read();
        sleep(settings.keepalive + 2 * settings.keepalive_timeout).await;
        if link.read() == read {
            return;
        }
    }
}

/// Resolves when an HTTP/1.1 client takes too long for the head of a request. hyper's own timer
/// is not for us: it runs while nothing is asked, too, and cuts connections that clients keep.
async fn slow_head(link: &Link) {
    loop {
        let now = clock::instant();
        let comes = link.head_since().filter(|(_, heard)| now < *heard + HEAD);
        let ends = comes.map_or(now + HEAD, |(since, _)| since + HEAD);
        if now >= ends {
            return;
        }
        sleep_until(ends).await;
    }
}

fn finished(ended: Result<(), hyper::Error>) -> Ended {
    match ended {
        Ok(()) => Ended::Finished,
        Err(error) => Ended::Failed(crate::status::with_causes(&error)),
    }
}

fn http1() -> http1::Builder {
    let mut builder = http1::Builder::new();
    // A client that closes its side has gone: a stream that waits for news ends there and then.
    builder
        .timer(TokioTimer::new())
        .header_read_timeout(None)
        .half_close(false)
        .max_buf_size(BUFFER);
    builder
}

fn http2(settings: &Settings) -> http2::Builder<TokioExecutor> {
    let mut builder = http2::Builder::new(TokioExecutor::new());
    builder
        .timer(TokioTimer::new())
        .max_concurrent_streams(settings.connection_calls_max)
        .max_header_list_size(settings.headers_max_bytes)
        .max_pending_accept_reset_streams(RESETS.0)
        .max_local_error_reset_streams(RESETS.1)
        .max_send_buf_size(STREAM_BUFFER)
        .adaptive_window(false)
        .keep_alive_interval(settings.keepalive)
        .keep_alive_timeout(settings.keepalive_timeout);
    builder
}

// === impl Driven ===

impl<I, S> Driven for http1::Connection<TokioIo<Metered<I>>, Served<S>>
where
    I: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    S: Service<Request<Incoming>, Response = Response<Body>, Error = Infallible> + Clone + 'static,
{
    fn goaway(self: std::pin::Pin<&mut Self>) {
        self.graceful_shutdown();
    }
}

impl<I, S> Driven for http2::Connection<TokioIo<Metered<I>>, Served<S>, TokioExecutor>
where
    I: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    S: Service<Request<Incoming>, Response = Response<Body>, Error = Infallible>
        + Clone
        + Send
        + 'static,
    S::Future: Send,
{
    fn goaway(self: std::pin::Pin<&mut Self>) {
        self.graceful_shutdown();
    }
}

#[cfg(test)]
mod tests;
