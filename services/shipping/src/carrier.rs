//! The carrier: what it is asked, what it reports; and one that is built in.
//!
//! It is called outside of any transaction, under keys of ours. The built-in one keeps its books
//! in our database for want of one of its own, in tables and transactions of its own: what is
//! between us is calls and reports, of which any may be lost.

pub mod domain;
pub mod store;

use std::{sync::Arc, time::Duration};

use futures_util::future::BoxFuture;
use mesh::{app::Draining, clock, store::Failure};
use time::OffsetDateTime;
use tokio::sync::Notify;

use self::{
    domain::{Faults, Parcel, Stage},
    store::{Books, Moved},
};
use crate::domain::{Address, Booking, Kind, Outcome, Sign};

pub use domain::Habits;

/// A carrier. What it is asked under one key it does once.
pub trait Carrier: Send + Sync + 'static {
    /// Asks it, or asks it again under the same key. Whatever is not a clear answer is
    /// [`Outcome::Unknown`].
    fn send<'a>(&'a self, ask: &'a Ask) -> BoxFuture<'a, Outcome>;

    /// What it reports and was not acknowledged, the oldest first.
    fn news(&self, limit: u32) -> BoxFuture<'_, Result<Vec<News>, Silent>>;

    /// Says that reports were taken in: they do not come again.
    fn acknowledge<'a>(&'a self, ids: &'a [String]) -> BoxFuture<'a, Result<(), Silent>>;

    /// Resolves when there may be news. Some come unannounced.
    fn called(&self) -> BoxFuture<'_, ()>;
}

/// What a carrier is asked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ask {
    /// What is asked.
    pub kind: Kind,
    /// The key of the parcel.
    pub parcel: String,
    /// Where it goes.
    pub ship_to: Option<Address>,
}

/// What a carrier reports.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct News {
    /// What it calls the event: the same each time it is reported.
    pub id: String,
    /// The key of the parcel.
    pub parcel: String,
    /// What happened.
    pub sign: Sign,
    /// Who reports it, and what the parcel is called there.
    pub booking: Booking,
    /// When it happened.
    pub at: OffsetDateTime,
}

/// The carrier cannot be asked now.
#[derive(Debug, thiserror::Error)]
#[error("the carrier does not answer")]
pub struct Silent(#[from] Failure);

/// The carrier that is built in: it moves parcels by the clock, and makes the mistakes that the
/// address asks for. Cheap to clone.
#[derive(Clone, Debug)]
pub struct BuiltIn {
    books: Books,
    habits: Habits,
    /// Rung when a parcel becomes due sooner than was known.
    due: Arc<Notify>,
    /// Rung when there are news.
    news: Arc<Notify>,
}

/// What the carrier calls itself.
pub const NAME: &str = "mesh-parcel";

/// The longest that nobody looks for parcels of other processes.
const IDLE: Duration = Duration::from_secs(1);

/// How long to wait when the database fails.
const PAUSE: Duration = Duration::from_secs(1);

// === impl Silent ===

impl Silent {
    /// What is behind it.
    #[must_use]
    pub fn into_failure(self) -> Failure {
        self.0
    }
}

// === impl BuiltIn ===

impl BuiltIn {
    /// A carrier that keeps its books in `db`.
    #[must_use]
    pub fn new(db: mesh::store::Store, habits: Habits) -> Self {
        Self { books: Books::new(db), habits, due: Arc::default(), news: Arc::default() }
    }

    /// Moves parcels until the process leaves.
    ///
    /// # Errors
    /// None: a database that fails is asked again.
    pub async fn run(self, draining: Draining) -> anyhow::Result<()> {
        while !draining.is_draining() {
            let pause = match self.pass().await {
                Ok(pause) => pause.min(IDLE),
                Err(failure) => {
                    let causes = mesh::status::with_causes(&failure);
                    tracing::warn!("cannot move parcels: {causes}");
                    PAUSE
                }
            };
            tokio::select! {
                () = draining.begun() => {}
                () = self.due.notified() => {}
                () = tokio::time::sleep(pause) => {}
            }
        }
        Ok(())
    }

    /// Moves the parcels that are due by one stage; says how long until the next one is.
    ///
    /// # Errors
    /// [`Failure`] of the database.
    pub async fn pass(&self) -> Result<Duration, Failure> {
        // Moving is a write: look first, where others read.
        match self.books.next_due().await? {
            None => return Ok(IDLE),
            Some(pause) if !pause.is_zero() => return Ok(pause),
            Some(_now) => {}
        }
        if self.books.advance(self.habits).await? > 0 {
            self.news.notify_one();
        }
        Ok(self.books.next_due().await?.unwrap_or(IDLE))
    }

    async fn asked(&self, ask: &Ask) -> Result<Outcome, Failure> {
        let organization = ask.ship_to.as_ref().map_or("", |to| to.organization.as_str());
        let faults = Faults::of(organization);
        let moved = match ask.kind {
            Kind::Book => {
                if faults.refuse() {
                    return Ok(declined("address_refused"));
                }
                let parcel = Parcel::booked(&ask.parcel, clock::id(), faults);
                self.books.book(parcel, self.habits).await?
            }
            Kind::HandOver => self.books.hand_over(&ask.parcel, self.habits).await?,
            Kind::Cancel => self.books.cancel(&ask.parcel).await?,
        };
        let Some(Moved { parcel, is_new }) = moved else { return Ok(declined("unknown_parcel")) };
        if is_new {
            self.due.notify_one();
            if ask.kind == Kind::HandOver {
                self.news.notify_one();
            }
            if parcel.faults.drop_answer() {
                return Ok(Outcome::Unknown);
            }
        }
        let done = Outcome::Done(booking(&parcel));
        Ok(match (ask.kind, parcel.stage) {
            (Kind::Book, _) | (Kind::Cancel, Stage::Cancelled) => done,
            (Kind::HandOver, Stage::Booked | Stage::Cancelled) => declined("cancelled"),
            (Kind::HandOver, _) => done,
            (Kind::Cancel, _) => declined("picked_up"),
        })
    }
}

impl Carrier for BuiltIn {
    fn send<'a>(&'a self, ask: &'a Ask) -> BoxFuture<'a, Outcome> {
        Box::pin(async move {
            self.asked(ask).await.unwrap_or_else(|failure| {
                let causes = mesh::status::with_causes(&failure);
                tracing::warn!("the carrier's books failed: {causes}");
                Outcome::Unknown
            })
        })
    }

    fn news(&self, limit: u32) -> BoxFuture<'_, Result<Vec<News>, Silent>> {
        Box::pin(async move { Ok(self.books.news(limit).await?) })
    }

    fn acknowledge<'a>(&'a self, ids: &'a [String]) -> BoxFuture<'a, Result<(), Silent>> {
        Box::pin(async move { Ok(self.books.acknowledge(ids).await?) })
    }

    fn called(&self) -> BoxFuture<'_, ()> {
        Box::pin(self.news.notified())
    }
}

fn booking(parcel: &Parcel) -> Booking {
    Booking { carrier: NAME.to_owned(), tracking: parcel.tracking.clone() }
}

fn declined(code: &str) -> Outcome {
    Outcome::Declined { code: code.to_owned() }
}
