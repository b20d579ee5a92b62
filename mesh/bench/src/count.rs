//! What can be counted of a call instead of measured: instructions and allocations. They say the
//! same on a busy machine as on an idle one, so that a change can be judged by them.

use anyhow::Context as _;
use serde_json::{Value, json};

use crate::{
    cost,
    floor::Floor,
    load::Variant,
    machine,
    transport::{Bare, Sampled, Stack, StackIn, StackOut, Transport},
};

/// Makes the calls of one variant, on one thread, client and server in this process. Allocations
/// are counted by this program; for instructions run it under callgrind, and collect in
/// `meshbench::count::counted`.
#[derive(Debug, clap::Parser)]
#[command(name = "meshcount", version, about)]
pub struct Cli {
    /// What makes and serves the calls.
    #[arg(value_parser = [
        Stack::NAME, StackOut::NAME, StackIn::NAME, Sampled::NAME, Bare::NAME, Floor::NAME
    ])]
    variant: String,
    /// Calls that count.
    #[arg(long, default_value_t = 1_000)]
    calls: u32,
    /// Calls at once.
    #[arg(long, default_value_t = 16)]
    at_once: usize,
}

/// Makes the calls.
///
/// # Errors
/// One failed.
pub fn run(cli: &Cli) -> anyhow::Result<Value> {
    let runtime = cost::runtime(None)?;
    let start = async {
        match cli.variant.as_str() {
            Stack::NAME => Variant::start::<Stack>().await,
            StackOut::NAME => Variant::start::<StackOut>().await,
            StackIn::NAME => Variant::start::<StackIn>().await,
            Sampled::NAME => Variant::start::<Sampled>().await,
            Bare::NAME => Variant::start::<Bare>().await,
            _ => Variant::start::<Floor>().await,
        }
    };
    let variant = runtime.block_on(start)?;
    runtime.block_on(variant.calls(cli.at_once, cli.calls))?;
    machine::count_allocations();
    counted(&runtime, &variant, cli)?;
    let allocations = u32::try_from(machine::allocations()).context("too many to count")?;
    let each = f64::from(allocations) / f64::from(cli.calls.max(1));
    Ok(json!({ "variant": cli.variant, "calls": cli.calls, "allocations": each }))
}

/// What callgrind looks at: a name of its own in the program.
#[inline(never)]
fn counted(runtime: &tokio::runtime::Runtime, variant: &Variant, cli: &Cli) -> anyhow::Result<()> {
    runtime.block_on(variant.calls(cli.at_once, cli.calls))
}
