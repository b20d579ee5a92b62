//! Staying registered at an agent that may forget us at any time.

use std::{net::IpAddr, sync::Arc, time::Duration};

use bytes::Bytes;
use futures_util::future::BoxFuture;
use serde_json::{Value, json};
use tokio::{sync::watch, time::Instant};

use super::{
    super::{
        Failure, Registration, Source as _,
        cache::jitter,
        lease::{Health, Keeper},
    },
    Agent, Check, Settings,
    follow::Follow,
    path,
};
use crate::clock;

/// The longest between two registrations: an agent that was started anew has forgotten us.
const RECONCILE: Duration = Duration::from_secs(30);
/// So much earlier at most, so that not everybody comes at once.
const EARLIER: Duration = Duration::from_secs(10);
/// The longest between two looks at an agent that is away.
const PROBE: Duration = Duration::from_secs(2);
/// How often we say that we are ready, where we are not asked.
const PULSE: Duration = Duration::from_secs(5);

/// What keeps one instance registered.
pub(super) struct Keep {
    agent: Arc<Agent>,
    check: Check,
    registration: Registration,
    returns: watch::Receiver<u64>,
    /// Waits for what others hear of us: when that breaks off, the agent may have forgotten.
    probe: Follow,
    /// When to register again.
    due: Option<Instant>,
}

// === impl Keep ===

impl Keep {
    pub(super) fn new(agent: Arc<Agent>, settings: &Settings, registration: Registration) -> Self {
        let returns = agent.returns.subscribe();
        let probe = Follow::new(Arc::clone(&agent), settings, &registration.service);
        let check = settings.check.unwrap_or(match &registration.health {
            // An agent would have to show a certificate, and be told which.
            Health::GrpcOverTls { mutual: true, .. } => Check::Told,
            Health::GrpcOverTls { mutual: false, .. } | Health::Grpc(_) | Health::Http(_) => {
                Check::Asked
            }
        });
        Self { agent, check, registration, returns, probe, due: None }
    }

    /// Registers when that is due, and says how we are where nobody asks.
    async fn again(&mut self) -> Result<Duration, Failure> {
        let returned = self.returns.has_changed().unwrap_or_default();
        if returned || self.due.is_none_or(|due| due <= clock::instant()) {
            self.due = None;
            self.register().await?;
            self.due = Some(clock::instant() + RECONCILE - jitter(EARLIER));
        }
        if self.check == Check::Told
            && let Err(failure) = self.tell().await
        {
            // It does not know this check, so it does not know us.
            self.due = None;
            return Err(failure);
        }
        // That the agent is there we have noticed ourselves.
        self.returns.mark_unchanged();
        let left =
            self.due.map_or(RECONCILE, |due| due.saturating_duration_since(clock::instant()));
        Ok(match self.check {
            Check::Asked => left,
            Check::Told => left.min(PULSE),
        })
    }

    async fn register(&self) -> Result<(), Failure> {
        let host = self.registration.address.bare();
        if host.parse::<IpAddr>().is_ok_and(|host| host.is_unspecified()) {
            let why =
                format!("{host} is nowhere others could call: --advertise says where they do");
            return Err(Failure::Denied(why));
        }
        let body = Bytes::from(self.body().to_string());
        let parameters = [("replace-existing-checks", "true")];
        self.agent.put("/v1/agent/service/register", &parameters, body).await
    }

    async fn tell(&self) -> Result<(), Failure> {
        let ready = *self.registration.ready.borrow();
        let verb = if ready { "pass" } else { "fail" };
        let check = format!("service:{}", self.registration.id);
        self.agent.put(&path(&format!("/v1/agent/check/{verb}/"), &check), &[], Bytes::new()).await
    }

    /// What Consul is told of the instance.
    fn body(&self) -> Value {
        let it = &self.registration;
        let grpc = |name: &str, tls: bool| {
            let slash = if name.is_empty() { "" } else { "/" };
            let target = format!("{}{slash}{name}", it.address);
            json!({ "GRPC": target, "GRPCUseTLS": tls, "Interval": "5s", "Timeout": "1s" })
        };
        let mut check = match (&self.check, &it.health) {
            (Check::Told, _) => json!({ "TTL": "15s" }),
            (Check::Asked, Health::Http(url)) => {
                json!({ "HTTP": url, "Interval": "5s", "Timeout": "1s" })
            }
            (Check::Asked, Health::Grpc(name)) => grpc(name, false),
            (Check::Asked, Health::GrpcOverTls { service, .. }) => grpc(service, true),
        };
        check["Status"] = "critical".into();
        // The shortest that Consul allows; it looks every 30 s.
        check["DeregisterCriticalServiceAfter"] = "1m".into();
        json!({
            "ID": it.id,
            "Name": it.service,
            "Address": it.address.bare(),
            "Port": it.address.port,
            "Meta": it.meta,
            "Weights": { "Passing": it.weight.max(1), "Warning": 1 },
            "Check": check,
        })
    }
}

impl Keeper for Keep {
    fn keep(&mut self) -> BoxFuture<'_, Result<Duration, Failure>> {
        Box::pin(self.again())
    }

    fn sooner(&mut self) -> BoxFuture<'_, ()> {
        Box::pin(async {
            let told = self.check == Check::Told;
            // Others forget us some seconds after the agent has come back without us: until then
            // it must know us again, and our check must have passed.
            let probe = async {
                loop {
                    if self.probe.next().await.is_err() {
                        tokio::time::sleep(jitter(PROBE)).await;
                    }
                }
            };
            let ready = async {
                if !told || self.registration.ready.changed().await.is_err() {
                    std::future::pending::<()>().await;
                }
            };
            tokio::select! {
                Ok(()) = self.returns.changed() => self.due = None,
                () = ready => {}
                () = probe => {}
            }
        })
    }

    fn leave(&mut self) -> BoxFuture<'_, Result<(), Failure>> {
        Box::pin(async {
            let path = path("/v1/agent/service/deregister/", &self.registration.id);
            match self.agent.put(&path, &[], Bytes::new()).await {
                // It has forgotten us already.
                Err(Failure::Answered(why)) if why.starts_with("404") => Ok(()),
                done => done,
            }
        })
    }
}
