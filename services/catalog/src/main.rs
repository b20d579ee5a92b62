//! The process: products, variants and prices, served on 50052.

use std::process::ExitCode;

fn main() -> ExitCode {
    mesh::run(catalog::app)
}
