//! The life of a process: serving, and leaving in order.

use std::{collections::HashSet, future::Future, sync::Arc, time::Duration};

use anyhow::Context as _;
use http::Response;
use tokio::task::JoinSet;
use tonic::{body::Body, service::RoutesBuilder};
use tower::util::BoxCloneSyncService;

use super::{App, Edge, Ended, known::Registered};
use crate::{
    auth::Auth,
    clock,
    registry::Lease,
    server::{self, Calls, Limits, Readiness, Wire},
};

/// After the drain: how long relays, pools and the like may take to close.
const CLOSE: Duration = Duration::from_secs(4);

/// The two versions of server reflection that clients ask.
#[derive(Clone, Copy, Debug)]
enum Reflection {
    V1,
    V1Alpha,
}

// === impl App ===

impl App {
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
        let registration = self.registration(&readiness)?;
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
        let lease = registered.keep(self.registry.register(registration));

        let failed = tokio::select! {
            () = stop => None,
            error = failure(&mut tasks) => Some(error),
            why = lease.standing().refused() => Some(anyhow::Error::new(why).context("cannot register")),
        };
        let ended = self.leave(tasks, lease).await;
        match failed {
            Some(error) => Err(error),
            None => Ok(ended),
        }
    }

    /// The phases of a shutdown; see `serve`.
    async fn leave(self, mut tasks: JoinSet<anyhow::Result<()>>, lease: Lease) -> Ended {
        tracing::info!("leaving");
        self.draining.begin();
        lease.leave().await;
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
        let mutations = if self.config.failpoints {
            mutations(self.descriptors).context("the contract's descriptors are malformed")?
        } else {
            HashSet::new()
        };
        let calls = Calls::new(
            routes.routes(),
            auth,
            Limits { longest: self.config.call_timeout, by_path: longest, mutations },
            self.tracker.clone(),
        );
        Ok(BoxCloneSyncService::new(calls))
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

/// The paths of the methods that change something: those whose request says which attempt it is.
fn mutations(descriptors: &[u8]) -> Result<HashSet<String>, prost_reflect::DescriptorError> {
    let pool = prost_reflect::DescriptorPool::decode(descriptors)?;
    let methods = pool.services().flat_map(|service| service.methods().collect::<Vec<_>>());
    let changes = |method: &prost_reflect::MethodDescriptor| {
        let request = method.input();
        ["request_id", "command"].iter().any(|name| request.get_field_by_name(name).is_some())
    };
    let path = |method: prost_reflect::MethodDescriptor| {
        format!("/{}/{}", method.parent_service().full_name(), method.name())
    };
    Ok(methods.filter(changes).map(path).collect())
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
