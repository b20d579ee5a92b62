//! Calls over real sockets: deadlines along a chain, identity, panics, shutdown, lost
//! connections. The service is the one that mesh itself speaks, with answers made up here.
#![expect(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests")]

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use mesh::{
    App, Channel, Config, Ctx, Policy,
    client::{Verdict, backoff::Backoff, judge},
    config::Bound,
    ctx::Trace,
    status, testing,
    wire::{
        DESCRIPTORS,
        ordermesh::auth::v1::{
            GetJwksRequest, IssueTokenRequest, Jwks, RefreshTokenRequest, RevokeTokenRequest,
            Token,
            tokens_service_client::TokensServiceClient,
            tokens_service_server::{TokensService, TokensServiceServer},
        },
    },
};
use tokio::sync::{Notify, oneshot};
use tonic::{Code, Request, Response, Status};

/// How many handlers are at work, and a bell for every change.
#[derive(Debug, Default)]
struct Work {
    now: AtomicUsize,
    changed: Notify,
}

/// Counts a handler for as long as it lives.
struct Working(Arc<Work>);

impl Working {
    fn begin(work: &Arc<Work>) -> Self {
        work.now.fetch_add(1, Ordering::SeqCst);
        work.changed.notify_waiters();
        Self(Arc::clone(work))
    }
}

impl Drop for Working {
    fn drop(&mut self) {
        self.0.now.fetch_sub(1, Ordering::SeqCst);
        self.0.changed.notify_waiters();
    }
}

impl Work {
    async fn comes_to(&self, count: usize) {
        let reached = async {
            loop {
                let changed = self.changed.notified();
                tokio::pin!(changed);
                changed.as_mut().enable();
                if self.now.load(Ordering::SeqCst) == count {
                    return;
                }
                changed.await;
            }
        };
        tokio::time::timeout(Duration::from_secs(5), reached).await.expect("work ends")
    }
}

/// What a process of these tests does when it is asked for its keys.
enum Does {
    Answer,
    Hang,
    Panic,
    Ask(Channel),
}

struct Hop {
    does: Does,
    work: Arc<Work>,
    /// How much time the last call had when it came in.
    left: Arc<std::sync::Mutex<Option<Duration>>>,
}

#[tonic::async_trait]
impl TokensService for Hop {
    async fn get_jwks(&self, _: Request<GetJwksRequest>) -> Result<Response<Jwks>, Status> {
        let _working = Working::begin(&self.work);
        *self.left.lock().unwrap() = Ctx::current().map(|ctx| ctx.time_left());
        match &self.does {
            Does::Answer => Ok(Response::new(Jwks::default())),
            Does::Hang => std::future::pending().await,
            Does::Panic => panic!("as it was asked to"),
            Does::Ask(next) => {
                TokensServiceClient::new(next.clone()).get_jwks(GetJwksRequest {}).await
            }
        }
    }

    async fn issue_token(&self, _: Request<IssueTokenRequest>) -> Result<Response<Token>, Status> {
        // Answers with the trace that the call came in.
        let trace = Ctx::current().map(|ctx| ctx.trace_id()).unwrap_or_default();
        Ok(Response::new(Token { access_token: trace, ..Token::default() }))
    }

    async fn refresh_token(
        &self,
        _: Request<RefreshTokenRequest>,
    ) -> Result<Response<Token>, Status> {
        std::future::pending().await
    }

    async fn revoke_token(&self, _: Request<RevokeTokenRequest>) -> Result<Response<()>, Status> {
        Ok(Response::new(()))
    }
}

struct Process {
    port: u16,
    work: Arc<Work>,
    left: Arc<std::sync::Mutex<Option<Duration>>>,
    stop: Option<oneshot::Sender<()>>,
    ended: tokio::task::JoinHandle<anyhow::Result<mesh::app::Ended>>,
}

/// Starts a process that does `does`; it may call whatever `to` names.
fn process(does: impl FnOnce(&App) -> Does, to: Option<u16>) -> Process {
    process_on(Bound::free().unwrap(), does, to)
}

#[expect(clippy::disallowed_methods, reason = "a process of its own in a test")]
fn process_on(bound: Bound, does: impl FnOnce(&App) -> Does, to: Option<u16>) -> Process {
    let registry =
        to.map_or("static://".to_owned(), |port| format!("static://?next=127.0.0.1:{port}"));
    let app = App::new("hop", DESCRIPTORS, Config::for_tests(bound, &registry)).unwrap();
    let port = app.address().port();
    let (work, left) = (Arc::<Work>::default(), Arc::default());
    let hop = Hop { does: does(&app), work: Arc::clone(&work), left: Arc::clone(&left) };
    let app = app.grpc(TokensServiceServer::new(hop));
    let (stop, stopped) = oneshot::channel::<()>();
    let ended = tokio::spawn(app.serve(async {
        let _stopped = stopped.await.is_ok();
    }));
    Process { port, work, left, stop: Some(stop), ended }
}

/// A callee of whom everything is asked once: for tests that follow one attempt down the chain.
fn once(app: &App, name: &str) -> Channel {
    app.channel(name).with(Policy { backoff: Backoff::never(), ..Policy::default() })
}

fn client_once(port: u16) -> TokensServiceClient<Channel> {
    let config =
        Config::for_tests(Bound::free().unwrap(), &format!("static://?callee=127.0.0.1:{port}"));
    TokensServiceClient::new(once(&App::new("caller", DESCRIPTORS, config).unwrap(), "callee"))
}

fn client(port: u16) -> TokensServiceClient<Channel> {
    let config =
        Config::for_tests(Bound::free().unwrap(), &format!("static://?callee=127.0.0.1:{port}"));
    let app = App::new("caller", DESCRIPTORS, config).unwrap();
    TokensServiceClient::new(app.channel("callee"))
}

async fn ask(port: u16, timeout: Duration) -> Result<(), Status> {
    let ctx = Ctx::root(timeout, Trace::new());
    let mut client = client(port);
    ctx.scope(async { client.get_jwks(GetJwksRequest {}).await.map(|_| ()) }).await
}

#[tokio::test]
async fn a_hang_at_each_of_four_hops_is_deadline_exceeded_and_no_work_goes_on() {
    for hangs in 0..4_usize {
        let mut chain: Vec<Process> = Vec::new();
        for hop in (0..=hangs).rev() {
            let next = chain.last().map(|process| process.port);
            chain.push(process(
                |app| if hop == hangs { Does::Hang } else { Does::Ask(once(app, "next")) },
                next,
            ));
        }
        // Connections are open before the clock runs: this is about deadlines, not about TCP.
        let first = chain.last().unwrap().port;
        let mut client = client_once(first);
        let warm = Ctx::root(Duration::from_secs(5), Trace::new());
        warm.scope(client.revoke_token(RevokeTokenRequest::default())).await.unwrap();

        let ctx = Ctx::root(Duration::from_millis(50), Trace::new());
        let started = mesh::clock::instant();
        let answer = ctx.scope(client.get_jwks(GetJwksRequest {})).await;
        let took = started.elapsed();

        let status = answer.expect_err("the last hop hangs");
        assert_eq!(status.code(), Code::DeadlineExceeded, "hop {hangs}: {status}");
        assert!(took < Duration::from_millis(250), "hop {hangs} took {took:?}");
        let mut left = Duration::from_millis(50);
        for process in chain.iter().rev() {
            process.work.comes_to(0).await;
            // A hop may have been given up before it was reached, never given more.
            if let Some(had) = process.left.lock().unwrap().take() {
                assert!(had < left, "a hop had {had:?} of {left:?}");
                left = had;
            }
        }
    }
}

#[tokio::test]
async fn a_caller_who_goes_away_leaves_no_work_behind() {
    let last = process(|_| Does::Hang, None);
    let first = process(|app| Does::Ask(app.channel("next")), Some(last.port));
    let call = ask(first.port, Duration::from_secs(60));
    tokio::select! {
        answer = call => panic!("the last hop hangs, not {answer:?}"),
        () = last.work.comes_to(1) => {}
    }
    first.work.comes_to(0).await;
    last.work.comes_to(0).await;
}

#[tokio::test]
async fn a_callee_that_is_not_there_is_dependency_down_and_was_not_sent() {
    let mut client = TokensServiceClient::new(testing::unreachable().unwrap());
    let ctx = Ctx::root(Duration::from_secs(5), Trace::new());
    let status = ctx.scope(client.get_jwks(GetJwksRequest {})).await.expect_err("nobody is there");
    assert_eq!(status.code(), Code::Unavailable);
    assert_eq!(status::reason(&status).unwrap().reason, "DEPENDENCY_DOWN");
    assert_eq!(judge(&status), Verdict::NotSent);
}

#[tokio::test]
async fn waiting_for_a_connection_is_under_the_deadline() {
    let mut client = TokensServiceClient::new(testing::unreachable().unwrap());
    let ctx = Ctx::root(Duration::from_millis(100), Trace::new());
    let started = mesh::clock::instant();
    let status = ctx.scope(client.get_jwks(GetJwksRequest {})).await.expect_err("nobody is there");
    assert_eq!(status.code(), Code::DeadlineExceeded);
    assert!(started.elapsed() < Duration::from_millis(500));
}

#[tokio::test]
async fn a_handler_that_panics_answers_internal_and_the_connection_lives_on() {
    let process = process(|_| Does::Panic, None);
    let mut client = client(process.port);
    for _ in 0..3 {
        let status = client.get_jwks(GetJwksRequest {}).await.expect_err("it panics");
        assert_eq!((status.code(), status.message()), (Code::Internal, "internal error"));
    }
}

#[tokio::test]
async fn the_trace_of_a_call_goes_along() {
    let process = process(|_| Does::Answer, None);
    let ctx = Ctx::root(Duration::from_secs(5), Trace::new());
    let mut client = client(process.port);
    let answer = ctx.scope(client.issue_token(IssueTokenRequest::default())).await.unwrap();
    assert_eq!(answer.into_inner().access_token, ctx.trace_id());
}

#[tokio::test]
async fn a_malformed_timeout_is_invalid_argument() {
    let process = process(|_| Does::Answer, None);
    let stream = tokio::net::TcpStream::connect(("127.0.0.1", process.port)).await.unwrap();
    let io = hyper_util::rt::TokioIo::new(stream);
    let executor = hyper_util::rt::TokioExecutor::new();
    let (mut sender, connection) =
        hyper::client::conn::http2::handshake(executor, io).await.unwrap();
    #[expect(clippy::disallowed_methods, reason = "drives a bare connection")]
    tokio::spawn(connection);
    let request = http::Request::post(format!(
        "http://127.0.0.1:{}/ordermesh.auth.v1.TokensService/GetJwks",
        process.port
    ))
    .header("content-type", "application/grpc")
    .header("grpc-timeout", "soon")
    .body(http_body_util::Full::new(bytes::Bytes::from_static(&[0; 5])))
    .unwrap();
    let response = sender.send_request(request).await.unwrap();
    assert_eq!(response.headers()["grpc-status"], "3");
}

#[tokio::test]
async fn a_restarted_callee_is_found_again_and_no_call_is_lost_to_its_leaving() {
    let bound = Bound::free().unwrap();
    let again = Bound {
        listen: bound.listen.try_clone().unwrap(),
        admin: bound.admin.try_clone().unwrap(),
    };
    let mut first = process_on(bound, |_| Does::Answer, None);
    let mut client = client(first.port);
    client.get_jwks(GetJwksRequest {}).await.unwrap();
    first.stop.take().unwrap().send(()).unwrap();
    assert_eq!(first.ended.await.unwrap().unwrap(), mesh::app::Ended::Drained);
    let _second = process_on(again, |_| Does::Answer, None);
    client.get_jwks(GetJwksRequest {}).await.unwrap();
}

#[tokio::test]
async fn leaving_waits_for_calls_and_cuts_them_when_the_drain_is_over() {
    let bound = Bound::free().unwrap();
    let config =
        Config { drain: Duration::from_millis(50), ..Config::for_tests(bound, "static://") };
    let app = App::new("hop", DESCRIPTORS, config).unwrap();
    let port = app.address().port();
    let work = Arc::<Work>::default();
    let hop = Hop { does: Does::Hang, work: Arc::clone(&work), left: Arc::default() };
    let call = ask(port, Duration::from_secs(60));
    let process = app.grpc(TokensServiceServer::new(hop)).serve(work.comes_to(1));
    let (answer, ended) = tokio::join!(call, process);
    assert_eq!(answer.expect_err("it was cut").code(), Code::Unavailable);
    assert_eq!(ended.unwrap(), mesh::app::Ended::Cut);
}

#[tokio::test]
async fn health_knows_the_process_its_services_and_nothing_else() {
    use tonic_health::pb::{HealthCheckRequest, health_client::HealthClient};
    let process = process(|_| Does::Answer, None);
    let config = Config::for_tests(
        Bound::free().unwrap(),
        &format!("static://?callee=127.0.0.1:{}", process.port),
    );
    let app = App::new("caller", DESCRIPTORS, config).unwrap();
    let mut health = HealthClient::new(app.channel("callee"));
    let mut check = async |service: &str| {
        let request = HealthCheckRequest { service: service.to_owned() };
        health.check(request).await.map(|answer| answer.into_inner().status)
    };
    assert_eq!(check("").await.unwrap(), 1);
    assert!(check("ordermesh.auth.v1.TokensService").await.is_ok());
    assert_eq!(check("nobody").await.expect_err("unknown").code(), Code::NotFound);
}
