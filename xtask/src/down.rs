//! `cargo xtask down`: drains the mesh that runs and waits until it is gone.

use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Result, bail};

use crate::run_file::Run;
use crate::site::Site;
use crate::{clock, say};

xflags::xflags! {
    /// Drains every process of the running mesh and waits until all have ended.
    ///
    /// Calls that are under way finish first (35 s at most), then what is left is killed, and that is said.
    /// The state stays: the next `up` goes on with it. Without a running mesh it does nothing and succeeds.
    ///
    ///   cargo xtask down
    cmd down { }
}

/// The supervisor's own limit is 35 s.
const PATIENCE: Duration = Duration::from_secs(45);

pub(crate) fn run(_flags: &Down) -> Result<ExitCode> {
    let site = Site::from_env()?;
    if Run::current(&site)?.is_none() {
        println!("no mesh is running here");
        return Ok(ExitCode::SUCCESS);
    }
    let begun = clock::now();
    end(&site)?;
    println!("the mesh is down, after {}: {}", clock::spoken(begun.elapsed()), farewell(&site));
    Ok(ExitCode::SUCCESS)
}

/// The last thing that the supervisor said.
fn farewell(site: &Site) -> String {
    let log = std::fs::read_to_string(site.log("xtask")).unwrap_or_default();
    let last = log.lines().last().unwrap_or_default();
    let entry: serde_json::Value = serde_json::from_str(last).unwrap_or_default();
    entry["message"].as_str().unwrap_or("nothing is left").to_owned()
}

/// Ends whatever runs on this site; the supervisor does it, and where it is gone, we do.
pub(crate) fn end(site: &Site) -> Result<()> {
    let Some(run) = Run::current(site)? else { return Ok(()) };
    if !run.supervisor.signal("TERM") {
        say::note("the supervisor is gone; ending its processes one by one");
        for pid in run.living() {
            pid.signal("TERM");
        }
    }
    let begun = clock::now();
    loop {
        let run = Run::read(site)?.unwrap_or_else(|| run.clone());
        let left = run.living();
        let supervised = run.supervisor.alive();
        if left.is_empty() && !supervised {
            break;
        }
        say::redraw(&format!("  draining: {} processes left", left.len()));
        if begun.elapsed() > PATIENCE {
            let pids: Vec<String> = left.iter().map(|pid| pid.number.to_string()).collect();
            for pid in left {
                pid.signal("KILL");
            }
            run.supervisor.signal("KILL");
            bail!(
                "some did not end in {} and were killed: pids {}",
                clock::spoken(PATIENCE),
                pids.join(", ")
            );
        }
        clock::nap(30);
    }
    say::redraw("");
    // Still there only if the supervisor could not tidy up by itself.
    if let Some(run) = Run::read(site)? {
        run.components.stop();
        std::fs::remove_file(site.run_file())?;
    }
    Ok(())
}
