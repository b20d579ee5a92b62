//! What calls meet going out when the other end fails: retries, breaker, budgets, places,
//! fallbacks. Servers in this process do what a script says.
#![expect(clippy::unwrap_used, reason = "tests")]

use std::{
    collections::VecDeque,
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use mesh::{
    App, Channel, Config, Ctx, Policy, Within as _,
    client::{
        Allowance, Hedge, Verdict,
        backoff::Backoff,
        breaker::{Rule, Share, State},
        judge,
    },
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
use tokio::sync::Notify;
use tonic::{Code, Request, Response, Status, metadata::MetadataMap, service::Routes};
use tonic_types::StatusExt as _;

const MS: Duration = Duration::from_millis(1);
const JWKS: &str = "ordermesh.auth.v1.TokensService/GetJwks";
const ISSUE: &str = "ordermesh.auth.v1.TokensService/IssueToken";

/// What a server does with one call.
#[derive(Clone)]
enum Act {
    Answer,
    Fail(Code),
    /// Fails, and says when to try again.
    Push(Code, &'static str),
    /// Refuses, as a server with too much to do.
    Shed,
    Work(Duration),
    Hang,
    /// Asks another one.
    Ask(Channel),
    /// Asks another one, and does without if need be.
    AskOrElse(Channel),
}

/// A server: what it does, first and then always, and what it was asked.
struct Peer {
    first: Mutex<VecDeque<Act>>,
    always: Act,
    asked: AtomicUsize,
    rang: Notify,
    heads: Mutex<Vec<MetadataMap>>,
}

impl Peer {
    fn new(first: impl IntoIterator<Item = Act>, always: Act) -> Arc<Self> {
        Arc::new(Self {
            first: Mutex::new(first.into_iter().collect()),
            always,
            asked: AtomicUsize::new(0),
            rang: Notify::new(),
            heads: Mutex::default(),
        })
    }

    fn asked(&self) -> usize {
        self.asked.load(Ordering::SeqCst)
    }

    /// Served without anything of ours around it.
    fn bare(self: &Arc<Self>, policy: Policy) -> Channel {
        let service = TokensServiceServer::new(Served(Arc::clone(self)));
        testing::channel(Routes::new(service)).unwrap().with(policy)
    }

    /// Served as a process of the mesh serves.
    #[expect(clippy::disallowed_methods, reason = "a process of its own in a test")]
    fn process(self: &Arc<Self>, policy: Policy) -> Channel {
        let config = Config::for_tests(Bound::free().unwrap(), "static://");
        let app = App::new("hop", DESCRIPTORS, config).unwrap();
        let port = app.address().port();
        let app = app.grpc(TokensServiceServer::new(Served(Arc::clone(self))));
        tokio::spawn(app.serve(std::future::pending()));
        testing::channel_to("hop", port).with(policy)
    }

    async fn does<T>(&self, request: Request<T>) -> Result<(), Status> {
        self.asked.fetch_add(1, Ordering::SeqCst);
        self.heads.lock().unwrap().push(request.metadata().clone());
        self.rang.notify_one();
        let act = self.first.lock().unwrap().pop_front().unwrap_or(self.always.clone());
        match act {
            Act::Answer => Ok(()),
            Act::Fail(code) => Err(Status::new(code, "as the script says")),
            Act::Push(code, after) => {
                let mut status = Status::new(code, "as the script says");
                status.metadata_mut().insert("grpc-retry-pushback-ms", after.parse().unwrap());
                Err(status)
            }
            Act::Shed => {
                let mut status = Status::new(Code::ResourceExhausted, "as the script says");
                status.metadata_mut().insert("mesh-refused", "load".parse().unwrap());
                status.metadata_mut().insert("grpc-retry-pushback-ms", "1".parse().unwrap());
                Err(status)
            }
            Act::Work(time) => {
                tokio::time::sleep(time).await;
                Ok(())
            }
            Act::Hang => std::future::pending().await,
            Act::Ask(next) => read(&next).await,
            Act::AskOrElse(next) => {
                let call = async { read(&next).await.map(Response::new) };
                mesh::fallback(call, async |_why| Ok(())).await
            }
        }
    }
}

struct Served(Arc<Peer>);

#[tonic::async_trait]
impl TokensService for Served {
    async fn get_jwks(&self, request: Request<GetJwksRequest>) -> Result<Response<Jwks>, Status> {
        self.0.does(request).await.map(|()| Response::new(Jwks::default()))
    }

    async fn issue_token(
        &self,
        request: Request<IssueTokenRequest>,
    ) -> Result<Response<Token>, Status> {
        self.0.does(request).await.map(|()| Response::new(Token::default()))
    }

    async fn refresh_token(
        &self,
        request: Request<RefreshTokenRequest>,
    ) -> Result<Response<Token>, Status> {
        self.0.does(request).await.map(|()| Response::new(Token::default()))
    }

    async fn revoke_token(
        &self,
        request: Request<RevokeTokenRequest>,
    ) -> Result<Response<()>, Status> {
        self.0.does(request).await.map(Response::new)
    }
}

/// A call that may be repeated.
async fn read(channel: &Channel) -> Result<(), Status> {
    TokensServiceClient::new(channel.clone()).get_jwks(GetJwksRequest {}).await.map(|_| ())
}

/// The same with a time of its own.
async fn read_within(channel: &Channel, time: Duration) -> Result<(), Status> {
    let request = GetJwksRequest {}.within(time);
    TokensServiceClient::new(channel.clone()).get_jwks(request).await.map(|_| ())
}

/// A call that may not.
async fn write(channel: &Channel) -> Result<(), Status> {
    let request = IssueTokenRequest::default();
    TokensServiceClient::new(channel.clone()).issue_token(request).await.map(|_| ())
}

fn in_call() -> Ctx {
    Ctx::root(Duration::from_secs(5), Trace::new())
}

fn reason(status: &Status) -> String {
    status::reason(status).map(|info| info.reason).unwrap_or_default()
}

/// A breaker that stays closed, and no throttle: for tests of what is around them.
fn unbroken() -> Policy {
    let breaker = Rule { failures_min: u32::MAX, ..Rule::default() };
    Policy { breaker, throttle: false, ..Policy::default() }
}

fn exact(open: Duration) -> Rule {
    Rule { open, open_max: open, jitter_percent: 0, ..Rule::default() }
}

#[tokio::test]
async fn what_may_be_repeated_is_tried_three_times_and_says_which_attempt_it_is() {
    let peer = Peer::new([], Act::Fail(Code::Unavailable));
    let status = in_call().scope(read(&peer.bare(unbroken()))).await.expect_err("it fails");
    assert_eq!((status.code(), peer.asked()), (Code::Unavailable, 3));
    let heads = peer.heads.lock().unwrap();
    let attempts: Vec<_> =
        heads.iter().map(|head| head.get("grpc-previous-rpc-attempts").cloned()).collect();
    assert_eq!(attempts, [None, Some("1".parse().unwrap()), Some("2".parse().unwrap())]);
    assert!(heads.iter().all(|head| head.contains_key("grpc-timeout")));
}

#[tokio::test]
async fn a_second_attempt_that_is_answered_is_the_answer() {
    let peer = Peer::new([Act::Fail(Code::Unavailable)], Act::Answer);
    in_call().scope(read(&peer.bare(Policy::default()))).await.expect("the second is answered");
    assert_eq!(peer.asked(), 2);
}

/// Says of so many streams that it has not begun with them, and answers all others. Gives what each
/// said of attempts before it.
async fn refuses_first(bound: std::net::TcpListener, first: usize, heads: Heads) {
    bound.set_nonblocking(true).unwrap();
    let listener = tokio::net::TcpListener::from_std(bound).unwrap();
    let mut refused = 0;
    while let Ok((io, _)) = listener.accept().await {
        let mut h2 = h2::server::handshake(io).await.unwrap();
        while let Some(Ok((request, mut respond))) = h2.accept().await {
            let before = request.headers().get("grpc-previous-rpc-attempts").cloned();
            heads.lock().unwrap().push(before);
            if refused < first {
                refused += 1;
                respond.send_reset(h2::Reason::REFUSED_STREAM);
                continue;
            }
            let mut body = respond.send_response(http::Response::new(()), false).unwrap();
            body.send_data(bytes::Bytes::from_static(&[0; 5]), false).unwrap();
            let status = ("grpc-status".parse().unwrap(), "0".parse().unwrap());
            body.send_trailers([status].into_iter().collect()).unwrap();
        }
    }
}

type Heads = Arc<Mutex<Vec<Option<http::HeaderValue>>>>;

#[tokio::test]
#[expect(clippy::disallowed_methods, reason = "ends with the runtime of the test")]
async fn what_nobody_has_begun_goes_on_although_nothing_is_tried_again() {
    let bound = Bound::free().unwrap().listen;
    let port = bound.local_addr().unwrap().port();
    let heads = Heads::default();
    tokio::spawn(refuses_first(bound, 2, Arc::clone(&heads)));
    let channel = testing::channel_to("hesitant", port).with(Policy::external());
    in_call().scope(write(&channel)).await.expect("the third time it begins");
    // Nor was it an attempt, that whoever is below would have to know of.
    assert_eq!(*heads.lock().unwrap(), [None, None, None]);
    let metrics = mesh::telemetry::metrics().encode();
    assert!(metrics.contains("mesh_resent_total{dependency=\"hesitant\"} 2"), "{metrics}");
    assert!(!metrics.contains("mesh_retries_total{dependency=\"hesitant\"}"), "{metrics}");
}

#[tokio::test]
#[expect(clippy::disallowed_methods, reason = "ends with the runtime of the test")]
async fn what_one_instance_does_not_begin_goes_to_another() {
    let bound = [Bound::free().unwrap().listen, Bound::free().unwrap().listen];
    let addresses = bound.each_ref().map(|it| it.local_addr().unwrap().to_string());
    let addresses = addresses.map(|it| it.parse().unwrap());
    let [never, always] = bound;
    let asked = Heads::default();
    tokio::spawn(refuses_first(never, usize::MAX, Arc::clone(&asked)));
    tokio::spawn(refuses_first(always, 0, Heads::default()));
    let channel = Channel::to("divided", &addresses).with(Policy::external());
    // Who refuses everything has nothing to do, and would be the one to ask, time and again.
    let mut calls = 0;
    while calls < 200 || asked.lock().unwrap().is_empty() {
        in_call().scope(write(&channel)).await.expect("the other one begins");
        calls += 1;
        assert!(calls < 5_000, "it was never asked");
    }
}

#[tokio::test]
async fn attempts_that_no_budget_pays_for_are_counted() {
    let peer = Peer::new([], Act::Fail(Code::Unavailable));
    let service = TokensServiceServer::new(Served(Arc::clone(&peer)));
    let budget = Allowance::Share { percent: 0, per_second: 0 };
    let channel = testing::channel_named("poor", Routes::new(service)).unwrap();
    let channel = channel.with(Policy { budget, ..unbroken() });
    for _ in 0..2 {
        in_call().scope(read(&channel)).await.expect_err("it fails");
    }
    assert_eq!(peer.asked(), 2);
    let metrics = mesh::telemetry::metrics().encode();
    let refused = "mesh_retries_refused_total{dependency=\"poor\"} 2";
    assert!(metrics.contains(refused), "{metrics}");
}

#[tokio::test]
async fn what_may_not_be_repeated_and_what_is_an_answer_is_sent_once() {
    let peer = Peer::new([], Act::Fail(Code::Unavailable));
    let status = in_call().scope(write(&peer.bare(unbroken()))).await.expect_err("it fails");
    assert_eq!((status.code(), peer.asked()), (Code::Unavailable, 1));
    assert_eq!(judge(&status), Verdict::Unsure);
    for code in [Code::NotFound, Code::Internal, Code::Aborted, Code::ResourceExhausted] {
        let peer = Peer::new([], Act::Fail(code));
        let status = in_call().scope(read(&peer.bare(unbroken()))).await.expect_err("it fails");
        assert_eq!((status.code(), peer.asked()), (code, 1));
    }
}

#[tokio::test]
async fn pushback_says_whether_and_when_to_try_again() {
    for (code, after, asked) in [
        (Code::Unavailable, "-1", 1),
        (Code::Unavailable, "later", 1),
        (Code::Unavailable, "1", 3),
        (Code::ResourceExhausted, "1", 3),
        (Code::Unavailable, "60000", 1),
    ] {
        let peer = Peer::new([], Act::Push(code, after));
        let status = in_call().scope(read(&peer.bare(unbroken()))).await.expect_err("it fails");
        assert_eq!((status.code(), peer.asked()), (code, asked), "{code} {after}");
        assert!(!status.metadata().contains_key("grpc-retry-pushback-ms"), "it was meant for us");
    }
}

#[tokio::test]
async fn an_attempt_has_its_share_of_the_time_and_the_next_one_the_rest() {
    let peer = Peer::new([Act::Hang], Act::Answer);
    let ctx = Ctx::root(600 * MS, Trace::new());
    ctx.scope(read(&peer.bare(Policy::default()))).await.expect("the second is answered");
    assert_eq!(peer.asked(), 2);
}

#[tokio::test]
async fn only_one_of_the_levels_tries_again() {
    let last = Peer::new([], Act::Fail(Code::Unavailable));
    let middle = Peer::new([], Act::Ask(last.bare(unbroken())));
    let first = Peer::new([], Act::Ask(middle.process(unbroken())));
    let status = in_call().scope(read(&first.process(unbroken()))).await.expect_err("it fails");
    assert_eq!(status.code(), Code::Unavailable);
    assert_eq!((first.asked(), middle.asked(), last.asked()), (1, 1, 3));
}

#[tokio::test]
async fn below_a_retry_nothing_is_tried_again() {
    let last = Peer::new([], Act::Fail(Code::Unavailable));
    let first = Peer::new([], Act::Ask(last.bare(unbroken())));
    let mut request = Request::new(GetJwksRequest {});
    request.metadata_mut().insert("grpc-previous-rpc-attempts", "1".parse().unwrap());
    let mut client =
        TokensServiceClient::new(first.process(Policy { backoff: Backoff::never(), ..unbroken() }));
    in_call().scope(client.get_jwks(request)).await.expect_err("it fails");
    assert_eq!((first.asked(), last.asked()), (1, 1));
}

#[tokio::test]
async fn a_retry_storm_over_three_hops_stays_within_the_budget() {
    const CALLS: usize = 1_000;
    for always in [Act::Fail(Code::Unavailable), Act::Answer] {
        // All fail, or every third: with all of them the breakers open, with some of them not.
        let some = (0..CALLS * 2)
            .map(|call| if call % 3 == 0 { Act::Fail(Code::Unavailable) } else { Act::Answer });
        let all = matches!(always, Act::Fail(_));
        let last = Peer::new(some.filter(|_| !all), always);
        let middle = Peer::new([], Act::Ask(last.process(Policy::default())));
        let first = Peer::new([], Act::Ask(middle.process(Policy::default())));
        let channel = first.process(Policy::default());
        let (mut failed, began) = (0, mesh::clock::instant());
        for _ in 0..CALLS / 10 {
            let ten = (0..10).map(|_| in_call());
            let ten = futures_util::future::join_all(ten.map(|ctx| {
                let channel = channel.clone();
                async move { ctx.scope(read(&channel)).await }
            }));
            failed += ten.await.into_iter().filter(Result::is_err).count();
        }
        // 10 % of the calls, and three a second, of which those of ten seconds are there at first.
        let seconds = usize::try_from(began.elapsed().as_secs()).unwrap() + 1;
        let most = CALLS + CALLS / 10 + 3 * (10 + seconds);
        assert!(last.asked() <= most, "{} of {CALLS}", last.asked());
        if all {
            assert_eq!(failed, CALLS);
            assert!(last.asked() <= CALLS * 11 / 10, "{}", last.asked());
        } else {
            assert!(failed < CALLS / 3, "some were answered on a second attempt: {failed} failed");
        }
    }
}

#[tokio::test]
async fn the_call_after_the_last_place_is_refused_and_was_not_sent() {
    let peer = Peer::new([Act::Hang], Act::Answer);
    let channel = peer.bare(Policy { bulkhead: 1, ..Policy::default() });
    let ctx = in_call();
    {
        let hangs = ctx.scope(write(&channel));
        tokio::pin!(hangs);
        tokio::select! {
            answer = &mut hangs => panic!("it hangs, not {answer:?}"),
            () = peer.rang.notified() => {}
        }
        let status = in_call().scope(write(&channel)).await.expect_err("no place");
        assert_eq!(status.code(), Code::ResourceExhausted);
        assert_eq!(reason(&status), "BULKHEAD_FULL");
        assert_eq!(judge(&status), Verdict::NotSent);
    }
    // The call that was dropped gave its place back.
    in_call().scope(write(&channel)).await.expect("a place");
    assert_eq!(peer.asked(), 2);
}

#[tokio::test]
async fn a_call_that_is_given_up_by_who_made_it_is_counted_as_cancelled() {
    // A method of its own: metrics are those of the process.
    let peer = Peer::new([Act::Answer, Act::Hang], Act::Answer);
    let channel = peer.bare(Policy::default());
    let mut client = TokensServiceClient::new(channel);
    let mut revoke =
        async || in_call().scope(client.revoke_token(RevokeTokenRequest::default())).await;
    revoke().await.expect("it answers");
    peer.rang.notified().await;
    let count = |code: &str| {
        let series = format!(
            "rpc_client_call_duration_seconds_count{{rpc_method=\"\
             ordermesh.auth.v1.TokensService/RevokeToken\",rpc_response_status_code=\"{code}\"}} "
        );
        let metrics = mesh::telemetry::metrics().encode();
        let line = metrics.lines().find_map(|line| line.strip_prefix(&series).map(str::to_owned));
        line.unwrap_or_default()
    };
    assert_eq!((&*count("OK"), &*count("CANCELLED")), ("1", ""));
    tokio::select! {
        answer = revoke() => panic!("it hangs, not {answer:?}"),
        () = peer.rang.notified() => {}
    }
    assert_eq!((&*count("OK"), &*count("CANCELLED")), ("1", "1"));
}

#[tokio::test]
async fn a_breaker_opens_refuses_and_closes_by_its_probes() {
    let peer = Peer::new(vec![Act::Fail(Code::Internal); 5], Act::Answer);
    let rule = Rule { ramp: Duration::ZERO, ..exact(200 * MS) };
    let channel = peer.bare(Policy { breaker: rule, ..Policy::default() });
    let mut state = channel.breaker("");
    for _ in 0..5 {
        in_call().scope(write(&channel)).await.expect_err("it fails");
    }
    assert_eq!(*state.borrow_and_update(), State::Open);
    let status = in_call().scope(write(&channel)).await.expect_err("open");
    assert_eq!((status.code(), &*reason(&status)), (Code::Unavailable, "CIRCUIT_OPEN"));
    let after = status.get_details_retry_info().and_then(|info| info.retry_delay).unwrap();
    assert!(after <= 200 * MS, "{after:?}");
    assert_eq!((judge(&status), peer.asked()), (Verdict::NotSent, 5));
    // The refusal says when to come again.
    tokio::time::sleep(after + MS).await;
    in_call().scope(write(&channel)).await.expect("a probe");
    assert_eq!(*state.borrow_and_update(), State::HalfOpen);
    in_call().scope(write(&channel)).await.expect("a probe");
    assert_eq!(*state.borrow_and_update(), State::Closed);
}

#[tokio::test]
async fn calls_that_are_kept_apart_are_told_apart() {
    let sick = Peer::new([], Act::Fail(Code::Internal));
    let service = TokensServiceServer::new(Served(Arc::clone(&sick)));
    let channel = testing::channel_named("parted", Routes::new(service)).unwrap();
    let views = channel.apart("views");
    for _ in 0..5 {
        in_call().scope(write(&views)).await.expect_err("it fails");
    }
    let status = in_call().scope(write(&views)).await.expect_err("open");
    assert_eq!(reason(&status), "CIRCUIT_OPEN");
    // Errors and what is done without it know the callee alone.
    assert!(!format!("{status:?}").contains("parted/views"), "{status:?}");
    let metrics = mesh::telemetry::metrics().encode();
    let open = "mesh_breaker_state{dependency=\"parted/views\",method=\"\"} 2";
    assert!(metrics.contains(open), "{metrics}");
    assert!(!metrics.contains("mesh_breaker_state{dependency=\"parted\""), "{metrics}");
    let all = mesh::client::view();
    let state = |name| {
        let one = all.as_array().unwrap().iter().find(|one| one["name"] == name).unwrap();
        one["breaker"]["state"].clone()
    };
    assert_eq!((state("parted"), state("parted/views")), ("closed".into(), "open".into()));
    in_call().scope(write(&channel)).await.expect_err("it fails, and is asked");
}

#[tokio::test]
async fn a_probe_that_is_dropped_lets_the_next_one_try() {
    let peer = Peer::new(vec![Act::Fail(Code::Internal); 5], Act::Hang);
    let channel = peer.bare(Policy { breaker: exact(MS), ..Policy::default() });
    for _ in 0..5 {
        in_call().scope(write(&channel)).await.expect_err("it fails");
        peer.rang.notified().await;
    }
    for _ in 0..2 {
        let ctx = in_call();
        // Refusals aside, which last a millisecond, the probe hangs; then its caller goes away.
        loop {
            tokio::select! {
                answer = ctx.scope(write(&channel)) => {
                    assert_eq!(reason(&answer.expect_err("open")), "CIRCUIT_OPEN");
                }
                () = peer.rang.notified() => break,
            }
        }
    }
    assert_eq!(peer.asked(), 7);
}

#[tokio::test]
async fn a_breaker_that_opens_between_attempts_does_not_hide_that_something_was_sent() {
    let peer = Peer::new([], Act::Fail(Code::Unavailable));
    let rule = Rule { failures_min: 1, calls_min: 0, share: Share::Any, ..exact(5_000 * MS) };
    let channel = peer.bare(Policy { breaker: rule, ..Policy::default() });
    let status = in_call().scope(read(&channel)).await.expect_err("it fails");
    assert_eq!((status.code(), peer.asked()), (Code::Unavailable, 1));
    assert_eq!(judge(&status), Verdict::Unsure, "{status}");
}

#[tokio::test]
async fn the_breaker_ignores_timeouts_of_callers_who_had_too_little_time() {
    let peer = Peer::new([], Act::Work(40 * MS));
    let channel = peer.bare(Policy { backoff: Backoff::never(), ..Policy::default() });
    for _ in 0..10 {
        in_call().scope(read(&channel)).await.expect("it takes 40 ms");
    }
    // Ten times five failures in a row would open it, were they the callee's.
    for _ in 0..20 {
        let status = in_call().scope(read_within(&channel, 10 * MS)).await.expect_err("late");
        assert_eq!(status.code(), Code::DeadlineExceeded);
    }
    assert_eq!(peer.asked(), 30);
    assert_eq!(*channel.breaker("").borrow(), State::Closed);
    assert_eq!(*channel.breaker(JWKS).borrow(), State::Closed);
}

#[tokio::test]
async fn the_breaker_counts_timeouts_of_callers_who_had_enough() {
    let peer = Peer::new([], Act::Hang);
    let channel = peer.bare(Policy { backoff: Backoff::never(), ..Policy::default() });
    for _ in 0..5 {
        let status = in_call().scope(read_within(&channel, 20 * MS)).await.expect_err("late");
        assert_eq!(status.code(), Code::DeadlineExceeded);
    }
    assert_eq!(*channel.breaker("").borrow(), State::Open);
}

#[tokio::test]
async fn a_call_that_cannot_be_over_in_time_is_not_sent() {
    let peer = Peer::new([], Act::Work(20 * MS));
    let channel = peer.bare(Policy::default());
    let calls = (0..50).map(|_| {
        let channel = channel.clone();
        async move { in_call().scope(read(&channel)).await }
    });
    for answer in futures_util::future::join_all(calls).await {
        answer.expect("it takes 20 ms");
    }
    let status = in_call().scope(read_within(&channel, 10 * MS)).await.expect_err("refused");
    assert_eq!((status.code(), judge(&status)), (Code::DeadlineExceeded, Verdict::NotSent));
    assert_eq!(peer.asked(), 50);
}

#[tokio::test]
async fn what_has_too_much_to_do_is_asked_less() {
    let peer = Peer::new([], Act::Push(Code::ResourceExhausted, "50"));
    let channel = peer.bare(Policy { throttle: true, ..unbroken() });
    let mut shed = 0;
    for _ in 0..500 {
        let status = in_call().scope(write(&channel)).await.expect_err("it fails");
        assert_eq!(status.code(), Code::ResourceExhausted);
        if reason(&status) == "LOAD_SHED" {
            assert_eq!(judge(&status), Verdict::NotSent);
            shed += 1;
        }
    }
    assert_eq!(peer.asked() + shed, 500);
    assert!(peer.asked() < 50, "{} of 500 were sent", peer.asked());
}

#[tokio::test]
async fn a_quota_is_an_answer_and_opens_no_breaker() {
    // Whoever locks an account by wrong passwords must not lock all others out.
    let peer = Peer::new([], Act::Fail(Code::ResourceExhausted));
    let channel = peer.bare(Policy::default());
    for _ in 0..100 {
        let status = in_call().scope(write(&channel)).await.expect_err("it has had enough");
        assert_eq!(judge(&status), Verdict::Unsure);
    }
    assert_eq!(peer.asked(), 100);
    assert_eq!(*channel.breaker("").borrow(), State::Closed);
}

#[tokio::test]
async fn no_breaker_opens_on_what_is_shed_and_the_throttle_lessens_it() {
    // Most of it is shed, for longer than any rule needs; what is let in is done.
    let script = (0..60).map(|n| if n % 4 == 0 { Act::Answer } else { Act::Shed });
    let peer = Peer::new(script, Act::Shed);
    let channel = peer.bare(Policy { throttle: false, ..Policy::default() });
    for _ in 0..60 {
        _ = in_call().scope(write(&channel)).await;
    }
    assert_eq!(peer.asked(), 60);
    assert_eq!(*channel.breaker("").borrow(), State::Closed);
    assert_eq!(*channel.breaker(ISSUE).borrow(), State::Closed);

    let channel = peer.bare(Policy::default());
    for _ in 0..60 {
        in_call().scope(write(&channel)).await.expect_err("it has too much to do");
    }
    assert!(peer.asked() < 100, "{} of 120", peer.asked());
}

#[tokio::test]
async fn a_stream_outlasts_what_an_attempt_of_other_calls_may_take() {
    use tonic_health::pb::{HealthCheckRequest, health_client::HealthClient};
    let peer = Peer::new([], Act::Answer);
    let policy = Policy { timeout: Some(100 * MS), longest: Some(100 * MS), ..Policy::default() };
    let mut client = HealthClient::new(peer.process(policy));
    let ctx = in_call();
    let request = HealthCheckRequest { service: String::new() };
    let states = ctx.scope(client.watch(request)).await.expect("a stream");
    let mut states = states.into_inner();
    states.message().await.expect("it goes on").expect("a state");
    // Nothing more is to be told.
    let more = tokio::time::timeout(500 * MS, states.message()).await;
    assert!(more.is_err(), "{more:?}");
}

#[tokio::test]
async fn what_a_server_refused_was_not_begun_unless_an_attempt_before_it_was() {
    let peer = Peer::new([], Act::Shed);
    let status = in_call().scope(write(&peer.bare(unbroken()))).await.expect_err("shed");
    assert_eq!((judge(&status), status.code()), (Verdict::NotSent, Code::ResourceExhausted));

    let peer = Peer::new([Act::Fail(Code::Unavailable)], Act::Shed);
    let status = in_call().scope(read(&peer.bare(unbroken()))).await.expect_err("both fail");
    assert_eq!((judge(&status), status.code()), (Verdict::Unsure, Code::Unavailable));
    assert!(peer.asked() > 1);
}

#[tokio::test]
async fn an_answer_that_does_without_says_so_at_every_hop() {
    let last = Peer::new([], Act::Fail(Code::Unavailable));
    let middle = Peer::new([], Act::AskOrElse(last.bare(unbroken())));
    let first = Peer::new([], Act::Ask(middle.process(Policy::default())));
    let mut client = TokensServiceClient::new(first.process(Policy::default()));
    let ctx = in_call();
    let answer = ctx.scope(client.get_jwks(GetJwksRequest {})).await.expect("it does without");
    assert_eq!(answer.metadata().get("mesh-degraded").unwrap(), "fake");
    assert_eq!(ctx.degraded(), ["fake".into()]);
}

#[tokio::test]
async fn a_fallback_has_time_of_its_own_and_takes_the_place_of_no_answer() {
    let peer = Peer::new([Act::Hang], Act::Fail(Code::NotFound));
    let channel = peer.bare(Policy { backoff: Backoff::never(), ..unbroken() });
    let ask = async || read(&channel).await.map(Response::new);
    let ctx = Ctx::root(300 * MS, Trace::new());
    let value = ctx.scope(mesh::fallback(ask(), async |_why| Ok(()))).await;
    value.expect("there was time to fall back");
    assert_eq!(ctx.degraded(), ["fake".into()]);
    assert!(!ctx.time_left().is_zero());
    let ctx = in_call();
    let value = ctx.scope(mesh::fallback(ask(), async |_why| Ok(()))).await;
    assert_eq!(value.expect_err("an answer").code(), Code::NotFound);
    assert!(ctx.degraded().is_empty());
}

#[tokio::test]
async fn a_refusal_of_this_process_may_be_replaced() {
    let peer = Peer::new([], Act::Fail(Code::Internal));
    let channel = peer.bare(Policy { bulkhead: 0, ..Policy::default() });
    let ctx = in_call();
    let call = async { read(&channel).await.map(Response::new) };
    ctx.scope(mesh::fallback(call, async |why| {
        assert_eq!(reason(&why), "BULKHEAD_FULL");
        Ok(())
    }))
    .await
    .expect("it does without");
    assert_eq!((peer.asked(), ctx.degraded()), (0, vec!["fake".into()]));
}

#[tokio::test]
async fn a_slow_attempt_is_joined_by_another_where_the_policy_says_so() {
    let warm = vec![Act::Answer; 20];
    let peer = Peer::new(warm.into_iter().chain([Act::Hang]), Act::Answer);
    // Longer than any of the others takes, however busy the machine is: none of them is joined.
    let hedge = Some(Hedge { least: 300 * MS, ..Hedge::default() });
    let hedged = Policy { hedge, ..Policy::default() };
    let channel = peer.bare(hedged);
    for _ in 0..20 {
        in_call().scope(read(&channel)).await.expect("it answers");
    }
    let asked = peer.asked();
    let began = mesh::clock::instant();
    in_call().scope(read(&channel)).await.expect("the second attempt is answered");
    assert!(began.elapsed() < 1_000 * MS, "the first attempt would have had longer");
    assert!(peer.asked() >= asked + 2);
}

#[tokio::test]
async fn what_is_known_of_a_dependency_can_be_looked_at() {
    let peer = Peer::new([], Act::Answer);
    let channel = peer.bare(Policy { bulkhead: 77, ..Policy::default() });
    in_call().scope(read(&channel)).await.expect("it answers");
    let all = mesh::client::view();
    let view = all.as_array().unwrap().iter().find(|one| one["bulkhead"]["max"] == 77).unwrap();
    assert_eq!(view["name"], "fake");
    assert_eq!(view["bulkhead"]["in_use"], 0);
    assert_eq!(view["retry_budget"], 30);
    assert_eq!(view["methods"][0]["name"], JWKS);
    assert_eq!(view["methods"][0]["idempotent"], true);
    assert!(view["endpoints"].is_array());
    let metrics = mesh::telemetry::metrics().encode();
    for name in ["mesh_retry_budget{", "mesh_bulkhead_in_use{"] {
        assert!(metrics.contains(name), "{name}");
    }
}
