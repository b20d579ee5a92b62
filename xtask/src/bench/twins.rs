//! Two more orders processes beside a mesh, the same but for one that leaves events alone.

use std::fs::File;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, ensure};

use crate::os::{self, Pid};
use crate::run_file::Run;
use crate::site::Site;
use crate::{api, clock};

/// One of the two.
struct Twin {
    name: &'static str,
    listen: String,
    child: Child,
}

/// They end when this goes.
pub(super) struct Twins(Vec<Twin>);

/// How long they may take to be ready.
const PATIENCE: Duration = Duration::from_secs(20);

// === impl Twins ===

impl Twins {
    /// Starts them as the running orders process was started, with a database each.
    pub(super) fn start(site: &Site) -> Result<Self> {
        let run = Run::required(site)?;
        let orders = run.rows("orders")?;
        let orders = &orders.first().context("no orders process runs")?.instance;
        let mut twins = Self(Vec::new());
        for (name, delivery) in [("with", "on"), ("without", "off")] {
            let listen = format!("127.0.0.1:{}", os::free_port()?);
            let admin = format!("127.0.0.1:{}", os::free_port()?);
            let database = site.state.join(format!("orders-{name}-delivery.db"));
            let log = File::create(site.logs().join(format!("orders-{name}-delivery.log")))?;
            let child = Command::new(&orders.program)
                .envs(orders.env.iter().map(|(key, value)| (key, value)))
                .env("MESH_LISTEN", &listen)
                .env("MESH_ADMIN_LISTEN", &admin)
                .env("MESH_DELIVERY", delivery)
                .env("ORDERS_DATABASE_URL", format!("sqlite://{}", database.display()))
                .stdin(Stdio::null())
                .stdout(log.try_clone()?)
                .stderr(log)
                .spawn()
                .context("cannot start a second orders process")?;
            twins.0.push(Twin { name, listen, child });
            let begun = clock::now();
            while api::ready(&admin).is_err() {
                ensure!(begun.elapsed() < PATIENCE, "orders {name} delivery is not ready");
                clock::nap(50);
            }
        }
        Ok(twins)
    }

    /// Where they are, as a registry.
    pub(super) fn registry(&self) -> String {
        let at: Vec<String> =
            self.0.iter().map(|twin| format!("{}={}", twin.name, twin.listen)).collect();
        format!("static://?{}", at.join("&"))
    }

    pub(super) fn pids(&self) -> String {
        let pids: Vec<String> = self.0.iter().map(|twin| twin.child.id().to_string()).collect();
        pids.join(",")
    }
}

impl Drop for Twins {
    fn drop(&mut self) {
        for twin in &mut self.0 {
            Pid::of(twin.child.id()).signal("TERM");
        }
        for twin in &mut self.0 {
            // It is gone, one way or the other.
            drop(twin.child.wait());
        }
    }
}
