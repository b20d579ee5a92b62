//! Opening connections: which options each kind of connection has, and why.

use std::{
    fs::{File, OpenOptions, TryLockError},
    io,
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
    time::Duration,
};

use sea_orm::{ConnectOptions, Database, DatabaseConnection, DbErr, RuntimeErr};

use super::{
    Failure, READ_URL, failed_to,
    sqlite::{Readers, Sqlite},
};

/// A SQLite file that this process alone has: SQLite would let several write in turn, but group
/// commit, leases and the sequencer rely on being the only writer.
#[derive(Debug)]
pub(super) struct SqliteFile {
    path: PathBuf,
    /// Locked while this value lives; the system frees it when the process dies.
    _lock: File,
}

/// How long a caller waits for a connection of a pool.
const ACQUIRE_TIMEOUT: Duration = Duration::from_secs(5);

/// Readers of one SQLite file. More do not read faster on the machines this is for.
const SQLITE_READERS: usize = 4;

const POSTGRES_CONNECTIONS: u32 = 10;

// === impl SqliteFile ===

impl SqliteFile {
    /// Makes the file and its folders where they are missing, and locks others out.
    pub(super) fn claim(path: &str) -> Result<Self, Failure> {
        const DOING: &str = "open the database file";
        // What follows a `?` would be options, and ours are not for choice.
        let path = PathBuf::from(path.split_once('?').map_or(path, |(path, _options)| path));
        let failed = |path: &Path, error: &io::Error| {
            Failure::new(DOING, format!("{}: {error}", path.display()))
        };
        if let Some(folder) = path.parent() {
            std::fs::create_dir_all(folder).map_err(|error| failed(folder, &error))?;
        }
        // SQLite gives the files beside it (write-ahead log, shared memory) the same mode.
        private_file(&path).map_err(|error| failed(&path, &error))?;
        let mut beside = path.clone().into_os_string();
        beside.push(".lock");
        let beside = PathBuf::from(beside);
        let lock = private_file(&beside).map_err(|error| failed(&beside, &error))?;
        match lock.try_lock() {
            Ok(()) => Ok(Self { path, _lock: lock }),
            Err(TryLockError::WouldBlock) => {
                let path = path.display();
                Err(Failure::new(DOING, format!("another process has {path} open; stop it first")))
            }
            Err(TryLockError::Error(error)) => Err(failed(&beside, &error)),
        }
    }

    /// The one connection that writes.
    pub(super) fn writer(&self) -> Result<Sqlite, Failure> {
        self.open(false)
    }

    /// The connections that read.
    pub(super) fn readers(&self) -> Result<Readers, Failure> {
        let connections: Result<Vec<_>, _> = (0..SQLITE_READERS).map(|_| self.open(true)).collect();
        Ok(Readers::new(self.path.clone(), connections?))
    }

    fn open(&self, reads_only: bool) -> Result<Sqlite, Failure> {
        Sqlite::open(&self.path, reads_only).map_err(failed_to("open the database file"))
    }
}

/// The pool of connections to a PostgreSQL server.
pub(super) async fn postgres(url: &str) -> Result<DatabaseConnection, Failure> {
    let mut options = ConnectOptions::new(url);
    options
        .max_connections(POSTGRES_CONNECTIONS)
        .min_connections(0)
        .connect_timeout(ACQUIRE_TIMEOUT)
        .acquire_timeout(ACQUIRE_TIMEOUT)
        .sqlx_logging(false)
        // A ping per statement would double the round trips.
        .test_before_acquire(false);
    if !url.contains("application_name=") {
        options.set_application_name(process_name());
    }
    Database::connect(options).await.map_err(|error| {
        // The driver's words about a bad URL repeat it, password and all.
        let bad_url = matches!(&error, DbErr::Conn(RuntimeErr::Internal(_)))
            || matches!(
                &error,
                DbErr::Conn(RuntimeErr::SqlxError(inner))
                    if matches!(**inner, sea_orm::sqlx::Error::Configuration(_))
            );
        if bad_url {
            Failure::new(READ_URL, "it is not valid")
        } else {
            Failure { doing: "connect to the database", source: error }
        }
    })
}

fn private_file(path: &Path) -> io::Result<File> {
    OpenOptions::new().read(true).append(true).create(true).mode(0o600).open(path)
}

/// The program's name: what an operator sees in `pg_stat_activity`.
fn process_name() -> String {
    let program = std::env::current_exe().ok();
    let name = program.as_deref().and_then(Path::file_stem).and_then(|name| name.to_str());
    name.unwrap_or("ordermesh").to_owned()
}
