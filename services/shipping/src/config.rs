//! What the process is told.

use std::time::Duration;

use clap::ArgAction;
use mesh::config::duration;

use crate::{carrier::Habits, domain::Pace};

/// Every setting is a flag and an environment variable; the flag wins. There is no
/// configuration file.
#[derive(Clone, Debug, clap::Parser)]
#[command(version, about, mut_args = mesh::config::serves_on(50_056))]
pub struct Config {
    /// What every process of the mesh is told.
    #[command(flatten)]
    pub mesh: mesh::Config,

    /// Where shipments are kept: `sqlite://` or `postgres://`. May hold a password: never printed.
    #[arg(
        long,
        env = "SHIPPING_DATABASE_URL",
        hide_env_values = true,
        default_value = "sqlite://target/ordermesh/shipping.db"
    )]
    pub database_url: String,

    /// How long the built-in carrier takes for each stage: to come for a parcel, to bring it on
    /// its way, and to deliver it.
    #[arg(long, env = "SHIPPING_CARRIER_SPEED", default_value = "1s", value_parser = duration)]
    pub carrier_speed: Duration,

    /// Whether the built-in carrier comes for parcels by itself; else DispatchShipment hands them
    /// over.
    #[arg(
        long,
        env = "SHIPPING_AUTO_DISPATCH",
        default_value_t = true,
        action = ArgAction::Set
    )]
    pub auto_dispatch: bool,

    /// How long the carrier may take to answer; then it is not known what it did.
    #[arg(long, env = "SHIPPING_CARRIER_TIMEOUT", default_value = "3s", value_parser = duration)]
    pub carrier_timeout: Duration,

    /// How long to wait before each time that the carrier is asked again what it did; the last one
    /// holds from then on.
    #[arg(
        long,
        env = "SHIPPING_RESOLVE_SCHEDULE",
        value_delimiter = ',',
        default_value = "1s,5s,30s,5m,1h",
        value_parser = duration
    )]
    pub resolve_schedule: Vec<Duration>,

    /// When an attempt is taken up whose sender says nothing: longer than the carrier may take.
    #[arg(long, env = "SHIPPING_UNSENT_AFTER", default_value = "5s", value_parser = duration)]
    pub unsent_after: Duration,
}

// === impl Config ===

impl Config {
    /// How patiently the carrier is asked.
    ///
    /// # Errors
    /// The settings contradict each other; the message says how.
    pub fn pace(&self) -> anyhow::Result<Pace> {
        anyhow::ensure!(
            self.unsent_after > self.carrier_timeout,
            "--unsent-after must be longer than --carrier-timeout: an attempt that is waited for \
             would be taken for lost"
        );
        anyhow::ensure!(!self.resolve_schedule.is_empty(), "--resolve-schedule must not be empty");
        Ok(Pace { schedule: self.resolve_schedule.clone(), unsent_after: self.unsent_after })
    }

    /// How the built-in carrier works.
    #[must_use]
    pub fn habits(&self) -> Habits {
        Habits { stage: self.carrier_speed, comes_by_itself: self.auto_dispatch }
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
    fn the_carrier_comes_by_itself_unless_told_otherwise() {
        let config = Config::try_parse_from(["shipping"]).unwrap();
        assert_eq!(config.pace().unwrap(), Pace::default());
        let second = Duration::from_secs(1);
        assert_eq!(config.habits(), Habits { stage: second, comes_by_itself: true });
        let config = Config::try_parse_from(["shipping", "--auto-dispatch=false"]).unwrap();
        assert!(!config.habits().comes_by_itself);
    }

    #[test]
    fn an_attempt_is_not_taken_for_lost_while_it_is_waited_for() {
        let config = Config::try_parse_from(["shipping", "--unsent-after", "3s"]).unwrap();
        assert!(config.pace().unwrap_err().to_string().starts_with("--unsent-after"));
    }
}
