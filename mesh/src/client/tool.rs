//! How tools call the processes of a mesh: over TLS if they know whom to trust, else in plaintext,
//! which stays on this machine unless it is allowed to leave it.

use std::path::PathBuf;

use super::{Channel, Network};
use crate::{
    registry::{Address, Malformed, Options, Registry},
    tls::{Connector, Files, Flags},
};

/// What a tool is told of whom to trust, and of what to show.
#[derive(Clone, Debug, Default, clap::Args)]
pub struct Trust {
    /// File with the certificates that the services' must be issued by, as PEM: they are called
    /// over TLS then, and a registry `consul+tls://host:port` is trusted by the same.
    #[arg(long, global = true)]
    pub ca: Option<PathBuf>,

    /// File with the certificate that is shown to them, as PEM.
    #[arg(long, global = true, requires_all = ["ca", "key"])]
    pub cert: Option<PathBuf>,

    /// File with its private key, as PEM.
    #[arg(long, global = true, requires = "cert")]
    pub key: Option<PathBuf>,

    /// Allows plaintext beyond loopback: to the registry, and to the services where there is no `--ca`.
    #[arg(long, global = true)]
    pub allow_plaintext: bool,
}

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

// === impl Trust ===

impl Trust {
    /// Gives the flags the variables of the tool whose variables begin with `prefix`: `MESHCTL_CA`
    /// and so on.
    pub fn variables(prefix: &'static str) -> impl FnMut(clap::Arg) -> clap::Arg {
        move |arg| match arg.get_id().as_str() {
            id @ ("ca" | "cert" | "key" | "allow_plaintext") => {
                let variable = format!("{prefix}_{}", id.to_uppercase());
                arg.env(variable)
            }
            _ => arg,
        }
    }
}

// === impl Tool ===

impl Tool {
    /// One that trusts who is named there, if anybody is.
    ///
    /// # Errors
    /// A file cannot be used.
    pub fn new(trust: Trust) -> anyhow::Result<Self> {
        let Trust { ca, cert, key, allow_plaintext } = trust;
        let trusts = ca.is_some();
        let files = Files { ca, cert, key, ..Files::none(Flags::Tool) };
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
        if self.options.allow_plaintext {
            return Ok(Channel::at(name, addresses, Network::Plaintext));
        }
        match addresses.iter().find(|address| !address.is_loopback()) {
            Some(far) => Err(Exposed { name: name.to_owned(), address: far.clone() }),
            None => Ok(Channel::to(name, addresses)),
        }
    }
}
