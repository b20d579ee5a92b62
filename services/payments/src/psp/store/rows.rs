//! Rows of the provider's books.

use mesh::{
    clock::{from_micros, micros},
    money::{Currency, Money},
    store::{self as db, Failure, Txn},
};
use sea_orm::{FromQueryResult, Value};
use time::OffsetDateTime;

use crate::psp::{
    answers,
    domain::{Capture, Entry, Hold, Status},
};

#[derive(FromQueryResult)]
pub(super) struct HoldRow {
    pub(super) id: String,
    pub(super) reference: String,
    pub(super) amount_minor: i64,
    pub(super) currency: String,
    pub(super) token: String,
    pub(super) status: String,
    pub(super) approved: bool,
    pub(super) authorized_minor: i64,
    pub(super) captured_minor: i64,
    pub(super) decline_code: Option<String>,
    pub(super) action: Option<String>,
    pub(super) expires_at: i64,
}

#[derive(FromQueryResult)]
pub(super) struct CaptureRow {
    id: String,
    hold: String,
    amount_minor: i64,
    currency: String,
    refunded_minor: i64,
}

#[derive(FromQueryResult)]
pub(super) struct OperationRow {
    pub(super) id: i64,
    pub(super) kind: String,
    pub(super) reference: String,
    pub(super) hold: Option<String>,
    pub(super) fingerprint: Vec<u8>,
    pub(super) status_code: i64,
    pub(super) answer: String,
    pub(super) at: i64,
}

#[derive(FromQueryResult)]
pub(super) struct LedgerRow {
    pub(super) id: i64,
    pub(super) reference: String,
    pub(super) hold: String,
    pub(super) movement: String,
    pub(super) amount_minor: i64,
    pub(super) currency: String,
    pub(super) fee_minor: i64,
    pub(super) at: i64,
}

pub(super) const HOLD: &str = "id, reference, amount_minor, currency, token, status, approved, \
     authorized_minor, captured_minor, decline_code, action, expires_at";

pub(super) const CAPTURE: &str = "id, hold, amount_minor, currency, refunded_minor";

pub(super) const OPERATION: &str =
    "id, kind, reference, hold, fingerprint, status_code, answer, at";

pub(super) fn of_hold(hold: &Hold) -> Vec<Value> {
    vec![
        hold.id.as_str().into(),
        hold.reference.as_str().into(),
        hold.amount.minor.into(),
        hold.amount.currency.code().into(),
        hold.token.as_str().into(),
        answers::name(hold.status).into(),
        hold.approved.into(),
        hold.authorized.into(),
        hold.captured.into(),
        hold.decline_code.clone().into(),
        hold.action.clone().into(),
        micros(hold.expires_at).into(),
    ]
}

// === impl HoldRow ===

impl HoldRow {
    pub(super) fn hold(self) -> Result<Hold, Failure> {
        let currency = Currency::parse(&self.currency);
        let currency = currency.map_err(|error| unreadable(error.to_string()))?;
        let status = [
            Status::Pending,
            Status::ActionRequired,
            Status::Authorized,
            Status::Declined,
            Status::Voided,
            Status::Captured,
        ];
        let status = status.into_iter().find(|status| answers::name(*status) == self.status);
        Ok(Hold {
            id: self.id,
            reference: self.reference,
            amount: Money::new(self.amount_minor, currency),
            token: self.token,
            status: status.ok_or_else(|| unreadable(self.status))?,
            approved: self.approved,
            authorized: self.authorized_minor,
            captured: self.captured_minor,
            decline_code: self.decline_code,
            action: self.action,
            expires_at: from_micros(self.expires_at),
        })
    }
}

// === impl CaptureRow ===

impl CaptureRow {
    pub(super) fn capture(self) -> Result<Capture, Failure> {
        let currency = Currency::parse(&self.currency);
        let currency = currency.map_err(|error| unreadable(error.to_string()))?;
        Ok(Capture {
            id: self.id,
            hold: self.hold,
            amount: Money::new(self.amount_minor, currency),
            refunded: self.refunded_minor,
        })
    }
}

pub(super) fn parse(text: &str) -> Result<serde_json::Value, Failure> {
    serde_json::from_str(text).map_err(|error| unreadable(error.to_string()))
}

fn unreadable(problem: String) -> Failure {
    Failure::new("read a row", problem)
}

/// Writes what became of a hold.
pub(super) async fn update(txn: &Txn, hold: &Hold) -> Result<(), Failure> {
    let sql = "UPDATE hold SET status = $1, approved = $2, authorized_minor = $3, \
               captured_minor = $4, decline_code = $5 WHERE id = $6";
    let values = vec![
        answers::name(hold.status).into(),
        hold.approved.into(),
        hold.authorized.into(),
        hold.captured.into(),
        hold.decline_code.clone().into(),
        hold.id.as_str().into(),
    ];
    db::execute(txn, "write a hold", sql, values).await?;
    Ok(())
}

/// Writes what was taken.
pub(super) async fn insert_capture(txn: &Txn, capture: &Capture) -> Result<(), Failure> {
    let sql = format!("INSERT INTO capture ({CAPTURE}) VALUES ($1, $2, $3, $4, $5)");
    let values = vec![
        capture.id.as_str().into(),
        capture.hold.as_str().into(),
        capture.amount.minor.into(),
        capture.amount.currency.code().into(),
        capture.refunded.into(),
    ];
    db::execute(txn, "write a capture", &sql, values).await?;
    Ok(())
}

/// Adds to the ledger what moved.
pub(super) async fn post(
    txn: &Txn,
    reference: &str,
    hold: &str,
    entries: &[Entry],
    at: OffsetDateTime,
) -> Result<(), Failure> {
    let sql = "INSERT INTO ledger (reference, hold, movement, amount_minor, currency, fee_minor, \
               at) VALUES ($1, $2, $3, $4, $5, $6, $7)";
    for entry in entries {
        let values = vec![
            reference.into(),
            hold.into(),
            answers::movement(entry.movement).into(),
            entry.amount.minor.into(),
            entry.amount.currency.code().into(),
            entry.fee.into(),
            micros(at).into(),
        ];
        db::execute(txn, "post to the ledger", sql, values).await?;
    }
    Ok(())
}
