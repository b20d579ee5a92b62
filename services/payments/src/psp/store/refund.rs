//! What was taken, and what is given back of it.

use mesh::{
    clock,
    store::{self as db, Failure, Txn},
};

use super::{
    Asked, Done, Error, Store,
    rows::{CAPTURE, CaptureRow, post},
};
use crate::psp::{
    answers,
    domain::{Capture, Refused},
};

// === impl Store ===

impl Store {
    /// One capture.
    ///
    /// # Errors
    /// [`Failure`] of the database.
    pub async fn capture(&self, id: &str) -> Result<Option<Capture>, Failure> {
        let sql = format!("SELECT {CAPTURE} FROM capture WHERE id = $1");
        let row = db::row(self.0.reader(), "read a capture", &sql, vec![id.into()]).await?;
        row.map(CaptureRow::capture).transpose()
    }
}

/// Gives back what a capture took, unless it is declined.
pub(super) async fn refund(
    txn: &Txn,
    asked: &Asked,
    id: &str,
    amount: i64,
    declined: Option<&str>,
) -> Result<Done, Error> {
    const KIND: &str = "refund";
    let sql = format!("UPDATE capture SET hold = hold WHERE id = $1 RETURNING {CAPTURE}");
    let row = db::row(txn, "lock a capture", &sql, vec![id.into()]).await?;
    let Some(mut capture) = row.map(CaptureRow::capture).transpose()? else {
        let (status_code, answer) = answers::refused(Refused::NotFound);
        return Ok((KIND, None, status_code, answer));
    };
    let name = format!("ref_{}", clock::id().simple());
    let told =
        |capture: &Capture| answers::refund(&name, &asked.reference, capture, amount, declined);
    let (status_code, answer) = match capture.refund(amount) {
        Ok(_) if declined.is_some() => (201, told(&capture)),
        Ok(entry) => {
            let sql = "UPDATE capture SET refunded_minor = $1 WHERE id = $2";
            db::execute(txn, "give back", sql, vec![capture.refunded.into(), id.into()]).await?;
            post(txn, &asked.reference, &capture.hold, &[entry], asked.at).await?;
            (201, told(&capture))
        }
        Err(refused) => answers::refused(refused),
    };
    Ok((KIND, Some(capture.hold), status_code, answer))
}
