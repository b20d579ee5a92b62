//! How tools call the processes of a mesh: over TLS if they know whom to trust, else in plaintext,
//! which stays on this machine unless it is allowed to leave it.

use super::Channel;
use crate::{
    registry::{Address, Malformed, Options, Registry},
    tls::{Connector, Files},
};

/// What a tool was told of the way to a mesh.
#[derive(Debug)]
pub struct Tool {
    connector: Option<Connector>,
    options: Options,
}

/// What is said to a process would be heard beyond this machine.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "{name} at {address} is not loopback, and what is said to it is not encrypted: --ca FILE calls \
     it over TLS, --allow-plaintext allows it"
)]
pub struct Exposed {
    name: String,
    address: Address,
}

// === impl Tool ===

impl Tool {
    /// One that trusts who is named in `files`, if anybody is.
    ///
    /// # Errors
    /// A file cannot be used.
    pub fn new(files: Files, allow_plaintext: bool) -> anyhow::Result<Self> {
        let trusts = files.ca.is_some();
        let connector = trusts.then(|| Connector::new(files.clone())).transpose()?;
        let options = Options { allow_plaintext, tls: Some(files), ..Options::from_env() };
        Ok(Self { connector, options })
    }

    /// The registry at a URL, trusted by the same.
    ///
    /// # Errors
    /// The URL cannot be used.
    pub fn registry(&self, url: &str) -> Result<Registry, Malformed> {
        Registry::open(url, &self.options)
    }

    /// A callee at these addresses.
    ///
    /// # Errors
    /// One of them is on another machine, and nothing encrypts what is said to it.
    pub fn channel(&self, name: &str, addresses: &[Address]) -> Result<Channel, Exposed> {
        if let Some(connector) = &self.connector {
            return Ok(Channel::over_tls(name, addresses, connector.clone()));
        }
        let far = addresses.iter().find(|address| !address.is_loopback());
        match far.filter(|_| !self.options.allow_plaintext) {
            Some(far) => Err(Exposed { name: name.to_owned(), address: far.clone() }),
            None => Ok(Channel::to(name, addresses)),
        }
    }
}
