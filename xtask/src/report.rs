//! What a check found, in the three numbers that every check ends with, and what they mean for CI.

use std::process::ExitCode;
use std::time::Duration;

use serde_json::{Value, json};

use crate::{clock, say};

/// The outcome of a check, or of several.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Tally {
    pub(crate) passed: u64,
    pub(crate) failed: u64,
    pub(crate) skipped: u64,
    /// What was left out, and how to get it.
    pub(crate) left_out: Vec<String>,
    pub(crate) stages: Vec<Stage>,
}

/// One stage of a longer run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Stage {
    pub(crate) name: String,
    pub(crate) took: Duration,
    pub(crate) passed: u64,
    pub(crate) failed: u64,
}

// === impl Tally ===

impl Tally {
    /// The outcome of something that is one check.
    pub(crate) fn one(good: bool) -> Self {
        Self { passed: u64::from(good), failed: u64::from(!good), ..Self::default() }
    }

    /// Something that could not be checked here.
    pub(crate) fn left_out(what: String) -> Self {
        Self { skipped: 1, left_out: vec![what], ..Self::default() }
    }

    pub(crate) fn add(&mut self, other: Self) {
        self.passed += other.passed;
        self.failed += other.failed;
        self.skipped += other.skipped;
        self.left_out.extend(other.left_out);
        self.stages.extend(other.stages);
    }

    /// Runs a stage, says how long it took, and adds what it found.
    pub(crate) fn stage(&mut self, name: &str, work: impl FnOnce() -> Self) -> bool {
        say::stage(name);
        let begun = clock::now();
        let found = work();
        let took = begun.elapsed();
        let good = found.failed == 0;
        let verdict = if !good {
            "FAILED"
        } else if found.passed == 0 && found.skipped > 0 {
            "left out"
        } else {
            "ok"
        };
        say::note(&format!("    {verdict}, {}: {name}", clock::spoken(took)));
        let stage =
            Stage { name: name.to_owned(), took, passed: found.passed, failed: found.failed };
        self.add(found);
        self.stages.push(stage);
        good
    }

    pub(crate) fn json(&self) -> Value {
        json!({ "passed": self.passed, "failed": self.failed, "skipped": self.skipped })
    }

    /// The whole of it, for a file.
    pub(crate) fn report(&self) -> Value {
        let stage = |it: &Stage| json!({ "name": it.name, "elapsed_ms": it.took.as_millis(), "passed": it.passed, "failed": it.failed });
        json!({
            "passed": self.passed, "failed": self.failed, "skipped": self.skipped, "left_out": self.left_out,
            "stages": self.stages.iter().map(stage).collect::<Vec<_>>(),
        })
    }

    /// Prints the end of a check and says whether it is a success: where CI=true, only if nothing was left out.
    pub(crate) fn end(&self, as_json: bool) -> ExitCode {
        if !self.left_out.is_empty() {
            say::note("\nLeft out:");
            for what in &self.left_out {
                say::note(&format!("  - {what}"));
            }
        }
        if as_json {
            println!("{}", self.json());
        } else {
            println!("{} passed, {} failed, {} skipped", self.passed, self.failed, self.skipped);
        }
        if self.good(say::ci()) { ExitCode::SUCCESS } else { ExitCode::FAILURE }
    }

    fn good(&self, ci: bool) -> bool {
        self.failed == 0 && !(ci && self.skipped > 0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_left_out_fails_in_ci_and_nowhere_else() {
        let mut tally = Tally::one(true);
        assert!(tally.good(true));
        tally.add(Tally::left_out("buf".into()));
        assert!(tally.good(false));
        assert!(!tally.good(true));
        assert_eq!(tally.json(), json!({ "passed": 1, "failed": 0, "skipped": 1 }));
        tally.add(Tally::one(false));
        assert!(!tally.good(false));
    }
}
