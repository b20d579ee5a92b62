//! Where the other processes are, and how they learn of this one.
//!
//! A [`Registry`] is opened from a URL. Whatever stands behind it (`fixed`, `consul`, `dns`), what
//! it says is kept by one cache: an answer that does not come changes nothing, for as long as it
//! takes.

use std::{
    collections::{BTreeMap, HashMap},
    fmt,
    path::PathBuf,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use futures_util::future::BoxFuture;
use tokio::{
    sync::{Notify, watch},
    time::Instant,
};

use crate::{clock, tls};

mod cache;
mod consul;
mod dns;
mod fixed;
mod lease;
#[cfg(test)]
pub(crate) mod scripted;

pub(crate) use cache::stale_seconds;
pub use lease::{Health, Lease, Registration, Standing};

/// Finds the instances of a service by its name, and makes this process known. Cheap to clone.
#[derive(Clone)]
pub struct Registry(Arc<Inner>);

struct Inner {
    backend: Arc<dyn Backend>,
    entries: Mutex<HashMap<String, cache::Entry>>,
}

/// One kind of registry.
trait Backend: Send + Sync {
    /// Where the instances of `service` are. `hurry` asks to look sooner than it would by itself.
    fn source(&self, service: &str, hurry: Arc<Notify>) -> Found;

    /// Makes an instance known, and keeps it known; `None` where somebody else does that.
    fn keeper(&self, registration: Registration) -> Option<Box<dyn lease::Keeper>>;
}

/// What a registry has for a service.
enum Found {
    /// Instances that never change.
    Fixed(Vec<Instance>),
    /// Somebody to ask.
    Asked(Box<dyn Source>),
}

/// What says, again and again, where the instances of one service are.
trait Source: Send {
    /// The next answer. Waits until there may be another one; the first comes at once.
    fn next(&mut self) -> BoxFuture<'_, Result<Answer, Failure>>;
}

/// What a registry said.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Answer {
    instances: Vec<Instance>,
    /// For how long that counts as known, without another answer.
    fresh: Duration,
}

/// What a registry is told beside its URL.
#[derive(Clone, Default)]
pub struct Options {
    /// File with the token for Consul, read again when it is refused.
    pub consul_token_file: Option<PathBuf>,
    /// The token that counts where no file is named.
    pub consul_token: Option<String>,
    /// Whom to trust where it is asked over TLS, and what to show to it.
    pub tls: Option<tls::Files>,
    /// Allows plaintext beyond loopback.
    pub allow_plaintext: bool,
}

/// One running process of a service.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Instance {
    /// What tells it from others, over restarts of the registry: unique within a service.
    pub id: String,
    /// Where it serves.
    pub address: Address,
    /// Its share of the calls, relative to its peers; at least 1.
    pub weight: u32,
    /// What it says of itself: version, zone.
    pub meta: BTreeMap<String, String>,
}

/// The instances of a service, as they were known at one time.
#[derive(Clone, Debug, Default)]
pub struct Snapshot {
    /// All that may be called, in no particular order.
    pub instances: Vec<Instance>,
    /// When the registry said so; `None` until it has answered for the first time.
    pub fetched_at: Option<Instant>,
    /// The registry could not be asked since it should have been: what was known last goes on.
    pub stale: bool,
}

/// `host:port`; an IPv6 address stands in brackets.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Address {
    /// A name or an IP address.
    pub host: String,
    /// The port.
    pub port: u16,
}

/// A registry's URL that cannot be understood.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Malformed {
    /// The scheme is not one of ours.
    #[error(
        "`{0}` is not a registry; use static://?name=host:port&name=host:port,host:port, \
         static:///path/to/a/file, consul://host:port, consul+tls://host:port or \
         dns://?suffix=domain&port=port"
    )]
    Scheme(String),
    /// A part is not `name=host:port`.
    #[error("`{0}` is not name=host:port")]
    Entry(String),
    /// An address is not `host:port`.
    #[error("`{0}` is not host:port")]
    Address(String),
    /// A setting of this registry is missing, unknown, or has a value that it cannot have.
    #[error("{0}")]
    Setting(String),
}

/// Why a registry gave no answer, or did not take one in.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Failure {
    /// It could not be asked, or did not answer in time.
    #[error("the registry cannot be reached: {0}")]
    Unreachable(String),
    /// It answered that we may not: the token is missing, unknown, or lacks a right.
    #[error("the registry refuses it: {0}")]
    Denied(String),
    /// It answered with an error of its own.
    #[error("the registry answered {0}")]
    Answered(String),
    /// Its answer cannot be understood.
    #[error("the registry's answer cannot be read: {0}")]
    Unreadable(String),
    /// Its certificate is not good, or ours is not good enough for it.
    #[error("there is no trust between the registry and us: {0}")]
    Untrusted(String),
}

// === impl Registry ===

impl Registry {
    /// Opens the registry of this URL. Nothing is asked yet.
    ///
    /// # Errors
    /// [`Malformed`] says which part cannot be understood.
    pub fn open(url: &str, options: &Options) -> Result<Self, Malformed> {
        let (scheme, rest) =
            url.split_once("://").ok_or_else(|| Malformed::Scheme(url.to_owned()))?;
        let backend: Arc<dyn Backend> = match scheme {
            "static" if rest.starts_with('/') => Arc::new(fixed::File::at(rest)),
            "static" => Arc::new(fixed::Fixed::parse(rest.trim_start_matches('?'))?),
            "consul" => Arc::new(consul::Consul::open(rest, options)?),
            "consul+tls" => Arc::new(consul::Consul::open_tls(rest, options)?),
            "dns" => Arc::new(dns::Dns::open(rest)?),
            _ => return Err(Malformed::Scheme(url.to_owned())),
        };
        Ok(Self::of(backend))
    }

    fn of(backend: Arc<dyn Backend>) -> Self {
        Self(Arc::new(Inner { backend, entries: Mutex::default() }))
    }

    /// The instances of `name` now, and whenever they change. Until the registry has answered
    /// for the first time there are none, and [`Snapshot::fetched_at`] says so. What is asked for
    /// twice is looked up once. Ends with the last clone of this registry.
    ///
    /// # Panics
    /// Outside of a runtime.
    #[must_use]
    pub fn watch(&self, name: &str) -> watch::Receiver<Arc<Snapshot>> {
        self.entry(name, cache::Entry::snapshots)
    }

    /// Waits until the registry has answered for the first time what the instances of `name`
    /// are.
    ///
    /// # Errors
    /// [`Failure`] says why there is no answer: at once if we may not ask, else after `timeout`.
    pub async fn find(&self, name: &str, timeout: Duration) -> Result<Arc<Snapshot>, Failure> {
        let (mut snapshots, mut failure) =
            self.entry(name, |entry| (entry.snapshots(), entry.failure()));
        let denied = |it: &Option<Failure>| it.as_ref().is_some_and(Failure::is_final);
        let answered = tokio::time::timeout(timeout, async {
            tokio::select! {
                Ok(known) = snapshots.wait_for(|it| it.fetched_at.is_some()) => {
                    Ok(Arc::clone(&known))
                }
                Ok(why) = failure.wait_for(denied) => Err(why.clone()),
            }
        });
        match answered.await {
            Ok(Ok(known)) => Ok(known),
            Ok(Err(why)) => Err(why.unwrap_or_else(silent)),
            Err(_) => Err(failure.borrow().clone().unwrap_or_else(silent)),
        }
    }

    /// Rung by whoever calls `name` and sees an instance of it go: the registry is asked soon. Where
    /// changes are pushed that changes nothing.
    pub(crate) fn hurry(&self, name: &str) -> Arc<Notify> {
        self.entry(name, cache::Entry::hurry)
    }

    /// Makes an instance known until the lease is left, over restarts of the registry.
    ///
    /// # Panics
    /// Outside of a runtime.
    #[must_use]
    pub fn register(&self, registration: Registration) -> Lease {
        let id = registration.id.clone();
        match self.0.backend.keeper(registration) {
            Some(keeper) => Lease::keep(id, keeper),
            None => Lease::nothing_to_do(id),
        }
    }

    fn entry<T>(&self, name: &str, read: impl FnOnce(&cache::Entry) -> T) -> T {
        let mut entries = self.0.entries.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(entry) = entries.get(name) {
            return read(entry);
        }
        let entry = cache::Entry::follow(name, |hurry| self.0.backend.source(name, hurry));
        read(entries.entry(name.to_owned()).or_insert(entry))
    }
}

impl fmt::Debug for Registry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Registry").finish_non_exhaustive()
    }
}

// === impl Options ===

impl Options {
    /// What the environment of every client of Consul says: `CONSUL_HTTP_TOKEN`.
    #[must_use]
    pub fn from_env() -> Self {
        let token = std::env::var("CONSUL_HTTP_TOKEN").ok().filter(|token| !token.is_empty());
        Self { consul_token: token, ..Self::default() }
    }
}

impl fmt::Debug for Options {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Options")
            .field("consul_token_file", &self.consul_token_file)
            .field("consul_token", &self.consul_token.as_ref().map(|_| "…"))
            .field("tls", &self.tls)
            .field("allow_plaintext", &self.allow_plaintext)
            .finish()
    }
}

// === impl Failure ===

impl Failure {
    /// Whether asking again changes nothing until somebody has changed a setting.
    fn is_final(&self) -> bool {
        match self {
            Self::Denied(_) | Self::Untrusted(_) => true,
            Self::Unreachable(_) | Self::Answered(_) | Self::Unreadable(_) => false,
        }
    }
}

// === impl Snapshot ===

impl Snapshot {
    /// Instances at addresses that do not change, each called by its address.
    #[must_use]
    pub fn fixed(addresses: &[Address]) -> watch::Receiver<Arc<Self>> {
        let instances = addresses.iter().cloned().map(Instance::at).collect();
        let known = Self { instances, fetched_at: Some(clock::instant()), stale: false };
        // Nobody sends: whoever waits for a change hears that there will be none.
        watch::channel(Arc::new(known)).1
    }

    /// Where the instances serve.
    #[must_use]
    pub fn addresses(&self) -> Vec<Address> {
        self.instances.iter().map(|instance| instance.address.clone()).collect()
    }
}

// === impl Instance ===

impl Instance {
    /// One of which nothing is known but its address.
    fn at(address: Address) -> Self {
        Self { id: address.to_string(), address, weight: 1, meta: BTreeMap::new() }
    }
}

// === impl Address ===

impl Address {
    /// The address of a host, which may be an IPv6 address without its brackets.
    #[must_use]
    pub fn of(host: &str, port: u16) -> Self {
        let bare = host.contains(':') && !host.starts_with('[');
        Self { host: if bare { format!("[{host}]") } else { host.to_owned() }, port }
    }

    /// Whether nobody beyond this machine hears what is said to it.
    #[must_use]
    pub fn is_loopback(&self) -> bool {
        let ip = self.bare().parse::<std::net::IpAddr>();
        self.host == "localhost" || ip.is_ok_and(|ip| ip.to_canonical().is_loopback())
    }

    /// The host without brackets: an IP address of version 6 has them in a URL, and nowhere else.
    pub(crate) fn bare(&self) -> &str {
        self.host.trim_start_matches('[').trim_end_matches(']')
    }
}

impl std::str::FromStr for Address {
    type Err = Malformed;

    fn from_str(text: &str) -> Result<Self, Malformed> {
        let wrong = || Malformed::Address(text.to_owned());
        let (host, port) = text.rsplit_once(':').ok_or_else(wrong)?;
        let port = port.parse().map_err(|_error| wrong())?;
        if host.is_empty() {
            return Err(wrong());
        }
        Ok(Self { host: host.to_owned(), port })
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.host, self.port)
    }
}

fn silent() -> Failure {
    Failure::Unreachable("it has not answered yet".to_owned())
}

/// `key=value&key=value`, each value decoded.
fn query(text: &str) -> Result<Vec<(String, String)>, Malformed> {
    let pair = |part: &str| {
        let (key, value) =
            part.split_once('=').ok_or_else(|| Malformed::Setting(format!("`{part}` has no =")))?;
        let value = percent_encoding::percent_decode_str(value).decode_utf8_lossy().into_owned();
        Ok((key.to_owned(), value))
    };
    text.split('&').filter(|part| !part.is_empty()).map(pair).collect()
}

#[cfg(test)]
mod tests;
