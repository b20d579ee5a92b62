//! Processes that find each other through a registry: with a Consul in memory behind a real
//! socket, and (where there is one) with agents of the real Consul that are killed and denied.
#![expect(clippy::unwrap_used, clippy::expect_used, reason = "tests")]

use std::{
    convert::Infallible,
    net::SocketAddr,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::Arc,
    time::Duration,
};

use bytes::Bytes;
use http_body_util::{BodyExt as _, Full};
use hyper_util::rt::TokioIo;
use mesh::{
    App, Channel, Config, Ctx,
    app::Ended,
    client::http::Http,
    clock,
    config::Bound,
    ctx::Trace,
    registry::{Options, Registry, Snapshot},
    testing::{Authority, FakeConsul},
    tls::{ClientAuth, Files, Flags, Settings},
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
use rustls::{
    pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject as _},
    server::WebPkiClientVerifier,
};
use serde_json::Value;
use tokio::{sync::oneshot, task::JoinHandle};
use tokio_rustls::TlsAcceptor;
use tonic::{Request, Response, Status};

/// A service that answers one call.
struct Answers;

#[tonic::async_trait]
impl TokensService for Answers {
    async fn get_jwks(&self, _: Request<GetJwksRequest>) -> Result<Response<Jwks>, Status> {
        Ok(Response::new(Jwks::default()))
    }

    async fn issue_token(&self, _: Request<IssueTokenRequest>) -> Result<Response<Token>, Status> {
        std::future::pending().await
    }

    async fn refresh_token(
        &self,
        _: Request<RefreshTokenRequest>,
    ) -> Result<Response<Token>, Status> {
        std::future::pending().await
    }

    async fn revoke_token(&self, _: Request<RevokeTokenRequest>) -> Result<Response<()>, Status> {
        std::future::pending().await
    }
}

/// A process `callee`, serving until it is told to stop.
struct Process {
    port: u16,
    admin: u16,
    stop: oneshot::Sender<()>,
    ended: JoinHandle<anyhow::Result<Ended>>,
}

fn config(registry: &str) -> Config {
    Config::for_tests(Bound::free().unwrap(), registry)
}

#[expect(clippy::disallowed_methods, reason = "a process of its own in a test")]
fn process(config: Config) -> Process {
    let admin = config.bound.as_ref().unwrap().admin.local_addr().unwrap().port();
    let app = App::new("callee", DESCRIPTORS, config).unwrap();
    let port = app.address().port();
    let app = app.grpc(TokensServiceServer::new(Answers));
    let (stop, stopped) = oneshot::channel::<()>();
    let ended = tokio::spawn(app.serve(async {
        let _stopped = stopped.await.is_ok();
    }));
    Process { port, admin, stop, ended }
}

impl Process {
    async fn leave(self) {
        self.stop.send(()).unwrap();
        assert_eq!(self.ended.await.unwrap().unwrap(), Ended::Drained);
    }

    /// Why it ended by itself.
    async fn refused(self) -> String {
        let ended = tokio::time::timeout(Duration::from_secs(30), self.ended).await;
        let error = ended.expect("it should have ended").unwrap().expect_err("refused");
        format!("{error:#}")
    }

    fn id(&self) -> String {
        format!("callee-127.0.0.1-{}", self.port)
    }
}

async fn call(channel: &Channel) -> Result<(), Status> {
    let mut client = TokensServiceClient::new(channel.clone());
    let ctx = Ctx::root(Duration::from_secs(5), Trace::new());
    ctx.scope(async { client.get_jwks(GetJwksRequest {}).await.map(|_| ()) }).await
}

/// The status and the JSON of an answer; nothing if there is none.
async fn ask(method: http::Method, url: &str, body: String) -> Option<(u16, Value)> {
    let (base, path) = url.split_at(url.find("/v1/").or_else(|| url.find("/ready"))?);
    let http = Http::new(base);
    let (body, timeout) = (Bytes::from(body), Duration::from_secs(5));
    let (status, body) =
        http.call(method, path, http::HeaderMap::new(), body, timeout).await.ok()?;
    Some((status.as_u16(), serde_json::from_slice(&body).unwrap_or_default()))
}

async fn get(base: &str, path: &str) -> (u16, Value) {
    ask(http::Method::GET, &format!("{base}{path}"), String::new()).await.unwrap()
}

/// Asks again and again until it is so; how long that took.
async fn until(what: &str, longest: Duration, mut met: impl AsyncFnMut() -> bool) -> Duration {
    let begun = clock::instant();
    while !met().await {
        assert!(begun.elapsed() < longest, "{what}: not within {longest:?}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    begun.elapsed()
}

fn ports(snapshot: &Snapshot) -> Vec<u16> {
    let mut ports: Vec<u16> = snapshot.addresses().iter().map(|it| it.port).collect();
    ports.sort_unstable();
    ports
}

/// Serves a Consul in memory on a socket.
async fn served(fake: &FakeConsul) -> String {
    format!("consul://{}", listening(fake, None).await)
}

/// The same over TLS, by a certificate for 127.0.0.1; only who shows one is let in, if `mutual`.
async fn served_over_tls(fake: &FakeConsul, authority: &Authority, mutual: bool) -> String {
    let files = tempfile::tempdir().unwrap();
    authority.issue(files.path(), &["127.0.0.1"]);
    let chain = CertificateDer::from_pem_file(files.path().join("cert.pem")).unwrap();
    let key = PrivateKeyDer::from_pem_file(files.path().join("key.pem")).unwrap();
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = rustls::ServerConfig::builder_with_provider(Arc::clone(&provider));
    let config = config.with_safe_default_protocol_versions().unwrap();
    let mut roots = rustls::RootCertStore::empty();
    roots.add(CertificateDer::from_pem_file(authority.ca()).unwrap()).unwrap();
    let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider);
    let config = if mutual {
        config.with_client_cert_verifier(verifier.build().unwrap())
    } else {
        config.with_no_client_auth()
    };
    let config = config.with_single_cert(vec![chain], key).unwrap();
    format!("consul+tls://{}", listening(fake, Some(Arc::new(config).into())).await)
}

#[expect(clippy::disallowed_methods, reason = "ends with the runtime of the test")]
async fn listening(fake: &FakeConsul, tls: Option<TlsAcceptor>) -> SocketAddr {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let fake = fake.clone();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let (fake, tls) = (fake.clone(), tls.clone());
            let service = hyper::service::service_fn(move |request: http::Request<_>| {
                let fake = fake.clone();
                async move {
                    let (head, body) = request.into_parts();
                    let body: hyper::body::Incoming = body;
                    let body = body.collect().await.unwrap().to_bytes();
                    let answer = fake.answer(http::Request::from_parts(head, body)).await;
                    Ok::<_, Infallible>(answer.expect("it is there").map(Full::new))
                }
            });
            let http = hyper::server::conn::http1::Builder::new();
            match tls {
                None => drop(tokio::spawn(http.serve_connection(TokioIo::new(stream), service))),
                Some(tls) => drop(tokio::spawn(async move {
                    // Who does not trust us hangs up; that is looked at over there.
                    let Ok(stream) = tls.accept(stream).await else { return };
                    let _ended = http.serve_connection(TokioIo::new(stream), service).await.is_ok();
                })),
            }
        }
    });
    address
}

#[tokio::test]
async fn a_process_is_found_once_its_check_passes_and_leaves_before_it_stops_serving() {
    let fake = FakeConsul::new();
    let url = served(&fake).await;
    let callee = process(Config { propagation: None, ..config(&url) });
    let id = callee.id();
    until("registered", Duration::from_secs(5), async || fake.ids() == [id.clone()]).await;
    assert_eq!(
        fake.registered(&id).unwrap()["Check"]["GRPC"],
        format!("127.0.0.1:{}/ordermesh.auth.v1.TokensService", callee.port)
    );
    let admin = format!("http://127.0.0.1:{}", callee.admin);
    until("ready", Duration::from_secs(5), async || get(&admin, "/ready").await.0 == 200).await;

    let caller = App::new("caller", DESCRIPTORS, config(&url)).unwrap();
    let channel = caller.channel("callee");
    call(&channel).await.expect_err("its check has not passed");
    fake.pass(&id, true);
    until("found", Duration::from_secs(5), async || call(&channel).await.is_ok()).await;

    let Process { stop, ended, .. } = callee;
    stop.send(()).unwrap();
    until("deregistered", Duration::from_secs(2), async || fake.ids().is_empty()).await;
    call(&channel).await.expect("it serves on while others learn that it leaves");
    assert_eq!(ended.await.unwrap().unwrap(), Ended::Drained);
}

#[tokio::test]
async fn a_process_that_its_registry_refuses_ends_and_says_why() {
    let fake = FakeConsul::new();
    fake.requires("right");
    let url = served(&fake).await;
    let token = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(token.path(), "wrong").unwrap();
    let path = Some(token.path().to_owned());
    let callee = process(Config { consul_token_file: path, ..config(&url) });
    let error = callee.ended.await.unwrap().expect_err("refused");
    let error = format!("{error:#}");
    assert!(error.starts_with("cannot register: the registry refuses it: 403"), "{error}");
    assert!(error.contains(&token.path().display().to_string()), "{error}");
}

#[tokio::test]
async fn what_is_advertised_is_what_others_are_told() {
    let fake = FakeConsul::new();
    let url = served(&fake).await;
    for (advertise, address, port) in [
        ("10.1.2.3", "10.1.2.3", None),
        ("10.1.2.3:99", "10.1.2.3", Some(99)),
        ("fd00::7", "fd00::7", None),
        ("[fd00::7]:99", "fd00::7", Some(99)),
        ("callee.local", "callee.local", None),
    ] {
        let callee = process(Config {
            advertise: Some(advertise.to_owned()),
            instance_id: Some("pod-7".to_owned()),
            ..config(&url)
        });
        until("registered", Duration::from_secs(5), async || fake.ids() == ["pod-7"]).await;
        let told = fake.registered("pod-7").unwrap();
        assert_eq!(told["Address"], address, "{advertise}");
        assert_eq!(told["Port"], port.unwrap_or(callee.port), "{advertise}");
        callee.leave().await;
        assert!(fake.ids().is_empty());
    }
}

#[tokio::test]
async fn the_age_of_what_is_known_and_the_registration_stand_in_the_metrics() {
    let fake = FakeConsul::new();
    let url = served(&fake).await;
    let registry = Registry::open(&url, &Options::default()).unwrap();
    registry.find("metered", Duration::from_secs(5)).await.unwrap();
    let metrics = mesh::telemetry::metrics().encode();
    assert!(metrics.contains("mesh_registry_stale_seconds{service=\"metered\"} 0"), "{metrics}");
    assert!(metrics.contains("\nmesh_registry_registered "), "{metrics}");
}

/// The files of one who trusts `authority`, and shows a certificate of its own for `names`.
fn showing(authority: &Authority, to: &Path, names: &[&str]) -> Files {
    authority.issue(to, names);
    let mut files = authority.files();
    (files.cert, files.key) = (Some(to.join("cert.pem")), Some(to.join("key.pem")));
    files
}

/// A process that trusts and shows these to Consul.
fn on_files(url: &str, Files { ca, cert, key, .. }: Files) -> Config {
    Config { consul_ca: ca, consul_cert: cert, consul_key: key, ..config(url) }
}

#[tokio::test]
async fn over_tls_a_process_is_registered_and_found() {
    let (fake, authority) = (FakeConsul::new(), Authority::new());
    let url = served_over_tls(&fake, &authority, true).await;
    let files = tempfile::tempdir().unwrap();
    let files = showing(&authority, files.path(), &["anybody"]);
    let callee = process(on_files(&url, files.clone()));
    let id = callee.id();
    until("registered", Duration::from_secs(5), async || fake.ids() == [id.clone()]).await;
    fake.pass(&id, true);
    let options = Options { tls: Some(files), ..Options::default() };
    let registry = Registry::open(&url, &options).unwrap();
    let found = registry.find("callee", Duration::from_secs(5)).await.unwrap();
    assert_eq!(ports(&found), [callee.port]);
    callee.leave().await;
    assert!(fake.ids().is_empty());
}

#[tokio::test]
async fn what_is_for_everybody_is_for_consul_unless_something_else_is_named() {
    let (fake, authority) = (FakeConsul::new(), Authority::new());
    let url = served_over_tls(&fake, &authority, false).await;
    let callee = process(Config { tls: authority.trust(), ..config(&url) });
    until("registered", Duration::from_secs(5), async || !fake.ids().is_empty()).await;
    callee.leave().await;
    let other = Authority::new();
    let named = Config { tls: other.trust(), ..on_files(&url, authority.files()) };
    let callee = process(named);
    until("registered", Duration::from_secs(5), async || !fake.ids().is_empty()).await;
    callee.leave().await;
}

#[tokio::test]
async fn a_process_that_does_not_trust_its_registry_ends_and_says_what_to_do() {
    let (fake, authority) = (FakeConsul::new(), Authority::new());
    let url = served_over_tls(&fake, &authority, false).await;
    let plain = served(&fake).await.replace("consul://", "consul+tls://");
    let other_name = url.replace("127.0.0.1", "localhost");
    for (url, ca, words) in [
        (&url, Authority::new(), "--consul-ca names the file with who has"),
        (&plain, Authority::new(), "it does not speak TLS"),
        (&other_name, authority, "not valid for name \"localhost\""),
    ] {
        let error = process(on_files(url, ca.files())).refused().await;
        assert!(error.starts_with("cannot register: there is no trust"), "{error}");
        assert!(error.contains(words), "{error}");
    }
    assert!(fake.ids().is_empty());
}

#[tokio::test]
async fn files_for_consul_that_cannot_be_used_are_an_error_at_start() {
    let authority = Authority::new();
    let none = || Files::none(Flags::Consul);
    let (mut nowhere, mut lone) = (none(), authority.files());
    nowhere.ca = Some("/nowhere/ca.pem".into());
    lone.key = Some(authority.ca());
    for (files, words) in [
        (none(), "--consul-ca is missing"),
        (nowhere, "/nowhere/ca.pem"),
        (lone, "--consul-cert and --consul-key go together"),
    ] {
        let config = on_files("consul+tls://127.0.0.1:8501", files);
        let error = App::new("callee", DESCRIPTORS, config).expect_err(words);
        assert!(format!("{error:#}").contains(words), "{error:#}");
    }
}

#[tokio::test]
async fn consul_is_told_how_to_ask_one_who_serves_tls() {
    let (fake, authority) = (FakeConsul::new(), Authority::new());
    let url = served(&fake).await;
    for (client_auth, parameters, grpc) in [
        (ClientAuth::None, "", true),
        (ClientAuth::Optional, "", true),
        // It would have to show a certificate.
        (ClientAuth::Required, "", false),
        (ClientAuth::Required, "?check=grpc", true),
        (ClientAuth::None, "?check=ttl", false),
    ] {
        let tls = Settings { client_auth, ..authority.settings(&["127.0.0.1"]) };
        let callee = process(Config { tls, ..config(&format!("{url}{parameters}")) });
        let id = callee.id();
        until("registered", Duration::from_secs(5), async || fake.ids() == [id.clone()]).await;
        let check = fake.registered(&id).unwrap()["Check"].clone();
        assert_eq!(check["GRPCUseTLS"] == true, grpc, "{client_auth:?} {parameters} {check}");
        assert_eq!(check["TTL"] == "15s", !grpc, "{client_auth:?} {parameters} {check}");
        callee.leave().await;
    }
}

/// An agent of the real Consul, killed at the end of the test.
struct Agent {
    child: Child,
    ports: Vec<u16>,
    rules: String,
    /// Whom it trusts.
    ca: Option<PathBuf>,
}

/// Lets in only whoever has a token; this one may do everything.
const RULES: &str = r#"acl { enabled = true  default_policy = "deny"  tokens { master = "7f3b6d0e-5c1a-4c55-9c39-9f1d9c3f0a11" } }"#;
const MASTER: &str = "7f3b6d0e-5c1a-4c55-9c39-9f1d9c3f0a11";

impl Agent {
    async fn start(rules: &str) -> Self {
        Self::trusting(None, rules).await
    }

    async fn trusting(ca: Option<&Path>, rules: &str) -> Self {
        let free = || std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let ports = || {
            let sockets: Vec<_> = (0..6).map(|_| free()).collect();
            sockets.iter().map(|it| it.local_addr().unwrap().port()).collect()
        };
        for _ in 0..4 {
            if let Some(agent) = Self::start_on(ports(), ca, rules).await {
                return agent;
            }
            // Somebody was faster at one of the ports.
        }
        let agent = Self::start_on(ports(), ca, rules).await;
        agent.expect("Consul ends at once, whatever ports it is given")
    }

    /// `None` if it ended at once.
    async fn start_on(ports: Vec<u16>, ca: Option<&Path>, rules: &str) -> Option<Self> {
        let program = std::env::var("ORDERMESH_TEST_CONSUL");
        let program = program.expect("ORDERMESH_TEST_CONSUL names Consul's program");
        let version = Command::new(&program).arg("version").output().unwrap();
        let later = !String::from_utf8_lossy(&version.stdout).contains("v1.8.");
        let mut command = Command::new(program);
        command.args(["agent", "-dev", "-client", "127.0.0.1", "-bind", "127.0.0.1"]);
        command.args(["-node", "n1", "-grpc-port", "-1", "-log-level", "warn"]);
        if later {
            command.args(["-grpc-tls-port", "-1"]);
        }
        let flags = ["-http-port", "-dns-port", "-server-port", "-serf-lan-port", "-serf-wan-port"];
        for (flag, port) in flags.into_iter().zip(&ports) {
            command.arg(flag).arg(port.to_string());
        }
        if let Some(ca) = ca {
            // Its checks trust whom the system trusts.
            command.args(["-https-port", &ports[5].to_string()]).env("SSL_CERT_FILE", ca);
        }
        if !rules.is_empty() {
            command.args(["-hcl", rules]);
        }
        let child = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        let mut agent = Self { child, ports, rules: rules.to_owned(), ca: ca.map(Path::to_owned) };
        let api = agent.api();
        let mut ended = false;
        until("Consul's leader", Duration::from_secs(20), async || {
            ended = agent.child.try_wait().unwrap().is_some();
            let url = format!("{api}/v1/status/leader");
            let answer = ask(http::Method::GET, &url, String::new()).await;
            ended || answer.is_some_and(|(_, it)| it.as_str().is_some_and(|it| !it.is_empty()))
        })
        .await;
        (!ended).then_some(agent)
    }

    /// One that serves HTTPS, too, by a certificate of `authority` for 127.0.0.1. Only who shows
    /// one is let in, if `mutual`.
    async fn start_over_tls(authority: &Authority, files: &Path, mutual: bool) -> (Self, String) {
        authority.issue(files, &["127.0.0.1"]);
        let shown = |name: &str| files.join(name).display().to_string();
        let (ca, cert, key) = (authority.ca(), shown("cert.pem"), shown("key.pem"));
        let rules = format!(
            "ca_file = \"{}\"  cert_file = \"{cert}\"  key_file = \"{key}\"  \
             verify_incoming_https = {mutual}",
            ca.display(),
        );
        let agent = Self::trusting(Some(&ca), &rules).await;
        let url = format!("consul+tls://127.0.0.1:{}", agent.ports[5]);
        (agent, url)
    }

    fn kill(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    /// The same address, with nothing remembered.
    async fn again(mut self) -> Self {
        self.kill();
        Self::start_on(self.ports.clone(), self.ca.as_deref(), &self.rules)
            .await
            .expect("its ports are free")
    }

    fn api(&self) -> String {
        format!("http://127.0.0.1:{}", self.ports[0])
    }

    fn url(&self) -> String {
        format!("consul://127.0.0.1:{}", self.ports[0])
    }

    async fn services(&self) -> Vec<String> {
        let (_, services) = get(&self.api(), "/v1/agent/services").await;
        services.as_object().unwrap().keys().cloned().collect()
    }

    async fn passing(&self, service: &str) -> usize {
        let path = format!("/v1/health/service/{service}?passing=true");
        get(&self.api(), &path).await.1.as_array().unwrap().len()
    }
}

impl Drop for Agent {
    fn drop(&mut self) {
        // It may have been killed before.
        let _killed = self.child.kill().is_ok() && self.child.wait().is_ok();
    }
}

mod on_consul {
    use super::*;

    const CHECKED: Duration = Duration::from_secs(15);

    #[tokio::test]
    #[ignore = "needs consul"]
    async fn registered_checked_found_called_and_deregistered() {
        let agent = Agent::start("").await;
        let callee = process(config(&agent.url()));
        let second = process(config(&agent.url()));
        let caller = App::new("caller", DESCRIPTORS, config(&agent.url())).unwrap();
        let channel = caller.channel("callee");
        let registry = Registry::open(&agent.url(), &Options::default()).unwrap();
        let watched = registry.watch("callee");
        let mut expected = vec![callee.port, second.port];
        expected.sort_unstable();
        until("both are found", CHECKED, async || ports(&watched.borrow()) == expected).await;
        for _ in 0..20 {
            call(&channel).await.unwrap();
        }
        // Registering again and again leaves the check as it is.
        until("seen by the agent", CHECKED, async || agent.passing("callee").await == 2).await;
        let port = callee.port;
        callee.leave().await;
        assert_eq!(agent.services().await, [second.id()]);
        let seen = until("its end is seen", Duration::from_secs(2), async || {
            !ports(&watched.borrow()).contains(&port)
        });
        seen.await;
        call(&channel).await.expect("the other one answers");
        second.leave().await;
        assert!(agent.services().await.is_empty());
    }

    #[tokio::test]
    #[ignore = "needs consul"]
    async fn registering_again_leaves_the_check_as_it_is() {
        let agent = Agent::start("").await;
        let callee = process(config(&agent.url()));
        until("passes", CHECKED, async || agent.passing("callee").await == 1).await;
        let (_, services) = get(&agent.api(), "/v1/agent/services").await;
        let told = services[callee.id()].clone();
        // What the process itself says every half a minute, many times at once.
        let body = serde_json::json!({
            "ID": told["ID"], "Name": told["Service"], "Address": told["Address"],
            "Port": told["Port"], "Meta": told["Meta"], "Weights": told["Weights"],
            "Check": {
                "GRPC": format!("127.0.0.1:{}/ordermesh.auth.v1.TokensService", callee.port),
                "GRPCUseTLS": false, "Interval": "5s", "Timeout": "1s", "Status": "critical",
                "DeregisterCriticalServiceAfter": "1m",
            },
        });
        let path = "/v1/agent/service/register?replace-existing-checks=true";
        for _ in 0..20 {
            let url = format!("{}{path}", agent.api());
            let put = ask(http::Method::PUT, &url, body.to_string()).await;
            assert_eq!(put.map(|(status, _)| status), Some(200));
            assert_eq!(agent.passing("callee").await, 1, "nobody would be sent here");
        }
        callee.leave().await;
    }

    #[tokio::test]
    #[ignore = "needs consul"]
    async fn an_agent_that_lost_its_memory_knows_us_again_within_half_a_minute() {
        let agent = Agent::start("").await;
        let callee = process(config(&agent.url()));
        let caller = App::new("caller", DESCRIPTORS, config(&agent.url())).unwrap();
        let channel = caller.channel("callee");
        until("found", CHECKED, async || call(&channel).await.is_ok()).await;
        let agent = agent.again().await;
        let took = until("registered again", Duration::from_secs(31), async || {
            call(&channel).await.expect("calls go on all the time");
            agent.services().await == [callee.id()]
        });
        took.await;
        // Empty while its check runs for the first time; the grace covers that.
        until("passes again", CHECKED, async || {
            call(&channel).await.expect("calls go on all the time");
            agent.passing("callee").await == 1
        })
        .await;
        callee.leave().await;
        assert!(agent.services().await.is_empty());
    }

    #[tokio::test]
    #[ignore = "needs consul"]
    async fn without_consul_what_was_known_goes_on_and_processes_leave_in_time() {
        let mut agent = Agent::start("").await;
        let callee = process(config(&agent.url()));
        let caller = App::new("caller", DESCRIPTORS, config(&agent.url())).unwrap();
        let channel = caller.channel("callee");
        let registry = Registry::open(&agent.url(), &Options::default()).unwrap();
        let watched = registry.watch("callee");
        until("found", CHECKED, async || ports(&watched.borrow()) == [callee.port]).await;
        agent.kill();
        let gone = clock::instant();
        while gone.elapsed() < Duration::from_secs(12) {
            call(&channel).await.expect("calls go on");
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        assert_eq!(ports(&watched.borrow()), [callee.port]);
        let failure = registry.find("somebody", Duration::from_millis(300)).await;
        let failure = failure.expect_err("nobody can be asked").to_string();
        assert!(failure.contains("cannot be reached"), "{failure}");
        let begun = clock::instant();
        callee.leave().await;
        assert!(begun.elapsed() < Duration::from_secs(6), "{:?}", begun.elapsed());
    }

    #[tokio::test]
    #[ignore = "needs consul"]
    async fn a_wrong_token_ends_a_process_with_the_reason_and_the_right_one_does_not() {
        let agent = Agent::start(RULES).await;
        let token = tempfile::NamedTempFile::new().unwrap();
        let told = |text: &str| {
            std::fs::write(token.path(), text).unwrap();
            let path = Some(token.path().to_owned());
            process(Config { consul_token_file: path, ..config(&agent.url()) })
        };
        let wrong = "00000000-1111-2222-3333-444444444444";
        let error = told(wrong).ended.await.unwrap().expect_err("refused");
        let error = format!("{error:#}");
        assert!(error.starts_with("cannot register: the registry refuses it: 403"), "{error}");
        assert!(!error.contains(wrong), "the token is told to whoever reads logs: {error}");
        let error = process(config(&agent.url())).ended.await.unwrap().expect_err("refused");
        assert!(format!("{error:#}").contains("CONSUL_HTTP_TOKEN"), "{error:#}");
        let callee = told(MASTER);
        let options =
            Options { consul_token_file: Some(token.path().to_owned()), ..Options::default() };
        let registry = Registry::open(&agent.url(), &options).unwrap();
        let watched = registry.watch("callee");
        until("found", CHECKED, async || ports(&watched.borrow()) == [callee.port]).await;
        callee.leave().await;
    }

    #[tokio::test]
    #[ignore = "needs consul"]
    async fn a_process_that_says_itself_that_it_is_ready_is_found() {
        let agent = Agent::start("").await;
        let url = format!("{}?check=ttl", agent.url());
        let callee = process(config(&url));
        let took = until("passes", CHECKED, async || agent.passing("callee").await == 1).await;
        assert!(took < Duration::from_secs(4), "nobody waits for a round of checks: {took:?}");
        callee.leave().await;
        assert!(agent.services().await.is_empty());
    }

    #[tokio::test]
    #[ignore = "needs consul"]
    async fn its_dns_finds_the_same_instances() {
        let agent = Agent::start("").await;
        let callee = process(config(&agent.url()));
        until("passes", CHECKED, async || agent.passing("callee").await == 1).await;
        let dns = agent.ports[1];
        let srv = format!("dns://127.0.0.1:{dns}?suffix=service.consul&port={}", callee.port);
        let registry = Registry::open(&srv, &Options::default()).unwrap();
        let found = registry.find("callee", Duration::from_secs(5)).await.unwrap();
        assert_eq!(ports(&found), [callee.port]);
        callee.leave().await;
    }

    #[tokio::test]
    #[ignore = "needs consul"]
    async fn over_tls_registered_checked_found_called_and_deregistered() {
        let (authority, files) = (Authority::new(), tempfile::tempdir().unwrap());
        let (agent, url) = Agent::start_over_tls(&authority, files.path(), false).await;
        let over_tls = || Config { tls: authority.settings(&["127.0.0.1"]), ..config(&url) };
        let callee = process(over_tls());
        let caller = App::new("caller", DESCRIPTORS, over_tls()).unwrap();
        let channel = caller.channel("callee");
        until("its check passes", CHECKED, async || agent.passing("callee").await == 1).await;
        until("found", CHECKED, async || call(&channel).await.is_ok()).await;
        let (_, checks) = get(&agent.api(), "/v1/agent/checks").await;
        let check = &checks[format!("service:{}", callee.id())];
        assert_eq!(check["Type"], "grpc", "{check}");
        callee.leave().await;
        assert!(agent.services().await.is_empty());
    }

    #[tokio::test]
    #[ignore = "needs consul"]
    async fn a_wrong_authority_ends_a_process_with_what_to_do() {
        let (authority, files) = (Authority::new(), tempfile::tempdir().unwrap());
        let (agent, url) = Agent::start_over_tls(&authority, files.path(), false).await;
        let error = process(on_files(&url, Authority::new().files())).refused().await;
        assert!(error.contains("UnknownIssuer") && error.contains("--consul-ca"), "{error}");
        assert!(agent.services().await.is_empty());
    }

    #[tokio::test]
    #[ignore = "needs consul"]
    async fn a_certificate_that_consul_demands_is_shown_and_who_demands_one_tells_it_how_it_is() {
        let (authority, files) = (Authority::new(), tempfile::tempdir().unwrap());
        let (agent, url) = Agent::start_over_tls(&authority, files.path(), true).await;
        // None to show, and one of a stranger.
        let (stranger, own) = (Authority::new(), tempfile::tempdir().unwrap());
        let mut strange = showing(&stranger, own.path(), &["callee"]);
        strange.ca = Some(authority.ca());
        for (files, words) in [
            (authority.files(), "--consul-cert and --consul-key name ours"),
            (strange, "it does not take what --consul-cert names"),
        ] {
            let error = process(on_files(&url, files)).refused().await;
            assert!(error.contains(words), "{error}");
        }
        let tls = Settings {
            client_auth: ClientAuth::Required,
            ..authority.settings(&["127.0.0.1", "callee"])
        };
        let callee = process(Config { tls, ..config(&url) });
        until("it passes", CHECKED, async || agent.passing("callee").await == 1).await;
        let (_, checks) = get(&agent.api(), "/v1/agent/checks").await;
        let check = &checks[format!("service:{}", callee.id())];
        assert_eq!(check["Type"], "ttl", "{check}");
        callee.leave().await;
        assert!(agent.services().await.is_empty());
    }
}
