//! `meshproof load`, beside the kills.

use std::path::Path;
use std::process::{Child, Command, Stdio};

use anyhow::{Context, Result, ensure};

use crate::os::Pid;
use crate::proof;
use crate::site::Site;

/// Calls a second. An order is under way for some seconds, so this many are in flight, times those.
const RATE: u32 = 15;

pub(super) struct Load(Child);

// === impl Load ===

impl Load {
    /// Begins to call. Watchers may stay for `patience` when it is told to end.
    pub(super) fn start(
        site: &Site,
        program: &Path,
        history: &Path,
        patience: &str,
    ) -> Result<Self> {
        let mut command: Command = proof::meshproof(site, program, "load");
        command
            .args(["--rate", &RATE.to_string(), "--for", "1800s", "--faults"])
            .args(["--patience", patience, "--history"])
            .arg(history)
            .stdin(Stdio::null())
            .stdout(Stdio::null());
        Ok(Self(command.spawn().context("cannot start meshproof")?))
    }

    pub(super) fn runs(&mut self) -> Result<bool> {
        Ok(self.0.try_wait()?.is_none())
    }

    /// Asks it to end: it makes no new calls, and writes down what it was told.
    pub(super) fn end(mut self) -> Result<()> {
        if self.runs()? {
            Pid::of(self.0.id()).signal("TERM");
        }
        let status = self.0.wait()?;
        ensure!(status.success(), "the load failed: {status}");
        Ok(())
    }
}
