//! Makes the certificates of one run: an authority, a server's, and an authority that nobody knows.
#![expect(clippy::print_stderr, reason = "a command line program talks on its terminal")]

use std::{fs, path::PathBuf, process::ExitCode};

use anyhow::{Context as _, Result};
use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, KeyPair, SanType};

/// Makes certificates that are good for one run of the tests.
#[derive(Clone, Debug, clap::Parser)]
#[command(name = "interop-certificates", after_help = FILES)]
struct Flags {
    /// Where to: a folder that is there.
    #[arg(long)]
    into: PathBuf,

    /// What the server's certificate is good for.
    #[arg(long, default_value = "localhost")]
    name: String,
}

const FILES: &str =
    "Files: ca.pem issued cert.pem, whose key is key.pem; stranger.pem issued nothing.";

fn main() -> ExitCode {
    match make(&<Flags as clap::Parser>::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn make(flags: &Flags) -> Result<()> {
    let write = |name: &str, text: String| {
        let path = flags.into.join(name);
        fs::write(&path, text).with_context(|| format!("cannot write {}", path.display()))
    };
    let called = |name: &str| {
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::CommonName, name);
        params
    };
    let authority = |name: &str| {
        let mut params = called(name);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let key = KeyPair::generate()?;
        anyhow::Ok((params.self_signed(&key)?.pem(), rcgen::Issuer::new(params, key)))
    };
    let (ca, issuer) = authority("the authority")?;
    let (stranger, _) = authority("a stranger")?;
    let key = KeyPair::generate()?;
    let mut params = called(&flags.name);
    params.subject_alt_names = vec![SanType::DnsName(flags.name.as_str().try_into()?)];
    let issued = params.signed_by(&key, &issuer)?;
    write("ca.pem", ca)?;
    write("stranger.pem", stranger)?;
    write("key.pem", key.serialize_pem())?;
    write("cert.pem", issued.pem())
}
