//! From the first process to a mesh that can be used: waiting, demo data, what to try.

use std::fs;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};

use crate::os::Pid;
use crate::run_file::Run;
use crate::site::Site;
use crate::{api, clock, processes, say, seed, status};

/// How long a mesh may take from its start until every process is ready.
const READY_MAX: Duration = Duration::from_secs(90);

/// Waits until every process says that it is ready, and names each as it does.
pub(super) fn wait_until_ready(site: &Site, going: &dyn Fn() -> bool) -> Result<()> {
    say::stage("starting");
    let begun = clock::now();
    let mut known = Vec::new();
    loop {
        ensure!(going(), "stopped before the mesh was ready");
        let rows = Run::read(site)?.map(|run| run.processes).unwrap_or_default();
        let mut waiting = Vec::new();
        for row in &rows {
            if let Some(why) = &row.gave_up {
                bail!("{why}\n{}", last_words(site, &row.instance.name));
            }
            let name = &row.instance.name;
            if known.contains(name) {
                continue;
            }
            // The answer counts only if it comes from the process that we started.
            match api::ready(&row.instance.admin) {
                Ok(()) if row.pid.as_ref().is_some_and(Pid::alive) => {
                    known.push(name.clone());
                    if !say::lively() {
                        say::note(&format!(
                            "{name} is ready after {}",
                            clock::spoken(begun.elapsed())
                        ));
                    }
                }
                Ok(()) => waiting
                    .push((name.clone(), "another process answers on its admin port".to_owned())),
                Err(why) => waiting.push((name.clone(), why)),
            }
        }
        if !rows.is_empty() && waiting.is_empty() {
            waiting.extend(not_passing(site)?);
        }
        let names: Vec<&str> = waiting.iter().map(|(name, _)| name.as_str()).collect();
        say::redraw(&format!(
            "  {} of {} ready, waiting for {}",
            known.len(),
            rows.len(),
            names.join(", ")
        ));
        if !rows.is_empty() && waiting.is_empty() {
            say::redraw("");
            say::note(&format!(
                "all {} processes are ready after {}",
                rows.len(),
                clock::spoken(begun.elapsed())
            ));
            return Ok(());
        }
        if begun.elapsed() > READY_MAX {
            let said: Vec<String> = waiting
                .iter()
                .map(|(name, why)| format!("  {name}: {why}\n{}", last_words(site, name)))
                .collect();
            bail!("not ready after {}:\n{}", clock::spoken(READY_MAX), said.join("\n"));
        }
        clock::nap(30);
    }
}

/// What is ready, but not yet by Consul's own checks: callers are not sent there.
fn not_passing(site: &Site) -> Result<Vec<(String, String)>> {
    let Some(run) = Run::read(site)? else { return Ok(Vec::new()) };
    let Some(agent) = &run.components.consul else { return Ok(Vec::new()) };
    let mut missing = Vec::new();
    for process in processes::TABLE {
        let wanted = run.processes.iter().filter(|it| it.instance.service == process.name).count();
        let passing = agent.passing(process.name).unwrap_or(0);
        if passing < wanted {
            let why = format!("Consul lets {passing} of {wanted} be called");
            missing.push((process.name.to_owned(), why));
        }
    }
    Ok(missing)
}

pub(super) fn last_words(site: &Site, process: &str) -> String {
    let path = site.log(process);
    let log = fs::read_to_string(&path).unwrap_or_default();
    let lines: Vec<&str> = log.lines().collect();
    let last = lines.iter().skip(lines.len().saturating_sub(8));
    let last: String = last.map(|line| format!("    {}\n", crate::logs::readable(line))).collect();
    format!("{last}  (the whole of it: {})", site.shown(&path))
}

/// Fills the mesh with demo data and says what can be done with it now.
pub(super) fn greet(site: &Site, as_json: bool, detached: bool) -> Result<()> {
    seed::run(site).context("all processes were ready, but the demo data could not be put in")?;
    let rows = status::rows(site)?;
    if as_json {
        println!("{}", status::json(&rows));
        return Ok(());
    }
    println!("\n{}", status::text(&rows));
    println!("{}", say::bold("Try:"));
    let gateway = site.gateway();
    let orders = site.address(processes::named("orders")?.port);
    println!("  curl {gateway}/v1/products");
    println!("  grpcurl -plaintext {orders} list");
    println!("  cargo xtask demo");
    if detached {
        println!("\nIt runs on: `cargo xtask logs --follow` shows it, `cargo xtask down` ends it.");
    } else {
        println!("\nIts log follows; Ctrl-C ends it.");
    }
    Ok(())
}
