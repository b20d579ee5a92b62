//! The process at the edge of the mesh.

use std::process::ExitCode;

fn main() -> ExitCode {
    mesh::run(gateway::app)
}
