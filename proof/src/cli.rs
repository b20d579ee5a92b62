//! What `meshproof` is asked for, and what it answers.

use std::{fmt, path::PathBuf, time::Duration};

use serde_json::Value;

use crate::{
    access::{Identity, Place},
    bench::Bench,
    check::{Mode, Report, report},
    collect::Sources,
    load::Load,
};

/// Loads a running mesh, checks it, and measures it.
#[derive(Debug, clap::Parser)]
#[command(name = "meshproof", version, about)]
pub struct Cli {
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// What can be done.
#[derive(Debug, clap::Subcommand)]
pub enum Command {
    /// Asks whether what everybody says of the mesh fits together.
    ///
    /// Exits with 0 if it does, with 1 if something does not. Each finding is printed with the
    /// whole life of its order. May be asked while the mesh works: orders on which a saga works
    /// are excused where several services have to agree.
    Check(Box<Check>),
    /// Orders, repeats, cancels and watches at a constant rate, and records what was told.
    Load(Box<Load>),
    /// Benchmarks; each prints one JSON object.
    #[command(subcommand)]
    Bench(Box<Bench>),
}

/// Whom to ask, and how strictly.
#[derive(Clone, Debug, clap::Args)]
pub struct Check {
    /// Where the mesh is.
    #[command(flatten)]
    pub place: Place,
    /// Who asks: needs the role `admin`, or is the client `proof`.
    #[command(flatten)]
    pub identity: Identity,
    /// The payment provider, as `http://host:port`: compares its ledger with ours.
    #[arg(long, env = "MESHPROOF_PSP")]
    pub psp: Option<String>,
    /// The maildir that notifications go to: counts the mails in it.
    #[arg(long)]
    pub mail: Option<PathBuf>,
    /// What `meshproof load` recorded: compares what clients were told with what is.
    #[arg(long)]
    pub history: Option<PathBuf>,
    /// Waits so long for the mesh to come to rest before it is checked.
    #[arg(long, value_parser = mesh::config::duration)]
    pub wait: Option<Duration>,
    /// Nobody uses the mesh: an order that nobody leads on is a finding, too.
    #[arg(long)]
    pub quiet: bool,
    /// Tells how many orders had begun and not ended at each of these times, in microseconds since
    /// 1970; with --json only.
    #[arg(long, value_delimiter = ',')]
    pub in_flight_at: Vec<i64>,
    /// Prints one JSON object.
    #[arg(long)]
    pub json: bool,
}

/// What is printed, and whether it is good.
#[derive(Clone, Debug)]
pub struct Done {
    /// For standard output.
    pub text: String,
    /// Whether the process exits with 0.
    pub is_good: bool,
}

/// Does what `cli` asks for.
///
/// # Errors
/// The mesh cannot be reached or read, or a file cannot.
pub async fn run(cli: Cli) -> anyhow::Result<Done> {
    match cli.command {
        Command::Check(check) => check.run().await,
        Command::Load(load) => load.run().await,
        Command::Bench(bench) => Ok(Done::good(bench.run().await?)),
    }
}

// === impl Check ===

impl Check {
    async fn run(self) -> anyhow::Result<Done> {
        let authorization = self.identity.sign_in(&self.place).await?;
        let sources = Sources {
            services: Sources::services(&self.place).await?,
            authorization,
            provider: self.psp,
            maildir: self.mail,
            history: self.history,
        };
        if let Some(patience) = self.wait
            && !sources.rest(patience).await?
        {
            progress("the mesh did not come to rest in time; it is checked as it is");
        }
        let mode = if self.quiet { Mode::Quiet } else { Mode::Running };
        let world = sources.world().await?;
        let report = report(&world, mode);
        let mut done = Done::of(&report, self.json);
        if self.json && !self.in_flight_at.is_empty() {
            let mut object = report.json();
            object["in_flight"] = self.in_flight_at.iter().map(|at| world.in_flight(*at)).collect();
            done.text = object.to_string();
        }
        Ok(done)
    }
}

// === impl Done ===

impl Done {
    fn of(report: &Report, json: bool) -> Self {
        let text = if json { report.json().to_string() } else { report.to_string() };
        Self { text, is_good: report.findings.is_empty() }
    }

    /// Good, with this object for standard output.
    #[must_use]
    pub fn good(value: Value) -> Self {
        Self { text: value.to_string(), is_good: true }
    }
}

impl fmt::Display for Done {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.text.trim_end())
    }
}

#[expect(clippy::print_stderr, reason = "progress of a command line program")]
pub(crate) fn progress(text: &str) {
    eprintln!("{text}");
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    use super::*;

    #[test]
    fn the_flags_fit_together() {
        Cli::command().debug_assert();
    }

    #[test]
    fn a_report_with_findings_is_not_good() {
        let mut world = crate::world::sample::completed();
        assert!(Done::of(&report(&world, Mode::Running), false).is_good);
        world.provider.clear();
        let done = Done::of(&report(&world, Mode::Running), true);
        assert!(!done.is_good && done.text.starts_with('{'));
    }
}
