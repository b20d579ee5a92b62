//! Every name that telemetry uses, in one place: they are an interface to dashboards and alerts.
//!
//! Metrics follow OpenTelemetry's semantic conventions 1.44 as Prometheus spells them.

/// Histogram of calls served, in seconds.
pub const SERVER_CALLS: &str = "rpc_server_call_duration_seconds";
/// Histogram of calls made, in seconds.
pub const CLIENT_CALLS: &str = "rpc_client_call_duration_seconds";
/// Histogram of HTTP requests served, in seconds.
pub const HTTP_REQUESTS: &str = "http_server_request_duration_seconds";
/// Counter of HTTP answers of 400 and above; the encoder appends `_total`.
pub const HTTP_ERRORS: &str = "http_errors";
/// Counter of requests sent again because nobody had begun with them.
pub const RESENT: &str = "mesh_resent";
/// Counter of instances that were taken out because they failed more than their peers.
pub const EJECTIONS: &str = "mesh_ejections";
/// Counter of calls that found no instance that could be reached.
pub const NO_ENDPOINTS: &str = "mesh_no_endpoints";
/// Counter of calls outside of any other call.
pub const ROOTLESS: &str = "mesh_rootless_calls";
/// Gauge of calls being served.
pub const IN_FLIGHT: &str = "mesh_in_flight";
/// Gauge of connections being served.
pub const CONNECTIONS: &str = "mesh_connections";
/// Counter of connections that were closed because their client had as many as it may; the encoder
/// appends `_total`.
pub const CONNECTIONS_REFUSED: &str = "mesh_connections_refused";
/// Gauge: 1 while the registry knows of this process.
pub const REGISTERED: &str = "mesh_registry_registered";
/// Gauge of for how long the registry has said nothing of a service, beyond what it may be silent.
pub const REGISTRY_STALE: &str = "mesh_registry_stale_seconds";
/// Counter of calls that were refused before their handlers ran; the encoder appends `_total`.
pub const SHED: &str = "mesh_server_refused";
/// Gauge of calls that are served at once, as the limiter has it.
pub const LIMIT: &str = "mesh_limit";
/// Gauge of how far a process that leaves has come: 0 serves, 1 leaves, 2 drains, 3 closes.
pub const DRAIN_PHASE: &str = "mesh_drain_phase";
/// The method label of a call to a method that does not exist.
pub const OTHER: &str = "_OTHER";
/// Counter of commits that reached the disk.
pub const STORE_COMMITS: &str = "mesh_store_commits";
/// Counter of transactions in those commits.
pub const STORE_TRANSACTIONS: &str = "mesh_store_transactions";
/// Gauge of the newest position of the log.
pub const LOG_HEAD: &str = "mesh_log_head";
/// Gauge of events that wait for a position.
pub const LOG_UNSEQUENCED: &str = "mesh_log_unsequenced";
/// Counter of events that were given their positions by this process.
pub const LOG_SEQUENCED: &str = "mesh_log_sequenced";
/// Counter of steps of sagas that were recorded by this process.
pub const SAGA_STEPS: &str = "mesh_saga_steps";
/// Gauge of how far a source's head is ahead of its consumer.
pub const CONSUMER_LAG: &str = "mesh_consumer_lag";
/// Counter of events that came in; the encoder appends `_total`.
pub const CONSUMER_EVENTS: &str = "mesh_consumer_events";
/// Gauge of events that are parked.
pub const DLQ_DEPTH: &str = "dlq_depth";
/// Counter of attempts after the first; the encoder appends `_total`.
pub const RETRIES: &str = "mesh_retries";
/// Counter of attempts that were not made because the budget of their dependency was empty.
pub const RETRIES_REFUSED: &str = "mesh_retries_refused";
/// Counter of attempts beside a slow one.
pub const HEDGES: &str = "mesh_hedges";
/// Counter of calls that this process refused before anything was sent.
pub const REFUSED: &str = "mesh_refused";
/// Counter of answers that were given without a dependency.
pub const DEGRADED: &str = "mesh_degraded";
/// Gauge of a breaker: 0 closed, 1 half-open, 2 open.
pub const BREAKER_STATE: &str = "mesh_breaker_state";
/// Gauge of the instances of a dependency, by state: ready, connecting, ejected, draining.
pub const ENDPOINTS: &str = "mesh_endpoints";
/// Gauge of how many attempts the budget of a dependency would pay for.
pub const RETRY_BUDGET: &str = "mesh_retry_budget";
/// Gauge of the calls to a dependency that are under way.
pub const BULKHEAD_IN_USE: &str = "mesh_bulkhead_in_use";
/// Counter of spans that were not exported: the queue was full, or the collector did not take them.
pub const SPANS_DROPPED: &str = "mesh_spans_dropped";
/// Counter of spans that a collector took.
pub const SPANS_EXPORTED: &str = "mesh_spans_exported";

/// What spans say of themselves.
pub mod span {
    /// `grpc`.
    pub const RPC_SYSTEM: &str = "rpc.system.name";
    /// `package.Service/Method`.
    pub const RPC_METHOD: &str = "rpc.method";
    /// The name of the status code.
    pub const RPC_STATUS: &str = "rpc.response.status_code";
    /// Why it failed: a status code by its name, an HTTP status, or a word of ours.
    pub const ERROR_TYPE: &str = "error.type";
    /// The callee, as the registry names it.
    pub const SERVER: &str = "server.address";
    /// Where the instance is that was asked.
    pub const PEER: &str = "network.peer.address";
    /// Its port.
    pub const PEER_PORT: &str = "network.peer.port";
    /// Which attempt of its call it is, from 1.
    pub const ATTEMPT: &str = "mesh.attempt";
    /// `GET`.
    pub const HTTP_METHOD: &str = "http.request.method";
    /// The template of the route, never the path itself.
    pub const HTTP_ROUTE: &str = "http.route";
    /// The HTTP status of the answer.
    pub const HTTP_STATUS: &str = "http.response.status_code";
    /// `ordermesh`: the log of a service.
    pub const MESSAGING_SYSTEM: &str = "messaging.system";
    /// `create` or `process`.
    pub const MESSAGING_OPERATION: &str = "messaging.operation.name";
    /// The same, as the conventions sort it.
    pub const MESSAGING_TYPE: &str = "messaging.operation.type";
    /// Where it goes: `order_events`.
    pub const MESSAGING_DESTINATION: &str = "messaging.destination.name";
    /// The id of an event.
    pub const MESSAGE_ID: &str = "messaging.message.id";
    /// The type of an event.
    pub const EVENT_TYPE: &str = "cloudevents.event_type";
    /// How long an event was on its way, in milliseconds.
    pub const EVENT_AGE: &str = "ordermesh.event.age_ms";
    /// The order that all of it is about; also a member of the baggage.
    pub const ORDER: &str = "order.id";
    /// The step of a saga.
    pub const SAGA_STEP: &str = "ordermesh.saga.step";
    /// Why a call or a step was refused, as `ErrorInfo.reason` says it.
    pub const REASON: &str = "ordermesh.reason";
    /// What an answer does without.
    pub const DEPENDENCY: &str = "mesh.dependency";
    /// Where a breaker stands now.
    pub const BREAKER: &str = "mesh.breaker.state";
    /// An event: another attempt follows.
    pub const RETRY: &str = "mesh.retry";
    /// An event: an attempt beside a slow one.
    pub const HEDGE: &str = "mesh.hedge";
    /// An event: refused before anything was sent.
    pub const REFUSED: &str = "mesh.refused";
    /// An event: a breaker moved.
    pub const BREAKER_CHANGED: &str = "mesh.breaker.changed";
    /// An event: the answer does without a dependency.
    pub const DEGRADED: &str = "mesh.degraded";
}
