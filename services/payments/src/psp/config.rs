//! What the simulator is told.

use std::time::Duration;

use mesh::config::duration;

use super::Settings;

/// Every setting is a flag and an environment variable; the flag wins. There is no
/// configuration file.
#[derive(Clone, Debug, clap::Parser)]
#[command(
    name = "psp-simulator",
    version,
    about = "A payment provider to test against.",
    mut_args = mesh::config::serves_on(8_090)
)]
pub struct Config {
    /// What every process of the mesh is told.
    #[command(flatten)]
    pub mesh: mesh::Config,

    /// Where its books are kept: `sqlite://` or `postgres://`. May hold a password: never printed.
    #[arg(
        long,
        env = "PSP_DATABASE_URL",
        hide_env_values = true,
        default_value = "sqlite://target/ordermesh/psp.db"
    )]
    pub database_url: String,

    /// How long every answer takes.
    #[arg(long, env = "PSP_LATENCY", default_value = "0ms", value_parser = duration)]
    pub latency: Duration,

    /// How long the answer to `tok_slow` takes: longer than anybody waits.
    #[arg(long, env = "PSP_SLOW", default_value = "10s", value_parser = duration)]
    pub slow: Duration,

    /// What it keeps of a capture, in hundredths of a percent.
    #[arg(
        long,
        env = "PSP_FEE_BASIS_POINTS",
        default_value_t = 150,
        value_parser = clap::value_parser!(i64).range(0..=10_000)
    )]
    pub fee_basis_points: i64,

    /// For how long it remembers an idempotency key.
    #[arg(long, env = "PSP_KEYS_KEPT", default_value = "24h", value_parser = duration)]
    pub keys_kept: Duration,

    /// Serves `/control`: faults on request, and a clock that can be advanced.
    #[arg(long, env = "PSP_CONTROL")]
    pub control: bool,
}

// === impl Config ===

impl Config {
    /// How it behaves.
    #[must_use]
    pub fn settings(&self) -> Settings {
        Settings {
            latency: self.latency,
            slow: self.slow,
            fee_basis_points: self.fee_basis_points,
            keys_kept: self.keys_kept,
            control: self.control,
        }
    }
}

impl AsRef<mesh::Config> for Config {
    fn as_ref(&self) -> &mesh::Config {
        &self.mesh
    }
}

#[cfg(test)]
mod tests {
    use clap::{CommandFactory as _, Parser as _};

    use super::*;

    #[test]
    fn flags_and_variables_are_well_formed() {
        Config::command().debug_assert();
    }

    #[test]
    fn faults_must_be_asked_for() {
        let config = Config::try_parse_from(["psp-simulator"]).unwrap();
        assert!(!config.settings().control);
        assert_eq!(config.mesh.listen.map(|at| at.port()), Some(8_090));
    }
}
