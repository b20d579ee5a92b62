//! How a process stays known: registered, registered again and again, and taken back at the end.

use std::{collections::BTreeMap, fmt, time::Duration};

use futures_util::future::BoxFuture;
use tokio::{sync::watch, task::JoinHandle};
use tokio_util::sync::CancellationToken;

use super::{Address, Failure, cache::Backoff};
use crate::telemetry;

/// How long leaving may take, all in all: what is under way, and one word more.
const LEAVE: Duration = Duration::from_secs(4);

/// One instance of a service, as others are to know it.
#[derive(Clone, Debug)]
pub struct Registration {
    /// What it is called by.
    pub service: String,
    /// What tells it from its peers; the same after a restart.
    pub id: String,
    /// Where others reach it.
    pub address: Address,
    /// How the registry finds out whether it is ready.
    pub health: Health,
    /// Whether it is, for a registry that does not ask but wants to be told.
    pub ready: watch::Receiver<bool>,
    /// Its share of the calls, relative to its peers.
    pub weight: u32,
    /// What it says of itself.
    pub meta: BTreeMap<String, String>,
}

/// What a registry asks an instance to find out whether it is ready.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Health {
    /// gRPC health, for the service of this name.
    Grpc(String),
    /// The same over TLS.
    GrpcOverTls {
        /// The service.
        service: String,
        /// Whether whoever asks has to show a certificate.
        mutual: bool,
    },
    /// A URL that answers 200.
    Http(String),
}

/// A registration that is kept until it is left. Dropped without that it is forgotten by the
/// registry in its own time.
pub struct Lease {
    id: String,
    standing: Standing,
    stop: CancellationToken,
    task: Option<JoinHandle<Box<dyn Keeper>>>,
}

/// How a registration stands. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Standing(watch::Receiver<State>);

#[derive(Clone, Debug, PartialEq, Eq)]
enum State {
    /// It has not succeeded yet; why not, if it was tried.
    New(Option<Failure>),
    Registered,
    /// It had succeeded, and now it does not.
    Unsure,
}

/// What a kind of registry does to keep an instance known.
pub(super) trait Keeper: Send {
    /// Makes the instance known, whether or not it is; when to do so again.
    fn keep(&mut self) -> BoxFuture<'_, Result<Duration, Failure>>;

    /// Resolves when it had better be done sooner than that.
    fn sooner(&mut self) -> BoxFuture<'_, ()>;

    /// Takes it back.
    fn leave(&mut self) -> BoxFuture<'_, Result<(), Failure>>;
}

// === impl Lease ===

impl Lease {
    pub(super) fn keep(id: String, keeper: Box<dyn Keeper>) -> Self {
        let state = watch::Sender::new(State::New(None));
        let standing = Standing(state.subscribe());
        let stop = CancellationToken::new();
        #[expect(clippy::disallowed_methods, reason = "ends with the lease, which waits for it")]
        let task = tokio::spawn(keep(id.clone(), keeper, state, stop.clone()));
        Self { id, standing, stop, task: Some(task) }
    }

    /// Where somebody else registers.
    pub(super) fn nothing_to_do(id: String) -> Self {
        let standing = Standing(watch::channel(State::Registered).1);
        telemetry::metrics().registered.set(1);
        Self { id, standing, stop: CancellationToken::new(), task: None }
    }

    /// Whether the registry has taken the instance in at least once.
    #[must_use]
    pub fn ready(&self) -> bool {
        self.standing.missing().is_none()
    }

    /// How it stands, for as long as the lease is kept.
    #[must_use]
    pub fn standing(&self) -> Standing {
        self.standing.clone()
    }

    /// Takes the registration back. What is under way comes to its end first: registered again
    /// after that the instance would stay.
    pub async fn leave(mut self) {
        self.stop.cancel();
        let Some(mut task) = self.task.take() else { return };
        let left = tokio::time::timeout(LEAVE, async {
            match (&mut task).await {
                Ok(mut keeper) => keeper.leave().await.map_err(|error| error.to_string()),
                Err(panic) => Err(panic.to_string()),
            }
        });
        let left = left.await.unwrap_or_else(|_late| Err("no answer in time".to_owned()));
        task.abort();
        telemetry::metrics().registered.set(0);
        match left {
            Ok(()) => tracing::info!(instance = self.id, "{} is deregistered", self.id),
            Err(error) => tracing::warn!(
                error,
                instance = self.id,
                "{} is not deregistered; its health check will take it out",
                self.id
            ),
        }
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

impl fmt::Debug for Lease {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Lease").field("id", &self.id).field("standing", &self.standing).finish()
    }
}

// === impl Standing ===

impl Standing {
    /// What is missing until the registry has taken the instance in for the first time. Later
    /// failures are an alarm, and no reason to serve nobody.
    #[must_use]
    pub fn missing(&self) -> Option<String> {
        match &*self.0.borrow() {
            State::New(None) => Some("not registered yet".to_owned()),
            State::New(Some(failure)) => Some(format!("not registered yet: {failure}")),
            State::Registered | State::Unsure => None,
        }
    }

    /// Resolves if the registry refuses to take the instance in for the first time, or there is no
    /// trust between the two: no repeat changes that, and whoever set up the process should hear of it.
    pub async fn refused(mut self) -> Failure {
        let refused = |it: &State| matches!(it, State::New(Some(why)) if why.is_final());
        let why = match self.0.wait_for(refused).await.as_deref() {
            Ok(State::New(Some(failure))) => Some(failure.clone()),
            Ok(State::New(None) | State::Registered | State::Unsure) | Err(_) => None,
        };
        match why {
            Some(failure) => failure,
            None => std::future::pending().await,
        }
    }
}

async fn keep(
    id: String,
    mut keeper: Box<dyn Keeper>,
    state: watch::Sender<State>,
    stop: CancellationToken,
) -> Box<dyn Keeper> {
    let mut backoff = Backoff::default();
    while !stop.is_cancelled() {
        let wait = match keeper.keep().await {
            Ok(again) => {
                backoff = Backoff::default();
                telemetry::metrics().registered.set(1);
                if state.send_replace(State::Registered) != State::Registered {
                    tracing::info!(instance = id, "{id} is registered");
                }
                again
            }
            Err(failure) => {
                telemetry::metrics().registered.set(0);
                let was = state.borrow().clone();
                let (next, news) = match was {
                    State::New(was) => (State::New(Some(failure.clone())), was.is_none()),
                    State::Registered => (State::Unsure, true),
                    State::Unsure => (State::Unsure, false),
                };
                state.send_replace(next);
                if news {
                    tracing::warn!(instance = id, "{id} cannot be registered: {failure}");
                }
                backoff.next()
            }
        };
        tokio::select! {
            () = stop.cancelled() => break,
            () = tokio::time::sleep(wait) => {}
            () = keeper.sooner() => {}
        }
    }
    keeper
}
