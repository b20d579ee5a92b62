//! TLS on both ends of a call: rustls, HTTP/2 by ALPN, files that may change while we run.

use std::{
    io,
    path::{Path, PathBuf},
    sync::Arc,
    time::{Duration, SystemTime},
};

use anyhow::Context as _;
use arc_swap::ArcSwap;
use rustls::{
    ClientConfig, RootCertStore, ServerConfig,
    crypto::aws_lc_rs,
    pki_types::{CertificateDer, PrivateKeyDer, ServerName, pem::PemObject as _},
    server::WebPkiClientVerifier,
};
use tokio::{io::AsyncRead, io::AsyncWrite, net::TcpStream};
use tokio_rustls::{TlsAcceptor, TlsConnector};

use crate::{app::Draining, config::duration, server::Wire};

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
    #[arg(long = "tls-reload", env = "MESH_TLS_RELOAD", default_value = "5s", value_parser = duration)]
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
pub struct Connector(Arc<Watched<ClientConfig>>);

/// How TLS is served: on a port of gRPC, and at the edge.
#[derive(Debug)]
struct Served {
    grpc: Arc<ServerConfig>,
    edge: Arc<ServerConfig>,
}

/// What was made of files, and is made anew when they change.
#[derive(Debug)]
struct Watched<C> {
    settings: Settings,
    make: fn(&Settings) -> anyhow::Result<C>,
    current: ArcSwap<C>,
    /// When the files were changed, as far as was read.
    read: ArcSwap<Stamps>,
}

/// Of each file when it was changed, and how long it is.
type Stamps = Vec<Option<(SystemTime, u64)>>;

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
    fn stamps(&self) -> Stamps {
        let files = [&self.tls_cert, &self.tls_key, &self.tls_ca];
        let stamp = |path: &PathBuf| {
            let file = std::fs::metadata(path).ok()?;
            Some((file.modified().ok()?, file.len()))
        };
        files.into_iter().map(|path| path.as_ref().and_then(stamp)).collect()
    }

    fn identity(
        &self,
    ) -> anyhow::Result<Option<(Vec<CertificateDer<'static>>, PrivateKeyDer<'static>)>> {
        let (Some(cert), Some(key)) = (&self.tls_cert, &self.tls_key) else { return Ok(None) };
        let chain = certificates(cert)?;
        let key = PrivateKeyDer::from_pem_file(key)
            .with_context(|| format!("cannot read a private key from {}", key.display()))?;
        Ok(Some((chain, key)))
    }

    fn roots(&self) -> anyhow::Result<RootCertStore> {
        let path = self.tls_ca.as_ref().context("--tls-ca is missing: whom to trust")?;
        let mut roots = RootCertStore::empty();
        for root in certificates(path)? {
            roots
                .add(root)
                .with_context(|| format!("{} is no CA's certificate", path.display()))?;
        }
        Ok(roots)
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
        Ok(Some(Self(Arc::new(Watched::new(settings, server_config)?))))
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
    pub(crate) async fn keep(self, draining: Draining) {
        self.0.keep(draining).await;
    }
}

// === impl Connector ===

impl Connector {
    /// Reads the files that `settings` names: whom to trust, and what to show if asked.
    ///
    /// # Errors
    /// `--tls-ca` is missing, a file cannot be read, or the key is not that of the certificate.
    pub fn new(settings: &Settings) -> anyhow::Result<Self> {
        Ok(Self(Arc::new(Watched::new(settings, client_config)?)))
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
        let host = ServerName::try_from(host.to_owned())
            .map_err(|error| io::Error::new(io::ErrorKind::InvalidInput, error))?;
        let connector = TlsConnector::from(self.0.current.load_full());
        let stream = connector.connect(host, stream).await?;
        if stream.get_ref().1.alpn_protocol() != Some(H2) {
            let error = "the server does not speak HTTP/2 over TLS (ALPN h2)";
            return Err(io::Error::new(io::ErrorKind::Unsupported, error));
        }
        Ok(stream)
    }

    /// Looks at the files again and again until the process leaves.
    pub async fn keep(self, draining: Draining) {
        self.0.keep(draining).await;
    }
}

// === impl Watched ===

impl<C> Watched<C> {
    fn new(settings: &Settings, make: fn(&Settings) -> anyhow::Result<C>) -> anyhow::Result<Self> {
        // Before the files: what is written in between is read once more.
        let read = settings.stamps();
        let current = ArcSwap::from_pointee(make(settings)?);
        Ok(Self { settings: settings.clone(), make, current, read: ArcSwap::from_pointee(read) })
    }

    /// Reads the files if they have changed. What cannot be read leaves what was good: half of a
    /// change may be seen, and the other half comes.
    fn reload(&self) {
        let found = self.settings.stamps();
        if **self.read.load() == found {
            return;
        }
        match (self.make)(&self.settings) {
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

    async fn keep(&self, draining: Draining) {
        loop {
            tokio::select! {
                () = draining.begun() => return,
                () = tokio::time::sleep(self.settings.tls_reload) => self.reload(),
            }
        }
    }
}

/// How calls are made: for connect code of one's own. [`Connector`] keeps it up to date.
///
/// # Errors
/// As [`Connector::new`].
pub fn client_config(settings: &Settings) -> anyhow::Result<ClientConfig> {
    let builder = ClientConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
        .with_safe_default_protocol_versions()?
        .with_root_certificates(settings.roots()?);
    let mut config = match settings.identity()? {
        Some((chain, key)) => builder.with_client_auth_cert(chain, key).context(MISMATCH)?,
        None => builder.with_no_client_auth(),
    };
    config.alpn_protocols = vec![H2.to_vec()];
    Ok(config)
}

const MISMATCH: &str = "--tls-key is not the key of --tls-cert";

fn server_config(settings: &Settings) -> anyhow::Result<Served> {
    let provider = Arc::new(aws_lc_rs::default_provider());
    let builder = ServerConfig::builder_with_provider(Arc::clone(&provider))
        .with_safe_default_protocol_versions()?;
    let verifier = |optional: bool| {
        let roots = Arc::new(settings.roots()?);
        let builder = WebPkiClientVerifier::builder_with_provider(roots, provider);
        let builder = if optional { builder.allow_unauthenticated() } else { builder };
        builder.build().context("--tls-ca cannot verify clients")
    };
    let builder = match settings.client_auth {
        ClientAuth::None => builder.with_no_client_auth(),
        ClientAuth::Optional => builder.with_client_cert_verifier(verifier(true)?),
        ClientAuth::Required => builder.with_client_cert_verifier(verifier(false)?),
    };
    let (chain, key) = settings.identity()?.context("--tls-cert and --tls-key go together")?;
    let mut grpc = builder.with_single_cert(chain, key).context(MISMATCH)?;
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

fn certificates(path: &Path) -> anyhow::Result<Vec<CertificateDer<'static>>> {
    let read = || format!("cannot read certificates from {}", path.display());
    let all = CertificateDer::pem_file_iter(path).with_context(read)?;
    let all = all.collect::<Result<Vec<_>, _>>().with_context(read)?;
    anyhow::ensure!(!all.is_empty(), "{} holds no certificate", path.display());
    Ok(all)
}
