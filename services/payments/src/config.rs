//! What the process is told.

use std::time::Duration;

use mesh::config::duration;

use crate::domain::Pace;

/// Every setting is a flag and an environment variable; the flag wins. There is no
/// configuration file.
#[derive(Clone, Debug, clap::Parser)]
#[command(name = "payments", version, about, mut_args = mesh::config::serves_on(50_055))]
pub struct Config {
    /// What every process of the mesh is told.
    #[command(flatten)]
    pub mesh: mesh::Config,

    /// Where payments are kept: `sqlite://` or `postgres://`. May hold a password: never printed.
    #[arg(
        long,
        env = "PAYMENTS_DATABASE_URL",
        hide_env_values = true,
        default_value = "sqlite://target/ordermesh/payments.db"
    )]
    pub database_url: String,

    /// The payment provider, as `http://host:port`.
    #[arg(long, env = "PAYMENTS_PROVIDER_URL", default_value = "http://127.0.0.1:8090")]
    pub provider_url: String,

    /// How long the provider may take to answer; then it is not known what it did.
    #[arg(long, env = "PAYMENTS_PROVIDER_TIMEOUT", default_value = "3s", value_parser = duration)]
    pub provider_timeout: Duration,

    /// How long to wait before each time that the provider is asked what it did; after the last,
    /// a person has to find out.
    #[arg(
        long,
        env = "PAYMENTS_RESOLVE_SCHEDULE",
        value_delimiter = ',',
        default_value = "1s,5s,30s,5m,1h,24h,24h,24h,24h,24h",
        value_parser = duration
    )]
    pub resolve_schedule: Vec<Duration>,

    /// When an attempt is taken up that was not sent, or whose sender says nothing: longer than
    /// the provider may take.
    #[arg(long, env = "PAYMENTS_UNSENT_AFTER", default_value = "5s", value_parser = duration)]
    pub unsent_after: Duration,

    /// How often at most an attempt is looked at that waits for the customer.
    #[arg(long, env = "PAYMENTS_ACTION_POLL", default_value = "2s", value_parser = duration)]
    pub action_poll: Duration,

    /// For how long the provider surely remembers a key: less than it promises, for its clock is
    /// not ours.
    #[arg(long, env = "PAYMENTS_KEYS_KEPT", default_value = "23h", value_parser = duration)]
    pub keys_kept: Duration,
}

// === impl Config ===

impl Config {
    /// How patiently the provider is asked.
    ///
    /// # Errors
    /// The settings contradict each other; the message says how.
    pub fn pace(&self) -> anyhow::Result<Pace> {
        anyhow::ensure!(
            self.unsent_after > self.provider_timeout,
            "--unsent-after must be longer than --provider-timeout: an attempt that is waited for \
             would be taken for lost"
        );
        anyhow::ensure!(!self.resolve_schedule.is_empty(), "--resolve-schedule must not be empty");
        Ok(Pace {
            schedule: self.resolve_schedule.clone(),
            unsent_after: self.unsent_after,
            action_poll: self.action_poll,
            keys_kept: self.keys_kept,
        })
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
    fn the_provider_is_asked_as_the_rules_for_payments_say() {
        let config = Config::try_parse_from(["payments"]).unwrap();
        assert_eq!(config.pace().unwrap(), Pace::default());
        assert_eq!(config.provider_timeout, Duration::from_secs(3));
    }

    #[test]
    fn an_attempt_is_not_taken_for_lost_while_it_is_waited_for() {
        let config = Config::try_parse_from(["payments", "--unsent-after", "3s"]).unwrap();
        assert!(config.pace().unwrap_err().to_string().starts_with("--unsent-after"));
    }
}
