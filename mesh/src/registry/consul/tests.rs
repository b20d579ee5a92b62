//! Our answers to what the crate that we do not use gets wrong, and the rules of the API, against
//! a Consul in memory and a clock that stands still.

use std::{collections::BTreeMap, collections::BTreeSet, io::Write as _};

use tokio::time::Instant;

use super::{
    super::{Health, Lease, Registry, Snapshot},
    follow::{Bucket, next_index},
    *,
};
use crate::{
    clock,
    testing::{Asked, FakeConsul},
};

const SECOND: Duration = Duration::from_secs(1);
const MINUTE: Duration = Duration::from_secs(60);

impl Exchange for FakeConsul {
    fn exchange(
        &self,
        request: Request<Bytes>,
        timeout: Duration,
    ) -> BoxFuture<'_, Result<Response<Bytes>, client::Failure>> {
        Box::pin(async move {
            let answer = tokio::time::timeout(timeout, self.answer(request)).await;
            let late = |_| client::Failure::Unsure("too late".to_owned());
            answer.map_err(late)?.ok_or(client::Failure::NotSent("nobody is there".to_owned()))
        })
    }
}

fn registry(fake: &FakeConsul, parameters: &str, options: &Options) -> Registry {
    let consul = Consul::over(Box::new(fake.clone()), parameters, options).expect("settings");
    Registry::of(Arc::new(consul))
}

fn open(fake: &FakeConsul) -> Registry {
    registry(fake, "", &Options::default())
}

fn orders(ready: watch::Receiver<bool>) -> Registration {
    Registration {
        service: "orders".to_owned(),
        id: "orders-1".to_owned(),
        address: "127.0.0.1:50054".parse().expect("an address"),
        health: Health::Grpc("shop.Orders".to_owned()),
        ready,
        weight: 3,
        meta: BTreeMap::from([("version".to_owned(), "1".to_owned())]),
    }
}

fn register(registry: &Registry) -> Lease {
    registry.register(orders(watch::channel(true).1))
}

fn ports(snapshot: &Snapshot) -> BTreeSet<u16> {
    snapshot.addresses().iter().map(|address| address.port).collect()
}

/// Waits until exactly these ports are known; how long that took.
async fn until(watched: &mut watch::Receiver<Arc<Snapshot>>, expected: &[u16]) -> Duration {
    let begun = clock::instant();
    let expected = expected.iter().copied().collect();
    let known = watched.wait_for(|it| it.fetched_at.is_some() && ports(it) == expected);
    let known = tokio::time::timeout(10 * MINUTE, known).await;
    assert!(known.is_ok(), "{expected:?} never came");
    clock::instant() - begun
}

fn questions(asked: &[Asked]) -> usize {
    asked.iter().filter(|it| it.method == Method::GET).count()
}

fn registrations(asked: &[Asked]) -> usize {
    asked.iter().filter(|it| it.path == "/v1/agent/service/register").count()
}

async fn registered(lease: &Lease) {
    while !lease.ready() {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
}

// === (a) what is refused is an error ===

#[tokio::test(start_paused = true)]
async fn a_refused_registration_is_said_at_once_and_names_what_to_do() {
    let fake = FakeConsul::new();
    fake.requires("right");
    for (token, words) in [
        (None, "403 Forbidden: Permission denied (without a token: set CONSUL_HTTP_TOKEN"),
        (Some("wrong"), "403 Forbidden: ACL not found (with the token in CONSUL_HTTP_TOKEN)"),
    ] {
        let options = Options { consul_token: token.map(str::to_owned), ..Options::default() };
        let registry = registry(&fake, "", &options);
        let lease = register(&registry);
        let refused = tokio::time::timeout(SECOND, lease.standing().refused()).await;
        let refused = refused.expect("said at once").to_string();
        assert!(refused.contains(words), "{refused}");
        assert!(!refused.contains("wrong"), "the token stands in the error: {refused}");
        assert!(lease.standing().missing().is_some_and(|it| it.contains("403")));
        let found = registry.find("orders", MINUTE).await;
        assert!(matches!(found, Err(Failure::Denied(_))), "{found:?}");
    }
    assert!(fake.ids().is_empty());
}

#[tokio::test(start_paused = true)]
async fn a_token_that_was_replaced_in_its_file_is_read_again() {
    let fake = FakeConsul::new();
    fake.requires("new");
    let mut file = tempfile::NamedTempFile::new().expect("a file");
    write!(file, "old").expect("written");
    let options = Options { consul_token_file: Some(file.path().to_owned()), ..Options::default() };
    let registry = registry(&fake, "", &options);
    std::fs::write(file.path(), "new\n").expect("written");
    let lease = register(&registry);
    tokio::time::timeout(MINUTE, registered(&lease)).await.expect("registered");
}

// === (b) token, datacentre and wait stand where Consul looks ===

#[tokio::test(start_paused = true)]
async fn token_datacentre_namespace_and_wait_are_sent_as_consul_reads_them() {
    let fake = FakeConsul::new();
    fake.requires("s3cret");
    fake.put("a b/c", "1", 1);
    let options = Options { consul_token: Some("s3cret".to_owned()), ..Options::default() };
    assert!(!format!("{options:?}").contains("s3cret"));
    let registry = registry(&fake, "dc=west&ns=team&wait=20s", &options);
    let lease = register(&registry);
    registered(&lease).await;
    let found = registry.find("a b/c", SECOND).await.expect("found");
    assert_eq!(ports(&found), [1].into());
    let asked = fake.asked();
    assert!(asked.iter().all(|it| it.token.as_deref() == Some("s3cret")));
    let question = asked.iter().find(|it| it.method == Method::GET).expect("a question");
    for (key, value) in
        [("dc", "west"), ("ns", "team"), ("wait", "20s"), ("passing", "true"), ("stale", "")]
    {
        assert_eq!(question.query.get(key).map(String::as_str), Some(value), "{key}");
    }
    let told = asked.iter().find(|it| it.method == Method::PUT).expect("a registration");
    assert_eq!(told.query["ns"], "team");
    assert_eq!(told.query["replace-existing-checks"], "true");
}

#[tokio::test(start_paused = true)]
async fn an_instance_is_registered_with_a_check_of_its_grpc_health() {
    let fake = FakeConsul::new();
    let registry = open(&fake);
    let lease = register(&registry);
    registered(&lease).await;
    let expected = serde_json::json!({
        "ID": "orders-1", "Name": "orders", "Address": "127.0.0.1", "Port": 50054,
        "Meta": {"version": "1"}, "Weights": {"Passing": 3, "Warning": 1},
        "Check": {
            "GRPC": "127.0.0.1:50054/shop.Orders", "GRPCUseTLS": false, "Interval": "5s",
            "Timeout": "1s", "Status": "critical", "DeregisterCriticalServiceAfter": "1m",
        },
    });
    assert_eq!(fake.registered("orders-1"), Some(expected));
    // Nobody is sent there before the check has passed, and then with its weight.
    let mut watched = registry.watch("orders");
    until(&mut watched, &[]).await;
    fake.pass("orders-1", true);
    until(&mut watched, &[50054]).await;
    assert_eq!(watched.borrow().instances[0].weight, 3);
    assert_eq!(watched.borrow().instances[0].meta["version"], "1");
}

#[tokio::test(start_paused = true)]
async fn an_address_that_nobody_can_call_is_not_registered() {
    let registry = open(&FakeConsul::new());
    let address = "0.0.0.0:50054".parse().expect("an address");
    let lease = registry.register(Registration { address, ..orders(watch::channel(true).1) });
    let refused = tokio::time::timeout(SECOND, lease.standing().refused()).await;
    assert!(refused.expect("at once").to_string().contains("--advertise"));
}

// === (c) an unchanged service is asked for once a wait ===

#[tokio::test(start_paused = true)]
async fn an_unchanged_service_is_asked_for_once_a_wait() {
    let fake = FakeConsul::new();
    fake.put("orders", "1", 1);
    let registry = open(&fake);
    let mut watched = registry.watch("orders");
    let second_watched = registry.watch("orders");
    until(&mut watched, &[1]).await;
    watched.mark_unchanged();
    tokio::time::sleep(10 * MINUTE).await;
    let count = questions(&fake.asked());
    assert!((10..=12).contains(&count), "{count} questions in 10 minutes");
    assert!(!watched.has_changed().expect("the registry is there"), "nothing was new");
    assert!(clock::instant() - watched.borrow().fetched_at.expect("known") <= MINUTE);
    assert!(!watched.borrow().stale);
    assert_eq!(ports(&second_watched.borrow()), [1].into());
}

// === (d) what is there is seen ===

#[tokio::test(start_paused = true)]
async fn every_instance_is_seen_as_soon_as_it_passes_and_until_it_does_not() {
    let fake = FakeConsul::new();
    fake.put("orders", "1", 1);
    fake.put("orders", "2", 2);
    fake.put("payments", "3", 3);
    let registry = open(&fake);
    let mut watched = registry.watch("orders");
    until(&mut watched, &[1, 2]).await;
    fake.put("orders", "4", 4);
    assert!(until(&mut watched, &[1, 2, 4]).await < SECOND);
    fake.pass("1", false);
    assert!(until(&mut watched, &[2, 4]).await < SECOND);
    fake.put("orders", "2", 5);
    assert!(until(&mut watched, &[4, 5]).await < SECOND);
}

// === (e) scaled to zero ===

#[tokio::test(start_paused = true)]
async fn a_service_that_is_gone_is_empty_after_a_grace() {
    let fake = FakeConsul::new();
    fake.put("orders", "1", 1);
    let registry = open(&fake);
    let mut watched = registry.watch("orders");
    until(&mut watched, &[1]).await;
    fake.remove("1");
    tokio::time::sleep(9 * SECOND).await;
    assert_eq!(ports(&watched.borrow()), [1].into(), "Consul may have lost its memory");
    assert!(until(&mut watched, &[]).await <= 2 * SECOND);
    // One that comes back in between ends the grace.
    fake.put("orders", "1", 1);
    until(&mut watched, &[1]).await;
    fake.remove("1");
    tokio::time::sleep(5 * SECOND).await;
    fake.put("orders", "2", 2);
    assert!(until(&mut watched, &[2]).await < SECOND);
    tokio::time::sleep(MINUTE).await;
    assert_eq!(ports(&watched.borrow()), [2].into());
}

// === (f) a question without an answer ===

#[tokio::test(start_paused = true)]
async fn while_consul_is_silent_what_was_known_stays_and_its_age_is_said() {
    for away in [10 * MINUTE, 60 * MINUTE] {
        let fake = FakeConsul::new();
        fake.put("stale-orders", "1", 1);
        fake.put("stale-payments", "2", 2);
        let registry = open(&fake);
        let mut watched = registry.watch("stale-orders");
        let mut other = registry.watch("stale-payments");
        until(&mut watched, &[1]).await;
        until(&mut other, &[2]).await;
        assert!(stale("stale-orders") < 1.0);
        fake.silent(true);
        drop(fake.asked());
        tokio::time::sleep(30 * SECOND).await;
        assert!(!watched.borrow().stale, "half a minute is not long");
        tokio::time::sleep(away - 30 * SECOND).await;
        for (it, port) in [(&watched, 1), (&other, 2)] {
            assert_eq!(ports(&it.borrow()), [port].into(), "the set was thrown away");
            assert!(it.borrow().stale);
        }
        let said = stale("stale-orders");
        assert!((said - away.as_secs_f64()).abs() < 60.0, "{said}");
        // Full jitter below 30 s: some 15 s between two questions, for each of two services.
        let count = u64::try_from(questions(&fake.asked())).expect("a count");
        assert!(count > away.as_secs() / 30 && count < away.as_secs() / 4, "{count} questions");
        fake.silent(false);
        fake.put("stale-orders", "3", 3);
        assert!(until(&mut watched, &[1, 3]).await <= 30 * SECOND);
        assert!(!watched.borrow().stale);
        assert!(stale("stale-orders") < 1.0);
    }
}

fn stale(service: &str) -> f64 {
    crate::registry::stale_seconds().get(service).copied().unwrap_or_default()
}

#[tokio::test(start_paused = true)]
async fn an_agent_that_knows_nobody_because_it_has_no_leader_is_not_believed() {
    let fake = FakeConsul::new();
    fake.put("orders", "1", 1);
    let registry = open(&fake);
    let mut watched = registry.watch("orders");
    until(&mut watched, &[1]).await;
    fake.leaderless(true);
    fake.restart();
    tokio::time::sleep(10 * MINUTE).await;
    assert_eq!(ports(&watched.borrow()), [1].into());
    fake.put("orders", "2", 2);
    fake.leaderless(false);
    until(&mut watched, &[2]).await;
}

// === (g), (i) nothing is global ===

#[tokio::test(start_paused = true)]
async fn two_registries_of_a_process_do_not_know_each_other() {
    let (east, west) = (FakeConsul::new(), FakeConsul::new());
    east.put("orders", "1", 1);
    west.put("orders", "2", 2);
    let (east, west) = (open(&east), open(&west));
    let (mut in_east, mut in_west) = (east.watch("orders"), west.watch("orders"));
    until(&mut in_east, &[1]).await;
    until(&mut in_west, &[2]).await;
    // The questions end with the registry.
    drop(east);
    assert!(in_east.changed().await.is_err());
    assert_eq!(ports(&in_west.borrow()), [2].into());
}

// === (h) an answer that is read for what is needed ===

#[test]
fn an_instance_that_cannot_be_read_hides_no_other() {
    let body = br#"[
        {"Node": {"Node": "a", "Address": "10.0.0.1"},
         "Service": {"ID": "1", "Address": "", "Port": 1, "Meta": null},
         "Checks": [{"Definition": {"Interval": "5s", "Timeout": 1000000000}}]},
        {"Node": {"Node": "b", "Address": "10.0.0.2"},
         "Service": {"ID": "1", "Address": "fd00::1", "Port": 2, "Weights": {"Passing": 0, "Warning": 1}}},
        {"Node": {"Node": "c", "Address": "10.0.0.3"}, "Service": {"ID": "3", "Port": "three"}},
        {"Node": {}, "Service": {"ID": "4", "Port": 4}}
    ]"#;
    let known = answer::instances(body).expect("an answer");
    let known: Vec<_> =
        known.iter().map(|it| (it.id.as_str(), it.address.to_string(), it.weight)).collect();
    let expected = [("1", "10.0.0.1:1".to_owned(), 1), ("1@b", "[fd00::1]:2".to_owned(), 1)];
    assert_eq!(known, expected);
    assert!(matches!(answer::instances(b"<html>"), Err(Failure::Unreadable(_))));
    let nobody = answer::instances(br#"[{"Node": {}, "Service": {"ID": "4", "Port": 4}}]"#);
    assert!(matches!(nobody, Err(Failure::Unreadable(_))), "not the same as nobody at all");
    assert_eq!(answer::instances(b"[]"), Ok(Vec::new()));
}

// === the index, and how often is asked ===

#[test]
fn the_index_is_consuls_own_and_an_older_one_is_forgotten() {
    let said = |index: Option<&str>| {
        let mut headers = http::HeaderMap::new();
        if let Some(index) = index {
            headers.insert("x-consul-index", index.parse().expect("a value"));
        }
        headers
    };
    for (asked, index, expected) in [
        (0, Some("7"), 7),
        (7, Some("7"), 7),
        (7, Some("9"), 9),
        // Started anew, or restored from a backup.
        (7, Some("6"), 0),
        // 0 would be answered at once, for ever.
        (0, Some("0"), 1),
        (1, Some("0"), 1),
        (7, Some("0"), 0),
        (0, None, 1),
        (0, Some("x"), 1),
    ] {
        assert_eq!(next_index(asked, &said(index)), expected, "{asked} {index:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn an_index_that_goes_back_loses_no_change() {
    let fake = FakeConsul::new();
    fake.put("orders", "1", 1);
    let registry = open(&fake);
    let mut watched = registry.watch("orders");
    until(&mut watched, &[1]).await;
    fake.says_index(Some(3));
    fake.put("orders", "2", 2);
    until(&mut watched, &[1, 2]).await;
    fake.says_index(None);
    fake.put("orders", "3", 3);
    assert!(until(&mut watched, &[1, 2, 3]).await <= 2 * SECOND);
    fake.says_index(Some(0));
    fake.put("orders", "4", 4);
    assert!(until(&mut watched, &[1, 2, 3, 4]).await <= 2 * SECOND);
}

#[test]
fn ten_questions_are_asked_at_once_and_then_one_a_second() {
    let begun = Instant::now();
    let mut bucket = Bucket::full(begun);
    for asked in 0..10 {
        assert_eq!(bucket.wait(begun), Duration::ZERO, "{asked}");
    }
    assert_eq!(bucket.wait(begun), SECOND);
    assert_eq!(bucket.wait(begun), 2 * SECOND);
    // Rest fills it again, up to its size.
    let later = begun + MINUTE;
    for asked in 0..10 {
        assert_eq!(bucket.wait(later), Duration::ZERO, "{asked}");
    }
    assert_eq!(bucket.wait(later), SECOND);
}

#[tokio::test(start_paused = true)]
async fn a_consul_that_answers_at_once_for_ever_is_asked_once_a_second() {
    let fake = FakeConsul::new();
    fake.put("orders", "1", 1);
    // 0 counts as 1, which is always in the past.
    fake.says_index(Some(0));
    let registry = open(&fake);
    let mut watched = registry.watch("orders");
    until(&mut watched, &[1]).await;
    tokio::time::sleep(MINUTE).await;
    let count = questions(&fake.asked());
    assert!((60..=72).contains(&count), "{count} questions in a minute");
}

// === staying registered ===

#[tokio::test(start_paused = true)]
async fn an_agent_that_has_forgotten_us_is_told_again_within_half_a_minute() {
    let fake = FakeConsul::new();
    let registry = open(&fake);
    let lease = register(&registry);
    registered(&lease).await;
    for _ in 0..20 {
        tokio::time::sleep(Duration::from_millis(fastrand::u64(0..40_000))).await;
        fake.restart();
        let begun = clock::instant();
        while fake.ids().is_empty() {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        assert!(clock::instant() - begun <= 30 * SECOND + SECOND / 10);
    }
    // The check keeps its status over what only says the same again.
    fake.pass("orders-1", true);
    drop(fake.asked());
    tokio::time::sleep(5 * MINUTE).await;
    let asked = fake.asked();
    assert!((10..=16).contains(&registrations(&asked)));
    assert!(questions(&asked) <= 32, "{}", questions(&asked));
    assert!(fake.passes("orders-1"));
}

#[tokio::test(start_paused = true)]
async fn an_agent_that_comes_back_is_told_as_soon_as_anybody_notices() {
    let fake = FakeConsul::new();
    let registry = open(&fake);
    let lease = register(&registry);
    registered(&lease).await;
    for away in [SECOND / 100, MINUTE, 60 * MINUTE] {
        tokio::time::sleep(SECOND).await;
        // Away for less than a round: only the question that was cut off tells.
        fake.silent(true);
        tokio::time::sleep(away).await;
        fake.restart();
        fake.silent(false);
        let begun = clock::instant();
        while fake.ids().is_empty() {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        // Well within the time that others go on with what they knew.
        assert!(clock::instant() - begun <= 3 * SECOND, "{:?}", clock::instant() - begun);
    }
}

#[tokio::test(start_paused = true)]
async fn readiness_waits_for_the_first_success_alone() {
    let fake = FakeConsul::new();
    fake.silent(true);
    let registry = open(&fake);
    let lease = register(&registry);
    tokio::time::sleep(5 * MINUTE).await;
    let missing = lease.standing().missing().expect("not registered");
    assert!(missing.contains("nobody is there"), "{missing}");
    fake.silent(false);
    tokio::time::timeout(30 * SECOND, registered(&lease)).await.expect("registered");
    fake.silent(true);
    tokio::time::sleep(5 * MINUTE).await;
    assert!(lease.ready(), "a registry that is away makes nobody unready");
}

#[tokio::test(start_paused = true)]
async fn a_lease_that_is_left_stays_left() {
    let fake = FakeConsul::new();
    let registry = open(&fake);
    let lease = register(&registry);
    registered(&lease).await;
    assert_eq!(fake.ids(), ["orders-1"]);
    lease.leave().await;
    assert!(fake.ids().is_empty());
    tokio::time::sleep(5 * MINUTE).await;
    assert!(fake.ids().is_empty(), "registered again after leaving");
    // Without Consul it takes its time, and no more.
    let lease = register(&registry);
    registered(&lease).await;
    fake.silent(true);
    let begun = clock::instant();
    lease.leave().await;
    assert!(clock::instant() - begun <= 5 * SECOND);
    // One that is dropped is not told of any more, and not taken back.
    fake.silent(false);
    let lease = register(&registry);
    registered(&lease).await;
    drop(lease);
    drop(fake.asked());
    tokio::time::sleep(5 * MINUTE).await;
    assert_eq!(registrations(&fake.asked()), 0);
}

#[tokio::test(start_paused = true)]
async fn where_the_agent_cannot_ask_it_is_told() {
    let fake = FakeConsul::new();
    let registry = registry(&fake, "check=ttl", &Options::default());
    let (ready, heard) = watch::channel(false);
    let lease = registry.register(orders(heard));
    registered(&lease).await;
    let check = fake.registered("orders-1").expect("registered")["Check"].clone();
    assert_eq!(check["TTL"], "15s");
    assert!(check.get("GRPC").is_none());
    tokio::time::sleep(20 * SECOND).await;
    assert!(!fake.passes("orders-1"), "it is not ready");
    ready.send_replace(true);
    tokio::time::sleep(SECOND).await;
    assert!(fake.passes("orders-1"), "said at once");
    drop(fake.asked());
    tokio::time::sleep(MINUTE).await;
    let pulses = fake.asked().iter().filter(|it| it.path.contains("/check/pass/")).count();
    assert!((12..=15).contains(&pulses), "{pulses} pulses in a minute");
    // Forgotten: the next pulse is refused, and it is registered again.
    fake.restart();
    tokio::time::sleep(7 * SECOND).await;
    assert!(fake.passes("orders-1"));
}
