//! What a run of the tests needs: servers, and certificates for them.

use std::fs::{self, File};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, bail};

use super::ends_well;
use crate::{clock, os, say, site};

/// A server of this run; it ends with this value.
pub(crate) struct Server {
    child: Child,
    pub(crate) port: u16,
}

/// The certificates of this run, which go with this value.
#[derive(Debug)]
pub(crate) struct Certificates {
    folder: PathBuf,
}

/// What the server's certificate is good for, and nothing else; and with whom it is good.
pub(super) const NAME: &str = "localhost";
pub(super) const CA: &str = "ca.pem";

/// How long a server may take to listen.
const LISTENS: Duration = Duration::from_secs(20);

// === impl Server ===

impl Server {
    /// A process of ours on free ports.
    pub(crate) fn ours(root: &Path, name: &str, more: &[String]) -> Result<Self> {
        let port = os::free_port()?;
        let mut command = Command::new(program(root, name));
        command.args(["--listen", &format!("127.0.0.1:{port}")]);
        // Nobody asks there.
        command.args(["--admin-listen", "127.0.0.1:0"]).args(more);
        Self::start(root, &mut command, port)
    }

    /// Starts a server and waits until it listens.
    pub(super) fn start(root: &Path, command: &mut Command, port: u16) -> Result<Self> {
        fs::create_dir_all(scratch(root))?;
        let log = File::create(scratch(root).join("server.log"))?;
        command.stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log);
        let name = command.get_program().display().to_string();
        let child = command.spawn().with_context(|| format!("cannot run {name}"))?;
        let mut server = Self { child, port };
        let begun = clock::now();
        while TcpStream::connect(("127.0.0.1", port)).is_err() {
            let ended = server.child.try_wait()?;
            if ended.is_some() || begun.elapsed() > LISTENS {
                let said = fs::read_to_string(scratch(root).join("server.log"))?;
                fs::remove_dir_all(scratch(root))?;
                bail!("{name} does not listen: {said}");
            }
            clock::nap(20);
        }
        Ok(server)
    }

    /// Whether it still runs.
    pub(crate) fn alive(&self) -> bool {
        os::Pid::of(self.child.id()).alive()
    }

    /// Ends it; what it said is kept only where something went wrong.
    pub(crate) fn end(self, root: &Path, good: bool) {
        drop(self);
        let (from, to) = (scratch(root), site::target(root).join("failed").join("interop"));
        let moved = if good {
            fs::remove_dir_all(&from)
        } else {
            drop(fs::remove_dir_all(&to));
            fs::create_dir_all(site::target(root).join("failed"))
                .and_then(|()| fs::rename(&from, &to))
        };
        match moved {
            Ok(()) if good => {}
            Ok(()) => say::note(&format!("    what was said is kept in {}", to.display())),
            Err(error) => say::note(&format!("    {}: {error}", from.display())),
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // It may have ended by itself; nobody else waits for it.
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

// === impl Certificates ===

impl Certificates {
    /// Makes an authority and what it issues; the program of ours that does so is built already.
    pub(crate) fn make(root: &Path) -> Result<Self> {
        let name = format!("interop-certificates-{}", std::process::id());
        let made = Self { folder: site::target(root).join(name) };
        fs::create_dir_all(&made.folder)?;
        let mut command = Command::new(program(root, "interop_certificates"));
        command.args(["--name", NAME, "--into"]).arg(&made.folder);
        ends_well(&mut command, &made.path("log"))?;
        Ok(made)
    }

    pub(super) fn path(&self, name: &str) -> PathBuf {
        self.folder.join(name)
    }

    /// What a process of ours is told to serve TLS.
    pub(crate) fn flags(&self) -> [String; 4] {
        let path = |name| self.path(name).display().to_string();
        ["--tls-cert".to_owned(), path("cert.pem"), "--tls-key".to_owned(), path("key.pem")]
    }
}

impl Drop for Certificates {
    fn drop(&mut self) {
        // What stays is of no use to anybody.
        drop(fs::remove_dir_all(&self.folder));
    }
}

/// A program of ours, as it was built last.
pub(super) fn program(root: &Path, name: &str) -> PathBuf {
    site::target(root).join("debug").join(name)
}

/// Where servers of this run write what they have to say.
pub(crate) fn scratch(root: &Path) -> PathBuf {
    site::target(root).join(format!("interop-{}", std::process::id()))
}
