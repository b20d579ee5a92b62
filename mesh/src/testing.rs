//! The harness that tests of services use: a call's scope, fake callees, databases of their own.

use std::{convert::Infallible, future::Future, net::TcpListener, sync::Arc, time::Duration};

use http::Request;
use hyper::body::Incoming;
use tonic::{body::Body, service::Routes};
use tower::{ServiceExt as _, service_fn};

use crate::{
    Channel, Ctx,
    auth::Caller,
    config::Bound,
    ctx::Trace,
    registry::Address,
    server::{Listener, Settings, Wire},
};

mod authority;
mod collector;
mod consul;
mod database;
mod spans;
pub mod layers;
mod tokens;

pub use authority::*;
pub use collector::*;
pub use consul::*;
pub use database::*;
pub use spans::*;
pub use tokens::*;

/// How long a call in a test may take.
const PATIENCE: Duration = Duration::from_secs(5);

/// Runs `future` as a call of `caller`, with a deadline of 5 s, under a rule that admits
/// whatever the caller is: a plain customer reaches what is theirs, everybody else all.
pub async fn as_caller<F: Future>(caller: Caller, future: F) -> F::Output {
    let ctx = Ctx::root(PATIENCE, Trace::new());
    ctx.set_caller(caller);
    ctx.scope(future).await
}

/// Runs `future` as a call of nobody: what an anonymous rule lets in.
pub async fn as_nobody<F: Future>(future: F) -> F::Output {
    Ctx::root(PATIENCE, Trace::new()).scope(future).await
}

/// A callee made of `routes`, served on a free port of loopback until the test ends.
///
/// # Errors
/// No port is free.
pub fn channel(routes: Routes) -> anyhow::Result<Channel> {
    channel_named("fake", routes)
}

/// The same under a name, where a test tells by it which of several an answer does without.
///
/// # Errors
/// No port is free.
pub fn channel_named(name: &str, routes: Routes) -> anyhow::Result<Channel> {
    let bound = Bound::free()?.listen;
    let port = bound.local_addr()?.port();
    serve(bound, Settings::default(), routes)?;
    Ok(channel_to(name, port))
}

/// Serves `routes` by mesh's own accept loop, and by nothing that a call meets behind it.
///
/// # Errors
/// The socket cannot be watched.
#[expect(clippy::disallowed_methods, reason = "ends with the runtime of the test")]
pub fn serve(bound: TcpListener, settings: Settings, routes: Routes) -> anyhow::Result<()> {
    let listener = Arc::new(Listener::new(bound, settings, None)?);
    let routes = routes.prepare();
    let service = service_fn(move |request: Request<Incoming>| {
        let routes = routes.clone();
        async move {
            Ok::<_, Infallible>(match routes.oneshot(request.map(Body::new)).await {
                Ok(response) => response,
                Err(never) => match never {},
            })
        }
    });
    tokio::spawn(listener.serve(Wire::Http2, service));
    Ok(())
}

/// A callee on a port of loopback, called without a token of our own.
#[must_use]
pub fn channel_to(name: &str, port: u16) -> Channel {
    let address = Address { host: "127.0.0.1".to_owned(), port };
    Channel::to(name, &[address])
}

/// A callee that cannot be reached: nothing listens there.
///
/// # Errors
/// No port is free.
pub fn unreachable() -> anyhow::Result<Channel> {
    let bound = Bound::free()?;
    let port = bound.listen.local_addr()?.port();
    Ok(channel_to("unreachable", port))
}

/// No tables beyond mesh's own.
#[derive(Clone, Copy, Debug)]
pub struct NoTables;

impl NoTables {
    /// None.
    #[must_use]
    pub fn migrations() -> Vec<crate::store::Migration> {
        Vec::new()
    }
}

/// Each test on SQLite, and the same on PostgreSQL (ignored where there is none): functions that
/// take a [`TestDb`]. The type that is named first has the function `migrations`.
///
/// ```text
/// mesh::on_both_databases! { Store; rows_are_kept rows_are_found }
/// async fn rows_are_kept(db: TestDb) { … }
/// ```
#[macro_export]
macro_rules! on_both_databases {
    ($tables:ident; $($name:ident)*) => {
        mod sqlite {
            $(#[tokio::test]
            async fn $name() {
                super::$name($crate::testing::sqlite(super::$tables::migrations()).await).await;
            })*
        }
        mod postgres {
            $(#[tokio::test]
            #[ignore = "needs postgres"]
            async fn $name() {
                super::$name($crate::testing::postgres(super::$tables::migrations()).await).await;
            })*
        }
    };
}
