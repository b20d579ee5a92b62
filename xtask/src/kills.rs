//! `cargo xtask proof kills`: every process dies where it hurts, under load, and nothing is lost.
//!
//! A mesh of its own runs with failpoints while customers order, repeat, cancel and watch. One
//! process after the other is made to die at each point that it comes by, and all of them once by
//! a SIGKILL at no point in particular. Then the load ends, the mesh comes to rest, and
//! `meshproof check` compares what everybody says. With a bug the mesh makes a mistake on purpose,
//! and it is the checker that is tested.

mod bugs;
mod deaths;
mod load;
mod shares;

use std::ffi::OsString;
use std::fs;
use std::path::Path;
use std::process::{ExitCode, Stdio};

use anyhow::{Context, Result, bail, ensure};
use serde_json::Value;

use self::bugs::Bug;
use self::deaths::Kill;
use self::load::Load;
use self::shares::Shares;
use crate::processes::{self, TABLE};
use crate::report::Tally;
use crate::site::{self, Site};
use crate::{clock, os, proof, say, smoke, test, up};

/// What runs, and what is done to it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Story {
    postgres: bool,
    /// Instances of every service.
    replicas: u16,
    bug: Option<&'static Bug>,
}

/// What came of all kills.
struct Outcome {
    /// Who died, where, with how many orders in flight.
    table: Vec<(String, String, u64)>,
    /// What the checker printed.
    report: Value,
    shares: Shares,
}

/// At least so many orders are in flight at each kill.
const IN_FLIGHT: u64 = 50;

/// How long things take in a run that is to hold: orders are in flight for long, and whatever is
/// repeated has time to be.
const WHOLE: Pace = Pace { carrier: "5s", warm_up: 20_000, patience: "60s", rest: "420s" };

/// In a run that is to fail: as soon as it can.
const BROKEN: Pace = Pace { carrier: "1s", warm_up: 8_000, patience: "5s", rest: "25s" };

struct Pace {
    /// How long each stage of a parcel takes.
    carrier: &'static str,
    /// How long the load runs before the first kill, in milliseconds.
    warm_up: u64,
    /// How long watchers may stay when the load ends.
    patience: &'static str,
    /// How long the mesh may take to come to rest.
    rest: &'static str,
}

/// How often work is handed over to a replica that had none.
const HANDED_OVER: usize = 5;

pub(crate) fn run(args: &[OsString]) -> Result<ExitCode> {
    let args: Vec<String> = args.iter().map(|it| it.to_string_lossy().into_owned()).collect();
    let (stories, as_json) = asked(&args)?;
    on_scratch(as_json, |site, me| {
        let mut tally = Tally::default();
        for story in stories {
            tally.add(self::tally(site, me, story));
        }
        tally
    })
}

/// Builds what is there, and does something with it on a site that is kept if it goes wrong.
pub(crate) fn on_scratch(
    as_json: bool,
    what: impl FnOnce(&Site, &Path) -> Tally,
) -> Result<ExitCode> {
    let root = site::root()?;
    let site = test::scratch(&root)?;
    up::build(&site, false, &["proof"])?;
    let me = up::copy_self(&site.state.join("xtask"))?;
    let tally = what(&site, &me);
    if as_json {
        println!("{}", tally.json());
    }
    if tally.failed == 0 {
        fs::remove_dir_all(&site.state)?;
    } else {
        say::note(&format!("its logs and databases are in {}", site.shown(&site.state)));
    }
    Ok(if tally.failed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// What is asked for, and whether the answer is to be JSON.
fn asked(args: &[String]) -> Result<(Vec<Story>, bool)> {
    let mut story = Story { postgres: false, replicas: 1, bug: None };
    let (mut every_bug, mut as_json) = (false, false);
    let mut left = args.iter().map(String::as_str);
    while let Some(arg) = left.next() {
        match (arg, if arg == "--json" { None } else { left.next() }) {
            ("--json", _) => as_json = true,
            ("--with", Some("postgres")) => story.postgres = true,
            ("--replicas", Some(count)) => {
                story.replicas = count.parse().context("--replicas takes a number")?;
            }
            ("--bug", Some("all")) => every_bug = true,
            ("--bug", Some(name)) => story.bug = Some(bugs::named(name)?),
            _ => bail!("{arg}: kills takes --with postgres, --replicas N, --bug NAME and --json"),
        }
    }
    ensure!(
        story.postgres || story.replicas == 1,
        "--replicas needs --with postgres: one process owns a SQLite file"
    );
    let stories = if every_bug {
        bugs::BUGS.iter().map(|bug| Story { bug: Some(bug), ..story }).collect()
    } else {
        vec![story]
    };
    Ok((stories, as_json))
}

/// Runs a story: each kill counts, and the check after them.
pub(crate) fn tally(site: &Site, me: &Path, story: Story) -> Tally {
    match on(site, me, story) {
        Ok(outcome) => {
            say::note(&outcome.readable(story));
            outcome.tally(story)
        }
        Err(error) => {
            say::note(&format!("    FAILED: {error:#}"));
            Tally::one(false)
        }
    }
}

/// Starts a mesh on this site, kills its way through it, and checks what is left.
fn on(site: &Site, me: &Path, story: Story) -> Result<Outcome> {
    let state = site.state.join(story.name());
    os::private_folder(&state)?;
    let site = &Site { root: site.root.clone(), state, shift: site.shift };
    let mut words = vec!["up".to_owned(), "--detach".to_owned(), "--no-build".to_owned()];
    if story.postgres {
        words.extend(["--with", "postgres"].map(str::to_owned));
    }
    if story.replicas > 1 {
        for process in TABLE.iter().filter(|it| it.registered) {
            words.extend(["--replicas".to_owned(), format!("{}={}", process.name, story.replicas)]);
        }
    }
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    let mut start = smoke::xtask(site, me, &words);
    start.env("MESH_FAILPOINTS", "true").env("SHIPPING_CARRIER_SPEED", story.pace().carrier);
    if let Some(bug) = story.bug {
        start.env("MESH_SEEDED_BUG", bug.name);
    }
    smoke::told(start).context("the mesh did not start")?;
    let outcome = under_load(site, story);
    let ended = smoke::told(smoke::xtask(site, me, &["down"]));
    let outcome = outcome?;
    // A mesh that makes mistakes may make one in leaving.
    if story.bug.is_none() {
        ended.context("the mesh did not end by itself")?;
    }
    Ok(outcome)
}

fn under_load(site: &Site, story: Story) -> Result<Outcome> {
    let program = processes::bins(site, false).join("meshproof");
    let history = site.state.join("history.ndjson");
    let pace = story.pace();
    let mut load = Load::start(site, &program, &history, pace.patience)?;
    clock::nap(pace.warm_up);
    let kills = story.bug.map_or_else(deaths::all, |bug| bug.kills.to_vec());
    let mut shares = Shares::default();
    let killed = deaths::carry_out(site, &kills, &mut load, &mut shares).and_then(|kills| {
        if story.replicas > 1 {
            hand_over(site, &mut shares)?;
        }
        Ok(kills)
    });
    load.end()?;
    let kills = killed?;
    say::note("    the load has ended; waiting for the mesh to come to rest");
    let mut check = proof::meshproof(site, &program, "check");
    check.args(["--wait", pace.rest, "--quiet", "--json", "--history"]).arg(&history);
    let at: Vec<String> = kills.iter().map(|kill| kill.at.to_string()).collect();
    check.args(["--in-flight-at", &at.join(",")]);
    let output = check.stdin(Stdio::null()).stderr(Stdio::inherit()).output()?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let report: Value = serde_json::from_str(&text)
        .with_context(|| format!("meshproof printed no JSON: {text}"))?;
    shares.look(site)?;
    Ok(Outcome { table: table(kills, &report)?, report, shares })
}

/// Lets those replicas drain that did what others have not done yet: their leases go over.
fn hand_over(site: &Site, shares: &mut Shares) -> Result<()> {
    for _ in 0..HANDED_OVER {
        let idle = shares.idle();
        for name in idle.iter().flat_map(|(_, others)| others) {
            say::note(&format!("    {name} is restarted: others have not had its work yet"));
            deaths::drain(site, name)?;
        }
        if idle.is_empty() {
            return Ok(());
        }
        clock::nap(2_000);
        shares.look(site)?;
    }
    Ok(())
}

fn table(kills: Vec<Kill>, report: &Value) -> Result<Vec<(String, String, u64)>> {
    let flying = report["in_flight"].as_array().cloned().unwrap_or_default();
    ensure!(flying.len() == kills.len(), "meshproof told no orders in flight");
    let counts = flying.iter().map(|count| count.as_u64().unwrap_or_default());
    let rows = kills.into_iter().zip(counts);
    Ok(rows.map(|(kill, count)| (kill.instance, kill.point.to_owned(), count)).collect())
}

// === impl Story ===

impl Story {
    /// Every process at every point, on one file per service.
    pub(crate) const SQLITE: Self = Self { postgres: false, replicas: 1, bug: None };
    /// The same on PostgreSQL.
    pub(crate) const POSTGRES: Self = Self { postgres: true, replicas: 1, bug: None };

    /// The one mistake that every run of all tests makes.
    pub(crate) const BROKEN: Self =
        Self { postgres: false, replicas: 1, bug: Some(&bugs::SKIP_INBOX) };

    fn name(self) -> String {
        let on = if self.postgres { "postgres" } else { "sqlite" };
        let bug = self.bug.map(|bug| format!("-{}", bug.name)).unwrap_or_default();
        format!("kills-{on}{bug}")
    }

    fn pace(self) -> &'static Pace {
        if self.bug.is_some() { &BROKEN } else { &WHOLE }
    }
}

// === impl Outcome ===

impl Outcome {
    fn findings(&self) -> &[Value] {
        self.report["findings"].as_array().map_or(&[], Vec::as_slice)
    }

    /// Whether this invariant does not hold.
    fn is_broken(&self, invariant: &str) -> bool {
        self.findings().iter().any(|it| it["invariant"] == invariant)
    }

    fn tally(&self, story: Story) -> Tally {
        if let Some(bug) = story.bug {
            return Tally::one(self.is_broken(bug.invariant));
        }
        let mut tally = Tally::one(self.findings().is_empty());
        for (instance, point, flying) in &self.table {
            let enough = *flying >= IN_FLIGHT;
            if !enough {
                say::note(&format!(
                    "    FAILED: {instance} {point}: {flying} orders in flight, {IN_FLIGHT} were wanted"
                ));
            }
            tally.add(Tally::one(enough));
        }
        if story.replicas > 1 {
            let idle = self.shares.idle();
            for (service, _) in &idle {
                say::note(&format!(
                    "    FAILED: an instance of {service} had no share of its work"
                ));
            }
            tally.add(Tally::one(idle.is_empty()));
        }
        tally
    }

    fn readable(&self, story: Story) -> String {
        let head = ["process", "died at", "orders in flight"].map(str::to_owned).to_vec();
        let rows: Vec<Vec<String>> = (self.table.iter())
            .map(|(name, point, flying)| vec![name.clone(), point.clone(), flying.to_string()])
            .collect();
        let mut text = say::table(&[vec![head], rows].concat());
        if story.replicas > 1 {
            text.push_str(&self.shares.readable());
        }
        let findings = self.findings();
        let orders = &self.report["orders"];
        match story.bug {
            Some(bug) => {
                let verdict = if self.is_broken(bug.invariant) { "found" } else { "NOT FOUND" };
                text.push_str(&format!(
                    "{} was to break {}: {verdict}, in {orders} orders:\n",
                    bug.name, bug.invariant
                ));
                text.push_str(&say::table(&self.by_invariant()));
            }
            None if findings.is_empty() => {
                text.push_str(&format!("the checker found nothing in {orders} orders\n"));
            }
            None => {
                let report = format!("{:#}", self.report);
                text.push_str(&format!("{} findings:\n{report}\n", findings.len()));
            }
        }
        text
    }

    /// Of each invariant that does not hold: how often, and the first that was said.
    fn by_invariant(&self) -> Vec<Vec<String>> {
        let mut rows: Vec<(String, usize, String)> = Vec::new();
        for it in self.findings() {
            let text = |key: &str| it[key].as_str().unwrap_or_default().to_owned();
            match rows.iter_mut().find(|(name, ..)| *name == text("invariant")) {
                Some((_, count, _)) => *count += 1,
                None => {
                    let first = format!("{}: {}", text("subject"), text("sentence"));
                    rows.push((text("invariant"), 1, first));
                }
            }
        }
        rows.into_iter().map(|(name, count, first)| vec![name, count.to_string(), first]).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(args: &[&str]) -> Result<(Vec<Story>, bool)> {
        asked(&args.iter().map(|it| (*it).to_owned()).collect::<Vec<_>>())
    }

    #[test]
    fn what_is_asked_for_is_understood_or_refused() {
        let (stories, as_json) =
            read(&["--with", "postgres", "--replicas", "2", "--json"]).unwrap();
        assert!(as_json && stories.len() == 1 && stories[0].postgres && stories[0].replicas == 2);
        let (stories, as_json) = read(&["--bug", "all"]).unwrap();
        assert!(!as_json && stories.len() == bugs::BUGS.len());
        assert_eq!(read(&[]).unwrap().0[0].name(), "kills-sqlite");
        for args in [&["--replicas", "2"][..], &["--bug", "none"], &["--bug"], &["--with", "x"]] {
            assert!(read(args).is_err(), "{args:?}");
        }
    }

    #[test]
    fn a_bug_is_found_only_if_its_own_invariant_is_broken() {
        let finding = serde_json::json!({ "invariant": "L3", "subject": "a", "sentence": "b" });
        let outcome = Outcome {
            table: Vec::new(),
            report: serde_json::json!({ "orders": 1, "findings": [finding.clone(), finding] }),
            shares: Shares::default(),
        };
        let with = |name| Story { bug: Some(bugs::named(name).unwrap()), ..Story::SQLITE };
        assert_eq!(outcome.tally(with("skip_cursor")).failed, 0);
        assert_eq!(outcome.tally(with("skip_inbox")).failed, 1);
        assert!(outcome.readable(with("skip_inbox")).contains("NOT FOUND"));
        assert_eq!(outcome.by_invariant(), [["L3", "2", "a: b"]]);
        assert_eq!(outcome.tally(Story::SQLITE).failed, 1);
    }
}
