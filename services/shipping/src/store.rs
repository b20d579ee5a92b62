//! Where shipments are kept. The only module, beside the carrier's own books, that knows there is
//! a database.
//!
//! Every change locks the row of its shipment first. So what happens to one shipment is decided
//! one after the other, whoever brings it, and events keep the order of the commits. The carrier
//! is never asked in here: a change answers which attempt is to be sent.

mod once;
mod calls;
mod read;
mod write;
mod due;
mod rows;
#[cfg(test)]
pub(crate) mod tests;

use std::sync::Arc;

use mesh::{
    clock::{self, from_micros},
    idempotency::Answer,
    store::{self as db, Failure, Txn, step},
};
use time::OffsetDateTime;
use uuid::Uuid;

use self::write::{locked, save};
use crate::{
    carrier::News,
    domain::{Change, Outcome, Pace, Report, Shipment},
    error::Error,
};

pub use calls::{Begun, Noted};
pub use due::Due;
pub use once::Once;
pub use read::{Only, key};

/// The shipments of this process. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Store {
    db: db::Store,
    pace: Arc<Pace>,
}

/// A call that changes something.
#[derive(Clone, Debug)]
pub struct Call {
    /// What makes its attempts one.
    pub once: Once,
    /// Who calls: `users/{uuid}` or `services/{name}`.
    pub actor: String,
    /// How what it leads to is answered.
    pub tell: fn(&Shipment) -> Answer,
}

// === impl Store ===

impl Store {
    /// Opens the database and brings its tables up to date.
    ///
    /// # Errors
    /// [`Failure`] if it cannot be opened. Say it and end the process.
    pub async fn connect(url: &str, pace: Pace) -> Result<Self, Failure> {
        Ok(Self::new(db::Store::connect(url, Self::migrations()).await?, pace))
    }

    /// Uses a database that is open and has the tables.
    #[must_use]
    pub fn new(db: db::Store, pace: Pace) -> Self {
        Self { db, pace: Arc::new(pace) }
    }

    /// The steps that make this service's tables, and those of the carrier that is built in.
    #[must_use]
    pub fn migrations() -> Vec<db::Migration> {
        let shipments = include_str!("migrations/shipping_0001_shipments.sql");
        let carrier = include_str!("migrations/shipping_0002_carrier.sql");
        vec![step("shipping_0001_shipments", shipments), step("shipping_0002_carrier", carrier)]
    }

    /// The database itself, for readiness and closing.
    #[must_use]
    pub fn mesh(&self) -> &db::Store {
        &self.db
    }

    /// How patiently the carrier is asked.
    #[must_use]
    pub fn pace(&self) -> &Pace {
        &self.pace
    }

    /// Takes in what came of an attempt; what is known already stays.
    ///
    /// # Errors
    /// [`Failure`] of the database: the carrier is asked again.
    pub async fn apply(
        &self,
        id: Uuid,
        attempt: Uuid,
        outcome: Outcome,
    ) -> Result<(Shipment, Change), Error> {
        let store = self.clone();
        self.db
            .transaction(move |txn| {
                let (store, outcome) = (store.clone(), outcome.clone());
                Box::pin(async move {
                    let before = store.found(txn, id).await?;
                    let at = store.now(txn).await?;
                    let mut shipment = before.clone();
                    let report = Report { attempt, outcome, at, spare: clock::id() };
                    let change = shipment.apply(report, &store.pace);
                    save(txn, &before, &mut shipment, &change, at).await?;
                    Ok((shipment, change))
                })
            })
            .await
    }

    /// Takes in what the carrier reports, once. What contradicts what is known is noted, and
    /// changes nothing.
    ///
    /// # Errors
    /// [`Error::NotFound`] for a parcel that is not ours; [`Failure`] of the database.
    pub async fn take_in(&self, id: Uuid, news: News) -> Result<(), Error> {
        let store = self.clone();
        self.db
            .transaction(move |txn| {
                let (store, news) = (store.clone(), news.clone());
                Box::pin(async move {
                    let before = store.found(txn, id).await?;
                    let at = store.now(txn).await?;
                    let actor = format!("carriers/{}", news.booking.carrier);
                    let noted = Noted { event_id: news.id, sign: news.sign, occurred_at: news.at };
                    if !calls::note(txn, id, &noted, &actor, at).await? {
                        return Ok(());
                    }
                    let mut shipment = before.clone();
                    match shipment.track(news.sign, news.booking) {
                        Ok(change) => save(txn, &before, &mut shipment, &change, at).await,
                        Err(refusal) => {
                            let sign = noted.sign;
                            tracing::error!(
                                shipment.id = %id,
                                "the carrier reports {sign:?} of shipments/{id}, but {refusal}"
                            );
                            Ok(())
                        }
                    }
                })
            })
            .await
    }

    async fn found(&self, txn: &Txn, id: Uuid) -> Result<Shipment, Error> {
        locked(txn, id, self.for_update()).await?.ok_or(Error::NotFound(id))
    }

    /// The time that timers go by.
    async fn now(&self, txn: &Txn) -> Result<OffsetDateTime, Failure> {
        Ok(from_micros(self.db.now_micros(txn).await?))
    }

    /// What ends a SELECT whose rows are going to be changed. SQLite has one writer, who has
    /// locked everything already.
    fn for_update(&self) -> &'static str {
        if self.db.is_postgres() { " FOR UPDATE" } else { "" }
    }
}
