//! `meshcount`: what a call over mesh needs that can be counted.

use std::{alloc::System, process::ExitCode};

use clap::Parser as _;
use meshbench::{
    count::{self, Cli},
    machine::Counting,
    run::{progress, say},
};

/// The allocator of the system, counted.
#[global_allocator]
static ALLOCATOR: Counting<System> = Counting(System);

fn main() -> ExitCode {
    match count::run(&Cli::parse()) {
        Ok(counts) => {
            say(counts);
            ExitCode::SUCCESS
        }
        Err(error) => {
            progress(&format!("error: {error:#}"));
            ExitCode::FAILURE
        }
    }
}
