//! What the process is told.

use std::time::Duration;

use crate::saga::Patience;

/// Every setting is a flag and an environment variable; the flag wins. There is no
/// configuration file.
#[derive(Clone, Debug, clap::Parser)]
#[command(version, about, mut_args = mesh::config::serves_on(50_054))]
pub struct Config {
    /// What every process of the mesh is told.
    #[command(flatten)]
    pub mesh: mesh::Config,

    /// Where orders are kept: `sqlite://` or `postgres://`. May hold a password: never printed.
    #[arg(
        long,
        env = "ORDERS_DATABASE_URL",
        hide_env_values = true,
        default_value = "sqlite://target/ordermesh/orders.db"
    )]
    pub database_url: String,

    /// How long an order may take to be confirmed before it is given up.
    #[arg(
        long,
        env = "ORDERS_CONFIRM_TIMEOUT",
        default_value = "15m",
        value_parser = mesh::config::duration
    )]
    pub confirm_timeout: Duration,

    /// How long an order waits for its customer before it expires.
    #[arg(
        long,
        env = "ORDERS_ACTION_TIMEOUT",
        default_value = "15m",
        value_parser = mesh::config::duration
    )]
    pub action_timeout: Duration,

    /// How long a price that was read counts as what something costs; older ones are read again
    /// before an order is confirmed.
    #[arg(
        long,
        env = "ORDERS_PRICE_AGE_MAX",
        default_value = "5s",
        value_parser = mesh::config::duration
    )]
    pub price_age_max: Duration,

    /// How long placing an order waits for users to say whether its customer may order; the saga
    /// asks again.
    #[arg(
        long,
        env = "ORDERS_CUSTOMER_ADVICE_TIMEOUT",
        default_value = "1s",
        value_parser = mesh::config::duration
    )]
    pub customer_advice_timeout: Duration,

    /// How long placing an order waits for inventory to say what there is; the reservation
    /// decides.
    #[arg(
        long,
        env = "ORDERS_STOCK_ADVICE_TIMEOUT",
        default_value = "50ms",
        value_parser = mesh::config::duration
    )]
    pub stock_advice_timeout: Duration,

    /// How long an answer waits for what users, payments or shipping know of an order; then it is
    /// given without.
    #[arg(
        long,
        env = "ORDERS_DETAIL_TIMEOUT",
        default_value = "250ms",
        value_parser = mesh::config::duration
    )]
    pub detail_timeout: Duration,

    /// How long a quote is honoured.
    #[arg(
        long,
        env = "ORDERS_QUOTE_AGE_MAX",
        default_value = "15m",
        value_parser = mesh::config::duration
    )]
    pub quote_age_max: Duration,

    /// How soon shipping is asked how far an order's parcels are, if it says nothing by itself;
    /// the next times ever later.
    #[arg(
        long,
        env = "ORDERS_DELIVERY_LOOK_AFTER",
        default_value = "5s",
        value_parser = mesh::config::duration
    )]
    pub delivery_look_after: Duration,

    /// How long the orders of a process that died wait for another one to carry them on.
    #[arg(
        long,
        env = "ORDERS_SAGA_LEASE",
        default_value = "30s",
        value_parser = mesh::config::duration
    )]
    pub saga_lease: Duration,
}

// === impl Config ===

impl Config {
    /// How long things may take.
    #[must_use]
    pub fn patience(&self) -> Patience {
        Patience {
            confirm: self.confirm_timeout,
            action: self.action_timeout,
            price_fresh: self.price_age_max,
            customer_advice: self.customer_advice_timeout,
            stock_advice: self.stock_advice_timeout,
            detail: self.detail_timeout,
            delivery_look: self.delivery_look_after,
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
    fn an_order_has_a_quarter_of_an_hour_unless_told_otherwise() {
        let config = Config::try_parse_from(["orders"]).expect("defaults suffice");
        let quarter = Duration::from_secs(900);
        assert_eq!((config.patience().confirm, config.patience().action), (quarter, quarter));
        assert_eq!(config.quote_age_max, quarter);
    }

    #[test]
    fn an_answer_waits_a_quarter_of_a_second_for_what_others_know() {
        let config = Config::try_parse_from(["orders"]).expect("defaults suffice");
        assert_eq!(config.patience().detail, Duration::from_millis(250));
    }
}
