//! Stock: read, listed, adjusted.

use mesh::{
    clock::{self, from_micros, micros},
    idempotency::Answer,
    outbox,
    store::{Failure, Txn, execute, row, rows},
};
use sea_orm::{FromQueryResult, Value};

use super::{Call, Moved, Store, broken, locations, movements};
use crate::{
    domain::{Adjustment, Counters, Place, Sku, Stock},
    error::Error,
    events,
};

#[derive(FromQueryResult)]
struct Row {
    sku: String,
    location: String,
    on_hand: i64,
    held: i64,
    allocated: i64,
    revision: i64,
    created_at: i64,
    updated_at: i64,
}

/// What somebody wants to change about what lies there.
#[derive(Clone, Debug)]
pub struct Correction {
    /// Of what.
    pub sku: Sku,
    /// Where.
    pub place: Place,
    /// By how much, and why.
    pub by: Adjustment,
    /// In words.
    pub note: String,
    /// The revision that the caller read.
    pub read: Option<i64>,
}

impl Store {
    /// Every stock of these variants, in the order of variant and location.
    ///
    /// # Errors
    /// The database cannot be read.
    pub async fn stocks_of(&self, skus: &[Sku]) -> Result<Vec<Stock>, Failure> {
        let marks: Vec<String> = (1..=skus.len()).map(|n| format!("${n}")).collect();
        let sql = ["SELECT * FROM stock WHERE sku IN (", &marks.join(", "), ")"].concat();
        let values = skus.iter().map(|sku| Value::from(sku.as_str())).collect();
        let found: Vec<Row> = rows(self.mesh.reader(), "read stock", &sql, values).await?;
        found.into_iter().map(read).collect()
    }

    /// At most `limit` stocks in the order of variant and location, those after `after`; of one
    /// variant or at one location alone, if they are given.
    ///
    /// # Errors
    /// The database cannot be read.
    pub async fn stocks(
        &self,
        after: (&str, &str),
        sku: Option<&Sku>,
        place: Option<&Place>,
        limit: u64,
    ) -> Result<Vec<Stock>, Failure> {
        let limit = i64::try_from(limit).unwrap_or(i64::MAX);
        let mut values: Vec<Value> = vec![after.0.into(), after.1.into(), limit.into()];
        let mut sql = "SELECT * FROM stock WHERE (sku, location) > ($1, $2)".to_owned();
        for (column, wanted) in
            [("sku", sku.map(Sku::as_str)), ("location", place.map(Place::as_str))]
        {
            if let Some(wanted) = wanted {
                values.push(wanted.into());
                sql.push_str(&format!(" AND {column} = ${}", values.len()));
            }
        }
        sql.push_str(" ORDER BY sku, location LIMIT $3");
        let found: Vec<Row> = rows(self.mesh.reader(), "list stock", &sql, values).await?;
        found.into_iter().map(read).collect()
    }

    /// Adds to what lies there, or takes from it what is not promised.
    ///
    /// # Errors
    /// The `request_id` was used otherwise, or the database failed. A refusal is an answer.
    pub async fn adjust(&self, call: Call<Stock>, wish: Correction) -> Result<Answer, Error> {
        let store = self.clone();
        self.mesh
            .transaction(move |txn| {
                let (store, call, wish) = (store.clone(), call.clone(), wish.clone());
                Box::pin(async move {
                    let name = events::stock_name(&wish.place, &wish.sku);
                    if let Some(answer) = call.once.begin(txn, &name, call.at).await? {
                        return Ok(answer);
                    }
                    let adjusted = store.adjusted(txn, &call, &wish, &name).await;
                    call.once.end(txn, adjusted.map(|stock| (call.tell)(&stock))).await
                })
            })
            .await
    }

    async fn adjusted(
        &self,
        txn: &Txn,
        call: &Call<Stock>,
        wish: &Correction,
        name: &str,
    ) -> Result<Stock, Error> {
        let Correction { sku, place, by, note, read } = wish;
        let sql =
            ["SELECT * FROM stock WHERE sku = $1 AND location = $2", self.for_update()].concat();
        let values = vec![sku.as_str().into(), place.as_str().into()];
        let found: Option<Row> = row(txn, "lock stock", &sql, values).await?;
        let mut stock = match found {
            Some(found) => self::read(found)?,
            None if by.delta() < 0 => return Err(Error::NotFound(name.to_owned())),
            None if locations::location(txn, place).await?.is_none() => {
                return Err(Error::NotFound(events::location_name(place)));
            }
            None => Stock::begin(sku.clone(), place.clone(), call.at),
        };
        if read.is_some_and(|read| read != stock.revision) {
            return Err(Error::EtagMismatch { name: name.to_owned(), revision: stock.revision });
        }
        stock.adjust(by, call.at).map_err(Error::refused(name))?;
        save(txn, &stock, name).await?;
        let moved = Moved {
            id: clock::id(),
            sku: sku.clone(),
            place: place.clone(),
            movement: by.movement(),
            quantity: by.delta(),
            reason: Some(by.reason()),
            note: note.clone(),
            cause: None,
            actor: call.actor.clone(),
            at: call.at,
        };
        let fact = events::of_adjustment(&stock, by.delta(), moved.id);
        movements::append(txn, &[moved]).await?;
        outbox::append(txn, name, stock.revision, fact, call.at).await?;
        Ok(stock)
    }
}

async fn save(txn: &Txn, stock: &Stock, name: &str) -> Result<(), Error> {
    // Nothing is promised before it has come.
    let sql = "INSERT INTO stock (sku, location, on_hand, held, allocated, backorder_limit, \
         revision, created_at, updated_at) VALUES ($1, $2, $3, $4, $5, 0, $6, $7, $8) \
         ON CONFLICT (sku, location) DO UPDATE SET on_hand = excluded.on_hand, \
         revision = excluded.revision, updated_at = excluded.updated_at \
         WHERE stock.revision = excluded.revision - 1";
    let values = vec![
        stock.sku.as_str().into(),
        stock.place.as_str().into(),
        stock.counters.on_hand.into(),
        stock.counters.held.into(),
        stock.counters.allocated.into(),
        stock.revision.into(),
        micros(stock.created_at).into(),
        micros(stock.updated_at).into(),
    ];
    match execute(txn, "adjust stock", sql, values).await? {
        0 => Err(Error::Changed(name.to_owned())),
        _one => Ok(()),
    }
}

fn read(row: Row) -> Result<Stock, Failure> {
    Ok(Stock {
        sku: Sku::parse(&row.sku).map_err(|_bad| broken("sku"))?,
        place: Place::parse(&row.location).map_err(|_bad| broken("location"))?,
        counters: Counters { on_hand: row.on_hand, held: row.held, allocated: row.allocated },
        revision: row.revision,
        created_at: from_micros(row.created_at),
        updated_at: from_micros(row.updated_at),
    })
}
