//! What tonic's transport gets wrong and ours must not, over real sockets: each test carries the
//! number of its row in the design's table. Servers are hyper's, by hand, so that they can
//! misbehave. Rows about time alone (T5's percentile, T11's keepalive) are in
//! `client/endpoint/tests.rs`, where it can be paused.
#![expect(clippy::unwrap_used, reason = "tests")]

use std::{
    convert::Infallible,
    net::{SocketAddr, TcpListener as Bound},
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use futures_util::{StreamExt as _, stream};
use http::{Request, Response};
use http_body::Frame;
use http_body_util::{BodyExt as _, StreamBody};
use hyper::{body::Incoming, server::conn::http2, service::service_fn};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use mesh::{Channel, Ctx, ctx::Trace, registry::Address};
use tokio::{
    net::{TcpListener, TcpStream},
    sync::Notify,
};
use tokio_util::sync::CancellationToken;
use tonic::{Code, Status, body::Body};
use tower::ServiceExt as _;

const MS: Duration = Duration::from_millis(1);
const SECOND: Duration = Duration::from_secs(1);
/// A busy machine may be this late; what is tested against waits for seconds, or for ever.
const LATE: Duration = Duration::from_millis(1_500);

/// What a server does with a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Does {
    Answer,
    /// Answers after this long.
    Work(Duration),
    /// Never answers.
    Hang,
    /// Begins a stream, and says nothing more.
    Stream,
}

/// What a server saw.
#[derive(Debug, Default)]
struct Seen {
    calls: AtomicUsize,
    now: AtomicUsize,
    most: AtomicUsize,
    connections: AtomicUsize,
    /// `grpc-timeout` of the last call.
    timeout: std::sync::Mutex<Option<String>>,
    changed: Notify,
    /// While it is so, nothing is answered.
    held: tokio::sync::watch::Sender<bool>,
}

/// A server on a port of its own.
#[derive(Debug)]
struct Server {
    port: u16,
    seen: Arc<Seen>,
    kill: CancellationToken,
}

#[derive(Clone, Copy, Debug)]
struct How {
    does: Does,
    /// Streams that a connection admits.
    admits: u32,
    /// Sends a GOAWAY on each connection when it is this old.
    age: Option<Duration>,
}

/// Counts a call for as long as it lasts.
struct Counted(Arc<Seen>);

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.now.fetch_sub(1, Ordering::SeqCst);
    }
}

impl How {
    fn new(does: Does) -> Self {
        Self { does, admits: 256, age: None }
    }

    fn start(self) -> Server {
        let socket = Bound::bind("127.0.0.1:0").unwrap();
        socket.set_nonblocking(true).unwrap();
        let listener = TcpListener::from_std(socket).unwrap();
        let port = listener.local_addr().unwrap().port();
        let (seen, kill) = (Arc::<Seen>::default(), CancellationToken::new());
        let (serving, killed) = (Arc::clone(&seen), kill.clone());
        spawn(kill.clone().run_until_cancelled_owned(async move {
            while let Ok((io, _)) = listener.accept().await {
                let connection = self.connection(io, Arc::clone(&serving));
                spawn(killed.clone().run_until_cancelled_owned(connection));
            }
        }));
        Server { port, seen, kill }
    }

    async fn connection(self, io: TcpStream, seen: Arc<Seen>) {
        seen.connections.fetch_add(1, Ordering::SeqCst);
        io.set_nodelay(true).unwrap();
        let service = service_fn(move |request| self.answer(request, Arc::clone(&seen)));
        let connection = http2::Builder::new(TokioExecutor::new())
            .timer(TokioTimer::new())
            .max_concurrent_streams(self.admits)
            .serve_connection(TokioIo::new(io), service);
        tokio::pin!(connection);
        let Some(age) = self.age else {
            let _ended = connection.await.is_ok();
            return;
        };
        if tokio::time::timeout(age, connection.as_mut()).await.is_err() {
            connection.as_mut().graceful_shutdown();
            let _ended = connection.await.is_ok();
        }
    }

    async fn answer(
        self,
        request: Request<Incoming>,
        seen: Arc<Seen>,
    ) -> Result<Response<Body>, Infallible> {
        let now = seen.now.fetch_add(1, Ordering::SeqCst) + 1;
        let _counted = Counted(Arc::clone(&seen));
        seen.calls.fetch_add(1, Ordering::SeqCst);
        seen.most.fetch_max(now, Ordering::SeqCst);
        let timeout = request.headers().get("grpc-timeout");
        let timeout = timeout.map(|timeout| timeout.to_str().unwrap().to_owned());
        *seen.timeout.lock().unwrap() = timeout;
        seen.changed.notify_waiters();
        let _free = seen.held.subscribe().wait_for(|held| !held).await.is_ok();
        match self.does {
            Does::Answer => {}
            Does::Work(takes) => tokio::time::sleep(takes).await,
            Does::Hang => std::future::pending().await,
            Does::Stream => {
                let first = Ok::<_, Status>(Frame::data(Bytes::from_static(b"\0\0\0\0\0")));
                let frames = stream::iter([first]).chain(stream::pending());
                return Ok(Response::new(Body::new(StreamBody::new(frames))));
            }
        }
        let answer = Response::builder().header("grpc-status", "0");
        Ok(answer.body(Body::empty()).unwrap())
    }
}

impl Server {
    fn connections(&self) -> usize {
        self.seen.connections.load(Ordering::SeqCst)
    }

    fn calls(&self) -> usize {
        self.seen.calls.load(Ordering::SeqCst)
    }
}

#[expect(clippy::disallowed_methods, reason = "ends with the runtime of the test")]
fn spawn(future: impl Future<Output: Send + 'static> + Send + 'static) {
    tokio::spawn(future);
}

fn channel(ports: impl IntoIterator<Item = u16>) -> Channel {
    let address = |port| Address { host: "127.0.0.1".to_owned(), port };
    Channel::to("callee", &ports.into_iter().map(address).collect::<Vec<_>>())
}

/// A port that nobody listens on.
fn nobody() -> u16 {
    Bound::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

/// One call that may take `timeout`: the head of its answer, and what `grpc-status` is there.
async fn call(channel: &Channel, timeout: Duration) -> (Option<Code>, Response<Body>) {
    let request = Request::builder().method("POST").uri("/t.T/Call").body(Body::empty()).unwrap();
    let ctx = Ctx::root(timeout, Trace::new());
    let response = ctx.scope(channel.clone().oneshot(request)).await.unwrap();
    let code = response.headers().get("grpc-status");
    (code.map(|code| Code::from_bytes(code.as_bytes())), response)
}

/// `count` calls, `at_once` at a time: how long each took, and how many failed.
async fn load(channel: &Channel, count: usize, at_once: usize) -> (Vec<Duration>, usize) {
    let calls = stream::iter(0..count).map(|_| async {
        let began = mesh::clock::instant();
        let (code, _) = call(channel, 30 * SECOND).await;
        (began.elapsed(), code == Some(Code::Ok))
    });
    let calls: Vec<_> = calls.buffer_unordered(at_once).collect().await;
    let failed = calls.iter().filter(|(_, answered)| !answered).count();
    let mut took: Vec<_> = calls.into_iter().map(|(took, _)| took).collect();
    took.sort_unstable();
    (took, failed)
}

#[tokio::test]
async fn t1_a_call_is_under_its_deadline_while_its_callee_does_not_finish_connecting() {
    // It accepts, and never says a word of HTTP/2.
    let silent = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let channel = channel([silent.local_addr().unwrap().port()]);
    let began = mesh::clock::instant();
    let (code, _) = call(&channel, 200 * MS).await;
    assert_eq!(code, Some(Code::DeadlineExceeded));
    assert!(began.elapsed() < LATE, "{:?}", began.elapsed());
}

#[tokio::test]
async fn t1_a_call_is_under_its_deadline_while_it_waits_for_a_stream() {
    let server = How { admits: 1, ..How::new(Does::Hang) }.start();
    let channel = channel([server.port]);
    // Until both connections have the one stream that they admit: whatever comes then waits. The
    // second one opens when the first is full, and who came before that waits there.
    let mut hang = futures_util::stream::FuturesUnordered::new();
    while server.seen.now.load(Ordering::SeqCst) < 2 {
        let changed = server.seen.changed.notified();
        hang.push(call(&channel, 60 * SECOND));
        let _more = tokio::select! {
            _ = hang.next() => unreachable!("nobody answers"),
            changed = tokio::time::timeout(50 * MS, changed) => changed.is_ok(),
        };
    }
    let calls = async {
        // None was sent: the breaker has nothing to open for, as it would from the fifth on.
        for _ in 0..8 {
            let began = mesh::clock::instant();
            let (code, _) = call(&channel, 100 * MS).await;
            assert_eq!(code, Some(Code::DeadlineExceeded));
            assert!(began.elapsed() < LATE, "{:?}", began.elapsed());
        }
    };
    tokio::select! {
        _ = hang.next() => unreachable!("nobody answers"),
        () = calls => {}
    }
    let most = server.seen.most.load(Ordering::SeqCst);
    assert!(most <= 2, "{most} at once on two connections of one stream");
}

#[tokio::test]
async fn t2_a_deadline_that_passed_is_deadline_exceeded_every_time() {
    let server = How::new(Does::Hang).start();
    for number in 1..=20 {
        // A channel of its own, or the breaker would answer from the fifth call on.
        let (code, _) = call(&channel([server.port]), 100 * MS).await;
        assert_eq!(code, Some(Code::DeadlineExceeded), "call {number}");
    }
}

#[tokio::test]
async fn t3_a_stream_ends_at_its_deadline() {
    let server = How::new(Does::Stream).start();
    let channel = channel([server.port]);
    let began = mesh::clock::instant();
    let (code, response) = call(&channel, 500 * MS).await;
    assert_eq!(code, None, "the stream has begun");
    let mut body = response.into_body();
    assert!(body.frame().await.expect("a frame").is_ok());
    let ended = body.frame().await.expect("an end").expect_err("it is not over by itself");
    assert_eq!(ended.code(), Code::DeadlineExceeded);
    assert!(began.elapsed() < LATE, "{:?}", began.elapsed());
}

#[tokio::test]
async fn t4_one_of_three_dead_fails_none_of_3000() {
    let servers = [How::new(Does::Answer).start(), How::new(Does::Answer).start()];
    let channel = channel([servers[0].port, nobody(), servers[1].port]);
    let (_, failed) = load(&channel, 3_000, 16).await;
    assert_eq!(failed, 0);
    for server in &servers {
        assert!(server.calls() > 300, "both that live have work: {servers:?}");
    }
}

#[tokio::test]
async fn t4_one_of_three_that_dies_fails_at_most_what_it_had() {
    const CALLS: usize = 15;
    let servers = [(); 3].map(|()| How::new(Does::Work(MS)).start());
    let channel = channel(servers.iter().map(|server| server.port));
    // Enough of a past that a few failures at once are no outage to the breaker.
    let (_, failed) = load(&channel, 500, 16).await;
    assert_eq!(failed, 0);
    let working = || servers.iter().map(|server| server.seen.now.load(Ordering::SeqCst)).sum();
    for server in &servers {
        server.seen.held.send_replace(true);
    }
    let under_load = load(&channel, CALLS, CALLS);
    let dies = async {
        // All are there: none is on its way.
        let there = async {
            loop {
                let changed =
                    servers.each_ref().map(|server| Box::pin(server.seen.changed.notified()));
                let changed = futures_util::future::select_all(changed);
                let all: usize = working();
                if all == CALLS {
                    return;
                }
                changed.await;
            }
        };
        tokio::time::timeout(10 * SECOND, there).await.expect("all arrive");
        let had = servers[1].seen.now.load(Ordering::SeqCst);
        servers[1].kill.cancel();
        for server in &servers {
            server.seen.held.send_replace(false);
        }
        had
    };
    // What was under way there may have been carried out, and this method may not be repeated;
    // nothing else fails.
    let ((_, failed), had) = tokio::join!(under_load, dies);
    assert!(had > 0, "it had none");
    assert_eq!(failed, had);
    let (_, failed) = load(&channel, 500, 16).await;
    assert_eq!(failed, 0);
}

#[tokio::test]
async fn t5_one_of_three_that_is_slow_gets_less_than_a_fiftieth() {
    // So slow that a busy machine cannot make the others look the same; with 100 ms and the
    // percentile the same is shown where time is paused.
    let slow = How::new(Does::Work(3 * SECOND)).start();
    let fast = [How::new(Does::Answer).start(), How::new(Does::Answer).start()];
    let channel = channel([slow.port, fast[0].port, fast[1].port]);
    let (took, failed) = load(&channel, 3_000, 16).await;
    assert_eq!(failed, 0);
    assert!(slow.calls() * 50 < 3_000, "{} of 3000", slow.calls());
    assert!(took[took.len() * 98 / 100] < 3 * SECOND);
}

#[tokio::test]
async fn t7_a_call_that_meets_a_goaway_is_sent_again() {
    let servers =
        [11, 13, 17].map(|age| How { age: Some(age * MS), ..How::new(Does::Work(MS)) }.start());
    let channel = channel(servers.iter().map(|server| server.port));
    let (_, failed) = load(&channel, 2_000, 16).await;
    let connections: usize = servers.iter().map(Server::connections).sum();
    assert!(connections > 15, "{connections} connections are no storm");
    assert_eq!(failed, 0);
}

#[tokio::test]
async fn t9_what_a_peer_admits_is_kept_and_nobody_fails_for_it() {
    let server = How { admits: 8, ..How::new(Does::Work(2 * MS)) }.start();
    let channel = channel([server.port]);
    let (_, failed) = load(&channel, 400, 64).await;
    assert_eq!(failed, 0);
    let most = server.seen.most.load(Ordering::SeqCst);
    assert!((9..=16).contains(&most), "{most} at once on two connections of eight");
    assert_eq!(server.connections(), 2);
}

#[tokio::test]
async fn t10_a_child_has_less_than_was_left() {
    let server = How::new(Does::Answer).start();
    let channel = channel([server.port]);
    for left in [100 * MS, SECOND, 10 * SECOND] {
        // The connection is open, so that no time goes by before the call.
        let (code, _) = call(&channel, 30 * SECOND).await;
        assert_eq!(code, Some(Code::Ok));
        let (code, _) = call(&channel, left).await;
        assert_eq!(code, Some(Code::Ok));
        let timeout = server.seen.timeout.lock().unwrap().take().expect("it is told");
        let told = mesh::deadline::decode(&timeout).unwrap();
        assert!(told < left && told > left / 4, "{told:?} of {left:?}");
    }
}

#[tokio::test]
async fn t11_a_call_waits_a_second_for_an_instance_and_no_longer() {
    let silent = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = SocketAddr::port(&silent.local_addr().unwrap());
    let channel = channel([port]);
    let began = mesh::clock::instant();
    let (code, response) = call(&channel, 30 * SECOND).await;
    let took = began.elapsed();
    assert_eq!(code, Some(Code::Unavailable));
    assert!(response.headers().contains_key("mesh-local"), "nothing was sent");
    assert!(took >= SECOND - 50 * MS && took < SECOND + LATE, "{took:?}");
    // And the connection that never came about was given up, and tried again.
    for _ in 0..2 {
        let accepted = tokio::time::timeout(5 * SECOND, silent.accept()).await;
        accepted.expect("it tries").unwrap();
    }
}
