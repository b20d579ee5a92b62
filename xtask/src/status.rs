//! `cargo xtask status`: which processes run, where, and whether they are ready.

use std::process::ExitCode;

use anyhow::Result;
use serde_json::{Value, json};

use crate::os::Pid;
use crate::run_file::{self, Run};
use crate::site::Site;
use crate::{api, processes, say};

xflags::xflags! {
    /// Says which processes run, on which addresses, and whether they are ready.
    ///
    /// Succeeds only if a mesh runs and all of it is ready, so a script can ask it.
    ///
    ///   cargo xtask status
    ///   cargo xtask status --json     [{"service","pid","grpc":"host:port","admin":"host:port","ready":bool}]
    ///
    /// With --json, `grpc` is the address that the process serves on: HTTP for gateway and psp-simulator.
    /// `pid` is null while a process is down.
    cmd status {
        /// Print JSON on stdout; the shape is stable.
        optional --json
    }
}

/// A process with what is known of it at this moment.
pub(crate) struct Now {
    row: run_file::Row,
    pid: Option<u32>,
    missing: Option<String>,
}

pub(crate) fn run(flags: &Status) -> Result<ExitCode> {
    let site = Site::from_env()?;
    if Run::current(&site)?.is_none() && flags.json {
        println!("[]");
        return Ok(ExitCode::FAILURE);
    }
    Run::required(&site)?;
    let rows = rows(&site)?;
    if flags.json {
        println!("{}", json(&rows));
    } else {
        print!("{}", text(&rows));
        for line in Run::required(&site)?.components.lines() {
            println!("{line}");
        }
        for row in &rows {
            let name = &row.row.instance.name;
            match (&row.row.gave_up, &row.missing) {
                (Some(why), _) => println!("{why}. Its log: cargo xtask logs {name}"),
                (None, Some(why)) => println!("{name}: {why}. Its log: cargo xtask logs {name}"),
                (None, None) => {}
            }
        }
    }
    let ready = rows.iter().all(|row| row.missing.is_none());
    Ok(if ready { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// Asks every process of the running mesh how it is.
pub(crate) fn rows(site: &Site) -> Result<Vec<Now>> {
    let run = Run::required(site)?;
    let now = run.processes.into_iter().map(|row| {
        let pid = row.pid.clone().filter(Pid::alive).map(|pid| pid.number);
        let missing = if pid.is_some() {
            api::ready(&row.instance.admin).err()
        } else {
            Some("it is down".into())
        };
        Now { row, pid, missing }
    });
    Ok(now.collect())
}

pub(crate) fn json(rows: &[Now]) -> Value {
    let row = |now: &Now| {
        json!({
            "service": now.row.instance.service, "pid": now.pid, "grpc": now.row.instance.listen,
            "admin": now.row.instance.admin, "ready": now.missing.is_none(),
        })
    };
    rows.iter().map(row).collect()
}

pub(crate) fn text(rows: &[Now]) -> String {
    let head = ["process", "address", "admin", "pid", "state", "what"];
    let mut table = vec![head.map(str::to_owned).to_vec()];
    for now in rows {
        let process = processes::named(&now.row.instance.service).ok();
        let scheme = if process.is_some_and(|it| it.http) { "http://" } else { "" };
        let state = match (&now.missing, &now.row.gave_up) {
            (None, _) if now.row.starts > 1 => format!("ready (start {})", now.row.starts),
            (None, _) => "ready".to_owned(),
            (Some(_), Some(_)) => "down".to_owned(),
            (Some(_), None) if now.pid.is_none() => "starting again".to_owned(),
            (Some(_), None) => "not ready".to_owned(),
        };
        table.push(vec![
            now.row.instance.name.clone(),
            format!("{scheme}{}", now.row.instance.listen),
            now.row.instance.admin.clone(),
            now.pid.map_or_else(|| "-".to_owned(), |pid| pid.to_string()),
            state,
            process.map_or("", |it| it.about).to_owned(),
        ]);
    }
    say::table(&table)
}
