use super::*;

fn open(url: &str) -> Result<Registry, Malformed> {
    Registry::open(url, &Options::default())
}

fn known(registry: &Registry, name: &str) -> Vec<String> {
    registry.watch(name).borrow().addresses().iter().map(ToString::to_string).collect()
}

#[test]
fn static_names_addresses_and_replicas() {
    let registry = open("static://?users=127.0.0.1:50051&catalog=[::1]:50052,localhost:50152")
        .expect("a registry");
    assert_eq!(known(&registry, "users"), ["127.0.0.1:50051"]);
    assert_eq!(known(&registry, "catalog"), ["[::1]:50052", "localhost:50152"]);
    assert!(known(&registry, "orders").is_empty());
    let snapshot = registry.watch("orders").borrow().clone();
    assert!(snapshot.fetched_at.is_some() && !snapshot.stale, "known to be nobody");
}

#[test]
fn a_malformed_registry_names_the_part_that_is_wrong() {
    for (url, expected) in [
        ("zookeeper://x", Malformed::Scheme("zookeeper://x".to_owned())),
        ("consul:/x", Malformed::Scheme("consul:/x".to_owned())),
        ("static://?users", Malformed::Entry("users".to_owned())),
        ("static://?users=127.0.0.1", Malformed::Address("127.0.0.1".to_owned())),
        ("static://?users=:1", Malformed::Address(":1".to_owned())),
        ("static://?users=a:65536", Malformed::Address("a:65536".to_owned())),
        ("consul://?dc=x", Malformed::Address(String::new())),
    ] {
        assert_eq!(open(url).expect_err(url), expected);
    }
    for (url, words) in [
        ("consul://10.0.0.1:8500", "--allow-plaintext"),
        ("consul://10.0.0.1:8500", "consul+tls://"),
        ("consul+tls://10.0.0.1:8501", "--consul-ca is missing: whom to trust"),
        ("consul://127.0.0.1:8500?token=s3cret", "--consul-token-file"),
        ("consul://127.0.0.1:8500?wait=11m", "from 1s to 10m"),
        ("consul://127.0.0.1:8500?zone=a", "dc, ns, wait and check"),
        ("consul://127.0.0.1:8500?check=icmp", "grpc or ttl"),
    ] {
        let error = open(url).expect_err(url).to_string();
        assert!(error.contains(words), "{url}: {error}");
        assert!(!error.contains("s3cret"), "{error}");
    }
}

#[test]
fn an_address_of_ipv6_stands_in_brackets() {
    assert_eq!(Address::of("fd00::1", 80).to_string(), "[fd00::1]:80");
    assert_eq!(Address::of("fd00::1", 80).bare(), "fd00::1");
    assert_eq!(Address::of("[fd00::1]", 80), "[fd00::1]:80".parse().expect("an address"));
    assert_eq!(Address::of("a", 80).bare(), "a");
}

#[tokio::test(start_paused = true)]
async fn a_file_is_read_again_when_it_changes() {
    let file = tempfile::NamedTempFile::new().expect("a file");
    let write = |text: &str| std::fs::write(file.path(), text).expect("written");
    write("# where they are\nusers=127.0.0.1:1\n");
    let registry = open(&format!("static://{}", file.path().display())).expect("a registry");
    let mut users = registry.watch("users");
    let mut next = async || {
        users.changed().await.expect("the registry is there");
        let known = users.borrow_and_update().clone();
        (known.addresses().iter().map(|it| it.port).collect::<Vec<_>>(), known.stale)
    };
    assert_eq!(next().await, (vec![1], false));
    write("users=127.0.0.1:1,127.0.0.1:2\ncatalog=127.0.0.1:3\n");
    assert_eq!(next().await, (vec![1, 2], false));
    // What cannot be read changes nothing, and after a minute that is said.
    write("users:127.0.0.1:1");
    assert_eq!(next().await, (vec![1, 2], true));
    write("users=127.0.0.1:2");
    assert_eq!(next().await, (vec![2], false));
}

#[tokio::test(start_paused = true)]
async fn whoever_looks_for_a_service_once_hears_why_there_is_no_answer() {
    let registry = open("static:///nowhere/at/all").expect("a registry");
    let second = Duration::from_secs(1);
    let failure = registry.find("users", second).await.expect_err("no file");
    assert!(matches!(&failure, Failure::Unreadable(why) if why.contains("/nowhere")), "{failure}");
    let registry = open("static://?users=127.0.0.1:1").expect("a registry");
    assert_eq!(registry.find("users", second).await.expect("known").instances.len(), 1);
}
