//! The process: orders and their saga, served on 50054.

use std::process::ExitCode;

fn main() -> ExitCode {
    mesh::run(orders::app)
}
