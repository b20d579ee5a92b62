//! Instructions and allocations of a call, beside those of the commit that this work began from.
//!
//! Both are counted, not measured: they say the same on a busy machine. What they do not see is the
//! system's part, and what memory costs; for that there is `bench mesh`.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, ensure};
use serde_json::{Map, Value, json};

use crate::cargo::cargo;
use crate::report::Tally;
use crate::{say, site, tools};

/// What is compared with the base: our connections alone, and both ends as `App` builds them.
const VARIANTS: [&str; 2] = ["bare", "stack"];
/// How many more instructions than at the base are taken for none.
const SLACK: f64 = 1.05;
/// Allocations of a call that the stack may add to those of the connections.
const ALLOCATIONS: f64 = 6.0;
/// Calls that are counted.
const CALLS: u32 = 500;
/// What a call is made of: if none of this has changed, neither has its cost.
const PATHS: [&str; 4] = ["mesh", "proto", "Cargo.toml", "Cargo.lock"];
/// What keeps the base's build apart from ours: to cargo a package of the same place in its workspace
/// is the same package, and newer files of one would do for the other. What is asked for changes no
/// instruction, and what both depend on stays shared.
const APART: [&str; 2] = [
    "profile.release.package.mesh.debug='line-directives-only'",
    "profile.release.package.meshbench.debug='line-directives-only'",
];
/// The program, and where its source is.
const PROGRAM: (&str, &str) = ("meshcount", "mesh/bench/src/meshcount.rs");

/// What was counted of one variant, each of one call.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Counts {
    instructions: f64,
    allocations: f64,
}

/// Builds the program here and at the base, and counts.
pub(super) fn measure(root: &Path) -> Result<Value> {
    let valgrind = tools::named("valgrind").and_then(tools::install)?;
    let work = site::target(root).join("ordermesh-count");
    drop(fs::remove_dir_all(&work));
    fs::create_dir_all(&work)?;
    // First the base: the other program takes the place of this one.
    let before = match base(root)? {
        Some(commit) => {
            let program = at(root, &commit, &work)?;
            Some((commit, counted(&valgrind, &program, &work)?))
        }
        None => None,
    };
    let program = build(root, root, &[])?;
    let now = counted(&valgrind, &program, &work)?;
    fs::remove_dir_all(&work)?;
    Ok(report(&now, before.as_ref().map(|(commit, counts)| (commit.as_str(), counts.as_slice()))))
}

/// The same as a check: no slower than the base, and within the budget.
pub(crate) fn tally(root: &Path) -> Tally {
    let counted = match measure(root) {
        Ok(counted) => counted,
        Err(error) => {
            say::note(&format!("    FAILED: {error:#}"));
            return Tally::one(false);
        }
    };
    let mut tally = Tally::default();
    for (what, most) in limits(&counted) {
        let found = counted["ratios"].get(&what).or_else(|| counted["figures"].get(&what));
        let found = found.and_then(Value::as_f64).unwrap_or(f64::INFINITY);
        let good = found <= most;
        let verdict = if good { "ok" } else { "FAILED" };
        say::note(&format!("    {verdict}: {what} {found:.3}, at most {most}"));
        tally.add(Tally::one(good));
    }
    tally
}

/// What must not be more, and how much it may be.
fn limits(counted: &Value) -> Vec<(String, f64)> {
    let ratios = counted["ratios"].as_object().into_iter().flat_map(Map::keys);
    // A few allocations come once in many calls, when something grows: half of one is none.
    let budget = ("allocations_stack_over_bare".to_owned(), ALLOCATIONS + 0.5);
    ratios.map(|name| (name.clone(), SLACK)).chain([budget]).collect()
}

/// What to compare with: where this branch left the main one, or the commit before this one; nothing
/// where the history is cut off, where it had no such program, or where no part of a call changed.
fn base(root: &Path) -> Result<Option<String>> {
    let head = git(root, &["rev-parse", "HEAD"]).context("this is no git checkout")?;
    let fork = git(root, &["merge-base", "HEAD", "origin/main"]).filter(|fork| *fork != head);
    let Some(base) = fork.or_else(|| git(root, &["rev-parse", "--verify", "--quiet", "HEAD^"]))
    else {
        say::note("    compared with nothing: the history is cut off here");
        return Ok(None);
    };
    if git(root, &["cat-file", "-e", &format!("{base}:{}", PROGRAM.1)]).is_none() {
        say::note("    compared with nothing: before this, calls were not counted");
        return Ok(None);
    }
    let unchanged = [&["diff", "--quiet", &base, "--"][..], &PATHS].concat();
    if git(root, &unchanged).is_some() {
        say::note(&format!("    compared with nothing: as at {base}"));
        return Ok(None);
    }
    Ok(Some(base))
}

/// What git says; `None` if it fails.
fn git(root: &Path, arguments: &[&str]) -> Option<String> {
    let mut command = Command::new("git");
    let output = command.args(arguments).current_dir(root).stderr(Stdio::null()).output().ok()?;
    let said = String::from_utf8_lossy(&output.stdout).trim().to_owned();
    output.status.success().then_some(said)
}

/// The program as it was at `commit`. Its files are new: by the time of the commit cargo would take
/// them for those of the base before.
fn at(root: &Path, commit: &str, work: &Path) -> Result<PathBuf> {
    say::note(&format!("    building what is compared with: {commit}"));
    let (source, archive) = (work.join("source"), work.join("source.tar"));
    fs::create_dir(&source)?;
    let mut pack = Command::new("git");
    pack.args(["archive", "--output"]).arg(&archive).arg(commit).current_dir(root);
    ensure!(pack.status()?.success(), "git archive failed");
    let unpacked = Command::new("tar").arg("-xmf").arg(&archive).arg("-C").arg(&source).status()?;
    ensure!(unpacked.success(), "tar failed");
    let (built, program) = (build(&source, root, &APART)?, work.join(PROGRAM.0));
    fs::copy(built, &program)?;
    Ok(program)
}

/// Builds the program from `source`, where everything else of `root` is built.
fn build(source: &Path, root: &Path, apart: &[&str]) -> Result<PathBuf> {
    let mut command = cargo(source);
    for setting in apart {
        command.args(["--config", setting]);
    }
    command.env("CARGO_TARGET_DIR", site::target(root));
    command.args(["build", "--locked", "--release", "--package", "meshbench", "--bin", PROGRAM.0]);
    ensure!(command.status()?.success(), "the build failed; cargo said why above");
    Ok(site::target(root).join("release").join(PROGRAM.0))
}

fn counted(valgrind: &Path, program: &Path, work: &Path) -> Result<Vec<Counts>> {
    VARIANTS.iter().map(|variant| count(valgrind, program, work, variant)).collect()
}

fn count(valgrind: &Path, program: &Path, work: &Path, variant: &str) -> Result<Counts> {
    let calls = CALLS.to_string();
    let arguments = [variant, "--calls", &calls];
    let output = Command::new(program).args(arguments).output()?;
    ensure!(output.status.success(), "meshcount failed: {}", said(&output.stderr));
    let counts: Value = serde_json::from_slice(&output.stdout).context("no JSON of meshcount")?;
    let output = Command::new(valgrind)
        .args(["--tool=callgrind", "--collect-atstart=no"])
        .arg("--toggle-collect=meshbench::count::counted")
        .arg(format!("--callgrind-out-file={}", work.join("callgrind.out").display()))
        .arg(program)
        .args(arguments)
        .output()
        .context("cannot run valgrind")?;
    let said = said(&output.stderr);
    ensure!(output.status.success(), "valgrind failed: {said}");
    let total = collected(&said).with_context(|| format!("callgrind counted nothing: {said}"))?;
    Ok(Counts {
        instructions: (total / f64::from(CALLS)).round(),
        allocations: counts["allocations"].as_f64().context("no allocations")?,
    })
}

fn said(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// What callgrind says at its end: `==1== Collected : 123`.
fn collected(said: &str) -> Option<f64> {
    let line = said.lines().find_map(|line| line.split_once("Collected :"))?;
    line.1.split_whitespace().next()?.parse().ok().filter(|count| *count > 0.0)
}

fn report(now: &[Counts], before: Option<(&str, &[Counts])>) -> Value {
    let (mut ratios, mut figures) = (Map::new(), Map::new());
    for (variant, counts) in VARIANTS.iter().zip(now) {
        figures.insert(format!("instructions_{variant}"), counts.instructions.into());
        figures.insert(format!("allocations_{variant}"), counts.allocations.into());
    }
    if let [bare, stack] = now {
        let more = stack.allocations - bare.allocations;
        figures.insert("allocations_stack_over_bare".to_owned(), more.into());
        let more = stack.instructions - bare.instructions;
        figures.insert("instructions_stack_over_bare".to_owned(), more.into());
    }
    if let Some((commit, counts)) = before {
        for ((variant, now), before) in VARIANTS.iter().zip(now).zip(counts) {
            let ratio = now.instructions / before.instructions;
            ratios.insert(format!("instructions_{variant}_per_base"), ratio.into());
        }
        figures.insert("base".to_owned(), commit.into());
    }
    json!({
        "bench": "count",
        "ratios": ratios,
        "figures": figures,
        "method": format!(
            "{CALLS} unary calls of 100 bytes after as many that do not count, 16 at once, client and server on one thread of \
             one process, plaintext on loopback, release build; instructions of the process by callgrind, without the \
             system's; allocations by a counting allocator; base: the same program built from the commit that this work \
             began from",
        ),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn counts(instructions: f64, allocations: f64) -> Counts {
        Counts { instructions, allocations }
    }

    #[test]
    fn what_callgrind_collected_is_read_and_nothing_is_not_a_count() {
        assert_eq!(collected("==7== \n==7== Collected : 54885000\n==7==\n"), Some(54_885_000.0));
        assert_eq!(collected("==7== Collected : 0"), None);
        assert_eq!(collected("==7== Command: meshcount"), None);
    }

    #[test]
    fn a_call_may_not_need_more_than_at_the_base_nor_more_allocations_than_six() {
        let now = [counts(105.0, 64.0), counts(120.0, 70.1)];
        let before = [counts(100.0, 64.0), counts(100.0, 70.0)];
        let report = report(&now, Some(("abc", &before)));
        assert_eq!(report["ratios"]["instructions_stack_per_base"], 1.2);
        assert_eq!(report["figures"]["base"], "abc");
        let limits = limits(&report);
        let good =
            |name: &str, found: f64| limits.iter().any(|(it, most)| it == name && found <= *most);
        assert!(good("instructions_bare_per_base", 1.05));
        assert!(!good("instructions_stack_per_base", 1.2));
        assert!(good("allocations_stack_over_bare", 6.1));
        assert!(!good("allocations_stack_over_bare", 7.0));
    }

    #[test]
    fn without_a_base_the_budget_still_holds() {
        let report = report(&[counts(1.0, 1.0), counts(2.0, 2.0)], None);
        assert_eq!(limits(&report), [("allocations_stack_over_bare".to_owned(), 6.5)]);
    }
}
