//! A mesh with replicas on a real Consul, of which one is killed, and then Consul, while customers
//! read: `cargo xtask proof replicas`, and a stage of `cargo xtask test`.

use std::ffi::OsString;
use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};

use crate::api::{self, Api};
use crate::os::Pid;
use crate::processes::TABLE;
use crate::report::Tally;
use crate::run_file::{Row, Run};
use crate::seed::ADA;
use crate::site::Site;
use crate::smoke::{told, xtask};
use crate::{clock, consul, kills, os, say, tools};

/// Whose replica is killed, and how many of them there are.
const KILLED: (&str, usize) = ("catalog", 3);

/// Customers who read at once, and how long each waits after an answer, in milliseconds.
const READERS: (usize, u64) = (4, 20);

/// How long they read before something happens, and after it, in milliseconds.
const READS: (u64, u64) = (3_000, 5_000);

/// No read takes longer, whatever happens.
const MOVED: Duration = Duration::from_secs(1);

/// How long after a new agent runs everybody is found in it.
const AGAIN: Duration = Duration::from_secs(30);

/// Customers who read until they are told to stop.
struct Readers {
    stop: Arc<AtomicBool>,
    threads: Vec<JoinHandle<Vec<Read>>>,
}

/// One read: when it began, how long it took, and what went wrong.
struct Read {
    began: Instant,
    took: Duration,
    failed: Option<String>,
}

pub(crate) fn run(args: &[OsString]) -> Result<ExitCode> {
    let as_json = args.iter().any(|arg| arg == "--json");
    ensure!(args.len() == usize::from(as_json), "replicas takes --json and nothing else");
    kills::on_scratch(as_json, tally)
}

/// Counts each thing that is to hold.
pub(crate) fn tally(site: &Site, me: &Path) -> Tally {
    for tool in ["consul", "postgres"] {
        if let Err(error) = tools::named(tool).and_then(tools::install) {
            return Tally::left_out(format!("replicas on Consul: {error:#}"));
        }
    }
    let state = site.state.join("replicas");
    let site = &Site { root: site.root.clone(), state, shift: site.shift };
    let mut tally = Tally::default();
    let mut step = |name: &str, outcome: Result<String>| {
        let good = outcome.is_ok();
        match outcome {
            Ok(seen) => say::note(&format!("    ok: {name}{seen}")),
            Err(error) => say::note(&format!("    FAILED: {name}: {error:#}")),
        }
        tally.add(Tally::one(good));
        good
    };
    let mut agent = None;
    if step("up, with three replicas on Consul", up(site, me)) {
        step("one of three is killed: no read fails, none takes a second", killed(site));
        step("so is Consul: nothing is noticed, and all are found again", {
            forgotten(site, &mut agent)
        });
        step("every call was made for another, or in the background", rootless(site));
    }
    step("down", told(xtask(site, me, &["down"])).map(|_said| String::new()));
    // The one that was started anew is ours.
    if let Some(agent) = agent {
        agent.stop();
    }
    tally
}

fn up(site: &Site, me: &Path) -> Result<String> {
    os::private_folder(&site.state)?;
    let replicas = format!("{}={}", KILLED.0, KILLED.1);
    // Who is killed stays away: callers cannot wait for it.
    let words = ["up", "--detach", "--no-build", "--no-restart", "--with", "consul,postgres"];
    told(xtask(site, me, &[&words[..], &["--replicas", &replicas]].concat()))?;
    Ok(String::new())
}

fn killed(site: &Site) -> Result<String> {
    let rows = rows(site)?;
    let readers = Readers::start(site)?;
    clock::nap(READS.0);
    let shares = served(&rows)?;
    ensure!(shares.iter().all(|calls| *calls > 0), "not all are called: {shares:?}");
    let (dead, left) = rows.split_first().context("nobody is there")?;
    let pid = dead.pid.as_ref().context("it is not there")?;
    let at = clock::now();
    ensure!(pid.signal("KILL"), "{} cannot be killed", dead.instance.name);
    let before = served(left)?;
    clock::nap(READS.1);
    let reads = readers.stop()?;
    let seen = judged(&reads, at)?;
    let after = served(left)?;
    let took_over = after.iter().zip(&before).all(|(after, before)| after > before);
    ensure!(took_over, "the others were not called any more: {before:?}, then {after:?}");
    Ok(seen)
}

fn forgotten(site: &Site, anew: &mut Option<consul::Agent>) -> Result<String> {
    let mut run = Run::required(site)?;
    let agent = run.components.consul.take().context("there is no Consul")?;
    let living = |name: &str| {
        let of = run.processes.iter().filter(|row| row.instance.service == name);
        of.filter(|row| row.pid.as_ref().is_some_and(Pid::alive)).count()
    };
    let mut expected = Vec::new();
    for process in TABLE.iter().filter(|it| it.registered) {
        expected.push((process.name, living(process.name)));
    }
    let readers = Readers::start(site)?;
    clock::nap(READS.0);
    let at = clock::now();
    ensure!(agent.pid.signal("KILL"), "Consul cannot be killed");
    clock::nap(READS.1);
    let agent = anew.insert(consul::Agent::start(site, &site.state.join("consul-anew"))?);
    // So that `down` ends it, should this program not come to it.
    run.components.consul = Some(agent.clone());
    run.write(site)?;
    let begun = clock::now();
    let missing = || {
        let there = |name: &str| agent.passing(name).unwrap_or_default();
        expected.iter().find(|(name, count)| there(name) != *count)
    };
    while missing().is_some() && begun.elapsed() < AGAIN {
        clock::nap(100);
    }
    if let Some((name, count)) = missing() {
        bail!("not all {count} of {name} are in the new agent after {}", clock::spoken(AGAIN));
    }
    let took = clock::spoken(begun.elapsed());
    clock::nap(READS.1);
    let seen = judged(&readers.stop()?, at)?;
    Ok(format!("{seen}; in a new agent after {took}"))
}

/// That nothing went wrong since something happened; says how much was looked at.
fn judged(reads: &[Read], happened: Instant) -> Result<String> {
    let since: Vec<&Read> =
        reads.iter().filter(|read| read.began + read.took >= happened).collect();
    let reads = since.as_slice();
    let failed = reads.iter().find_map(|read| read.failed.as_ref());
    if let Some(why) = failed {
        let failed = reads.iter().filter(|read| read.failed.is_some()).count();
        bail!("{failed} of {} reads failed, the first with {why}", reads.len());
    }
    let slowest = reads.iter().map(|read| read.took).max().context("nothing was read")?;
    ensure!(slowest < MOVED, "a read took {}", clock::spoken(slowest));
    let first = happened + MOVED;
    let (soon, late): (Vec<_>, Vec<_>) =
        reads.iter().copied().partition(|read: &&Read| read.began < first);
    ensure!(!soon.is_empty() && !late.is_empty(), "nothing was read after it");
    Ok(format!(
        " ({} reads, {} in the second after it, the slowest {})",
        reads.len(),
        soon.len(),
        clock::spoken(slowest)
    ))
}

/// That no process made a call without a deadline that somebody had set.
fn rootless(site: &Site) -> Result<String> {
    let mut silent = Vec::new();
    for row in Run::required(site)?.processes {
        let Ok(text) = api::metrics(&row.instance.admin) else {
            silent.push(row.instance.name);
            continue;
        };
        let calls = api::sum(&text, "mesh_rootless_calls_total", "");
        ensure!(calls == 0, "{} made {calls} of no call's", row.instance.name);
    }
    ensure!(silent.len() == 1, "one was killed, but these do not answer: {silent:?}");
    Ok(String::new())
}

fn rows(site: &Site) -> Result<Vec<Row>> {
    let run = Run::required(site)?;
    let rows: Vec<Row> = run.rows(KILLED.0)?.into_iter().cloned().collect();
    ensure!(rows.len() == KILLED.1, "{} of {} run", rows.len(), KILLED.0);
    Ok(rows)
}

/// How many calls each has served.
fn served(rows: &[Row]) -> Result<Vec<u64>> {
    let calls = |row: &Row| {
        let text = api::metrics(&row.instance.admin)?;
        Ok(api::sum(&text, "rpc_server_call_duration_seconds_count", "ListProducts"))
    };
    rows.iter().map(calls).collect()
}

// === impl Readers ===

impl Readers {
    fn start(site: &Site) -> Result<Self> {
        let gateway = TABLE.iter().find(|it| it.name == "gateway").context("no gateway")?;
        let base = format!("http://{}", site.address(gateway.port));
        let ada = Api::new(&base).sign_in(ADA.email, ADA.password)?;
        let stop = Arc::new(AtomicBool::new(false));
        let reader = || {
            let (ada, stop) = (ada.clone(), Arc::clone(&stop));
            thread::spawn(move || Self::read(&ada, &stop))
        };
        Ok(Self { threads: (0..READERS.0).map(|_| reader()).collect(), stop })
    }

    /// Once each: what is asked for again here would hide what went wrong.
    fn read(ada: &Api, stop: &AtomicBool) -> Vec<Read> {
        let mut reads = Vec::new();
        while !stop.load(Ordering::Relaxed) {
            let began = clock::now();
            let failed = match ada.get_once("/v1/products") {
                Ok(reply) if reply.status == 200 => None,
                Ok(reply) => Some(format!("{} {}", reply.status, reply.body)),
                Err(error) => Some(format!("{error:#}")),
            };
            reads.push(Read { began, took: began.elapsed(), failed });
            clock::nap(READERS.1);
        }
        reads
    }

    fn stop(mut self) -> Result<Vec<Read>> {
        self.stop.store(true, Ordering::Relaxed);
        let mut all = Vec::new();
        for thread in self.threads.drain(..) {
            all.extend(thread.join().ok().context("a reader broke")?);
        }
        Ok(all)
    }
}

impl Drop for Readers {
    /// Whoever gives up in between leaves nobody reading.
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_failed_or_slow_read_is_too_many_and_so_is_none() {
        let at = clock::now();
        let read = |after: u64, took: u64, failed: Option<&str>| Read {
            began: at + Duration::from_millis(after),
            took: Duration::from_millis(took),
            failed: failed.map(str::to_owned),
        };
        let well = || vec![read(10, 5, None), read(2_000, 999, None)];
        assert!(judged(&well(), at).unwrap().contains("2 reads, 1 in the second after it"));
        let with = |other| well().into_iter().chain([other]).collect::<Vec<_>>();
        assert!(judged(&with(read(20, 5, Some("503"))), at).is_err());
        assert!(judged(&with(read(20, 1_000, None)), at).is_err());
        assert!(judged(&[read(10, 5, None)], at).is_err(), "nobody read for long enough");
        assert!(judged(&[], at).is_err());
    }
}
