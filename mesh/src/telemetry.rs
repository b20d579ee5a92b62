//! What a process says about itself: log lines with the trace they belong to, and metrics.

use std::sync::{LazyLock, Mutex, Once, PoisonError};

use prometheus_client::{
    encoding::EncodeLabelSet,
    metrics::{counter::Counter, family::Family, gauge::Gauge, histogram::Histogram},
    registry::Registry,
};
use tracing_subscriber::EnvFilter;

use crate::{
    config::{Config, LogFormat},
    store::{Stats, Store},
};

mod lines;
pub mod names;

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
    /// Requests that were not sent by their first connection and were sent by another.
    pub resent: Counter,
    /// Calls being served now.
    pub in_flight: Gauge,
    /// Connections being served now.
    pub connections: Gauge,
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
}

/// The label of a consumer's progress.
#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
pub struct Source {
    /// Whose log is read.
    pub source: String,
}

/// The labels of an event that came.
#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
pub struct Taken {
    /// Whose log it came from.
    pub source: String,
    /// `done`, `parked`, or `failed` for a try that is repeated.
    pub outcome: &'static str,
}

/// The label of a consumer's dead letters.
#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
pub struct Consumer {
    /// Who could not take them in.
    pub consumer: String,
}

/// The labels of a call.
#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
pub struct Call {
    /// `package.Service/Method`, or `_OTHER` for a method that does not exist.
    pub rpc_method: String,
    /// The name of the status code, such as `OK`.
    pub rpc_response_status_code: &'static str,
}

/// The labels of an HTTP request.
#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
pub struct Request {
    /// The request method, or `_OTHER`.
    pub http_request_method: String,
    /// The template of the route, never the path itself; empty if none matched.
    pub http_route: String,
    /// The status.
    pub http_response_status_code: u16,
}

/// The label of a failed HTTP answer.
#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
pub struct Answer {
    /// The status.
    pub status: u16,
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
            resent: Counter::default(),
            in_flight: Gauge::default(),
            connections: Gauge::default(),
            log_head: Gauge::default(),
            log_unsequenced: Gauge::default(),
            log_sequenced: Counter::default(),
            saga_steps: Counter::default(),
            consumer_lag: Family::default(),
            consumer_events: Family::default(),
            dead_letters: Family::default(),
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
        registry.register(names::IN_FLIGHT, "Calls being served", metrics.in_flight.clone());
        registry.register(
            names::CONNECTIONS,
            "Connections being served",
            metrics.connections.clone(),
        );
        metrics.register_events(&mut registry);
        registry.register_collector(Box::new(Rootless));
        registry.register_collector(Box::new(Databases));
        Self { registry, ..metrics }
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

    /// All metrics in the text format of OpenMetrics.
    #[must_use]
    pub fn encode(&self) -> String {
        let mut text = String::new();
        // Writing into a string cannot fail.
        let _written = prometheus_client::encoding::text::encode(&mut text, &self.registry).is_ok();
        text
    }
}

/// Reads the count of calls outside of any call where `ctx` keeps it.
#[derive(Debug)]
struct Rootless;

impl prometheus_client::collector::Collector for Rootless {
    fn encode(
        &self,
        mut encoder: prometheus_client::encoding::DescriptorEncoder<'_>,
    ) -> Result<(), std::fmt::Error> {
        use prometheus_client::{encoding::EncodeMetric as _, metrics::counter::ConstCounter};
        let counter = ConstCounter::new(crate::ctx::rootless_calls());
        let help = "Calls made outside of any other call";
        let metric =
            encoder.encode_descriptor(names::ROOTLESS, help, None, counter.metric_type())?;
        counter.encode(metric)
    }
}

/// Reads how the databases of the process joined transactions, where they keep it.
#[derive(Debug)]
struct Databases;

static DATABASES: Mutex<Vec<Store>> = Mutex::new(Vec::new());

impl prometheus_client::collector::Collector for Databases {
    fn encode(
        &self,
        mut encoder: prometheus_client::encoding::DescriptorEncoder<'_>,
    ) -> Result<(), std::fmt::Error> {
        use prometheus_client::{encoding::EncodeMetric as _, metrics::counter::ConstCounter};
        let databases = DATABASES.lock().unwrap_or_else(PoisonError::into_inner);
        let stats: Vec<_> = databases.iter().map(Store::stats).collect();
        let sum = |of: fn(&Stats) -> u64| stats.iter().map(of).sum::<u64>();
        for (name, help, count) in [
            (names::STORE_COMMITS, "Commits that reached the disk", sum(|it| it.commits)),
            (names::STORE_TRANSACTIONS, "Transactions in them", sum(|it| it.transactions)),
        ] {
            let counter = ConstCounter::new(count);
            let metric = encoder.encode_descriptor(name, help, None, counter.metric_type())?;
            counter.encode(metric)?;
        }
        Ok(())
    }
}

/// Shows in the metrics how this database joins transactions.
pub(crate) fn watch(database: &Store) {
    DATABASES.lock().unwrap_or_else(PoisonError::into_inner).push(database.clone());
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
        let filter =
            EnvFilter::try_new(&config.log).unwrap_or_else(|_error| EnvFilter::new("info"));
        let lines = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr);
        // A test may have set up logging of its own: then its own stays.
        let _ours = match config.log_format {
            LogFormat::Json => {
                lines.event_format(lines::Json { service: service.into() }).try_init()
            }
            LogFormat::Pretty => lines.event_format(lines::Pretty).try_init(),
        }
        .is_ok();
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
