//! Events between processes over real sockets: published by one, taken in by another, with the
//! tokens and rules of the contract; and both leave in time.
#![expect(clippy::unwrap_used, reason = "tests")]

use std::time::Duration;

use futures_util::future::BoxFuture;
use mesh::{
    App, Config,
    app::Ended,
    client::http::Http,
    clock,
    config::Bound,
    consume::{Handler, Trouble},
    ctx::{Ctx, Trace},
    log::Event,
    outbox::{self, Fact},
    store::{Failure, Store, Txn},
    testing::{self, Tokens},
    wire::{
        DESCRIPTORS,
        ordermesh::{
            auth::v1::{
                GetJwksRequest, IssueTokenRequest, Jwks, RefreshTokenRequest, RevokeTokenRequest,
                Token,
                issue_token_request::Credential,
                tokens_service_server::{TokensService, TokensServiceServer},
            },
            events::v1::{GetHeadRequest, event_log_service_client::EventLogServiceClient},
        },
    },
};
use tokio::{
    sync::{mpsc, oneshot},
    task::JoinHandle,
};
use tonic::{Code, Request, Response, Status};

/// Gives a token to every service that asks.
struct Issuer(Tokens);

#[tonic::async_trait]
impl TokensService for Issuer {
    async fn issue_token(
        &self,
        request: Request<IssueTokenRequest>,
    ) -> Result<Response<Token>, Status> {
        let Some(Credential::Client(client)) = request.into_inner().credential else {
            return Ok(Response::new(Token::default()));
        };
        let access_token = self.0.for_service(&client.client_id);
        let expires_in = Some(prost_types::Duration { seconds: 3_600, nanos: 0 });
        Ok(Response::new(Token { access_token, expires_in, ..Token::default() }))
    }

    async fn get_jwks(&self, _: Request<GetJwksRequest>) -> Result<Response<Jwks>, Status> {
        Ok(Response::new(Jwks { keys: vec![self.0.jwk()] }))
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

/// Says what it took in.
struct Taker(mpsc::UnboundedSender<Event>);

impl Handler for Taker {
    fn types(&self) -> &'static [&'static str] {
        &["sample.happened"]
    }

    fn handle<'c>(&'c self, _: &'c Txn, _: &'c Event) -> BoxFuture<'c, Result<(), Trouble>> {
        Box::pin(async { Ok(()) })
    }

    fn committed(&self, event: &Event) {
        self.0.send(event.clone()).unwrap();
    }
}

struct Process {
    stop: oneshot::Sender<()>,
    ended: JoinHandle<anyhow::Result<Ended>>,
}

impl Process {
    #[expect(clippy::disallowed_methods, reason = "a process of its own in a test")]
    fn start(app: App) -> Self {
        let (stop, stopped) = oneshot::channel::<()>();
        let ended = tokio::spawn(app.serve(async {
            let _stopped = stopped.await.is_ok();
        }));
        Self { stop, ended }
    }

    async fn leaves(self) {
        self.stop.send(()).unwrap();
        assert_eq!(self.ended.await.unwrap().unwrap(), Ended::Drained);
    }
}

/// The ports of three processes, and what each is told.
struct Stage {
    registry: String,
    secret: tempfile::NamedTempFile,
    bound: Vec<Bound>,
    admin: u16,
}

impl Stage {
    fn new() -> Self {
        let bound: Vec<_> = (0..3).map(|_| Bound::free().unwrap()).collect();
        let port = |of: &Bound| of.listen.local_addr().unwrap().port();
        let registry = format!(
            "static://?issuer=127.0.0.1:{}&source=127.0.0.1:{}&taker=127.0.0.1:{}",
            port(&bound[0]),
            port(&bound[1]),
            port(&bound[2]),
        );
        let admin = bound[1].admin.local_addr().unwrap().port();
        Self { registry, secret: tempfile::NamedTempFile::new().unwrap(), bound, admin }
    }

    fn config(&mut self) -> Config {
        Config {
            issuer: Some("issuer".to_owned()),
            client_secret_file: Some(self.secret.path().to_owned()),
            failpoints: true,
            ..Config::for_tests(self.bound.remove(0), &self.registry)
        }
    }
}

async fn happens(store: &Store, seq: i64) {
    let done = store.transaction(move |txn| {
        Box::pin(async move {
            let fact =
                Fact::of("sample.happened", &prost_types::Duration { seconds: seq, nanos: 0 });
            outbox::append(txn, "things/1", seq, fact, clock::now()).await
        })
    });
    done.await.map_err(|failure: Failure| failure).unwrap();
}

#[tokio::test]
async fn what_one_process_publishes_another_takes_in_and_both_leave_in_time() {
    let mut stage = Stage::new();
    let (source_db, taker_db) = (testing::sqlite(vec![]).await, testing::sqlite(vec![]).await);
    let config = Config { issuer: None, client_secret_file: None, ..stage.config() };
    let issuer = App::new("issuer", DESCRIPTORS, config).unwrap();
    let issuer = Process::start(issuer.grpc(TokensServiceServer::new(Issuer(Tokens::new()))));
    let source = App::new("catalog", DESCRIPTORS, stage.config()).unwrap();
    let as_source = EventLogServiceClient::new(source.channel("source"));
    let source = Process::start(source.store(&source_db).publishes(&source_db));
    let (told, mut taken) = mpsc::unbounded_channel();
    let taker = App::new("notifications", DESCRIPTORS, stage.config()).unwrap();
    let as_taker = EventLogServiceClient::new(taker.channel("source"));
    let taker = taker.store(&taker_db).consumes(&taker_db, "source", Taker(told));
    let taker = Process::start(taker);

    for seq in 1..=3 {
        happens(&source_db, seq).await;
        let event = tokio::time::timeout(Duration::from_secs(20), taken.recv()).await.unwrap();
        let event = event.unwrap();
        assert_eq!((&*event.source, event.seq, event.position), ("catalog", seq, seq));
        assert_eq!(event.decode::<prost_types::Duration>().unwrap().seconds, seq);
    }
    // Whoever the rule names may ask; nobody else.
    let asked = async |mut client: EventLogServiceClient<_>| {
        let ctx = Ctx::root(Duration::from_secs(5), Trace::new());
        ctx.scope(client.get_head(GetHeadRequest {})).await.map(Response::into_inner)
    };
    assert_eq!(asked(as_taker).await.unwrap().newest, 3);
    assert_eq!(asked(as_source).await.unwrap().newest, 3);
    let port = stage.registry.split("source=127.0.0.1:").nth(1).unwrap();
    let port = port.split('&').next().unwrap().parse().unwrap();
    let nobody = asked(EventLogServiceClient::new(testing::channel_to("source", port))).await;
    assert_eq!(nobody.expect_err("no token").code(), Code::Unauthenticated);
    failpoints_are_armed_by_name(stage.admin).await;

    // The source first: its streams must not keep it.
    source.leaves().await;
    taker.leaves().await;
    issuer.leaves().await;
}

/// Not one that is passed here: the test is the process.
async fn failpoints_are_armed_by_name(admin: u16) {
    let client = Http::new(&format!("http://127.0.0.1:{admin}"));
    let arm = async |point: &str| {
        let path = format!("/debug/failpoints/{point}?after=1000000");
        let patience = Duration::from_secs(5);
        let answer = client.call(
            http::Method::POST,
            &path,
            http::HeaderMap::new(),
            bytes::Bytes::new(),
            patience,
        );
        answer.await.unwrap().0
    };
    assert_eq!(arm("after_reply_before_record").await, 200);
    assert_eq!(arm("nowhere").await, 404);
}

#[tokio::test]
async fn a_process_without_a_source_waits_and_still_leaves_in_time() {
    let mut stage = Stage::new();
    let db = testing::sqlite(vec![]).await;
    let (told, _taken) = mpsc::unbounded_channel();
    let app = App::new("notifications", DESCRIPTORS, stage.config()).unwrap();
    let app = app.store(&db).consumes(&db, "source", Taker(told)).publishes(&db);
    Process::start(app).leaves().await;
}
