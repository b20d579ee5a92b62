//! The table of processes: what runs, on which ports, with which database and environment.

use std::path::Path;

use anyhow::{Result, bail, ensure};

use crate::site::{self, Site};

/// One process of the mesh. Everything else that a command needs is derived from this row.
#[derive(Debug)]
pub(crate) struct Process {
    /// Its name in the registry, and the name of its binary.
    pub(crate) name: &'static str,
    /// The crate that it is built from.
    pub(crate) package: &'static str,
    /// gRPC, or HTTP where `http` says so.
    pub(crate) port: u16,
    /// `/health`, `/ready` and `/metrics`.
    pub(crate) admin: u16,
    /// Speaks HTTP on its port.
    pub(crate) http: bool,
    /// The variable that names its database.
    pub(crate) database: Option<&'static str>,
    /// Stands in the registry: others call it by name.
    pub(crate) registered: bool,
    /// What a reader of the table of addresses should know.
    pub(crate) about: &'static str,
}

/// The port of the gateway before any shift.
pub(crate) const GATEWAY_PORT: u16 = 8080;

/// The port of the provider's simulator before any shift.
pub(crate) const PSP_PORT: u16 = 8090;

/// Replica k listens this much higher than replica k - 1.
const REPLICA_STEP: u16 = 100;

/// More replicas than this would meet the ports of a neighbour.
const REPLICAS_MAX: u16 = 4;

/// Every process, in the order of their ports.
pub(crate) const TABLE: &[Process] = &[
    service("users", 50051, 9051, "USERS_DATABASE_URL", "accounts, tokens, JWKS"),
    service("catalog", 50052, 9052, "CATALOG_DATABASE_URL", "products, variants, prices"),
    service("inventory", 50053, 9053, "INVENTORY_DATABASE_URL", "stock and reservations"),
    service("orders", 50054, 9054, "ORDERS_DATABASE_URL", "orders and their saga"),
    service("payments", 50055, 9055, "PAYMENTS_DATABASE_URL", "payments and the ledger"),
    service("shipping", 50056, 9056, "SHIPPING_DATABASE_URL", "shipments and the carrier"),
    service("notifications", 50057, 9057, "NOTIFICATIONS_DATABASE_URL", "mails to customers"),
    Process {
        name: "psp-simulator",
        package: "payments",
        port: PSP_PORT,
        admin: 9090,
        http: true,
        database: Some("PSP_DATABASE_URL"),
        registered: false,
        about: "the payment provider (HTTP)",
    },
    Process {
        name: "gateway",
        package: "gateway",
        port: GATEWAY_PORT,
        admin: 9080,
        http: true,
        database: None,
        registered: false,
        about: "HTTP/JSON for the world",
    },
];

const fn service(
    name: &'static str,
    port: u16,
    admin: u16,
    database: &'static str,
    about: &'static str,
) -> Process {
    let database = Some(database);
    Process { name, package: name, port, admin, http: false, database, registered: true, about }
}

/// The row of a process.
pub(crate) fn named(name: &str) -> Result<&'static Process> {
    let known: Vec<&str> = TABLE.iter().map(|it| it.name).collect();
    match TABLE.iter().find(|it| it.name == name) {
        Some(process) => Ok(process),
        None => bail!("there is no process `{name}`: there are {}", known.join(", ")),
    }
}

/// One running copy of a process: what the supervisor starts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Instance {
    /// `orders`; its replicas `orders-1`, `orders-2`, …
    pub(crate) name: String,
    pub(crate) service: String,
    pub(crate) listen: String,
    pub(crate) admin: String,
    pub(crate) program: String,
    pub(crate) env: Vec<(String, String)>,
}

/// How many copies of which process: parsed from `SERVICE=N`.
pub(crate) fn replicas(asked: &[String], postgres: bool) -> Result<Vec<(&'static Process, u16)>> {
    let mut counts = Vec::new();
    for text in asked {
        let Some((name, count)) = text.split_once('=') else {
            bail!("--replicas {text}: write SERVICE=N, as in --replicas orders=2");
        };
        let process = named(name)?;
        let count: u16 = match count.parse() {
            Ok(count @ 1..=REPLICAS_MAX) => count,
            _ => {
                bail!("--replicas {text}: from 1 to {REPLICAS_MAX} replicas fit between the ports")
            }
        };
        if count > 1 {
            ensure!(
                postgres || process.database.is_none(),
                "--replicas {text} needs --with postgres: one process owns a SQLite file, so a \
                 second {name} would have no database. Try: cargo xtask up --with postgres --replicas {text}"
            );
            ensure!(
                process.registered,
                "--replicas {text}: {name} has one fixed address, so one copy of it runs"
            );
        }
        counts.push((process, count));
    }
    Ok(counts)
}

/// Every copy that is to run on this site.
///
/// `database` turns a process into the URL of its database; `bins` is where cargo put the binaries.
pub(crate) fn instances(
    site: &Site,
    bins: &Path,
    replicas: &[(&Process, u16)],
    registry: Option<String>,
    database: &dyn Fn(&Process) -> String,
) -> Vec<Instance> {
    let count = |process: &Process| count(replicas, process);
    let registry = registry.unwrap_or_else(|| fixed(site, &count));
    let mut all = Vec::new();
    for process in TABLE {
        for replica in 0..count(process) {
            let name = if replica == 0 {
                process.name.to_owned()
            } else {
                format!("{}-{replica}", process.name)
            };
            let listen = site.address(process.port + replica * REPLICA_STEP);
            let admin = site.address(process.admin + replica * REPLICA_STEP);
            let mut env = vec![
                ("MESH_LISTEN".to_owned(), listen.clone()),
                ("MESH_ADMIN_LISTEN".to_owned(), admin.clone()),
                ("MESH_REGISTRY".to_owned(), registry.clone()),
            ];
            env.extend(told(site, process, database));
            let program = bins.join(process.name).display().to_string();
            all.push(Instance {
                name,
                service: process.name.to_owned(),
                listen,
                admin,
                program,
                env,
            });
        }
    }
    all
}

/// How many copies of a process are to run.
pub(crate) fn count(replicas: &[(&Process, u16)], process: &Process) -> u16 {
    replicas.iter().rfind(|(it, _)| it.name == process.name).map_or(1, |(_, count)| *count)
}

/// `static://?users=127.0.0.1:50051&…`, replicas separated by commas.
fn fixed(site: &Site, count: &dyn Fn(&Process) -> u16) -> String {
    let services: Vec<String> = TABLE
        .iter()
        .filter(|process| process.registered)
        .map(|process| {
            let addresses: Vec<String> = (0..count(process))
                .map(|replica| site.address(process.port + replica * REPLICA_STEP))
                .collect();
            format!("{}={}", process.name, addresses.join(","))
        })
        .collect();
    format!("static://?{}", services.join("&"))
}

/// What a process is told besides its addresses.
fn told(
    site: &Site,
    process: &Process,
    database: &dyn Fn(&Process) -> String,
) -> Vec<(String, String)> {
    let secrets = site.secrets();
    let secret = secrets.join("clients").join(process.name).display().to_string();
    let psp = site.address(PSP_PORT);
    let mut env = vec![
        ("MESH_ISSUER", "users".to_owned()),
        ("MESH_CLIENT_SECRET_FILE", secret),
        ("MESH_PAGE_KEY_FILE", secrets.join("page-key").display().to_string()),
        // Files keep JSON; `up` and `logs` turn it into text for a reader.
        ("MESH_LOG_FORMAT", "json".to_owned()),
        ("MESH_LOG", std::env::var("MESH_LOG").unwrap_or_else(|_| "info".to_owned())),
    ];
    if let Some(variable) = process.database {
        env.push((variable, database(process)));
    }
    match process.name {
        "users" => env.push(("USERS_SECRETS_DIR", secrets.display().to_string())),
        "payments" => env.push(("PAYMENTS_PROVIDER_URL", format!("http://{psp}"))),
        "notifications" => {
            env.push(("NOTIFICATIONS_MAIL_URL", format!("file://{}", site.mail().display())));
        }
        "psp-simulator" => env.push(("PSP_CONTROL", "true".to_owned())),
        _ => {}
    }
    env.into_iter().map(|(key, value)| (key.to_owned(), value)).collect()
}

/// The URL of a process's SQLite file.
pub(crate) fn sqlite(site: &Site, process: &Process) -> String {
    format!("sqlite://{}", site.state.join(format!("{}.db", process.name)).display())
}

/// Where cargo puts the binaries of a profile.
pub(crate) fn bins(site: &Site, release: bool) -> std::path::PathBuf {
    site::target(&site.root).join(if release { "release" } else { "debug" })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn site() -> Site {
        Site { root: "/r".into(), state: "/r/state".into(), shift: 1000 }
    }

    #[test]
    fn ports_of_all_processes_and_replicas_differ() {
        let most: Vec<(&Process, u16)> = TABLE.iter().map(|it| (it, REPLICAS_MAX)).collect();
        let all = instances(&site(), Path::new("/bin"), &most, None, &|it| it.name.to_owned());
        let mut ports: Vec<&str> =
            all.iter().flat_map(|it| [it.listen.as_str(), it.admin.as_str()]).collect();
        let count = ports.len();
        ports.sort_unstable();
        ports.dedup();
        assert_eq!(ports.len(), count);
    }

    #[test]
    fn the_registry_lists_every_replica_of_what_is_called_by_name() {
        let orders = named("orders").unwrap();
        let all =
            instances(&site(), Path::new("/bin"), &[(orders, 2)], None, &|it| sqlite(&site(), it));
        let gateway = all.iter().find(|it| it.name == "gateway").unwrap();
        let registry = &gateway.env.iter().find(|(key, _)| key == "MESH_REGISTRY").unwrap().1;
        assert!(
            registry.starts_with("static://?users=127.0.0.1:51051&catalog=127.0.0.1:51052&"),
            "{registry}"
        );
        assert!(
            registry.contains("orders=127.0.0.1:51054,127.0.0.1:51154&payments="),
            "{registry}"
        );
        assert!(all.iter().any(|it| it.name == "orders-1" && it.admin == "127.0.0.1:10154"));
    }

    #[test]
    fn replicas_are_refused_with_the_reason() {
        for (asked, postgres, words) in [
            ("orders=2", false, "needs --with postgres"),
            ("gateway=2", true, "one fixed address"),
            ("orders", true, "write SERVICE=N"),
            ("orders=0", true, "from 1 to 4"),
            ("shop=2", true, "there is no process `shop`"),
        ] {
            let error = replicas(&[asked.to_owned()], postgres).unwrap_err().to_string();
            assert!(error.contains(words), "{asked}: {error}");
        }
        assert_eq!(replicas(&["orders=2".to_owned()], true).unwrap()[0].1, 2);
        assert_eq!(replicas(&["orders=1".to_owned()], false).unwrap()[0].1, 1);
    }
}
