//! What the process is told.

use std::{path::PathBuf, time::Duration};

/// Every setting is a flag and an environment variable; the flag wins. There is no
/// configuration file.
#[derive(Clone, Debug, clap::Parser)]
#[command(version, about, mut_args = mesh::config::serves_on(50_051))]
pub struct Config {
    /// What every process of the mesh is told.
    #[command(flatten)]
    pub mesh: mesh::Config,

    /// Where accounts are kept: `sqlite://` or `postgres://`. May hold a password: never printed.
    #[arg(
        long,
        env = "USERS_DATABASE_URL",
        hide_env_values = true,
        default_value = "sqlite://target/ordermesh/users.db"
    )]
    pub database_url: String,

    /// Folder with the secrets to begin with: the file `admin-password` opens the account
    /// `admin@ordermesh.example` unless it exists; each file `clients/SERVICE` is the secret that
    /// this service signs in with. Read at every start; without it nothing is set up.
    #[arg(long, env = "USERS_SECRETS_DIR")]
    pub secrets_dir: Option<PathBuf>,

    /// How old the key that signs tokens becomes before another takes its place.
    #[arg(
        long,
        env = "USERS_SIGNING_KEY_AGE_MAX",
        default_value = "720h",
        value_parser = mesh::config::duration
    )]
    pub signing_key_age_max: Duration,
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
    fn keys_rotate_once_a_month_unless_told_otherwise() {
        let config = Config::try_parse_from(["users"]).expect("defaults suffice");
        assert_eq!(config.signing_key_age_max, Duration::from_secs(30 * 24 * 3_600));
    }
}
