//! `cargo xtask restart` and `kill`: one process ends politely or at once, and comes back.

use std::fs;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};

use crate::os::Pid;
use crate::run_file::Run;
use crate::site::Site;
use crate::{api, clock, say};

pub(crate) mod flags {
    xflags::xflags! {
        /// Drains one process and starts it again; the others run on.
        ///
        /// The binary is started as it stands: build first to try a change. Waits until it is ready.
        ///
        ///   cargo xtask restart orders
        ///   cargo build -p orders && cargo xtask restart orders
        ///   cargo xtask restart orders-1       one replica
        cmd restart {
            /// A service (all its replicas) or one process.
            required service: String
        }
    }
}

pub(crate) mod kill_flags {
    xflags::xflags! {
        /// Ends one process with SIGKILL, in the middle of whatever it does, to see what the mesh makes of it.
        ///
        /// The supervisor starts it again, unless the mesh was started with --no-restart. No order is lost:
        /// `cargo xtask demo` before and after shows it.
        ///
        ///   cargo xtask kill orders
        cmd kill {
            /// A service (all its replicas) or one process.
            required service: String
        }
    }
}

/// A drain takes 35 s at most, a start a few seconds.
const PATIENCE: Duration = Duration::from_secs(60);

pub(crate) fn restart(flags: &flags::Restart) -> Result<ExitCode> {
    let site = Site::from_env()?;
    let run = Run::required(&site)?;
    ensure!(
        run.supervisor.alive(),
        "the supervisor is gone: `cargo xtask down`, then `cargo xtask up`"
    );
    for row in run.rows(&flags.service)? {
        let name = &row.instance.name;
        fs::write(site.control().join(format!("restart-{name}")), "")
            .context("cannot ask the supervisor")?;
        if let Some(pid) = &row.pid {
            pid.signal("TERM");
        }
        let begun = clock::now();
        loop {
            let run = Run::required(&site)?;
            let now =
                run.rows(name)?.first().map(|it| (*it).clone()).context("it left the mesh")?;
            if now.starts > row.starts {
                if let Some(why) = now.gave_up {
                    bail!("{why}. Its log: cargo xtask logs {name}");
                }
                if now.pid.as_ref().is_some_and(Pid::alive)
                    && api::ready(&now.instance.admin).is_ok()
                {
                    break;
                }
            }
            say::redraw(&format!("  waiting for {name}"));
            ensure!(
                begun.elapsed() < PATIENCE,
                "{name} is not ready after {}: cargo xtask logs {name} says why",
                clock::spoken(PATIENCE)
            );
            clock::nap(30);
        }
        say::redraw("");
        println!("{name} is ready again, after {}", clock::spoken(begun.elapsed()));
    }
    Ok(ExitCode::SUCCESS)
}

pub(crate) fn kill(flags: &kill_flags::Kill) -> Result<ExitCode> {
    let site = Site::from_env()?;
    let run = Run::required(&site)?;
    for row in run.rows(&flags.service)? {
        let name = &row.instance.name;
        match &row.pid {
            Some(pid) if pid.signal("KILL") => println!("{name} (pid {}) is killed", pid.number),
            _ => println!("{name} is down already"),
        }
    }
    Ok(ExitCode::SUCCESS)
}
