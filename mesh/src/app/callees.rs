//! Whom a process calls, and how.

use std::sync::{Arc, PoisonError};

use super::App;
use crate::{
    Channel, Policy,
    client::{Dependency, Network},
    config::setting,
    registry::{Address, Snapshot},
};

impl App {
    /// A callee: a name of the registry, `http://host:port`, or `https://host:port`. With
    /// `--tls-ca` those of the registry are called over TLS, too.
    #[must_use]
    pub fn channel(&self, name_or_url: &str) -> Channel {
        let mut channels = self.channels.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(channel) = channels.get(name_or_url) {
            return channel.clone();
        }
        let at = |address: &str| Snapshot::fixed(address.parse::<Address>().ok().as_slice());
        let plain = match self.config.allow_plaintext {
            true => Network::Plaintext,
            false => Network::Loopback,
        };
        let tls = self.connector.clone().map(Network::Tls);
        let (snapshots, network) = match (name_or_url.split_once("://"), tls) {
            (Some(("https", address)), Some(tls)) => (at(address), tls),
            (Some(("https", _)), None) => {
                tracing::error!(callee = name_or_url, "without --tls-ca nobody is called by https");
                (Snapshot::fixed(&[]), plain)
            }
            (Some((_, address)), _) => (at(address), plain),
            // Ready only once it has called itself, it is not yet known where others look.
            (None, tls) if name_or_url == self.name => {
                (Snapshot::fixed(&[self.own_address()]), tls.unwrap_or(plain))
            }
            (None, tls) => (self.registry.watch(name_or_url), tls.unwrap_or(plain)),
        };
        let nobody = |known: &Snapshot| known.fetched_at.is_some() && known.instances.is_empty();
        if nobody(&snapshots.borrow()) {
            tracing::warn!(callee = name_or_url, "{name_or_url} is not in the registry");
        }
        let (sign_in, methods) = (self.sign_in.clone(), Arc::clone(&self.methods));
        let listed = !name_or_url.contains("://") && name_or_url != self.name;
        let hurry = if listed { self.registry.hurry(name_or_url) } else { Arc::default() };
        let calls = Dependency::of(&self.config.dependencies, name_or_url);
        let channel = Channel::new(name_or_url, snapshots, sign_in, methods, network, calls, hurry)
            .recorded(&self.spans);
        channels.insert(name_or_url.to_owned(), channel.clone());
        channel
    }

    /// How `name`, who is outside of the mesh, is called: by `policy`, but for what `--dependency`
    /// says of it.
    ///
    /// # Errors
    /// Its `url` is `http://host:port` beyond loopback, and plaintext is not allowed there.
    pub fn outside(
        &mut self,
        name: &'static str,
        url: &str,
        policy: Policy,
    ) -> anyhow::Result<Policy> {
        setting(self.near(name, url))?;
        self.outside.push(name);
        Ok(Dependency::outside(&self.config.dependencies, name, policy))
    }

    /// Whether what is said at `url` is heard here alone, or may be heard elsewhere.
    fn near(&self, name: &str, url: &str) -> anyhow::Result<()> {
        let address = url.strip_prefix("http://").map(|rest| rest.trim_end_matches('/').parse());
        let Some(Ok::<Address, _>(address)) = address else {
            anyhow::bail!("{name} at `{url}`: no URL such as http://127.0.0.1:8080");
        };
        anyhow::ensure!(
            self.config.allow_plaintext || address.is_loopback(),
            "{name} at {url} is not loopback, and what is said to it is not encrypted; \
             --allow-plaintext allows it"
        );
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        config::{Bound, Config, Wrong},
        wire::DESCRIPTORS,
    };

    #[tokio::test]
    async fn who_is_outside_is_called_in_plaintext_on_this_machine_alone_unless_that_is_allowed() {
        let config = || Config::for_tests(Bound::free().unwrap(), "static://");
        let mut app = App::new("payments", DESCRIPTORS, config()).unwrap();
        for near in ["http://127.0.0.1:8080", "http://localhost:8080/"] {
            app.outside("provider", near, Policy::external()).unwrap();
        }
        for (far, why) in [
            ("http://192.0.2.1:8080", "--allow-plaintext"),
            ("192.0.2.1:8080", "no URL"),
            ("https://127.0.0.1:8080", "no URL"),
        ] {
            let refused = app.outside("provider", far, Policy::external()).unwrap_err();
            assert!(refused.to_string().contains(why), "{far}: {refused}");
            assert!(refused.is::<Wrong>(), "it ends with 2");
        }
        let config = Config { allow_plaintext: true, ..config() };
        let mut app = App::new("payments", DESCRIPTORS, config).unwrap();
        app.outside("provider", "http://192.0.2.1:8080", Policy::external()).unwrap();
    }
}
