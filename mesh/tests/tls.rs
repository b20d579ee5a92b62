//! TLS and mTLS over real sockets, with certificates made for each test.
#![expect(clippy::unwrap_used, reason = "tests")]

use std::{
    path::Path,
    sync::{Arc, Mutex},
    time::Duration,
};

use bytes::Bytes;
use clap::Parser as _;
use http::{HeaderMap, Request};
use http_body_util::{BodyExt as _, Full};
use hyper_util::rt::{TokioExecutor, TokioIo};
use mesh::{
    App, Channel, Config,
    config::Bound,
    registry::Address,
    testing::{Authority, Tokens},
    tls::{ClientAuth, Connector, Settings},
    wire::{
        DESCRIPTORS,
        ordermesh::auth::v1::{GetJwksRequest, tokens_service_client::TokensServiceClient},
    },
};
use rcgen::KeyPair;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
    sync::oneshot,
};
use tonic::Code;
use tonic_health::pb::{HealthCheckRequest, health_client::HealthClient};

const PATIENCE: Duration = Duration::from_secs(10);

/// Serves on a free port until the sender is dropped.
#[expect(clippy::disallowed_methods, reason = "a process of its own in a test")]
fn process(tls: Settings, handshake: Duration) -> (u16, oneshot::Sender<()>) {
    let mut config = Config::for_tests(Bound::free().unwrap(), "static://");
    config.tls = tls;
    config.server.handshake_timeout = handshake;
    let app = App::new("hop", DESCRIPTORS, config).unwrap();
    let port = app.address().port();
    let (stop, stopped) = oneshot::channel::<()>();
    tokio::spawn(app.serve(async {
        let _stopped = stopped.await.is_ok();
    }));
    (port, stop)
}

/// Asks for the health of a process over TLS.
async fn ask(port: u16, host: &str, client: &Settings) -> anyhow::Result<()> {
    let answer = call(port, host, client, "grpc.health.v1.Health/Check", "").await?;
    anyhow::ensure!(answer["grpc-status"] == "0", "{answer:?}");
    Ok(())
}

/// Makes one call over TLS with an empty message; answers with what holds the status.
#[expect(clippy::disallowed_methods, reason = "drives a bare connection")]
async fn call(
    port: u16,
    host: &str,
    client: &Settings,
    rpc: &str,
    authorization: &str,
) -> anyhow::Result<HeaderMap> {
    let stream = TcpStream::connect(("127.0.0.1", port)).await?;
    let stream = Connector::new(client.files())?.connect(host, stream).await?;
    let handshake =
        hyper::client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(stream));
    let (mut sender, connection) = handshake.await?;
    tokio::spawn(connection);
    let mut request = Request::post(format!("https://x/{rpc}"))
        .header("content-type", "application/grpc")
        .header("te", "trailers");
    if !authorization.is_empty() {
        request = request.header("authorization", authorization);
    }
    let request = request.body(Full::new(Bytes::from_static(&[0; 5])))?;
    let answer = tokio::time::timeout(PATIENCE, sender.send_request(request)).await??;
    let (head, body) = answer.into_parts();
    let trailers = body.collect().await?.trailers().cloned();
    Ok(trailers.filter(|it| it.contains_key("grpc-status")).unwrap_or(head.headers))
}

#[tokio::test]
async fn a_certificate_is_good_for_its_names_and_by_its_authority_alone() {
    let authority = Authority::new();
    let (port, _stop) = process(authority.settings(&["localhost", "127.0.0.1"]), PATIENCE);
    ask(port, "localhost", &authority.trust()).await.unwrap();
    ask(port, "127.0.0.1", &authority.trust()).await.unwrap();
    let wrong_name = ask(port, "orders", &authority.trust()).await.expect_err("another name");
    assert!(format!("{wrong_name:#}").contains("not valid for name"), "{wrong_name:#}");
    let stranger = ask(port, "localhost", &Authority::new().trust()).await.expect_err("a stranger");
    assert!(format!("{stranger:#}").contains("invalid peer certificate"), "{stranger:#}");
}

#[tokio::test]
async fn a_channel_speaks_tls_to_whom_it_trusts_and_to_nobody_else() {
    let authority = Authority::new();
    let (port, _stop) = process(authority.settings(&["127.0.0.1"]), PATIENCE);
    let ask = async |tls: Settings, callee: String| {
        let registry = format!("static://?hop=127.0.0.1:{port}");
        let mut config = Config::for_tests(Bound::free().unwrap(), &registry);
        config.tls = tls;
        let app = App::new("asks", DESCRIPTORS, config).unwrap();
        let mut health = HealthClient::new(app.channel(&callee));
        let asked = health.check(HealthCheckRequest::default());
        mesh::ctx::background("ask", PATIENCE, None, asked).await.unwrap().map(|_healthy| ())
    };
    let url = format!("https://127.0.0.1:{port}");
    ask(authority.trust(), url.clone()).await.unwrap();
    ask(authority.trust(), "hop".to_owned()).await.unwrap();
    // A stranger's certificate, no trust at all, and plaintext.
    for (tls, callee) in [
        (Authority::new().trust(), url.clone()),
        (Settings::default(), url),
        (authority.trust(), format!("http://127.0.0.1:{port}")),
    ] {
        let refused = ask(tls, callee).await.expect_err("no call");
        assert_eq!(refused.code(), Code::Unavailable, "{refused}");
    }
}

#[tokio::test]
async fn who_must_show_a_certificate_is_not_served_without_a_good_one() {
    let (authority, stranger) = (Authority::new(), Authority::new());
    let server = authority.settings(&["localhost"]);
    let client = tempfile::tempdir().unwrap();
    authority.issue(client.path(), &["orders"]);
    let trust = Settings { tls_ca: server.tls_ca.clone(), ..Settings::default() };
    let own = |folder: &Path| Settings {
        tls_cert: Some(folder.join("cert.pem")),
        tls_key: Some(folder.join("key.pem")),
        ..trust.clone()
    };
    stranger.issue(stranger.path(), &["orders"]);
    for (client_auth, shown, served) in [
        (ClientAuth::None, None, true),
        (ClientAuth::None, Some(client.path()), true),
        (ClientAuth::Optional, None, true),
        (ClientAuth::Optional, Some(client.path()), true),
        (ClientAuth::Optional, Some(stranger.path()), false),
        (ClientAuth::Required, None, false),
        (ClientAuth::Required, Some(client.path()), true),
        (ClientAuth::Required, Some(stranger.path()), false),
    ] {
        let (port, _stop) = process(Settings { client_auth, ..server.clone() }, PATIENCE);
        let shows = shown.map_or(trust.clone(), own);
        let asked = ask(port, "localhost", &shows).await;
        assert_eq!(asked.is_ok(), served, "{client_auth:?} {shown:?}: {asked:?}");
    }
}

/// Open to all, so that nothing but its token can be wrong about a caller. Notes the schemes of
/// requests.
#[derive(Clone, Debug, Default)]
struct Open(Arc<Mutex<Vec<String>>>);

impl tonic::server::NamedService for Open {
    const NAME: &'static str = "ordermesh.auth.v1.TokensService";
}

impl tower::Service<Request<tonic::body::Body>> for Open {
    type Response = http::Response<tonic::body::Body>;
    type Error = std::convert::Infallible;
    type Future = std::future::Ready<Result<Self::Response, Self::Error>>;

    fn poll_ready(
        &mut self,
        _: &mut std::task::Context<'_>,
    ) -> std::task::Poll<Result<(), Self::Error>> {
        std::task::Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<tonic::body::Body>) -> Self::Future {
        let scheme = request.uri().scheme_str().unwrap_or_default().to_owned();
        self.0.lock().unwrap().push(scheme);
        std::future::ready(Ok(tonic::Status::ok("").into_http()))
    }
}

#[expect(clippy::disallowed_methods, reason = "a process of its own in a test")]
#[tokio::test]
async fn a_service_shows_the_certificate_of_the_service_that_its_token_names() {
    let (authority, tokens) = (Authority::new(), Tokens::new());
    let mut config = Config::for_tests(Bound::free().unwrap(), "static://");
    config.tls = Settings {
        client_auth: ClientAuth::Required,
        ..authority.settings(&["localhost", "orders"])
    };
    let client = config.tls.clone();
    let app = App::new("hop", DESCRIPTORS, config).unwrap();
    let port = app.address().port();
    let (_stop, stopped) = oneshot::channel::<()>();
    tokio::spawn(app.keys(tokens.keys()).grpc(Open::default()).serve(async {
        let _stopped = stopped.await.is_ok();
    }));
    const RPC: &str = "ordermesh.auth.v1.TokensService/GetJwks";
    for (name, expected) in [("orders", "0"), ("payments", "16")] {
        let token = tokens.of_service(name);
        let answer = call(port, "localhost", &client, RPC, &token).await.unwrap();
        assert_eq!(answer["grpc-status"], expected, "{name}: {answer:?}");
    }
}

#[expect(clippy::disallowed_methods, reason = "a process of its own in a test")]
#[tokio::test]
async fn a_request_says_over_what_it_goes() {
    let authority = Authority::new();
    for (tls, expected) in
        [(Settings::default(), "http"), (authority.settings(&["127.0.0.1"]), "https")]
    {
        let open = Open::default();
        let config =
            Config { tls: tls.clone(), ..Config::for_tests(Bound::free().unwrap(), "static://") };
        let app = App::new("hop", DESCRIPTORS, config).unwrap();
        let at: Address = app.address().to_string().parse().unwrap();
        let (_stop, stopped) = oneshot::channel::<()>();
        tokio::spawn(app.grpc(open.clone()).serve(async {
            let _stopped = stopped.await.is_ok();
        }));
        let channel = match tls.tls_ca {
            Some(_) => {
                let connector = Connector::new(authority.files()).unwrap();
                Channel::over_tls("hop", &[at], connector)
            }
            None => Channel::to("hop", &[at]),
        };
        let mut client = TokensServiceClient::new(channel);
        // It answers nothing; what it was asked counts. On a busy machine it may be asked too late.
        let mut asked = Vec::new();
        for _ in 0..10 {
            let called = client.get_jwks(GetJwksRequest::default());
            let _answer = mesh::ctx::background("ask", PATIENCE, None, called).await.is_ok();
            asked.clone_from(&open.0.lock().unwrap());
            if !asked.is_empty() {
                break;
            }
        }
        assert!(!asked.is_empty() && asked.iter().all(|it| it == expected), "{asked:?}");
    }
}

#[tokio::test]
async fn certificates_are_read_again_when_they_change_and_half_a_change_does_no_harm() {
    let (first, second) = (Authority::new(), Authority::new());
    let server =
        Settings { tls_reload: Duration::from_millis(5), ..first.settings(&["localhost"]) };
    let (port, _stop) = process(server, PATIENCE);
    ask(port, "localhost", &first.trust()).await.unwrap();
    // A key that is not that of the certificate: the old pair goes on.
    std::fs::write(first.path().join("key.pem"), KeyPair::generate().unwrap().serialize_pem())
        .unwrap();
    for _ in 0..20 {
        ask(port, "localhost", &first.trust()).await.unwrap();
    }
    second.issue(first.path(), &["localhost"]);
    let changed = async { while ask(port, "localhost", &second.trust()).await.is_err() {} };
    tokio::time::timeout(PATIENCE, changed).await.expect("the new certificate is served");
    ask(port, "localhost", &first.trust()).await.expect_err("the old one is gone");
}

#[tokio::test]
async fn who_does_not_shake_hands_is_cut_and_others_are_served() {
    let authority = Authority::new();
    let settings = authority.settings(&["localhost"]);
    let (port, _stop) = process(settings, Duration::from_millis(200));
    for said in [&b""[..], b"\x16\x03\x01", b"GET / HTTP/1.1\r\n\r\n", b"PRI * HTTP/2.0\r\n\r\n"] {
        let mut stream = TcpStream::connect(("127.0.0.1", port)).await.unwrap();
        stream.write_all(said).await.unwrap();
        let mut answer = Vec::new();
        // Reset or closed: over.
        let over = tokio::time::timeout(PATIENCE, stream.read_to_end(&mut answer)).await;
        assert!(over.is_ok(), "{said:?}");
    }
    ask(port, "localhost", &authority.trust()).await.unwrap();
}

#[test]
fn a_pair_that_does_not_fit_is_an_error_at_start_that_says_so() {
    let (one, other) = (Authority::new(), Authority::new());
    let wrong = Settings {
        tls_key: other.settings(&["localhost"]).tls_key,
        ..one.settings(&["localhost"])
    };
    let missing = Settings { tls_cert: Some("/nowhere/cert.pem".into()), ..one.settings(&["x"]) };
    for (tls, told) in [(wrong, "--tls-key is not the key"), (missing, "/nowhere/cert.pem")] {
        let config = Config { tls, ..Config::for_tests(Bound::free().unwrap(), "static://") };
        let runtime = tokio::runtime::Runtime::new().unwrap();
        let error = runtime.block_on(async { App::new("hop", DESCRIPTORS, config) }).unwrap_err();
        assert!(format!("{error:#}").contains(told), "{error:#}");
    }
}

#[test]
fn flags_that_need_each_other_are_asked_for_together() {
    #[derive(Debug, clap::Parser)]
    struct Process {
        #[command(flatten)]
        settings: Settings,
    }
    let parse = |flags: &[&str]| {
        Process::try_parse_from(["process"].iter().chain(flags)).map(|it| it.settings)
    };
    assert_eq!(parse(&[]).unwrap().client_auth, ClientAuth::None);
    assert!(parse(&["--tls-cert", "c"]).is_err());
    assert!(parse(&["--tls-key", "k"]).is_err());
    assert!(parse(&["--client-auth", "required"]).is_err());
    let all = ["--tls-cert", "c", "--tls-key", "k", "--tls-ca", "a", "--client-auth", "required"];
    assert_eq!(parse(&all).unwrap().client_auth, ClientAuth::Required);
}
