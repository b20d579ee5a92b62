//! The process: accounts, credentials and tokens, served on 50051.

use std::process::ExitCode;

fn main() -> ExitCode {
    mesh::run(users::app)
}
