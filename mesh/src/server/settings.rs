//! The bounds of a server, each a flag: how long a client may take, how much it may hold.

use std::time::Duration;

use crate::config::{count, duration, period};

/// What one listener allows its clients. Flags of every process; the defaults are `mesh.md`'s.
#[derive(Clone, Debug, PartialEq, Eq, clap::Args)]
// Two flattened groups of one name make clap panic at start.
#[group(skip)]
pub struct Settings {
    /// Connections that are served at once; more wait to be accepted.
    #[arg(long = "connections-max", env = "MESH_CONNECTIONS_MAX", default_value_t = 10_000, value_parser = count::<usize>)]
    pub connections_max: usize,

    /// How long a client may take for the TLS handshake.
    #[arg(long = "handshake-timeout", env = "MESH_HANDSHAKE_TIMEOUT", default_value = "5s", value_parser = period)]
    pub handshake_timeout: Duration,

    /// How long a client may take for its first bytes: the HTTP/2 preface and its settings.
    #[arg(long = "preface-timeout", env = "MESH_PREFACE_TIMEOUT", default_value = "5s", value_parser = period)]
    pub preface_timeout: Duration,

    /// How old a connection becomes, give or take a tenth, before its client is told to open
    /// another one: new instances get their share, and certificates are looked at again.
    #[arg(long = "connection-age", env = "MESH_CONNECTION_AGE", default_value = "30m", value_parser = period)]
    pub connection_age: Duration,

    /// How long the calls on a connection that is too old may go on.
    #[arg(long = "connection-age-grace", env = "MESH_CONNECTION_AGE_GRACE", default_value = "60s", value_parser = duration)]
    pub connection_age_grace: Duration,

    /// How long a connection without calls is kept; over HTTP/1.1 two minutes at most.
    #[arg(long = "connection-idle", env = "MESH_CONNECTION_IDLE", default_value = "15m", value_parser = period)]
    pub connection_idle: Duration,

    /// How often a silent client is asked whether it is there (HTTP/2 ping).
    #[arg(long = "keepalive", env = "MESH_KEEPALIVE", default_value = "20s", value_parser = period)]
    pub keepalive: Duration,

    /// How long it may take to answer that.
    #[arg(long = "keepalive-timeout", env = "MESH_KEEPALIVE_TIMEOUT", default_value = "5s", value_parser = period)]
    pub keepalive_timeout: Duration,

    /// Calls at once on one connection (HTTP/2 streams).
    #[arg(long = "connection-calls-max", env = "MESH_CONNECTION_CALLS_MAX", default_value_t = 256, value_parser = count::<u32>)]
    pub connection_calls_max: u32,

    /// The headers of a request, in bytes.
    #[arg(long = "headers-max-bytes", env = "MESH_HEADERS_MAX_BYTES", default_value_t = 16 << 10, value_parser = count::<u32>)]
    pub headers_max_bytes: u32,

    /// Calls at once that are served however slow they become; the limit adapts above this.
    #[arg(long = "limit-min", env = "MESH_LIMIT_MIN", default_value_t = 20, value_parser = count::<u32>)]
    pub limit_min: u32,

    /// Calls at once beyond which the limit never grows.
    #[arg(long = "limit-max", env = "MESH_LIMIT_MAX", default_value_t = 200, value_parser = count::<u32>)]
    pub limit_max: u32,

    /// Streams at once in the whole process: they last, so the limit of calls is not theirs.
    #[arg(long = "streams-max", env = "MESH_STREAMS_MAX", default_value_t = 10_000, value_parser = count::<usize>)]
    pub streams_max: usize,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            connections_max: 10_000,
            handshake_timeout: Duration::from_secs(5),
            preface_timeout: Duration::from_secs(5),
            connection_age: Duration::from_secs(30 * 60),
            connection_age_grace: Duration::from_secs(60),
            connection_idle: Duration::from_secs(15 * 60),
            keepalive: Duration::from_secs(20),
            keepalive_timeout: Duration::from_secs(5),
            connection_calls_max: 256,
            headers_max_bytes: 16 << 10,
            limit_min: 20,
            limit_max: 200,
            streams_max: 10_000,
        }
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct Process {
        #[command(flatten)]
        settings: Settings,
    }

    #[test]
    fn without_flags_the_defaults_hold() {
        let parsed = Process::try_parse_from(["process"]).expect("no flag is needed");
        assert_eq!(parsed.settings, Settings::default());
    }
}
