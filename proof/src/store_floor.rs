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
use rusqlite::{Connection, OpenFlags, params_from_iter, types::Value};
use uuid::Uuid;

/// The tables that an accepted order leaves rows in, as they are written.
const TABLES: [&str; 6] = ["request_key", "orders", "order_line", "saga", "saga_step", "outbox"];

/// The rows of one order, ready to be written again.
#[derive(Debug)]
pub struct Floor {
    schema: Vec<String>,
    rows: Vec<(String, Vec<Value>)>,
}

// === impl Floor ===

impl Floor {
    /// Reads schema and sample from the orders database of a run.
    ///
    /// # Errors
    /// The file is no orders database with at least one order in it.
    pub fn sample(orders: &Path) -> anyhow::Result<Self> {
        let db = Connection::open_with_flags(orders, OpenFlags::SQLITE_OPEN_READ_ONLY)
            .with_context(|| format!("cannot open {}", orders.display()))?;
        let schema = db
            .prepare(
                "SELECT sql FROM sqlite_master WHERE sql IS NOT NULL AND name NOT LIKE 'sqlite_%' \
                 ORDER BY type DESC",
            )?
            .query_map([], |row| row.get(0))?
            .collect::<Result<Vec<String>, _>>()?;
        let newest = "SELECT id FROM orders ORDER BY id DESC LIMIT 1";
        let id: String =
            db.query_row(newest, [], |row| row.get(0)).context("no order was placed")?;
        let mut rows = Vec::new();
        for table in TABLES {
            // An accepted order has written one event and one saga step; what came later does
            // not belong to the floor of accepting it.
            let sql =
                format!("SELECT * FROM {table} WHERE {} ORDER BY rowid LIMIT 1", belongs(table));
            let mut statement = db.prepare(&sql)?;
            // What is given later, by the database or the sequencer, is left out.
            let kept: Vec<(usize, String)> = (statement.column_names().enumerate())
                .filter(|(_, name)| table != "outbox" || !matches!(*name, "id" | "position"))
                .map(|(index, name)| (index, name.to_owned()))
                .collect();
            let mut found = statement.query([&id])?;
            while let Some(row) = found.next()? {
                let cells: Result<Vec<Value>, _> =
                    kept.iter().map(|(index, _)| row.get(*index)).collect();
                let names: Vec<&str> = kept.iter().map(|(_, name)| name.as_str()).collect();
                let marks = vec!["?"; names.len()].join(", ");
                let insert = format!("INSERT INTO {table} ({}) VALUES ({marks})", names.join(", "));
                rows.push((insert, cells?));
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
    pub fn run(&self, file: &Path, each: usize, duration: Duration) -> anyhow::Result<f64> {
        for suffix in ["", "-wal", "-shm"] {
            let old = file.with_file_name(format!(
                "{}{suffix}",
                file.file_name().unwrap_or_default().to_string_lossy()
            ));
            if old.exists() {
                std::fs::remove_file(old)?;
            }
        }
        let mut db = Connection::open(file)?;
        db.execute_batch("PRAGMA journal_mode = WAL; PRAGMA synchronous = FULL;")?;
        for statement in &self.schema {
            db.execute_batch(statement)?;
        }
        let began: Instant = clock::instant().into_std();
        let mut orders = 0_u32;
        while began.elapsed() < duration {
            let transaction = db.transaction()?;
            for _ in 0..each.max(1) {
                self.insert(&transaction)?;
                orders += 1;
            }
            transaction.commit()?;
        }
        Ok(f64::from(orders) / began.elapsed().as_secs_f64())
    }

    fn insert(&self, db: &Connection) -> anyhow::Result<()> {
        let mut fresh = HashMap::new();
        for (sql, cells) in &self.rows {
            let values = cells.iter().map(|cell| match cell {
                Value::Text(text) => Value::Text(renew(text, &mut fresh)),
                Value::Null | Value::Integer(_) | Value::Real(_) | Value::Blob(_) => cell.clone(),
            });
            db.prepare_cached(sql)?.execute(params_from_iter(values))?;
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
