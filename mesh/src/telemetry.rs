//! What a process says about itself: log lines with the trace they belong to, and metrics.

use std::sync::{LazyLock, Once};

use prometheus_client::{
    metrics::{counter::Counter, family::Family, gauge::Gauge, histogram::Histogram},
    registry::Registry,
};
use tracing_subscriber::EnvFilter;

use crate::config::{Config, LogFormat};

mod labels;
mod lines;
pub mod names;
mod read;
pub(crate) mod spans;

pub use labels::{
    Answer, Breaker, Call, Consumer, Dependency, Refusal, Refused, Request, Source, Taken,
};
pub(crate) use read::watch;
use read::{Databases, Dependencies, Rootless, Silence};
pub use spans::{Span, Spans};

/// Bounds of every histogram of durations, in seconds (OpenTelemetry's advice for HTTP and RPC).
const SECONDS: [f64; 14] =
    [0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.25, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0];

/// The metrics of this process.
#[derive(Debug)]
pub struct Metrics {
    registry: Registry,
    /// Calls served, by method and status.
    pub server_calls: Family<Call, Histogram, fn() -> Histogram>,
    /// Calls made, by method and status.
    pub client_calls: Family<Call, Histogram, fn() -> Histogram>,
    /// HTTP requests served, by method, route template and status.
    pub http_requests: Family<Request, Histogram, fn() -> Histogram>,
    /// HTTP answers of 400 and above, by status.
    pub http_errors: Family<Answer, Counter>,
    /// Requests that nobody had begun with and that were sent again, by dependency.
    pub resent: Family<Dependency, Counter>,
    /// Instances that were taken out because they failed more than their peers, by dependency.
    pub ejections: Family<Dependency, Counter>,
    /// Calls that found no instance that could be reached, by dependency.
    pub no_endpoints: Family<Dependency, Counter>,
    /// Attempts after the first, by dependency.
    pub retries: Family<Dependency, Counter>,
    /// Attempts that were not made because the budget was empty, by dependency.
    pub retries_refused: Family<Dependency, Counter>,
    /// Attempts beside a slow one, by dependency.
    pub hedges: Family<Dependency, Counter>,
    /// Calls that were refused here, by dependency and reason.
    pub refused: Family<Refused, Counter>,
    /// Answers that were given without a dependency.
    pub degraded: Family<Dependency, Counter>,
    /// Where breakers stand: 0 closed, 1 half-open, 2 open.
    pub breaker_state: Family<Breaker, Gauge>,
    /// Calls being served now.
    pub in_flight: Gauge,
    /// Connections being served now.
    pub connections: Gauge,
    /// Connections of clients that had as many as they may.
    pub connections_refused: Counter,
    /// 1 while the registry knows of this process, as far as it has told.
    pub registered: Gauge,
    /// Calls that were shed before their handlers ran, by why.
    pub shed: Family<Refusal, Counter>,
    /// Calls that are served at once.
    pub limit: Gauge,
    /// How far a process that leaves has come.
    pub drain_phase: Gauge,
    /// The newest position of this process's log.
    pub log_head: Gauge,
    /// Events that wait for a position.
    pub log_unsequenced: Gauge,
    /// Events that this process gave their positions.
    pub log_sequenced: Counter,
    /// Steps of sagas that this process recorded.
    pub saga_steps: Counter,
    /// How many positions a source's head is ahead of what was taken in.
    pub consumer_lag: Family<Source, Gauge>,
    /// Events that were taken in, or not, by source and outcome.
    pub consumer_events: Family<Taken, Counter>,
    /// Events that are parked, by consumer.
    pub dead_letters: Family<Consumer, Gauge>,
    /// Spans that were not exported.
    pub spans_dropped: Counter,
    /// Spans that a collector took.
    pub spans_exported: Counter,
}

// === impl Metrics ===

impl Metrics {
    fn new() -> Self {
        let seconds: fn() -> Histogram = || Histogram::new(SECONDS);
        let mut registry = Registry::default();
        let metrics = Self {
            server_calls: Family::new_with_constructor(seconds),
            client_calls: Family::new_with_constructor(seconds),
            http_requests: Family::new_with_constructor(seconds),
            http_errors: Family::default(),
            resent: Family::default(),
            ejections: Family::default(),
            no_endpoints: Family::default(),
            retries: Family::default(),
            retries_refused: Family::default(),
            hedges: Family::default(),
            refused: Family::default(),
            degraded: Family::default(),
            breaker_state: Family::default(),
            in_flight: Gauge::default(),
            connections: Gauge::default(),
            connections_refused: Counter::default(),
            registered: Gauge::default(),
            shed: Family::default(),
            limit: Gauge::default(),
            drain_phase: Gauge::default(),
            log_head: Gauge::default(),
            log_unsequenced: Gauge::default(),
            log_sequenced: Counter::default(),
            saga_steps: Counter::default(),
            consumer_lag: Family::default(),
            consumer_events: Family::default(),
            dead_letters: Family::default(),
            spans_dropped: Counter::default(),
            spans_exported: Counter::default(),
            registry: Registry::default(),
        };
        registry.register(
            names::SERVER_CALLS,
            "Calls served, in seconds",
            metrics.server_calls.clone(),
        );
        registry.register(
            names::CLIENT_CALLS,
            "Calls made, in seconds",
            metrics.client_calls.clone(),
        );
        registry.register(
            names::HTTP_REQUESTS,
            "HTTP requests served, in seconds",
            metrics.http_requests.clone(),
        );
        registry.register(
            names::HTTP_ERRORS,
            "HTTP answers of 400 and above",
            metrics.http_errors.clone(),
        );
        registry.register(
            names::RESENT,
            "Requests sent anew because they had not been sent",
            metrics.resent.clone(),
        );
        registry.register(
            names::EJECTIONS,
            "Instances taken out because they failed",
            metrics.ejections.clone(),
        );
        registry.register(
            names::NO_ENDPOINTS,
            "Calls that found no instance",
            metrics.no_endpoints.clone(),
        );
        registry.register(names::IN_FLIGHT, "Calls being served", metrics.in_flight.clone());
        registry.register(
            names::CONNECTIONS,
            "Connections being served",
            metrics.connections.clone(),
        );
        registry.register(
            names::REGISTERED,
            "Whether the registry knows of this process",
            metrics.registered.clone(),
        );
        metrics.register_client(&mut registry);
        metrics.register_limits(&mut registry);
        metrics.register_events(&mut registry);
        metrics.register_spans(&mut registry);
        registry.register_collector(Box::new(Silence));
        registry.register_collector(Box::new(Rootless));
        registry.register_collector(Box::new(Databases));
        Self { registry, ..metrics }
    }

    /// Those of what calls meet going out.
    fn register_client(&self, registry: &mut Registry) {
        registry.register(names::RETRIES, "Attempts after the first", self.retries.clone());
        registry.register(
            names::RETRIES_REFUSED,
            "Attempts that no budget paid for",
            self.retries_refused.clone(),
        );
        registry.register(names::HEDGES, "Attempts beside a slow one", self.hedges.clone());
        registry.register(names::REFUSED, "Calls refused before sending", self.refused.clone());
        registry.register(names::DEGRADED, "Answers without a dependency", self.degraded.clone());
        registry.register(
            names::BREAKER_STATE,
            "Breakers: 0 closed, 1 half-open, 2 open",
            self.breaker_state.clone(),
        );
        registry.register_collector(Box::new(Dependencies));
    }

    /// Those of what a server refuses.
    fn register_limits(&self, registry: &mut Registry) {
        registry.register(names::SHED, "Calls shed before their handlers ran", self.shed.clone());
        registry.register(
            names::CONNECTIONS_REFUSED,
            "Connections of clients that had as many as they may",
            self.connections_refused.clone(),
        );
        registry.register(names::LIMIT, "Calls that are served at once", self.limit.clone());
        registry.register(
            names::DRAIN_PHASE,
            "How far a process that leaves has come",
            self.drain_phase.clone(),
        );
    }

    /// Those of events, on their way out and in.
    fn register_events(&self, registry: &mut Registry) {
        registry.register(names::LOG_HEAD, "The newest position of the log", self.log_head.clone());
        registry.register(
            names::LOG_UNSEQUENCED,
            "Events that wait for a position",
            self.log_unsequenced.clone(),
        );
        registry.register(
            names::LOG_SEQUENCED,
            "Events that this process gave their positions",
            self.log_sequenced.clone(),
        );
        registry.register(
            names::SAGA_STEPS,
            "Steps of sagas that this process recorded",
            self.saga_steps.clone(),
        );
        registry.register(
            names::CONSUMER_LAG,
            "How far the head of a source is ahead of what was taken in",
            self.consumer_lag.clone(),
        );
        registry.register(
            names::CONSUMER_EVENTS,
            "Events that came, by what became of them",
            self.consumer_events.clone(),
        );
        registry.register(names::DLQ_DEPTH, "Events that are parked", self.dead_letters.clone());
    }

    /// Those of spans on their way.
    fn register_spans(&self, registry: &mut Registry) {
        registry.register(
            names::SPANS_DROPPED,
            "Spans that were not exported",
            self.spans_dropped.clone(),
        );
        registry.register(
            names::SPANS_EXPORTED,
            "Spans that a collector took",
            self.spans_exported.clone(),
        );
    }

    /// All metrics in the text format of OpenMetrics.
    #[must_use]
    pub fn encode(&self) -> String {
        let mut text = String::new();
        // Writing into a string cannot fail.
        let _written = prometheus_client::encoding::text::encode(&mut text, &self.registry).is_ok();
        text
    }
}

/// The metrics of this process.
#[must_use]
pub fn metrics() -> &'static Metrics {
    static METRICS: LazyLock<Metrics> = LazyLock::new(Metrics::new);
    &METRICS
}

/// Sets up logging, once for the process; `service` stands in every JSON line.
pub fn init(service: &str, config: &Config) {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        // The flag was checked when it was read; whoever makes settings by hand sees what they made.
        let filter = EnvFilter::try_new(&config.log);
        let wrong = filter.as_ref().err().map(ToString::to_string);
        let filter = filter.unwrap_or_else(|_error| EnvFilter::new("info"));
        let lines = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr);
        // A test may have set up logging of its own: then its own stays.
        let _ours = match config.log_format {
            LogFormat::Json => {
                lines.event_format(lines::Json { service: service.into() }).try_init()
            }
            LogFormat::Pretty => lines.event_format(lines::Pretty).try_init(),
        }
        .is_ok();
        if let Some(error) = wrong {
            tracing::warn!(error, "--log {} cannot be understood; info is logged", config.log);
        }
    });
}

/// The name of a status code, as labels and attributes spell it.
#[must_use]
pub fn code(code: tonic::Code) -> &'static str {
    use tonic::Code;
    match code {
        Code::Ok => "OK",
        Code::Cancelled => "CANCELLED",
        Code::Unknown => "UNKNOWN",
        Code::InvalidArgument => "INVALID_ARGUMENT",
        Code::DeadlineExceeded => "DEADLINE_EXCEEDED",
        Code::NotFound => "NOT_FOUND",
        Code::AlreadyExists => "ALREADY_EXISTS",
        Code::PermissionDenied => "PERMISSION_DENIED",
        Code::ResourceExhausted => "RESOURCE_EXHAUSTED",
        Code::FailedPrecondition => "FAILED_PRECONDITION",
        Code::Aborted => "ABORTED",
        Code::OutOfRange => "OUT_OF_RANGE",
        Code::Unimplemented => "UNIMPLEMENTED",
        Code::Internal => "INTERNAL",
        Code::Unavailable => "UNAVAILABLE",
        Code::DataLoss => "DATA_LOSS",
        Code::Unauthenticated => "UNAUTHENTICATED",
    }
}
