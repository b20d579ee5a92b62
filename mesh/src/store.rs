//! The database of a service: connect, migrate, read, and change it in transactions.
//!
//! One interface over SQLite and PostgreSQL. On SQLite every change passes one writer, which
//! joins what waits into one commit (`group`); on PostgreSQL each is a transaction of its own,
//! run again when the database asks for it (`again`).

mod again;
mod connection;
mod group;
/// Tables that are made and changed at start, in order.
pub mod migrate;
mod open;
mod sqlite;

use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering},
};

use self::connection::Connections;
use futures_util::future::BoxFuture;
use sea_orm::{
    ConnectionTrait, DatabaseConnection, DbErr, FromQueryResult, ProxyRow, RuntimeErr, Statement,
    Value, sqlx,
};
use tokio::sync::watch;

use crate::clock;

pub use connection::{Reader, Txn};
pub use migrate::{Migration, step};

/// The database of a service. Clones share its connections.
#[derive(Clone, Debug)]
pub struct Store(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    reader: Reader,
    writer: Writer,
    counters: Arc<Counters>,
}

#[derive(Debug)]
enum Writer {
    Postgres(DatabaseConnection),
    Sqlite(group::Group),
}

/// The database did not do what it was asked: broken, away, or a rule of its schema said no.
#[derive(Clone, Debug, thiserror::Error)]
#[error("cannot {doing}")]
pub struct Failure {
    /// What was being done, after the word "cannot".
    pub doing: &'static str,
    /// What the database said.
    pub source: DbErr,
}

/// What is done with a setting before there is a database to speak of.
const READ_URL: &str = "understand the URL of the database";

/// The error of a closure that runs in a transaction: it can tell the database's failures, after
/// which the transaction may be run again, from its own refusals.
pub trait TxnError: From<Failure> {
    /// The database's failure, if that is what this error is.
    fn failure(&self) -> Option<&Failure>;
}

/// How transactions were joined, since the store was opened.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Stats {
    /// Commits that reached the disk.
    pub commits: u64,
    /// Transactions in them that were kept; more than commits where they were joined.
    pub transactions: u64,
    /// Transactions that were rolled back, by their own closure or by the database.
    pub rolled_back: u64,
}

#[derive(Debug, Default)]
struct Counters {
    seen: watch::Sender<u64>,
    commits: AtomicU64,
    transactions: AtomicU64,
    rolled_back: AtomicU64,
}

// === impl Store ===

impl Store {
    /// Opens the database at `url` (`sqlite://path` or `postgres://…`) and brings its tables up
    /// to date: those of mesh, then the service's own `migrations`. A SQLite file is made if it
    /// is missing, with its folders, readable by its owner only.
    ///
    /// # Errors
    /// [`Failure`] if the scheme is another one, the database cannot be reached, another process
    /// has the file, or a newer release changed the tables. Say it and end the process.
    pub async fn connect(url: &str, migrations: Vec<Migration>) -> Result<Self, Failure> {
        let counters = Arc::new(Counters::default());
        let (reader, writer) = if let Some(path) = url.strip_prefix("sqlite://") {
            let file = open::SqliteFile::claim(path)?;
            let connection = file.writer()?;
            migrate::sqlite(&connection, migrations).await?;
            let reader = Reader(Connections::Sqlite(file.readers()?));
            let group = group::Group::new(file, connection, Arc::clone(&counters))?;
            (reader, Writer::Sqlite(group))
        } else if url.starts_with("postgres://") || url.starts_with("postgresql://") {
            let pool = open::postgres(url).await?;
            migrate::postgres(&pool, migrations).await?;
            (Reader(Connections::Postgres(pool.clone())), Writer::Postgres(pool))
        } else {
            let problem = "the URL must begin with sqlite:// or postgres://";
            return Err(Failure::new(READ_URL, problem));
        };
        Ok(Self(Arc::new(Inner { reader, writer, counters })))
    }

    /// For statements that only read. What a transaction changed shows here once it committed.
    #[must_use]
    pub fn reader(&self) -> &Reader {
        &self.0.reader
    }

    /// Whether the database is PostgreSQL; else it is SQLite.
    #[must_use]
    pub fn is_postgres(&self) -> bool {
        matches!(self.0.writer, Writer::Postgres(_))
    }

    /// Runs `work` in a transaction: kept if it answers `Ok`, undone if it answers `Err`. The
    /// answer comes after the commit. `work` may run several times and only its last run counts:
    /// it acts on nothing but the database, and it is short, for others wait behind it.
    ///
    /// # Errors
    /// What `work` answered; or a [`Failure`] of the database. If the connection was lost during
    /// the commit, a failed transaction may have happened: whoever must know reads it back.
    pub async fn transaction<T, E, F>(&self, work: F) -> Result<T, E>
    where
        F: for<'c> Fn(&'c Txn) -> BoxFuture<'c, Result<T, E>> + Send + Sync + 'static,
        T: Send + 'static,
        E: TxnError + Send + 'static,
    {
        match &self.0.writer {
            Writer::Postgres(pool) => again::run(pool, &self.0.counters, &work).await,
            Writer::Sqlite(group) => group.run(work).await,
        }
    }

    /// The time that leases and timers go by, in microseconds: PostgreSQL's, because replicas
    /// share it; or this process's on SQLite, because no other has the file.
    ///
    /// # Errors
    /// [`Failure`] if the database cannot be asked.
    pub async fn now_micros<C: ConnectionTrait>(&self, conn: &C) -> Result<i64, Failure> {
        #[derive(FromQueryResult)]
        struct Now {
            now: i64,
        }
        if !self.is_postgres() {
            return Ok(clock::micros(clock::now()));
        }
        let sql = "SELECT CAST(EXTRACT(EPOCH FROM clock_timestamp()) * 1000000 AS BIGINT) AS now";
        let now = row::<Now, _>(conn, "ask for the time", sql, vec![]).await?;
        now.map(|row| row.now).ok_or_else(|| Failure::new("ask for the time", "no row"))
    }

    /// Whether the database answers.
    ///
    /// # Errors
    /// [`Failure`] if it does not.
    pub async fn ping(&self) -> Result<(), Failure> {
        self.0
            .reader
            .execute_unprepared("SELECT 1")
            .await
            .map_err(failed_to("reach the database"))?;
        Ok(())
    }

    /// How transactions were joined so far.
    #[must_use]
    pub fn stats(&self) -> Stats {
        let counters = &self.0.counters;
        Stats {
            commits: counters.commits.load(Ordering::Relaxed),
            transactions: counters.transactions.load(Ordering::Relaxed),
            rolled_back: counters.rolled_back.load(Ordering::Relaxed),
        }
    }

    /// Changes after each commit of this process: who reads what others write looks then.
    #[must_use]
    pub fn commits(&self) -> watch::Receiver<u64> {
        self.0.counters.seen.subscribe()
    }

    /// Every row that the queries answer, all from one snapshot of a SQLite file, on a connection
    /// and a thread of its own, until `each` has enough; it is told the number of the query.
    pub(crate) async fn snapshot<F>(
        &self,
        queries: Vec<&'static str>,
        each: F,
    ) -> Result<(), Failure>
    where
        F: FnMut(usize, ProxyRow) -> bool + Send + 'static,
    {
        const DOING: &str = "read a snapshot";
        let Connections::Sqlite(readers) = &self.0.reader.0 else {
            return Err(Failure::new(DOING, "PostgreSQL takes one by a transaction"));
        };
        let path = readers.path().to_owned();
        let read = move || sqlite::Sqlite::open(&path, true)?.snapshot(&queries, each);
        // Not one of the threads that compute: it goes as fast as somebody reads.
        let done = tokio::task::spawn_blocking(read).await;
        done.map_err(|error| Failure::new(DOING, error.to_string()))?.map_err(failed_to(DOING))
    }

    /// Finishes the transactions that wait and closes the connections. Later transactions are
    /// refused.
    ///
    /// # Errors
    /// [`Failure`] if a connection cannot be closed; nothing more can be done about it.
    pub async fn close(&self) -> Result<(), Failure> {
        match &self.0.writer {
            Writer::Sqlite(group) => {
                group.close().await;
                Ok(())
            }
            Writer::Postgres(pool) => {
                pool.close_by_ref().await.map_err(failed_to("close the database"))
            }
        }
    }
}

// === impl Failure ===

impl Failure {
    /// A failure that no database reported.
    #[must_use]
    pub fn new(doing: &'static str, problem: impl Into<String>) -> Self {
        Self { doing, source: DbErr::Conn(RuntimeErr::Internal(problem.into())) }
    }

    /// Whether the database was never asked, because its URL is wrong.
    pub(crate) fn is_of_the_url(&self) -> bool {
        self.doing == READ_URL
    }

    /// Whether a row of the same key exists already.
    #[must_use]
    pub fn is_duplicate(&self) -> bool {
        self.said().is_some_and(|error| error.is_unique_violation())
    }

    /// Whether the same transaction can succeed when it is run again.
    fn asks_for_another_run(&self) -> bool {
        // PostgreSQL's serialization_failure and deadlock_detected.
        let code = self.said().and_then(sqlx::error::DatabaseError::code);
        matches!(code.as_deref(), Some("40001" | "40P01"))
    }

    /// What the database itself said, if it was reached.
    fn said(&self) -> Option<&dyn sqlx::error::DatabaseError> {
        let (DbErr::Exec(error) | DbErr::Query(error) | DbErr::Conn(error)) = &self.source else {
            return None;
        };
        let RuntimeErr::SqlxError(error) = error else { return None };
        error.as_database_error()
    }
}

impl TxnError for Failure {
    fn failure(&self) -> Option<&Failure> {
        Some(self)
    }
}

// === impl Counters ===

impl Counters {
    fn committed(&self, transactions: u64) {
        self.commits.fetch_add(1, Ordering::Relaxed);
        self.transactions.fetch_add(transactions, Ordering::Relaxed);
        self.seen.send_modify(|commits| *commits += 1);
    }

    fn rolled_back(&self, transactions: u64) {
        self.rolled_back.fetch_add(transactions, Ordering::Relaxed);
    }
}

/// Whether the cause of `error` is a database that cannot be reached, or has no connection free:
/// the same call may succeed later, so it is no bug to look for.
pub(crate) fn is_away(error: &(dyn std::error::Error + 'static)) -> bool {
    let mut cause = Some(error);
    while let Some(error) = cause {
        if let Some(DbErr::ConnectionAcquire(_) | DbErr::Conn(RuntimeErr::SqlxError(_))) =
            error.downcast_ref()
        {
            return true;
        }
        cause = error.source();
    }
    false
}

/// Makes a [`Failure`] of what the database said: `.map_err(failed_to("read the order"))`.
pub fn failed_to(doing: &'static str) -> impl Fn(DbErr) -> Failure {
    move |source| Failure { doing, source }
}

/// Executes one statement and counts the rows it changed.
///
/// # Errors
/// [`Failure`], worded with `doing`.
pub async fn execute<C: ConnectionTrait>(
    conn: &C,
    doing: &'static str,
    sql: &str,
    values: Vec<Value>,
) -> Result<u64, Failure> {
    let statement = Statement::from_sql_and_values(conn.get_database_backend(), sql, values);
    let done = conn.execute_raw(statement).await.map_err(failed_to(doing))?;
    Ok(done.rows_affected())
}

/// The rows that one statement answers.
///
/// # Errors
/// [`Failure`], worded with `doing`; also if a column is missing or of another type.
pub async fn rows<T: FromQueryResult, C: ConnectionTrait>(
    conn: &C,
    doing: &'static str,
    sql: &str,
    values: Vec<Value>,
) -> Result<Vec<T>, Failure> {
    let statement = Statement::from_sql_and_values(conn.get_database_backend(), sql, values);
    let rows = conn.query_all_raw(statement).await.map_err(failed_to(doing))?;
    rows.iter().map(|row| T::from_query_result(row, "").map_err(failed_to(doing))).collect()
}

/// The row that one statement answers, if there is one.
///
/// # Errors
/// [`Failure`], worded with `doing`; also if a column is missing or of another type.
pub async fn row<T: FromQueryResult, C: ConnectionTrait>(
    conn: &C,
    doing: &'static str,
    sql: &str,
    values: Vec<Value>,
) -> Result<Option<T>, Failure> {
    let statement = Statement::from_sql_and_values(conn.get_database_backend(), sql, values);
    let row = conn.query_one_raw(statement).await.map_err(failed_to(doing))?;
    row.map(|row| T::from_query_result(&row, "").map_err(failed_to(doing))).transpose()
}

#[cfg(test)]
mod tests;
