//! A PostgreSQL server of our own: found, started on its own port in its own folder, stopped.

use std::fs;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail};

use crate::{os, tools};

/// A server that runs, or ran.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Server {
    pub(crate) port: u16,
    /// Its data folder.
    pub(crate) data: PathBuf,
}

/// The superuser of the servers that we start; they listen on the loopback and trust it.
const USER: &str = "app";

/// Where PostgreSQL's own programs are: `initdb` and `pg_ctl` are seldom on PATH.
pub(crate) fn folder() -> Option<PathBuf> {
    let mut folders: Vec<PathBuf> = fs::read_dir("/usr/lib/postgresql")
        .map(|entries| entries.flatten().map(|entry| entry.path().join("bin")).collect())
        .unwrap_or_default();
    // The newest first.
    folders.sort();
    folders.reverse();
    let initdb = os::program("initdb", &folders)?;
    initdb.parent().map(Path::to_owned)
}

// === impl Server ===

impl Server {
    /// Starts a server whose data is kept under `home`, on a free port.
    ///
    /// `durable` keeps fsync on: numbers need it, tests of logic do not.
    pub(crate) fn start(home: &Path, durable: bool) -> Result<Self> {
        let Some(bin) = folder() else {
            bail!(
                "PostgreSQL is not installed: run `cargo xtask tools postgres`, or {}",
                tools::hint("postgres")
            );
        };
        fs::create_dir_all(home).with_context(|| format!("cannot make {}", home.display()))?;
        let data = home.join("data");
        let server = Self { port: os::free_port()?, data };
        if os::root() {
            quiet(
                Command::new("chown").args(["-R", "postgres:postgres"]).arg(home),
                "give PostgreSQL its folder",
            )?;
        }
        if !server.data.join("PG_VERSION").exists() {
            let init = [
                "-D",
                &text(&server.data),
                "-U",
                USER,
                "--auth=trust",
                "--encoding=UTF8",
                "--no-sync",
            ];
            quiet(
                &mut as_postgres(&bin.join("initdb"), &init, home),
                "create the data folder of PostgreSQL",
            )?;
        }
        let fsync = if durable { "on" } else { "off" };
        let options = format!(
            "-c listen_addresses=127.0.0.1 -p {} -c unix_socket_directories= -c fsync={fsync} -c synchronous_commit=on \
             -c full_page_writes={fsync} -c max_connections=300 -c shared_buffers=64MB",
            server.port
        );
        let log = text(&home.join("server.log"));
        let start = ["-D", &text(&server.data), "-l", &log, "-w", "-s", "-o", &options, "start"];
        quiet(&mut as_postgres(&bin.join("pg_ctl"), &start, home), "start PostgreSQL")
            .with_context(|| format!("its own words are in {log}"))?;
        Ok(server)
    }

    /// Its URL, without a database.
    pub(crate) fn address(&self) -> String {
        format!("postgres://{USER}@127.0.0.1:{}", self.port)
    }

    /// The URL of one of its databases.
    pub(crate) fn url(&self, database: &str) -> String {
        format!("{}/{database}", self.address())
    }

    /// Makes a database unless it is there already.
    pub(crate) fn create(&self, database: &str) -> Result<()> {
        let bin = folder().context("PostgreSQL is gone")?;
        let (port, psql) = (self.port.to_string(), bin.join("psql"));
        let at = ["-h", "127.0.0.1", "-p", &port, "-U", USER, "-d", "postgres", "-At", "-c"];
        let there =
            format!("SELECT count(*) FROM pg_database WHERE datname = '{}'", plain(database)?);
        let found = Command::new(&psql).args(at).arg(there).output().context("cannot run psql")?;
        if String::from_utf8_lossy(&found.stdout).trim() != "0" {
            return Ok(());
        }
        let create = format!("CREATE DATABASE \"{}\"", plain(database)?);
        quiet(Command::new(&psql).args(at).arg(create), "create a database")
    }

    /// Stops it; what it had to say is in its log.
    pub(crate) fn stop(&self) {
        if let (Some(bin), Some(home)) = (folder(), self.data.parent()) {
            let stop = ["-D", &text(&self.data), "-m", "fast", "-w", "-s", "stop"];
            // It may have been stopped by hand.
            drop(quiet(&mut as_postgres(&bin.join("pg_ctl"), &stop, home), "stop PostgreSQL"));
        }
    }
}

/// The command, as the user `postgres` where we are root.
fn as_postgres(program: &Path, arguments: &[&str], home: &Path) -> Command {
    let mut command = if os::root() {
        let mut command = Command::new("setpriv");
        command.args(["--reuid=postgres", "--regid=postgres", "--init-groups"]).arg(program);
        command
    } else {
        Command::new(program)
    };
    command.args(arguments).env("HOME", home).env("LC_ALL", "C.UTF-8").current_dir("/");
    command
}

/// Where a server keeps its data if `wanted` were private to root, whom PostgreSQL refuses to be.
pub(crate) fn home(wanted: &Path) -> PathBuf {
    if !os::root() || wanted.ancestors().skip(1).filter(|it| it.exists()).all(walkable) {
        return wanted.to_owned();
    }
    // Stable for a path, so that the next run finds its data again.
    let mut hasher = DefaultHasher::new();
    wanted.hash(&mut hasher);
    PathBuf::from(format!("/var/tmp/ordermesh-postgres-{:016x}", hasher.finish()))
}

fn walkable(path: &Path) -> bool {
    fs::metadata(path).is_ok_and(|it| it.permissions().mode() & 0o001 != 0)
}

/// Names of databases are ours; this says so where they go into a statement that cannot bind them.
fn plain(name: &str) -> Result<&str> {
    if name.chars().all(|c| c.is_ascii_lowercase() || c == '_') {
        Ok(name)
    } else {
        bail!("`{name}` cannot name a database")
    }
}

fn text(path: &Path) -> String {
    path.display().to_string()
}

/// Runs a command whose words matter only if it fails. Its output goes to a file that nobody
/// inherits for long: `pg_ctl` leaves a server behind that would hold a pipe open.
fn quiet(command: &mut Command, doing: &str) -> Result<()> {
    let words = std::env::temp_dir().join(format!("ordermesh-{}.out", os::random(6)?));
    let file = fs::File::create(&words).context("cannot write in the temporary folder")?;
    let status = command.stdin(Stdio::null()).stdout(file.try_clone()?).stderr(file).status();
    let said = fs::read_to_string(&words).unwrap_or_default();
    fs::remove_file(&words)?;
    match status {
        Ok(status) if status.success() => Ok(()),
        Ok(status) => bail!("cannot {doing} ({status}): {}", said.trim()),
        Err(error) => bail!("cannot {doing}: {error}"),
    }
}
