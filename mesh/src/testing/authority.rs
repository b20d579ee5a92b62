//! Certificates that are good for one test.

use std::path::{Path, PathBuf};

use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair};
use tempfile::TempDir;

use crate::tls::{Files, Settings};

/// An authority, and a folder with its certificate and those it issues.
#[derive(Debug)]
pub struct Authority {
    folder: TempDir,
    issuer: Issuer<'static, KeyPair>,
}

// === impl Authority ===

#[expect(clippy::expect_used, reason = "a test that cannot make its certificates fails")]
impl Authority {
    /// One that nobody else knows.
    ///
    /// # Panics
    /// Where its folder cannot be written; the others do so, too.
    #[must_use]
    pub fn new() -> Self {
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        // No two have one name, as it is in life.
        let name = crate::clock::id().to_string();
        params.distinguished_name.push(DnType::CommonName, name);
        let key = KeyPair::generate().expect("a key");
        let certificate = params.self_signed(&key).expect("a certificate");
        let folder = tempfile::tempdir().expect("a folder");
        std::fs::write(folder.path().join("ca.pem"), certificate.pem()).expect("written");
        Self { folder, issuer: Issuer::new(params, key) }
    }

    /// Its folder.
    #[must_use]
    pub fn path(&self) -> &Path {
        self.folder.path()
    }

    /// The file with its certificate.
    #[must_use]
    pub fn ca(&self) -> PathBuf {
        self.path().join("ca.pem")
    }

    /// Issues a certificate for these names, and writes it with its key into `to`.
    pub fn issue(&self, to: &Path, names: &[&str]) {
        let names: Vec<String> = names.iter().map(|&name| name.to_owned()).collect();
        let key = KeyPair::generate().expect("a key");
        let params = CertificateParams::new(names).expect("names");
        let issued = params.signed_by(&key, &self.issuer).expect("a certificate");
        std::fs::write(to.join("key.pem"), key.serialize_pem()).expect("written");
        std::fs::write(to.join("cert.pem"), issued.pem()).expect("written");
    }

    /// A certificate for `names`, and trust in this authority.
    #[must_use]
    pub fn settings(&self, names: &[&str]) -> Settings {
        self.issue(self.path(), names);
        Settings {
            tls_cert: Some(self.path().join("cert.pem")),
            tls_key: Some(self.path().join("key.pem")),
            ..self.trust()
        }
    }

    /// Trust in this authority, and nothing to show.
    #[must_use]
    pub fn trust(&self) -> Settings {
        Settings { tls_ca: Some(self.ca()), ..Settings::default() }
    }

    /// The same for whoever calls without being a process.
    #[must_use]
    pub fn files(&self) -> Files {
        self.trust().files()
    }
}

impl Default for Authority {
    fn default() -> Self {
        Self::new()
    }
}
