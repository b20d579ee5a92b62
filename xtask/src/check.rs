//! `cargo xtask check`: everything about the source that can be decided without running it.

use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};

use anyhow::Result;

use crate::cargo::{cargo, check};
use crate::report::Tally;
use crate::{deps, say, site, tidy, tools};

xflags::xflags! {
    /// Checks the source without running it: tidy, format, the contract, dependencies, clippy.
    ///
    /// The contract is checked by buf and api-linter; where they are missing that is said and left out,
    /// and with CI=true they are installed first, since nothing may be left out there.
    ///
    ///   cargo xtask check
    ///   cargo xtask check --json       {"passed","failed","skipped"}
    cmd check {
        /// Print the three numbers as JSON on stdout; progress goes to stderr.
        optional --json
    }
}

pub(crate) fn run(flags: &Check) -> Result<ExitCode> {
    let mut tally = Tally::default();
    source(&site::root()?, say::ci(), &mut tally);
    Ok(tally.end(flags.json))
}

/// Every check of the source, what fails fastest first.
pub(crate) fn source(root: &Path, install: bool, tally: &mut Tally) {
    tally.stage("tidy", || tidy::tally(root));
    tally.stage("format", || check(cargo(root).args(["fmt", "--all", "--check"])));
    contract(root, install, tally);
    tally.stage("dependencies", || deps::tally(root));
    clippy(root, tally);
}

/// clippy over everything; the lints are in the root Cargo.toml.
pub(crate) fn clippy(root: &Path, tally: &mut Tally) {
    let arguments = ["clippy", "--workspace", "--all-targets", "--locked", "--", "-D", "warnings"];
    tally.stage("clippy", || check(cargo(root).args(arguments)));
}

/// buf and api-linter over the .proto files.
pub(crate) fn contract(root: &Path, install: bool, tally: &mut Tally) {
    let proto = root.join("proto");
    tally.stage("buf lint", || {
        with("buf", install, |buf| Command::new(buf).arg("lint").current_dir(&proto).into())
    });
    tally.stage("buf format", || {
        with("buf", install, |buf| {
            Command::new(buf).args(["format", "-d", "--exit-code"]).current_dir(&proto).into()
        })
    });
    tally.stage("api-linter", || {
        with("api-linter", install, |linter| {
            let files = protos(root);
            let flags = ["--set-exit-status", "--output-format", "yaml"];
            Checked::Quiet(
                Command::new(linter).args(flags).args(files).current_dir(&proto).output(),
            )
        })
    });
}

/// How a check was run: with its output shown, or kept until it fails.
enum Checked {
    Shown(Tally),
    Quiet(std::io::Result<std::process::Output>),
}

impl From<&mut Command> for Checked {
    fn from(command: &mut Command) -> Self {
        Self::Shown(check(command))
    }
}

/// Runs a check by a tool, or says that the tool is missing and how to get it.
fn with(name: &str, install: bool, work: impl FnOnce(PathBuf) -> Checked) -> Tally {
    let found = match tools::named(name) {
        Ok(tool) if install => tools::install(tool).map_err(|error| format!("{error:#}")),
        _ => tools::find(name).ok_or_else(|| "it is not installed".to_owned()),
    };
    let program = match found {
        Ok(program) => program,
        Err(why) => {
            return Tally::left_out(format!("{name}: {why}. Get it: {}", tools::hint(name)));
        }
    };
    match work(program) {
        Checked::Shown(tally) => tally,
        Checked::Quiet(Ok(output)) if output.status.success() => Tally::one(true),
        Checked::Quiet(Ok(output)) => {
            say::note(&String::from_utf8_lossy(&[output.stdout, output.stderr].concat()));
            Tally::one(false)
        }
        Checked::Quiet(Err(error)) => {
            say::note(&format!("cannot run {name}: {error}"));
            Tally::one(false)
        }
    }
}

/// Every .proto of ours, as a path from `proto/`, sorted.
fn protos(root: &Path) -> Vec<String> {
    let mut found = Vec::new();
    let mut folders = vec![root.join("proto/ordermesh")];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(&folder).into_iter().flatten().flatten() {
            let path = entry.path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|it| it == "proto") {
                let relative = path.strip_prefix(root.join("proto")).unwrap_or(&path);
                found.push(relative.display().to_string());
            }
        }
    }
    found.sort();
    found
}
