//! What the sender looks for: notifications whose time has come, each begun by one process.

use std::time::Duration;

use mesh::{
    clock::from_micros,
    store::{Failure, Txn, execute, row, rows},
};
use sea_orm::{FromQueryResult, Value};
use time::OffsetDateTime;
use uuid::Uuid;

use super::{
    Store, marks,
    rows::{id, kind},
};
use crate::domain::{Kind, Letter, pause};

/// A notification whose sending was begun.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Due {
    /// Its id.
    pub id: Uuid,
    /// About which order.
    pub order: Uuid,
    /// What it says.
    pub kind: Kind,
    /// Where it goes.
    pub address: String,
    /// What it says, in words.
    pub letter: Letter,
    /// The mail's identity, without the angle brackets.
    pub message_id: String,
    /// How often its sending was begun, this time included: no other process has the same.
    pub attempt: i64,
    /// When that happened which it is about.
    pub happened_at: OffsetDateTime,
    /// The trace in which that happened.
    pub traceparent: String,
}

/// What came of an attempt.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Sent {
    /// It is on its way, for good.
    Done,
    /// It can never be sent, and why.
    Never(String),
    /// It was not sent, and why.
    NotNow(String),
}

#[derive(FromQueryResult)]
struct Row {
    id: String,
    order_id: String,
    kind: String,
    address: String,
    subject: String,
    body: String,
    message_id: String,
    attempts: i64,
    happened_at: i64,
    traceparent: String,
}

impl Store {
    /// How long until there is something to send, if there is.
    ///
    /// # Errors
    /// [`Failure`] of the database.
    pub async fn next_due(&self) -> Result<Option<Duration>, Failure> {
        #[derive(FromQueryResult)]
        struct Next {
            next: Option<i64>,
        }
        let sql = "SELECT MIN(next_try_at) AS next FROM notification WHERE next_try_at IS NOT NULL";
        let next: Option<Next> =
            row(self.mesh.reader(), "look for notifications", sql, vec![]).await?;
        let Some(next) = next.and_then(|row| row.next) else { return Ok(None) };
        let now = self.mesh.now_micros(self.mesh.reader()).await?;
        Ok(Some(Duration::from_micros(u64::try_from(next - now).unwrap_or(0))))
    }

    /// Begins to send notifications that are due; they are nobody else's for as long as `lease`
    /// lasts. What its recipient does not want ends here, unless it was begun before.
    ///
    /// # Errors
    /// [`Failure`] of the database.
    pub async fn begin(&self, lease: Duration, limit: u32) -> Result<Vec<Due>, Failure> {
        let store = self.clone();
        let lock = if self.mesh.is_postgres() { "FOR UPDATE SKIP LOCKED" } else { "" };
        let sql = format!(
            "UPDATE notification SET attempts = attempts + 1, next_try_at = $1 WHERE id IN \
             (SELECT id FROM notification WHERE next_try_at <= $2 ORDER BY next_try_at LIMIT $3 \
             {lock}) RETURNING id, order_id, kind, address, subject, body, message_id, attempts, \
             happened_at, traceparent"
        );
        self.mesh
            .transaction(move |txn| {
                let (store, sql) = (store.clone(), sql.clone());
                Box::pin(async move {
                    let now = store.mesh.now_micros(txn).await?;
                    let values =
                        vec![later(now, lease).into(), now.into(), i64::from(limit).into()];
                    let begun: Vec<Row> =
                        rows(txn, "begin to send notifications", &sql, values).await?;
                    let unwanted = suppress(txn, &begun).await?;
                    let wanted = begun.into_iter().filter(|row| !unwanted.contains(&row.id));
                    wanted.map(Row::due).collect()
                })
            })
            .await
    }

    /// Records what came of attempts. What was done stays done, whoever had begun it meanwhile; of
    /// everything else the last attempt decides.
    ///
    /// # Errors
    /// [`Failure`] of the database: it is not known what came of them, and each is begun again.
    pub async fn record(&self, outcomes: Vec<(Due, Sent)>) -> Result<(), Failure> {
        let store = self.clone();
        self.mesh
            .transaction(move |txn| {
                let (store, outcomes) = (store.clone(), outcomes.clone());
                Box::pin(async move {
                    let now = store.mesh.now_micros(txn).await?;
                    let sent = |(due, sent): &(Due, Sent)| {
                        (*sent == Sent::Done).then(|| Value::from(due.id.to_string()))
                    };
                    done(txn, outcomes.iter().filter_map(sent).collect(), now).await?;
                    for (due, sent) in &outcomes {
                        match sent {
                            Sent::Done => {}
                            Sent::Never(problem) => never(txn, due, problem).await?,
                            Sent::NotNow(problem) => {
                                again(txn, due, problem, later(now, pause(due.attempt))).await?;
                            }
                        }
                    }
                    Ok(())
                })
            })
            .await
    }
}

// === impl Row ===

impl Row {
    fn due(self) -> Result<Due, Failure> {
        Ok(Due {
            id: id(&self.id)?,
            order: id(&self.order_id)?,
            kind: kind(&self.kind)?,
            address: self.address,
            letter: Letter { subject: self.subject, body: self.body },
            message_id: self.message_id,
            attempt: self.attempts,
            happened_at: from_micros(self.happened_at),
            traceparent: self.traceparent,
        })
    }
}

/// Ends those that were begun for the first time and are not wanted; answers their ids.
async fn suppress(txn: &Txn, begun: &[Row]) -> Result<Vec<String>, Failure> {
    #[derive(FromQueryResult)]
    struct Ended {
        id: String,
    }
    let first: Vec<Value> =
        begun.iter().filter(|row| row.attempts == 1).map(|row| row.id.clone().into()).collect();
    if first.is_empty() {
        return Ok(Vec::new());
    }
    let sql = format!(
        "UPDATE notification SET state = 'SUPPRESSED', next_try_at = NULL, attempts = 0 \
         WHERE id IN ({}) AND EXISTS (SELECT 1 FROM muted WHERE \
         muted.recipient = notification.recipient AND muted.kind = notification.kind) RETURNING id",
        marks(1, first.len())
    );
    let ended: Vec<Ended> = rows(txn, "end what is not wanted", &sql, first).await?;
    Ok(ended.into_iter().map(|row| row.id).collect())
}

async fn done(txn: &Txn, ids: Vec<Value>, now: i64) -> Result<(), Failure> {
    if ids.is_empty() {
        return Ok(());
    }
    let sql = format!(
        "UPDATE notification SET state = 'SENT', sent_at = $1, next_try_at = NULL, problem = '' \
         WHERE state = 'PENDING' AND id IN ({})",
        marks(2, ids.len())
    );
    let values = std::iter::once(now.into()).chain(ids).collect();
    execute(txn, "record what was sent", &sql, values).await?;
    Ok(())
}

async fn never(txn: &Txn, due: &Due, problem: &str) -> Result<(), Failure> {
    let sql = "UPDATE notification SET state = 'FAILED', next_try_at = NULL, problem = $3 \
         WHERE id = $1 AND attempts = $2 AND state = 'PENDING'";
    let values = vec![due.id.to_string().into(), due.attempt.into(), problem.into()];
    execute(txn, "give a notification up", sql, values).await?;
    Ok(())
}

async fn again(txn: &Txn, due: &Due, problem: &str, at: i64) -> Result<(), Failure> {
    let sql = "UPDATE notification SET next_try_at = $4, problem = $3 \
         WHERE id = $1 AND attempts = $2 AND state = 'PENDING'";
    let values = vec![due.id.to_string().into(), due.attempt.into(), problem.into(), at.into()];
    execute(txn, "put a notification off", sql, values).await?;
    Ok(())
}

fn later(now: i64, by: Duration) -> i64 {
    now.saturating_add(i64::try_from(by.as_micros()).unwrap_or(i64::MAX))
}
