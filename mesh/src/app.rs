//! A process: what it listens on, what it serves, what runs beside, and how it leaves.

use std::{
    collections::HashMap,
    convert::Infallible,
    fmt,
    future::Future,
    net::{SocketAddr, TcpListener},
    pin::Pin,
    process::ExitCode,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use anyhow::Context as _;
use futures_util::future::BoxFuture;
use http::{Request, Response};
use hyper::body::Incoming;
use tokio::task::JoinSet;
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use tonic::{body::Body, server::NamedService, service::RoutesBuilder};
use tower::{Service, util::BoxCloneSyncService};

use crate::{
    Channel,
    auth::{Auth, Keys, Rules, SignIn},
    clock,
    config::{Bound, Config, Flavour},
    registry::{Address, Registry},
    server::{self, Calls, Listener, Readiness, Wire},
    store, telemetry,
};

/// After the drain: how long relays, pools and the like may take to close.
const CLOSE: Duration = Duration::from_secs(4);

type Task = Box<dyn FnOnce(Draining) -> BoxFuture<'static, anyhow::Result<()>> + Send>;
type Closer = Box<dyn FnOnce() -> BoxFuture<'static, ()> + Send>;
type Edge = BoxCloneSyncService<Request<Incoming>, Response<Body>, Infallible>;

/// A process in the making; [`run`] serves it.
pub struct App {
    name: &'static str,
    descriptors: &'static [u8],
    config: Config,
    listener: Arc<Listener>,
    admin: Arc<Listener>,
    address: SocketAddr,
    registry: Registry,
    sign_in: SignIn,
    keys: Keys,
    channels: Mutex<HashMap<String, Channel>>,
    routes: RoutesBuilder,
    names: Vec<&'static str>,
    edge: Option<Edge>,
    longest: HashMap<&'static str, Duration>,
    checks: Vec<(&'static str, server::Check)>,
    tasks: Vec<(&'static str, Task)>,
    closers: Vec<Closer>,
    draining: Draining,
    tracker: TaskTracker,
}

/// Says when the process begins to leave. Cheap to clone.
#[derive(Clone, Debug, Default)]
pub struct Draining(CancellationToken);

// === impl Draining ===

impl Draining {
    /// Whether the process is leaving.
    #[must_use]
    pub fn is_draining(&self) -> bool {
        self.0.is_cancelled()
    }

    /// Resolves when the process begins to leave.
    pub async fn begun(&self) {
        self.0.cancelled().await;
    }

    /// Begins it; a test does so in place of a signal.
    pub fn begin(&self) {
        self.0.cancel();
    }
}

// === impl App ===

impl App {
    /// A process called `name`. Opens its sockets at once: a port that is taken is an error
    /// now, not after a minute of work. `descriptors` is the encoded `FileDescriptorSet` of
    /// the contract.
    ///
    /// # Errors
    /// A port is taken, plaintext is asked for beyond loopback, a setting cannot be understood.
    pub fn new(
        name: &'static str,
        descriptors: &'static [u8],
        mut config: Config,
    ) -> anyhow::Result<Self> {
        let registry = Registry::parse(&config.registry).context("--registry is wrong")?;
        let bound = match config.bound.take() {
            Some(bound) => {
                Bound { listen: bound.listen.try_clone()?, admin: bound.admin.try_clone()? }
            }
            None => Bound {
                listen: bind(config.listen, "--listen", config.allow_plaintext)?,
                admin: bind(config.admin_listen, "--admin-listen", config.allow_plaintext)?,
            },
        };
        let address = bound.listen.local_addr().context("cannot read the port")?;
        let mut app = Self {
            name,
            descriptors,
            listener: Arc::new(Listener::new(bound.listen)?),
            admin: Arc::new(Listener::new(bound.admin)?),
            address,
            registry,
            sign_in: SignIn::default(),
            keys: Keys::none(),
            channels: Mutex::default(),
            routes: RoutesBuilder::default(),
            names: Vec::new(),
            edge: None,
            longest: HashMap::new(),
            checks: Vec::new(),
            tasks: Vec::new(),
            closers: Vec::new(),
            draining: Draining::default(),
            tracker: TaskTracker::new(),
            config,
        };
        app.identity()?;
        Ok(app)
    }

    /// Keys of the issuer and, with a secret, a token of our own.
    fn identity(&mut self) -> anyhow::Result<()> {
        let Some(issuer) = self.config.issuer.clone() else { return Ok(()) };
        let channel = self.channel(&issuer);
        self.keys = Keys::of_issuer(channel.clone());
        let Some(path) = &self.config.client_secret_file else { return Ok(()) };
        let secret = std::fs::read_to_string(path)
            .with_context(|| format!("cannot read the client secret {}", path.display()))?;
        let (name, sign_in) = (self.name, self.sign_in.clone());
        let task: Task = Box::new(move |draining| {
            Box::pin(sign_in.keep(channel, name, secret.trim().to_owned(), draining))
        });
        self.tasks.push(("sign_in", task));
        let sign_in = self.sign_in.clone();
        let check: server::Check = Box::new(move || {
            let done = sign_in.done();
            Box::pin(async move { done.then_some(()).ok_or("not signed in yet".to_owned()) })
        });
        self.checks.push(("token", check));
        Ok(())
    }

    /// Where calls are served; the port is the real one although 0 was asked for.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// A callee: a name of the registry, or `http://host:port`.
    #[must_use]
    pub fn channel(&self, name_or_url: &str) -> Channel {
        let mut channels = self.channels.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(channel) = channels.get(name_or_url) {
            return channel.clone();
        }
        let addresses = match name_or_url.strip_prefix("http://") {
            Some(address) => address.parse::<Address>().into_iter().collect(),
            None => self.registry.addresses(name_or_url),
        };
        if addresses.is_empty() {
            tracing::warn!(callee = name_or_url, "{name_or_url} is not in the registry");
        }
        let channel = Channel::new(name_or_url, &addresses, self.sign_in.clone());
        channels.insert(name_or_url.to_owned(), channel.clone());
        channel
    }

    /// What verifies tokens and knows the rules of the contract.
    ///
    /// # Errors
    /// The descriptors are malformed.
    pub fn auth(&self) -> anyhow::Result<Auth> {
        let rules =
            Rules::of(self.descriptors).context("the contract's descriptors are malformed")?;
        Ok(Auth::new(rules, self.keys.clone()))
    }

    /// Checks tokens with these keys in place of the issuer's published ones: how the issuer
    /// itself does.
    #[must_use]
    pub fn keys(mut self, keys: Keys) -> Self {
        self.keys = keys;
        self
    }

    /// Serves a generated service.
    #[must_use]
    pub fn grpc<S>(mut self, service: S) -> Self
    where
        S: Service<Request<Body>, Response = Response<Body>, Error = Infallible>
            + NamedService
            + Clone
            + Send
            + Sync
            + 'static,
        S::Future: Send + 'static,
    {
        self.names.push(S::NAME);
        self.routes.add_service(service);
        self
    }

    /// Serves HTTP/1.1 and HTTP/2 in place of gRPC: the edge, and what stands outside the mesh.
    #[must_use]
    pub fn http<S>(mut self, service: S) -> Self
    where
        S: Service<Request<Incoming>, Response = Response<Body>, Error = Infallible>
            + Clone
            + Send
            + Sync
            + 'static,
        S::Future: Send + 'static,
    {
        self.edge = Some(BoxCloneSyncService::new(service));
        self
    }

    /// Lets the method at `path`, as `/package.Service/Method`, take longer or less long than
    /// `--call-timeout` says.
    #[must_use]
    pub fn longest(mut self, path: &'static str, timeout: Duration) -> Self {
        self.longest.insert(path, timeout);
        self
    }

    /// Ready only while this database answers; closed as the last thing.
    #[must_use]
    pub fn store(mut self, store: &store::Store) -> Self {
        telemetry::watch(store);
        let asked = store.clone();
        let check = move || -> BoxFuture<'static, Result<(), String>> {
            let store = asked.clone();
            Box::pin(async move { store.ping().await.map_err(|error| error.to_string()) })
        };
        self.checks.push(("database", Box::new(check)));
        let closed = store.clone();
        self.closers.push(Box::new(move || {
            Box::pin(async move {
                if let Err(error) = closed.close().await {
                    tracing::warn!(%error, "a database did not close well");
                }
            })
        }));
        self
    }

    /// Ready only while `check` says so; its error names what is missing.
    #[must_use]
    pub fn ready<F>(mut self, name: &'static str, check: F) -> Self
    where
        F: Fn() -> BoxFuture<'static, Result<(), String>> + Send + Sync + 'static,
    {
        self.checks.push((name, Box::new(check)));
        self
    }

    /// Runs `task` from start to drain. It is told when the process leaves, and the process
    /// ends if it fails.
    #[must_use]
    pub fn task<F, R>(mut self, name: &'static str, task: F) -> Self
    where
        F: FnOnce(Draining) -> R + Send + 'static,
        R: Future<Output = anyhow::Result<()>> + Send + 'static,
    {
        self.tasks.push((name, Box::new(move |draining| Box::pin(task(draining)))));
        self
    }

    /// Serves until `stop` resolves or a task fails, then leaves in order: not ready, wait,
    /// no new calls, calls finish, tasks finish, databases close.
    ///
    /// # Errors
    /// A task failed, or the contract's descriptors are malformed.
    pub async fn serve(mut self, stop: impl Future<Output = ()>) -> anyhow::Result<Ended> {
        let started = clock::instant();
        let auth = self.auth()?;
        let checks = std::mem::take(&mut self.checks);
        let readiness = Readiness::new(self.with_keys_check(checks));
        let admin = server::admin(readiness.missing(), started);
        let admin = tower::util::MapResponse::new(admin, |response: Response<axum::body::Body>| {
            response.map(Body::new)
        });
        let wire = if self.edge.is_some() { Wire::Http } else { Wire::Http2 };
        let service = self.service(auth, &readiness)?;

        let mut tasks = JoinSet::new();
        for (name, task) in std::mem::take(&mut self.tasks) {
            let draining = self.draining.clone();
            tasks.spawn(
                async move { task(draining).await.with_context(|| format!("{name} failed")) },
            );
        }
        let mut listening = JoinSet::new();
        listening.spawn(readiness.keep(self.draining.clone()));
        listening.spawn(Arc::clone(&self.admin).serve(Wire::Http, admin));
        listening.spawn(Arc::clone(&self.listener).serve(wire, service));
        tracing::info!(listen = %self.address, "{} listens on {}", self.name, self.address);

        let failed = tokio::select! {
            () = stop => None,
            error = failure(&mut tasks) => Some(error),
        };
        let ended = self.leave(tasks).await;
        match failed {
            Some(error) => Err(error),
            None => Ok(ended),
        }
    }

    /// The phases of a shutdown; see `serve`.
    async fn leave(self, mut tasks: JoinSet<anyhow::Result<()>>) -> Ended {
        tracing::info!("leaving");
        self.draining.begin();
        tokio::time::sleep(self.config.propagation).await;

        self.listener.leave();
        self.tracker.close();
        let drained = async {
            self.listener.drained().await;
            self.tracker.wait().await;
            while let Some(ended) = tasks.join_next().await {
                if let Ok(Err(error)) = ended {
                    tracing::warn!(error = format!("{error:#}"), "a task failed while leaving");
                }
            }
        };
        let in_time = tokio::time::timeout(self.config.drain, drained).await.is_ok();
        if !in_time {
            let connections = self.listener.abort().await;
            tracing::warn!(connections, detached = self.tracker.len(), "cut what took too long");
        }
        tasks.shutdown().await;
        let close = futures_util::future::join_all(self.closers.into_iter().map(|close| close()));
        let closed = tokio::time::timeout(CLOSE, close).await.is_ok();
        self.admin.leave();
        self.admin.abort().await;
        if in_time && closed { Ended::Drained } else { Ended::Cut }
    }

    /// Without the issuer's keys nobody can be let in.
    fn with_keys_check(
        &mut self,
        mut checks: Vec<(&'static str, server::Check)>,
    ) -> Vec<(&'static str, server::Check)> {
        if self.config.issuer.is_some() {
            let keys = self.keys.clone();
            checks.push((
                "keys",
                Box::new(move || {
                    let keys = keys.clone();
                    Box::pin(async move {
                        let known = keys.refresh(Duration::from_secs(300)).await;
                        known.then_some(()).ok_or("the issuer's keys are not known yet".to_owned())
                    })
                }),
            ));
        }
        checks
    }

    fn service(&mut self, auth: Auth, readiness: &Readiness) -> anyhow::Result<Edge> {
        if let Some(edge) = self.edge.take() {
            return Ok(edge);
        }
        let names = std::mem::take(&mut self.names);
        let mut routes = std::mem::take(&mut self.routes);
        for reflection in [Reflection::V1, Reflection::V1Alpha] {
            reflection.add(self.descriptors, &names, &mut routes)?;
        }
        routes.add_service(server::health(names, readiness.ready()));
        let longest = std::mem::take(&mut self.longest);
        let calls = Calls::new(
            routes.routes(),
            auth,
            self.config.call_timeout,
            longest,
            self.tracker.clone(),
        );
        Ok(BoxCloneSyncService::new(calls))
    }
}

impl fmt::Debug for App {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("App").field("name", &self.name).field("address", &self.address).finish()
    }
}

/// How a process ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ended {
    /// Everything finished by itself.
    Drained,
    /// Something took too long and was cut.
    Cut,
}

/// The two versions of server reflection that clients ask.
#[derive(Clone, Copy, Debug)]
enum Reflection {
    V1,
    V1Alpha,
}

// === impl Reflection ===

impl Reflection {
    fn add(
        self,
        descriptors: &'static [u8],
        names: &[&'static str],
        routes: &mut RoutesBuilder,
    ) -> anyhow::Result<()> {
        let mut builder = tonic_reflection::server::Builder::configure()
            .register_encoded_file_descriptor_set(descriptors)
            .register_encoded_file_descriptor_set(tonic_health::pb::FILE_DESCRIPTOR_SET)
            .with_service_name("grpc.health.v1.Health");
        for name in names {
            builder = builder.with_service_name(*name);
        }
        let malformed = "the contract's descriptors cannot be reflected";
        match self {
            Self::V1 => routes.add_service(builder.build_v1().context(malformed)?),
            Self::V1Alpha => routes.add_service(builder.build_v1alpha().context(malformed)?),
        };
        Ok(())
    }
}

/// Reads the settings, sets up telemetry and runtime, and serves what `app` builds until a
/// signal ends it. Exits 0 if everything finished by itself, 1 if something failed or was cut,
/// 2 on settings that are wrong; a second signal exits at once.
pub fn run<C, F, R>(app: F) -> ExitCode
where
    C: clap::Parser + AsRef<Config>,
    F: FnOnce(C) -> R,
    R: Future<Output = anyhow::Result<App>>,
{
    let config = C::parse();
    let shared = config.as_ref().clone();
    telemetry::init(C::command().get_name(), &shared);
    let mut builder = match shared.runtime {
        Flavour::Current => tokio::runtime::Builder::new_current_thread(),
        Flavour::Multi => tokio::runtime::Builder::new_multi_thread(),
    };
    let served =
        builder.enable_all().build().context("cannot start the runtime").and_then(|runtime| {
            let served = runtime.block_on(async {
                let app = app(config).await?;
                app.serve(signal()?).await
            });
            runtime.shutdown_timeout(Duration::from_secs(1));
            served
        });
    match served {
        Ok(Ended::Drained) => ExitCode::SUCCESS,
        Ok(Ended::Cut) => ExitCode::FAILURE,
        Err(error) => {
            tracing::error!("{error:#}");
            ExitCode::FAILURE
        }
    }
}

/// Resolves at the first signal to end; at the second the process ends there and then.
fn signal() -> anyhow::Result<Pin<Box<dyn Future<Output = ()> + Send>>> {
    use tokio::signal::unix::{SignalKind, signal};
    let mut terminate = signal(SignalKind::terminate()).context("cannot wait for SIGTERM")?;
    let mut interrupt = signal(SignalKind::interrupt()).context("cannot wait for SIGINT")?;
    let (first, told) = tokio::sync::oneshot::channel();
    #[expect(clippy::disallowed_methods, reason = "waits for signals until the process ends")]
    tokio::spawn(async move {
        let mut next = async || {
            tokio::select! {
                _ = terminate.recv() => {}
                _ = interrupt.recv() => {}
            }
        };
        next().await;
        // Nobody listens any more once the process is leaving for another reason.
        let _heard = first.send(()).is_ok();
        next().await;
        tracing::warn!("second signal: ending at once");
        std::process::exit(1);
    });
    Ok(Box::pin(async move {
        // An error would mean that the task above is gone; then no signal comes either.
        if told.await.is_err() {
            std::future::pending::<()>().await;
        }
    }))
}

/// The first failure among the tasks; never, if they all end well.
async fn failure(tasks: &mut JoinSet<anyhow::Result<()>>) -> anyhow::Error {
    while let Some(ended) = tasks.join_next().await {
        match ended {
            Ok(Ok(())) => {}
            Ok(Err(error)) => return error,
            Err(panic) => return anyhow::Error::new(panic).context("a task panicked"),
        }
    }
    std::future::pending().await
}

fn bind(
    address: Option<SocketAddr>,
    flag: &str,
    allow_plaintext: bool,
) -> anyhow::Result<TcpListener> {
    let address = address.with_context(|| format!("{flag} is missing"))?;
    anyhow::ensure!(
        allow_plaintext || address.ip().is_loopback(),
        "{flag} {address} is not loopback and calls are not encrypted; --allow-plaintext allows it"
    );
    TcpListener::bind(address).with_context(|| {
        format!("cannot listen on {address}; is another process there? {flag} takes another port")
    })
}
