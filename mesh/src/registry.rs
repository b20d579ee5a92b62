//! Where the other processes are.

use std::{
    collections::{BTreeMap, HashMap},
    fmt,
    sync::Arc,
};

use tokio::{sync::watch, time::Instant};

/// Finds the addresses of a service by its name. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Registry(Arc<Fixed>);

/// `static://?name=host:port,host:port&name=host:port`: addresses that do not change.
#[derive(Debug, Default)]
struct Fixed {
    by_name: HashMap<String, Vec<Address>>,
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

/// `host:port`.
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
    #[error("`{0}` is not a registry; use static://?name=host:port&name=host:port,host:port")]
    Scheme(String),
    /// A part is not `name=host:port`.
    #[error("`{0}` is not name=host:port")]
    Entry(String),
    /// An address is not `host:port`.
    #[error("`{0}` is not host:port")]
    Address(String),
}

// === impl Registry ===

impl Registry {
    /// Reads a registry's URL.
    ///
    /// # Errors
    /// [`Malformed`] says which part cannot be understood.
    pub fn parse(url: &str) -> Result<Self, Malformed> {
        let entries = url
            .strip_prefix("static://")
            .map(|rest| rest.trim_start_matches('?'))
            .ok_or_else(|| Malformed::Scheme(url.to_owned()))?;
        let mut fixed = Fixed::default();
        for entry in entries.split('&').filter(|entry| !entry.is_empty()) {
            let (name, addresses) =
                entry.split_once('=').ok_or_else(|| Malformed::Entry(entry.to_owned()))?;
            let known = fixed.by_name.entry(name.to_owned()).or_default();
            for address in addresses.split(',').filter(|address| !address.is_empty()) {
                known.push(address.parse()?);
            }
        }
        Ok(Self(Arc::new(fixed)))
    }

    /// The addresses of `name`; none if it is not known.
    #[must_use]
    pub fn addresses(&self, name: &str) -> Vec<Address> {
        self.0.by_name.get(name).cloned().unwrap_or_default()
    }

    /// The instances of `name` now, and whenever they change.
    #[must_use]
    pub fn watch(&self, name: &str) -> watch::Receiver<Arc<Snapshot>> {
        Snapshot::fixed(&self.addresses(name))
    }
}

// === impl Snapshot ===

impl Snapshot {
    /// Instances at addresses that do not change, each called by its address.
    #[must_use]
    pub fn fixed(addresses: &[Address]) -> watch::Receiver<Arc<Self>> {
        let instances = (addresses.iter())
            .map(|address| Instance {
                id: address.to_string(),
                address: address.clone(),
                weight: 1,
                meta: BTreeMap::new(),
            })
            .collect();
        let known = Self { instances, fetched_at: Some(crate::clock::instant()), stale: false };
        // Nobody sends: whoever waits for a change hears that there will be none.
        watch::channel(Arc::new(known)).1
    }
}

// === impl Address ===

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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn static_names_addresses_and_replicas() {
        let registry =
            Registry::parse("static://?users=127.0.0.1:50051&catalog=[::1]:50052,localhost:50152")
                .expect("a registry");
        let text =
            |name| registry.addresses(name).iter().map(ToString::to_string).collect::<Vec<_>>();
        assert_eq!(text("users"), ["127.0.0.1:50051"]);
        assert_eq!(text("catalog"), ["[::1]:50052", "localhost:50152"]);
        assert!(text("orders").is_empty());
    }

    #[test]
    fn a_malformed_registry_names_the_part_that_is_wrong() {
        for (url, expected) in [
            ("consul:/x", Malformed::Scheme("consul:/x".to_owned())),
            ("static://?users", Malformed::Entry("users".to_owned())),
            ("static://?users=127.0.0.1", Malformed::Address("127.0.0.1".to_owned())),
            ("static://?users=:1", Malformed::Address(":1".to_owned())),
            ("static://?users=a:65536", Malformed::Address("a:65536".to_owned())),
        ] {
            assert_eq!(Registry::parse(url).expect_err(url), expected);
        }
    }
}
