//! The process: mails about orders, served on 50057.

use std::process::ExitCode;

fn main() -> ExitCode {
    mesh::run(notifications::app)
}
