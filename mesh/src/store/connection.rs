//! What statements are asked of: a transaction, or connections that only read; whichever
//! database it is.

use sea_orm::{
    ConnectionTrait, DatabaseConnection, DatabaseTransaction, DbBackend, DbErr, ExecResult,
    QueryResult, Statement, prelude::async_trait::async_trait,
};

use super::sqlite::{Readers, Sqlite};

/// A transaction that a closure of [`super::Store::transaction`] works in.
#[derive(Debug)]
pub struct Txn(pub(super) Transaction);

#[derive(Debug)]
pub(super) enum Transaction {
    Postgres(DatabaseTransaction),
    Sqlite(Sqlite),
}

/// What statements that only read are asked of.
#[derive(Debug)]
pub struct Reader(pub(super) Connections);

#[derive(Debug)]
pub(super) enum Connections {
    Postgres(DatabaseConnection),
    Sqlite(Readers),
}

// === impl Txn ===

#[async_trait]
impl ConnectionTrait for Txn {
    fn get_database_backend(&self) -> DbBackend {
        match &self.0 {
            Transaction::Postgres(_) => DbBackend::Postgres,
            Transaction::Sqlite(_) => DbBackend::Sqlite,
        }
    }

    async fn execute_raw(&self, statement: Statement) -> Result<ExecResult, DbErr> {
        match &self.0 {
            Transaction::Postgres(txn) => txn.execute_raw(statement).await,
            Transaction::Sqlite(connection) => connection.execute_raw(statement).await,
        }
    }

    async fn execute_unprepared(&self, sql: &str) -> Result<ExecResult, DbErr> {
        match &self.0 {
            Transaction::Postgres(txn) => txn.execute_unprepared(sql).await,
            Transaction::Sqlite(connection) => connection.execute_unprepared(sql).await,
        }
    }

    async fn query_one_raw(&self, statement: Statement) -> Result<Option<QueryResult>, DbErr> {
        match &self.0 {
            Transaction::Postgres(txn) => txn.query_one_raw(statement).await,
            Transaction::Sqlite(connection) => connection.query_one_raw(statement).await,
        }
    }

    async fn query_all_raw(&self, statement: Statement) -> Result<Vec<QueryResult>, DbErr> {
        match &self.0 {
            Transaction::Postgres(txn) => txn.query_all_raw(statement).await,
            Transaction::Sqlite(connection) => connection.query_all_raw(statement).await,
        }
    }
}

// === impl Reader ===

#[async_trait]
impl ConnectionTrait for Reader {
    fn get_database_backend(&self) -> DbBackend {
        match &self.0 {
            Connections::Postgres(_) => DbBackend::Postgres,
            Connections::Sqlite(_) => DbBackend::Sqlite,
        }
    }

    async fn execute_raw(&self, statement: Statement) -> Result<ExecResult, DbErr> {
        match &self.0 {
            Connections::Postgres(pool) => pool.execute_raw(statement).await,
            Connections::Sqlite(readers) => readers.free()?.execute_raw(statement).await,
        }
    }

    async fn execute_unprepared(&self, sql: &str) -> Result<ExecResult, DbErr> {
        match &self.0 {
            Connections::Postgres(pool) => pool.execute_unprepared(sql).await,
            Connections::Sqlite(readers) => readers.free()?.execute_unprepared(sql).await,
        }
    }

    async fn query_one_raw(&self, statement: Statement) -> Result<Option<QueryResult>, DbErr> {
        match &self.0 {
            Connections::Postgres(pool) => pool.query_one_raw(statement).await,
            Connections::Sqlite(readers) => readers.free()?.query_one_raw(statement).await,
        }
    }

    async fn query_all_raw(&self, statement: Statement) -> Result<Vec<QueryResult>, DbErr> {
        match &self.0 {
            Connections::Postgres(pool) => pool.query_all_raw(statement).await,
            Connections::Sqlite(readers) => readers.free()?.query_all_raw(statement).await,
        }
    }
}
