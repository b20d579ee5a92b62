//! Tables are made and changed at start, in order, once: mesh's own, then the service's.
//!
//! All of it happens in one transaction under a lock, on both databases: a process that is
//! killed half-way, or starts beside another, finds all of it or nothing.

use std::collections::BTreeSet;

use sea_orm::{
    ConnectionTrait, DatabaseConnection, DbBackend, DbErr, FromQueryResult, TransactionTrait,
};

use super::{Failure, execute, failed_to, rows, sqlite::Sqlite};
use crate::clock;

/// One step, written in SQL that [`dialect`] turns into either database's.
#[derive(Clone, Copy, Debug)]
pub struct Migration {
    name: &'static str,
    sql: &'static str,
}

#[derive(FromQueryResult)]
struct Applied {
    name: String,
}

const DOING: &str = "bring the tables up to date";

/// Any number will do, as long as all releases agree on it.
const LOCK: &str = "SELECT pg_advisory_xact_lock(7310304918572541)";

const OWN_TABLE: &str =
    "CREATE TABLE IF NOT EXISTS migration (name TEXT PRIMARY KEY, applied_at BIGINT NOT NULL)";

/// A step of a service's migrations: `name` is numbered and never used again, `sql` is any
/// number of statements for both databases. Of types they share BIGINT, TEXT and BOOLEAN; BLOB
/// becomes PostgreSQL's BYTEA, and a column `id IDENTITY` a primary key that counts up. A step
/// that was released is never edited.
#[must_use]
pub fn step(name: &'static str, sql: &'static str) -> Migration {
    Migration { name, sql }
}

/// Applies what is missing to a SQLite file.
pub(super) async fn sqlite(connection: &Sqlite, service: Vec<Migration>) -> Result<(), Failure> {
    // At once a writer: nobody else begins beside it.
    connection.run("BEGIN IMMEDIATE").map_err(failed_to(DOING))?;
    match run(connection, service).await {
        Ok(()) => connection.run("COMMIT").map_err(failed_to(DOING)),
        Err(failure) => {
            connection.run("ROLLBACK").map_err(failed_to(DOING))?;
            Err(failure)
        }
    }
}

/// Applies what is missing to a PostgreSQL database.
pub(super) async fn postgres(
    pool: &DatabaseConnection,
    service: Vec<Migration>,
) -> Result<(), Failure> {
    let txn = pool.begin().await.map_err(failed_to(DOING))?;
    execute(&txn, DOING, LOCK, vec![]).await?;
    run(&txn, service).await?;
    txn.commit().await.map_err(failed_to(DOING))
}

async fn run<C: ConnectionTrait>(txn: &C, service: Vec<Migration>) -> Result<(), Failure> {
    execute(txn, DOING, OWN_TABLE, vec![]).await?;
    let own = [
        step("mesh_0001_durable", include_str!("migrate/mesh_0001_durable.sql")),
        step("mesh_0002_events", include_str!("migrate/mesh_0002_events.sql")),
        step("mesh_0003_age", include_str!("migrate/mesh_0003_age.sql")),
    ];
    let known: Vec<_> = own.into_iter().chain(service).collect();
    let missing = missing(txn, &known).await?;
    for Migration { name, sql } in known.iter().filter(|step| missing.contains(step.name)) {
        for statement in dialect(sql, txn.get_database_backend()) {
            let failed = |error: DbErr| Failure {
                doing: DOING,
                source: DbErr::Migration(format!("{name}: {error}")),
            };
            txn.execute_unprepared(&statement).await.map_err(failed)?;
        }
        let values = vec![(*name).into(), clock::micros(clock::now()).into()];
        let sql = "INSERT INTO migration (name, applied_at) VALUES ($1, $2)";
        execute(txn, DOING, sql, values).await?;
        tracing::info!(migration = name, "tables changed by {name}");
    }
    Ok(())
}

/// The names of the steps that were not applied yet.
async fn missing<C: ConnectionTrait>(
    txn: &C,
    known: &[Migration],
) -> Result<BTreeSet<&'static str>, Failure> {
    let applied: Vec<Applied> =
        rows(txn, DOING, "SELECT name FROM migration ORDER BY name", vec![]).await?;
    let mut missing: BTreeSet<&str> = BTreeSet::new();
    for migration in known {
        if !missing.insert(migration.name) {
            return Err(Failure::new(DOING, format!("{} stands twice", migration.name)));
        }
    }
    let mut unknown = Vec::new();
    for Applied { name } in applied {
        if !missing.remove(name.as_str()) {
            unknown.push(name);
        }
    }
    if unknown.is_empty() {
        return Ok(missing);
    }
    // To write tables that one does not know may break rules that one does not know.
    let names = unknown.join(", ");
    let problem = format!("a newer release changed them ({names}); start that release");
    Err(Failure::new(DOING, problem))
}

/// Splits at `;` and puts in the words of the database, both outside of quotes; comments go.
fn dialect(sql: &str, backend: DbBackend) -> Vec<String> {
    let (blob, identity) = if backend == DbBackend::Postgres {
        ("BYTEA", "BIGINT GENERATED ALWAYS AS IDENTITY PRIMARY KEY")
    } else {
        ("BLOB", "INTEGER PRIMARY KEY AUTOINCREMENT")
    };
    let mut statements = Vec::new();
    let mut statement = String::new();
    let mut rest = sql;
    while let Some(c) = rest.chars().next() {
        let end = if rest.starts_with("--") {
            rest.find('\n').unwrap_or(rest.len())
        } else if matches!(c, '\'' | '"') {
            // A doubled quote closes and opens again: the same in the end.
            rest.get(1..).and_then(|inner| inner.find(c)).map_or(rest.len(), |end| end + 2)
        } else if c.is_ascii_alphanumeric() || c == '_' {
            let in_word = |c: char| c.is_ascii_alphanumeric() || c == '_';
            rest.find(|c| !in_word(c)).unwrap_or(rest.len())
        } else {
            c.len_utf8()
        };
        let (token, after) = rest.split_at(end);
        match token {
            ";" => statements.push(std::mem::take(&mut statement)),
            "BLOB" => statement.push_str(blob),
            "IDENTITY" => statement.push_str(identity),
            comment if comment.starts_with("--") => {}
            other => statement.push_str(other),
        }
        rest = after;
    }
    statements.push(statement);
    statements
        .into_iter()
        .map(|statement| statement.trim().to_owned())
        .filter(|statement| !statement.is_empty())
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_text_becomes_the_statements_of_either_database() {
        let sql = "CREATE TABLE a (id IDENTITY, b BLOB DEFAULT 'a;''BLOB', BLOBS TEXT); -- one; two\n\
                   CREATE INDEX i ON a (b);\n";
        assert_eq!(
            dialect(sql, DbBackend::Sqlite),
            [
                "CREATE TABLE a (id INTEGER PRIMARY KEY AUTOINCREMENT, b BLOB DEFAULT 'a;''BLOB', BLOBS TEXT)",
                "CREATE INDEX i ON a (b)",
            ]
        );
        assert_eq!(
            dialect(sql, DbBackend::Postgres),
            [
                "CREATE TABLE a (id BIGINT GENERATED ALWAYS AS IDENTITY PRIMARY KEY, b BYTEA DEFAULT 'a;''BLOB', BLOBS TEXT)",
                "CREATE INDEX i ON a (b)",
            ]
        );
    }
}
