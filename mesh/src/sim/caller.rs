//! A simulated caller: a process with channels of its own, and what becomes of its calls.

use std::time::Duration;

use tokio::task::JoinSet;
use tokio_util::task::TaskTracker;
use tonic::{Code, Request, Response, Status};

use super::World;
use crate::{
    Channel, Ctx,
    client::{Hosts, Long, fallback},
    clock,
    ctx::{Criticality, Inbound, Trace},
    log::service::LONGEST,
    registry::Registry,
    wire::ordermesh::{
        auth::v1::{
            GetJwksRequest, RevokeTokenRequest, tokens_service_client::TokensServiceClient,
        },
        events::v1::{SubscribeRequest, event_log_service_client::EventLogServiceClient},
    },
};

/// How long a call of a load may take, unless its caller says otherwise.
pub(super) const PATIENCE: Duration = Duration::from_secs(5);
/// Without a message for so long a stream is given up: a consumer does so.
const SILENCE: Duration = Duration::from_secs(40);
/// Between two attempts to follow, at first and at most: those of a consumer.
const PAUSE: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(5));

/// A process that calls others.
pub(super) struct Caller {
    name: String,
    hosts: Hosts,
    pub(super) registry: Registry,
    pub(super) manner: Manner,
}

/// How the calls of a load are made.
#[derive(Clone, Copy, Debug)]
pub(super) struct Manner {
    /// How long each may take.
    pub(super) patience: Duration,
    pub(super) criticality: Criticality,
    /// Whether it does without an answer, where there is none.
    pub(super) falls_back: bool,
}

/// A message that a stream brought.
#[derive(Clone, Debug)]
pub(super) struct Heard {
    /// When, in the time of the world.
    pub(super) at: Duration,
    pub(super) position: i64,
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
    /// Who answered; nobody, where the caller did without.
    pub(super) by: Result<String, Status>,
}

// === impl Caller ===

impl Caller {
    pub(super) fn new(world: &World, name: &str) -> Self {
        Self::with(world, name, Manner::default())
    }

    /// One whose load is made in its own manner.
    pub(super) fn with(world: &World, name: &str, manner: Manner) -> Self {
        let (hosts, registry) = (world.net.from(name), world.registry.open());
        Self { name: name.to_owned(), hosts, registry, manner }
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
            let (world, channel, manner) = (world.clone(), channel.clone(), self.manner);
            calls.spawn(async move { made(&world, &channel, kind, &name, manner).await });
        }
        calls.join_all().await
    }

    /// Follows a log for `time`, and wherever the stream breaks off again from there, as a
    /// consumer does.
    pub(super) async fn follow(
        &self,
        world: &World,
        channel: &Channel,
        time: Duration,
    ) -> Vec<Heard> {
        let (mut heard, mut pause) = (Vec::new(), PAUSE.0);
        let follows = async {
            loop {
                let began = clock::instant();
                let read = self.read(world, channel, &mut heard);
                let ended = Ctx::root(LONGEST, Trace::new()).scope(read).await;
                world.history.note(format!("{} follows no more: {ended:?}", self.name));
                pause = if began.elapsed() > PAUSE.1 { PAUSE.0 } else { (pause * 2).min(PAUSE.1) };
                tokio::time::sleep(pause.mul_f64(0.5 + fastrand::f64() / 2.0)).await;
            }
        };
        let _elapsed: Result<(), _> = tokio::time::timeout(time, follows).await;
        heard
    }

    /// Reads one stream to its end.
    async fn read(
        &self,
        world: &World,
        channel: &Channel,
        heard: &mut Vec<Heard>,
    ) -> Result<(), Status> {
        let after = heard.last().map_or(0, |heard| heard.position);
        let mut request = Request::new(SubscribeRequest { after, types: Vec::new() });
        request.extensions_mut().insert(Long);
        let response = EventLogServiceClient::new(channel.clone()).subscribe(request).await?;
        let mut stream = response.into_inner();
        loop {
            let message = tokio::time::timeout(SILENCE, stream.message()).await;
            let Some(message) = message.unwrap_or(Ok(None))? else { return Ok(()) };
            world.history.note(format!("{} hears {}", self.name, message.position));
            heard.push(Heard { at: world.at(), position: message.position });
        }
    }
}

// === impl Manner ===

impl Default for Manner {
    fn default() -> Self {
        Self { patience: PATIENCE, criticality: Criticality::Normal, falls_back: false }
    }
}

// === impl Done ===

impl Done {
    pub(super) fn code(&self) -> Code {
        self.by.as_ref().map_or_else(Status::code, |_| Code::Ok)
    }

    /// Whether a process answered.
    pub(super) fn answered(&self) -> bool {
        self.by.as_ref().is_ok_and(|by| !by.is_empty())
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
    made(world, channel, kind, name, Manner { patience: time, ..Manner::default() }).await
}

async fn made(world: &World, channel: &Channel, kind: Kind, name: &str, manner: Manner) -> Done {
    let (began, since) = (world.at(), clock::instant());
    let ctx = Ctx::served(
        since + manner.patience,
        Trace::new(),
        TaskTracker::new(),
        None,
        Inbound { criticality: manner.criticality, ..Inbound::default() },
    );
    let asks = async {
        match kind {
            Kind::Read | Kind::Mixed => read(channel).await,
            Kind::Write => write(channel, name).await,
        }
    };
    let by = if manner.falls_back {
        let asks = async { asks.await.map(Response::new) };
        ctx.scope(fallback(asks, async |_why| Ok(String::new()))).await
    } else {
        ctx.scope(asks).await
    };
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
