//! The carrier's books: parcels, and what happened to them.
//!
//! Whoever moves parcels locks them first and leaves those alone that somebody else moves: any
//! number of processes share the work.

use std::time::Duration;

use mesh::{
    clock::{self, from_micros},
    store::{Failure, Txn, execute, row, rows},
};
use sea_orm::{ConnectionTrait, FromQueryResult, Value};

use super::{
    News, booking,
    domain::{Faults, Habits, Parcel, Stage},
};
use crate::domain::Sign;

/// The books. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Books {
    db: mesh::store::Store,
}

/// A parcel that was asked for something.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Moved {
    /// As it is now.
    pub parcel: Parcel,
    /// Whether that is new: it was not so before it was asked for.
    pub is_new: bool,
}

#[derive(FromQueryResult)]
struct ParcelRow {
    reference: String,
    tracking: String,
    stage: String,
    faults: String,
}

#[derive(FromQueryResult)]
struct NewsRow {
    id: String,
    kind: String,
    at: i64,
    reference: String,
    tracking: String,
    stage: String,
    faults: String,
}

/// How many parcels are moved in one transaction: others wait behind it.
const BATCH: i64 = 100;

const PARCEL: &str = "reference, tracking, stage, faults";

const SIGNS: [(Sign, &str); 5] = [
    (Sign::PickedUp, "PICKED_UP"),
    (Sign::InTransit, "IN_TRANSIT"),
    (Sign::Delivered, "DELIVERED"),
    (Sign::Lost, "LOST"),
    (Sign::Returned, "RETURNED"),
];

// === impl Books ===

impl Books {
    /// Books in `db`.
    #[must_use]
    pub fn new(db: mesh::store::Store) -> Self {
        Self { db }
    }

    /// Notes a parcel; the one of the same key, if there is one, stays as it is.
    ///
    /// # Errors
    /// [`Failure`] of the database.
    pub async fn book(&self, parcel: Parcel, habits: Habits) -> Result<Option<Moved>, Failure> {
        let books = self.clone();
        self.db
            .transaction(move |txn| {
                let (books, parcel) = (books.clone(), parcel.clone());
                Box::pin(async move {
                    let now = books.db.now_micros(txn).await?;
                    let sql = "INSERT INTO carrier_parcel (reference, tracking, stage, faults, \
                         due_at, booked_at, changed_at) VALUES ($1, $2, $3, $4, $5, $6, $6) \
                         ON CONFLICT (reference) DO NOTHING";
                    let values = vec![
                        parcel.reference.as_str().into(),
                        parcel.tracking.as_str().into(),
                        parcel.stage.to_string().into(),
                        parcel.faults.to_string().into(),
                        due_at(&parcel, habits, now).into(),
                        now.into(),
                    ];
                    match execute(txn, "note a parcel", sql, values).await? {
                        0 => known(txn, &parcel.reference).await,
                        _one => Ok(Some(Moved { parcel, is_new: true })),
                    }
                })
            })
            .await
    }

    /// Takes a parcel that waits; one that does not is answered as it is.
    ///
    /// # Errors
    /// [`Failure`] of the database.
    pub async fn hand_over(
        &self,
        reference: &str,
        habits: Habits,
    ) -> Result<Option<Moved>, Failure> {
        let (books, reference) = (self.clone(), reference.to_owned());
        self.db
            .transaction(move |txn| {
                let (books, reference) = (books.clone(), reference.clone());
                Box::pin(async move {
                    let Some(mut parcel) = waiting(txn, &reference).await? else {
                        return known(txn, &reference).await;
                    };
                    let now = books.db.now_micros(txn).await?;
                    move_on(txn, &mut parcel, habits, now).await?;
                    Ok(Some(Moved { parcel, is_new: true }))
                })
            })
            .await
    }

    /// Strikes a parcel out that waits; one that does not is answered as it is.
    ///
    /// # Errors
    /// [`Failure`] of the database.
    pub async fn cancel(&self, reference: &str) -> Result<Option<Moved>, Failure> {
        let (books, reference) = (self.clone(), reference.to_owned());
        self.db
            .transaction(move |txn| {
                let (books, reference) = (books.clone(), reference.clone());
                Box::pin(async move {
                    let Some(mut parcel) = waiting(txn, &reference).await? else {
                        return known(txn, &reference).await;
                    };
                    parcel.stage = Stage::Cancelled;
                    let now = books.db.now_micros(txn).await?;
                    write(txn, &parcel, None, now).await?;
                    Ok(Some(Moved { parcel, is_new: true }))
                })
            })
            .await
    }

    /// How long until a parcel is due, if one will be.
    ///
    /// # Errors
    /// [`Failure`] of the database.
    pub async fn next_due(&self) -> Result<Option<Duration>, Failure> {
        #[derive(FromQueryResult)]
        struct Next {
            next: Option<i64>,
        }
        let sql = "SELECT MIN(due_at) AS next FROM carrier_parcel WHERE due_at IS NOT NULL";
        let next: Option<Next> = row(self.db.reader(), "look for parcels", sql, vec![]).await?;
        let Some(next) = next.and_then(|row| row.next) else { return Ok(None) };
        let now = self.db.now_micros(self.db.reader()).await?;
        Ok(Some(Duration::from_micros(u64::try_from(next - now).unwrap_or(0))))
    }

    /// Moves the parcels that are due by one stage; how many there were. Those that another
    /// process moves are its business.
    ///
    /// # Errors
    /// [`Failure`] of the database.
    pub async fn advance(&self, habits: Habits) -> Result<usize, Failure> {
        let books = self.clone();
        let lock = if self.db.is_postgres() { "FOR UPDATE SKIP LOCKED" } else { "" };
        let sql = format!(
            "SELECT {PARCEL} FROM carrier_parcel WHERE due_at <= $1 ORDER BY due_at LIMIT $2 \
             {lock}"
        );
        self.db
            .transaction(move |txn| {
                let (books, sql) = (books.clone(), sql.clone());
                Box::pin(async move {
                    let now = books.db.now_micros(txn).await?;
                    let values = vec![now.into(), BATCH.into()];
                    let due: Vec<ParcelRow> = rows(txn, "find parcels", &sql, values).await?;
                    let count = due.len();
                    for row in due {
                        move_on(txn, &mut parcel(row)?, habits, now).await?;
                    }
                    Ok(count)
                })
            })
            .await
    }

    /// What was not acknowledged yet, the oldest first.
    ///
    /// # Errors
    /// [`Failure`] of the database.
    pub async fn news(&self, limit: u32) -> Result<Vec<News>, Failure> {
        let sql = "SELECT e.id, e.kind, e.at, e.reference, p.tracking, p.stage, p.faults \
             FROM carrier_event e JOIN carrier_parcel p ON p.reference = e.reference \
             WHERE e.acknowledged_at IS NULL ORDER BY e.id LIMIT $1";
        let values = vec![i64::from(limit).into()];
        let found: Vec<NewsRow> = rows(self.db.reader(), "read the news", sql, values).await?;
        found.into_iter().map(news).collect()
    }

    /// Notes that news have arrived.
    ///
    /// # Errors
    /// [`Failure`] of the database.
    pub async fn acknowledge(&self, ids: &[String]) -> Result<(), Failure> {
        if ids.is_empty() {
            return Ok(());
        }
        let (books, ids) = (self.clone(), ids.to_vec());
        let marks: Vec<String> = (2..).take(ids.len()).map(|n: usize| format!("${n}")).collect();
        let marks = marks.join(", ");
        let sql = format!("UPDATE carrier_event SET acknowledged_at = $1 WHERE id IN ({marks})");
        self.db
            .transaction(move |txn| {
                let (books, ids, sql) = (books.clone(), ids.clone(), sql.clone());
                Box::pin(async move {
                    let mut values: Vec<Value> = vec![books.db.now_micros(txn).await?.into()];
                    values.extend(ids.into_iter().map(Value::from));
                    execute(txn, "acknowledge news", &sql, values).await?;
                    Ok(())
                })
            })
            .await
    }
}

/// Moves a parcel that is locked by one stage, and notes that it did.
async fn move_on(txn: &Txn, parcel: &mut Parcel, habits: Habits, now: i64) -> Result<(), Failure> {
    let sign = parcel.advance();
    write(txn, parcel, due_at(parcel, habits, now), now).await?;
    let Some(sign) = sign else { return Ok(()) };
    let kind = SIGNS.iter().find(|(known, _)| *known == sign).map_or("", |(_, kind)| kind);
    let sql = "INSERT INTO carrier_event (id, reference, kind, at) VALUES ($1, $2, $3, $4)";
    let values = vec![
        clock::id().to_string().into(),
        parcel.reference.as_str().into(),
        kind.into(),
        now.into(),
    ];
    execute(txn, "note what happened", sql, values).await?;
    Ok(())
}

async fn write(txn: &Txn, parcel: &Parcel, due_at: Option<i64>, now: i64) -> Result<(), Failure> {
    let sql = "UPDATE carrier_parcel SET stage = $2, due_at = $3, changed_at = $4 \
         WHERE reference = $1";
    let values = vec![
        parcel.reference.as_str().into(),
        parcel.stage.to_string().into(),
        due_at.into(),
        now.into(),
    ];
    execute(txn, "move a parcel", sql, values).await?;
    Ok(())
}

/// The parcel of this key, locked until the transaction ends, if it waits to be picked up.
async fn waiting(txn: &Txn, reference: &str) -> Result<Option<Parcel>, Failure> {
    let sql = format!(
        "UPDATE carrier_parcel SET changed_at = changed_at \
         WHERE reference = $1 AND stage = 'BOOKED' RETURNING {PARCEL}"
    );
    let found: Option<ParcelRow> = row(txn, "find a parcel", &sql, vec![reference.into()]).await?;
    found.map(parcel).transpose()
}

async fn known<C: ConnectionTrait>(conn: &C, reference: &str) -> Result<Option<Moved>, Failure> {
    let sql = format!("SELECT {PARCEL} FROM carrier_parcel WHERE reference = $1");
    let found: Option<ParcelRow> = row(conn, "find a parcel", &sql, vec![reference.into()]).await?;
    Ok(found.map(parcel).transpose()?.map(|parcel| Moved { parcel, is_new: false }))
}

fn due_at(parcel: &Parcel, habits: Habits, now: i64) -> Option<i64> {
    let pause = parcel.due_in(habits)?;
    Some(now.saturating_add(i64::try_from(pause.as_micros()).unwrap_or(i64::MAX)))
}

fn parcel(row: ParcelRow) -> Result<Parcel, Failure> {
    let ParcelRow { reference, tracking, stage, faults } = row;
    let known = Stage::ALL.into_iter().find(|known| known.to_string() == stage);
    let stage = known.ok_or_else(|| Failure::new("read a parcel", "its stage is not known"))?;
    Ok(Parcel { reference, tracking, stage, faults: Faults::of(&faults) })
}

fn news(row: NewsRow) -> Result<News, Failure> {
    let NewsRow { id, kind, at, reference, tracking, stage, faults } = row;
    let known = SIGNS.iter().find(|(_, known)| *known == kind).map(|(sign, _)| *sign);
    let sign = known.ok_or_else(|| Failure::new("read the news", "their kind is not known"))?;
    let parcel = parcel(ParcelRow { reference, tracking, stage, faults })?;
    let (booking, parcel) = (booking(&parcel), parcel.reference);
    Ok(News { id, parcel, sign, booking, at: from_micros(at) })
}
