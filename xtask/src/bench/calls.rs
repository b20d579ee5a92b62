//! What a call over mesh costs, by a program that is both ends of it.

use std::path::Path;
use std::process::Command;

use anyhow::{Result, ensure};
use serde_json::Value;

use crate::cargo::cargo;
use crate::{say, site};

/// Builds the program and runs it.
///
/// Alone: what it is compared with is a feature of its own, and nothing that is built beside it
/// is to get any of that.
pub(super) fn measure(root: &Path) -> Result<Value> {
    say::stage("building (the first time takes some minutes)");
    let arguments =
        ["build", "--locked", "--release", "--package", "meshbench", "--features", "rival"];
    let status = cargo(root).args(arguments).status()?;
    ensure!(status.success(), "the build failed; cargo said why above");
    say::stage("measuring calls");
    let program = site::target(root).join("release").join("meshbench");
    super::figures(Command::new(program).current_dir(root), "meshbench")
}
