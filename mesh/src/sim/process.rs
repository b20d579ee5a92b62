//! A simulated process: it serves as an `App` serves, and leaves as one leaves.

use std::{
    collections::HashMap,
    sync::{
        Arc, LazyLock, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use tokio_util::task::TaskTracker;
use tonic::{Code, Request, Response, Status, service::Routes};

use super::{World, caller, net::Backlog, spawn};
use crate::{
    Channel, Ctx,
    app::drain,
    auth::{Auth, Keys, Rules},
    clock,
    server::{Calls, Limiter, Listener, Methods, Settings, Wire},
    telemetry::Spans,
    wire::{
        DESCRIPTORS,
        ordermesh::auth::v1::{
            GetJwksRequest, IssueTokenRequest, Jwks, RefreshTokenRequest, RevokeTokenRequest,
            Token,
            tokens_service_server::{TokensService, TokensServiceServer},
        },
    },
};

/// The longest that any call may take.
const LONGEST: Duration = Duration::from_secs(10);
/// How long a process that leaves waits for its calls.
const DRAIN: Duration = Duration::from_secs(25);

/// What a process does with a call.
#[derive(Clone, Debug)]
pub(super) struct Script {
    /// Its own work takes so long, at least and at most.
    pub(super) takes: (Duration, Duration),
    /// Of a hundred calls, so many fail.
    pub(super) fails: u8,
    /// It never answers.
    pub(super) hangs: bool,
    /// Whom it asks before it answers.
    pub(super) asks: Option<Channel>,
}

/// One process of a service.
pub(super) struct Process {
    pub(super) host: Arc<Host>,
    listener: Arc<Listener<Backlog>>,
    tracker: TaskTracker,
    world: World,
    service: String,
}

/// What a process does, and what it has seen.
#[derive(Debug)]
pub(super) struct Host {
    pub(super) name: String,
    pub(super) script: Mutex<Script>,
    /// Calls that came to the handler, and those that are at work.
    pub(super) asked: AtomicUsize,
    pub(super) working: AtomicUsize,
    /// The longest that a handler was at work beyond its deadline.
    pub(super) overtime: Mutex<Duration>,
    limiter: Arc<Limiter>,
    world: World,
}

/// A handler at work.
struct Working<'h> {
    host: &'h Host,
    ctx: Ctx,
}

struct Served(Arc<Host>);

// === impl Script ===

impl Default for Script {
    /// Answers after 1 to 10 ms.
    fn default() -> Self {
        Self {
            takes: (Duration::from_millis(1), Duration::from_millis(10)),
            fails: 0,
            hangs: false,
            asks: None,
        }
    }
}

impl Script {
    pub(super) fn takes(time: Duration) -> Self {
        Self { takes: (time, time), ..Self::default() }
    }
}

// === impl Process ===

impl Process {
    /// Starts one and makes it known.
    pub(super) fn start(world: &World, service: &str, name: &str, script: Script) -> Self {
        Self::with(world, service, name, script, Settings::default())
    }

    /// The same with settings of its own.
    pub(super) fn with(
        world: &World,
        service: &str,
        name: &str,
        script: Script,
        settings: Settings,
    ) -> Self {
        static RULES: LazyLock<Rules> = LazyLock::new(|| Rules::of(DESCRIPTORS).unwrap());
        let methods = Methods::of(DESCRIPTORS, LONGEST, &HashMap::new()).unwrap();
        let (limiter, tracker) = (Limiter::new(&settings), TaskTracker::new());
        let host = Arc::new(Host {
            name: name.to_owned(),
            script: Mutex::new(script),
            asked: AtomicUsize::new(0),
            working: AtomicUsize::new(0),
            overtime: Mutex::default(),
            limiter: Arc::clone(&limiter),
            world: world.clone(),
        });
        let routes = Routes::new(TokensServiceServer::new(Served(Arc::clone(&host))));
        let auth = Auth::new(RULES.clone(), Keys::none());
        let calls = Calls::new(routes, auth, methods, limiter, tracker.clone(), Spans::default());
        let listener = Arc::new(Listener::over(world.net.listen(name), settings, None));
        spawn(Arc::clone(&listener).serve(Wire::Http2, calls));
        world.history.note(format!("{name} starts"));
        world.registry.enter(service, name);
        let (world, service) = (world.clone(), service.to_owned());
        Self { host, listener, tracker, world, service }
    }

    /// Leaves in order. Whether everything ended by itself.
    pub(super) async fn leave(self, propagation: Duration) -> bool {
        let name = &self.host.name;
        self.world.history.note(format!("{name} leaves"));
        self.world.registry.leave(&self.service, name);
        tokio::time::sleep(propagation).await;
        let drained = drain(&self.listener, &self.tracker, DRAIN, async {}).await;
        self.world.net.close(name);
        self.world.history.note(format!("{name} is gone"));
        drained
    }

    /// Is killed: it says nothing more, and its system hangs up for it.
    pub(super) async fn die(self) {
        self.world.history.note(format!("{} dies", self.host.name));
        self.world.net.close(&self.host.name);
        self.listener.leave();
        self.listener.abort().await;
    }

    pub(super) fn asked(&self) -> usize {
        self.host.asked.load(Ordering::SeqCst)
    }

    /// How many connections it serves.
    pub(super) fn connections(&self) -> usize {
        self.listener.connections()
    }

    pub(super) fn change(&self, change: impl FnOnce(&mut Script)) {
        change(&mut self.host.script.lock().unwrap());
    }
}

// === impl Host ===

impl Host {
    /// Handlers at work, and places taken.
    pub(super) fn busy(&self) -> (usize, u32) {
        (self.working.load(Ordering::SeqCst), self.limiter.in_flight())
    }

    async fn answer<T>(&self, answer: T) -> Result<Response<T>, Status> {
        let _working = Working::begin(self);
        let Script { takes: (least, most), fails, hangs, asks } =
            self.script.lock().unwrap().clone();
        if hangs {
            std::future::pending::<()>().await;
        }
        tokio::time::sleep(self.world.any(least, most)).await;
        if fastrand::u8(..100) < fails {
            return Err(Status::new(Code::Unavailable, "as the script says"));
        }
        if let Some(next) = asks {
            caller::read(&next).await?;
        }
        let mut response = Response::new(answer);
        response.metadata_mut().insert("host", self.name.parse().unwrap());
        Ok(response)
    }
}

// === impl Working ===

impl<'h> Working<'h> {
    fn begin(host: &'h Host) -> Self {
        host.asked.fetch_add(1, Ordering::SeqCst);
        host.working.fetch_add(1, Ordering::SeqCst);
        host.world.history.note(format!("{} begins", host.name));
        Self { host, ctx: Ctx::current().unwrap() }
    }
}

impl Drop for Working<'_> {
    fn drop(&mut self) {
        self.host.working.fetch_sub(1, Ordering::SeqCst);
        self.host.world.history.note(format!("{} ends", self.host.name));
        let over = clock::instant().saturating_duration_since(self.ctx.deadline());
        let mut overtime = self.host.overtime.lock().unwrap();
        *overtime = over.max(*overtime);
    }
}

// === impl Served ===

#[tonic::async_trait]
impl TokensService for Served {
    /// May be repeated.
    async fn get_jwks(&self, _: Request<GetJwksRequest>) -> Result<Response<Jwks>, Status> {
        self.0.answer(Jwks::default()).await
    }

    /// May not: what it does under a name is done once.
    async fn revoke_token(
        &self,
        request: Request<RevokeTokenRequest>,
    ) -> Result<Response<()>, Status> {
        let name = request.into_inner().refresh_token;
        *self.0.world.effects.lock().unwrap().entry(name).or_default() += 1;
        self.0.answer(()).await
    }

    async fn issue_token(&self, _: Request<IssueTokenRequest>) -> Result<Response<Token>, Status> {
        self.0.answer(Token::default()).await
    }

    async fn refresh_token(
        &self,
        _: Request<RefreshTokenRequest>,
    ) -> Result<Response<Token>, Status> {
        self.0.answer(Token::default()).await
    }
}
