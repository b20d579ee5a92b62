//! What `up --with` starts beside the processes, in place of the embedded defaults.

use std::path::PathBuf;

use anyhow::{Result, bail};
use serde_json::{Value, json};

use crate::consul;
use crate::jaeger;
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

#[cfg(test)]
mod tests {
    use super::*;

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
