//! The way to a connection: address, TCP, TLS.

use std::{io, net::SocketAddr, time::Duration};

use http::uri::Scheme;
use tokio::net::{TcpStream, lookup_host};

use super::http2::{Connected, handshake};
use crate::{registry::Address, tls};

/// What connections are like.
#[derive(Clone, Debug)]
pub(super) struct Settings {
    /// How long one may take to open: address, TCP, TLS, HTTP/2 up to the peer's settings.
    pub(super) timeout: Duration,
    /// HTTP/2 pings: how often where nothing is heard, and how long for the answer.
    pub(super) keepalive: (Duration, Duration),
    /// Flow control windows: of a stream, of the connection, in bytes.
    pub(super) windows: (u32, u32),
    pub(super) network: Network,
}

/// What connections run over.
#[derive(Clone, Debug, Default)]
pub(crate) enum Network {
    /// TCP that nothing encrypts, to this machine alone.
    #[default]
    Loopback,
    /// The same to wherever the callee is: somebody said that it may be heard there.
    Plaintext,
    /// TCP, and TLS over it.
    Tls(tls::Connector),
    /// Pipes, to hosts that a test plays: there time can be paused.
    #[cfg(test)]
    Memory(Hosts),
}

/// Who accepts pipes, by name.
#[cfg(test)]
pub(crate) type Hosts = std::sync::Arc<
    std::sync::Mutex<
        std::collections::HashMap<
            String,
            tokio::sync::mpsc::UnboundedSender<tokio::io::DuplexStream>,
        >,
    >,
>;

/// There is no connection.
#[derive(Debug, thiserror::Error)]
pub(super) enum Error {
    /// It took too long.
    #[error("no connection after {0:?}")]
    Late(Duration),
    /// What is said would be heard beyond this machine.
    #[error(
        "{0} is not loopback, and what is said to it is not encrypted: --tls-ca calls it over TLS, \
         --allow-plaintext allows it"
    )]
    Exposed(SocketAddr),
    /// The network said no.
    #[error("cannot connect: {0}")]
    Network(#[from] io::Error),
    /// What answered does not speak HTTP/2, or ended it.
    #[error("no HTTP/2: {0}")]
    Http(#[from] h2::Error),
    /// It was pinged, and nothing came.
    #[error("the peer does not answer")]
    Silent,
    /// It hung up before it said anything.
    #[error("the peer hung up")]
    HungUp,
    /// It broke off after TLS was there, as one does that was shown no certificate.
    #[error("{0}; if it asks for a certificate, {1}cert and {1}key name ours")]
    BrokeOff(Box<Error>, &'static str),
}

// === impl Network ===

impl Network {
    /// What requests that go over it say of it.
    pub(super) fn scheme(&self) -> Scheme {
        match self {
            Self::Loopback | Self::Plaintext => Scheme::HTTP,
            Self::Tls(_) => Scheme::HTTPS,
            #[cfg(test)]
            Self::Memory(_) => Scheme::HTTP,
        }
    }
}

// === impl Settings ===

impl Settings {
    /// The window of the connection, in bytes.
    pub(super) fn window(&self) -> usize {
        usize::try_from(self.windows.1).unwrap_or(usize::MAX)
    }
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            timeout: Duration::from_secs(1),
            keepalive: (Duration::from_secs(10), Duration::from_secs(3)),
            windows: (2 << 20, 5 << 20),
            network: Network::default(),
        }
    }
}

/// Connects to `address`.
pub(super) async fn dial(address: &Address, settings: &Settings) -> Result<Connected, Error> {
    // Boxed, since the shaking of hands in it is large, and every call could come to it.
    let dialled = Box::pin(async {
        match &settings.network {
            Network::Loopback => {
                let near = near(resolved(address).await?)?;
                handshake(tcp(&near).await?, settings).await
            }
            Network::Plaintext => handshake(tcp(&resolved(address).await?).await?, settings).await,
            Network::Tls(connector) => {
                let stream = tcp(&resolved(address).await?).await?;
                let stream = connector.connect(address.bare(), stream).await?;
                // Whether it takes our certificate, a server says only after our last word.
                let files = connector.files();
                handshake(stream, settings).await.map_err(|error| match files.distrust(&error) {
                    Some(why) => Error::Network(io::Error::other(why)),
                    None if files.cert.is_none() => Error::BrokeOff(Box::new(error), files.flags),
                    None => error,
                })
            }
            #[cfg(test)]
            Network::Memory(hosts) => {
                let (ours, theirs) = tokio::io::duplex(64 << 10);
                let host = hosts.lock().unwrap().get(&address.host).cloned();
                let accepted = host.is_some_and(|host| host.send(theirs).is_ok());
                if !accepted {
                    return Err(io::Error::from(io::ErrorKind::ConnectionRefused).into());
                }
                handshake(ours, settings).await
            }
        }
    });
    match tokio::time::timeout(settings.timeout, dialled).await {
        Ok(dialled) => dialled,
        Err(_elapsed) => Err(Error::Late(settings.timeout)),
    }
}

async fn resolved(address: &Address) -> io::Result<Vec<SocketAddr>> {
    Ok(lookup_host((address.bare(), address.port)).await?.collect())
}

/// The addresses of a callee, if all of them are on this machine.
fn near(addresses: Vec<SocketAddr>) -> Result<Vec<SocketAddr>, Error> {
    match addresses.iter().find(|address| !address.ip().to_canonical().is_loopback()) {
        Some(far) => Err(Error::Exposed(*far)),
        None => Ok(addresses),
    }
}

async fn tcp(addresses: &[SocketAddr]) -> io::Result<TcpStream> {
    let stream = TcpStream::connect(addresses).await?;
    stream.set_nodelay(true)?;
    Ok(stream)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn nothing_is_said_in_plaintext_beyond_this_machine_unless_somebody_allowed_it() {
        let settings = Settings::default();
        // Addresses of RFC 5737 and RFC 3849: nobody is there.
        for far in ["192.0.2.1:4317", "[2001:db8::1]:4317"] {
            let refused = dial(&far.parse().unwrap(), &settings).await.err().unwrap();
            assert!(matches!(refused, Error::Exposed(_)), "{refused}");
            assert!(refused.to_string().contains("--allow-plaintext"), "{refused}");
        }
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        for near in ["127.0.0.1", "localhost"] {
            let address = Address { host: near.to_owned(), port };
            let broke = tokio::select! {
                broke = dial(&address, &settings) => broke.err().unwrap(),
                // It hangs up on each, so that the one above ends.
                () = async { while listener.accept().await.is_ok() {} } => unreachable!(),
            };
            assert!(!matches!(broke, Error::Exposed(_)), "{near}: {broke}");
        }
        let mapped = "[::ffff:127.0.0.1]:1".parse().unwrap();
        assert!(near(vec![mapped]).is_ok(), "the same in the notation of IPv6");
    }
}
