//! The parts of a run, and what comes of them: one JSON object.

use std::process::ExitCode;

use serde_json::{Map, Value, json};

use crate::{
    cost, faults,
    figures::Spread,
    idle, layers, machine,
    pinned::{self, Serve},
    transport::Transport,
};

/// Measures what a call over mesh costs, beside the rival that was built in.
#[derive(Debug, clap::Parser)]
#[command(name = "meshbench", version, about)]
pub struct Cli {
    /// What to do; without it: everything is measured.
    #[command(subcommand)]
    command: Option<Command>,
    /// What to measure.
    #[arg(long, value_delimiter = ',', value_enum, default_values_t = Part::ALL)]
    parts: Vec<Part>,
    /// Rounds in which all variants take their turns.
    #[arg(long, default_value_t = 7)]
    rounds: usize,
    /// Calls of a variant in one round.
    #[arg(long, default_value_t = 40_000)]
    calls: u32,
}

#[derive(Debug, clap::Subcommand)]
enum Command {
    /// Serves one of the variants to another process, until stdin ends.
    #[command(hide = true)]
    Serve(Serve),
}

/// What can be measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Part {
    /// CPU a call.
    Cpu,
    /// Each layer by itself.
    Layers,
    /// Allocations of a call.
    Allocations,
    /// Calls a second between two processes.
    Pinned,
    /// Calls beside a slow and a dead instance.
    Faults,
    /// Memory of idle connections and streams.
    Idle,
}

/// How much is called.
#[derive(Clone, Copy, Debug)]
pub struct Plan {
    /// Rounds in which all variants take their turns.
    pub rounds: usize,
    /// Calls of a variant in one round.
    pub calls: u32,
}

/// What was found.
#[derive(Debug, Default)]
pub struct Report {
    ratios: Map<String, Value>,
    figures: Map<String, Value>,
    ranges: Map<String, Value>,
}

/// Runs the program, with `R` as the rival.
#[must_use]
pub fn run<R: Transport>(cli: &Cli) -> ExitCode {
    let done = match &cli.command {
        Some(Command::Serve(serve)) => serve.run::<R>(),
        None => measure::<R>(cli).map(say),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            progress(&format!("error: {error:#}"));
            ExitCode::FAILURE
        }
    }
}

fn measure<R: Transport>(cli: &Cli) -> anyhow::Result<Value> {
    let plan = Plan { rounds: cli.rounds.max(1), calls: cli.calls.max(1_000) };
    let mut report = Report::default();
    for part in &cli.parts {
        match part {
            Part::Cpu => cost::cpu::<R>(&plan, &mut report)?,
            Part::Layers => layers::measure(&plan, &mut report)?,
            Part::Allocations => cost::allocations::<R>(&mut report)?,
            Part::Pinned => pinned::measure::<R>(&plan, &mut report)?,
            Part::Faults => faults::measure::<R>(&mut report)?,
            Part::Idle => idle::measure::<R>(&mut report)?,
        }
    }
    Ok(report.json::<R>(&plan))
}

/// Progress goes to stderr; stdout is for the figures.
#[expect(clippy::print_stderr, reason = "progress of a command line program")]
pub fn progress(line: &str) {
    eprintln!("    {line}");
}

/// The figures of a program.
#[expect(clippy::print_stdout, reason = "the figures of a command line program")]
pub fn say(figures: Value) {
    println!("{figures}");
}

/// Whose turn it is in a round: all of them, and each comes first in some round.
pub fn turn(count: usize, round: usize) -> impl Iterator<Item = usize> {
    (0..count).map(move |place| (place + round) % count)
}

// === impl Part ===

impl Part {
    const ALL: [Self; 6] =
        [Self::Cpu, Self::Layers, Self::Allocations, Self::Pinned, Self::Faults, Self::Idle];
}

impl std::fmt::Display for Part {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Cpu => "cpu",
            Self::Layers => "layers",
            Self::Allocations => "allocations",
            Self::Pinned => "pinned",
            Self::Faults => "faults",
            Self::Idle => "idle",
        })
    }
}

// === impl Plan ===

impl Plan {
    /// Calls before those that count.
    #[must_use]
    pub fn warm(&self) -> u32 {
        self.calls / 20
    }
}

// === impl Report ===

impl Report {
    /// A ratio of two that took turns, with the lowest and the highest round.
    pub fn ratio(&mut self, name: &str, ratio: Spread) {
        self.ratios.insert(name.to_owned(), ratio.value());
        self.ranges.insert(name.to_owned(), ratio.range());
    }

    /// A figure.
    pub fn figure(&mut self, name: &str, value: Value) {
        self.figures.insert(name.to_owned(), value);
    }

    fn json<R: Transport>(mut self, plan: &Plan) -> Value {
        for (name, range) in self.ranges {
            self.figures.insert(format!("range_{name}"), range);
        }
        json!({
            "bench": "mesh",
            "ratios": self.ratios,
            "figures": self.figures,
            "method": format!(
                "median of {} rounds in which all take turns, ratios within a round, range_*: lowest and highest round; \
                 {} calls of 100 bytes a turn, unary, plaintext, one connection, release build, {} cores; CPU of client and \
                 server in one process, by the clock that getrusage gives in microseconds; bare: connections and accept \
                 loop of mesh; stack: both ends as App builds them, rpc without a token, counters of deadline, breaker, \
                 budget, traces, spans and metrics checked; stack_out, stack_in: one end as in stack, the other bare; \
                 sampled: the stack with the three spans of each call recorded, queued and counted, not exported; \
                 {}: its Channel and Server; hyper: an echo without gRPC; layer_ns_out_*, layer_ns_in_*: one layer of a \
                 caller, of a server, 20,000 runs in a row on one thread less as many empty ones, with its data in the \
                 cache, so no share of a whole call; pick and the header of deadline are in bare, too; \
                 token, verified before, is in no sum; \
                 pinned: client and server on a core each, 64 calls at once; faults: one of three instances answers after \
                 100 ms and one port is closed, open loop; idle: resident memory of the server alone",
                plan.rounds, plan.calls, machine::cores(), R::NAME,
            ),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_comes_first_in_some_round_and_all_come_in_each() {
        let rounds: Vec<Vec<usize>> = (0..3).map(|round| turn(3, round).collect()).collect();
        assert_eq!(rounds, [[0, 1, 2], [1, 2, 0], [2, 0, 1]]);
    }

    #[test]
    fn ratios_stand_beside_their_ranges_in_one_object() {
        enum Nobody {}
        impl Transport for Nobody {
            const NAME: &'static str = "nobody";
            type Caller = crate::floor::Caller;
            async fn serve(
                _: std::net::TcpListener,
                _: crate::echo::Echoer,
            ) -> anyhow::Result<crate::transport::Serving> {
                anyhow::bail!("nobody serves")
            }
            async fn connect(_: &[u16], _: &crate::echo::Seen) -> anyhow::Result<Self::Caller> {
                anyhow::bail!("nobody calls")
            }
        }
        let mut report = Report::default();
        report.ratio("a", Spread::of(&[1.0, 2.0, 4.0]));
        report.figure("b", 3.into());
        let json = report.json::<Nobody>(&Plan { rounds: 3, calls: 1 });
        assert_eq!(json["ratios"], json!({ "a": 2.0 }));
        assert_eq!(json["figures"], json!({ "b": 3, "range_a": [1.0, 4.0] }));
        assert_eq!(json["bench"], "mesh");
        assert!(json["method"].is_string());
    }
}
