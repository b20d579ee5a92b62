//! HTTP/JSON outside, gRPC inside: serves what descriptors say and knows nothing else.
//!
//! A request passes the [`edge`], which asks who calls and how much; [`route`] finds the rpc
//! that its path names; [`transcode`] makes its path, query and body one message, which goes
//! [`upstream`]; [`reply`] shapes what comes back, [`stream`] what comes bit by bit. `serve` is
//! these steps in their order, on the tables that [`schema`] makes from descriptors when the
//! process starts. What is refused on the way, and how that looks, is in [`error`].

use std::{
    convert::Infallible,
    future::Future,
    pin::Pin,
    sync::{Arc, OnceLock},
    task::{Context, Poll},
    time::Duration,
};

use anyhow::Context as _;
use bytes::Bytes;
use http::{Request, Response};
use mesh::{App, config::setting, telemetry::Spans};
use prost_reflect::DescriptorPool;
use tonic::body::Body;

pub mod config;
pub mod schema;
mod serve;
pub mod edge;
pub mod route;
pub mod transcode;
pub mod upstream;
pub mod reply;
pub mod stream;
pub mod error;
mod observe;

pub use config::Config;

use edge::{
    auth::{Verify, by_mesh},
    client_ip::{Network, holder},
    cors::Origin,
    limits::Limits,
    rate_limit::Limiter,
};
use route::trie::Router;
use schema::{
    Binding,
    compile::{Access, compile},
};
use stream::Leaving;
use upstream::{Pattern, Upstream};

/// The gateway as one HTTP service. Cheap to clone.
#[derive(Clone)]
pub struct Gateway(Arc<Inner>);

struct Inner {
    pool: DescriptorPool,
    router: Router<Route>,
    verify: Verify,
    limiter: Limiter,
    limits: Limits,
    trusted_proxies: Vec<Network>,
    cors_origins: Vec<Origin>,
    default_timeout: Duration,
    max_timeout: Duration,
    max_stream_age: Duration,
    leaving: Leaving,
    ignored_parameters: Vec<String>,
    /// Where spans of requests go, once it is served in a process.
    spans: OnceLock<Spans>,
}

/// Where a path leads.
struct Route {
    /// A stream outlives its request.
    binding: Arc<Binding>,
    upstream: Upstream,
}

/// What the gateway asks of the rest of the process.
pub struct Outside<A, U> {
    /// Who may call `/package.Service/Method`.
    pub access: A,
    /// The upstream for a target: a name of the registry, or an address.
    pub upstream: U,
    /// Who a token was issued to.
    pub verify: Verify,
}

/// Builds the process.
///
/// # Errors
/// A port is taken, a setting cannot be understood, or two rpcs have one path.
#[expect(clippy::unused_async, reason = "every process of the mesh is built by an async function")]
pub async fn app(mut config: Config) -> anyhow::Result<App> {
    let mut app = App::new("gateway", proto::DESCRIPTORS, config.mesh.clone())?;
    if config.connections_per_client > 0 {
        let proxies = config.trusted_proxies.clone();
        let who = move |peer| holder(peer, &proxies);
        app = app.connections_per_client(config.connections_per_client, who);
    }
    // Tokens are issued by whoever the mesh says, under the contract that every issuer has.
    if let Some(issuer) = &config.mesh.issuer {
        let pattern = format!("ordermesh.auth.*={issuer}").parse::<Pattern>();
        config.upstreams.insert(0, setting(pattern.map_err(anyhow::Error::msg))?);
    }
    let pool = DescriptorPool::decode(proto::DESCRIPTORS).context("the contract is malformed")?;
    let auth = app.auth()?;
    let outside = Outside {
        access: |path: &str| auth.rule(path).map_or(Access::Token, access),
        upstream: |target: &str| Upstream::new(app.channel(target)),
        verify: by_mesh(auth.clone()),
    };
    let gateway = Gateway::new(pool, config, outside)?;
    Ok(gateway.on(app))
}

fn access(rule: &mesh::auth::Rule) -> Access {
    if rule.anonymous {
        Access::Anonymous
    } else if rule.roles.is_empty() && !rule.services.is_empty() {
        Access::Internal
    } else {
        Access::Token
    }
}

// === impl Gateway ===

impl Gateway {
    /// Serves it in a process. When that leaves, streams end after four fifths of the drain, so
    /// that what they say last still arrives.
    #[must_use]
    pub fn on(self, app: App) -> App {
        let leaving = self.0.leaving.clone();
        // One gateway is served in one process.
        let _first = self.0.spans.set(app.spans()).is_ok();
        app.http(self).task("streams", async move |draining| {
            draining.begun().await;
            leaving.begin();
            Ok(())
        })
    }

    /// Makes the tables. What cannot be served is left out with a warning that names it.
    ///
    /// # Errors
    /// Two rpcs have one method and path (S11): which one would win is nobody's guess.
    pub fn new<A, U>(
        pool: DescriptorPool,
        config: Config,
        outside: Outside<A, U>,
    ) -> anyhow::Result<Self>
    where
        A: Fn(&str) -> Access,
        U: Fn(&str) -> Upstream,
    {
        let compiled = compile(&pool, outside.access);
        for (path, problem) in compiled.skipped {
            tracing::warn!(rpc = path, "{path} has no route: {problem}");
        }
        let mut router = Router::<Route>::default();
        for binding in compiled.bindings {
            let path = binding.method.path.as_str().to_owned();
            let service = path.trim_start_matches('/').split('/').next().unwrap_or_default();
            let Some(target) = upstream::target(&config.upstreams, service) else {
                tracing::warn!(rpc = path, "{path} has no route: no upstream serves {service}");
                continue;
            };
            let (http, template) = (binding.http.clone(), binding.template.clone());
            if template.is_unusual() {
                tracing::warn!(rpc = path, "{} has segments after `**`", template.text);
            }
            let route = Route { binding: Arc::new(binding), upstream: (outside.upstream)(&target) };
            if let Err(taken) = router.insert(&http, &template, route) {
                let first = router.route(taken.by).map(|route| route.binding.method.path.as_str());
                anyhow::bail!(
                    "{http} {} is bound twice: by {} and by {path}",
                    template.text,
                    first.unwrap_or_default()
                );
            }
        }
        Ok(Self(Arc::new(Inner {
            pool,
            router,
            verify: outside.verify,
            limiter: Limiter::new(config.rate_limits),
            limits: Limits::default(),
            trusted_proxies: config.trusted_proxies,
            cors_origins: config.cors_origins,
            default_timeout: config.default_timeout,
            max_timeout: config.max_timeout,
            max_stream_age: config.max_stream_age,
            leaving: Leaving::new(config.mesh.propagation() + config.mesh.drain * 4 / 5),
            ignored_parameters: config.ignored_parameters,
            spans: OnceLock::new(),
        })))
    }
}

// === impl Inner ===

impl Inner {
    fn spans(&self) -> &Spans {
        self.spans.get_or_init(Spans::default)
    }
}

impl<B> tower::Service<Request<B>> for Gateway
where
    B: http_body::Body<Data = Bytes> + Send + 'static,
{
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<Response<Body>, Infallible>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<B>) -> Self::Future {
        let inner = Arc::clone(&self.0);
        Box::pin(async move { Ok(inner.serve(request).await) })
    }
}
