//! How a process finds others, and how it becomes known to them.

use std::{
    collections::BTreeMap,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    sync::{Arc, OnceLock},
};

use anyhow::Context as _;

use super::App;
use crate::{
    config::Config,
    registry::{Address, Health, Lease, Options, Registration, Registry, Standing},
    server::{Check, Readiness},
    tls::{ClientAuth, Files, Flags},
};

/// Ready only once the registry has taken this process in. Registered late, because others come
/// as soon as they hear of it.
#[derive(Debug)]
pub(super) struct Registered(Arc<OnceLock<Standing>>);

/// Opens the registry that the settings name.
pub(super) fn registry(config: &Config) -> anyhow::Result<Registry> {
    let consul = Files {
        ca: config.consul_ca.clone(),
        cert: config.consul_cert.clone(),
        key: config.consul_key.clone(),
        ..Files::none(Flags::Consul)
    };
    let options = Options {
        consul_token_file: config.consul_token_file.clone(),
        tls: Some(config.tls.files_or(consul)),
        allow_plaintext: config.allow_plaintext,
        ..Options::from_env()
    };
    Registry::open(&config.registry, &options).context("--registry is wrong")
}

// === impl App ===

impl App {
    /// What the registry is told of this process.
    pub(super) fn registration(&self, readiness: &Readiness) -> anyhow::Result<Registration> {
        let address = self.advertised()?;
        let id = self.config.instance_id.clone().unwrap_or_else(|| {
            let host = address.host.trim_matches(['[', ']']);
            format!("{}-{host}-{}", self.name, address.port)
        });
        // All services of a process are ready together.
        let service = self.names.first().copied().unwrap_or_default().to_owned();
        let health = if self.edge.is_some() {
            // It speaks no gRPC; the admin port says the same over HTTP.
            let admin = Address { port: self.admin_port, ..address.clone() };
            Health::Http(format!("http://{admin}/ready"))
        } else if self.tls.is_some() {
            let mutual = self.config.tls.client_auth == ClientAuth::Required;
            Health::GrpcOverTls { service, mutual }
        } else {
            Health::Grpc(service)
        };
        Ok(Registration {
            service: self.name.to_owned(),
            id,
            address,
            health,
            ready: readiness.ready(),
            weight: 1,
            meta: BTreeMap::from([("version".to_owned(), env!("CARGO_PKG_VERSION").to_owned())]),
        })
    }

    /// Where others reach this process: `--advertise`, else where it listens.
    fn advertised(&self) -> anyhow::Result<Address> {
        let port = self.address.port();
        match self.config.advertise.as_deref() {
            // An address without a port may have colons of its own.
            Some(text) if text.parse::<IpAddr>().is_ok() => Ok(Address::of(text, port)),
            Some(text) if text.ends_with(']') || !text.contains(':') => {
                anyhow::ensure!(!text.is_empty(), "--advertise names no host");
                Ok(Address::of(text, port))
            }
            Some(text) => text.parse().context("--advertise is wrong"),
            None => Ok(Address::of(&self.address.ip().to_string(), port)),
        }
    }

    /// Where this process reaches itself.
    pub(super) fn own_address(&self) -> Address {
        let ip = match self.address.ip() {
            IpAddr::V4(ip) if ip.is_unspecified() => IpAddr::V4(Ipv4Addr::LOCALHOST),
            IpAddr::V6(ip) if ip.is_unspecified() => IpAddr::V6(Ipv6Addr::LOCALHOST),
            ip @ (IpAddr::V4(_) | IpAddr::V6(_)) => ip,
        };
        Address::of(&ip.to_string(), self.address.port())
    }
}

// === impl Registered ===

impl Registered {
    /// Adds the check `registry`.
    pub(super) fn check(checks: &mut Vec<(&'static str, Check)>) -> Self {
        let standing: Arc<OnceLock<Standing>> = Arc::default();
        let asked = Arc::clone(&standing);
        let check: Check = Box::new(move || {
            let missing = match asked.get() {
                Some(standing) => standing.missing(),
                None => Some("not registered yet".to_owned()),
            };
            Box::pin(std::future::ready(missing.map_or(Ok(()), Err)))
        });
        checks.push(("registry", check));
        Self(standing)
    }

    /// Asks this lease from now on.
    pub(super) fn keep(self, lease: Lease) -> Lease {
        self.0.get_or_init(|| lease.standing());
        lease
    }
}
