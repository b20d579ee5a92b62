//! What is read without a lock: payments, attempts, and pages of lists.

use mesh::store::{self as db, Failure};
use sea_orm::{ConnectionTrait, FromQueryResult, Value};
use uuid::Uuid;

use super::{
    Entry, Store,
    rows::{ATTEMPT, AttemptRow, ENTRY, EntryRow, PAYMENT, PaymentRow, REFUND, RefundRow},
};
use crate::domain::{Attempt, Overview, Payment, Refund, RefundOverview};

/// Which rows of a list, the newest first.
#[derive(Clone, Debug, Default)]
pub struct Page {
    /// How many at most.
    pub size: u64,
    /// Only those before this place: an id, or for refunds a time and an id.
    pub before: Option<String>,
}

impl Store {
    /// What is shown of a payment.
    ///
    /// # Errors
    /// [`Failure`] of the database.
    pub async fn overview(&self, id: Uuid) -> Result<Option<Overview>, Failure> {
        let row = payment_row(self.db.reader(), id).await?;
        row.map(PaymentRow::overview).transpose()
    }

    /// A payment with its attempts and refunds.
    ///
    /// # Errors
    /// [`Failure`] of the database.
    pub async fn payment(&self, id: Uuid) -> Result<Option<Payment>, Failure> {
        let attempts = attempts_of(self.db.reader(), id).await?;
        let refunds = refunds_of(self.db.reader(), id).await?;
        let row = payment_row(self.db.reader(), id).await?;
        row.map(|row| row.payment(attempts, refunds)).transpose()
    }

    /// One refund.
    ///
    /// # Errors
    /// [`Failure`] of the database.
    pub async fn refund(&self, id: Uuid) -> Result<Option<RefundOverview>, Failure> {
        let sql = format!("SELECT {REFUND} FROM refund WHERE id = $1");
        let values = vec![id.to_string().into()];
        let row: Option<RefundRow> =
            db::row(self.db.reader(), "read a refund", &sql, values).await?;
        row.map(RefundRow::overview).transpose()
    }

    /// Refunds, the newest first: those of one payment, or all. Their ids say nothing of their
    /// age: a saga derives them.
    ///
    /// # Errors
    /// [`Failure`] of the database.
    pub async fn refunds(
        &self,
        payment: Option<&str>,
        page: &Page,
    ) -> Result<Vec<RefundOverview>, Failure> {
        let mut sql = format!("SELECT {REFUND} FROM refund WHERE 1 = 1");
        let mut values: Vec<Value> = Vec::new();
        if let Some(payment) = payment {
            values.push(payment.into());
            sql.push_str(&format!(" AND payment = ${}", values.len()));
        }
        let before = page.before.as_deref().and_then(|place| place.split_once(' '));
        if let Some((at, id)) = before {
            values.push(at.parse::<i64>().unwrap_or(i64::MAX).into());
            values.push(id.into());
            let (at, id) = (values.len() - 1, values.len());
            sql.push_str(&format!(" AND (created_at, id) < (${at}, ${id})"));
        }
        values.push(i64::try_from(page.size).unwrap_or(i64::MAX).into());
        sql.push_str(&format!(" ORDER BY created_at DESC, id DESC LIMIT ${}", values.len()));
        let rows: Vec<RefundRow> = db::rows(self.db.reader(), "list refunds", &sql, values).await?;
        rows.into_iter().map(RefundRow::overview).collect()
    }

    /// One attempt.
    ///
    /// # Errors
    /// [`Failure`] of the database.
    pub async fn attempt(&self, id: Uuid) -> Result<Option<Attempt>, Failure> {
        let sql = format!("SELECT {ATTEMPT} FROM attempt WHERE id = $1");
        let values = vec![id.to_string().into()];
        let row: Option<AttemptRow> =
            db::row(self.db.reader(), "read an attempt", &sql, values).await?;
        row.map(AttemptRow::attempt).transpose()
    }

    /// Payments, the newest first: those of one customer, or all.
    ///
    /// # Errors
    /// [`Failure`] of the database.
    pub async fn payments(
        &self,
        customer: Option<&str>,
        page: &Page,
    ) -> Result<Vec<Overview>, Failure> {
        let rows: Vec<PaymentRow> =
            self.list(PAYMENT, "payment", "order_name <> ''", ("customer", customer), page).await?;
        rows.into_iter().map(PaymentRow::overview).collect()
    }

    /// Attempts, the newest first: those of one payment, or all.
    ///
    /// # Errors
    /// [`Failure`] of the database.
    pub async fn attempts(
        &self,
        payment: Option<&str>,
        page: &Page,
    ) -> Result<Vec<(Uuid, Attempt)>, Failure> {
        let rows: Vec<AttemptRow> =
            self.list(ATTEMPT, "attempt", "1 = 1", ("payment", payment), page).await?;
        rows.into_iter().map(|row| Ok((row.payment()?, row.attempt()?))).collect()
    }

    /// Postings, the newest first: those of one payment, or all.
    ///
    /// # Errors
    /// [`Failure`] of the database.
    pub async fn entries(&self, payment: Option<&str>, page: &Page) -> Result<Vec<Entry>, Failure> {
        let rows: Vec<EntryRow> =
            self.list(ENTRY, "ledger_entry", "1 = 1", ("payment", payment), page).await?;
        rows.into_iter().map(EntryRow::entry).collect()
    }

    async fn list<T: FromQueryResult>(
        &self,
        columns: &'static str,
        table: &'static str,
        always: &'static str,
        only: (&'static str, Option<&str>),
        page: &Page,
    ) -> Result<Vec<T>, Failure> {
        let mut sql = format!("SELECT {columns} FROM {table} WHERE {always}");
        let mut values: Vec<Value> = Vec::new();
        if let (column, Some(value)) = only {
            values.push(value.into());
            sql.push_str(&format!(" AND {column} = ${}", values.len()));
        }
        if let Some(before) = &page.before {
            values.push(before.as_str().into());
            sql.push_str(&format!(" AND id < ${}", values.len()));
        }
        values.push(i64::try_from(page.size).unwrap_or(i64::MAX).into());
        sql.push_str(&format!(" ORDER BY id DESC LIMIT ${}", values.len()));
        db::rows(self.db.reader(), "list rows", &sql, values).await
    }
}

async fn payment_row<C: ConnectionTrait>(
    conn: &C,
    id: Uuid,
) -> Result<Option<PaymentRow>, Failure> {
    let sql = format!("SELECT {PAYMENT} FROM payment WHERE id = $1");
    db::row(conn, "read a payment", &sql, vec![id.to_string().into()]).await
}

pub(super) async fn attempts_of<C: ConnectionTrait>(
    conn: &C,
    id: Uuid,
) -> Result<Vec<Attempt>, Failure> {
    let sql = format!("SELECT {ATTEMPT} FROM attempt WHERE payment = $1 ORDER BY place");
    let values = vec![id.to_string().into()];
    let rows: Vec<AttemptRow> = db::rows(conn, "read the attempts", &sql, values).await?;
    rows.into_iter().map(AttemptRow::attempt).collect()
}

pub(super) async fn refunds_of<C: ConnectionTrait>(
    conn: &C,
    payment: Uuid,
) -> Result<Vec<Refund>, Failure> {
    let sql = format!("SELECT {REFUND} FROM refund WHERE payment = $1 ORDER BY created_at, id");
    let values = vec![payment.to_string().into()];
    let rows: Vec<RefundRow> = db::rows(conn, "read the refunds", &sql, values).await?;
    rows.into_iter().map(|row| row.overview().map(|shown| shown.refund)).collect()
}
