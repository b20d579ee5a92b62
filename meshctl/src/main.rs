//! `meshctl`: explains an order, and looks after sagas, dead letters and the outbox.

use std::process::ExitCode;

use clap::Parser as _;
use meshctl::{
    cli::{Cli, run},
    error::advice,
};

#[expect(clippy::print_stdout, clippy::print_stderr, reason = "a command line program")]
fn main() -> ExitCode {
    let cli = Cli::parse();
    let done = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(anyhow::Error::from)
        .and_then(|runtime| runtime.block_on(run(cli)));
    match done {
        Ok(text) => {
            println!("{text}");
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("error: {error:#}");
            if let Some(advice) = advice(&error) {
                eprintln!("  try: {advice}");
            }
            ExitCode::FAILURE
        }
    }
}
