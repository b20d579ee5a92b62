//! SQLite without a thread between: a statement runs on the thread that asks for it.
//!
//! A driver that hands each statement to a thread of its own spends more time on waking threads
//! than on the statement, which is a few tens of microseconds. So the writer has its own thread
//! and runs whole transactions on it (`group`), and reads run where they are asked: they are
//! bounded by a limit or a key, as everything that is read for a call.

use std::{
    borrow::Cow,
    collections::BTreeMap,
    error::Error,
    fmt,
    path::{Path, PathBuf},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError, TryLockError,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use rusqlite::{
    Connection, OpenFlags, Row, ToSql,
    ffi::{
        SQLITE_CONSTRAINT_CHECK, SQLITE_CONSTRAINT_FOREIGNKEY, SQLITE_CONSTRAINT_NOTNULL,
        SQLITE_CONSTRAINT_PRIMARYKEY, SQLITE_CONSTRAINT_ROWID, SQLITE_CONSTRAINT_UNIQUE,
    },
    types::{ToSqlOutput, ValueRef},
};
use sea_orm::prelude::async_trait::async_trait;
use sea_orm::{
    ConnectionTrait, DbBackend, DbErr, ExecResult, ProxyExecResult, ProxyRow, QueryResult,
    RuntimeErr, Statement, Value, Values,
    sqlx::{self, error::ErrorKind},
};

/// One connection. Clones share it.
#[derive(Clone)]
pub(super) struct Sqlite(Arc<Mutex<Connection>>);

/// Connections that only read; whichever is free.
#[derive(Debug)]
pub(super) struct Readers {
    path: PathBuf,
    connections: Vec<Sqlite>,
    next: AtomicUsize,
}

/// What SQLite said no with.
#[derive(Debug)]
struct Problem {
    /// The extended result code, where SQLite gave one.
    code: Option<i32>,
    message: String,
}

/// A value on its way into a statement.
struct Bound<'v>(&'v Value);

/// Prepared statements that a connection keeps.
const PREPARED: usize = 256;

/// How long a statement waits for a lock of SQLite; only a backup or a shell can hold one.
const BUSY_TIMEOUT: Duration = Duration::from_secs(5);

/// What every connection is set to.
const SETTINGS: &str = "\
    PRAGMA journal_mode = WAL; -- readers and the writer do not wait for each other
    PRAGMA synchronous = FULL; -- a commit is on the disk before it is answered, power cut or not
    PRAGMA foreign_keys = ON;
    PRAGMA journal_size_limit = 67108864; -- the log gives back what a burst took
    -- Pages that change with every order go into the file once in 16 MiB of log, not once in 4.
    PRAGMA wal_autocheckpoint = 4000;
    PRAGMA cache_size = -8000; -- KiB
    -- What a savepoint must be able to undo stays in memory: in a file it costs more writes than
    -- the transaction itself.
    PRAGMA temp_store = MEMORY;";

// === impl Sqlite ===

impl Sqlite {
    /// Opens the file at `path`, which exists.
    pub(super) fn open(path: &Path, reads_only: bool) -> Result<Self, DbErr> {
        let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
        let open = || {
            let connection = Connection::open_with_flags(path, flags)?;
            connection.set_prepared_statement_cache_capacity(PREPARED);
            connection.busy_timeout(BUSY_TIMEOUT)?;
            connection.execute_batch(SETTINGS)?;
            connection.pragma_update(None, "query_only", reads_only)?;
            Ok(connection)
        };
        open().map(|connection| Self(Arc::new(Mutex::new(connection)))).map_err(to_exec)
    }

    /// Runs statements that answer nothing: what a transaction begins and ends with.
    pub(super) fn run(&self, sql: &'static str) -> Result<(), DbErr> {
        let connection = self.lock();
        let mut statement = connection.prepare_cached(sql).map_err(to_exec)?;
        statement.raw_execute().map(drop).map_err(to_exec)
    }

    fn execute(&self, statement: &Statement) -> Result<ExecResult, DbErr> {
        let connection = self.lock();
        let mut prepared = connection.prepare_cached(&statement.sql).map_err(to_exec)?;
        bind(&mut prepared, statement.values.as_ref()).map_err(to_exec)?;
        // A statement with RETURNING answers rows, which nobody wants here.
        let changed = if prepared.column_count() == 0 {
            prepared.raw_execute().map_err(to_exec)?
        } else {
            let mut rows = prepared.raw_query();
            while rows.next().map_err(to_exec)?.is_some() {}
            drop(rows);
            usize::try_from(connection.changes()).unwrap_or(usize::MAX)
        };
        let changed = u64::try_from(changed).unwrap_or(u64::MAX);
        Ok(ProxyExecResult::new(0, changed).into())
    }

    fn query(&self, statement: &Statement, limit: usize) -> Result<Vec<QueryResult>, DbErr> {
        let connection = self.lock();
        let mut prepared = connection.prepare_cached(&statement.sql).map_err(to_query)?;
        bind(&mut prepared, statement.values.as_ref()).map_err(to_query)?;
        let columns = columns(&prepared);
        let mut rows = prepared.raw_query();
        let mut answer = Vec::new();
        while answer.len() < limit {
            let Some(row) = rows.next().map_err(to_query)? else { break };
            answer.push(read(row, &columns).map_err(to_query)?.into());
        }
        Ok(answer)
    }

    /// Every row that the queries answer, all from one snapshot, until `each` has enough.
    pub(super) fn snapshot(
        &self,
        queries: &[&'static str],
        mut each: impl FnMut(usize, ProxyRow) -> bool,
    ) -> Result<(), DbErr> {
        let connection = self.lock();
        let snapshot = connection.unchecked_transaction().map_err(to_query)?;
        for (index, sql) in queries.iter().enumerate() {
            let mut statement = snapshot.prepare(sql).map_err(to_query)?;
            let columns = columns(&statement);
            let mut rows = statement.query([]).map_err(to_query)?;
            while let Some(row) = rows.next().map_err(to_query)? {
                if !each(index, read(row, &columns).map_err(to_query)?) {
                    return Ok(());
                }
            }
        }
        Ok(())
    }

    fn lock(&self) -> MutexGuard<'_, Connection> {
        // A panic elsewhere leaves a connection usable: its statements are SQLite's.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for Sqlite {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Sqlite")
    }
}

#[async_trait]
impl ConnectionTrait for Sqlite {
    fn get_database_backend(&self) -> DbBackend {
        DbBackend::Sqlite
    }

    async fn execute_raw(&self, statement: Statement) -> Result<ExecResult, DbErr> {
        self.execute(&statement)
    }

    async fn execute_unprepared(&self, sql: &str) -> Result<ExecResult, DbErr> {
        self.lock().execute_batch(sql).map_err(to_exec)?;
        Ok(ProxyExecResult::default().into())
    }

    async fn query_one_raw(&self, statement: Statement) -> Result<Option<QueryResult>, DbErr> {
        Ok(self.query(&statement, 1)?.pop())
    }

    async fn query_all_raw(&self, statement: Statement) -> Result<Vec<QueryResult>, DbErr> {
        self.query(&statement, usize::MAX)
    }
}

// === impl Readers ===

impl Readers {
    pub(super) fn new(path: PathBuf, connections: Vec<Sqlite>) -> Self {
        Self { path, connections, next: AtomicUsize::new(0) }
    }

    /// The file that is read.
    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// One that nobody reads with now; else the next in turn, to be waited for.
    pub(super) fn free(&self) -> Result<Sqlite, DbErr> {
        let busy = |it: &&Sqlite| matches!(it.0.try_lock(), Err(TryLockError::WouldBlock));
        let next = self.next.fetch_add(1, Ordering::Relaxed);
        let count = self.connections.len().max(1);
        let in_turn = || self.connections.iter().cycle().skip(next % count).take(count);
        let free = in_turn().find(|it| !busy(it)).or_else(|| in_turn().next());
        let closed = || DbErr::Conn(RuntimeErr::Internal("the store is closed".to_owned()));
        free.cloned().ok_or_else(closed)
    }
}

/// Puts the values in: `$3` takes the third, wherever it stands, and a bare `?` the next.
fn bind(
    statement: &mut rusqlite::Statement<'_>,
    values: Option<&Values>,
) -> Result<(), rusqlite::Error> {
    let values = values.map_or(&[][..], |values| values.0.as_slice());
    for index in 1..=statement.parameter_count() {
        let number = match statement.parameter_name(index) {
            Some(name) => name.get(1..).and_then(|digits| digits.parse().ok()),
            None => Some(index),
        };
        let value = number.and_then(|number: usize| values.get(number.checked_sub(1)?));
        let Some(value) = value else {
            return Err(rusqlite::Error::InvalidParameterCount(values.len(), index));
        };
        statement.raw_bind_parameter(index, Bound(value))?;
    }
    Ok(())
}

/// Names of columns, and which of them are BOOLEAN: SQLite keeps those as integers.
fn columns(statement: &rusqlite::Statement<'_>) -> Vec<(String, bool)> {
    (statement.columns())
        .map(|column| (column.name().to_owned(), column.decl_type() == Some("BOOLEAN")))
        .collect()
}

fn read(row: &Row<'_>, columns: &[(String, bool)]) -> Result<ProxyRow, rusqlite::Error> {
    let mut values = BTreeMap::new();
    for (index, (name, is_bool)) in columns.iter().enumerate() {
        let value = match row.get_ref(index)? {
            ValueRef::Null if *is_bool => Value::Bool(None),
            ValueRef::Null => Value::BigInt(None),
            ValueRef::Integer(number) if *is_bool => Value::Bool(Some(number != 0)),
            ValueRef::Integer(number) => Value::BigInt(Some(number)),
            ValueRef::Real(number) => Value::Double(Some(number)),
            ValueRef::Text(text) => {
                let text = std::str::from_utf8(text)
                    .map_err(|error| rusqlite::Error::Utf8Error(index, error))?;
                Value::String(Some(text.to_owned()))
            }
            ValueRef::Blob(bytes) => Value::Bytes(Some(bytes.to_vec())),
        };
        values.insert(name.clone(), value);
    }
    Ok(ProxyRow::new(values))
}

// === impl Bound ===

impl ToSql for Bound<'_> {
    #[expect(
        clippy::wildcard_enum_match_arm,
        reason = "the other types are refused, whatever they are: PostgreSQL has them otherwise"
    )]
    fn to_sql(&self) -> rusqlite::Result<ToSqlOutput<'_>> {
        let value = match self.0 {
            Value::Bool(value) => value.map_or(ValueRef::Null, |it| ValueRef::Integer(it.into())),
            Value::Int(value) => value.map_or(ValueRef::Null, |it| ValueRef::Integer(it.into())),
            Value::BigInt(value) => value.map_or(ValueRef::Null, ValueRef::Integer),
            Value::Double(value) => value.map_or(ValueRef::Null, ValueRef::Real),
            Value::String(value) => {
                value.as_ref().map_or(ValueRef::Null, |it| ValueRef::Text(it.as_bytes()))
            }
            Value::Bytes(value) => value.as_ref().map_or(ValueRef::Null, |it| ValueRef::Blob(it)),
            other => {
                let problem = format!("{other:?} is of no type that both databases have");
                return Err(rusqlite::Error::ToSqlConversionFailure(problem.into()));
            }
        };
        Ok(ToSqlOutput::Borrowed(value))
    }
}

// === impl Problem ===

impl From<rusqlite::Error> for Problem {
    fn from(error: rusqlite::Error) -> Self {
        if let rusqlite::Error::SqliteFailure(code, message) = error {
            let message = message.unwrap_or_else(|| code.to_string());
            return Self { code: Some(code.extended_code), message };
        }
        Self { code: None, message: error.to_string() }
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.code {
            Some(code) => write!(f, "{} (SQLite {code})", self.message),
            None => f.write_str(&self.message),
        }
    }
}

impl Error for Problem {}

/// So that an error of SQLite is told from others in the same way as one of PostgreSQL.
impl sqlx::error::DatabaseError for Problem {
    fn message(&self) -> &str {
        &self.message
    }

    fn code(&self) -> Option<Cow<'_, str>> {
        self.code.map(|code| Cow::Owned(code.to_string()))
    }

    fn as_error(&self) -> &(dyn Error + Send + Sync + 'static) {
        self
    }

    fn as_error_mut(&mut self) -> &mut (dyn Error + Send + Sync + 'static) {
        self
    }

    fn into_error(self: Box<Self>) -> Box<dyn Error + Send + Sync + 'static> {
        self
    }

    fn kind(&self) -> ErrorKind {
        match self.code {
            Some(
                SQLITE_CONSTRAINT_UNIQUE | SQLITE_CONSTRAINT_PRIMARYKEY | SQLITE_CONSTRAINT_ROWID,
            ) => ErrorKind::UniqueViolation,
            Some(SQLITE_CONSTRAINT_FOREIGNKEY) => ErrorKind::ForeignKeyViolation,
            Some(SQLITE_CONSTRAINT_NOTNULL) => ErrorKind::NotNullViolation,
            Some(SQLITE_CONSTRAINT_CHECK) => ErrorKind::CheckViolation,
            Some(_) | None => ErrorKind::Other,
        }
    }
}

fn to_exec(error: rusqlite::Error) -> DbErr {
    DbErr::Exec(as_runtime(error))
}

fn to_query(error: rusqlite::Error) -> DbErr {
    DbErr::Query(as_runtime(error))
}

fn as_runtime(error: rusqlite::Error) -> RuntimeErr {
    RuntimeErr::SqlxError(Arc::new(sqlx::Error::Database(Box::new(Problem::from(error)))))
}
