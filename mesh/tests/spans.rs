//! Spans, as a collector gets them from processes that call each other over real sockets.
#![expect(clippy::unwrap_used, reason = "tests")]

use std::{
    net::SocketAddr,
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use http::uri::PathAndQuery;
use mesh::{
    App, Channel, Config, Ctx, Policy,
    config::Bound,
    ctx::Trace,
    telemetry::metrics,
    testing::{self, Authority, Collector, Seen, Tokens, drawn},
    tls::{self, ClientAuth},
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
use tokio::{net::TcpSocket, sync::oneshot};
use tonic::{Code, Request, Response, Status};

const JWKS: &str = "ordermesh.auth.v1.TokensService/GetJwks";
const ATTEMPT: &str = "Attempt.ordermesh.auth.v1.TokensService/GetJwks";
const ABOVE: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
const UNSAMPLED: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-00";

/// What a process does when it is asked for its keys.
#[derive(Clone)]
enum Does {
    Answer,
    Fail(Code),
    /// So many times, then it answers.
    FailFirst(usize, Code),
    Ask(Channel),
    AskOrElse(Channel),
}

struct Hop {
    does: Does,
    asked: AtomicUsize,
    heard: Arc<Mutex<Vec<String>>>,
}

#[tonic::async_trait]
impl TokensService for Hop {
    async fn get_jwks(&self, request: Request<GetJwksRequest>) -> Result<Response<Jwks>, Status> {
        let header =
            request.metadata().get("traceparent").map(|it| it.to_str().unwrap().to_owned());
        self.heard.lock().unwrap().push(header.unwrap_or_default());
        let asked = self.asked.fetch_add(1, Ordering::SeqCst);
        let ask = |next: &Channel| TokensServiceClient::new(next.clone());
        match &self.does {
            Does::Answer => Ok(Response::new(Jwks::default())),
            Does::Fail(code) => Err(Status::new(*code, "as it was asked to")),
            Does::FailFirst(times, code) if asked < *times => {
                Err(Status::new(*code, "as it was asked to"))
            }
            Does::FailFirst(..) => Ok(Response::new(Jwks::default())),
            Does::Ask(next) => ask(next).get_jwks(GetJwksRequest {}).await,
            Does::AskOrElse(next) => {
                let mut next = ask(next);
                let call = next.get_jwks(GetJwksRequest {});
                let keys = mesh::fallback(call, async |_why| Ok(Jwks::default())).await?;
                Ok(Response::new(keys))
            }
        }
    }

    async fn issue_token(&self, _: Request<IssueTokenRequest>) -> Result<Response<Token>, Status> {
        Ok(Response::new(Token::default()))
    }

    async fn refresh_token(
        &self,
        _: Request<RefreshTokenRequest>,
    ) -> Result<Response<Token>, Status> {
        Ok(Response::new(Token::default()))
    }

    async fn revoke_token(&self, _: Request<RevokeTokenRequest>) -> Result<Response<()>, Status> {
        Ok(Response::new(()))
    }
}

struct Process {
    port: u16,
    heard: Arc<Mutex<Vec<String>>>,
    stop: oneshot::Sender<()>,
    ended: tokio::task::JoinHandle<anyhow::Result<mesh::app::Ended>>,
}

/// A process that sends its spans to `endpoint` and calls whoever is at `next`.
fn process(
    name: &'static str,
    endpoint: Option<&str>,
    next: Option<u16>,
    does: impl FnOnce(Option<Channel>) -> Does,
) -> Process {
    let registry =
        next.map_or("static://".to_owned(), |port| format!("static://?next=127.0.0.1:{port}"));
    let config = Config {
        otlp_endpoint: endpoint.map(str::to_owned),
        ..Config::for_tests(Bound::free().unwrap(), &registry)
    };
    let app = App::new(name, DESCRIPTORS, config).unwrap();
    let does = does(next.map(|_| app.channel("next")));
    process_of(app, does)
}

/// This process, asked for its keys.
#[expect(clippy::disallowed_methods, reason = "a process of its own in a test")]
fn process_of(app: App, does: Does) -> Process {
    let (port, heard) = (app.address().port(), Arc::default());
    let hop = Hop { does, asked: AtomicUsize::new(0), heard: Arc::clone(&heard) };
    let app = app.grpc(TokensServiceServer::new(hop));
    let (stop, stopped) = oneshot::channel::<()>();
    let ended = tokio::spawn(app.serve(async move {
        let _told = stopped.await;
    }));
    Process { port, heard, stop, ended }
}

impl Process {
    /// Asks it for its keys, as a caller at this place in a trace.
    async fn asked(&self, traceparent: &str) -> Result<(), Status> {
        let trace = Trace::parse(traceparent).unwrap();
        let mut client = TokensServiceClient::new(testing::channel_to("process", self.port));
        // So much that no attempt is given up where the machine has much to do.
        let ctx = Ctx::root(Duration::from_secs(30), trace);
        ctx.scope(client.get_jwks(GetJwksRequest {})).await.map(|_keys| ())
    }

    /// Ends it as a signal would.
    async fn end(self) -> mesh::app::Ended {
        self.stop.send(()).unwrap();
        self.ended.await.unwrap().unwrap()
    }
}

/// An address at which nobody listens, and nobody else can as long as the socket is there.
fn nobody() -> (TcpSocket, SocketAddr) {
    let socket = TcpSocket::new_v4().unwrap();
    socket.bind(SocketAddr::from(([127, 0, 0, 1], 0))).unwrap();
    let address = socket.local_addr().unwrap();
    (socket, address)
}

/// The only one of this service and kind whose name that is.
fn only<'s>(seen: &'s [Seen], service: &str, kind: &str, name: &str) -> &'s Seen {
    let is = |it: &&Seen| (&*it.service, it.kind, &*it.name) == (service, kind, name);
    let found: Vec<_> = seen.iter().filter(is).collect();
    assert_eq!(found.len(), 1, "{service} {kind} {name} in\n{}", drawn(seen));
    found[0]
}

#[tokio::test]
async fn a_call_over_two_hops_is_one_tree() {
    let collector = Collector::start().unwrap();
    let endpoint = collector.endpoint();
    let second = process("second", Some(&endpoint), None, |_| Does::Answer);
    let first =
        process("first", Some(&endpoint), Some(second.port), |next| Does::Ask(next.unwrap()));
    first.asked(ABOVE).await.unwrap();
    let seen = collector.once(|seen| seen.len() >= 4).await.unwrap();

    let served = only(&seen, "first", "SERVER", JWKS);
    let call = only(&seen, "first", "CLIENT", JWKS);
    let attempt = only(&seen, "first", "CLIENT", ATTEMPT);
    let below = only(&seen, "second", "SERVER", JWKS);
    assert_eq!(seen.len(), 4, "{}", drawn(&seen));
    for (child, parent) in [(call, served), (attempt, call), (below, attempt)] {
        assert_eq!(child.parent, parent.span, "{}", drawn(&seen));
        assert!(child.time.0 >= parent.time.0 && child.time.1 <= parent.time.1 + 1_000_000);
    }
    assert!(seen.iter().all(|it| it.trace == "4bf92f3577b34da6a3ce929d0e0e4736" && !it.failed));
    for (of, name, value) in [
        (served, "rpc.system.name", "grpc"),
        (served, "rpc.method", JWKS),
        (served, "rpc.response.status_code", "OK"),
        (call, "rpc.method", JWKS),
        (call, "server.address", "next"),
        (call, "rpc.response.status_code", "OK"),
        (attempt, "network.peer.address", "127.0.0.1"),
        (attempt, "network.peer.port", &second.port.to_string()),
        (attempt, "mesh.attempt", "1"),
        (attempt, "rpc.method", ""),
    ] {
        assert_eq!(of.says(name), value, "{name} of {of:?}");
    }
    let resource = &served.resource;
    assert_eq!(resource["service.namespace"], "ordermesh");
    assert_eq!(resource["service.version"], env!("CARGO_PKG_VERSION"));
    assert_eq!(resource["service.instance.id"], format!("first@127.0.0.1:{}", first.port));
    // What travels is the attempt's place in the trace.
    let heard = second.heard.lock().unwrap().clone();
    assert_eq!(heard, [format!("00-{}-{}-01", attempt.trace, attempt.span)]);
}

#[tokio::test]
async fn what_a_call_is_about_is_heard_of_services_alone() {
    let (collector, tokens) = (Collector::start().unwrap(), Tokens::new());
    let config = Config {
        otlp_endpoint: Some(collector.endpoint()),
        ..Config::for_tests(Bound::free().unwrap(), "static://")
    };
    let app = App::new("callee", DESCRIPTORS, config).unwrap().keys(tokens.keys());
    let callee = process_of(app, Does::Answer);
    let callers = [
        ("nobody", None, ""),
        ("a stranger", Some(Tokens::new().of_service("orders")), ""),
        ("a customer", Some(tokens.of_customer("users/1")), ""),
        ("a service", Some(tokens.of_service("orders")), "orders/42"),
    ];
    for (place, (who, token, _)) in callers.iter().enumerate() {
        let mut request = Request::new(GetJwksRequest {});
        let metadata = request.metadata_mut();
        metadata.insert("baggage", "order.id=orders/42".parse().unwrap());
        if let Some(token) = token {
            metadata.insert("authorization", token.parse().unwrap());
        }
        let trace = format!("00-{:032x}-00f067aa0ba902b7-01", place + 1);
        let ctx = Ctx::root(Duration::from_secs(30), Trace::parse(&trace).unwrap());
        let mut client = TokensServiceClient::new(testing::channel_to("callee", callee.port));
        let answer = ctx.scope(client.get_jwks(request)).await;
        assert_eq!(answer.is_err(), *who == "a stranger", "{who}");
    }
    let seen = collector.once(|seen| seen.len() >= callers.len()).await.unwrap();
    for (place, (who, _, order)) in callers.iter().enumerate() {
        let served = seen.iter().find(|it| it.trace == format!("{:032x}", place + 1)).unwrap();
        assert_eq!(served.says("order.id"), *order, "{who}");
    }
}

#[tokio::test]
async fn a_retry_is_a_second_attempt_of_the_same_call() {
    let collector = Collector::start().unwrap();
    let endpoint = collector.endpoint();
    let second =
        process("second", Some(&endpoint), None, |_| Does::FailFirst(1, Code::Unavailable));
    let first =
        process("first", Some(&endpoint), Some(second.port), |next| Does::Ask(next.unwrap()));
    first.asked(ABOVE).await.unwrap();
    let seen = collector.once(|seen| seen.len() >= 6).await.unwrap();
    assert_eq!(seen.len(), 6, "{}", drawn(&seen));

    let call = only(&seen, "first", "CLIENT", JWKS);
    assert!(!call.failed, "the call went well");
    assert_eq!(call.events, ["mesh.retry"]);
    let mut attempts: Vec<_> = seen.iter().filter(|it| it.name == ATTEMPT).collect();
    attempts.sort_by_key(|it| it.says("mesh.attempt").to_owned());
    assert!(attempts.iter().all(|it| it.parent == call.span));
    let told: Vec<_> = attempts
        .iter()
        .map(|it| (it.says("mesh.attempt"), it.failed, it.says("error.type")))
        .collect();
    assert_eq!(told, [("1", true, "UNAVAILABLE"), ("2", false, "")]);
    for attempt in attempts {
        let served = seen.iter().find(|it| it.parent == attempt.span).unwrap();
        assert_eq!((&*served.service, served.failed), ("second", attempt.failed));
    }
}

#[tokio::test]
async fn a_refusal_is_red_at_its_caller_only_and_a_fault_on_both_ends() {
    for (code, server) in [(Code::NotFound, false), (Code::Internal, true)] {
        let collector = Collector::start().unwrap();
        let endpoint = collector.endpoint();
        let second = process("second", Some(&endpoint), None, |_| Does::Fail(code));
        let first =
            process("first", Some(&endpoint), Some(second.port), |next| Does::Ask(next.unwrap()));
        assert_eq!(first.asked(ABOVE).await.unwrap_err().code(), code);
        let seen = collector.once(|seen| seen.len() >= 4).await.unwrap();
        for (service, kind, name, failed) in [
            ("second", "SERVER", JWKS, server),
            ("first", "CLIENT", ATTEMPT, true),
            ("first", "CLIENT", JWKS, true),
            ("first", "SERVER", JWKS, server),
        ] {
            let one = only(&seen, service, kind, name);
            assert_eq!(one.failed, failed, "{code:?}: {one:?}");
            let word = if failed { mesh::telemetry::code(code) } else { "" };
            assert_eq!(one.says("error.type"), word);
        }
    }
}

#[tokio::test]
async fn what_is_not_implemented_keeps_the_name_that_the_contract_gives_it() {
    let collector = Collector::start().unwrap();
    let does = Does::Fail(Code::Unimplemented);
    let callee = process("callee", Some(&collector.endpoint()), None, |_| does);
    assert_eq!(callee.asked(ABOVE).await.unwrap_err().code(), Code::Unimplemented);
    let made_up = PathAndQuery::from_static("/made.up.Service/Method");
    let mut client = tonic::client::Grpc::new(testing::channel_to("process", callee.port));
    let ctx = Ctx::root(Duration::from_secs(30), Trace::parse(ABOVE).unwrap());
    let codec = tonic_prost::ProstCodec::<GetJwksRequest, Jwks>::default();
    let answer = client.unary(Request::new(GetJwksRequest {}), made_up, codec);
    assert_eq!(ctx.scope(answer).await.unwrap_err().code(), Code::Unimplemented);

    let seen = collector.once(|seen| seen.len() >= 2).await.unwrap();
    for name in [JWKS, "_OTHER"] {
        let served = only(&seen, "callee", "SERVER", name);
        assert_eq!((served.says("rpc.method"), served.failed), (name, true), "{served:?}");
    }
    let metrics = metrics().encode();
    for name in [JWKS, "_OTHER"] {
        let calls = format!(
            r#"rpc_server_call_duration_seconds_count{{rpc_method="{name}",rpc_response_status_code="UNIMPLEMENTED"}}"#
        );
        assert!(metrics.contains(&calls), "{calls}");
    }
    let counted = |it: &str| it.starts_with("rpc_server") && it.contains("made.up");
    assert!(!metrics.lines().any(counted));
}

#[tokio::test]
async fn a_call_that_is_refused_here_says_why_and_a_fallback_that_it_stepped_in() {
    let collector = Collector::start().unwrap();
    let endpoint = collector.endpoint();
    let (_kept, nobody) = nobody();
    let none = Policy { bulkhead: 0, ..Policy::default() };
    let first = process("first", Some(&endpoint), Some(nobody.port()), |next| {
        Does::AskOrElse(next.unwrap().with(none))
    });
    first.asked(ABOVE).await.unwrap();
    let seen = collector.once(|seen| seen.len() >= 2).await.unwrap();
    assert_eq!(seen.len(), 2, "no attempt was made:\n{}", drawn(&seen));
    let call = only(&seen, "first", "CLIENT", JWKS);
    assert!(call.failed);
    assert_eq!(call.events, ["mesh.refused"]);
    assert_eq!(call.says("ordermesh.reason"), "BULKHEAD_FULL");
    let served = only(&seen, "first", "SERVER", JWKS);
    assert_eq!((served.failed, &*served.events), (false, &["mesh.degraded".to_owned()][..]));
}

#[tokio::test]
async fn what_the_caller_did_not_sample_is_not_exported_and_those_below_are_told_so() {
    let collector = Collector::start().unwrap();
    let endpoint = collector.endpoint();
    let second = process("second", Some(&endpoint), None, |_| Does::Answer);
    let first =
        process("first", Some(&endpoint), Some(second.port), |next| Does::Ask(next.unwrap()));
    first.asked(UNSAMPLED).await.unwrap();
    let heard = second.heard.lock().unwrap().clone();
    assert!(heard[0].starts_with("00-4bf92f3577b34da6a3ce929d0e0e4736-"), "{heard:?}");
    assert!(heard[0].ends_with("-00"), "{heard:?}");
    // All that there would have been is out when both have ended.
    first.end().await;
    second.end().await;
    assert_eq!(collector.seen(), []);
}

#[tokio::test]
async fn health_is_asked_for_without_a_span() {
    use tonic_health::pb::{HealthCheckRequest, health_client::HealthClient};
    let collector = Collector::start().unwrap();
    let only = process("only", Some(&collector.endpoint()), None, |_| Does::Answer);
    let mut health = HealthClient::new(testing::channel_to("process", only.port));
    let ctx = Ctx::root(Duration::from_secs(5), Trace::parse(ABOVE).unwrap());
    let asked = HealthCheckRequest { service: String::new() };
    ctx.scope(health.check(asked)).await.unwrap();
    only.end().await;
    assert_eq!(collector.seen(), []);
}

#[tokio::test]
async fn the_last_spans_leave_with_the_process() {
    let collector = Collector::start().unwrap();
    let only = process("only", Some(&collector.endpoint()), None, |_| Does::Answer);
    for _ in 0..600 {
        only.asked(ABOVE).await.unwrap();
    }
    assert_eq!(only.end().await, mesh::app::Ended::Drained);
    assert_eq!(collector.seen().len(), 600, "more than fit into one batch, and none is left");
}

#[tokio::test]
async fn a_dead_collector_changes_no_call_and_what_is_lost_is_counted() {
    let (_kept, dead) = nobody();
    let only = process("only", Some(&format!("http://{dead}")), None, |_| Does::Answer);
    let before = metrics().spans_dropped.get();
    for _ in 0..20 {
        only.asked(ABOVE).await.unwrap();
    }
    assert_eq!(only.end().await, mesh::app::Ended::Drained);
    assert!(metrics().spans_dropped.get() >= before + 20);
}

#[tokio::test]
async fn a_collector_that_hangs_holds_neither_calls_nor_the_end_up() {
    // It accepts, by the kernel, and says nothing.
    let hangs = Bound::free().unwrap().listen;
    let endpoint = format!("http://{}", hangs.local_addr().unwrap());
    let only = process("only", Some(&endpoint), None, |_| Does::Answer);
    let before = metrics().spans_dropped.get();
    for _ in 0..20 {
        only.asked(ABOVE).await.unwrap();
    }
    let ended = tokio::time::timeout(Duration::from_secs(20), only.end()).await;
    assert_eq!(ended.expect("it ends"), mesh::app::Ended::Drained);
    assert!(metrics().spans_dropped.get() >= before + 20);
}

#[tokio::test]
async fn spans_go_over_tls_to_whom_is_trusted_and_cost_no_call_where_nobody_is() {
    let (authority, stranger) = (Authority::new(), Authority::new());
    let own = authority.settings(&["127.0.0.1", "only"]);
    let demanding = tls::Settings { client_auth: ClientAuth::Required, ..own.clone() };
    let collector = Collector::over_tls(&demanding).unwrap();
    let shows = |it: Config| {
        let (otlp_cert, otlp_key) = (own.tls_cert.clone(), own.tls_key.clone());
        Config { otlp_cert, otlp_key, ..it }
    };
    let sending = async |to: &Collector, config: Config| {
        let config = Config { otlp_endpoint: Some(to.endpoint()), ..config };
        let only = process_of(App::new("only", DESCRIPTORS, config).unwrap(), Does::Answer);
        only.asked(ABOVE).await.unwrap();
        let ended = tokio::time::timeout(Duration::from_secs(20), only.end()).await;
        assert_eq!(ended.expect("it ends"), mesh::app::Ended::Drained);
    };
    let config = || Config::for_tests(Bound::free().unwrap(), "static://");
    let trusting = |it: &Authority| Config { otlp_ca: Some(it.ca()), ..config() };
    let before = metrics().spans_dropped.get();
    sending(&collector, trusting(&authority)).await;
    sending(&collector, shows(trusting(&stranger))).await;
    assert!(metrics().spans_dropped.get() >= before + 2);
    assert!(collector.seen().is_empty(), "nobody was trusted on both ends");
    sending(&collector, shows(trusting(&authority))).await;
    assert_eq!(collector.once(|seen| !seen.is_empty()).await.unwrap().len(), 1);
    // Whom all are trusted by is trusted here, too.
    let collector = Collector::over_tls(&own).unwrap();
    sending(&collector, Config { tls: authority.trust(), ..config() }).await;
    assert_eq!(collector.once(|seen| !seen.is_empty()).await.unwrap().len(), 1);
}

#[tokio::test]
async fn without_an_endpoint_the_trace_travels_as_it_did() {
    let second = process("second", None, None, |_| Does::Answer);
    let first = process("first", None, Some(second.port), |next| Does::Ask(next.unwrap()));
    first.asked(ABOVE).await.unwrap();
    let heard = second.heard.lock().unwrap().clone();
    assert!(heard[0].starts_with("00-4bf92f3577b34da6a3ce929d0e0e4736-"), "{heard:?}");
    assert!(heard[0].ends_with("-01") && !heard[0].contains("00f067aa0ba902b7"), "{heard:?}");
}

#[tokio::test]
async fn an_endpoint_that_cannot_be_used_is_an_error_at_start() {
    for (endpoint, words) in [
        ("http://collector:4318", "--allow-plaintext"),
        ("https://127.0.0.1:4318", "--otlp-ca is missing: whom to trust"),
        ("nonsense", "neither http:// nor https://"),
    ] {
        let config = Config {
            otlp_endpoint: Some(endpoint.to_owned()),
            ..Config::for_tests(Bound::free().unwrap(), "static://")
        };
        let error = App::new("only", DESCRIPTORS, config).expect_err(endpoint);
        let error = format!("{error:#}");
        assert!(error.contains("--otlp-endpoint") && error.contains(words), "{error}");
    }
}
