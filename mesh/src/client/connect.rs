//! The way to a connection: address, TCP, TLS.

use std::{io, time::Duration};

use http::uri::Scheme;
use tokio::net::TcpStream;

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
pub(super) enum Network {
    #[default]
    Tcp,
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
            Self::Tcp => Scheme::HTTP,
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
            Network::Tcp => handshake(tcp(address).await?, settings).await,
            Network::Tls(connector) => {
                let stream = tcp(address).await?;
                let stream = connector.connect(host(address), stream).await?;
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

async fn tcp(address: &Address) -> io::Result<TcpStream> {
    let stream = TcpStream::connect((host(address), address.port)).await?;
    stream.set_nodelay(true)?;
    Ok(stream)
}

/// An IP address of version 6 has brackets in a URL, and nowhere else.
fn host(address: &Address) -> &str {
    address.host.trim_start_matches('[').trim_end_matches(']')
}
