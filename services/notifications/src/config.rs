//! What the process is told.

use std::time::Duration;

use lettre::message::Mailbox;
use mesh::config::duration;

use crate::maildir::Maildir;

/// Every setting is a flag and an environment variable; the flag wins. There is no
/// configuration file.
#[derive(Clone, Debug, clap::Parser)]
#[command(version, about, mut_args = mesh::config::serves_on(50_057))]
pub struct Config {
    /// What every process of the mesh is told.
    #[command(flatten)]
    pub mesh: mesh::Config,

    /// Where notifications are kept: `sqlite://` or `postgres://`. May hold a password: never
    /// printed.
    #[arg(
        long,
        env = "NOTIFICATIONS_DATABASE_URL",
        hide_env_values = true,
        default_value = "sqlite://target/ordermesh/notifications.db"
    )]
    pub database_url: String,

    /// Where mails go: `file://` and the path of a maildir, which is made if it is missing.
    #[arg(
        long,
        env = "NOTIFICATIONS_MAIL_URL",
        default_value = "file://target/ordermesh/mail",
        value_parser = Maildir::parse
    )]
    pub mail_url: Maildir,

    /// Who mails come from. Its domain also names the mails.
    #[arg(
        long,
        env = "NOTIFICATIONS_MAIL_FROM",
        default_value = "Ordermesh <orders@ordermesh.example>"
    )]
    pub mail_from: Mailbox,

    /// How long a notification waits for the address of its customer before it is given up.
    #[arg(
        long,
        env = "NOTIFICATIONS_WAIT_FOR_ADDRESS",
        default_value = "168h",
        value_parser = duration
    )]
    pub wait_for_address: Duration,

    /// How long notifications and addresses are kept.
    #[arg(long, env = "NOTIFICATIONS_KEEP", default_value = "2160h", value_parser = duration)]
    pub keep: Duration,
}

// === impl Config ===

impl Config {
    /// Whether the settings go together.
    ///
    /// # Errors
    /// They contradict each other; the message says how.
    pub fn check(&self) -> anyhow::Result<()> {
        anyhow::ensure!(
            self.keep > self.wait_for_address,
            "--keep must be longer than --wait-for-address: what waits would be erased"
        );
        Ok(())
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
        Config::try_parse_from(["notifications"]).unwrap().check().unwrap();
    }

    #[test]
    fn a_place_for_mails_that_is_none_is_refused() {
        for url in ["mail", "smtp://localhost", "file://"] {
            let parsed = Config::try_parse_from(["notifications", "--mail-url", url]);
            assert!(parsed.unwrap_err().to_string().contains("file://"), "{url}");
        }
        let from = ["notifications", "--mail-from", "Shop <a@b.example>\r\nBcc: c@d.example"];
        assert!(Config::try_parse_from(from).is_err());
        let keep = ["notifications", "--keep", "1h", "--wait-for-address", "2h"];
        assert!(Config::try_parse_from(keep).unwrap().check().is_err());
    }
}
