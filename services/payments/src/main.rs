//! The process: payments, their attempts and the ledger, served on 50055.

use std::process::ExitCode;

fn main() -> ExitCode {
    mesh::run_beside(payments::outside, payments::app)
}
