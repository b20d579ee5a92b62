//! What `up --with` starts beside the processes, in place of the embedded defaults.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Result, bail};
use serde_json::{Value, json};

use crate::clock;
use crate::consul;
use crate::jaeger;
use crate::os::Pid;
use crate::postgres;

/// The components that were asked for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Wanted {
    pub(crate) postgres: bool,
    pub(crate) consul: bool,
    pub(crate) jaeger: bool,
}

/// The components that run with a mesh.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Components {
    pub(crate) postgres: Option<postgres::Server>,
    pub(crate) consul: Option<consul::Agent>,
    pub(crate) jaeger: Option<jaeger::Jaeger>,
}

/// A program of others that was started, and says when it is ready.
#[derive(Debug)]
pub(crate) struct Started<'a> {
    pub(crate) name: &'static str,
    pub(crate) pid: &'a Pid,
    /// What it writes.
    pub(crate) log: &'a Path,
}

/// What there is today.
const KNOWN: &str = "consul, jaeger, postgres";

/// Components that a later version will know how to start.
const LATER: &[&str] = &["rabbitmq", "kafka", "redis", "prometheus"];

// === impl Wanted ===

impl Wanted {
    /// Checks the names after `--with`.
    pub(crate) fn parse(names: Option<&str>) -> Result<Self> {
        let mut wanted = Self::default();
        let names = names.unwrap_or_default().split(',').map(str::trim);
        for name in names.filter(|it| !it.is_empty()) {
            match name {
                "postgres" => wanted.postgres = true,
                "consul" => wanted.consul = true,
                "jaeger" => wanted.jaeger = true,
                later if LATER.contains(&later) => bail!(
                    "--with {later}: the mesh cannot use {later} yet. Available today: {KNOWN}. \
                     Without it the mesh runs on its embedded defaults"
                ),
                other => {
                    bail!("--with {other}: there is no such component. Available today: {KNOWN}")
                }
            }
        }
        Ok(wanted)
    }
}

// === impl Components ===

impl Components {
    /// A line for each, for people.
    pub(crate) fn lines(&self) -> Vec<String> {
        let postgres = self.postgres.as_ref().map(|it| format!("PostgreSQL: {}", it.address()));
        let consul = self.consul.as_ref().map(|it| {
            let state = if it.pid.alive() { "" } else { " (it is down)" };
            format!("Consul: http://{}/ui{state}", it.address)
        });
        let jaeger = self.jaeger.as_ref().map(|it| {
            let state = if it.pid.alive() { "" } else { " (it is down)" };
            format!("Jaeger: http://{}{state}", it.address)
        });
        postgres.into_iter().chain(consul).chain(jaeger).collect()
    }

    /// Ends them; nothing of the mesh may run any more.
    pub(crate) fn stop(&self) {
        if let Some(agent) = &self.consul {
            agent.stop();
        }
        if let Some(jaeger) = &self.jaeger {
            jaeger.stop();
        }
        if let Some(server) = &self.postgres {
            server.stop();
        }
    }

    pub(crate) fn json(&self) -> Value {
        json!({
            "postgres": self.postgres.as_ref().map(|it| json!({ "port": it.port, "data": it.data })),
            "consul": self.consul.as_ref().map(consul::Agent::json),
            "jaeger": self.jaeger.as_ref().map(jaeger::Jaeger::json),
        })
    }

    pub(crate) fn from_json(value: &Value) -> Self {
        let port = value["postgres"]["port"].as_u64().and_then(|port| u16::try_from(port).ok());
        let data = PathBuf::from(value["postgres"]["data"].as_str().unwrap_or_default());
        Self {
            postgres: port.map(|port| postgres::Server { port, data }),
            consul: consul::Agent::from_json(&value["consul"]),
            jaeger: jaeger::Jaeger::from_json(&value["jaeger"]),
        }
    }
}

// === impl Started ===

impl Started<'_> {
    /// Waits until it is ready, `patience` at most; fails when it has ended, with its last words.
    pub(crate) fn wait(&self, patience: Duration, ready: impl Fn() -> bool) -> Result<()> {
        let Self { name, pid, log } = self;
        let begun = clock::now();
        loop {
            // First, so that no other one's answer is taken for its.
            if !pid.alive() {
                let words = fs::read_to_string(log).unwrap_or_default();
                let last = words.lines().last().unwrap_or_default();
                bail!("{name} ended at once: {last} (the whole of it: {})", log.display());
            }
            if ready() {
                return Ok(());
            }
            if begun.elapsed() > patience {
                bail!("{name} is not ready after {}", clock::spoken(patience));
            }
            clock::nap(50);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;
    use std::process::{Command, Stdio};

    use super::*;
    use crate::os;

    #[test]
    fn who_ends_is_waited_for_no_longer_and_who_is_not_ready_not_for_ever() {
        let log = std::env::temp_dir().join(format!("ordermesh-{}", os::random(8).unwrap()));
        fs::write(&log, "first\nthe port is taken\n").unwrap();
        let mut child = Command::new("cat").stdin(Stdio::piped()).spawn().unwrap();
        let pid = Pid::of(child.id());
        let started = Started { name: "Component", pid: &pid, log: &log };
        let asked = Cell::new(0);
        let second = || asked.replace(asked.get() + 1) == 1;
        started.wait(Duration::from_secs(20), second).unwrap();
        assert_eq!(asked.get(), 2);
        let error = started.wait(Duration::ZERO, || false).unwrap_err().to_string();
        assert!(error.starts_with("Component is not ready after"), "{error}");
        // It reads to the end of what it is told, and ends.
        drop(child.stdin.take());
        child.wait().unwrap();
        let error = started.wait(Duration::from_secs(20), || true).unwrap_err().to_string();
        assert!(error.starts_with("Component ended at once: the port is taken"), "{error}");
        fs::remove_file(log).unwrap();
    }

    #[test]
    fn components_that_do_not_exist_yet_are_refused_by_what_is_available() {
        let wanted = |names| Wanted::parse(names).unwrap();
        assert_eq!(wanted(None), Wanted::default());
        let postgres = Wanted { postgres: true, ..Wanted::default() };
        assert_eq!(wanted(Some("postgres")), postgres);
        assert_eq!(wanted(Some("consul, postgres")), Wanted { consul: true, ..postgres });
        assert_eq!(wanted(Some("jaeger")), Wanted { jaeger: true, ..Wanted::default() });
        for name in ["kafka", "postgres,redis", "oracle"] {
            let error = Wanted::parse(Some(name)).unwrap_err().to_string();
            assert!(error.contains("Available today: consul, jaeger, postgres"), "{error}");
        }
    }
}
