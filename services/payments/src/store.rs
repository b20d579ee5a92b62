//! Where payments are kept: the only module that knows there is a database.
//!
//! Every change locks the row of its payment first. So attempts of one payment are decided one
//! after the other, whoever brings their outcome, and events keep the order of the commits. The
//! provider is never called in here: a change answers which attempt is to be sent.

mod read;
mod write;
mod due;
mod rows;
#[cfg(test)]
mod tests;

use std::sync::Arc;

use mesh::{
    barrier::{self, Begun, Command},
    clock::{self, from_micros},
    idempotency::{self, Answer, Claim, Key},
    money::{Currency, Money},
    store::{self as db, Failure, Txn},
};
use time::OffsetDateTime;
use uuid::Uuid;

use self::write::{insert, locked, save};
use crate::{
    domain::{Change, Method, Pace, Payment, Refund, Refusal, Report, Started},
    error::Error,
    migrations,
};

pub use due::Due;
pub use read::Page;
pub use rows::Entry;

/// The payments of this process. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Store {
    db: db::Store,
    pace: Arc<Pace>,
}

/// What came of a command.
#[derive(Clone, Debug)]
pub struct Commanded {
    /// The payment as it is now.
    pub payment: Payment,
    /// The attempt that the command is about, if it made one.
    pub attempt: Option<Uuid>,
    /// Whether that is to be sent now: this is the first time that the command came.
    pub send: bool,
}

// === impl Store ===

impl Store {
    /// Opens the database and brings its tables up to date.
    ///
    /// # Errors
    /// [`Failure`] if it cannot be opened. Say it and end the process.
    pub async fn connect(url: &str, pace: Pace) -> Result<Self, Failure> {
        Ok(Self::new(db::Store::connect(url, migrations::all()).await?, pace))
    }

    /// Uses a database that is open and has the tables.
    #[must_use]
    pub fn new(db: db::Store, pace: Pace) -> Self {
        Self { db, pace: Arc::new(pace) }
    }

    /// The database itself, for readiness and closing.
    #[must_use]
    pub fn mesh(&self) -> &db::Store {
        &self.db
    }

    /// How patiently the provider is asked.
    #[must_use]
    pub fn pace(&self) -> &Pace {
        &self.pace
    }

    /// Notes a payment. The one that is there already is answered as it stands, if it is the same.
    ///
    /// # Errors
    /// [`Error::Taken`] if id or order have another payment, [`Refusal::Undone`] if it was voided
    /// before it came to be.
    pub async fn create(&self, payment: Payment) -> Result<Payment, Error> {
        self.db
            .transaction(move |txn| {
                let payment = payment.clone();
                Box::pin(async move {
                    if insert(txn, &payment).await? {
                        return Ok(payment);
                    }
                    let Some(found) = locked(txn, payment.id).await? else {
                        return Err(Error::Taken(payment.order));
                    };
                    if found.is_tombstone() {
                        return Err(Error::refused(payment.id)(Refusal::Undone));
                    }
                    let is_same = (&found.order, &found.customer, found.amount)
                        == (&payment.order, &payment.customer, payment.amount);
                    let name = format!("payments/{}", payment.id);
                    if is_same { Ok(found) } else { Err(Error::Taken(name)) }
                })
            })
            .await
    }

    /// Commits that a payment is going to be authorized.
    ///
    /// # Errors
    /// [`Error::NotFound`], or [`Error::Refused`] as [`Payment::authorize`] says.
    pub async fn authorize(
        &self,
        id: Uuid,
        command: Command,
        method: Option<Method>,
    ) -> Result<Commanded, Error> {
        self.command(id, command, move |payment, started, pace| {
            payment.authorize(started, method.clone(), pace)
        })
        .await
    }

    /// Commits that an authorized amount is going to be taken.
    ///
    /// # Errors
    /// [`Error::NotFound`], or [`Error::Refused`] as [`Payment::capture`] says.
    pub async fn capture(
        &self,
        id: Uuid,
        command: Command,
        amount: Option<Money>,
        last: bool,
    ) -> Result<Commanded, Error> {
        self.command(id, command, move |payment, started, pace| {
            payment.capture(started, amount, last, pace)
        })
        .await
    }

    /// Commits that a saga's refund is granted and going to be paid.
    ///
    /// # Errors
    /// [`Error::NotFound`], [`Error::Refused`] as [`Payment::refund`] says, or
    /// [`Error::RefundTaken`].
    pub async fn refund_by(
        &self,
        id: Uuid,
        command: Command,
        refund: Refund,
    ) -> Result<Commanded, Error> {
        self.command(id, command, move |payment, started, pace| {
            let refund = Refund { created_at: started.at, ..refund.clone() };
            payment.refund(started, refund, clock::id, pace)
        })
        .await
    }

    /// Commits that a person's refund is granted and going to be paid, and keeps `answer` for the
    /// request that said so. One that is there already is answered, if it is the same.
    ///
    /// # Errors
    /// As [`Store::refund_by`]; [`Error::Repeated`] if the request was answered before.
    pub async fn grant(
        &self,
        id: Uuid,
        refund: Refund,
        answer: Option<(Key, Answer)>,
    ) -> Result<Commanded, Error> {
        let store = self.clone();
        self.db
            .transaction(move |txn| {
                let (store, refund, answer) = (store.clone(), refund.clone(), answer.clone());
                Box::pin(async move {
                    if let Some((key, answer)) = answer {
                        let claim =
                            idempotency::claim(txn, &key, &answer, refund.created_at).await?;
                        if claim == Claim::Repeated {
                            return Err(Error::Repeated);
                        }
                    }
                    let before = locked(txn, id).await?.ok_or(Error::NotFound(id))?;
                    let mut payment = before.clone();
                    if let Some(known) = before.refunds.iter().find(|one| one.id == refund.id) {
                        let is_same = (known.amount, &known.reason, &known.saga)
                            == (refund.amount, &refund.reason, &refund.saga);
                        if !is_same {
                            return Err(Error::RefundTaken(refund.id));
                        }
                        return Ok(Commanded { payment, attempt: None, send: false });
                    }
                    let started = Started { id: clock::id(), at: store.now(txn).await? };
                    let refund = Refund { created_at: started.at, ..refund };
                    let change = payment
                        .refund(started, refund, clock::id, &store.pace)
                        .map_err(Error::refused(id))?;
                    save(txn, &before, &mut payment, &change, started.at).await?;
                    Ok(Commanded { payment, attempt: change.send, send: true })
                })
            })
            .await
    }

    /// Commits that nothing may be authorized any more, and that what is set aside is going to be
    /// given back. Of a payment that does not exist, a tombstone is left.
    ///
    /// # Errors
    /// [`Failure`] of the database.
    pub async fn void(&self, id: Uuid, command: Command) -> Result<Commanded, Error> {
        let store = self.clone();
        self.db
            .transaction(move |txn| {
                let (store, command) = (store.clone(), command.clone());
                Box::pin(async move {
                    // Whatever the barrier knows of the command, the payment's own state says
                    // what is left to undo; the barrier refuses a command that comes late.
                    barrier::begin_undo(txn, &command).await?;
                    let at = store.now(txn).await?;
                    let tombstone = Payment::tombstone(id, nothing()?, at);
                    insert(txn, &tombstone).await?;
                    let before = locked(txn, id).await?.ok_or(Error::NotFound(id))?;
                    let mut payment = before.clone();
                    let started = Started { id: clock::id(), at };
                    let change = payment.void(started, &store.pace);
                    save(txn, &before, &mut payment, &change, at).await?;
                    let attempt = change.send;
                    Ok(Commanded { payment, attempt, send: attempt.is_some() })
                })
            })
            .await
    }

    /// Commits that an attempt which was not sent yet is going to be.
    ///
    /// # Errors
    /// [`Failure`] of the database.
    pub async fn send(&self, due: Due) -> Result<Payment, Error> {
        let change = self.change(due.payment, move |payment, at, pace| {
            payment.send(due.attempt, at, pace);
            Ok(Change::default())
        });
        Ok(change.await?.0)
    }

    /// Takes in what became of an attempt; also says which attempt is to be sent in consequence.
    ///
    /// # Errors
    /// [`Failure`] of the database.
    pub async fn apply(&self, payment: Uuid, report: Report) -> Result<(Payment, Change), Error> {
        self.change(payment, move |payment, at, pace| {
            payment.apply(Report { at, ..report.clone() }, pace)
        })
        .await
    }

    /// Takes in what the resolver learned of an attempt: [`Payment::learn`].
    ///
    /// # Errors
    /// [`Failure`] of the database.
    pub async fn learn(&self, payment: Uuid, report: Report) -> Result<(Payment, Change), Error> {
        self.change(payment, move |payment, at, pace| {
            payment.learn(Report { at, ..report.clone() }, pace)
        })
        .await
    }

    /// Takes in what a person found out, and keeps `answer` for the request that said so.
    ///
    /// # Errors
    /// [`Error::Repeated`] if the request was answered before; [`Error::EtagMismatch`] if the
    /// payment has changed since it was read.
    pub async fn review(
        &self,
        read: &Payment,
        report: Report,
        answer: Option<(Key, Answer)>,
    ) -> Result<(Payment, Change), Error> {
        let (store, id, revision) = (self.clone(), read.id, read.revision);
        self.db
            .transaction(move |txn| {
                let (store, report, answer) = (store.clone(), report.clone(), answer.clone());
                Box::pin(async move {
                    if let Some((key, answer)) = answer {
                        let claim = idempotency::claim(txn, &key, &answer, report.at).await?;
                        if claim == Claim::Repeated {
                            return Err(Error::Repeated);
                        }
                    }
                    let before = locked(txn, id).await?.ok_or(Error::NotFound(id))?;
                    if before.revision != revision {
                        return Err(Error::EtagMismatch { payment: id, revision: before.revision });
                    }
                    let mut payment = before.clone();
                    let at = report.at;
                    let change = payment.apply(report, &store.pace).map_err(Error::refused(id))?;
                    save(txn, &before, &mut payment, &change, at).await?;
                    Ok((payment, change))
                })
            })
            .await
    }

    /// The first time, lets `decide` begin an attempt; each further time, answers the one that it
    /// began.
    async fn command<F>(&self, id: Uuid, command: Command, decide: F) -> Result<Commanded, Error>
    where
        F: Fn(&mut Payment, Started, &Pace) -> Result<Change, Refusal>,
        F: Clone + Send + Sync + 'static,
    {
        let store = self.clone();
        self.db
            .transaction(move |txn| {
                let (store, command, decide) = (store.clone(), command.clone(), decide.clone());
                Box::pin(async move {
                    let begun = barrier::begin_do(txn, &command).await?;
                    let before = locked(txn, id).await?;
                    let before = match (before, &begun) {
                        // Who undid the command before it came may have known no payment.
                        (_, Begun::Undone) => return Err(Error::refused(id)(Refusal::Undone)),
                        (None, Begun::First | Begun::Repeated(_)) => {
                            return Err(Error::NotFound(id));
                        }
                        (Some(before), Begun::First | Begun::Repeated(_)) => before,
                    };
                    if let Begun::Repeated(result) = begun {
                        let attempt = Uuid::from_slice(&result).ok();
                        return Ok(Commanded { payment: before, attempt, send: false });
                    }
                    let at = store.now(txn).await?;
                    let mut payment = before.clone();
                    let started = Started { id: clock::id(), at };
                    let change =
                        decide(&mut payment, started, &store.pace).map_err(Error::refused(id))?;
                    barrier::finish_do(txn, &command, started.id.as_bytes()).await?;
                    save(txn, &before, &mut payment, &change, at).await?;
                    Ok(Commanded { payment, attempt: change.send, send: true })
                })
            })
            .await
    }

    /// Locks a payment, lets `decide` change it, and writes what changed with all that follows.
    async fn change<F>(&self, id: Uuid, decide: F) -> Result<(Payment, Change), Error>
    where
        F: Fn(&mut Payment, OffsetDateTime, &Pace) -> Result<Change, Refusal>,
        F: Clone + Send + Sync + 'static,
    {
        let store = self.clone();
        self.db
            .transaction(move |txn| {
                let (store, decide) = (store.clone(), decide.clone());
                Box::pin(async move {
                    let before = locked(txn, id).await?.ok_or(Error::NotFound(id))?;
                    let at = store.now(txn).await?;
                    let mut payment = before.clone();
                    let change =
                        decide(&mut payment, at, &store.pace).map_err(Error::refused(id))?;
                    save(txn, &before, &mut payment, &change, at).await?;
                    Ok((payment, change))
                })
            })
            .await
    }

    /// The time that timers go by.
    async fn now(&self, txn: &Txn) -> Result<OffsetDateTime, Failure> {
        Ok(from_micros(self.db.now_micros(txn).await?))
    }
}

/// What a payment comes to that was never said: nothing, in any currency.
fn nothing() -> Result<Money, Failure> {
    let euro = Currency::parse("EUR");
    euro.map(Money::zero).map_err(|error| Failure::new("write a payment", error.to_string()))
}
