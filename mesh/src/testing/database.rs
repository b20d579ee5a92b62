//! A database of its own for each test, on SQLite or PostgreSQL.

use std::{env, ops::Deref};

use sea_orm::{ConnectOptions, ConnectionTrait, Database};
use tempfile::TempDir;

use crate::store::Store;

/// A fresh database, gone when the test ends.
#[derive(Debug)]
pub struct TestDb {
    /// The store, opened and migrated.
    pub store: Store,
    /// What a process would be given to open it.
    pub url: String,
    _folder: Option<TempDir>,
}

impl Deref for TestDb {
    type Target = Store;

    fn deref(&self) -> &Store {
        &self.store
    }
}

/// The server that `postgres` makes its databases on: `postgres://user@host:port`.
pub const POSTGRES: &str = "ORDERMESH_TEST_POSTGRES";

/// A SQLite file of its own.
///
/// # Panics
/// If it cannot be made: the test cannot go on.
#[expect(clippy::expect_used, reason = "a test without a database fails")]
pub async fn sqlite(migrations: Vec<crate::store::Migration>) -> TestDb {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let url = format!("sqlite://{}", folder.path().join("test.db").display());
    let store = Store::connect(&url, migrations).await.expect("a SQLite database");
    TestDb { store, url, _folder: Some(folder) }
}

/// A database of its own on the PostgreSQL server that the environment names; tests that call
/// this say `#[ignore = "needs postgres"]`.
///
/// # Panics
/// If no server is named or it cannot be used: a test that was asked for does not pass by being
/// skipped.
#[expect(clippy::expect_used, reason = "a test without a database fails")]
pub async fn postgres(migrations: Vec<crate::store::Migration>) -> TestDb {
    let server = env::var(POSTGRES).expect("ORDERMESH_TEST_POSTGRES names a server");
    let server = server.trim_end_matches('/');
    let name = format!("test_{}", crate::clock::id().simple());
    let admin = Database::connect(ConnectOptions::new(format!("{server}/postgres")))
        .await
        .expect("the server of ORDERMESH_TEST_POSTGRES");
    admin.execute_unprepared(&format!("CREATE DATABASE {name}")).await.expect("a database");
    admin.close().await.expect("the server lets go");
    let url = format!("{server}/{name}");
    let store = Store::connect(&url, migrations).await.expect("a PostgreSQL database");
    TestDb { store, url, _folder: None }
}
