//! Holds whose time is over, a thousand a transaction.

use std::slice;

use mesh::{
    clock::micros,
    outbox,
    store::{Txn, execute},
};
use sea_orm::Value;
use time::OffsetDateTime;
use uuid::Uuid;

use super::{
    Store,
    reservations::{save, select},
    shelves::{Because, apply},
};
use crate::{
    domain::reservation::{Event, Move, Reservation},
    error::Error,
    events,
};

/// Who ends holds by time.
const ACTOR: &str = "services/inventory";

/// How many are ended in one transaction: others wait behind it.
const BATCH: i64 = 1_000;

impl Store {
    /// Ends holds whose time is over at `at`, the longest overdue first: how many.
    ///
    /// # Errors
    /// The database failed.
    pub async fn end_expired(&self, at: OffsetDateTime) -> Result<usize, Error> {
        let store = self.clone();
        self.mesh
            .transaction(move |txn| {
                let store = store.clone();
                Box::pin(async move {
                    let due = "WHERE state = 'HELD' AND expires_at <= $1 ORDER BY expires_at";
                    let mut ended: Vec<(Reservation, Event)> = Vec::new();
                    let mut causes: Vec<(Uuid, Vec<Move>)> = Vec::new();
                    for mut hold in store.due(txn, due, at).await? {
                        let Some(change) = hold.expire(at) else { continue };
                        causes.push((hold.id, change.moves));
                        ended.push((hold, change.event));
                    }
                    save_expired(txn, &ended, at).await?;
                    apply(txn, &Because { causes: &causes, actor: ACTOR, at }).await?;
                    publish(txn, &ended, at).await?;
                    Ok(ended.len())
                })
            })
            .await
    }

    /// Tells of holds that their sagas should have ended by `at`: how many.
    ///
    /// # Errors
    /// The database failed.
    pub async fn tell_overdue(&self, at: OffsetDateTime) -> Result<usize, Error> {
        let store = self.clone();
        self.mesh
            .transaction(move |txn| {
                let store = store.clone();
                Box::pin(async move {
                    let due = "WHERE state = 'HELD' AND overdue_at <= $1 ORDER BY overdue_at";
                    let mut told = 0;
                    for mut hold in store.due(txn, due, at).await? {
                        let Some(change) = hold.overdue(at) else { continue };
                        save(txn, &hold).await?;
                        publish(txn, slice::from_ref(&(hold, change.event)), at).await?;
                        told += 1;
                    }
                    Ok(told)
                })
            })
            .await
    }

    /// The holds that are due; those that somebody works on come another time.
    async fn due(
        &self,
        txn: &Txn,
        due: &str,
        at: OffsetDateTime,
    ) -> Result<Vec<Reservation>, Error> {
        let lock = if self.mesh.is_postgres() { " FOR UPDATE SKIP LOCKED" } else { "" };
        let which = [due, " LIMIT $2", lock].concat();
        Ok(select(txn, &which, vec![micros(at).into(), BATCH.into()]).await?)
    }
}

async fn save_expired(
    txn: &Txn,
    ended: &[(Reservation, Event)],
    at: OffsetDateTime,
) -> Result<(), Error> {
    if ended.is_empty() {
        return Ok(());
    }
    let marks: Vec<String> = (2..).take(ended.len()).map(|n: usize| format!("${n}")).collect();
    let sql = [
        "UPDATE reservation SET state = 'EXPIRED', revision = revision + 1, updated_at = $1 \
         WHERE state = 'HELD' AND id IN (",
        &marks.join(", "),
        ")",
    ]
    .concat();
    let mut values: Vec<Value> = vec![micros(at).into()];
    values.extend(ended.iter().map(|(hold, _)| Value::from(hold.id.to_string())));
    let changed = execute(txn, "end holds", &sql, values).await?;
    // They were locked when they were read.
    if usize::try_from(changed).is_ok_and(|changed| changed == ended.len()) {
        Ok(())
    } else {
        Err(Error::Changed("reservations".to_owned()))
    }
}

async fn publish(
    txn: &Txn,
    told: &[(Reservation, Event)],
    at: OffsetDateTime,
) -> Result<(), Error> {
    for (hold, event) in told {
        let fact = events::of_reservation(hold, event);
        outbox::append(txn, &events::reservation_name(hold.id), hold.revision, fact, at).await?;
    }
    Ok(())
}
