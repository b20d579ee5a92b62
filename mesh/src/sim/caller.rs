//! A simulated caller: a process with channels of its own, and what becomes of its calls.

use std::time::Duration;

use tokio::task::JoinSet;
use tonic::{Code, Response, Status};

use super::World;
use crate::{
    Channel, Ctx,
    client::Hosts,
    clock,
    ctx::Trace,
    registry::Registry,
    wire::ordermesh::auth::v1::{
        GetJwksRequest, RevokeTokenRequest, tokens_service_client::TokensServiceClient,
    },
};

/// How long a call of a load may take.
pub(super) const PATIENCE: Duration = Duration::from_secs(5);

/// A process that calls others.
pub(super) struct Caller {
    name: String,
    hosts: Hosts,
    pub(super) registry: Registry,
}

/// What is called.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// May be repeated.
    Read,
    /// May not.
    Write,
    /// Every third call is a write.
    Mixed,
}

/// What became of a call.
#[derive(Clone, Debug)]
pub(super) struct Done {
    pub(super) kind: Kind,
    /// When it began, in the time of the world.
    pub(super) began: Duration,
    pub(super) took: Duration,
    /// Who answered.
    pub(super) by: Result<String, Status>,
}

// === impl Caller ===

impl Caller {
    pub(super) fn new(world: &World, name: &str) -> Self {
        let (hosts, registry) = (world.net.from(name), world.registry.open());
        Self { name: name.to_owned(), hosts, registry }
    }

    /// How it reaches a service.
    pub(super) fn channel(&self, service: &str) -> Channel {
        Channel::over(service, self.registry.watch(service), self.hosts.clone())
    }

    /// Calls `channel` every `every` for `time`, however long the answers take; waits for all of
    /// them.
    pub(super) async fn load(
        &self,
        world: &World,
        channel: &Channel,
        kind: Kind,
        (every, time): (Duration, Duration),
    ) -> Vec<Done> {
        let mut calls = JoinSet::new();
        let (ends, mut number) = (world.at() + time, 0);
        let mut ticks = tokio::time::interval(every);
        while world.at() < ends {
            ticks.tick().await;
            let kind = match kind {
                Kind::Mixed if number % 3 == 0 => Kind::Write,
                Kind::Mixed => Kind::Read,
                Kind::Read | Kind::Write => kind,
            };
            let name = format!("{}-{}-{number}", self.name, world.at().as_millis());
            number += 1;
            let (world, channel) = (world.clone(), channel.clone());
            calls.spawn(async move { call(&world, &channel, kind, &name, PATIENCE).await });
        }
        calls.join_all().await
    }
}

// === impl Done ===

impl Done {
    pub(super) fn code(&self) -> Code {
        self.by.as_ref().map_or_else(Status::code, |_| Code::Ok)
    }
}

/// One call with a time of its own, under a context of its own.
pub(super) async fn call(
    world: &World,
    channel: &Channel,
    kind: Kind,
    name: &str,
    time: Duration,
) -> Done {
    let (began, since) = (world.at(), clock::instant());
    let by = Ctx::root(time, Trace::new())
        .scope(async {
            match kind {
                Kind::Read | Kind::Mixed => read(channel).await,
                Kind::Write => write(channel, name).await,
            }
        })
        .await;
    let done = Done { kind, began, took: since.elapsed(), by };
    world.history.note(format!("{name} {kind:?} {:?} {:?}", done.code(), done.by.as_ref().ok()));
    done
}

/// A call that may be repeated: who answered.
pub(super) async fn read(channel: &Channel) -> Result<String, Status> {
    let mut client = TokensServiceClient::new(channel.clone());
    client.get_jwks(GetJwksRequest {}).await.map(|answer| host(&answer))
}

/// A call that may not.
async fn write(channel: &Channel, name: &str) -> Result<String, Status> {
    let request = RevokeTokenRequest { refresh_token: name.to_owned() };
    let mut client = TokensServiceClient::new(channel.clone());
    client.revoke_token(request).await.map(|answer| host(&answer))
}

fn host<T>(answer: &Response<T>) -> String {
    let host = answer.metadata().get("host");
    host.map(|host| host.to_str().unwrap().to_owned()).unwrap_or_default()
}
