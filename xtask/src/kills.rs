//! `cargo xtask proof kills`: every process dies where it hurts, under load, and nothing is lost.
//!
//! A mesh of its own runs with failpoints while customers order, repeat, cancel and watch. One
//! process after the other is made to die at each point that it comes by, and all of them once by
//! a SIGKILL at no point in particular. Then the load ends, the mesh comes to rest, and
//! `meshproof check` compares what everybody says.

use std::ffi::OsString;
use std::fs;
use std::path::Path;
use std::process::{Child, Command, ExitCode, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use serde_json::{Value, json};

use crate::os::Pid;
use crate::processes::{self, TABLE};
use crate::report::Tally;
use crate::run_file::Run;
use crate::site::{self, Site};
use crate::{api, clock, os, proof, say, smoke, test, up};

/// Which processes come by which point while orders are placed.
const POINTS: &[(&str, &[&str])] = &[
    ("after_commit_before_answer", &["orders", "inventory", "payments", "shipping"]),
    ("after_intent_before_send", &["orders", "payments", "shipping"]),
    ("after_reply_before_record", &["orders", "payments", "shipping"]),
    ("after_effect_before_ack", &["orders", "notifications"]),
    ("during_sequencing", &["orders", "inventory", "payments", "shipping"]),
];

/// A SIGKILL from outside, wherever the process is.
const ANYWHERE: &str = "anywhere";

/// At least so many orders are in flight at each kill.
const IN_FLIGHT: u64 = 50;

/// Calls a second. An order is under way for some seconds, so this many are in flight, times those.
const RATE: u32 = 15;

/// How long each stage of a parcel takes: long enough that orders are in flight.
const CARRIER_SPEED: &str = "5s";

/// How long a point may take to be come by, and a process to be ready again.
const PATIENCE: Duration = Duration::from_secs(60);

/// How long the load runs before the first kill: as long as an order is under way.
const WARM_UP: u64 = 20_000;

/// How long after a process is back the next one dies.
const BREATH: u64 = 1_500;

/// How long the mesh may take to come to rest: longer than the longest repeat.
const REST: &str = "420s";

/// One kill: who, where, and when the process was gone.
struct Kill {
    process: &'static str,
    point: &'static str,
    at: u64,
}

/// What came of all kills on one database.
pub(crate) struct Outcome {
    /// `process`, `point`, orders in flight.
    pub(crate) table: Vec<(String, String, u64)>,
    /// What the checker printed.
    pub(crate) check: String,
    /// Its findings.
    pub(crate) findings: u64,
}

pub(crate) fn run(args: &[OsString]) -> Result<ExitCode> {
    let has = |flag: &str| args.iter().any(|it| it == flag);
    for arg in args {
        let known = ["--json", "--with", "postgres"].iter().any(|it| arg == it);
        ensure!(known, "{}: kills takes --with postgres and --json", arg.to_string_lossy());
    }
    let root = site::root()?;
    let site = test::scratch(&root)?;
    up::build(&site, false, &["proof"])?;
    let me = up::copy_self(&site.state.join("xtask"))?;
    let outcome = on(&site, &me, has("postgres"))?;
    let good =
        outcome.findings == 0 && outcome.table.iter().all(|(_, _, flying)| *flying >= IN_FLIGHT);
    if has("--json") {
        let failed = u64::from(!good);
        println!("{}", json!({ "passed": outcome.table.len(), "failed": failed, "skipped": 0 }));
    } else {
        print!("{}", readable(&outcome));
    }
    if good {
        fs::remove_dir_all(&site.state)?;
    } else {
        say::note(&format!("its logs and databases are in {}", site.shown(&site.state)));
    }
    Ok(if good { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// As a stage of `cargo xtask test`: each kill counts, and the check after them.
pub(crate) fn tally(site: &Site, me: &Path, postgres: bool) -> Tally {
    match on(site, me, postgres) {
        Ok(outcome) => {
            say::note(&readable(&outcome));
            let mut tally = Tally::one(outcome.findings == 0);
            for (process, point, flying) in &outcome.table {
                let enough = *flying >= IN_FLIGHT;
                if !enough {
                    say::note(&format!(
                        "    FAILED: {process} {point}: {flying} orders in flight, {IN_FLIGHT} were wanted"
                    ));
                }
                tally.add(Tally::one(enough));
            }
            tally
        }
        Err(error) => {
            say::note(&format!("    FAILED: {error:#}"));
            Tally::one(false)
        }
    }
}

/// Starts a mesh on this site, kills its way through it, and checks what is left.
fn on(site: &Site, me: &Path, postgres: bool) -> Result<Outcome> {
    let state = site.state.join(if postgres { "kills-postgres" } else { "kills-sqlite" });
    os::private_folder(&state)?;
    let site = &Site { root: site.root.clone(), state, shift: site.shift };
    let mut words = vec!["up", "--detach", "--no-build"];
    if postgres {
        words.extend(["--with", "postgres"]);
    }
    let mut start = smoke::xtask(site, me, &words);
    start.env("MESH_FAILPOINTS", "true").env("SHIPPING_CARRIER_SPEED", CARRIER_SPEED);
    smoke::told(start).context("the mesh did not start")?;
    let outcome = under_load(site);
    let ended = smoke::told(smoke::xtask(site, me, &["down"]));
    let outcome = outcome?;
    ended.context("the mesh did not end by itself")?;
    Ok(outcome)
}

fn under_load(site: &Site) -> Result<Outcome> {
    let program = processes::bins(site, false).join("meshproof");
    let history = site.state.join("history.ndjson");
    let mut load = Load::start(site, &program, &history)?;
    let killed = kill_all(site, &mut load);
    load.end()?;
    let kills = killed?;
    say::note("    the load has ended; waiting for the mesh to come to rest");
    let mut check = proof::meshproof(site, &program, "check");
    check.args(["--wait", REST, "--quiet", "--json", "--history"]).arg(&history);
    let at: Vec<String> = kills.iter().map(|kill| kill.at.to_string()).collect();
    check.args(["--in-flight-at", &at.join(",")]);
    let output = check.stdin(Stdio::null()).stderr(Stdio::inherit()).output()?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let report: Value = serde_json::from_str(&text)
        .with_context(|| format!("meshproof printed no JSON: {text}"))?;
    let flying = report["in_flight"].as_array().context("meshproof told no orders in flight")?;
    let table = (kills.iter().zip(flying))
        .map(|(kill, count)| {
            (kill.process.to_owned(), kill.point.to_owned(), count.as_u64().unwrap_or_default())
        })
        .collect();
    let findings = report["failed"].as_u64().context("meshproof told no number of findings")?;
    Ok(Outcome { table, findings, check: format!("{report:#}") })
}

fn kill_all(site: &Site, load: &mut Load) -> Result<Vec<Kill>> {
    let mut kills = Vec::new();
    // Point by point, so that no process dies twice in a row and is given up.
    let at_points = POINTS.iter().flat_map(|(point, who)| who.iter().map(move |it| (*it, *point)));
    let anywhere = TABLE.iter().map(|it| (it.name, ANYWHERE));
    clock::nap(WARM_UP);
    for (process, point) in at_points.chain(anywhere) {
        ensure!(load.runs()?, "the load ended by itself before all kills were done");
        kills.push(kill(site, process, point)?);
        clock::nap(BREATH);
    }
    Ok(kills)
}

/// Lets one process die, and waits until it is back.
fn kill(site: &Site, process: &'static str, point: &'static str) -> Result<Kill> {
    let run = Run::required(site)?;
    let row = run.rows(process)?.first().copied().cloned().context("it left the mesh")?;
    if point == ANYWHERE {
        let pid = row.pid.as_ref().with_context(|| format!("{process} is not there"))?;
        ensure!(pid.signal("KILL"), "{process} cannot be killed");
    } else {
        api::arm(&row.instance.admin, point)?;
    }
    let begun = clock::now();
    let mut died = None;
    loop {
        let now = Run::required(site)?.rows(process)?.first().copied().cloned();
        let now = now.context("it left the mesh")?;
        if let Some(why) = now.gave_up {
            bail!("{process} at {point}: {why}");
        }
        let gone = now.starts > row.starts || !row.pid.as_ref().is_some_and(Pid::alive);
        if gone && died.is_none() {
            died = Some(clock::micros());
        }
        if now.starts > row.starts && api::ready(&now.instance.admin).is_ok() {
            break;
        }
        ensure!(
            begun.elapsed() < PATIENCE,
            "{process} {} at {point} within {}",
            if died.is_some() { "is not ready again after it died" } else { "did not come by" },
            clock::spoken(PATIENCE)
        );
        clock::nap(20);
    }
    say::note(&format!(
        "    {process} died at {point} and was ready {} later",
        clock::spoken(begun.elapsed())
    ));
    Ok(Kill { process, point, at: died.unwrap_or_default() })
}

/// `meshproof load`, beside us.
struct Load(Child);

impl Load {
    fn start(site: &Site, program: &Path, history: &Path) -> Result<Self> {
        let mut command: Command = proof::meshproof(site, program, "load");
        command
            .args(["--rate", &RATE.to_string(), "--for", "1800s", "--faults", "--patience", "60s"])
            .arg("--history")
            .arg(history)
            .stdin(Stdio::null())
            .stdout(Stdio::null());
        Ok(Self(command.spawn().context("cannot start meshproof")?))
    }

    fn runs(&mut self) -> Result<bool> {
        Ok(self.0.try_wait()?.is_none())
    }

    /// Asks it to end: it makes no new calls, and writes down what it was told.
    fn end(mut self) -> Result<()> {
        if self.runs()? {
            Pid::of(self.0.id()).signal("TERM");
        }
        let status = self.0.wait()?;
        ensure!(status.success(), "the load failed: {status}");
        Ok(())
    }
}

fn readable(outcome: &Outcome) -> String {
    let head = ["process", "died at", "orders in flight"].map(str::to_owned).to_vec();
    let rows: Vec<Vec<String>> = (outcome.table.iter())
        .map(|(process, point, flying)| vec![process.clone(), point.clone(), flying.to_string()])
        .collect();
    let check = match outcome.findings {
        0 => "the checker found nothing".to_owned(),
        _ => format!("{} findings:\n{}", outcome.findings, outcome.check),
    };
    format!("{}{check}\n", say::table(&[vec![head], rows].concat()))
}
