//! Events of others: what they say about an order, remembered and told, each once.

use mesh::{
    clock::{self, micros},
    store::{Failure, Txn, execute, row},
};
use sea_orm::FromQueryResult;
use uuid::Uuid;

use super::{Store, rows};
use crate::domain::{Line, Notice, State};

/// What is known of an order.
struct Known {
    address: String,
    lines: Vec<Line>,
}

impl Store {
    /// Takes in what is said about an order, in the consumer's transaction: remembers address and
    /// lines, lets go what waited for the address, and notes what the customer is told. `domain`
    /// is where the mails' identities belong.
    ///
    /// The same event again changes nothing, nor does a second confirmation of the order.
    ///
    /// # Errors
    /// [`Failure`] of the database.
    pub async fn take_in(&self, txn: &Txn, notice: &Notice, domain: &str) -> Result<(), Failure> {
        let now = self.mesh.now_micros(txn).await?;
        let known = remember(txn, notice, now).await?;
        if !notice.email.is_empty() {
            let sql = "UPDATE notification SET state = 'PENDING', address = $2, next_try_at = $3 \
                 WHERE order_id = $1 AND state = 'WAITING'";
            let values =
                vec![notice.order.to_string().into(), notice.email.as_str().into(), now.into()];
            execute(txn, "let mails go that waited", sql, values).await?;
        }
        note(txn, notice, &known, domain, now).await
    }
}

/// Locks what is known of the order and adds what the notice says.
async fn remember(txn: &Txn, notice: &Notice, now: i64) -> Result<Known, Failure> {
    #[derive(FromQueryResult)]
    struct Row {
        address: String,
        lines: Vec<u8>,
    }
    let sql = "INSERT INTO recipient (order_id, address, lines, updated_at) \
         VALUES ($1, $2, $3, $4) ON CONFLICT (order_id) DO UPDATE SET \
         address = CASE WHEN excluded.address = '' THEN recipient.address ELSE excluded.address END, \
         lines = CASE WHEN length(excluded.lines) = 0 THEN recipient.lines ELSE excluded.lines END, \
         updated_at = excluded.updated_at RETURNING address, lines";
    let lines = notice.news.lines().map(rows::lines_to_bytes).unwrap_or_default();
    let values = vec![
        notice.order.to_string().into(),
        notice.email.as_str().into(),
        lines.into(),
        now.into(),
    ];
    let known: Option<Row> = row(txn, "remember an order", sql, values).await?;
    let Row { address, lines } =
        known.ok_or_else(|| Failure::new("remember an order", "no row"))?;
    Ok(Known { address, lines: rows::lines_of_bytes(&lines)? })
}

/// Notes what the customer is told, if the notice is told and was not noted before.
async fn note(
    txn: &Txn,
    notice: &Notice,
    known: &Known,
    domain: &str,
    now: i64,
) -> Result<(), Failure> {
    let Some((kind, letter)) = notice.letter(&known.lines) else { return Ok(()) };
    let state = if known.address.is_empty() { State::Waiting } else { State::Pending };
    // A conflict is the same event again, or a second confirmation: told already.
    let sql = "INSERT INTO notification (id, event_id, channel, recipient, kind, order_id, \
         shipment_id, state, address, subject, body, message_id, problem, attempts, happened_at, \
         created_at, traceparent, next_try_at) VALUES ($1, $2, 'MAIL', $3, $4, $5, $6, $7, $8, \
         $9, $10, $11, '', 0, $12, $13, $14, $15) ON CONFLICT DO NOTHING";
    let values = vec![
        clock::id().to_string().into(),
        notice.event.to_string().into(),
        notice.customer.as_str().into(),
        kind.as_str().into(),
        notice.order.to_string().into(),
        notice.news.shipment().as_ref().map(Uuid::to_string).into(),
        state.as_str().into(),
        known.address.as_str().into(),
        letter.subject.into(),
        letter.body.into(),
        notice.message_id(kind, domain).into(),
        micros(notice.at).into(),
        now.into(),
        notice.traceparent.as_str().into(),
        (state == State::Pending).then_some(now).into(),
    ];
    execute(txn, "note a notification", sql, values).await?;
    Ok(())
}
