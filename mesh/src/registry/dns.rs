//! `dns://`: A and AAAA records, as a headless Service of Kubernetes has them, or SRV.

use std::{
    net::{IpAddr, SocketAddr},
    sync::Arc,
    time::Duration,
};

use futures_util::{
    future::{BoxFuture, join_all},
    join,
};
use hickory_resolver::{
    Resolver, TokioResolver,
    config::{ConnectionConfig, NameServerConfig, ResolveHosts, ResolverConfig},
    net::{DnsError, NetError, runtime::TokioRuntimeProvider},
    proto::{
        op::ResponseCode,
        rr::{RData, Record, RecordType},
    },
};
use tokio::{sync::Notify, time::Instant};

use super::{
    Address, Answer, Backend, Failure, Found, Instance, Malformed, Registration, Source, lease,
    query,
};
use crate::{clock, config};

/// How long an answer may take, all servers and repeats together.
const PATIENCE: Duration = Duration::from_secs(2);
/// How long an answer counts, whatever its records say: at least, and at most.
const COUNTS: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(60));
/// How long an answer without any record counts that does not say so itself.
const NOBODY: Duration = Duration::from_secs(5);
/// Where the system says which servers there are.
const RESOLV_CONF: &str = "/etc/resolv.conf";

/// Names of services below one domain.
pub(super) struct Dns {
    resolver: Servers,
    suffix: String,
    kind: Kind,
}

/// What is asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Kind {
    /// Addresses, all with one port.
    Addresses { port: u16 },
    /// Services, as `_srv._tcp`, with a port each.
    Services { srv: String },
}

/// Who is asked.
#[derive(Clone)]
enum Servers {
    Real(Box<TokioResolver>),
    /// What a test makes of them: there time can be paused.
    #[cfg(test)]
    Scripted(super::scripted::Scripted),
}

/// What asks about one service.
struct Look {
    resolver: Servers,
    name: String,
    kind: Kind,
    hurry: Arc<Notify>,
    /// When the last answer ends to count, and the first moment at which it may be asked again.
    due: Option<(Instant, Instant)>,
}

/// Records, and for how long they count.
type Records = (Vec<Record>, Duration);

// === impl Dns ===

impl Dns {
    /// Reads `[ip:port]?suffix=domain&port=port` or `…&srv=grpc`. Names of the root have `.` as
    /// their domain.
    pub(super) fn open(rest: &str) -> Result<Self, Malformed> {
        let (server, parameters) = rest.split_once('?').unwrap_or((rest, ""));
        let (mut suffix, mut port, mut srv) = (None, None, None);
        for (key, value) in query(parameters)? {
            match key.as_str() {
                "suffix" => suffix = Some(value.trim_matches('.').to_owned()),
                "port" => {
                    let why = |why: String| Malformed::Setting(format!("port={value}: {why}"));
                    port = Some(config::count(&value).map_err(why)?);
                }
                "srv" => srv = Some(value),
                _ => {
                    let why = format!("{key}={value}: DNS is told suffix, and port or srv");
                    return Err(Malformed::Setting(why));
                }
            }
        }
        let Some(suffix) = suffix else {
            let why = "dns:// needs suffix=, the domain that the names of services are in";
            return Err(Malformed::Setting(why.to_owned()));
        };
        let kind = match (port, srv) {
            (Some(port), None) => Kind::Addresses { port },
            (None, Some(srv)) => Kind::Services { srv },
            (Some(_), Some(_)) | (None, None) => {
                let why = "dns:// needs either port=, where all instances listen, or srv=, the \
                           name that their SRV records have";
                return Err(Malformed::Setting(why.to_owned()));
            }
        };
        let servers = match server.trim_end_matches('/') {
            "" => system()?,
            server => {
                let why = || {
                    Malformed::Setting(format!(
                        "dns://{server}: a server is ip:port, such as 127.0.0.1:53; without one \
                         those of {RESOLV_CONF} are asked"
                    ))
                };
                vec![server.parse().map_err(|_error| why())?]
            }
        };
        let resolver = Servers::Real(Box::new(resolver(&servers)?));
        Ok(Self { resolver, suffix, kind })
    }

    /// Asks for the addresses that a test knows.
    #[cfg(test)]
    pub(super) fn scripted(script: super::scripted::Scripted) -> Self {
        let kind = Kind::Addresses { port: 1 };
        Self { resolver: Servers::Scripted(script), suffix: String::new(), kind }
    }
}

impl Backend for Dns {
    fn source(&self, service: &str, hurry: Arc<Notify>) -> Found {
        // With a dot at its end a name is not tried below the domains of the machine.
        let name = match self.suffix.as_str() {
            "" => format!("{service}."),
            suffix => format!("{service}.{suffix}."),
        };
        let (resolver, kind) = (self.resolver.clone(), self.kind.clone());
        Found::Asked(Box::new(Look { resolver, name, kind, hurry, due: None }))
    }

    /// Kubernetes, or whoever keeps the records, does that.
    fn keeper(&self, _registration: Registration) -> Option<Box<dyn lease::Keeper>> {
        None
    }
}

// === impl Look ===

impl Look {
    async fn look(&mut self) -> Result<Answer, Failure> {
        if let Some((ends, earliest)) = self.due.take() {
            tokio::select! {
                () = tokio::time::sleep_until(ends) => {}
                () = self.hurry.notified() => tokio::time::sleep_until(earliest).await,
            }
        }
        let earliest = clock::instant() + COUNTS.0;
        let found = match &self.kind {
            Kind::Addresses { port } => {
                let found = self.addresses(&self.name).await?;
                (instances(found.0, *port, 1), found.1)
            }
            Kind::Services { srv } => self.services(srv).await?,
        };
        let counts = found.1.clamp(COUNTS.0, COUNTS.1);
        self.due = Some((clock::instant() + counts, earliest));
        // It is asked again when that has passed: late only if that takes too long, twice.
        Ok(Answer { instances: found.0, fresh: counts + 2 * PATIENCE })
    }

    /// The addresses of a name in both families.
    async fn addresses(&self, name: &str) -> Result<(Vec<IpAddr>, Duration), Failure> {
        let (four, six) =
            join!(self.records(name, RecordType::A), self.records(name, RecordType::AAAA));
        let (records, counts) = match (four, six) {
            (Ok(mut four), Ok(six)) => {
                // Where one family has nobody, the other says how long that counts.
                let counts = match (four.0.is_empty(), six.0.is_empty()) {
                    (false, true) => four.1,
                    (true, false) => six.1,
                    (true, true) | (false, false) => four.1.min(six.1),
                };
                four.0.extend(six.0);
                (four.0, counts)
            }
            // A server that knows of one family only is not a silent one.
            (Ok(found), Err(_)) | (Err(_), Ok(found)) if !found.0.is_empty() => found,
            (Ok(_), Err(failure)) | (Err(failure), Ok(_) | Err(_)) => return Err(failure),
        };
        let mut found: Vec<IpAddr> =
            records.iter().filter_map(|record| record.data.ip_addr()).collect();
        found.sort_unstable();
        found.dedup();
        Ok((found, counts))
    }

    /// The targets of the SRV records that come first, with their weights.
    async fn services(&self, srv: &str) -> Result<(Vec<Instance>, Duration), Failure> {
        let name = format!("_{srv}._tcp.{}", self.name);
        let (records, mut counts) = self.records(&name, RecordType::SRV).await?;
        let services: Vec<_> = records
            .iter()
            .filter_map(|record| {
                let RData::SRV(service) = &record.data else { return None };
                Some(service)
            })
            .collect();
        let first = services.iter().map(|service| service.priority).min();
        let first = services.into_iter().filter(|service| Some(service.priority) == first);
        let found =
            first.map(async |service| (service, self.addresses(&service.target.to_string()).await));
        let mut all: Vec<Instance> = Vec::new();
        for (service, addresses) in join_all(found).await {
            let (addresses, they) = addresses?;
            counts = counts.min(they);
            let weight = u32::from(service.weight).max(1);
            for instance in instances(addresses, service.port, weight) {
                if all.iter().all(|known| known.id != instance.id) {
                    all.push(instance);
                }
            }
        }
        Ok((all, counts))
    }

    async fn records(&self, name: &str, kind: RecordType) -> Result<Records, Failure> {
        let asked = tokio::time::timeout(PATIENCE, self.resolver.lookup(name, kind)).await;
        let failed = |why: &dyn std::fmt::Display| {
            Failure::Unreachable(format!("DNS, {kind} of {name}: {why}"))
        };
        match asked {
            Ok(Ok(records)) => {
                let seconds = records.iter().map(|record| record.ttl).min();
                let counts = seconds.map_or(NOBODY, |it| Duration::from_secs(it.into()));
                Ok((records, counts))
            }
            // That there is nobody is an answer; that the server cannot say it is none.
            Ok(Err(NetError::Dns(DnsError::NoRecordsFound(none))))
                if matches!(none.response_code, ResponseCode::NoError | ResponseCode::NXDomain) =>
            {
                let counts = none.negative_ttl.map(|it| Duration::from_secs(it.into()));
                Ok((Vec::new(), counts.unwrap_or(NOBODY)))
            }
            Ok(Err(error)) => Err(failed(&error)),
            Err(_) => Err(failed(&"no answer in time")),
        }
    }
}

// === impl Servers ===

impl Servers {
    async fn lookup(&self, name: &str, kind: RecordType) -> Result<Vec<Record>, NetError> {
        match self {
            Self::Real(resolver) => Ok(resolver.lookup(name, kind).await?.answers().to_vec()),
            #[cfg(test)]
            Self::Scripted(script) => script.lookup(name, kind).await,
        }
    }
}

impl Source for Look {
    fn next(&mut self) -> BoxFuture<'_, Result<Answer, Failure>> {
        Box::pin(self.look())
    }
}

fn instances(addresses: Vec<IpAddr>, port: u16, weight: u32) -> Vec<Instance> {
    let at = |ip: IpAddr| Instance { weight, ..Instance::at(Address::of(&ip.to_string(), port)) };
    addresses.into_iter().map(at).collect()
}

fn resolver(servers: &[SocketAddr]) -> Result<TokioResolver, Malformed> {
    let servers = servers.iter().map(|server| {
        let mut connections = vec![ConnectionConfig::udp(), ConnectionConfig::tcp()];
        for connection in &mut connections {
            connection.port = server.port();
        }
        NameServerConfig::new(server.ip(), true, connections)
    });
    let config = ResolverConfig::from_name_servers(servers.collect());
    let mut builder = Resolver::builder_with_config(config, TokioRuntimeProvider::default());
    let options = builder.options_mut();
    options.timeout = PATIENCE / 2;
    options.attempts = 1;
    // What is known is kept by our own cache, which knows when to keep it for longer.
    options.cache_size = 0;
    options.use_hosts_file = ResolveHosts::Never;
    builder.build().map_err(|error| Malformed::Setting(format!("dns://: {error}")))
}

/// The servers of this machine.
fn system() -> Result<Vec<SocketAddr>, Malformed> {
    let text = std::fs::read_to_string(RESOLV_CONF).unwrap_or_default();
    let servers: Vec<SocketAddr> = (text.lines())
        .filter_map(|line| line.trim().strip_prefix("nameserver")?.split_whitespace().next())
        .filter_map(|address| address.parse::<IpAddr>().ok())
        .map(|address| SocketAddr::new(address, 53))
        .collect();
    if servers.is_empty() {
        let why = format!("{RESOLV_CONF} names no server: say which, as dns://ip:port?…");
        return Err(Malformed::Setting(why));
    }
    Ok(servers)
}

#[cfg(test)]
mod tests;
