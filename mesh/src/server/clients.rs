//! How many connections one client holds: the places of a listener are for all of them.

use std::{
    collections::{HashMap, hash_map::Entry},
    fmt,
    net::IpAddr,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use tokio::{
    io::{AsyncRead, AsyncWrite},
    sync::Semaphore,
};

use super::connection;
use crate::telemetry;

/// What a client is told whose connection is one too many, where that costs little.
const TOO_MANY: &[u8] =
    b"HTTP/1.1 429 Too Many Requests\r\nconnection: close\r\nretry-after: 1\r\n\
    content-type: text/plain\r\ncontent-length: 59\r\n\r\n\
    This address has as many connections open as one may have.\n";
/// How many are told at once. Others find their connection closed.
const TOLD: usize = 64;

/// Who counts as one client, by where a connection comes from; `None` is not counted.
type Who = dyn Fn(IpAddr) -> Option<IpAddr> + Send + Sync;

/// The connections of each client.
pub(crate) struct Clients {
    most: usize,
    who: Box<Who>,
    /// Of those that have any: no more than there are connections.
    held: Mutex<HashMap<IpAddr, usize>>,
    telling: Semaphore,
}

/// A connection of a client, for as long as it lasts.
#[derive(Debug)]
pub(super) struct Held {
    clients: Arc<Clients>,
    client: IpAddr,
}

/// The client has as many as it may.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct TooMany;

// === impl Clients ===

impl Clients {
    pub(crate) fn new(
        most: usize,
        who: impl Fn(IpAddr) -> Option<IpAddr> + Send + Sync + 'static,
    ) -> Arc<Self> {
        let (held, telling) = (Mutex::default(), Semaphore::new(TOLD));
        Arc::new(Self { most, who: Box::new(who), held, telling })
    }

    /// Counts a connection from there; nothing, where it is not counted.
    pub(super) fn enter(self: &Arc<Self>, from: IpAddr) -> Result<Option<Held>, TooMany> {
        if self.most == 0 {
            return Ok(None);
        }
        let Some(client) = (self.who)(from) else { return Ok(None) };
        let mut held = self.lock();
        let count = held.entry(client).or_default();
        if *count >= self.most {
            telemetry::metrics().connections_refused.inc();
            return Err(TooMany);
        }
        *count += 1;
        drop(held);
        Ok(Some(Held { clients: Arc::clone(self), client }))
    }

    /// Tells a client of HTTP/1.1 why it is not served.
    pub(super) async fn refuse<I: AsyncRead + AsyncWrite + Unpin>(&self, mut io: I) {
        if let Ok(_one) = self.telling.try_acquire() {
            // Whoever does not take it has gone, or is cut all the same.
            let _told = connection::tell(&mut io, TOO_MANY).await.is_ok();
        }
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<IpAddr, usize>> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for Clients {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Clients").field("most", &self.most).finish_non_exhaustive()
    }
}

// === impl Held ===

impl Drop for Held {
    fn drop(&mut self) {
        if let Entry::Occupied(mut count) = self.clients.lock().entry(self.client) {
            *count.get_mut() -= 1;
            if *count.get() == 0 {
                count.remove();
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::{convert::Infallible, io, net::SocketAddr};

    use http::{Request, Response};
    use hyper::body::Incoming;
    use tokio::{
        io::{AsyncReadExt as _, AsyncWriteExt as _, DuplexStream},
        sync::mpsc,
    };
    use tonic::body::Body;
    use tower::service_fn;

    use super::*;
    use crate::server::{Accept, Listener, Settings, Wire};

    const GET: &[u8] = b"GET / HTTP/1.1\r\nhost: x\r\n\r\n";

    fn ip(text: &str) -> IpAddr {
        text.parse().expect(text)
    }

    /// All but loopback.
    fn clients(most: usize) -> Arc<Clients> {
        Clients::new(most, |from| (!from.is_loopback()).then_some(from))
    }

    #[test]
    fn a_client_has_so_many_and_others_have_theirs() {
        let clients = clients(2);
        let (one, other) = (ip("192.0.2.1"), ip("192.0.2.2"));
        let first = clients.enter(one).expect("a place").expect("it is counted");
        let second = clients.enter(one).expect("a place");
        assert_eq!(clients.enter(one).expect_err("the third"), TooMany);
        let theirs = clients.enter(other).expect("a place");
        drop(first);
        let third = clients.enter(one).expect("a place that was given back");
        assert!(clients.enter(one).is_err());
        for _ in 0..10 {
            assert!(clients.enter(ip("127.0.0.1")).expect("a place").is_none(), "not counted");
        }
        drop((second, third, theirs));
        assert!(clients.lock().is_empty(), "nobody is remembered who has none");
    }

    /// A network that a test plays.
    struct Net(tokio::sync::Mutex<mpsc::Receiver<(DuplexStream, SocketAddr)>>);

    impl Accept for Net {
        type Io = DuplexStream;

        async fn accept(&self) -> io::Result<(DuplexStream, SocketAddr)> {
            self.0.lock().await.recv().await.ok_or_else(|| io::ErrorKind::NotConnected.into())
        }
    }

    /// A connection from there, and what its client hears after a request.
    async fn asked(
        net: &mpsc::Sender<(DuplexStream, SocketAddr)>,
        from: &str,
    ) -> (DuplexStream, String) {
        let (mut client, server) = tokio::io::duplex(4_096);
        net.send((server, SocketAddr::new(ip(from), 1))).await.expect("it listens");
        client.write_all(GET).await.expect("it is taken");
        let mut answer = [0; 512];
        let read = client.read(&mut answer).await.expect("an answer");
        (client, String::from_utf8_lossy(&answer[..read]).into_owned())
    }

    #[expect(clippy::disallowed_methods, reason = "a process of its own in a test")]
    #[tokio::test(start_paused = true)]
    async fn one_too_many_is_told_so_and_closed_and_a_place_that_is_free_again_is_taken() {
        let (net, socket) = mpsc::channel(1);
        let listener = Listener::over(Net(socket.into()), Settings::default(), None);
        listener.bound_by(clients(2));
        let listener = Arc::new(listener);
        let answer =
            |_: Request<Incoming>| async { Ok::<_, Infallible>(Response::new(Body::empty())) };
        tokio::spawn(Arc::clone(&listener).serve(Wire::Http, service_fn(answer)));

        let refused = || telemetry::metrics().connections_refused.get();
        let before = refused();
        let (first, answer) = asked(&net, "192.0.2.1").await;
        assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
        let (_second, answer) = asked(&net, "192.0.2.1").await;
        assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
        let (mut third, answer) = asked(&net, "192.0.2.1").await;
        assert!(answer.starts_with("HTTP/1.1 429 "), "{answer}");
        let (head, body) = answer.split_once("\r\n\r\n").expect("a head");
        assert!(head.contains(&format!("content-length: {}", body.len())), "{answer}");
        assert_eq!(third.read(&mut [0; 1]).await.expect("its end"), 0);
        assert!(refused() > before);
        for free in ["192.0.2.2", "127.0.0.1", "127.0.0.1", "127.0.0.1"] {
            let (_open, answer) = asked(&net, free).await;
            assert!(answer.starts_with("HTTP/1.1 200 "), "{free}: {answer}");
        }
        drop(first);
        // Until it is seen that the first one has gone.
        let mut answer = String::new();
        for _ in 0..100 {
            (_, answer) = asked(&net, "192.0.2.1").await;
            if answer.starts_with("HTTP/1.1 200 ") {
                break;
            }
        }
        assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
    }
}
