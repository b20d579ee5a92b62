//! `run.json`: what the supervisor tells every other command about the mesh that runs.

use std::fs;

use anyhow::{Context, Result, bail};
use serde_json::{Value, json};

use crate::components::Components;
use crate::os::{self, Pid};
use crate::processes::Instance;
use crate::site::Site;

/// A running mesh, as its supervisor last wrote it down.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Run {
    pub(crate) supervisor: Pid,
    /// What was started beside the processes.
    pub(crate) components: Components,
    pub(crate) processes: Vec<Row>,
}

/// One process of a running mesh.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Row {
    pub(crate) instance: Instance,
    pub(crate) pid: Option<Pid>,
    /// How often it was started.
    pub(crate) starts: u32,
    /// Set once the supervisor will not start it again by itself: why.
    pub(crate) gave_up: Option<String>,
}

// === impl Run ===

impl Run {
    /// The mesh that runs on this site, if one does: its supervisor or any of its processes lives.
    pub(crate) fn current(site: &Site) -> Result<Option<Self>> {
        let run = Self::read(site)?;
        Ok(run.filter(|run| run.supervisor.alive() || !run.living().is_empty()))
    }

    /// The mesh that runs, or what to do about there being none.
    pub(crate) fn required(site: &Site) -> Result<Self> {
        match Self::current(site)? {
            Some(run) => Ok(run),
            None => bail!("no mesh is running here: start one with `cargo xtask up --detach`"),
        }
    }

    /// What `run.json` says, whether or not anything of it still lives.
    pub(crate) fn read(site: &Site) -> Result<Option<Self>> {
        let path = site.run_file();
        let Ok(text) = fs::read_to_string(&path) else { return Ok(None) };
        let value: Value = serde_json::from_str(&text)
            .with_context(|| format!("{} is damaged: remove it", path.display()))?;
        Ok(Some(Self::from_json(&value)))
    }

    pub(crate) fn write(&self, site: &Site) -> Result<()> {
        os::replace_file(&site.run_file(), &format!("{:#}\n", self.json()))
    }

    /// The processes that are alive.
    pub(crate) fn living(&self) -> Vec<Pid> {
        self.processes.iter().filter_map(|row| row.pid.clone()).filter(Pid::alive).collect()
    }

    /// The rows of one service, or the one copy of it that is named.
    pub(crate) fn rows(&self, name: &str) -> Result<Vec<&Row>> {
        let is = |row: &&Row| row.instance.name == name || row.instance.service == name;
        let rows: Vec<&Row> = self.processes.iter().filter(is).collect();
        if rows.is_empty() {
            let known: Vec<&str> =
                self.processes.iter().map(|row| row.instance.name.as_str()).collect();
            bail!("no process `{name}` runs: there are {}", known.join(", "));
        }
        Ok(rows)
    }

    fn json(&self) -> Value {
        json!({
            "supervisor": pid_json(&self.supervisor),
            "components": self.components.json(),
            "processes": self.processes.iter().map(Row::json).collect::<Vec<_>>(),
        })
    }

    fn from_json(value: &Value) -> Self {
        Self {
            supervisor: pid_from(&value["supervisor"])
                .unwrap_or(Pid { number: 0, born: String::new() }),
            components: Components::from_json(&value["components"]),
            processes: list(&value["processes"]).iter().map(Row::from_json).collect(),
        }
    }
}

// === impl Row ===

impl Row {
    fn json(&self) -> Value {
        json!({
            "instance": instance_json(&self.instance),
            "pid": self.pid.as_ref().map(pid_json),
            "starts": self.starts,
            "gave_up": self.gave_up,
        })
    }

    fn from_json(value: &Value) -> Self {
        Self {
            instance: instance_from(&value["instance"]),
            pid: pid_from(&value["pid"]),
            starts: value["starts"].as_u64().and_then(|it| u32::try_from(it).ok()).unwrap_or(0),
            gave_up: value["gave_up"].as_str().map(str::to_owned),
        }
    }
}

pub(crate) fn instance_json(it: &Instance) -> Value {
    let env: Vec<[&String; 2]> = it.env.iter().map(|(key, value)| [key, value]).collect();
    json!({
        "name": it.name, "service": it.service, "listen": it.listen, "admin": it.admin,
        "program": it.program, "env": env,
    })
}

pub(crate) fn instance_from(value: &Value) -> Instance {
    Instance {
        name: text(&value["name"]),
        service: text(&value["service"]),
        listen: text(&value["listen"]),
        admin: text(&value["admin"]),
        program: text(&value["program"]),
        env: list(&value["env"]).iter().map(|pair| (text(&pair[0]), text(&pair[1]))).collect(),
    }
}

pub(crate) fn pid_json(pid: &Pid) -> Value {
    json!({ "number": pid.number, "born": pid.born })
}

pub(crate) fn pid_from(value: &Value) -> Option<Pid> {
    let number = u32::try_from(value["number"].as_u64()?).ok()?;
    Some(Pid { number, born: text(&value["born"]) })
}

fn text(value: &Value) -> String {
    value.as_str().unwrap_or_default().to_owned()
}

fn list(value: &Value) -> Vec<Value> {
    value.as_array().cloned().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_one_command_writes_another_reads() {
        let instance = Instance {
            name: "orders-1".into(),
            service: "orders".into(),
            listen: "127.0.0.1:1".into(),
            admin: "127.0.0.1:2".into(),
            program: "/bin/true".into(),
            env: vec![("A".into(), "b=c&d".into())],
        };
        let run = Run {
            supervisor: Pid::of(std::process::id()),
            components: Components {
                postgres: Some(crate::postgres::Server { port: 5432, data: "/data".into() }),
                consul: Some(crate::consul::Agent {
                    pid: Pid::of(std::process::id()),
                    address: "127.0.0.1:8500".into(),
                }),
                jaeger: Some(crate::jaeger::Jaeger {
                    pid: Pid::of(std::process::id()),
                    address: "127.0.0.1:16686".into(),
                    otlp: "127.0.0.1:4318".into(),
                }),
            },
            processes: vec![Row {
                instance,
                pid: None,
                starts: 2,
                gave_up: Some("it broke".into()),
            }],
        };
        assert_eq!(Run::from_json(&run.json()), run);
        assert_eq!(run.rows("orders").unwrap(), run.rows("orders-1").unwrap());
        assert!(run.rows("users").unwrap_err().to_string().contains("there are orders-1"));
    }
}
