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
    /// Instances that were taken out because they failed more than their peers.
    pub ejections: Counter,
    /// Calls that found no instance that could be reached.
    pub no_endpoints: Counter,
    /// Attempts after the first, by dependency.
    pub retries: Family<Dependency, Counter>,
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

/// The label of what concerns a dependency as a whole.
#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
pub struct Dependency {
    /// Its name.
    pub dependency: String,
}

/// The labels of a breaker.
#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
pub struct Breaker {
    /// The dependency.
    pub dependency: String,
    /// `package.Service/Method`; empty for the breaker of all methods with few calls.
    pub method: String,
}

/// The labels of a call that was refused before anything was sent.
#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
pub struct Refused {
    /// The dependency.
    pub dependency: String,
    /// Why, as `ErrorInfo.reason` says it.
    pub reason: &'static str,
}

/// The label of a call that was shed.
#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
pub struct Refusal {
    /// `budget`, `load` or `bulkhead`.
    pub why: &'static str,
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
            ejections: Counter::default(),
            no_endpoints: Counter::default(),
            retries: Family::default(),
            hedges: Family::default(),
            refused: Family::default(),
            degraded: Family::default(),
            breaker_state: Family::default(),
            in_flight: Gauge::default(),
            connections: Gauge::default(),
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
        registry.register_collector(Box::new(Silence));
        registry.register_collector(Box::new(Rootless));
        registry.register_collector(Box::new(Databases));
        Self { registry, ..metrics }
    }

    /// Those of what calls meet going out.
    fn register_client(&self, registry: &mut Registry) {
        registry.register(names::RETRIES, "Attempts after the first", self.retries.clone());
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

/// Reads for how long the registry has been silent where its answers are kept.
#[derive(Debug)]
struct Silence;

impl prometheus_client::collector::Collector for Silence {
    fn encode(
        &self,
        mut encoder: prometheus_client::encoding::DescriptorEncoder<'_>,
    ) -> Result<(), std::fmt::Error> {
        use prometheus_client::{encoding::EncodeMetric as _, metrics::gauge::ConstGauge};
        let help = "For how long the registry has said nothing of a service";
        let kind = ConstGauge::new(0.0).metric_type();
        let mut family = encoder.encode_descriptor(names::REGISTRY_STALE, help, None, kind)?;
        for (service, seconds) in crate::registry::stale_seconds() {
            let labels = [("service", service)];
            ConstGauge::new(seconds).encode(family.encode_family(&labels)?)?;
        }
        Ok(())
    }
}

/// Reads what is left of budgets and places when metrics are.
#[derive(Debug)]
struct Dependencies;

impl prometheus_client::collector::Collector for Dependencies {
    fn encode(
        &self,
        mut encoder: prometheus_client::encoding::DescriptorEncoder<'_>,
    ) -> Result<(), std::fmt::Error> {
        use prometheus_client::{encoding::EncodeMetric as _, metrics::gauge::ConstGauge};
        let readings = crate::client::readings();
        for (name, help, number) in [
            (
                names::RETRY_BUDGET,
                "Attempts that the budget would pay for",
                (|it| it.retry_budget) as fn(&crate::client::Reading) -> u64,
            ),
            (names::BULKHEAD_IN_USE, "Calls under way", |it| it.bulkhead_in_use),
        ] {
            let kind = ConstGauge::new(0_u64).metric_type();
            let mut metric = encoder.encode_descriptor(name, help, None, kind)?;
            for reading in &readings {
                let labels = Dependency { dependency: reading.dependency.clone() };
                ConstGauge::new(number(reading)).encode(metric.encode_family(&labels)?)?;
            }
        }
        Ok(())
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
