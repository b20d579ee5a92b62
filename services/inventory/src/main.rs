//! The process: stock and reservations, served on 50053.

use std::process::ExitCode;

fn main() -> ExitCode {
    mesh::run(inventory::app)
}
