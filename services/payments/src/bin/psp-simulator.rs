//! The process: a payment provider that does on demand what real ones do by accident.

use std::process::ExitCode;

fn main() -> ExitCode {
    mesh::run(payments::psp::app)
}
