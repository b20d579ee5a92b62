//! What every process of the mesh is told: flags, environment, help and documentation at once.
//!
//! A flag wins over its variable. There is no configuration file; what is secret is read from
//! a file that a setting names, so that it stands in no process list.

use std::{
    net::SocketAddr,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use anyhow::Context as _;
use tracing_subscriber::{EnvFilter, filter::LevelFilter};

mod wrong;

pub use wrong::{Wrong, setting};

/// The settings that all processes share. Each is a flag and a `MESH_*` variable.
#[derive(Clone, Debug, clap::Args)]
// Two flattened groups of one name make clap panic at start.
#[group(skip)]
pub struct Config {
    /// Where this process serves: gRPC, or HTTP at the edge. `address:port`; port 0 takes a free one.
    #[arg(long = "listen", env = "MESH_LISTEN")]
    pub listen: Option<SocketAddr>,

    /// Where `/health`, `/ready`, `/metrics` and `/upstreams` (how callees are) are served.
    #[arg(long = "admin-listen", env = "MESH_ADMIN_LISTEN")]
    pub admin_listen: Option<SocketAddr>,

    /// Where the other processes are: `static://?name=host:port&name=host:port,host:port`,
    /// `static:///file` with one `name=host:port` a line, `consul://host:port?dc=…&ns=…`,
    /// `consul+tls://host:port?…` for Consul over HTTPS, or `dns://?suffix=domain&port=port`.
    #[arg(long = "registry", env = "MESH_REGISTRY", default_value = "static://")]
    pub registry: String,

    /// Where others reach this process, as they are told by the registry: `host` or `host:port`.
    /// Without it: where it listens.
    #[arg(long = "advertise", env = "MESH_ADVERTISE")]
    pub advertise: Option<String>,

    /// What the registry tells this process from its replicas by: the same after a restart, such
    /// as the name of a pod. Without it: its name and where others reach it.
    #[arg(long = "instance-id", env = "MESH_INSTANCE_ID")]
    pub instance_id: Option<String>,

    /// File with the token for Consul. Without it the variable `CONSUL_HTTP_TOKEN` counts.
    #[arg(long = "consul-token-file", env = "MESH_CONSUL_TOKEN_FILE")]
    pub consul_token_file: Option<PathBuf>,

    /// File with the certificates that Consul's must be issued by, as PEM, for `consul+tls://`.
    /// Without it that of `--tls-ca` counts, and the certificate of `--tls-cert` is shown; with it only
    /// that of `--consul-cert` is.
    #[arg(long = "consul-ca", env = "MESH_CONSUL_CA")]
    pub consul_ca: Option<PathBuf>,

    /// File with the certificate that is shown to Consul, and those it was issued by, as PEM.
    #[arg(long = "consul-cert", env = "MESH_CONSUL_CERT", requires_all = ["consul_ca", "consul_key"])]
    pub consul_cert: Option<PathBuf>,

    /// File with the private key of `--consul-cert`, as PEM.
    #[arg(long = "consul-key", env = "MESH_CONSUL_KEY", requires = "consul_cert")]
    pub consul_key: Option<PathBuf>,

    /// Registry name of the service that issues tokens. Without it no token can be verified.
    #[arg(long = "issuer", env = "MESH_ISSUER")]
    pub issuer: Option<String>,

    /// File that holds this process's client secret; with it the process signs in as itself.
    #[arg(long = "client-secret-file", env = "MESH_CLIENT_SECRET_FILE")]
    pub client_secret_file: Option<PathBuf>,

    /// File with 32 random bytes in hexadecimal that seal page tokens and quotes. Replicas of
    /// one service share it. Without it a key is made at start, and tokens end with the process.
    #[arg(long = "page-key-file", env = "MESH_PAGE_KEY_FILE")]
    pub page_key_file: Option<PathBuf>,

    /// How log lines look.
    #[arg(long = "log-format", env = "MESH_LOG_FORMAT", value_enum, default_value = "pretty")]
    pub log_format: LogFormat,

    /// Where spans go, as OTLP over HTTP: `http://host:4318` or `https://host:4318`, to which
    /// `/v1/traces` is added. Without it no spans are recorded. Beyond loopback `http://` takes
    /// `--allow-plaintext`. Headers in `OTEL_EXPORTER_OTLP_HEADERS` go with them, as plain as they.
    #[arg(long = "otlp-endpoint", env = "OTEL_EXPORTER_OTLP_ENDPOINT", value_name = "URL")]
    pub otlp_endpoint: Option<String>,

    /// File with the certificates that the collector's must be issued by, as PEM, for `https://`.
    /// Without it that of `--tls-ca` counts, and the certificate of `--tls-cert` is shown; with it only
    /// that of `--otlp-cert` is.
    #[arg(long = "otlp-ca", env = "OTEL_EXPORTER_OTLP_CERTIFICATE")]
    pub otlp_ca: Option<PathBuf>,

    /// File with the certificate that is shown to the collector, and those it was issued by, as PEM.
    #[arg(
        long = "otlp-cert",
        env = "OTEL_EXPORTER_OTLP_CLIENT_CERTIFICATE",
        requires_all = ["otlp_ca", "otlp_key"]
    )]
    pub otlp_cert: Option<PathBuf>,

    /// File with the private key of `--otlp-cert`, as PEM.
    #[arg(long = "otlp-key", env = "OTEL_EXPORTER_OTLP_CLIENT_KEY", requires = "otlp_cert")]
    pub otlp_key: Option<PathBuf>,

    /// How many of the traces that begin here are recorded, from 0 to 1. Those that began in another
    /// process of the mesh are if they were there; the gateway takes this share of its clients'.
    #[arg(long = "trace-ratio", env = "MESH_TRACE_RATIO", default_value = "1", value_parser = ratio)]
    pub trace_ratio: f64,

    /// What is logged, as `level` or `target=level,…`; release builds have nothing finer than debug.
    #[arg(long = "log", env = "MESH_LOG", default_value = "info", value_parser = levels)]
    pub log: String,

    /// One thread, or one per core. `current` halves the cost of small calls.
    #[arg(long = "runtime", env = "MESH_RUNTIME", value_enum, default_value = "multi")]
    pub runtime: Flavour,

    /// On leaving: how long to serve on while others learn of it. If it is not given: 2s where a
    /// registry is asked (`consul://`, `dns://`), 0s with `static://`.
    #[arg(long = "propagation", env = "MESH_PROPAGATION", value_parser = duration)]
    pub propagation: Option<Duration>,

    /// On leaving: how long calls may take to finish.
    #[arg(long = "drain", env = "MESH_DRAIN", default_value = "25s", value_parser = duration)]
    pub drain: Duration,

    /// The longest a call may take where its method names no other limit.
    #[arg(long = "call-timeout", env = "MESH_CALL_TIMEOUT", default_value = "10s", value_parser = period)]
    pub call_timeout: Duration,

    /// Allows plaintext beyond loopback, for what this process serves and for whom it calls; without it
    /// that is refused.
    #[arg(long = "allow-plaintext", env = "MESH_ALLOW_PLAINTEXT")]
    pub allow_plaintext: bool,

    /// What is shown to others, and asked of them.
    #[command(flatten)]
    pub tls: crate::tls::Settings,

    /// What clients are allowed.
    #[command(flatten)]
    pub server: crate::server::Settings,

    /// How one dependency is called, in place of the defaults. NAME is one of the registry, `*` for
    /// all of them, or somebody outside of the mesh (`payment-provider`, which has `timeout`, `longest`,
    /// `places`, `queue-timeout` and `breaker` alone); with
    /// `NAME/package.Service/Method` it is one method alone. Settings: `timeout` (of an attempt) and
    /// `longest` (of a call with all attempts; streams have neither), `retries`, `places` (calls at once),
    /// `queue-timeout` (the wait for a place), `breaker` (default, slow_calls, seed_count, opossum,
    /// opossum_10s, off), `hedge` and `throttle` (on, off), `budget` (retries and hedges in a hundred calls),
    /// `balance` (p2c, round_robin), `failfast` (the wait for an instance that can be reached), `connect` (of a
    /// connection) and `keepalive` (silence until a connection is pinged). May come often.
    #[arg(
        long = "dependency",
        env = "MESH_DEPENDENCY",
        value_name = "NAME.SETTING=VALUE",
        value_delimiter = ','
    )]
    pub dependencies: Vec<crate::client::Override>,

    /// Prints what every setting is, where it comes from and how dependencies are called, as JSON,
    /// and ends.
    #[arg(long = "print-config")]
    pub print_config: bool,

    /// Whether this process gives events their positions and takes in those of others. Off in a
    /// replica that is to answer calls alone; one of each service has to have it on.
    #[arg(long = "delivery", env = "MESH_DELIVERY", value_enum, default_value = "on")]
    pub delivery: Delivery,

    /// Debug builds only: lets the admin port arm places at which this process kills itself.
    #[arg(long = "failpoints", env = "MESH_FAILPOINTS")]
    pub failpoints: bool,

    /// Debug builds only: a mistake that this process makes on purpose, to see who finds it.
    #[cfg(debug_assertions)]
    #[arg(long = "seeded-bug", env = "MESH_SEEDED_BUG", value_enum)]
    pub seeded_bug: Option<crate::bug::Bug>,

    /// Sockets that are open already: how a test knows every port before it starts a process.
    #[arg(skip)]
    pub bound: Option<Arc<Bound>>,
}

/// How log lines look.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum LogFormat {
    /// For eyes.
    Pretty,
    /// One JSON object a line.
    Json,
}

/// What runs the tasks of a process.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Flavour {
    /// Everything on one thread.
    Current,
    /// One thread per core.
    Multi,
}

/// Whether a process carries events.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Delivery {
    /// It does, unless another replica is at it.
    On,
    /// It leaves that to other replicas.
    Off,
}

/// Listening sockets that were opened before the process knew of them.
#[derive(Debug)]
pub struct Bound {
    /// For calls.
    pub listen: std::net::TcpListener,
    /// For the admin port.
    pub admin: std::net::TcpListener,
}

/// How long callers take, at most, to see in a registry that a process leaves it.
const PROPAGATION: Duration = Duration::from_secs(2);

// === impl Config ===

impl Config {
    /// The key that seals page tokens and quotes, as `page_key_file` says.
    ///
    /// # Errors
    /// The file cannot be read or does not hold 64 hexadecimal digits.
    pub fn page_key(&self) -> anyhow::Result<[u8; 32]> {
        if let Some(path) = &self.page_key_file {
            return setting(hexadecimal(path));
        }
        let mut key = [0; 32];
        aws_lc_rs::rand::fill(&mut key).context("cannot make a page key")?;
        Ok(key)
    }

    /// On leaving: how long to serve on while others learn of it.
    #[must_use]
    pub fn propagation(&self) -> Duration {
        let asked = !self.registry.starts_with("static://");
        self.propagation.unwrap_or(if asked { PROPAGATION } else { Duration::ZERO })
    }

    /// The settings of a process in a test: quiet, strict, on sockets of its own.
    #[cfg(feature = "testing")]
    #[must_use]
    pub fn for_tests(bound: Bound, registry: &str) -> Self {
        Self {
            listen: None,
            admin_listen: None,
            registry: registry.to_owned(),
            advertise: None,
            instance_id: None,
            consul_token_file: None,
            consul_ca: None,
            consul_cert: None,
            consul_key: None,
            issuer: None,
            client_secret_file: None,
            page_key_file: None,
            otlp_endpoint: None,
            otlp_ca: None,
            otlp_cert: None,
            otlp_key: None,
            trace_ratio: 1.0,
            log_format: LogFormat::Pretty,
            log: "warn".to_owned(),
            runtime: Flavour::Multi,
            propagation: Some(Duration::ZERO),
            drain: Duration::from_secs(5),
            call_timeout: Duration::from_secs(10),
            allow_plaintext: false,
            tls: crate::tls::Settings::default(),
            server: crate::server::Settings::default(),
            dependencies: Vec::new(),
            print_config: false,
            delivery: Delivery::On,
            failpoints: false,
            #[cfg(debug_assertions)]
            seeded_bug: None,
            bound: Some(Arc::new(bound)),
        }
    }
}

// === impl Bound ===

impl Bound {
    /// Two free ports of loopback.
    ///
    /// # Errors
    /// No port is free.
    pub fn free() -> std::io::Result<Self> {
        let any = SocketAddr::from(([127, 0, 0, 1], 0));
        Ok(Self {
            listen: std::net::TcpListener::bind(any)?,
            admin: std::net::TcpListener::bind(any)?,
        })
    }
}

/// Gives the flags of a process the ports it serves on unless told otherwise: calls on `port`, the
/// admin port a block higher (50051 goes with 9051, 8080 with 9080), both on loopback.
pub fn serves_on(port: u16) -> impl FnMut(clap::Arg) -> clap::Arg {
    let on = |port| SocketAddr::from(([127, 0, 0, 1], port)).to_string();
    move |arg| match arg.get_id().as_str() {
        "listen" => arg.default_value(on(port)),
        "admin_listen" => arg.default_value(on(9_000 + port % 100)),
        _ => arg,
    }
}

fn hexadecimal(path: &Path) -> anyhow::Result<[u8; 32]> {
    let mut key = [0; 32];
    let text = std::fs::read_to_string(path)
        .with_context(|| format!("cannot read the page key {}", path.display()))?;
    let digits = text.trim().as_bytes();
    anyhow::ensure!(
        digits.len() == 64,
        "{} must hold 64 hexadecimal digits, not {}",
        path.display(),
        digits.len()
    );
    for (byte, pair) in key.iter_mut().zip(digits.chunks(2)) {
        *byte = u8::from_str_radix(std::str::from_utf8(pair)?, 16)
            .with_context(|| format!("{} is not hexadecimal", path.display()))?;
    }
    Ok(key)
}

/// Reads a duration as flags give it: `250ms`, `2s`, `15m`, `24h`.
///
/// # Errors
/// A sentence that says what would be right.
pub fn duration(text: &str) -> Result<Duration, String> {
    let wrong = || format!("`{text}` is not a duration such as 250ms, 2s, 15m or 24h");
    let digits = text.find(|c: char| !c.is_ascii_digit()).ok_or_else(wrong)?;
    let (number, unit) = text.split_at(digits);
    let number: u64 = number.parse().map_err(|_error| wrong())?;
    let seconds = |each: u64| number.checked_mul(each).map(Duration::from_secs);
    match unit {
        "ms" => Some(Duration::from_millis(number)),
        "s" => seconds(1),
        "m" => seconds(60),
        "h" => seconds(3_600),
        _ => None,
    }
    .ok_or_else(wrong)
}

/// The same of what cannot be nothing: a limit of no time lets nobody in, it does not mean none.
///
/// # Errors
/// A sentence that says what would be right.
pub fn period(text: &str) -> Result<Duration, String> {
    let period = duration(text)?;
    if period.is_zero() { Err("it has to be longer than nothing".to_owned()) } else { Ok(period) }
}

/// Reads how many there may be as flags give it: one at least.
///
/// # Errors
/// A sentence that says what would be right.
pub fn count<N: std::str::FromStr + Default + PartialEq>(text: &str) -> Result<N, String> {
    let count = text.parse().ok().filter(|count| *count != N::default());
    count.ok_or_else(|| format!("`{text}` is not a number from 1 on, or too large"))
}

/// Reads what is logged as flags give it. By itself `inof` would be a target, and all else silent.
fn levels(text: &str) -> Result<String, String> {
    let wrong = |why: &dyn std::fmt::Display| {
        format!("{why}; say off, error, warn, info, debug or trace, or target=level,…")
    };
    let bare = text.split(',').map(str::trim).filter(|part| !part.contains(['=', '[', ']']));
    for part in bare {
        // To the parser nothing at all is a level, too.
        if part.is_empty() || part.parse::<LevelFilter>().is_err() {
            return Err(wrong(&format_args!("`{part}` is no level")));
        }
    }
    EnvFilter::try_new(text).map_err(|error| wrong(&error))?;
    Ok(text.to_owned())
}

/// Reads a share as flags give it: from 0 to 1.
fn ratio(text: &str) -> Result<f64, String> {
    let ratio = text.parse::<f64>().ok().filter(|ratio| (0.0..=1.0).contains(ratio));
    ratio.ok_or_else(|| format!("`{text}` is not a number from 0 to 1"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_share_is_a_number_from_nothing_to_all() {
        for (text, expected) in [
            ("0", Some(0.0)),
            ("0.25", Some(0.25)),
            ("1", Some(1.0)),
            ("1.1", None),
            ("-0.1", None),
        ] {
            assert_eq!(ratio(text).ok(), expected, "{text}");
        }
        assert!(ratio("NaN").is_err() && ratio("half").is_err());
    }

    #[test]
    fn others_have_two_seconds_to_learn_that_a_process_leaves_where_they_ask_a_registry() {
        let told = |registry: &str, propagation| {
            let config = Config::for_tests(Bound::free().unwrap(), registry);
            Config { propagation, ..config }.propagation()
        };
        for registry in ["consul://127.0.0.1:8500", "consul+tls://consul:8501", "dns://?suffix=x"] {
            assert_eq!(told(registry, None), Duration::from_secs(2), "{registry}");
        }
        assert_eq!(told("static://?users=127.0.0.1:1", None), Duration::ZERO);
        assert_eq!(told("static://", Some(Duration::from_secs(1))), Duration::from_secs(1));
    }

    #[test]
    fn a_duration_needs_its_unit() {
        for (text, expected) in [
            ("250ms", Some(Duration::from_millis(250))),
            ("2s", Some(Duration::from_secs(2))),
            ("15m", Some(Duration::from_secs(900))),
            ("24h", Some(Duration::from_secs(86_400))),
            ("0s", Some(Duration::ZERO)),
            ("2", None),
            ("s", None),
            ("", None),
            ("-1s", None),
            ("1.5s", None),
            ("99999999999999999999s", None),
            ("18446744073709551615h", None),
        ] {
            assert_eq!(duration(text).ok(), expected, "{text}");
        }
    }

    #[test]
    fn what_is_logged_is_checked_when_it_is_read() {
        for good in ["info", "OFF", "warn,mesh=debug", "mesh::server=trace", "[call{order=1}]=info"]
        {
            assert_eq!(levels(good).as_deref(), Ok(good));
        }
        for wrong in ["inof", "", "mesh=inof", "warn,mesh", "info,", "orders=debug=warn"] {
            let why = levels(wrong).expect_err(wrong);
            assert!(why.contains("off, error, warn"), "{wrong}: {why}");
        }
    }

    #[derive(clap::Parser)]
    #[command(mut_args = serves_on(50_054))]
    struct Service {
        #[command(flatten)]
        mesh: Config,
    }

    #[test]
    fn a_bound_that_is_nothing_is_refused_and_not_taken_for_none() {
        use clap::Parser as _;
        for (flag, zero) in [
            ("--call-timeout", "0s"),
            ("--tls-reload", "0s"),
            ("--handshake-timeout", "0ms"),
            ("--preface-timeout", "0s"),
            ("--connection-age", "0s"),
            ("--connection-idle", "0m"),
            ("--keepalive", "0s"),
            ("--keepalive-timeout", "0s"),
            ("--connections-max", "0"),
            ("--connection-calls-max", "0"),
            ("--headers-max-bytes", "0"),
            ("--limit-min", "0"),
            ("--limit-max", "0"),
            ("--streams-max", "0"),
        ] {
            let error = Service::try_parse_from(["orders", flag, zero]).err();
            assert_eq!(error.map(|it| it.exit_code()), Some(2), "{flag} {zero}");
        }
        // Of these it is a value: not to wait at all.
        for flag in ["--propagation", "--drain", "--connection-age-grace"] {
            assert!(Service::try_parse_from(["orders", flag, "0s"]).is_ok(), "{flag} 0s");
        }
    }

    #[test]
    fn the_ports_of_a_process_go_together_unless_one_is_named() {
        use clap::Parser as _;
        let ports = |flags: &[&str]| {
            let config = Service::try_parse_from(flags).expect("flags").mesh;
            (config.listen.map(|a| a.port()), config.admin_listen.map(|a| a.port()))
        };
        assert_eq!(ports(&["orders"]), (Some(50_054), Some(9_054)));
        assert_eq!(ports(&["orders", "--listen", "127.0.0.1:1"]), (Some(1), Some(9_054)));
    }
}
