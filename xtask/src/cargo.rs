//! cargo, asked by this program: streamed runs, test counts, and its metadata as JSON.

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Command, Stdio};

use anyhow::{Context, Result, ensure};
use serde_json::Value;

use crate::report::Tally;

/// cargo in the root of the repository.
pub(crate) fn cargo(root: &Path) -> Command {
    let mut command = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    command.current_dir(root).stdin(Stdio::null());
    if crate::say::ci() {
        // Nobody builds twice there: incremental files would only cost time and disk.
        command.env("CARGO_INCREMENTAL", "0");
    }
    command
}

/// Runs a command whose output is progress (on stderr), as one check.
pub(crate) fn check(command: &mut Command) -> Tally {
    match command.stdout(Stdio::from(std::io::stderr())).status() {
        Ok(status) => Tally::one(status.success()),
        Err(error) => {
            crate::say::note(&format!("cannot run {}: {error}", command.get_program().display()));
            Tally::one(false)
        }
    }
}

/// Runs `cargo test` and adds up what its binaries say. Tests that were ignored are counted as skipped.
pub(crate) fn test(command: &mut Command) -> Result<Tally> {
    let mut child = command.stdout(Stdio::piped()).spawn().context("cannot run cargo")?;
    let output = child.stdout.take().context("cargo has no output")?;
    let mut tally = Tally::default();
    for line in BufReader::new(output).lines() {
        let line = line.context("cargo's output broke off")?;
        if let Some((passed, failed, ignored)) = result(&line) {
            tally.passed += passed;
            tally.failed += failed;
            tally.skipped += ignored;
        }
        eprintln!("{line}");
    }
    let status = child.wait()?;
    // It did not compile, or a test binary died without a result.
    if !status.success() && tally.failed == 0 {
        tally.failed = 1;
    }
    Ok(tally)
}

/// The numbers of a line like `test result: ok. 5 passed; 0 failed; 1 ignored; …`.
fn result(line: &str) -> Option<(u64, u64, u64)> {
    let numbers = line.strip_prefix("test result: ")?.split_once(". ")?.1;
    let number = |word: &str| {
        let part = numbers.split(';').find(|part| part.trim_end().ends_with(word))?;
        part.split_whitespace().next()?.parse().ok()
    };
    Some((number("passed")?, number("failed")?, number("ignored")?))
}

/// `cargo metadata` of the workspace itself.
pub(crate) fn metadata(root: &Path) -> Result<Value> {
    let mut command = cargo(root);
    command.args(["metadata", "--format-version", "1", "--locked", "--no-deps"]);
    let output = command.stderr(Stdio::inherit()).output().context("cannot run cargo metadata")?;
    ensure!(output.status.success(), "cargo metadata failed; it said why above");
    serde_json::from_slice(&output.stdout).context("cargo metadata is not JSON")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn results_of_test_binaries_are_read_and_other_lines_are_not() {
        let line = "test result: FAILED. 12 passed; 3 failed; 4 ignored; 0 measured; 0 filtered out; finished in 0.1s";
        assert_eq!(result(line), Some((12, 3, 4)));
        assert_eq!(result("test result_is_kept ... ok"), None);
    }
}
