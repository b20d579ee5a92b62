//! Scenarios over pipes, with time paused: what takes seconds in the field takes none here, and
//! what is measured is what the code did, not how busy the machine was.

use std::{
    collections::{BTreeMap, HashMap},
    convert::Infallible,
    sync::{
        Mutex,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
};

use futures_util::{StreamExt as _, stream};
use hyper::{body::Incoming, server::conn::http2, service::service_fn};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use tokio::{
    io::DuplexStream,
    sync::{Semaphore, mpsc},
    task::JoinSet,
};
use tokio_util::sync::CancellationToken;

use tonic::body::Body;

use super::*;
use crate::deadline;
use crate::{
    client::{
        classify::EndpointVerdict,
        connect::{Hosts, Network},
        http2::{Connected, handshake},
    },
    registry::{Address, Instance},
};

const MS: Duration = Duration::from_millis(1);
const SECOND: Duration = Duration::from_secs(1);
/// What every call has.
const TIME: Duration = Duration::from_secs(9);

/// What a host is told to do, and what it saw.
#[derive(Debug)]
pub(in crate::client) struct Host {
    /// How long an answer takes, in milliseconds.
    pub(in crate::client) takes_ms: AtomicUsize,
    /// Answers UNAVAILABLE.
    pub(in crate::client) sick: AtomicBool,
    /// Holds calls until permits are there.
    gate: Option<Semaphore>,
    /// Streams that a connection admits.
    admits: u32,
    /// Ends each connection with a GOAWAY after this many milliseconds.
    age_ms: Option<u64>,
    calls: AtomicUsize,
    /// What the last call said that it has.
    told: Mutex<Option<Duration>>,
    now: AtomicUsize,
    most: AtomicUsize,
    connections: AtomicUsize,
    open: AtomicUsize,
    kill: CancellationToken,
}

impl Default for Host {
    fn default() -> Self {
        Self {
            takes_ms: AtomicUsize::new(1),
            sick: AtomicBool::default(),
            gate: None,
            admits: 256,
            age_ms: None,
            calls: AtomicUsize::default(),
            told: Mutex::default(),
            now: AtomicUsize::default(),
            most: AtomicUsize::default(),
            connections: AtomicUsize::default(),
            open: AtomicUsize::default(),
            kill: CancellationToken::new(),
        }
    }
}

impl Host {
    pub(in crate::client) fn calls(&self) -> usize {
        self.calls.load(Ordering::SeqCst)
    }

    async fn answer(&self) -> Response<Body> {
        self.calls.fetch_add(1, Ordering::SeqCst);
        let now = self.now.fetch_add(1, Ordering::SeqCst) + 1;
        self.most.fetch_max(now, Ordering::SeqCst);
        let takes = u64::try_from(self.takes_ms.load(Ordering::SeqCst)).unwrap();
        if let Some(gate) = &self.gate {
            gate.acquire().await.unwrap().forget();
        }
        tokio::time::sleep(Duration::from_millis(takes)).await;
        self.now.fetch_sub(1, Ordering::SeqCst);
        let mut response = Response::new(Body::empty());
        let code = if self.sick.load(Ordering::SeqCst) { "14" } else { "0" };
        response.headers_mut().insert("grpc-status", code.parse().unwrap());
        response
    }

    async fn connection(self: Arc<Self>, io: DuplexStream) {
        self.connections.fetch_add(1, Ordering::SeqCst);
        self.open.fetch_add(1, Ordering::SeqCst);
        let host = Arc::clone(&self);
        let service = service_fn(move |request: Request<Incoming>| {
            let host = Arc::clone(&host);
            let told = request.headers()[&deadline::TIMEOUT].to_str().unwrap();
            *host.told.lock().unwrap() = deadline::decode(told).ok();
            async move { Ok::<_, Infallible>(host.answer().await) }
        });
        let connection = http2::Builder::new(TokioExecutor::new())
            .timer(TokioTimer::new())
            .max_concurrent_streams(self.admits)
            .serve_connection(TokioIo::new(io), service);
        tokio::pin!(connection);
        let aged = async {
            match self.age_ms {
                Some(age) => tokio::time::sleep(Duration::from_millis(age)).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            _ = connection.as_mut() => {}
            () = aged => {
                connection.as_mut().graceful_shutdown();
                let _ended = self.kill.run_until_cancelled(connection).await.is_some();
            }
            () = self.kill.cancelled() => {}
        }
        self.open.fetch_sub(1, Ordering::SeqCst);
    }
}

/// A mesh of one callee.
pub(in crate::client) struct World {
    pub(in crate::client) hosts: Hosts,
    pub(in crate::client) snapshot: watch::Sender<Arc<Snapshot>>,
}

impl World {
    pub(in crate::client) fn new(names: &[&str]) -> Self {
        let (snapshot, _) = watch::channel(Arc::new(instances(names)));
        Self { hosts: Arc::new(Mutex::new(HashMap::new())), snapshot }
    }

    pub(in crate::client) fn start(&self, name: &str, host: Host) -> Arc<Host> {
        let host = Arc::new(host);
        let (accept, mut accepted) = mpsc::unbounded_channel();
        self.hosts.lock().unwrap().insert(name.to_owned(), accept);
        let serving = Arc::clone(&host);
        spawn(host.kill.clone().run_until_cancelled_owned(async move {
            while let Some(io) = accepted.recv().await {
                spawn(Arc::clone(&serving).connection(io));
            }
        }));
        host
    }

    fn settings(&self) -> Settings {
        let network = Network::Memory(Arc::clone(&self.hosts));
        let connect = connect::Settings { network, ..connect::Settings::default() };
        Settings { connect, ..Settings::default() }
    }

    fn endpoints(&self) -> Arc<Endpoints> {
        Arc::new(Endpoints::with("orders", self.snapshot.subscribe(), self.settings()))
    }

    fn publish(&self, names: &[&str]) {
        self.snapshot.send_replace(Arc::new(instances(names)));
    }
}

fn instances(names: &[&str]) -> Snapshot {
    let instance = |name: &&str| Instance {
        id: (*name).to_owned(),
        address: Address { host: (*name).to_owned(), port: 1 },
        weight: 1,
        meta: BTreeMap::new(),
    };
    Snapshot { instances: names.iter().map(instance).collect(), fetched_at: None, stale: false }
}

#[expect(clippy::disallowed_methods, reason = "ends with the runtime of the test")]
fn spawn(future: impl Future<Output: Send + 'static> + Send + 'static) {
    tokio::spawn(future);
}

fn request() -> Request<Outgoing> {
    let request = Request::builder().method("POST").uri("/t.T/Call");
    request.body(Outgoing::Whole(bytes::Bytes::new())).unwrap()
}

/// One attempt, judged as `client::call` would: `Ok` says who answered, and how long it took.
async fn call(endpoints: &Endpoints, tried: &mut Tried) -> Result<(String, Duration), SendError> {
    let began = clock::instant();
    match endpoints.send(&mut Some(request()), (began, began + TIME), tried).await {
        Ok((response, mut pick)) => {
            let well = response.headers()["grpc-status"] == "0";
            let verdict = if well { EndpointVerdict::Success } else { EndpointVerdict::Hard };
            pick.report(verdict, began.elapsed(), clock::instant());
            Ok((pick.id().to_owned(), began.elapsed()))
        }
        Err(SendError::Broken { mut pick, error }) => {
            pick.report(EndpointVerdict::Hard, began.elapsed(), clock::instant());
            Err(SendError::Broken { pick, error })
        }
        Err(error) => Err(error),
    }
}

/// `count` calls, `at_once` at a time, each asked up to three times: who answered, how long it
/// took, and how many failed.
async fn load(
    endpoints: &Arc<Endpoints>,
    count: usize,
    at_once: usize,
) -> (HashMap<String, usize>, Vec<Duration>, usize) {
    let calls = stream::iter(0..count).map(|_| async {
        let mut tried = Tried::default();
        let mut answer = call(endpoints, &mut tried).await;
        for _ in 0..2 {
            if answer.is_err() {
                answer = call(endpoints, &mut tried).await;
            }
        }
        answer
    });
    let answers: Vec<_> = calls.buffer_unordered(at_once).collect().await;
    let (mut by, mut took, mut failed) = (HashMap::new(), Vec::new(), 0);
    for answer in answers {
        match answer {
            Ok((id, latency)) => {
                *by.entry(id).or_insert(0) += 1;
                took.push(latency);
            }
            Err(_) => failed += 1,
        }
    }
    took.sort_unstable();
    (by, took, failed)
}

fn state(endpoints: &Endpoints, id: &str) -> Option<String> {
    let view = endpoints.view();
    let one = view.as_array().unwrap().iter().find(|one| one["id"] == id)?;
    Some(one["state"].as_str().unwrap().to_owned())
}

#[tokio::test(start_paused = true)]
async fn t5_a_slow_instance_gets_less_than_a_fiftieth_and_p99_stays_below_10_ms() {
    let world = World::new(&["a", "b", "c"]);
    let hosts = ["a", "b", "c"].map(|name| world.start(name, Host::default()));
    hosts[0].takes_ms.store(100, Ordering::SeqCst);
    let endpoints = world.endpoints();
    let (by, took, failed) = load(&endpoints, 3_000, 16).await;
    let slow = by.get("a").copied().unwrap_or_default();
    let p99 = took[took.len() * 99 / 100];
    assert_eq!(failed, 0);
    assert!(slow * 50 < 3_000, "{slow} of 3000 went to the slow one: {by:?}");
    assert!(p99 < 10 * MS, "p99 {p99:?}");
}

#[tokio::test(start_paused = true)]
async fn t4_an_instance_that_is_dead_gets_no_call_and_one_that_dies_fails_none() {
    let world = World::new(&["a", "b", "c"]);
    let hosts = ["a", "b"].map(|name| world.start(name, Host::default()));
    let endpoints = world.endpoints();
    let (by, _, failed) = load(&endpoints, 3_000, 16).await;
    assert_eq!((failed, by.len()), (0, 2), "{by:?}");
    assert_eq!(state(&endpoints, "c").as_deref(), Some("connecting"));
    // What was under way there is asked again elsewhere; the rest never notices.
    let (other, dies) = (Arc::clone(&endpoints), Arc::clone(&hosts[1]));
    let under_load = async move { load(&other, 3_000, 16).await };
    let killed = async {
        tokio::time::sleep(20 * MS).await;
        assert!(dies.now.load(Ordering::SeqCst) > 0, "it is at work");
        dies.kill.cancel();
    };
    let ((_, _, failed), ()) = tokio::join!(under_load, killed);
    assert_eq!(failed, 0);
}

#[tokio::test(start_paused = true)]
async fn t7_a_storm_of_goaways_fails_no_call() {
    let world = World::new(&["a", "b", "c"]);
    let hosts = [("a", 7), ("b", 11), ("c", 13)]
        .map(|(name, age)| world.start(name, Host { age_ms: Some(age), ..Host::default() }));
    let endpoints = world.endpoints();
    let mut failed = 0;
    for _ in 0..400 {
        let calls =
            (0..8).map(|_| async { call(&endpoints, &mut Tried::default()).await.is_err() });
        let calls = futures_util::future::join_all(calls).await;
        failed += calls.into_iter().filter(|failed| *failed).count();
    }
    let connections: usize = hosts.iter().map(|host| host.connections.load(Ordering::SeqCst)).sum();
    assert!(connections > 60, "{connections} connections are no storm");
    assert_eq!(failed, 0);
}

#[tokio::test(start_paused = true)]
async fn t7_the_only_instance_may_hang_up_as_often_as_it_likes() {
    let world = World::new(&["a"]);
    let host = world.start("a", Host { age_ms: Some(5), ..Host::default() });
    let endpoints = world.endpoints();
    for _ in 0..500 {
        call(&endpoints, &mut Tried::default()).await.expect("it is sent again");
    }
    assert!(host.connections.load(Ordering::SeqCst) > 50);
}

#[tokio::test(start_paused = true)]
async fn who_hangs_up_after_every_call_is_not_dialled_as_often_and_no_call_fails_for_it() {
    let world = World::new(&["a"]);
    let host = world.start("a", Host { age_ms: Some(1), ..Host::default() });
    let endpoints = world.endpoints();
    let (began, mut calls) = (clock::instant(), 0);
    while began.elapsed() < 60 * SECOND {
        call(&endpoints, &mut Tried::default()).await.expect("it is sent again");
        calls += 1;
    }
    let connections = host.connections.load(Ordering::SeqCst);
    // 20 at first, two a second, and beyond that about 50 ms between two.
    assert!(connections < 20 + 60 * 2 + 60 * 22, "{connections} for {calls} calls in a minute");
    assert!(connections > 60 * 15, "{connections}: calls had to wait for them");
}

#[tokio::test(start_paused = true)]
async fn t9_no_more_streams_than_the_peer_admits_and_a_second_connection_when_it_gets_tight() {
    let world = World::new(&["a"]);
    let host = Host { admits: 10, gate: Some(Semaphore::new(0)), ..Host::default() };
    let host = world.start("a", host);
    let endpoints = world.endpoints();
    let mut calls = JoinSet::new();
    let begin = |calls: &mut JoinSet<bool>, count| {
        for _ in 0..count {
            let endpoints = Arc::clone(&endpoints);
            calls.spawn(async move { call(&endpoints, &mut Tried::default()).await.is_ok() });
        }
    };
    let settle = || tokio::time::sleep(100 * MS);
    // The peer's settings are looked at when something is sent.
    begin(&mut calls, 1);
    settle().await;
    begin(&mut calls, 7);
    settle().await;
    assert_eq!(host.connections.load(Ordering::SeqCst), 1, "eight of ten are in use");
    begin(&mut calls, 1);
    settle().await;
    assert_eq!(host.connections.load(Ordering::SeqCst), 2);
    begin(&mut calls, 50);
    settle().await;
    assert_eq!(host.connections.load(Ordering::SeqCst), 2);
    assert!(host.most.load(Ordering::SeqCst) <= 20, "two connections of ten");
    host.gate.as_ref().unwrap().add_permits(1_000);
    while let Some(answered) = calls.join_next().await {
        assert!(answered.unwrap());
    }
    assert!(host.most.load(Ordering::SeqCst) <= 20, "two connections of ten");
    // Nobody needs it any more.
    tokio::time::sleep(30 * SECOND).await;
    assert_eq!(host.open.load(Ordering::SeqCst), 1);
}

#[tokio::test(start_paused = true)]
async fn t11_a_peer_that_stops_reading_is_given_up_within_13_seconds() {
    let settings = connect::Settings::default();
    let (ours, theirs) = tokio::io::duplex(64 << 10);
    let stopped = async {
        // It greets, and is never heard again; the socket stays open.
        let mut server = h2::server::handshake(theirs).await.unwrap();
        let greeted = std::future::poll_fn(|cx| server.poll_accept(cx));
        let _nothing = tokio::time::timeout(MS, greeted).await.is_err();
        server
    };
    let (connected, stopped) = tokio::join!(handshake(ours, &settings), stopped);
    let began = clock::instant();
    let Connected { sender, ends } = connected.unwrap();
    let ended = ends.await.unwrap();
    assert!(matches!(ended, Err(connect::Error::Silent)), "{ended:?}");
    let took = began.elapsed();
    assert!(sender.is_closed());
    assert!(took >= 10 * SECOND && took <= 13 * SECOND, "{took:?}");
    drop(stopped);
}

#[tokio::test(start_paused = true)]
async fn t11_a_peer_that_never_greets_is_given_up_after_a_second() {
    let world = World::new(&["a"]);
    // Accepts, and says nothing.
    let (accept, mut accepted) = mpsc::unbounded_channel();
    world.hosts.lock().unwrap().insert("a".to_owned(), accept);
    let endpoints = world.endpoints();
    let began = clock::instant();
    let answer = call(&endpoints, &mut Tried::default()).await;
    assert!(matches!(answer, Err(SendError::Down)), "{answer:?}");
    assert_eq!(began.elapsed(), SECOND, "no call waits longer for a connection");
    tokio::time::sleep(20 * SECOND).await;
    let mut tries = Vec::new();
    while let Ok(io) = accepted.try_recv() {
        tries.push(io);
    }
    // A second each, and between them up to 50, 100, 200 … ms.
    assert!((5..=20).contains(&tries.len()), "{} tries in 21 s", tries.len());
    assert_eq!(endpoints.view()[0]["last_error"], "no connection after 1s");
    // As soon as somebody answers, calls go there.
    world.start("a", Host::default());
    tokio::time::sleep(6 * SECOND).await;
    call(&endpoints, &mut Tried::default()).await.expect("it is there now");
}

#[tokio::test(start_paused = true)]
async fn a_call_waits_for_the_first_instance_and_takes_it() {
    let world = World::new(&["a"]);
    // However the jitter falls, it is tried again before the call gives up.
    let settings = Settings { backoff: (50 * MS, 100 * MS), ..world.settings() };
    let endpoints = Arc::new(Endpoints::with("orders", world.snapshot.subscribe(), settings));
    let late = async {
        tokio::time::sleep(300 * MS).await;
        world.start("a", Host::default())
    };
    let mut tried = Tried::default();
    let (answer, host) = tokio::join!(call(&endpoints, &mut tried), late);
    answer.expect("it came in time");
    let told = host.told.lock().unwrap().expect("a time");
    assert!(told <= TIME - 300 * MS, "{told:?} are not left after the wait");
}

#[tokio::test(start_paused = true)]
async fn streams_that_begin_together_share_a_connection() {
    let world = World::new(&["a"]);
    let host = world.start("a", Host::default());
    let endpoints = world.endpoints();
    let streams = (0..50).map(|_| async {
        let ends = clock::instant() + TIME;
        endpoints
            .stream(&mut Some(request()), (clock::instant(), ends), &mut Tried::default())
            .await
            .expect("a stream")
    });
    let streams = futures_util::future::join_all(streams).await;
    // One for all other calls, and one for these.
    assert_eq!((streams.len(), host.connections.load(Ordering::SeqCst)), (50, 2));
}

#[tokio::test(start_paused = true)]
async fn the_registry_is_asked_as_soon_as_an_instance_goes_or_cannot_be_reached() {
    let world = World::new(&["a"]);
    let host = world.start("a", Host::default());
    let settings = world.settings();
    let asked = Arc::clone(&settings.hurry);
    let endpoints = Endpoints::with("orders", world.snapshot.subscribe(), settings);
    call(&endpoints, &mut Tried::default()).await.expect("an answer");
    let rings = async || tokio::time::timeout(SECOND, asked.notified()).await.is_ok();
    assert!(!rings().await, "all is well");
    world.hosts.lock().unwrap().clear();
    host.kill.cancel();
    assert!(rings().await, "it went");
    assert!(rings().await, "it cannot be reached");
}

#[tokio::test(start_paused = true)]
async fn an_instance_that_is_removed_takes_no_new_call_and_closes_with_its_last() {
    let world = World::new(&["a", "b"]);
    let leaving = Host { gate: Some(Semaphore::new(0)), ..Host::default() };
    let leaving = world.start("a", leaving);
    let stays = world.start("b", Host::default());
    stays.takes_ms.store(5, Ordering::SeqCst);
    let endpoints = world.endpoints();
    let mut calls = JoinSet::new();
    while leaving.now.load(Ordering::SeqCst) == 0 {
        let endpoints = Arc::clone(&endpoints);
        calls.spawn(async move { call(&endpoints, &mut Tried::default()).await.unwrap().0 });
        tokio::time::sleep(MS).await;
    }
    let before = leaving.calls();
    world.publish(&["b"]);
    tokio::time::sleep(MS).await;
    assert_eq!(state(&endpoints, "a").as_deref(), Some("draining"));
    let (by, _, failed) = load(&endpoints, 100, 4).await;
    assert_eq!((by.get("b"), failed), (Some(&100), 0));
    assert_eq!(leaving.calls(), before);
    assert_eq!(leaving.open.load(Ordering::SeqCst), 1, "its call is not over");
    leaving.gate.as_ref().unwrap().add_permits(100);
    let answered = calls.join_all().await;
    assert!(answered.contains(&"a".to_owned()), "the call that was there is answered");
    tokio::time::sleep(10 * MS).await;
    assert_eq!(leaving.open.load(Ordering::SeqCst), 0, "closed with the last call");
    assert_eq!(state(&endpoints, "a"), None);
}

#[tokio::test(start_paused = true)]
async fn instances_come_go_move_and_change_weight_while_calls_go_on() {
    let world = World::new(&["a"]);
    for name in ["a", "b", "c"] {
        world.start(name, Host::default());
    }
    let endpoints = world.endpoints();
    for names in [&["a", "b"][..], &["b", "c"], &["c"], &["c", "a", "b"], &["a"]] {
        world.publish(names);
        tokio::time::sleep(5 * MS).await;
        let (by, _, failed) = load(&endpoints, 200, 8).await;
        assert_eq!(failed, 0);
        assert!(by.keys().all(|id| names.contains(&id.as_str())), "{by:?}, not {names:?}");
    }
    // The same id elsewhere is another instance.
    let mut moved = instances(&["a"]);
    moved.instances[0].address.host = "b".to_owned();
    moved.instances[0].weight = 7;
    world.snapshot.send_replace(Arc::new(moved));
    tokio::time::sleep(5 * MS).await;
    call(&endpoints, &mut Tried::default()).await.unwrap();
    let view = endpoints.view();
    assert_eq!((&view[0]["address"], &view[0]["weight"]), (&"b:1".into(), &7.into()));
    // Nobody is left: that is no crash, and no hang.
    world.publish(&[]);
    tokio::time::sleep(MS).await;
    assert!(matches!(call(&endpoints, &mut Tried::default()).await, Err(SendError::Down)));
}

#[tokio::test(start_paused = true)]
async fn a_sick_instance_is_taken_out_and_one_probe_brings_it_back() {
    let world = World::new(&["a", "b", "c"]);
    let hosts = ["a", "b", "c"].map(|name| world.start(name, Host::default()));
    let endpoints = world.endpoints();
    tokio::time::sleep(MS).await;
    hosts[0].sick.store(true, Ordering::SeqCst);
    // Without the gate P2C would avoid it as well; let it be as cheap as the others.
    while state(&endpoints, "a").as_deref() != Some("ejected") {
        let before = hosts[0].calls();
        assert!(before <= 20, "it failed often enough");
        load(&endpoints, 50, 32).await;
        tokio::time::sleep(SECOND / 2).await;
    }
    let before = hosts[0].calls();
    load(&endpoints, 300, 8).await;
    assert_eq!(hosts[0].calls(), before, "it is out");
    // Still sick: one call finds out, once in a while.
    tokio::time::sleep(5 * SECOND).await;
    load(&endpoints, 300, 8).await;
    assert_eq!(hosts[0].calls(), before + 1);
    hosts[0].sick.store(false, Ordering::SeqCst);
    tokio::time::sleep(10 * SECOND).await;
    let (by, _, _) = load(&endpoints, 300, 8).await;
    assert_eq!(state(&endpoints, "a").as_deref(), Some("ready"));
    assert!(by["a"] < 30, "it begins with little: {by:?}");
    tokio::time::sleep(10 * SECOND).await;
    let (by, _, _) = load(&endpoints, 300, 8).await;
    assert!(by["a"] > 60, "and has its share after ten seconds: {by:?}");
}

/// What is logged while a test has it.
#[derive(Clone, Default)]
struct Lines(Arc<Mutex<Vec<u8>>>);

impl std::io::Write for Lines {
    fn write(&mut self, line: &[u8]) -> std::io::Result<usize> {
        self.0.lock().unwrap().write(line)
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

#[tokio::test(start_paused = true)]
async fn what_happens_to_an_instance_is_counted_for_its_dependency_and_logged_each_time() {
    let lines = Lines::default();
    let writer = lines.clone();
    let logged = tracing_subscriber::fmt().with_ansi(false).with_writer(move || writer.clone());
    let _logged = tracing::subscriber::set_default(logged.finish());
    let world = World::new(&["a", "b", "c"]);
    let hosts = ["a", "b", "c"].map(|name| world.start(name, Host::default()));
    let settings = world.settings();
    let endpoints = Arc::new(Endpoints::with("talked_of", world.snapshot.subscribe(), settings));
    tokio::time::sleep(MS).await;
    hosts[0].sick.store(true, Ordering::SeqCst);
    while state(&endpoints, "a").as_deref() != Some("ejected") {
        load(&endpoints, 50, 32).await;
        tokio::time::sleep(SECOND / 2).await;
    }
    // It is tried once, and fails.
    tokio::time::sleep(6 * SECOND).await;
    load(&endpoints, 50, 8).await;
    world.publish(&[]);
    tokio::time::sleep(MS).await;
    assert!(call(&endpoints, &mut Tried::default()).await.is_err());
    let metrics = telemetry::metrics().encode();
    for line in [
        "mesh_ejections_total{dependency=\"talked_of\"} 2",
        "mesh_no_endpoints_total{dependency=\"talked_of\"} 1",
    ] {
        assert!(metrics.contains(line), "{line}");
    }
    let lines = String::from_utf8(lines.0.lock().unwrap().clone()).unwrap();
    for line in ["a is taken out: it fails", "a stays out: it failed when it was tried"] {
        assert_eq!(lines.matches(line).count(), 1, "{line} in {lines}");
    }
}

#[tokio::test(start_paused = true)]
async fn the_next_attempt_goes_elsewhere_if_it_can() {
    // More than are kept in place, and as many as an operator may let a call ask.
    let names = ["a", "b", "c", "d", "e", "f", "g", "h", "i", "j", "k"];
    let world = World::new(&names);
    for name in names {
        world.start(name, Host::default());
    }
    let endpoints = world.endpoints();
    tokio::time::sleep(MS).await;
    for _ in 0..50 {
        let mut tried = Tried::default();
        let mut asked = Vec::new();
        for _ in names {
            asked.push(call(&endpoints, &mut tried).await.unwrap().0);
        }
        asked.sort_unstable();
        assert_eq!(asked, names);
        call(&endpoints, &mut tried).await.expect("all were asked: then any will do");
    }
}

#[tokio::test(start_paused = true)]
async fn what_was_dropped_gives_its_place_back_and_can_be_judged_late() {
    let world = World::new(&["a"]);
    let host = world.start("a", Host { gate: Some(Semaphore::new(0)), ..Host::default() });
    let endpoints = world.endpoints();
    let mut tried = Tried::default();
    let attempt = call(&endpoints, &mut tried);
    assert!(tokio::time::timeout(100 * MS, attempt).await.is_err());
    assert_eq!(host.calls(), 1);
    assert_eq!(endpoints.view()[0]["pending"], 0);
    let usual = endpoints.view()[0]["ewma_ms"].as_f64().unwrap();
    assert_eq!(tried.address().unwrap().host, "a");
    tried.report(EndpointVerdict::Hard, 100 * MS, clock::instant());
    assert!(endpoints.view()[0]["ewma_ms"].as_f64().unwrap() > 10.0 * usual);
    // An attempt that found nobody says nothing of whoever had the one before.
    host.gate.as_ref().unwrap().add_permits(10);
    call(&endpoints, &mut tried).await.unwrap();
    world.publish(&[]);
    tokio::time::sleep(MS).await;
    assert!(matches!(call(&endpoints, &mut tried).await, Err(SendError::Down)));
    assert!(tried.address().is_none());
}

#[tokio::test(start_paused = true)]
async fn round_robin_asks_each_as_often_as_its_weight_says() {
    let world = World::new(&["a", "b"]);
    for name in ["a", "b"] {
        world.start(name, Host::default());
    }
    world.snapshot.send_modify(|snapshot| {
        let mut weighted = instances(&["a", "b"]);
        weighted.instances[0].weight = 3;
        *snapshot = Arc::new(weighted);
    });
    let settings = Settings { balance: "round_robin".parse().unwrap(), ..world.settings() };
    let endpoints = Arc::new(Endpoints::with("orders", world.snapshot.subscribe(), settings));
    tokio::time::sleep(MS).await;
    let (by, _, failed) = load(&endpoints, 400, 1).await;
    assert_eq!((by["a"], by["b"], failed), (300, 100, 0));
}

#[tokio::test(start_paused = true)]
async fn dropping_all_closes_all() {
    let world = World::new(&["a"]);
    let host = world.start("a", Host::default());
    let endpoints = world.endpoints();
    call(&endpoints, &mut Tried::default()).await.unwrap();
    drop(endpoints);
    tokio::time::sleep(MS).await;
    assert_eq!(host.open.load(Ordering::SeqCst), 0);
}

#[tokio::test(start_paused = true)]
async fn an_instance_that_died_with_calls_has_its_share_again_soon_after_it_is_back() {
    let world = World::new(&["a"]);
    let first = world.start("a", Host { gate: Some(Semaphore::new(0)), ..Host::default() });
    world.start("b", Host::default());
    let endpoints = world.endpoints();
    // Fewer than it takes to be taken out: then a probe would bring it back.
    let mut calls = JoinSet::new();
    for _ in 0..4 {
        let endpoints = Arc::clone(&endpoints);
        calls.spawn(async move { call(&endpoints, &mut Tried::default()).await.is_err() });
    }
    tokio::time::sleep(100 * MS).await;
    world.publish(&["a", "b"]);
    first.kill.cancel();
    assert_eq!(calls.join_all().await, [true; 4]);
    tokio::time::sleep(500 * MS).await;
    // By what the other one is known to take, and not by what is guessed of it, it will be judged.
    call(&endpoints, &mut Tried::default()).await.unwrap();
    let second = world.start("a", Host::default());
    let (mut ticks, ends) = (tokio::time::interval(20 * MS), clock::instant() + 15 * SECOND);
    while clock::instant() < ends {
        ticks.tick().await;
        call(&endpoints, &mut Tried::default()).await.unwrap();
    }
    assert!(second.calls() > 50, "{} of 750 calls", second.calls());
}
