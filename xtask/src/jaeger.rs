//! A Jaeger of our own: started on its own ports, keeping traces in memory, stopped.

use std::fs;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result};
use serde_json::{Value, json};

use crate::api::Api;
use crate::components::Started;
use crate::os::Pid;
use crate::site::Site;
use crate::{run_file, tools};

/// A Jaeger that runs, or ran.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Jaeger {
    pub(crate) pid: Pid,
    /// Where its API and its pages are.
    pub(crate) address: String,
    /// Where it takes spans.
    pub(crate) otlp: String,
}

/// The ports before any shift: of its pages, of the same as gRPC, and of spans over HTTP.
const PORTS: [u16; 3] = [16_686, 16_685, 4_318];

/// How long it may take to be ready, and to end.
const PATIENCE: (Duration, Duration) = (Duration::from_secs(20), Duration::from_secs(5));

// === impl Jaeger ===

impl Jaeger {
    /// Starts one whose settings and log are kept under `home`.
    pub(crate) fn start(site: &Site, home: &Path) -> Result<Self> {
        let program = tools::named("jaeger").and_then(tools::install)?;
        fs::create_dir_all(home).with_context(|| format!("cannot make {}", home.display()))?;
        let [pages, rpc, otlp] = PORTS.map(|port| site.address(port));
        let settings = home.join("jaeger.yaml");
        fs::write(&settings, self::settings(&pages, &rpc, &otlp))
            .with_context(|| format!("cannot write {}", settings.display()))?;
        let log_path = home.join("jaeger.log");
        let log = fs::File::create(&log_path).context("cannot write a log")?;
        let child = Command::new(program)
            .arg("--config")
            .arg(&settings)
            .current_dir(home)
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log)
            // Ctrl-C reaches us alone, and we end it last.
            .process_group(0)
            .spawn()
            .context("cannot run Jaeger")?;
        let jaeger = Self { pid: Pid::of(child.id()), address: pages, otlp };
        let started = Started { name: "Jaeger", pid: &jaeger.pid, log: &log_path };
        let api = Api::new(&format!("http://{}", jaeger.address));
        let ready = || api.get_once("/api/services").is_ok_and(|reply| reply.status == 200);
        if let Err(error) = started.wait(PATIENCE.0, ready) {
            jaeger.stop();
            return Err(error);
        }
        Ok(jaeger)
    }

    /// What processes are told in `OTEL_EXPORTER_OTLP_ENDPOINT`.
    pub(crate) fn endpoint(&self) -> String {
        format!("http://{}", self.otlp)
    }

    /// Ends it; what it knew is gone.
    pub(crate) fn stop(&self) {
        self.pid.end(PATIENCE.1);
    }

    pub(crate) fn json(&self) -> Value {
        json!({
            "pid": run_file::pid_json(&self.pid), "address": self.address, "otlp": self.otlp
        })
    }

    pub(crate) fn from_json(value: &Value) -> Option<Self> {
        let text = |name: &str| value[name].as_str().map(str::to_owned);
        let pid = run_file::pid_from(&value["pid"])?;
        Some(Self { pid, address: text("address")?, otlp: text("otlp")? })
    }
}

/// Every port that a Jaeger needs on this site.
pub(crate) fn ports(site: &Site) -> impl Iterator<Item = u16> + use<> {
    let shift = site.shift;
    PORTS.into_iter().map(move |port| port.saturating_add(shift))
}

/// Without settings it would listen on every address of the machine.
fn settings(pages: &str, rpc: &str, otlp: &str) -> String {
    format!(
        "\
service:
  extensions: [jaeger_storage, jaeger_query]
  pipelines:
    traces: {{receivers: [otlp], processors: [batch], exporters: [jaeger_storage_exporter]}}
  telemetry:
    metrics: {{level: none}}
    logs: {{level: warn}}
extensions:
  jaeger_query:
    storage: {{traces: memory}}
    http: {{endpoint: '{pages}'}}
    grpc: {{endpoint: '{rpc}'}}
  jaeger_storage:
    backends: {{memory: {{memory: {{max_traces: 10000}}}}}}
receivers:
  otlp:
    protocols: {{http: {{endpoint: '{otlp}'}}}}
processors:
  batch: {{timeout: 200ms}}
exporters:
  jaeger_storage_exporter: {{trace_storage: memory}}
"
    )
}
