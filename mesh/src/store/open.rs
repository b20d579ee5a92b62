//! Opening connections: which options each kind of connection has, and why.

use std::{
    fs::{File, OpenOptions, TryLockError},
    io,
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
    time::Duration,
};

use sea_orm::{ConnectOptions, Database, DatabaseConnection, DbErr, RuntimeErr};

use super::{Failure, failed_to};

/// A SQLite file that this process alone has: SQLite would let several write in turn, but group
/// commit, leases and the sequencer rely on being the only writer.
#[derive(Debug)]
pub(super) struct SqliteFile {
    path: PathBuf,
    /// Locked while this value lives; the system frees it when the process dies.
    _lock: File,
}

/// How long a statement waits for a lock of SQLite; only a backup or a shell can hold one.
const BUSY_TIMEOUT: Duration = Duration::from_secs(5);

/// How long a caller waits for a connection of a pool.
const ACQUIRE_TIMEOUT: Duration = Duration::from_secs(5);

/// Readers of one SQLite file. More do not read faster on the machines this is for.
const SQLITE_READERS: u32 = 4;

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
    pub(super) async fn writer(&self) -> Result<DatabaseConnection, Failure> {
        self.open(1, "OFF").await
    }

    /// The connections that read.
    pub(super) async fn readers(&self) -> Result<DatabaseConnection, Failure> {
        self.open(SQLITE_READERS, "ON").await
    }

    async fn open(
        &self,
        max: u32,
        query_only: &'static str,
    ) -> Result<DatabaseConnection, Failure> {
        let path = self.path.clone();
        let mut options = ConnectOptions::new("sqlite://ordermesh");
        common(&mut options, max).map_sqlx_sqlite_opts(move |options| {
            options
                .filename(&path)
                .busy_timeout(BUSY_TIMEOUT)
                .foreign_keys(true)
                // Readers and the writer do not wait for each other.
                .pragma("journal_mode", "WAL")
                // A commit is on the disk before it is answered, power cut or not.
                .pragma("synchronous", "FULL")
                // The log gives back what a burst took.
                .pragma("journal_size_limit", "67108864")
                // What a savepoint must be able to undo stays in memory: in a file it costs more
                // writes than the transaction itself.
                .pragma("temp_store", "MEMORY")
                .pragma("query_only", query_only)
        });
        Database::connect(options).await.map_err(failed_to("open the database file"))
    }
}

/// The pool of connections to a PostgreSQL server.
pub(super) async fn postgres(url: &str) -> Result<DatabaseConnection, Failure> {
    let mut options = ConnectOptions::new(url);
    common(&mut options, POSTGRES_CONNECTIONS).connect_timeout(ACQUIRE_TIMEOUT);
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
        let source = if bad_url {
            DbErr::Conn(RuntimeErr::Internal("the URL is not valid".to_owned()))
        } else {
            error
        };
        Failure { doing: "connect to the database", source }
    })
}

fn common(options: &mut ConnectOptions, max: u32) -> &mut ConnectOptions {
    options
        .max_connections(max)
        .min_connections(0)
        .acquire_timeout(ACQUIRE_TIMEOUT)
        .sqlx_logging(false)
        // A ping per statement would double the round trips.
        .test_before_acquire(false)
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
