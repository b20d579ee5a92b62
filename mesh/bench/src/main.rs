//! `meshbench`: what a call over mesh costs, beside tonic's own transport.

mod rival;

use std::process::ExitCode;

use clap::Parser as _;
use meshbench::{
    machine::Counting,
    run::{self, Cli},
};
use tikv_jemallocator::Jemalloc;

/// The allocator of release builds, counted.
#[global_allocator]
static ALLOCATOR: Counting<Jemalloc> = Counting(Jemalloc);

fn main() -> ExitCode {
    run::run::<rival::Tonic>(&Cli::parse())
}
