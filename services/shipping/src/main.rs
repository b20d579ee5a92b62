//! The process: shipments and their way to the customer, served on 50056.

use std::process::ExitCode;

fn main() -> ExitCode {
    mesh::run(shipping::app)
}
