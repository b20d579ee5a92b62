//! A server over real sockets, as callers of every kind see it: late ones, hostile ones, too many.
#![expect(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests")]

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use bytes::{BufMut as _, Bytes, BytesMut};
use http::{HeaderMap, Request, Response};
use http_body_util::{BodyExt as _, Full};
use hyper::{body::Incoming, client::conn::http2::SendRequest};
use hyper_util::rt::{TokioExecutor, TokioIo};
use mesh::{
    App, Config, Ctx,
    app::Ended,
    config::Bound,
    ctx::Trace,
    status, testing,
    wire::{
        DESCRIPTORS,
        ordermesh::auth::v1::{
            GetJwksRequest, IssueTokenRequest, Jwks, PasswordCredential, RefreshTokenRequest,
            RevokeTokenRequest, Token,
            issue_token_request::Credential,
            tokens_service_client::TokensServiceClient,
            tokens_service_server::{TokensService, TokensServiceServer},
        },
    },
};
use tokio::{
    net::{TcpListener, TcpStream},
    sync::oneshot,
    task::JoinHandle,
};
use tonic::{Code, Status};

const PATIENCE: Duration = Duration::from_secs(10);
const SERVICE: &str = "/ordermesh.auth.v1.TokensService";

/// What the handlers of these tests do, by rpc.
#[derive(Default)]
struct Hop {
    called: Arc<AtomicUsize>,
}

#[tonic::async_trait]
impl TokensService for Hop {
    /// Answers at once.
    async fn get_jwks(
        &self,
        _: tonic::Request<GetJwksRequest>,
    ) -> Result<tonic::Response<Jwks>, Status> {
        self.called.fetch_add(1, Ordering::SeqCst);
        Ok(tonic::Response::new(Jwks::default()))
    }

    /// Answers with as many bytes as the address says, after as many milliseconds as the password.
    async fn issue_token(
        &self,
        request: tonic::Request<IssueTokenRequest>,
    ) -> Result<tonic::Response<Token>, Status> {
        let Some(Credential::Password(password)) = request.into_inner().credential else {
            panic!("a password");
        };
        self.called.fetch_add(1, Ordering::SeqCst);
        tokio::time::sleep(Duration::from_millis(password.password.parse().unwrap_or(0))).await;
        let size = password.email.parse().unwrap_or(0);
        Ok(tonic::Response::new(Token { access_token: "x".repeat(size), ..Token::default() }))
    }

    /// Never answers.
    async fn refresh_token(
        &self,
        _: tonic::Request<RefreshTokenRequest>,
    ) -> Result<tonic::Response<Token>, Status> {
        self.called.fetch_add(1, Ordering::SeqCst);
        std::future::pending().await
    }

    /// Fails as a call of its own did; with a token, as one that had no more time.
    #[expect(clippy::disallowed_methods, reason = "a status that came from elsewhere")]
    async fn revoke_token(
        &self,
        request: tonic::Request<RevokeTokenRequest>,
    ) -> Result<tonic::Response<()>, Status> {
        if !request.into_inner().refresh_token.is_empty() {
            let left = Ctx::current().expect("a call").time_left();
            tokio::time::sleep(mesh::deadline::for_child(left)).await;
            return Err(Status::deadline_exceeded("elsewhere"));
        }
        let mut status = Status::unavailable("elsewhere");
        for name in ["mesh-local", "mesh-refused", "grpc-retry-pushback-ms", "kept"] {
            status.metadata_mut().insert(name, "1".parse().unwrap());
        }
        Err(status)
    }
}

struct Process {
    port: u16,
    called: Arc<AtomicUsize>,
    stop: Option<oneshot::Sender<()>>,
    ended: JoinHandle<anyhow::Result<Ended>>,
}

fn process(change: impl FnOnce(&mut Config)) -> Process {
    process_with(change, |app| app)
}

#[expect(clippy::disallowed_methods, reason = "a process of its own in a test")]
fn process_with(change: impl FnOnce(&mut Config), more: impl FnOnce(App) -> App) -> Process {
    let mut config = Config::for_tests(Bound::free().unwrap(), "static://");
    change(&mut config);
    let app = App::new("hop", DESCRIPTORS, config).unwrap();
    let (port, hop) = (app.address().port(), Hop::default());
    let called = Arc::clone(&hop.called);
    let app = more(app.grpc(TokensServiceServer::new(hop)));
    let (stop, stopped) = oneshot::channel::<()>();
    let ended = tokio::spawn(app.serve(async {
        let _stopped = stopped.await.is_ok();
    }));
    Process { port, called, stop: Some(stop), ended }
}

/// A client that is not ours: bare HTTP/2.
#[expect(clippy::disallowed_methods, reason = "drives a bare connection")]
async fn bare(port: u16) -> SendRequest<Full<Bytes>> {
    let stream = TcpStream::connect(("127.0.0.1", port)).await.unwrap();
    let handshake =
        hyper::client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(stream));
    let (sender, connection) = handshake.await.unwrap();
    tokio::spawn(connection);
    sender
}

/// A port that leads to `port`, and how many connections were opened there.
#[expect(clippy::disallowed_methods, reason = "ends with the runtime of the test")]
async fn counted(port: u16) -> (u16, Arc<AtomicUsize>) {
    let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
    let (own, opened) = (listener.local_addr().unwrap().port(), Arc::new(AtomicUsize::new(0)));
    let count = Arc::clone(&opened);
    tokio::spawn(async move {
        while let Ok((mut near, _)) = listener.accept().await {
            count.fetch_add(1, Ordering::SeqCst);
            tokio::spawn(async move {
                let mut far = TcpStream::connect(("127.0.0.1", port)).await?;
                tokio::io::copy_bidirectional(&mut near, &mut far).await
            });
        }
    });
    (own, opened)
}

/// A message as gRPC frames it.
fn message(message: &impl prost::Message, compressed: u8) -> Bytes {
    let mut bytes = BytesMut::new();
    bytes.put_u8(compressed);
    bytes.put_u32(u32::try_from(message.encoded_len()).unwrap());
    message.encode(&mut bytes).unwrap();
    bytes.freeze()
}

fn call(rpc: &str, body: Bytes, headers: &[(&str, &str)]) -> Request<Full<Bytes>> {
    let mut request = Request::post(format!("http://x{SERVICE}/{rpc}"))
        .header("content-type", "application/grpc")
        .header("te", "trailers");
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    request.body(Full::new(body)).unwrap()
}

/// Code, and headers or trailers, of an answer that is read to its end.
async fn end(answer: Response<Incoming>) -> (Code, HeaderMap) {
    let (head, body) = answer.into_parts();
    let trailers = body.collect().await.expect("an end").trailers().cloned();
    let all = trailers.filter(|it| it.contains_key("grpc-status")).unwrap_or(head.headers);
    (Code::from_bytes(all["grpc-status"].as_bytes()), all)
}

async fn answer(
    sender: &mut SendRequest<Full<Bytes>>,
    request: Request<Full<Bytes>>,
) -> (Code, HeaderMap) {
    sender.ready().await.expect("the connection lives");
    let answer = tokio::time::timeout(PATIENCE, sender.send_request(request)).await;
    end(answer.expect("in time").expect("an answer")).await
}

fn asking(email: String) -> IssueTokenRequest {
    let password = PasswordCredential { email, password: String::new() };
    IssueTokenRequest { credential: Some(Credential::Password(password)) }
}

fn taking(millis: &str) -> IssueTokenRequest {
    let password = PasswordCredential { email: String::new(), password: millis.to_owned() };
    IssueTokenRequest { credential: Some(Credential::Password(password)) }
}

fn empty() -> Bytes {
    message(&GetJwksRequest {}, 0)
}

#[tokio::test]
async fn t2_an_expired_deadline_is_deadline_exceeded_and_not_cancelled() {
    let process = process(|_| {});
    let mut client = bare(process.port).await;
    for _ in 0..20 {
        let late = call("RefreshToken", empty(), &[("grpc-timeout", "50m")]);
        assert_eq!(answer(&mut client, late).await.0, Code::DeadlineExceeded);
    }
}

#[tokio::test]
async fn t3_the_deadline_covers_the_stream() {
    use tonic_health::pb::HealthCheckRequest;
    let process = process(|_| {});
    let mut client = bare(process.port).await;
    let mut watch =
        call("", message(&HealthCheckRequest::default(), 0), &[("grpc-timeout", "200m")]);
    *watch.uri_mut() = "http://x/grpc.health.v1.Health/Watch".parse().unwrap();
    let begun = mesh::clock::instant();
    assert_eq!(answer(&mut client, watch).await.0, Code::DeadlineExceeded);
    let took = begun.elapsed();
    assert!(took >= Duration::from_millis(190) && took < Duration::from_secs(2), "{took:?}");
}

#[tokio::test]
async fn t6_no_call_fails_when_connections_grow_old() {
    let process = process(|config| {
        config.server.connection_age = Duration::from_millis(50);
        // As long as ten calls: whoever is only cut off then, and not told before, loses some.
        config.server.connection_age_grace = Duration::from_millis(100);
    });
    let (port, connections) = counted(process.port).await;
    let client = TokensServiceClient::new(testing::channel_to("hop", port));
    let begun = mesh::clock::instant();
    // Calls that nobody may repeat, always some of them under way.
    let caller = async || {
        let (mut client, mut calls) = (client.clone(), 0);
        while begun.elapsed() < Duration::from_secs(2) {
            let ctx = Ctx::root(PATIENCE, Trace::new());
            let answered = ctx.scope(client.issue_token(taking("10"))).await;
            assert!(answered.is_ok(), "call {calls}: {answered:?}");
            calls += 1;
        }
        calls
    };
    let calls = futures_util::future::join_all((0..16).map(|_| caller())).await;
    let called = process.called.load(Ordering::SeqCst);
    assert_eq!(called, calls.iter().sum::<usize>(), "none was carried out twice");
    let connections = connections.load(Ordering::SeqCst);
    assert!(connections > 10, "{connections} connections: none became too old");
}

#[tokio::test]
async fn t8_neither_an_open_stream_nor_a_silent_connection_holds_the_shutdown() {
    use tonic_health::pb::{HealthCheckRequest, health_client::HealthClient};
    let mut process = process(|config| config.drain = Duration::from_secs(4));
    let mut health = HealthClient::new(testing::channel_to("hop", process.port));
    let watch = health.watch(HealthCheckRequest::default()).await.unwrap();
    let mut watch = watch.into_inner();
    watch.message().await.unwrap().expect("a first word");
    let _silent = TcpStream::connect(("127.0.0.1", process.port)).await.unwrap();

    let begun = mesh::clock::instant();
    process.stop.take().unwrap().send(()).unwrap();
    // At 80 % of the drain the stream ends, with a reason.
    let told = watch.message().await.expect_err("the process leaves");
    assert_eq!(told.code(), Code::Unavailable);
    assert_eq!(status::reason(&told).unwrap().reason, "DRAINING");
    let ended = tokio::time::timeout(PATIENCE, process.ended).await.expect("it ends");
    assert_eq!(ended.unwrap().unwrap(), Ended::Drained);
    let took = begun.elapsed();
    assert!(took >= Duration::from_secs(3) && took < Duration::from_secs(5), "{took:?}");
}

#[tokio::test]
async fn t9_the_limit_is_the_processs_and_not_the_connections() {
    let process = process(|config| {
        config.server.limit_max = 20;
        config.call_timeout = Duration::from_secs(2);
    });
    let mut calls = Vec::new();
    for _ in 0..10 {
        let mut client = bare(process.port).await;
        for _ in 0..20 {
            client.ready().await.unwrap();
            calls.push(client.send_request(call("RefreshToken", empty(), &[])));
        }
    }
    let (mut late, mut shed) = (0, 0);
    for answer in futures_util::future::join_all(calls).await {
        let (code, headers) = end(answer.expect("an answer")).await;
        if code == Code::DeadlineExceeded {
            late += 1;
            continue;
        }
        assert_eq!(
            (code, headers["mesh-refused"].as_bytes()),
            (Code::ResourceExhausted, &b"load"[..])
        );
        let pushback: u64 = headers["grpc-retry-pushback-ms"].to_str().unwrap().parse().unwrap();
        assert!((50..200).contains(&pushback));
        shed += 1;
    }
    // 18 of 20 places are for calls that are not marked.
    assert_eq!(process.called.load(Ordering::SeqCst), late);
    assert_eq!((late, shed), (18, 182));
}

#[tokio::test]
async fn that_a_call_is_critical_is_believed_of_services_alone() {
    let tokens = testing::Tokens::new();
    let settings = |config: &mut Config| config.server.limit_max = 20;
    let process = process_with(settings, |app| app.keys(tokens.keys()));
    let mut client = bare(process.port).await;
    let (customer, service) = (tokens.of_customer("users/1"), tokens.of_service("orders"));
    // They are verified once; then it is known whose they are.
    for token in [&customer, &service] {
        let known = call("GetJwks", empty(), &[("authorization", token)]);
        assert_eq!(answer(&mut client, known).await.0, Code::Ok);
    }
    let unknown = tokens.of_service("payments");
    let critical = |token: Option<&str>| {
        let mut headers = vec![("mesh-criticality", "critical"), ("grpc-timeout", "3S")];
        headers.extend(token.map(|token| ("authorization", token)));
        call("RefreshToken", empty(), &headers)
    };
    let mut calls = Vec::new();
    for token in [None, Some(&*customer)].repeat(12).into_iter().chain([Some(&*unknown)]) {
        client.ready().await.unwrap();
        calls.push(Box::pin(client.send_request(critical(token))));
    }
    // Of 25 not one has a place that is kept for what is critical: 18 of 20 are for all.
    for refused in 0..7 {
        let (answer, _, rest) = futures_util::future::select_all(calls).await;
        let (code, headers) = end(answer.expect("an answer")).await;
        assert_eq!(code, Code::ResourceExhausted, "{refused}");
        assert_eq!(headers["mesh-refused"], "load");
        calls = rest;
    }
    let called = process.called.load(Ordering::SeqCst);
    assert_eq!(called, 2 + 18);
    for _ in 0..2 {
        client.ready().await.unwrap();
        calls.push(Box::pin(client.send_request(critical(Some(&service)))));
    }
    for answer in futures_util::future::join_all(calls).await {
        assert_eq!(end(answer.expect("an answer")).await.0, Code::DeadlineExceeded);
    }
    assert_eq!(process.called.load(Ordering::SeqCst), called + 2);
}

#[tokio::test]
async fn the_health_of_a_process_that_is_full_can_be_asked() {
    use tonic_health::pb::HealthCheckRequest;
    let process = process(|config| config.server.limit_max = 20);
    let mut client = bare(process.port).await;
    let mut hanging = Vec::new();
    for _ in 0..50 {
        client.ready().await.unwrap();
        hanging.push(client.send_request(call("RefreshToken", empty(), &[])));
    }
    let mut check = call("", message(&HealthCheckRequest::default(), 0), &[]);
    *check.uri_mut() = "http://x/grpc.health.v1.Health/Check".parse().unwrap();
    assert_eq!(answer(&mut client, check).await.0, Code::Ok);
}

#[tokio::test]
async fn work_that_cannot_be_done_in_the_time_left_is_refused() {
    let process = process(|_| {});
    let mut client = bare(process.port).await;
    let hurried = call("GetJwks", empty(), &[("grpc-timeout", "1500u")]);
    let (code, headers) = answer(&mut client, hurried).await;
    assert_eq!(code, Code::DeadlineExceeded);
    assert_eq!(headers["mesh-refused"], "budget");
    assert_eq!(process.called.load(Ordering::SeqCst), 0);

    // The handler takes 30 ms and more, as far as is known.
    for _ in 0..50 {
        let late = call("RefreshToken", empty(), &[("grpc-timeout", "30m")]);
        assert!(!answer(&mut client, late).await.1.contains_key("mesh-refused"));
    }
    let called = process.called.load(Ordering::SeqCst);
    let late = call("RefreshToken", empty(), &[("grpc-timeout", "20m")]);
    assert_eq!(answer(&mut client, late).await.1["mesh-refused"], "budget");
    assert_eq!(process.called.load(Ordering::SeqCst), called);
}

#[tokio::test]
async fn whoever_passes_on_that_a_child_was_late_was_late() {
    let process = process(|_| {});
    let mut client = bare(process.port).await;
    let request = RevokeTokenRequest { refresh_token: "x".to_owned() };
    let late = |left| call("RevokeToken", message(&request, 0), &[("grpc-timeout", left)]);
    for _ in 0..50 {
        assert_eq!(answer(&mut client, late("40m")).await.0, Code::DeadlineExceeded);
    }
    assert_eq!(answer(&mut client, late("20m")).await.1["mesh-refused"], "budget");
}

#[tokio::test]
async fn what_a_childs_failure_says_of_the_child_is_not_said_of_us() {
    let process = process(|_| {});
    let (code, headers) =
        answer(&mut bare(process.port).await, call("RevokeToken", empty(), &[])).await;
    assert_eq!(code, Code::Unavailable);
    for name in ["mesh-local", "mesh-refused", "grpc-retry-pushback-ms"] {
        assert!(!headers.contains_key(name), "{name}");
    }
    assert!(headers.contains_key("kept"));
}

#[tokio::test]
async fn a_method_with_a_bulkhead_leaves_the_others_their_places() {
    const HEAVY: &str = "/ordermesh.auth.v1.TokensService/RefreshToken";
    let process = process_with(|_| {}, |app| app.bulkhead(HEAVY, 2));
    let mut client = bare(process.port).await;
    let mut hanging = Vec::new();
    for _ in 0..2 {
        client.ready().await.unwrap();
        hanging.push(client.send_request(call("RefreshToken", empty(), &[])));
    }
    assert_eq!(
        answer(&mut client, call("RefreshToken", empty(), &[])).await.0,
        Code::ResourceExhausted
    );
    assert_eq!(answer(&mut client, call("GetJwks", empty(), &[])).await.0, Code::Ok);
}

#[tokio::test]
async fn messages_over_4_mib_are_refused_both_ways_and_the_connection_lives_on() {
    let process = process(|_| {});
    let mut client = bare(process.port).await;
    let large = |size: usize| asking("0".repeat(size));
    let (code, _) = answer(&mut client, call("IssueToken", message(&large(5 << 20), 0), &[])).await;
    assert_eq!(code, Code::OutOfRange);
    assert_eq!(
        answer(&mut client, call("IssueToken", message(&large(3 << 20), 0), &[])).await.0,
        Code::Ok
    );

    for (size, expected) in [(5 << 20, Code::ResourceExhausted), (3 << 20, Code::Ok)] {
        let asked = asking(size.to_string());
        let (code, _) = answer(&mut client, call("IssueToken", message(&asked, 0), &[])).await;
        assert_eq!(code, expected, "{size}");
    }
}

#[tokio::test]
async fn what_cannot_be_read_has_a_clear_status_and_the_connection_lives_on() {
    let process = process(|_| {});
    let mut client = bare(process.port).await;
    let cut = Bytes::from_static(&[0, 0, 0, 1, 0, 7]);
    let wrong = Bytes::from_static(&[0, 0, 0, 0, 2, 0xff, 0xff]);
    for (what, request, expected) in [
        (
            "unknown compression",
            call("GetJwks", empty(), &[("grpc-encoding", "lzma")]),
            Code::Unimplemented,
        ),
        (
            "flag without encoding",
            call("GetJwks", message(&GetJwksRequest {}, 1), &[]),
            Code::Internal,
        ),
        (
            "a flag that is none",
            call("GetJwks", message(&GetJwksRequest {}, 7), &[]),
            Code::Internal,
        ),
        ("half a message", call("GetJwks", cut, &[]), Code::Internal),
        ("no protobuf", call("GetJwks", wrong, &[]), Code::Internal),
        ("a method that is not there", call("Nothing", empty(), &[]), Code::Unimplemented),
    ] {
        let (code, _) = answer(&mut client, request).await;
        assert_eq!(code, expected, "{what}");
    }
    assert_eq!(answer(&mut client, call("GetJwks", empty(), &[])).await.0, Code::Ok);
}

#[tokio::test]
async fn no_more_connections_are_accepted_than_may_be() {
    let process = process(|config| config.server.connections_max = 2);
    let mut first = bare(process.port).await;
    let second = bare(process.port).await;
    // The kernel takes it; nobody serves it.
    let mut third = bare(process.port).await;
    let mut waits = Box::pin(answer(&mut third, call("GetJwks", empty(), &[])));
    for _ in 0..20 {
        assert_eq!(answer(&mut first, call("GetJwks", empty(), &[])).await.0, Code::Ok);
        assert!(futures_util::FutureExt::now_or_never(waits.as_mut()).is_none());
    }
    drop(second);
    assert_eq!(waits.await.0, Code::Ok);
}
