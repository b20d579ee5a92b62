//! A process: what it listens on, what it serves, what runs beside, and how it leaves.

mod callees;
mod events;
mod known;
mod run;
mod serve;
mod settings;

use std::{
    collections::HashMap,
    convert::Infallible,
    fmt,
    future::Future,
    net::{SocketAddr, TcpListener},
    sync::{Arc, Mutex},
    time::Duration,
};

use anyhow::Context as _;
use futures_util::future::BoxFuture;
use http::{Request, Response};
use hyper::body::Incoming;
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use tonic::{body::Body, server::NamedService, service::RoutesBuilder};
use tower::{Service, util::BoxCloneSyncService};

use crate::{
    Channel,
    auth::{Auth, Keys, Rules, SignIn},
    clean_up,
    client::Methods,
    config::{Bound, Config, setting},
    registry::Registry,
    server::{self, Listener},
    store,
    telemetry::{self, Spans, spans::export::Export},
    tls,
};

pub use run::{run, run_beside};
#[cfg(test)]
pub(crate) use serve::drain;

type Task = Box<dyn FnOnce(Draining) -> BoxFuture<'static, anyhow::Result<()>> + Send>;
type Closer = Box<dyn FnOnce() -> BoxFuture<'static, ()> + Send>;
type Edge = BoxCloneSyncService<Request<Incoming>, Response<Body>, Infallible>;

/// A process in the making; [`run()`] serves it.
pub struct App {
    name: &'static str,
    descriptors: &'static [u8],
    methods: Arc<Methods>,
    config: Box<Config>,
    listener: Arc<Listener>,
    admin: Arc<Listener>,
    address: SocketAddr,
    admin_port: u16,
    tls: Option<tls::Acceptor>,
    /// With `--tls-ca`: how callees are reached.
    connector: Option<tls::Connector>,
    registry: Registry,
    sign_in: SignIn,
    keys: Keys,
    channels: Mutex<HashMap<String, Channel>>,
    /// Who is called beside them, outside of the mesh.
    outside: Vec<&'static str>,
    routes: RoutesBuilder,
    names: Vec<&'static str>,
    edge: Option<Edge>,
    overrides: HashMap<&'static str, server::Override>,
    checks: Vec<(&'static str, server::Check)>,
    tasks: Vec<(&'static str, Task)>,
    closers: Vec<Closer>,
    /// What is served once it is known in whole.
    events: events::Events,
    /// Where spans go, and what takes them there.
    spans: Spans,
    export: Option<Export>,
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
        #[cfg(debug_assertions)]
        if let Some(bug) = config.seeded_bug {
            bug.seed();
        }
        let methods =
            Methods::of(descriptors).context("the contract's descriptors are malformed")?;
        let registry = setting(known::registry(&config))?;
        let tls = setting(tls::Acceptor::new(&config.tls))?;
        let trusts = config.tls.tls_ca.is_some();
        let connector = trusts.then(|| setting(tls::Connector::new(config.tls.files())));
        let connector = connector.transpose()?;
        let bound = match config.bound.take() {
            Some(bound) => {
                Bound { listen: bound.listen.try_clone()?, admin: bound.admin.try_clone()? }
            }
            None => Bound {
                listen: bind(config.listen, "--listen", config.allow_plaintext || tls.is_some())?,
                admin: bind(config.admin_listen, "--admin-listen", config.allow_plaintext)?,
            },
        };
        let address = bound.listen.local_addr().context("cannot read the port")?;
        let admin_port = bound.admin.local_addr().context("cannot read the admin port")?.port();
        let instance = config.instance_id.clone().unwrap_or_else(|| format!("{name}@{address}"));
        let (spans, export) = setting(Export::of(name, &instance, &config))?.unzip();
        let mut app = Self {
            name,
            spans: spans.unwrap_or_default(),
            export,
            descriptors,
            methods: Arc::new(methods),
            listener: Arc::new(Listener::new(bound.listen, config.server.clone(), tls.clone())?),
            admin: Arc::new(Listener::new(bound.admin, server::Settings::default(), None)?),
            address,
            admin_port,
            tls,
            connector,
            registry,
            sign_in: SignIn::default(),
            keys: Keys::none(),
            channels: Mutex::default(),
            outside: Vec::new(),
            routes: RoutesBuilder::default(),
            names: Vec::new(),
            edge: None,
            overrides: HashMap::new(),
            checks: Vec::new(),
            tasks: Vec::new(),
            closers: Vec::new(),
            events: events::Events::default(),
            draining: Draining::default(),
            tracker: TaskTracker::new(),
            config: Box::new(config),
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
        let unreadable = || format!("cannot read the client secret {}", path.display());
        let secret = setting(std::fs::read_to_string(path).with_context(unreadable))?;
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

    /// Where spans go of what this process does; for an edge that serves them itself.
    #[must_use]
    pub fn spans(&self) -> Spans {
        self.spans.clone()
    }

    /// Its spans go to whom a test says.
    #[cfg(feature = "testing")]
    pub(crate) fn record_to(self, spans: Spans) -> Self {
        Self { spans, ..self }
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
        self.overrides.entry(path).or_default().longest = Some(timeout);
        self
    }

    /// Serves the method at `path`, as `/package.Service/Method`, to no more than `calls` at once:
    /// a heavy one cannot starve the others. Beyond that: `RESOURCE_EXHAUSTED` `BULKHEAD_FULL`.
    #[must_use]
    pub fn bulkhead(mut self, path: &'static str, calls: usize) -> Self {
        self.overrides.entry(path).or_default().bulkhead = Some(calls);
        self
    }

    /// Ready only while this database answers; closed as the last thing. What is too old in it to
    /// be asked for is deleted meanwhile.
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
        let old = store.clone();
        self.task("clean_up", move |draining| clean_up::keep(old, draining))
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

fn bind(
    address: Option<SocketAddr>,
    flag: &str,
    allow_plaintext: bool,
) -> anyhow::Result<TcpListener> {
    let address = setting(address.with_context(|| format!("{flag} is missing")))?;
    if !allow_plaintext && !address.ip().is_loopback() {
        return setting(Err(anyhow::anyhow!(
            "{flag} {address} is not loopback and calls are not encrypted; --allow-plaintext allows it"
        )));
    }
    TcpListener::bind(address).with_context(|| {
        format!("cannot listen on {address}; is another process there? {flag} takes another port")
    })
}
