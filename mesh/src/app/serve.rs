//! The life of a process: serving, and leaving in order.

use std::{
    future::Future,
    net::IpAddr,
    pin::Pin,
    sync::{Arc, PoisonError},
    time::Duration,
};

use anyhow::Context as _;
use http::Response;
use tokio::task::{JoinHandle, JoinSet};
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use tonic::{body::Body, service::RoutesBuilder};

use super::{App, Edge, Ended, known::Registered};
use crate::{
    auth::Auth,
    client::Dependency,
    clock,
    config::setting,
    registry::Lease,
    server::{self, Accept, Calls, Clients, Limiter, Listener, Methods, Readiness, Wire},
    telemetry::{self, spans::HOME},
};

/// After the drain: how long relays, pools and the like may take to close.
const CLOSE: Duration = Duration::from_secs(4);

/// After that: how long the last spans may take.
const FLUSH: Duration = Duration::from_secs(2);

/// How far a process that leaves has come, as its metrics say it.
#[derive(Clone, Copy, Debug)]
enum Phase {
    /// Not ready, and still serving until others have seen it.
    Leave,
    /// No new calls; those under way finish.
    Drain,
    /// Databases close.
    Close,
}

/// What a process serves.
enum Service {
    /// As it is: a box around it would be made anew for every call.
    Grpc(Calls),
    Edge(Edge),
}

/// The two versions of server reflection that clients ask.
#[derive(Clone, Copy, Debug)]
enum Reflection {
    V1,
    V1Alpha,
}

// === impl App ===

impl App {
    /// Serves no more than `most` connections of one client at once. `who` says which client one
    /// that comes from an address is of, and nothing where it is not counted. Beyond that they are
    /// closed: with 429, where it is not for TLS to say it.
    #[must_use]
    pub fn connections_per_client(
        self,
        most: usize,
        who: impl Fn(IpAddr) -> Option<IpAddr> + Send + Sync + 'static,
    ) -> Self {
        self.listener.bound_by(Clients::new(most, who));
        self
    }

    /// Warns of settings that change nothing.
    fn doubt(&self) {
        let channels = self.channels.lock().unwrap_or_else(PoisonError::into_inner);
        let is_callee = |name: &str| channels.contains_key(name) || self.outside.contains(&name);
        let is_method = |name: &str| self.methods.facts(name).is_some();
        for unknown in Dependency::unknown(&self.config.dependencies, is_callee, is_method) {
            tracing::warn!(unknown, "--dependency speaks of {unknown}, which is not called here");
        }
    }

    /// Serves until `stop` resolves or a task fails, then leaves in order: not ready, wait,
    /// no new calls, calls finish, tasks finish, databases close.
    ///
    /// # Errors
    /// A task failed, or the contract's descriptors are malformed.
    pub async fn serve(mut self, stop: impl Future<Output = ()>) -> anyhow::Result<Ended> {
        let started = clock::instant();
        self = self.serve_operators()?;
        let auth = self.auth()?;
        let checks = std::mem::take(&mut self.checks);
        let mut checks = self.with_keys_check(checks);
        let registered = Registered::check(&mut checks);
        let readiness = Readiness::new(checks);
        let mut admin = server::admin(readiness.missing(), started);
        if self.config.failpoints {
            admin = server::failpoints(admin);
        }
        let admin = tower::util::MapResponse::new(admin, |response: Response<axum::body::Body>| {
            response.map(Body::new)
        });
        let wire = if self.edge.is_some() { Wire::Http } else { Wire::Http2 };
        let registration = setting(self.registration(&readiness))?;
        let service = self.service(auth, &readiness)?;
        self.doubt();

        let mut tasks = JoinSet::new();
        for (name, task) in std::mem::take(&mut self.tasks) {
            let draining = self.draining.clone();
            tasks.spawn(HOME.scope(self.spans.clone(), async move {
                task(draining).await.with_context(|| format!("{name} failed"))
            }));
        }
        let flushed = CancellationToken::new();
        let export = self.export.take().map(|export| tasks_beside(export.run(flushed.clone())));
        let mut listening = JoinSet::new();
        listening.spawn(readiness.keep(self.draining.clone()));
        let reload = self.config.tls.tls_reload;
        if let Some(connector) = self.connector.take() {
            listening.spawn(connector.keep(reload, self.draining.clone()));
        }
        if let Some(tls) = self.tls.take() {
            listening.spawn(tls.keep(reload, self.draining.clone()));
        }
        listening.spawn(Arc::clone(&self.admin).serve(Wire::Http, admin));
        let listener = Arc::clone(&self.listener);
        match service {
            Service::Grpc(calls) => listening.spawn(listener.serve(wire, calls)),
            Service::Edge(edge) => listening.spawn(listener.serve(wire, edge)),
        };
        tracing::info!(listen = %self.address, "{} listens on {}", self.name, self.address);
        let lease = registered.keep(self.registry.register(registration));

        let failed = tokio::select! {
            () = stop => None,
            error = failure(&mut tasks) => Some(error),
            why = lease.standing().refused() => Some(anyhow::Error::new(why).context("cannot register")),
        };
        let ended = self.leave(tasks, lease).await;
        flushed.cancel();
        if let Some(mut export) = export
            && tokio::time::timeout(FLUSH, &mut export).await.is_err()
        {
            export.abort();
            // What it did not get rid of is counted when it is dropped.
            let _cut = export.await.is_ok();
        }
        match failed {
            Some(error) => Err(error),
            None => Ok(ended),
        }
    }

    /// The phases of a shutdown; see `serve`.
    async fn leave(self, mut tasks: JoinSet<anyhow::Result<()>>, lease: Lease) -> Ended {
        tracing::info!("leaving");
        self.draining.begin();
        phase(Phase::Leave);
        lease.leave().await;
        tokio::time::sleep(self.config.propagation()).await;

        phase(Phase::Drain);
        let ended = async {
            while let Some(ended) = tasks.join_next().await {
                if let Ok(Err(error)) = ended {
                    tracing::warn!(error = format!("{error:#}"), "a task failed while leaving");
                }
            }
        };
        let in_time = drain(&self.listener, &self.tracker, self.config.drain, ended).await;
        phase(Phase::Close);
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
                        // Those that are known are good enough while the issuer is away.
                        let known = keys.are_known().await;
                        known.then_some(()).ok_or("the issuer's keys are not known yet".to_owned())
                    })
                }),
            ));
        }
        checks
    }

    fn service(&mut self, auth: Auth, readiness: &Readiness) -> anyhow::Result<Service> {
        if let Some(edge) = self.edge.take() {
            return Ok(Service::Edge(edge));
        }
        let names = std::mem::take(&mut self.names);
        let mut routes = std::mem::take(&mut self.routes);
        for reflection in [Reflection::V1, Reflection::V1Alpha] {
            reflection.add(self.descriptors, &names, &mut routes)?;
        }
        routes.add_service(server::health(names, readiness.ready()));
        let methods = Methods::of(self.descriptors, self.config.call_timeout, &self.overrides)
            .context("the contract's descriptors are malformed")?;
        let limiter = Limiter::new(&self.config.server);
        let calls = Calls::new(
            routes.routes(),
            auth,
            methods,
            limiter,
            self.tracker.clone(),
            self.spans.clone(),
        );
        Ok(Service::Grpc(calls))
    }
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

/// Turns callers away and waits for calls, detached work and `tasks`, for as long as that may
/// take; then cuts what is left. Says whether all of it ended by itself.
pub(crate) async fn drain<A: Accept>(
    listener: &Listener<A>,
    detached: &TaskTracker,
    time: Duration,
    tasks: impl Future<Output = ()>,
) -> bool {
    listener.leave();
    detached.close();
    let drained = Box::pin(async {
        listener.drained().await;
        detached.wait().await;
        tasks.await;
    });
    let in_time = in_time(listener, time, drained).await;
    if !in_time {
        let connections = listener.abort().await;
        tracing::warn!(connections, detached = detached.len(), "cut what took too long");
    }
    in_time
}

/// Waits for the drain as long as it may take. Streams were told to end; those that did not
/// listen end before everything does.
async fn in_time<A: Accept>(
    listener: &Listener<A>,
    drain: Duration,
    mut drained: Pin<Box<impl Future<Output = ()>>>,
) -> bool {
    let (told, rest) = (drain * 4 / 5, drain / 5);
    if tokio::time::timeout(told, &mut drained).await.is_ok() {
        return true;
    }
    listener.end_streams();
    tokio::time::timeout(rest, drained).await.is_ok()
}

fn phase(phase: Phase) {
    let number = match phase {
        Phase::Leave => 1,
        Phase::Drain => 2,
        Phase::Close => 3,
    };
    telemetry::metrics().drain_phase.set(number);
}

/// What ends after everything else.
#[expect(clippy::disallowed_methods, reason = "outlives the drain, which it reports of")]
fn tasks_beside(future: impl Future<Output = ()> + Send + 'static) -> JoinHandle<()> {
    tokio::spawn(future)
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
