//! The provider's books: what it was asked under which key, what it holds, and its ledger.

mod refund;
mod rows;

use std::time::Duration;

use mesh::{
    clock::{self, from_micros, micros},
    money::Money,
    store::{self as db, Failure, Txn, TxnError, step},
};
use serde_json::json;
use time::OffsetDateTime;

use self::rows::{
    HOLD, HoldRow, LedgerRow, OPERATION, OperationRow, insert_capture, of_hold, parse, post, update,
};
use super::{
    answers,
    domain::{Capture, Hold, Refused, Verdict},
};

/// The books. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Store(db::Store);

/// A request as it counts: what is asked for, and under which key.
#[derive(Clone, Debug)]
pub struct Asked {
    /// The merchant's key: the same request under the same key is answered the same.
    pub key: String,
    /// What the request was, to tell another one under the same key.
    pub fingerprint: Vec<u8>,
    /// The merchant's name for it.
    pub reference: String,
    /// What is to be done.
    pub task: Task,
    /// What time it is at the provider.
    pub at: OffsetDateTime,
    /// For how long keys are remembered.
    pub keys_kept: Duration,
    /// Where the simulator is reached.
    pub base: String,
}

/// What is to be done.
#[derive(Clone, Debug)]
pub enum Task {
    /// Set money aside, or not.
    Authorize {
        /// How much.
        amount: Money,
        /// What the customer pays with.
        token: String,
        /// What is decided.
        verdict: Verdict,
    },
    /// Take what is set aside.
    Capture {
        /// Of which authorization.
        hold: String,
        /// How many minor units.
        amount: i64,
        /// Whether nothing more will be taken.
        last: bool,
        /// What the provider keeps.
        fee_basis_points: i64,
    },
    /// Give it back, not having been taken.
    Void {
        /// Of which authorization.
        hold: String,
    },
    /// Give it back, having been taken.
    Refund {
        /// Of which capture.
        capture: String,
        /// How many minor units.
        amount: i64,
        /// Why it is not given back.
        declined: Option<String>,
    },
}

/// What a request was answered.
#[derive(Clone, Debug, PartialEq)]
pub struct Told {
    /// The HTTP status code.
    pub status_code: u16,
    /// The body.
    pub answer: serde_json::Value,
    /// Whether it was carried out before.
    pub is_replayed: bool,
}

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The key belongs to another request.
    #[error("the key belongs to another request")]
    Reused,
    /// The database failed.
    #[error(transparent)]
    Database(#[from] Failure),
}

const AUTHORIZE: &str = "authorize";

// === impl Store ===

impl Store {
    /// Opens the books.
    ///
    /// # Errors
    /// [`Failure`] if the database cannot be opened. Say it and end the process.
    pub async fn connect(url: &str) -> Result<Self, Failure> {
        let migrations = vec![
            step("m0001_psp", include_str!("migrations/m0001_psp.sql")),
            step("m0002_refunds", include_str!("migrations/m0002_refunds.sql")),
        ];
        Ok(Self(db::Store::connect(url, migrations).await?))
    }

    /// The database itself, for readiness and closing.
    #[must_use]
    pub fn mesh(&self) -> &db::Store {
        &self.0
    }

    /// Carries a request out, once under its key.
    ///
    /// # Errors
    /// [`Error::Reused`] if the key came with another request.
    pub async fn carry_out(&self, asked: Asked) -> Result<Told, Error> {
        match self.try_to(asked.clone()).await {
            // Another request of this key committed first: its answer counts.
            Err(Error::Database(failure)) if failure.is_duplicate() => self.try_to(asked).await,
            done => done,
        }
    }

    /// What the customer did about an authorization; `None` if there is none that asks for it.
    ///
    /// # Errors
    /// [`Failure`] of the database.
    pub async fn act(
        &self,
        action: String,
        succeeded: bool,
        at: OffsetDateTime,
    ) -> Result<Option<Hold>, Error> {
        self.0
            .transaction(move |txn| {
                let action = action.clone();
                Box::pin(async move {
                    let Some(mut hold) = locked(txn, "action", &action).await? else {
                        return Ok(None);
                    };
                    let entries = hold.act(succeeded);
                    update(txn, &hold).await?;
                    let reference = hold.reference.clone();
                    post(txn, &reference, &hold.id, &entries, at).await?;
                    Ok(Some(hold))
                })
            })
            .await
    }

    /// One authorization.
    ///
    /// # Errors
    /// [`Failure`] of the database.
    pub async fn hold(&self, id: &str) -> Result<Option<Hold>, Failure> {
        let sql = format!("SELECT {HOLD} FROM hold WHERE id = $1");
        let row = db::row(self.0.reader(), "read a hold", &sql, vec![id.into()]).await?;
        row.map(HoldRow::hold).transpose()
    }

    /// Everything that was asked under a reference, the first first, as it stands.
    ///
    /// # Errors
    /// [`Failure`] of the database.
    pub async fn operations(
        &self,
        reference: &str,
        base: &str,
    ) -> Result<Vec<serde_json::Value>, Failure> {
        let sql = format!("SELECT {OPERATION} FROM operation WHERE reference = $1 ORDER BY id");
        let values = vec![reference.into()];
        let rows: Vec<OperationRow> =
            db::rows(self.0.reader(), "read operations", &sql, values).await?;
        let mut operations = Vec::new();
        for row in rows {
            let mut answer: serde_json::Value = parse(&row.answer)?;
            // An authorization is decided after it was answered, by its customer.
            if row.kind == AUTHORIZE
                && let Some(id) = &row.hold
                && let Some(hold) = self.hold(id).await?
            {
                answer = answers::authorization(&hold, base);
            }
            operations.push(json!({
                "kind": row.kind,
                "reference": row.reference,
                "authorization": row.hold,
                "status_code": row.status_code,
                "answer": answer,
                "at": from_micros(row.at).unix_timestamp(),
            }));
        }
        Ok(operations)
    }

    /// The ledger behind a position, at most `limit` lines.
    ///
    /// # Errors
    /// [`Failure`] of the database.
    pub async fn ledger(&self, after: i64, limit: i64) -> Result<Vec<serde_json::Value>, Failure> {
        let sql = "SELECT id, reference, hold, movement, amount_minor, currency, fee_minor, at \
                   FROM ledger WHERE id > $1 ORDER BY id LIMIT $2";
        let values = vec![after.into(), limit.into()];
        let rows: Vec<LedgerRow> =
            db::rows(self.0.reader(), "read the ledger", sql, values).await?;
        let line = |row: LedgerRow| {
            json!({
                "position": row.id,
                "reference": row.reference,
                "authorization": row.hold,
                "movement": row.movement,
                "amount": row.amount_minor,
                "currency": row.currency,
                "fee": row.fee_minor,
                "at": from_micros(row.at).unix_timestamp(),
            })
        };
        Ok(rows.into_iter().map(line).collect())
    }

    async fn try_to(&self, asked: Asked) -> Result<Told, Error> {
        self.0
            .transaction(move |txn| {
                let asked = asked.clone();
                Box::pin(async move { once(txn, &asked).await })
            })
            .await
    }
}

impl TxnError for Error {
    fn failure(&self) -> Option<&Failure> {
        match self {
            Self::Reused => None,
            Self::Database(failure) => Some(failure),
        }
    }
}

/// Answers what was answered under the key before, or carries the request out.
async fn once(txn: &Txn, asked: &Asked) -> Result<Told, Error> {
    let sql = format!("SELECT {OPERATION} FROM operation WHERE idempotency_key = $1");
    let key = asked.key.as_str();
    let known: Option<OperationRow> =
        db::row(txn, "look for a key", &sql, vec![key.into()]).await?;
    if let Some(known) = known {
        if asked.at - from_micros(known.at) < asked.keys_kept {
            if known.fingerprint != asked.fingerprint {
                return Err(Error::Reused);
            }
            return Ok(Told {
                status_code: u16::try_from(known.status_code).unwrap_or(500),
                answer: parse(&known.answer)?,
                is_replayed: true,
            });
        }
        let sql = "UPDATE operation SET idempotency_key = NULL WHERE id = $1";
        db::execute(txn, "forget a key", sql, vec![known.id.into()]).await?;
    }
    let (kind, hold, status_code, answer) = match &asked.task {
        Task::Authorize { amount, token, verdict } => {
            authorize(txn, asked, *amount, token, verdict.clone()).await?
        }
        Task::Capture { hold, amount, last, fee_basis_points } => {
            capture(txn, asked, hold, *amount, *last, *fee_basis_points).await?
        }
        Task::Void { hold } => void(txn, asked, hold).await?,
        Task::Refund { capture, amount, declined } => {
            refund::refund(txn, asked, capture, *amount, declined.as_deref()).await?
        }
    };
    let sql = "INSERT INTO operation (kind, reference, hold, idempotency_key, fingerprint, \
               status_code, answer, at) VALUES ($1, $2, $3, $4, $5, $6, $7, $8)";
    let values = vec![
        kind.into(),
        asked.reference.as_str().into(),
        hold.into(),
        key.into(),
        asked.fingerprint.clone().into(),
        i64::from(status_code).into(),
        answer.to_string().into(),
        micros(asked.at).into(),
    ];
    db::execute(txn, "keep an answer", sql, values).await?;
    Ok(Told { status_code, answer, is_replayed: false })
}

/// The kind of operation, its authorization, and the answer.
type Done = (&'static str, Option<String>, u16, serde_json::Value);

async fn authorize(
    txn: &Txn,
    asked: &Asked,
    amount: Money,
    token: &str,
    verdict: Verdict,
) -> Result<Done, Error> {
    let id = format!("auth_{}", clock::id().simple());
    let (reference, token) = (asked.reference.clone(), token.to_owned());
    let (hold, entries) = Hold::new(id, reference, token, amount, verdict, asked.at);
    let values = of_hold(&hold);
    let places: Vec<String> = (1..=values.len()).map(|place| format!("${place}")).collect();
    let sql = format!("INSERT INTO hold ({HOLD}) VALUES ({})", places.join(", "));
    db::execute(txn, "set money aside", &sql, values).await?;
    post(txn, &asked.reference, &hold.id, &entries, asked.at).await?;
    let answer = answers::authorization(&hold, &asked.base);
    Ok((AUTHORIZE, Some(hold.id), 201, answer))
}

async fn capture(
    txn: &Txn,
    asked: &Asked,
    id: &str,
    amount: i64,
    last: bool,
    fee_basis_points: i64,
) -> Result<Done, Error> {
    const KIND: &str = "capture";
    let Some(mut hold) = locked(txn, "id", id).await? else {
        let (status_code, answer) = answers::refused(Refused::NotFound);
        return Ok((KIND, None, status_code, answer));
    };
    let (status_code, answer) = match hold.capture(amount, last, fee_basis_points, asked.at) {
        Ok(entries) => {
            update(txn, &hold).await?;
            post(txn, &asked.reference, &hold.id, &entries, asked.at).await?;
            let id = format!("cap_{}", clock::id().simple());
            let amount = Money::new(amount, hold.amount.currency);
            let capture = Capture { id, hold: hold.id.clone(), amount, refunded: 0 };
            insert_capture(txn, &capture).await?;
            let taken = entries.first();
            let answer = taken
                .map(|taken| answers::capture(&capture.id, &asked.reference, &hold, taken, last))
                .unwrap_or_default();
            (201, answer)
        }
        Err(refused) => answers::refused(refused),
    };
    Ok((KIND, Some(hold.id), status_code, answer))
}

async fn void(txn: &Txn, asked: &Asked, id: &str) -> Result<Done, Error> {
    const KIND: &str = "void";
    let Some(mut hold) = locked(txn, "id", id).await? else {
        let (status_code, answer) = answers::refused(Refused::NotFound);
        return Ok((KIND, None, status_code, answer));
    };
    let (status_code, answer) = match hold.void() {
        Ok((released, entries)) => {
            update(txn, &hold).await?;
            post(txn, &asked.reference, &hold.id, &entries, asked.at).await?;
            (200, answers::void(&asked.reference, &hold, released))
        }
        Err(refused) => answers::refused(refused),
    };
    Ok((KIND, Some(hold.id), status_code, answer))
}

/// Reads an authorization and keeps others from changing it until the transaction ends.
async fn locked(txn: &Txn, column: &'static str, value: &str) -> Result<Option<Hold>, Failure> {
    let sql = format!("UPDATE hold SET token = token WHERE {column} = $1 RETURNING {HOLD}");
    let row = db::row(txn, "lock a hold", &sql, vec![value.into()]).await?;
    row.map(HoldRow::hold).transpose()
}
