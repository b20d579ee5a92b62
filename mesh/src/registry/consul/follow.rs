//! Following one service: a question that Consul holds until something has changed.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use futures_util::future::BoxFuture;
use http::{HeaderMap, Method};
use tokio::time::Instant;

use super::{
    super::{Answer, Failure, Source, cache::FRESH},
    Agent, Settings, answer, path,
};
use crate::clock;

/// Questions that may be asked without a pause. Consul advises 2, and one per 15 s after that:
/// too slow to follow three instances that are restarted one after the other.
const BURST: u32 = 10;
/// The pause between two questions, once those are used up.
const PAUSE: Duration = Duration::from_secs(1);

/// What asks about one service.
pub(super) struct Follow {
    agent: Arc<Agent>,
    service: String,
    datacenter: Option<String>,
    wait: Duration,
    /// What was known at the last answer; 0 asks without waiting.
    index: u64,
    bucket: Bucket,
}

/// Bounds how often is asked, without memory of more than one instant.
#[derive(Debug)]
pub(super) struct Bucket {
    /// When all permits will be there again.
    full_at: Instant,
}

// === impl Follow ===

impl Follow {
    pub(super) fn new(agent: Arc<Agent>, settings: &Settings, service: &str) -> Self {
        Self {
            agent,
            service: service.to_owned(),
            datacenter: settings.datacenter.clone(),
            wait: settings.wait,
            index: 0,
            bucket: Bucket::full(clock::instant()),
        }
    }

    async fn ask(&mut self) -> Result<Answer, Failure> {
        tokio::time::sleep(self.bucket.wait(clock::instant())).await;
        // What was known to an agent that is silent now may mean nothing to the next answer:
        // without an index it comes at once.
        let index = std::mem::take(&mut self.index).to_string();
        let wait = format!("{}s", self.wait.as_secs());
        let mut parameters = vec![("passing", "true"), ("stale", ""), ("wait", wait.as_str())];
        if index != "0" {
            parameters.push(("index", &index));
        }
        if let Some(datacenter) = &self.datacenter {
            parameters.push(("dc", datacenter));
        }
        let path = path("/v1/health/service/", &self.service);
        // Consul adds up to a sixteenth, so that not everybody comes back at once.
        let held = self.wait * 17 / 16;
        let timeout = held + Duration::from_secs(5);
        let asked = self.agent.ask(Method::GET, &path, &parameters, Bytes::new(), timeout);
        let (head, body) = asked.await?.into_parts();
        let instances = answer::instances(&body)?;
        if instances.is_empty() {
            answer::worth_believing(&head.headers)?;
        }
        self.index = next_index(index.parse().unwrap_or_default(), &head.headers);
        Ok(Answer { instances, fresh: FRESH.max(held + Duration::from_secs(1)) })
    }
}

impl Source for Follow {
    fn next(&mut self) -> BoxFuture<'_, Result<Answer, Failure>> {
        Box::pin(self.ask())
    }
}

// === impl Bucket ===

impl Bucket {
    /// With all permits there.
    pub(super) fn full(at: Instant) -> Self {
        Self { full_at: at }
    }

    /// Takes one permit; how long to wait until it may be used.
    pub(super) fn wait(&mut self, at: Instant) -> Duration {
        let since = self.full_at.max(at);
        self.full_at = since + PAUSE;
        (since + PAUSE).saturating_duration_since(at + PAUSE * BURST)
    }
}

/// The index to wait beyond, by Consul's rules: one that went back is of another life and must
/// not be waited for; 0 would not wait at all, and none is taken for 0.
pub(super) fn next_index(asked: u64, headers: &HeaderMap) -> u64 {
    let answered = headers.get("x-consul-index").and_then(|it| it.to_str().ok()?.parse().ok());
    let answered = answered.unwrap_or(0).max(1);
    if answered < asked { 0 } else { answered }
}
