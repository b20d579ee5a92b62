//! The files that certificates are read from, and what to do where two do not trust each other.

use std::{
    error::Error,
    io,
    path::{Path, PathBuf},
    time::SystemTime,
};

use anyhow::Context as _;
use rustls::{
    AlertDescription, CertificateError, RootCertStore,
    pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject as _},
};

/// Files with certificates: whom to trust, and what to show. All are PEM.
#[derive(Clone, Debug)]
pub struct Files {
    /// What others' certificates must be issued by.
    pub ca: Option<PathBuf>,
    /// The certificate that is shown, and those it was issued by.
    pub cert: Option<PathBuf>,
    /// Its private key.
    pub key: Option<PathBuf>,
    /// What the flags begin with that name these files, before `ca`, `cert` and `key`: errors say
    /// what to do. Only [`Files::none`] gives it.
    pub(crate) flags: &'static str,
}

/// The flags that name files.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Flags {
    /// Those of a process for all that it calls and is called by.
    Tls,
    /// Those for Consul.
    Consul,
    /// Those for the collector of spans.
    Otlp,
    /// Those of a tool.
    Tool,
}

/// There is no trust between us and a server.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub(crate) struct Untrusted(String);

/// Of each file when it was changed, and how long it is.
pub(super) type Stamps = Vec<Option<(SystemTime, u64)>>;

/// How a server says that it does not take our certificate, or misses one.
const REFUSES: [AlertDescription; 9] = [
    AlertDescription::AccessDenied,
    AlertDescription::BadCertificate,
    AlertDescription::CertificateExpired,
    AlertDescription::CertificateRequired,
    AlertDescription::CertificateRevoked,
    AlertDescription::CertificateUnknown,
    AlertDescription::HandshakeFailure,
    AlertDescription::UnknownCA,
    AlertDescription::UnsupportedCertificate,
];

// === impl Files ===

impl Files {
    /// None: these flags were not given.
    #[must_use]
    pub fn none(flags: Flags) -> Self {
        let flags = match flags {
            Flags::Tls => "--tls-",
            Flags::Consul => "--consul-",
            Flags::Otlp => "--otlp-",
            Flags::Tool => "--",
        };
        Self { ca: None, cert: None, key: None, flags }
    }

    pub(super) fn stamps(&self) -> Stamps {
        let files = [&self.cert, &self.key, &self.ca];
        let stamp = |path: &PathBuf| {
            let file = std::fs::metadata(path).ok()?;
            Some((file.modified().ok()?, file.len()))
        };
        files.into_iter().map(|path| path.as_ref().and_then(stamp)).collect()
    }

    pub(super) fn identity(
        &self,
    ) -> anyhow::Result<Option<(Vec<CertificateDer<'static>>, PrivateKeyDer<'static>)>> {
        let flags = self.flags;
        let (cert, key) = match (&self.cert, &self.key) {
            (Some(cert), Some(key)) => (cert, key),
            (None, None) => return Ok(None),
            (Some(_), None) | (None, Some(_)) => {
                anyhow::bail!("{flags}cert and {flags}key go together")
            }
        };
        let chain = certificates(cert)?;
        let key = PrivateKeyDer::from_pem_file(key)
            .with_context(|| format!("cannot read a private key from {}", key.display()))?;
        Ok(Some((chain, key)))
    }

    pub(super) fn roots(&self) -> anyhow::Result<RootCertStore> {
        let missing = || format!("{}ca is missing: whom to trust", self.flags);
        let path = self.ca.as_ref().with_context(missing)?;
        let mut roots = RootCertStore::empty();
        for root in certificates(path)? {
            roots
                .add(root)
                .with_context(|| format!("{} is no CA's certificate", path.display()))?;
        }
        Ok(roots)
    }

    pub(super) fn mismatch(&self) -> String {
        format!("{0}key is not the key of {0}cert", self.flags)
    }

    /// What to do where two do not trust each other; `None` for any other error.
    pub(crate) fn distrust(&self, error: &(dyn Error + 'static)) -> Option<Untrusted> {
        let flags = self.flags;
        let found = causes(error).find_map(|cause| cause.downcast_ref::<rustls::Error>())?;
        let advice = if let rustls::Error::InvalidCertificate(why) = found {
            // The signature is bad where two authorities have one name.
            if matches!(why, CertificateError::UnknownIssuer | CertificateError::BadSignature) {
                let ca = self.ca.as_deref().unwrap_or(Path::new("")).display();
                format!("nobody in {ca} has issued it; {flags}ca names the file with who has")
            } else {
                "look at its names and dates, and at the name that it is called by".to_owned()
            }
        } else if matches!(found, rustls::Error::InvalidMessage(_)) {
            "it does not speak TLS".to_owned()
        } else if let rustls::Error::AlertReceived(alert) = found
            && REFUSES.contains(alert)
        {
            if self.cert.is_some() {
                format!("it does not take what {flags}cert names")
            } else {
                format!("it asks for a certificate; {flags}cert and {flags}key name ours")
            }
        } else {
            return None;
        };
        Some(Untrusted(format!("{found}: {advice}")))
    }
}

/// An error with all that led to it, also within those of the operating system that wrap others.
fn causes<'a>(error: &'a (dyn Error + 'static)) -> impl Iterator<Item = &'a (dyn Error + 'static)> {
    std::iter::successors(Some(error), |error: &&'a (dyn Error + 'static)| {
        let error: &'a (dyn Error + 'static) = *error;
        match error.downcast_ref::<io::Error>().and_then(io::Error::get_ref) {
            Some(wrapped) => Some(wrapped),
            None => error.source(),
        }
    })
}

/// Whether an error is that there is no trust, and what to do then.
pub(crate) fn untrusted<'a>(error: &'a (dyn Error + 'static)) -> Option<&'a Untrusted> {
    causes(error).find_map(|cause| cause.downcast_ref::<Untrusted>())
}

fn certificates(path: &Path) -> anyhow::Result<Vec<CertificateDer<'static>>> {
    let read = || format!("cannot read certificates from {}", path.display());
    let all = CertificateDer::pem_file_iter(path).with_context(read)?;
    let all = all.collect::<Result<Vec<_>, _>>().with_context(read)?;
    anyhow::ensure!(!all.is_empty(), "{} holds no certificate", path.display());
    Ok(all)
}
