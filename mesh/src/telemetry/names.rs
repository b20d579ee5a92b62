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
/// Counter of requests sent anew because their first connection had not sent them.
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
