//! Long streams over real sockets: how much a reader that does not read makes others hold, and
//! what is left for other calls.
#![expect(clippy::unwrap_used, clippy::expect_used, reason = "tests")]

use std::{
    convert::Infallible,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    task::{Context, Poll},
    time::Duration,
};

use axum::{Router, routing::post};
use bytes::Bytes;
use futures_util::{FutureExt as _, StreamExt as _};
use http::{HeaderMap, HeaderValue, Request, Response};
use http_body::{Body as _, Frame};
use http_body_util::BodyExt as _;
use mesh::{App, Channel, Config, client::Long, config::Bound, testing, wire::DESCRIPTORS};
use tokio::sync::{Notify, oneshot};
use tonic::{Code, body::Body, server::NamedService, service::Routes};
use tower::{Service, ServiceExt as _};

const PATIENCE: Duration = Duration::from_secs(10);
/// In one frame of a stream.
const CHUNK: usize = 8 << 10;
/// The window of one long stream, and what may be on its way to it.
const HELD: usize = (64 << 10) + 2 * CHUNK;

/// What a service has sent, and how many of its streams have ended.
#[derive(Debug, Default)]
struct Sent {
    most: AtomicUsize,
    open: AtomicUsize,
    changed: Notify,
}

/// A stream without an end.
struct Endless {
    sent: usize,
    all: Arc<Sent>,
}

// === impl Sent ===

impl Sent {
    async fn comes_to(&self, what: impl Fn(&Self) -> bool) {
        let reached = async {
            loop {
                let changed = self.changed.notified();
                tokio::pin!(changed);
                changed.as_mut().enable();
                if what(self) {
                    return;
                }
                changed.await;
            }
        };
        tokio::time::timeout(PATIENCE, reached).await.expect("it comes to that");
    }
}

// === impl Endless ===

impl http_body::Body for Endless {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        self.sent += CHUNK;
        self.all.most.fetch_max(self.sent, Ordering::SeqCst);
        self.all.changed.notify_waiters();
        Poll::Ready(Some(Ok(Frame::data(Bytes::from_static(&[0; CHUNK])))))
    }
}

impl Drop for Endless {
    fn drop(&mut self) {
        self.all.open.fetch_sub(1, Ordering::SeqCst);
        self.all.changed.notify_waiters();
    }
}

/// A service with a stream and a call that is short.
fn service(all: &Arc<Sent>) -> Channel {
    let all = Arc::clone(all);
    let endless = move || {
        let all = Arc::clone(&all);
        async move {
            all.open.fetch_add(1, Ordering::SeqCst);
            Response::new(axum::body::Body::new(Endless { sent: 0, all }))
        }
    };
    let short = || async {
        let mut ended = HeaderMap::new();
        ended.insert("grpc-status", HeaderValue::from_static("0"));
        (ended, "")
    };
    let router =
        Router::new().route("/t.T/Endless", post(endless)).route("/t.T/Short", post(short));
    testing::channel(Routes::from(router)).expect("a port")
}

fn request(path: &'static str) -> Request<Body> {
    let mut request = Request::new(Body::empty());
    *request.method_mut() = http::Method::POST;
    *request.uri_mut() = path.parse().unwrap();
    request
}

/// Begins a stream and reads its first frame.
async fn stream(channel: &Channel) -> Body {
    let mut request = request("/t.T/Endless");
    request.extensions_mut().insert(Long);
    let mut body = channel.clone().oneshot(request).await.unwrap().into_body();
    let frame = tokio::time::timeout(PATIENCE, body.frame()).await.expect("it begins");
    assert!(frame.expect("a frame").expect("no failure").is_data());
    body
}

async fn short(channel: &Channel) {
    let answer = channel.clone().oneshot(request("/t.T/Short")).await.unwrap();
    assert_eq!(answer.headers()["grpc-status"], "0");
}

#[tokio::test]
async fn a_stream_that_is_not_read_holds_a_window_and_no_other_call_waits_for_it() {
    let all = Arc::new(Sent::default());
    let channel = service(&all);
    let mut streams = Vec::new();
    // More than one connection takes, and together far more than a connection's window.
    for _ in 0..300 {
        streams.push(stream(&channel).await);
        short(&channel).await;
    }
    all.comes_to(|all| all.most.load(Ordering::SeqCst) >= 64 << 10).await;
    for _ in 0..100 {
        short(&channel).await;
    }
    let most = all.most.load(Ordering::SeqCst);
    assert!(most <= HELD, "{most} bytes were sent to a stream that nobody reads");
    // Reading on opens the window again.
    let body = streams.first_mut().unwrap();
    for _ in 0..100 {
        let frame = tokio::time::timeout(PATIENCE, body.frame()).await.expect("it goes on");
        assert!(frame.expect("a frame").expect("no failure").is_data());
    }
    assert!(!body.is_end_stream());
}

#[tokio::test]
async fn a_stream_that_is_dropped_ends_at_its_service() {
    let all = Arc::new(Sent::default());
    let channel = service(&all);
    let (first, second) = (stream(&channel).await, stream(&channel).await);
    drop(first);
    all.comes_to(|all| all.open.load(Ordering::SeqCst) == 1).await;
    drop(second);
    all.comes_to(|all| all.open.load(Ordering::SeqCst) == 0).await;
    // The connection closed with its last stream; the next one opens another.
    let _third = stream(&channel).await;
}

/// A service that says one thing, and then nothing for ever.
#[derive(Clone, Debug)]
struct Quiet;

impl NamedService for Quiet {
    const NAME: &'static str = "ordermesh.auth.v1.TokensService";
}

impl Service<Request<Body>> for Quiet {
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = std::future::Ready<Result<Response<Body>, Infallible>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, _: Request<Body>) -> Self::Future {
        let said = futures_util::stream::iter([Ok::<_, Infallible>(Frame::data(Bytes::from("a")))]);
        let said = said.chain(futures_util::stream::pending());
        std::future::ready(Ok(Response::new(Body::new(http_body_util::StreamBody::new(said)))))
    }
}

#[tokio::test]
async fn a_stream_lasts_as_long_as_its_method_may_and_not_as_long_as_others() {
    const LONG: &str = "/ordermesh.auth.v1.TokensService/GetJwks";
    const SHORT: &str = "/ordermesh.auth.v1.TokensService/RefreshToken";
    let mut config = Config::for_tests(Bound::free().unwrap(), "static://?");
    config.call_timeout = Duration::from_millis(50);
    let app = App::new("quiet", DESCRIPTORS, config).unwrap();
    let app = app.grpc(Quiet).longest(LONG, 10 * PATIENCE);
    let channel = testing::channel_to("quiet", app.address().port());
    let (stop, stopped) = oneshot::channel::<()>();
    let served = app.serve(async move { stopped.await.unwrap_or_default() });
    let streams = async move {
        let mut bodies = Vec::new();
        for path in [LONG, SHORT] {
            let mut body = channel.clone().oneshot(request(path)).await.unwrap().into_body();
            assert!(body.frame().await.expect("a frame").expect("no failure").is_data());
            bodies.push(body);
        }
        let ended = bodies.pop().unwrap().frame().await.expect("an end").expect("trailers");
        let status = &ended.trailers_ref().expect("trailers")["grpc-status"];
        assert_eq!(Code::from_bytes(status.as_bytes()), Code::DeadlineExceeded);
        // The other one began earlier, and goes on.
        assert!(bodies.first_mut().unwrap().frame().now_or_never().is_none());
        drop(bodies);
        drop(stop);
    };
    let (ended, ()) = tokio::join!(served, streams);
    assert!(ended.is_ok());
}
