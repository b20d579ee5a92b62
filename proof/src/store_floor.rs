//! The floor: what the same disk does with the same statements and nothing around them.
//!
//! The rows that one order left in the orders database are read, and inserted again and again
//! into an empty database of the same schema, with fresh ids, by one connection with the same
//! durability: once with a transaction per order, once with as many orders in a transaction as
//! the service was observed to join.

use std::{
    collections::HashMap,
    path::Path,
    time::{Duration, Instant},
};

use anyhow::Context as _;
use mesh::clock;
use sea_orm::sqlx::{
    self, AssertSqlSafe, Column as _, Connection as _, Row as _, SqliteConnection, TypeInfo as _,
    ValueRef as _,
    sqlite::{SqliteConnectOptions, SqliteJournalMode, SqliteSynchronous},
};
use uuid::Uuid;

/// The tables that an accepted order leaves rows in, as they are written.
const TABLES: [&str; 6] = ["request_key", "orders", "order_line", "saga", "saga_step", "outbox"];

/// A value of a row, owned.
#[derive(Clone, Debug)]
enum Cell {
    Null,
    Integer(i64),
    Text(String),
    Blob(Vec<u8>),
}

/// The rows of one order, ready to be written again.
#[derive(Debug)]
pub struct Floor {
    schema: Vec<String>,
    rows: Vec<(String, Vec<Cell>)>,
}

// === impl Floor ===

impl Floor {
    /// Reads schema and sample from the orders database of a run.
    ///
    /// # Errors
    /// The file is no orders database with at least one order in it.
    pub async fn sample(orders: &Path) -> anyhow::Result<Self> {
        let options = SqliteConnectOptions::new().filename(orders).read_only(true);
        let mut db = SqliteConnection::connect_with(&options)
            .await
            .with_context(|| format!("cannot open {}", orders.display()))?;
        let schema = sqlx::query_scalar::<_, String>(
            "SELECT sql FROM sqlite_master WHERE sql IS NOT NULL AND name NOT LIKE 'sqlite_%' ORDER BY type DESC",
        )
        .fetch_all(&mut db)
        .await?;
        let id: String = sqlx::query_scalar("SELECT id FROM orders ORDER BY id DESC LIMIT 1")
            .fetch_optional(&mut db)
            .await?
            .context("no order was placed")?;
        let mut rows = Vec::new();
        for table in TABLES {
            // An accepted order has written one event and one saga step; what came later does
            // not belong to the floor of accepting it.
            let sql =
                format!("SELECT * FROM {table} WHERE {} ORDER BY rowid LIMIT 1", belongs(table));
            let found = sqlx::query(AssertSqlSafe(sql)).bind(&id).fetch_all(&mut db).await?;
            for row in found {
                let mut names = Vec::new();
                let mut cells = Vec::new();
                for (index, column) in row.columns().iter().enumerate() {
                    // Keys that the database gives.
                    if table == "outbox" && column.name() == "id" {
                        continue;
                    }
                    names.push(column.name().to_owned());
                    cells.push(cell(&row, index)?);
                }
                let marks = vec!["?"; names.len()].join(", ");
                rows.push((
                    format!("INSERT INTO {table} ({}) VALUES ({marks})", names.join(", ")),
                    cells,
                ));
            }
        }
        anyhow::ensure!(rows.len() >= 4, "an order leaves {} rows, which cannot be", rows.len());
        Ok(Self { schema, rows })
    }

    /// How many statements one order is.
    #[must_use]
    pub fn statements(&self) -> usize {
        self.rows.len()
    }

    /// Orders a second into a new database at `file`, so many in a transaction, for `duration`.
    ///
    /// # Errors
    /// The database cannot be made or written.
    pub async fn run(&self, file: &Path, each: usize, duration: Duration) -> anyhow::Result<f64> {
        for suffix in ["", "-wal", "-shm"] {
            let old = file.with_file_name(format!(
                "{}{suffix}",
                file.file_name().unwrap_or_default().to_string_lossy()
            ));
            if old.exists() {
                std::fs::remove_file(old)?;
            }
        }
        let options = SqliteConnectOptions::new()
            .filename(file)
            .create_if_missing(true)
            .journal_mode(SqliteJournalMode::Wal)
            .synchronous(SqliteSynchronous::Full)
            .foreign_keys(false);
        let mut db = SqliteConnection::connect_with(&options).await?;
        for statement in &self.schema {
            sqlx::query(AssertSqlSafe(statement.clone())).execute(&mut db).await?;
        }
        let began: Instant = clock::instant().into_std();
        let mut orders = 0_u32;
        while began.elapsed() < duration {
            let mut transaction = db.begin().await?;
            for _ in 0..each.max(1) {
                self.insert(&mut transaction).await?;
                orders += 1;
            }
            transaction.commit().await?;
        }
        let rate = f64::from(orders) / began.elapsed().as_secs_f64();
        db.close().await?;
        Ok(rate)
    }

    async fn insert(&self, db: &mut SqliteConnection) -> anyhow::Result<()> {
        let mut fresh = HashMap::new();
        for (sql, cells) in &self.rows {
            let mut query = sqlx::query(AssertSqlSafe(sql.as_str()));
            for cell in cells {
                query = match cell {
                    Cell::Null => query.bind(None::<i64>),
                    Cell::Integer(value) => query.bind(*value),
                    Cell::Text(text) => query.bind(renew(text, &mut fresh)),
                    Cell::Blob(bytes) => query.bind(bytes.clone()),
                };
            }
            query.execute(&mut *db).await?;
        }
        Ok(())
    }
}

/// Which rows of a table belong to the order `?`; ids stand alone or at the end of a name.
fn belongs(table: &str) -> &'static str {
    match table {
        "orders" => "id = ?",
        "saga" => "key LIKE '%' || ?",
        "saga_step" => "saga IN (SELECT id FROM saga WHERE key LIKE '%' || ?)",
        "outbox" => "aggregate LIKE '%' || ?",
        "request_key" => "? IS NOT NULL",
        _ => "order_id = ?",
    }
}

fn cell(row: &sqlx::sqlite::SqliteRow, index: usize) -> anyhow::Result<Cell> {
    let value = row.try_get_raw(index)?;
    if value.is_null() {
        return Ok(Cell::Null);
    }
    let kind = value.type_info().name().to_owned();
    Ok(match kind.as_str() {
        "INTEGER" | "BIGINT" | "INT8" | "BOOLEAN" => Cell::Integer(row.try_get(index)?),
        "BLOB" => Cell::Blob(row.try_get(index)?),
        _ => Cell::Text(row.try_get_unchecked(index)?),
    })
}

/// Replaces every UUID in `text`, the same one by the same one within an order.
fn renew(text: &str, fresh: &mut HashMap<String, String>) -> String {
    const LENGTH: usize = 36;
    let start = text.len().saturating_sub(LENGTH);
    match text.get(start..).filter(|tail| Uuid::parse_str(tail).is_ok() && tail.len() == LENGTH) {
        Some(old) => {
            let new = fresh.entry(old.to_owned()).or_insert_with(|| clock::id().to_string());
            format!("{}{new}", &text[..start])
        }
        None => text.to_owned(),
    }
}
