//! TLS on both ends of a call: rustls, HTTP/2 by ALPN, files that may change while we run.

use std::{io, path::PathBuf, sync::Arc, time::Duration};

use anyhow::Context as _;
use arc_swap::ArcSwap;
use rustls::{
    ClientConfig, ServerConfig,
    crypto::aws_lc_rs,
    pki_types::{CertificateDer, ServerName},
    server::WebPkiClientVerifier,
};
use tokio::{io::AsyncRead, io::AsyncWrite, net::TcpStream};
use tokio_rustls::{TlsAcceptor, TlsConnector};

use crate::{app::Draining, config::period, server::Wire};

mod files;

use files::Stamps;
pub(crate) use files::untrusted;
pub use files::{Files, Flags};

/// HTTP/2, and what the edge speaks beside it.
const H2: &[u8] = b"h2";
const HTTP1: &[u8] = b"http/1.1";

/// Where certificates are, and whether clients show theirs. Flags of every process.
#[derive(Clone, Debug, clap::Args)]
// Two flattened groups of one name make clap panic at start.
#[group(skip)]
pub struct Settings {
    /// File with this process's certificate and those it was issued by, as PEM. With it, calls are
    /// served over TLS, and shown to whom we call. Read again when it changes.
    #[arg(long = "tls-cert", env = "MESH_TLS_CERT", requires = "tls_key")]
    pub tls_cert: Option<PathBuf>,

    /// File with the private key of `--tls-cert`, as PEM.
    #[arg(long = "tls-key", env = "MESH_TLS_KEY", requires = "tls_cert")]
    pub tls_key: Option<PathBuf>,

    /// File with the certificates that others' certificates must be issued by, as PEM. With it,
    /// callees are called over TLS by the host under which the registry has them; `--client-auth`
    /// needs it, too.
    #[arg(long = "tls-ca", env = "MESH_TLS_CA")]
    pub tls_ca: Option<PathBuf>,

    /// Whether who calls must show a certificate.
    #[arg(
        long = "client-auth",
        env = "MESH_CLIENT_AUTH",
        value_enum,
        default_value = "none",
        requires_ifs = [("optional", "tls_ca"), ("required", "tls_ca")]
    )]
    pub client_auth: ClientAuth,

    /// How often the files are looked at for changes.
    #[arg(long = "tls-reload", env = "MESH_TLS_RELOAD", default_value = "5s", value_parser = period)]
    pub tls_reload: Duration,
}

/// Whether who calls shows a certificate.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum ClientAuth {
    /// It is not asked for.
    #[default]
    None,
    /// One that is shown must be good.
    Optional,
    /// Without a good one nobody is served.
    Required,
}

/// Serves TLS. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Acceptor(Arc<Watched<Served>>);

/// Calls over TLS. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Connector {
    watched: Arc<Watched<ClientConfig>>,
    /// Whom servers have to be, in place of the host that they were reached by.
    name: Option<Arc<str>>,
}

/// How TLS is served: on a port of gRPC, and at the edge.
#[derive(Debug)]
struct Served {
    grpc: Arc<ServerConfig>,
    edge: Arc<ServerConfig>,
}

/// What was made of files, and is made anew when they change.
#[derive(Debug)]
struct Watched<C> {
    files: Files,
    client_auth: ClientAuth,
    make: fn(&Files, ClientAuth) -> anyhow::Result<C>,
    current: ArcSwap<C>,
    /// When the files were changed, as far as was read.
    read: ArcSwap<Stamps>,
}

// === impl Settings ===

impl Default for Settings {
    fn default() -> Self {
        Self {
            tls_cert: None,
            tls_key: None,
            tls_ca: None,
            client_auth: ClientAuth::None,
            tls_reload: Duration::from_secs(5),
        }
    }
}

impl Settings {
    /// The files that they name.
    #[must_use]
    pub fn files(&self) -> Files {
        let Self { tls_cert: cert, tls_key: key, tls_ca: ca, .. } = self.clone();
        Files { ca, cert, key, ..Files::none(Flags::Tls) }
    }

    /// The files for one callee, where `own` names any: whom we trust and who we are does not
    /// depend on whom we speak to, unless we are told so.
    pub(crate) fn files_or(&self, own: Files) -> Files {
        let named = own.ca.is_some() || own.cert.is_some();
        if named || self.tls_ca.is_none() { own } else { self.files() }
    }
}

// === impl Acceptor ===

impl Acceptor {
    /// Reads the files that `settings` names; `None` if it names no certificate: plaintext.
    ///
    /// # Errors
    /// A file cannot be read, or the key is not that of the certificate.
    pub fn new(settings: &Settings) -> anyhow::Result<Option<Self>> {
        if settings.tls_cert.is_none() {
            return Ok(None);
        }
        let watched = Watched::new(settings.files(), settings.client_auth, server_config)?;
        Ok(Some(Self(Arc::new(watched))))
    }

    /// Shakes hands; says what certificate the client has shown.
    pub(crate) async fn accept<I>(
        &self,
        io: I,
        wire: Wire,
    ) -> io::Result<(tokio_rustls::server::TlsStream<I>, Option<CertificateDer<'static>>)>
    where
        I: AsyncRead + AsyncWrite + Unpin,
    {
        let config = match wire {
            Wire::Http2 => Arc::clone(&self.0.current.load().grpc),
            Wire::Http => Arc::clone(&self.0.current.load().edge),
        };
        let stream = TlsAcceptor::from(config).accept(io).await?;
        let shown = stream.get_ref().1.peer_certificates().and_then(<[_]>::first);
        let shown = shown.cloned().map(CertificateDer::into_owned);
        Ok((stream, shown))
    }

    /// Looks at the files again and again until the process leaves.
    pub(crate) async fn keep(self, every: Duration, draining: Draining) {
        self.0.keep(every, draining).await;
    }
}

// === impl Connector ===

impl Connector {
    /// Reads these files: whom to trust, and what to show if asked.
    ///
    /// # Errors
    /// That with whom to trust is missing, one cannot be read, or the key is not that of the
    /// certificate.
    pub fn new(files: Files) -> anyhow::Result<Self> {
        Self::made(files, grpc_client)
    }

    /// The same for servers of HTTP/1.1.
    pub(crate) fn http(files: Files) -> anyhow::Result<Self> {
        Self::made(files, http_client)
    }

    fn made(
        files: Files,
        make: fn(&Files, ClientAuth) -> anyhow::Result<ClientConfig>,
    ) -> anyhow::Result<Self> {
        let watched = Arc::new(Watched::new(files, ClientAuth::None, make)?);
        Ok(Self { watched, name: None })
    }

    /// The same for servers whose certificates are good for `name`, by whatever host they are
    /// reached.
    #[must_use]
    pub fn named(self, name: &str) -> Self {
        Self { name: Some(name.into()), ..self }
    }

    /// The files it was made of.
    pub(crate) fn files(&self) -> &Files {
        &self.watched.files
    }

    /// Shakes hands with `host`, a name or an IP address (without brackets) that its certificate
    /// must be for. Bound it with a timeout, together with the connect before it.
    ///
    /// # Errors
    /// The certificate is not good for `host`, the server does not speak HTTP/2, or the connection
    /// broke.
    pub async fn connect(
        &self,
        host: &str,
        stream: TcpStream,
    ) -> io::Result<tokio_rustls::client::TlsStream<TcpStream>> {
        let stream = self.shake(host, stream).await?;
        if stream.get_ref().1.alpn_protocol() != Some(H2) {
            let error = "the server does not speak HTTP/2 over TLS (ALPN h2)";
            return Err(io::Error::new(io::ErrorKind::Unsupported, error));
        }
        Ok(stream)
    }

    /// The same, whatever is spoken over it.
    pub(crate) async fn shake(
        &self,
        host: &str,
        stream: TcpStream,
    ) -> io::Result<tokio_rustls::client::TlsStream<TcpStream>> {
        let host = self.name.as_deref().unwrap_or(host).to_owned();
        let host = ServerName::try_from(host)
            .map_err(|error| io::Error::new(io::ErrorKind::InvalidInput, error))?;
        let connector = TlsConnector::from(self.watched.current.load_full());
        connector.connect(host, stream).await.map_err(|error| match self.files().distrust(&error) {
            Some(untrusted) => io::Error::new(io::ErrorKind::InvalidData, untrusted),
            None => error,
        })
    }

    /// Reads the files if they have changed: for those who connect seldom.
    pub(crate) fn reload(&self) {
        self.watched.reload();
    }

    /// Looks at the files again and again until the process leaves.
    pub(crate) async fn keep(self, every: Duration, draining: Draining) {
        self.watched.keep(every, draining).await;
    }
}

// === impl Watched ===

impl<C> Watched<C> {
    fn new(
        files: Files,
        client_auth: ClientAuth,
        make: fn(&Files, ClientAuth) -> anyhow::Result<C>,
    ) -> anyhow::Result<Self> {
        // Before the files: what is written in between is read once more.
        let read = ArcSwap::from_pointee(files.stamps());
        let current = ArcSwap::from_pointee(make(&files, client_auth)?);
        Ok(Self { files, client_auth, make, current, read })
    }

    /// Reads the files if they have changed. What cannot be read leaves what was good: half of a
    /// change may be seen, and the other half comes.
    fn reload(&self) {
        let found = self.files.stamps();
        if **self.read.load() == found {
            return;
        }
        match (self.make)(&self.files, self.client_auth) {
            Ok(made) => {
                self.current.store(Arc::new(made));
                tracing::info!("certificates were read again");
            }
            Err(error) => {
                let error = format!("{error:#}");
                tracing::warn!(error, "changed certificates cannot be used; the old ones stay");
            }
        }
        self.read.store(Arc::new(found));
    }

    async fn keep(&self, every: Duration, draining: Draining) {
        loop {
            tokio::select! {
                () = draining.begun() => return,
                () = tokio::time::sleep(every) => self.reload(),
            }
        }
    }
}

fn grpc_client(files: &Files, _: ClientAuth) -> anyhow::Result<ClientConfig> {
    client_config(files, H2)
}

fn http_client(files: &Files, _: ClientAuth) -> anyhow::Result<ClientConfig> {
    client_config(files, HTTP1)
}

fn client_config(files: &Files, speaks: &[u8]) -> anyhow::Result<ClientConfig> {
    let builder = ClientConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
        .with_safe_default_protocol_versions()?
        .with_root_certificates(files.roots()?);
    let mut config = match files.identity()? {
        Some((chain, key)) => {
            builder.with_client_auth_cert(chain, key).with_context(|| files.mismatch())?
        }
        None => builder.with_no_client_auth(),
    };
    config.alpn_protocols = vec![speaks.to_vec()];
    Ok(config)
}

fn server_config(files: &Files, client_auth: ClientAuth) -> anyhow::Result<Served> {
    let provider = Arc::new(aws_lc_rs::default_provider());
    let builder = ServerConfig::builder_with_provider(Arc::clone(&provider))
        .with_safe_default_protocol_versions()?;
    let flags = files.flags;
    let verifier = |optional: bool| {
        let roots = Arc::new(files.roots()?);
        let builder = WebPkiClientVerifier::builder_with_provider(roots, provider);
        let builder = if optional { builder.allow_unauthenticated() } else { builder };
        builder.build().with_context(|| format!("{flags}ca cannot verify clients"))
    };
    let builder = match client_auth {
        ClientAuth::None => builder.with_no_client_auth(),
        ClientAuth::Optional => builder.with_client_cert_verifier(verifier(true)?),
        ClientAuth::Required => builder.with_client_cert_verifier(verifier(false)?),
    };
    let identity = files.identity()?;
    let (chain, key) = identity.with_context(|| format!("{flags}cert is missing"))?;
    let mut grpc = builder.with_single_cert(chain, key).with_context(|| files.mismatch())?;
    grpc.alpn_protocols = vec![H2.to_vec()];
    let mut edge = grpc.clone();
    edge.alpn_protocols.push(HTTP1.to_vec());
    Ok(Served { grpc: Arc::new(grpc), edge: Arc::new(edge) })
}

/// Whether a certificate that was found good is that of the service called `name`.
pub(crate) fn is_of(certificate: &CertificateDer<'_>, name: &str) -> bool {
    let Ok(name) = ServerName::try_from(name) else { return false };
    rustls::server::ParsedCertificate::try_from(certificate)
        .is_ok_and(|parsed| rustls::client::verify_server_name(&parsed, &name).is_ok())
}
