//! `cargo xtask bench`: figures of a mesh that was built with optimisation, beside a floor of the same run.

mod calls;
pub(crate) mod count;
mod twins;

use std::fs;
use std::path::Path;
use std::process::{Command, ExitCode, Stdio};

use anyhow::{Context, Result, bail, ensure};
use serde_json::Value;

use self::twins::Twins;
use crate::processes::{self, TABLE};
use crate::run_file::Run;
use crate::site::{self, Site};
use crate::{os, say, seed, smoke, test, up};

xflags::xflags! {
    /// Measures the mesh, open loop, against a floor in the same run.
    ///
    /// Builds everything with optimisation, starts a mesh of its own in an empty folder on free ports, and
    /// lets `meshproof` put load on it. Figures of a shared machine swing: read the ratios.
    ///
    ///   orders     orders accepted per second, latency of CreateOrder, CONFIRMED and COMPLETED, of events
    ///              on their way, events per second of the log, CPU per order, what carrying events costs who creates orders; the floor is one bare program doing the same statements with the same durability
    ///
    ///   events     events per second that three consumers take in, each with an effect in a database of its
    ///              own; the floor is a bare program that writes the same rows
    ///
    ///   mesh       what a call costs: CPU and allocations of our connections alone, of the whole stack and of
    ///              the stack with every span recorded, beside tonic's Channel and Server and a bare echo of
    ///              hyper; what each layer of the stack costs by itself; calls a second between two pinned processes;
    ///              latency and failures with one slow and one dead instance of three, beside tonic's balancing
    ///              channel; memory of 9,900 idle connections and 1,000 streams. It needs no mesh: the program
    ///              meshbench is both ends of all calls
    ///
    ///   count      instructions (by callgrind) and allocations of a call, beside those of the commit that this work
    ///              began from, which is built too; the same on a busy machine, so `cargo xtask test` checks it
    ///
    ///   cargo xtask bench orders
    ///   cargo xtask bench orders --json      {"bench","ratios":{},"figures":{},"method"}
    ///   cargo xtask bench mesh --json        the same
    cmd bench {
        /// Which: orders, events, mesh, count.
        required name: String
        /// Print JSON on stdout, and nothing else there.
        optional --json
    }
}

/// What there is to measure.
const BENCHES: &[&str] = &["orders", "events", CALLS, COUNT];

/// Those that need no mesh.
const CALLS: &str = "mesh";
const COUNT: &str = "count";

/// Units of each SKU that are put in first: more than a run can order.
const STOCK: i64 = 100_000_000;

pub(crate) fn run(flags: &Bench) -> Result<ExitCode> {
    if !BENCHES.contains(&flags.name.as_str()) {
        bail!("there is no bench `{}`: there is {}", flags.name, BENCHES.join(", "));
    }
    let root = site::root()?;
    let figures = match flags.name.as_str() {
        CALLS => calls::measure(&root)?,
        COUNT => count::measure(&root)?,
        name => of_a_mesh(&root, name)?,
    };
    let file = site::target(&root).join(format!("bench-{}.json", flags.name));
    os::replace_file(&file, &format!("{figures:#}\n"))?;
    if flags.json {
        println!("{figures}");
    } else {
        print!("{}", readable(&figures));
        println!("kept in {}", file.strip_prefix(&root).unwrap_or(&file).display());
    }
    Ok(ExitCode::SUCCESS)
}

/// What is measured of a mesh that is started for it.
fn of_a_mesh(root: &Path, name: &str) -> Result<Value> {
    let site = test::scratch(root)?;
    // In one go: apart, cargo would choose other features and build much of it twice.
    up::build(&site, true, &["proof"])?;
    let me = up::copy_self(&site.state.join("xtask"))?;
    smoke::told(smoke::xtask(&site, &me, &["up", "--detach", "--release", "--no-build"]))
        .context("the mesh did not start")?;
    let measured = seed::fill(&site, STOCK).and_then(|()| measure(&site, name));
    let ended = smoke::told(smoke::xtask(&site, &me, &["down"]));
    let figures = measured?;
    ended.context("the mesh did not end by itself")?;
    fs::remove_dir_all(&site.state)?;
    Ok(figures)
}

/// Calls the load generator: progress on its stderr, one JSON object on its stdout.
///
/// It is told by flags where everything is, and a folder to work in: on the disk of the databases,
/// since the floor writes there.
fn measure(site: &Site, name: &str) -> Result<Value> {
    let services = TABLE.iter().filter(|it| it.registered);
    let registry: Vec<String> =
        services.map(|it| format!("{}={}", it.name, site.address(it.port))).collect();
    let work = site.state.join("bench");
    fs::create_dir_all(&work)?;
    let mut command = Command::new(processes::bins(site, true).join("meshproof"));
    command
        .args(["bench", name])
        .args(["--registry", &format!("static://?{}", registry.join("&"))])
        .arg("--work")
        .arg(&work)
        .current_dir(&site.root);
    // Kept until the figures are there.
    let _twins = match name {
        "events" => {
            command.arg("--secret").arg(site.secrets().join("clients").join("notifications"));
            None
        }
        _orders => Some(of_orders(site, &mut command)?),
    };
    say::stage(&format!("measuring {name}"));
    figures(&mut command, "meshproof")
}

/// Runs a program that prints its progress on stderr and one JSON object on stdout.
fn figures(command: &mut Command, program: &str) -> Result<Value> {
    command.stdin(Stdio::null()).stderr(Stdio::inherit());
    let output = command.output().with_context(|| format!("cannot run {program}"))?;
    ensure!(output.status.success(), "{program} failed ({}); it said why above", output.status);
    let figures: Value = serde_json::from_slice(&output.stdout)
        .with_context(|| format!("{program} did not print JSON"))?;
    for key in ["bench", "ratios", "figures", "method"] {
        ensure!(!figures[key].is_null(), "{program}'s JSON has no `{key}`");
    }
    Ok(figures)
}

/// Which processes to look at (`name=pid`), whom to order as, and the two that are compared.
fn of_orders(site: &Site, command: &mut Command) -> Result<Twins> {
    let run = Run::required(site)?;
    let pids: Vec<String> = (run.processes.iter())
        .filter_map(|row| Some(format!("{}={}", row.instance.name, row.pid.as_ref()?.number)))
        .collect();
    let orders = processes::named("orders")?;
    let twins = Twins::start(site)?;
    command
        .args(["--psp", &format!("http://{}", site.address(processes::PSP_PORT))])
        .args(["--orders-admin", &format!("http://{}", site.address(orders.admin))])
        .arg("--orders-database")
        .arg(site.state.join(format!("{}.db", orders.name)))
        .args(["--pids", &pids.join(",")])
        .args(["--pair", &twins.registry(), "--pair-pids", &twins.pids()])
        .args(["--email", seed::ADA.email, "--password", seed::ADA.password])
        .args(["--admin", seed::ADMIN, "--admin-password-file"])
        .arg(site.secrets().join("admin-password"));
    Ok(twins)
}

fn readable(figures: &Value) -> String {
    let mut rows = Vec::new();
    for part in ["ratios", "figures"] {
        for (name, value) in figures[part].as_object().into_iter().flatten() {
            rows.push(vec![part.to_owned(), name.clone(), value.to_string()]);
        }
    }
    let method =
        figures["method"].as_str().map_or_else(|| figures["method"].to_string(), str::to_owned);
    format!("{}method: {method}\n", say::table(&rows))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures_are_printed_beside_their_names() {
        let figures =
            serde_json::json!({ "ratios": { "a": 0.5 }, "figures": { "b": 2 }, "method": "m" });
        assert_eq!(readable(&figures), "  ratios   a  0.5\n  figures  b  2\nmethod: m\n");
    }
}
