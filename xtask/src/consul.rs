//! A Consul agent of our own: started on its own ports, keeping everything in memory, stopped.

use std::fs;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};

use crate::api::Api;
use crate::components::Started;
use crate::os::Pid;
use crate::site::Site;
use crate::{run_file, tools};

/// An agent that runs, or ran.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Agent {
    pub(crate) pid: Pid,
    /// Where its API and its pages are.
    pub(crate) address: String,
}

/// The ports of an agent before any shift: of its API, DNS, servers, and gossip near and far.
const PORTS: [(&str, u16); 5] = [
    ("-http-port", 8500),
    ("-dns-port", 8600),
    ("-server-port", 8300),
    ("-serf-lan-port", 8301),
    ("-serf-wan-port", 8302),
];

/// How long it may take to be ready, and to end.
const PATIENCE: (Duration, Duration) = (Duration::from_secs(20), Duration::from_secs(5));

// === impl Agent ===

impl Agent {
    /// Starts an agent whose log is kept under `home`.
    pub(crate) fn start(site: &Site, home: &Path) -> Result<Self> {
        let program = tools::named("consul").and_then(tools::install)?;
        fs::create_dir_all(home).with_context(|| format!("cannot make {}", home.display()))?;
        let log_path = home.join("agent.log");
        let log = fs::File::create(&log_path).context("cannot write a log")?;
        let mut command = Command::new(program);
        command.args(["agent", "-dev", "-client", "127.0.0.1", "-bind", "127.0.0.1"]);
        command.args(["-node", "ordermesh", "-grpc-port", "-1", "-log-level", "warn", "-ui"]);
        for (flag, port) in PORTS {
            command.arg(flag).arg(port.saturating_add(site.shift).to_string());
        }
        let child = command
            .current_dir(home)
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log)
            // Ctrl-C reaches us alone, and we end it last.
            .process_group(0)
            .spawn()
            .context("cannot run Consul")?;
        let agent = Self { pid: Pid::of(child.id()), address: site.address(PORTS[0].1) };
        let started = Started { name: "Consul", pid: &agent.pid, log: &log_path };
        let leads = |it: Value| it.as_str().is_some_and(|it| !it.is_empty());
        let ready = || agent.get("/v1/status/leader").is_ok_and(leads);
        if let Err(error) = started.wait(PATIENCE.0, ready) {
            agent.stop();
            return Err(error);
        }
        Ok(agent)
    }

    /// What processes are told in `MESH_REGISTRY`.
    pub(crate) fn registry(&self) -> String {
        format!("consul://{}", self.address)
    }

    /// How many instances of a service it sends callers to.
    pub(crate) fn passing(&self, service: &str) -> Result<usize> {
        let found = self.get(&format!("/v1/health/service/{service}?passing=true"))?;
        Ok(found.as_array().map_or(0, Vec::len))
    }

    /// Ends it; what it knew is gone.
    pub(crate) fn stop(&self) {
        self.pid.end(PATIENCE.1);
    }

    fn get(&self, path: &str) -> Result<Value> {
        let reply = Api::new(&format!("http://{}", self.address)).get_once(path)?;
        ensure!(reply.status == 200, "Consul answered {} to {path}", reply.status);
        Ok(reply.body)
    }

    pub(crate) fn json(&self) -> Value {
        json!({ "pid": run_file::pid_json(&self.pid), "address": self.address })
    }

    pub(crate) fn from_json(value: &Value) -> Option<Self> {
        let address = value["address"].as_str()?.to_owned();
        Some(Self { pid: run_file::pid_from(&value["pid"])?, address })
    }
}

/// Every port that an agent needs on this site.
pub(crate) fn ports(site: &Site) -> impl Iterator<Item = u16> + use<> {
    let shift = site.shift;
    PORTS.into_iter().map(move |(_, port)| port.saturating_add(shift))
}
