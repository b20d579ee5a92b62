//! What the process is told.

/// Every setting is a flag and an environment variable; the flag wins. There is no
/// configuration file.
#[derive(Clone, Debug, clap::Parser)]
#[command(version, about, mut_args = mesh::config::serves_on(50_052))]
pub struct Config {
    /// What every process of the mesh is told.
    #[command(flatten)]
    pub mesh: mesh::Config,

    /// Where the catalog is kept: `sqlite://` or `postgres://`. May hold a password: never printed.
    #[arg(
        long,
        env = "CATALOG_DATABASE_URL",
        hide_env_values = true,
        default_value = "sqlite://target/ordermesh/catalog.db"
    )]
    pub database_url: String,
}

impl AsRef<mesh::Config> for Config {
    fn as_ref(&self) -> &mesh::Config {
        &self.mesh
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    use super::*;

    #[test]
    fn flags_and_variables_are_well_formed() {
        Config::command().debug_assert();
    }
}
