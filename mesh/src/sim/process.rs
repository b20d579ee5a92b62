//! A simulated process: it serves as an `App` serves, and leaves as one leaves.

use std::{
    collections::HashMap,
    pin::Pin,
    sync::{
        Arc, LazyLock, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use futures_util::Stream;
use tokio::sync::Semaphore;
use tokio_util::task::TaskTracker;
use tonic::{Code, Request, Response, Status, service::Routes};

use super::{Told, World, caller, net::Backlog, spawn};
use crate::{
    Channel, Ctx,
    app::drain,
    auth::{Auth, Keys, Rules},
    clock,
    log::service::{self, SUBSCRIBE},
    server::{Calls, Limiter, Listener, Methods, Override, Settings, Wire},
    telemetry::Spans,
    wire::{
        DESCRIPTORS,
        ordermesh::{
            auth::v1::{
                GetJwksRequest, IssueTokenRequest, Jwks, RefreshTokenRequest, RevokeTokenRequest,
                Token,
                tokens_service_server::{TokensService, TokensServiceServer},
            },
            events::v1::{
                GetHeadRequest, GetHeadResponse, SubscribeRequest, SubscribeResponse,
                event_log_service_server::{EventLogService, EventLogServiceServer},
            },
        },
    },
};

/// The longest that any call may take.
const LONGEST: Duration = Duration::from_secs(10);
/// How long a process that leaves waits for its calls.
const DRAIN: Duration = Duration::from_secs(25);

/// Every process has the same log: it grows by an event each time that this has passed.
pub(super) const GROWS: Duration = Duration::from_millis(100);

/// What a process does with a call.
#[derive(Clone, Debug)]
pub(super) struct Script {
    /// Its own work takes so long, at least and at most.
    pub(super) takes: (Duration, Duration),
    /// Of a hundred calls, so many fail,
    pub(super) fails: u8,
    /// and with this code.
    pub(super) code: Code,
    /// How many it works on at once; the others wait for them.
    pub(super) workers: Option<Arc<Semaphore>>,
    /// It stands still: what it has goes on when this is over.
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
    pub(super) script: Told<Script>,
    /// Calls that came to the handler, and those that are at work.
    pub(super) asked: AtomicUsize,
    pub(super) working: AtomicUsize,
    /// The longest that a handler was at work beyond its deadline.
    pub(super) overtime: Mutex<Duration>,
    /// Calls of its handlers that failed, and they were told.
    pub(super) told: AtomicUsize,
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
            code: Code::Unavailable,
            workers: None,
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
        static RULES: LazyLock<Rules> =
            LazyLock::new(|| Rules::of(DESCRIPTORS).unwrap().open(SUBSCRIBE));
        let lasts = Override { longest: Some(service::LONGEST), bulkhead: None };
        let lasts = HashMap::from([(SUBSCRIBE, lasts)]);
        let methods = Methods::of(DESCRIPTORS, LONGEST, &lasts).unwrap();
        let (limiter, tracker) = (Limiter::new(&settings), TaskTracker::new());
        let host = Arc::new(Host {
            name: name.to_owned(),
            script: Told::new(script),
            asked: AtomicUsize::new(0),
            working: AtomicUsize::new(0),
            overtime: Mutex::default(),
            told: AtomicUsize::new(0),
            limiter: Arc::clone(&limiter),
            world: world.clone(),
        });
        let routes = Routes::new(TokensServiceServer::new(Served(Arc::clone(&host))))
            .add_service(EventLogServiceServer::new(Served(Arc::clone(&host))));
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
        self.host.script.change(change);
    }
}

// === impl Host ===

impl Host {
    /// Handlers at work, and places taken.
    pub(super) fn busy(&self) -> (usize, u32) {
        (self.working.load(Ordering::SeqCst), self.limiter.in_flight())
    }

    /// How many calls at once it lets in.
    pub(super) fn limit(&self) -> u32 {
        self.limiter.limit()
    }

    /// How many streams it serves.
    pub(super) fn streams(&self) -> usize {
        self.limiter.streams()
    }

    async fn answer<T>(&self, answer: T) -> Result<Response<T>, Status> {
        let _working = Working::begin(self);
        let Script { takes: (least, most), fails, code, workers, hangs, asks } =
            self.script.look(Clone::clone);
        if hangs {
            self.script.until(|script| !script.hangs).await;
        }
        let worker = match &workers {
            Some(workers) => Some(workers.acquire().await.unwrap()),
            None => None,
        };
        tokio::time::sleep(self.world.any(least, most)).await;
        drop(worker);
        if fastrand::u8(..100) < fails {
            return Err(Status::new(code, "as the script says"));
        }
        if let Some(next) = asks {
            caller::read(&next).await.inspect_err(|_status| {
                self.told.fetch_add(1, Ordering::SeqCst);
            })?;
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

#[tonic::async_trait]
impl EventLogService for Served {
    type SubscribeStream =
        Pin<Box<dyn Stream<Item = Result<SubscribeResponse, Status>> + Send + 'static>>;

    async fn subscribe(
        &self,
        request: Request<SubscribeRequest>,
    ) -> Result<Response<Self::SubscribeStream>, Status> {
        let world = self.0.world.clone();
        let stream = futures_util::stream::unfold(request.into_inner().after, move |after| {
            let (position, world) = (after + 1, world.clone());
            async move {
                let due = GROWS * u32::try_from(position).unwrap();
                world.passes(due.saturating_sub(world.at())).await;
                let message = SubscribeResponse { events: Vec::new(), head: position, position };
                Some((Ok(message), position))
            }
        });
        let stream: Self::SubscribeStream = Box::pin(stream);
        let mut response = Response::new(stream);
        response.metadata_mut().insert("host", self.0.name.parse().unwrap());
        Ok(response)
    }

    async fn get_head(
        &self,
        _: Request<GetHeadRequest>,
    ) -> Result<Response<GetHeadResponse>, Status> {
        self.0.answer(GetHeadResponse::default()).await
    }
}
