//! Prices: appended, read, listed.

use mesh::{
    clock::{from_micros, micros},
    money::{Currency, Money},
    store::{Failure, Txn, execute, row, rows},
};
use sea_orm::{FromQueryResult, Value};
use uuid::Uuid;

use super::{Store, WriteError, broken};
use crate::domain::{Amount, Price, Sku};

#[derive(FromQueryResult)]
struct Row {
    id: String,
    sku: String,
    minor: i64,
    currency: String,
    effective_at: i64,
    created_at: i64,
}

impl Store {
    /// The price of this id.
    ///
    /// # Errors
    /// The database cannot be read.
    pub async fn price(&self, id: Uuid) -> Result<Option<Price>, Failure> {
        let sql = "SELECT * FROM price WHERE id = $1";
        let found: Option<Row> =
            row(self.mesh.reader(), "read a price", sql, vec![id.to_string().into()]).await?;
        found.map(read).transpose()
    }

    /// At most `limit` prices in the order of their ids, those after `after`; of one variant
    /// alone, if it is given.
    ///
    /// # Errors
    /// The database cannot be read.
    pub async fn prices(
        &self,
        after: &str,
        sku: Option<&Sku>,
        limit: u64,
    ) -> Result<Vec<Price>, Failure> {
        let limit = i64::try_from(limit).unwrap_or(i64::MAX);
        let mut values: Vec<Value> = vec![after.into(), limit.into()];
        let sql = match sku {
            Some(sku) => {
                values.push(sku.as_str().into());
                "SELECT * FROM price WHERE id > $1 AND sku = $3 ORDER BY id LIMIT $2"
            }
            None => "SELECT * FROM price WHERE id > $1 ORDER BY id LIMIT $2",
        };
        let found: Vec<Row> = rows(self.mesh.reader(), "list prices", sql, values).await?;
        found.into_iter().map(read).collect()
    }
}

/// Adds a price; the variant's row was written before.
pub(super) async fn append(txn: &Txn, price: &Price) -> Result<(), WriteError> {
    let sql = "INSERT INTO price (id, sku, minor, currency, effective_at, created_at) \
         VALUES ($1, $2, $3, $4, $5, $6)";
    let Money { minor, currency } = price.amount.money();
    let values = vec![
        price.id.to_string().into(),
        price.sku.as_str().into(),
        minor.into(),
        currency.code().into(),
        micros(price.effective_at).into(),
        micros(price.created_at).into(),
    ];
    execute(txn, "append a price", sql, values).await?;
    Ok(())
}

fn read(row: Row) -> Result<Price, Failure> {
    let currency = Currency::parse(&row.currency).map_err(|_unknown| broken("currency"))?;
    Ok(Price {
        id: Uuid::try_parse(&row.id).map_err(|_error| broken("id"))?,
        sku: Sku::parse(&row.sku).map_err(|_problem| broken("sku"))?,
        amount: Amount::parse(Money::new(row.minor, currency))
            .map_err(|_problem| broken("amount"))?,
        effective_at: from_micros(row.effective_at),
        created_at: from_micros(row.created_at),
    })
}
