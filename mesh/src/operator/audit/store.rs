//! All tables from one snapshot, row by row, whatever their columns are.

use base64::{Engine as _, prelude::BASE64_STANDARD};
use prost_types::{Struct, Value, value::Kind};
use sea_orm::{ConnectionTrait as _, DbBackend, ProxyRow, QueryResult, Statement};
use tokio::sync::mpsc;
use tonic::Status;

use super::Table;
use crate::{
    store::{Failure, Store, Txn, execute, failed_to},
    wire::ordermesh::operator::v1::ExportResponse,
};

type Rows = mpsc::Sender<Result<ExportResponse, Status>>;

const DOING: &str = "export tables";

/// Integers up to here are exact as numbers.
const EXACT: i64 = 1 << 53;

/// Sends the rows of all tables, or as many as somebody takes.
pub(super) async fn export(store: &Store, tables: Vec<Table>, rows: Rows) -> Result<(), Failure> {
    if store.is_postgres() {
        postgres(store, tables, rows).await
    } else {
        sqlite(store, tables, rows).await
    }
}

/// In a transaction that sees the database as it is at its first statement, by a cursor: the
/// rows are never all in memory.
async fn postgres(store: &Store, tables: Vec<Table>, rows: Rows) -> Result<(), Failure> {
    store
        .transaction(move |txn| {
            let (tables, rows) = (tables.clone(), rows.clone());
            Box::pin(async move {
                let sql = "SET TRANSACTION ISOLATION LEVEL REPEATABLE READ, READ ONLY";
                execute(txn, DOING, sql, vec![]).await?;
                for table in tables {
                    if !fetch(txn, table, &rows).await? {
                        break;
                    }
                }
                Ok(())
            })
        })
        .await
}

/// `false` if nobody reads any more.
async fn fetch(txn: &Txn, table: Table, rows: &Rows) -> Result<bool, Failure> {
    // A name of its own: a prepared FETCH keeps the columns that it had first.
    let cursor = ["export_", table.name].concat();
    let sql = ["DECLARE ", &cursor, " NO SCROLL CURSOR FOR ", table.sql].concat();
    execute(txn, DOING, &sql, vec![]).await?;
    let fetch = ["FETCH 500 FROM ", &cursor].concat();
    loop {
        let statement = Statement::from_string(DbBackend::Postgres, fetch.as_str());
        let found = txn.query_all_raw(statement).await.map_err(failed_to(DOING))?;
        if found.is_empty() {
            break;
        }
        for row in found {
            if rows.send(Ok(response(table, &row)?)).await.is_err() {
                return Ok(false);
            }
        }
    }
    execute(txn, DOING, &["CLOSE ", &cursor].concat(), vec![]).await?;
    Ok(true)
}

/// On a connection and a thread of its own: readers and the writer go on meanwhile.
async fn sqlite(store: &Store, tables: Vec<Table>, rows: Rows) -> Result<(), Failure> {
    let queries = tables.iter().map(|table| table.sql).collect();
    let send = move |query: usize, row: ProxyRow| {
        let Some(table) = tables.get(query) else { return false };
        let fields = row
            .into_column_value_tuples()
            .map(|(column, value)| (column, prost_types::Value { kind: Some(kind(value)) }));
        let row = Some(Struct { fields: fields.collect() });
        rows.blocking_send(Ok(ExportResponse { table: table.name.to_owned(), row })).is_ok()
    };
    store.snapshot(queries, send).await
}

/// A value of SQLite, which has these types and no others.
fn kind(value: sea_orm::Value) -> Kind {
    use sea_orm::Value;
    if let Value::Bool(Some(truth)) = value {
        return integer(truth.into());
    }
    if let Value::BigInt(Some(number)) = value {
        return integer(number);
    }
    if let Value::Double(Some(number)) = value {
        return Kind::NumberValue(number);
    }
    if let Value::String(Some(text)) = value {
        return Kind::StringValue(text);
    }
    if let Value::Bytes(Some(bytes)) = value {
        return Kind::StringValue(BASE64_STANDARD.encode(bytes));
    }
    Kind::NullValue(0)
}

fn response(table: Table, row: &QueryResult) -> Result<ExportResponse, Failure> {
    let mut fields = std::collections::BTreeMap::new();
    for column in row.column_names() {
        let value = value(row, &column).ok_or_else(|| {
            Failure::new(DOING, format!("{}.{column} has no type for it", table.name))
        })?;
        fields.insert(column, Value { kind: Some(value) });
    }
    Ok(ExportResponse { table: table.name.to_owned(), row: Some(Struct { fields }) })
}

/// A value of whatever type the database says it has.
fn value(row: &QueryResult, column: &str) -> Option<Kind> {
    if let Ok(number) = row.try_get::<Option<i64>>("", column) {
        return Some(number.map_or(Kind::NullValue(0), integer));
    }
    if let Ok(number) = row.try_get::<Option<i32>>("", column) {
        return Some(number.map_or(Kind::NullValue(0), |number| integer(number.into())));
    }
    if let Ok(text) = row.try_get::<Option<String>>("", column) {
        return Some(text.map_or(Kind::NullValue(0), Kind::StringValue));
    }
    if let Ok(truth) = row.try_get::<Option<bool>>("", column) {
        return Some(truth.map_or(Kind::NullValue(0), |truth| integer(truth.into())));
    }
    let bytes = row.try_get::<Option<Vec<u8>>>("", column).ok()?;
    let text = |bytes: Vec<u8>| Kind::StringValue(BASE64_STANDARD.encode(bytes));
    Some(bytes.map_or(Kind::NullValue(0), text))
}

fn integer(number: i64) -> Kind {
    if (-EXACT..=EXACT).contains(&number) {
        #[expect(clippy::cast_precision_loss, reason = "exact within 53 bits")]
        let number = number as f64;
        return Kind::NumberValue(number);
    }
    Kind::StringValue(number.to_string())
}
