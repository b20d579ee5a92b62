//! The service that is called: it does nothing, after the delay that it was given.

use std::{
    pin::Pin,
    sync::{
        Arc, OnceLock,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use mesh::testing::{SpanCounter, SpanCounts};
use tokio_stream::{Stream, StreamExt as _};
use tonic::{Request, Response, Status};

use crate::api::{Ping, echo_service_server::EchoService};

/// Answers with what it gets.
#[derive(Clone, Debug, Default)]
pub struct Echoer {
    /// How long it takes to answer.
    pub delay: Duration,
    /// What it saw of its calls.
    pub seen: Arc<Seen>,
}

/// What calls brought along, while somebody wants to know.
#[derive(Debug, Default)]
pub struct Seen {
    /// Whether to look.
    pub looking: AtomicBool,
    /// Calls with a deadline of which something is left.
    pub deadlines: AtomicU64,
    /// Calls with a trace.
    pub traces: AtomicU64,
    spans: OnceLock<SpanCounter>,
}

/// The path of the rpc that stays open.
pub const HOLD: &str = "/mesh.bench.v1.EchoService/Hold";

/// The method that is measured, as metrics call it.
pub const ECHO: &str = "mesh.bench.v1.EchoService/Echo";

/// The path of the same.
pub const ECHO_PATH: &str = "/mesh.bench.v1.EchoService/Echo";

/// What every call sends: a name and a payload, a hundred bytes on the wire.
#[must_use]
pub fn ping() -> Ping {
    const PAYLOAD: &[u8] = &[7; 58];
    Ping { name: "orders/01932f6e-2f0a-7c1e-b3a5".to_owned(), payload: Bytes::from_static(PAYLOAD) }
}

// === impl Echoer ===

#[tonic::async_trait]
impl EchoService for Echoer {
    type HoldStream = Pin<Box<dyn Stream<Item = Result<Ping, Status>> + Send>>;

    async fn echo(&self, request: Request<Ping>) -> Result<Response<Ping>, Status> {
        if self.seen.looking.load(Ordering::Relaxed) {
            self.seen.look(&request);
        }
        if !self.delay.is_zero() {
            tokio::time::sleep(self.delay).await;
        }
        Ok(Response::new(request.into_inner()))
    }

    async fn hold(&self, request: Request<Ping>) -> Result<Response<Self::HoldStream>, Status> {
        let first = tokio_stream::iter([Ok(request.into_inner())]);
        Ok(Response::new(Box::pin(first.chain(tokio_stream::pending()))))
    }
}

// === impl Seen ===

impl Seen {
    /// Counts spans from here on: both ends of a call are to record theirs to this counter.
    pub fn record(&self) -> &SpanCounter {
        self.spans.get_or_init(SpanCounter::start)
    }

    /// The spans that have ended; none where nobody records any.
    #[must_use]
    pub fn spans(&self) -> SpanCounts {
        self.spans.get().map(SpanCounter::counts).unwrap_or_default()
    }

    fn look<T>(&self, request: &Request<T>) {
        let left = mesh::Ctx::current().map(|ctx| ctx.time_left());
        if left.is_some_and(|left| !left.is_zero())
            && request.metadata().contains_key("grpc-timeout")
        {
            self.deadlines.fetch_add(1, Ordering::Relaxed);
        }
        if request.metadata().contains_key("traceparent") {
            self.traces.fetch_add(1, Ordering::Relaxed);
        }
    }
}

#[cfg(test)]
mod tests {
    use prost::Message as _;

    use super::*;

    #[test]
    fn a_call_sends_about_a_hundred_bytes() {
        assert!((90..=110).contains(&ping().encoded_len()), "{}", ping().encoded_len());
    }
}
