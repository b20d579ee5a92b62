//! What must be true, and there, before a process is started: ports, folders, secrets, databases.

use std::fs;

use anyhow::{Context, Result, bail, ensure};

use crate::components::{Components, Wanted};
use crate::processes::{self, Instance, Process};
use crate::run_file::Run;
use crate::site::Site;
use crate::{consul, jaeger, os, postgres, say};

pub(super) fn refuse_a_second(site: &Site) -> Result<()> {
    if let Some(run) = Run::current(site)? {
        bail!(
            "a mesh runs here already (supervisor pid {}). Look at it with `cargo xtask status`, \
             end it with `cargo xtask down`, or start one process anew with `cargo xtask restart NAME`",
            run.supervisor.number
        );
    }
    Ok(())
}

pub(super) fn refuse_taken_ports(
    site: &Site,
    instances: &[Instance],
    wanted: Wanted,
) -> Result<()> {
    let mut taken = Vec::new();
    for port in consul::ports(site).filter(|port| wanted.consul && !os::port_free(*port)) {
        let who = os::listener(port).unwrap_or_else(|| "a process that cannot be seen".into());
        taken.push(format!("  port {port}, which Consul needs, is held by {who}"));
    }
    for port in jaeger::ports(site).filter(|port| wanted.jaeger && !os::port_free(*port)) {
        let who = os::listener(port).unwrap_or_else(|| "a process that cannot be seen".into());
        taken.push(format!("  port {port}, which Jaeger needs, is held by {who}"));
    }
    for instance in instances {
        for address in [&instance.listen, &instance.admin] {
            let port =
                address.rsplit_once(':').and_then(|(_, port)| port.parse().ok()).unwrap_or(0);
            if !os::port_free(port) {
                let who = os::listener(port)
                    .unwrap_or_else(|| "a process that cannot be seen from here".into());
                taken.push(format!(
                    "  port {port}, which {} needs, is held by {who}",
                    instance.name
                ));
            }
        }
    }
    let shift = if site.shift == 0 { 11_000 } else { site.shift / 2 };
    ensure!(
        taken.is_empty(),
        "some ports are taken:\n{}\nEnd that process, or use other ports: ORDERMESH_PORT_SHIFT={shift} cargo xtask up",
        taken.join("\n")
    );
    Ok(())
}

/// Throws the state away. It is ours as a whole: nothing else lives in this folder.
pub(super) fn forget(site: &Site) -> Result<()> {
    for folder in [site.state.clone(), postgres::home(&site.state.join("postgres"))] {
        if folder.exists() {
            fs::remove_dir_all(&folder)
                .with_context(|| format!("cannot empty {}", folder.display()))?;
        }
    }
    Ok(())
}

/// Makes the folders and, on the first start, the secrets.
pub(super) fn prepare(site: &Site) -> Result<()> {
    fs::create_dir_all(site.logs())
        .with_context(|| format!("cannot make {}", site.logs().display()))?;
    for folder in [site.secrets(), site.secrets().join("clients")] {
        os::private_folder(&folder)?;
    }
    let mut wanted = vec![site.secrets().join("admin-password"), site.secrets().join("page-key")];
    wanted.extend(processes::TABLE.iter().map(|it| site.secrets().join("clients").join(it.name)));
    for path in wanted {
        if !path.exists() {
            os::private_file(&path, &os::random(32)?)?;
        }
    }
    // The last run's lines would be taken for this one's.
    for entry in fs::read_dir(site.logs())?.flatten() {
        let path = entry.path();
        if path.extension().is_some_and(|it| it == "log") {
            fs::rename(&path, path.with_extension("previous"))?;
        }
    }
    if site.control().exists() {
        fs::remove_dir_all(site.control())?;
    }
    Ok(())
}

/// Starts what was asked for.
pub(super) fn start(site: &Site, wanted: Wanted, durable: bool) -> Result<Components> {
    let mut components = Components::default();
    if wanted.postgres {
        components.postgres = Some(start_postgres(site, durable)?);
    }
    if wanted.consul {
        say::stage("starting Consul");
        match consul::Agent::start(site, &site.state.join("consul")) {
            Ok(agent) => components.consul = Some(agent),
            Err(error) => {
                components.stop();
                return Err(error);
            }
        }
    }
    if wanted.jaeger {
        say::stage("starting Jaeger");
        match jaeger::Jaeger::start(site, &site.state.join("jaeger")) {
            Ok(jaeger) => components.jaeger = Some(jaeger),
            Err(error) => {
                components.stop();
                return Err(error);
            }
        }
    }
    Ok(components)
}

fn start_postgres(site: &Site, durable: bool) -> Result<postgres::Server> {
    say::stage("starting PostgreSQL");
    let server = postgres::Server::start(&postgres::home(&site.state.join("postgres")), durable)?;
    let mut owners = processes::TABLE.iter().filter(|it| it.database.is_some());
    let made = owners.try_for_each(|process| server.create(&database(process)));
    if made.is_err() {
        server.stop();
    }
    made?;
    Ok(server)
}

pub(super) fn database(process: &Process) -> String {
    process.name.replace('-', "_")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_taken_port_is_refused_before_anything_is_built() {
        let held = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let address = held.local_addr().unwrap().to_string();
        let site = Site { root: "/r".into(), state: "/r/state".into(), shift: 0 };
        let instance = Instance {
            name: "orders".into(),
            service: "orders".into(),
            listen: address,
            admin: "127.0.0.1:0".into(),
            program: String::new(),
            env: Vec::new(),
        };
        let error =
            refuse_taken_ports(&site, &[instance], Wanted::default()).unwrap_err().to_string();
        assert!(error.contains("which orders needs, is held by pid"), "{error}");
        assert!(error.contains("ORDERMESH_PORT_SHIFT=11000"), "{error}");
    }
}
