//! What the gateway is told.

use std::time::Duration;

use crate::{
    edge::{client_ip::Network, cors::Origin, rate_limit::Rule},
    upstream::Pattern,
};

/// Every setting is a flag and an environment variable; the flag wins. There is no
/// configuration file.
#[derive(Clone, Debug, clap::Parser)]
#[command(
    name = "gateway",
    version,
    about = "HTTP/JSON outside, gRPC inside.",
    mut_args = mesh::config::serves_on(8_080)
)]
pub struct Config {
    /// What every process of the mesh is told.
    #[command(flatten)]
    pub mesh: mesh::Config,

    /// Who serves which services, as `services=target`: `{name}` stands for one word, `*` at
    /// the end for the rest. A target is a name of the registry, or an address with a scheme.
    /// The longest pattern wins.
    #[arg(
        long = "upstream",
        env = "GATEWAY_UPSTREAM",
        value_delimiter = ',',
        default_value = "ordermesh.{name}.*={name}"
    )]
    pub upstreams: Vec<Pattern>,

    /// How often one address may call without a valid token, as `path=count/time` or
    /// `path=off`: `*` at the end stands for the rest, the longest pattern counts. One path
    /// counts under one rule.
    #[arg(
        long = "rate-limit",
        env = "GATEWAY_RATE_LIMIT",
        value_delimiter = ',',
        default_values = ["/v1/*=100/15m", "/v1/tokens:*=60/15m"]
    )]
    pub rate_limits: Vec<Rule>,

    /// How many connections one address (of IPv6, one /64) may have open at once; 0 is any number.
    /// Those of loopback and of `--trusted-proxy` are not counted: they are of many clients.
    #[arg(
        long = "connections-per-client",
        env = "GATEWAY_CONNECTIONS_PER_CLIENT",
        default_value_t = 256
    )]
    pub connections_per_client: usize,

    /// Networks of proxies whose `Forwarded` and `X-Forwarded-For` are believed.
    #[arg(long = "trusted-proxy", env = "GATEWAY_TRUSTED_PROXY", value_delimiter = ',')]
    pub trusted_proxies: Vec<Network>,

    /// Sites whose pages may read replies, such as `https://shop.example`. None by default.
    #[arg(long = "cors-origin", env = "GATEWAY_CORS_ORIGIN", value_delimiter = ',')]
    pub cors_origins: Vec<Origin>,

    /// How long a call may take whose client names no time.
    #[arg(
        long = "default-timeout",
        env = "GATEWAY_DEFAULT_TIMEOUT",
        default_value = "10s",
        value_parser = mesh::config::duration
    )]
    pub default_timeout: Duration,

    /// The longest time that a client may name.
    #[arg(
        long = "max-timeout",
        env = "GATEWAY_MAX_TIMEOUT",
        default_value = "60s",
        value_parser = mesh::config::duration
    )]
    pub max_timeout: Duration,

    /// How long a stream may last; its client then begins it again.
    #[arg(
        long = "max-stream-age",
        env = "GATEWAY_MAX_STREAM_AGE",
        default_value = "30m",
        value_parser = mesh::config::duration
    )]
    pub max_stream_age: Duration,

    /// Query parameters that are no field of a request and no error either.
    #[arg(
        long = "ignore-parameter",
        env = "GATEWAY_IGNORE_PARAMETER",
        value_delimiter = ',',
        default_values = ["$alt", "key", "fields", "prettyPrint"]
    )]
    pub ignored_parameters: Vec<String>,
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
    fn every_setting_is_well_formed() {
        Config::command().debug_assert();
    }

    #[test]
    fn a_setting_that_is_wrong_or_unknown_stops_the_start() {
        for wrong in [
            &["--upstream", "x"][..],
            &["--upstream", "a=b{name}"],
            &["--rate-limit", "/v1"],
            &["--trusted-proxy", "10.0.0.0/64"],
            &["--cors-origin", "*"],
            &["--max-timeout", "60"],
            &["--max-stream-age", "never"],
            &["--no-such-setting"],
        ] {
            let args = ["gateway"].iter().chain(wrong);
            assert!(Config::try_parse_from(args).is_err(), "{wrong:?}");
        }
    }

    #[test]
    fn anonymous_callers_have_a_hundred_calls_in_fifteen_minutes_and_sign_in_has_its_own() {
        let config = Config::try_parse_from(["gateway"]).expect("the defaults");
        let rules: Vec<_> = config
            .rate_limits
            .iter()
            .map(|rule| (rule.pattern.as_str(), rule.quota.map(|q| (q.limit, q.window.as_secs()))))
            .collect();
        assert_eq!(rules, [("/v1/*", Some((100, 900))), ("/v1/tokens:*", Some((60, 900)))]);
    }
}
