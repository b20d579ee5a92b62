//! Where orders are kept. The only module that knows there is a database.
//!
//! A change of an order is one transaction: the key of its request first, then the row, guarded
//! by the revision that was read, then one entry and one published event for each revision it
//! takes, and what the saga has to know. All of it, or nothing.

mod read;
mod rows;
mod trail;
mod waiters;
mod write;

use std::sync::Arc;

use futures_util::future::BoxFuture;
use mesh::{
    idempotency::{self, Answer, Claim, Key},
    store::{Failure, Txn, TxnError, step},
};
use time::OffsetDateTime;
use uuid::Uuid;

use crate::domain::{Event, FulfillmentState, Order, PaymentState, State};

pub use trail::{Broken, Trail};
pub use write::{load, save};

/// The database of this service. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Store {
    mesh: mesh::store::Store,
    waiters: Arc<waiters::Waiters>,
}

/// An order as it is stored.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stored {
    /// The order.
    pub order: Order,
    /// How many changes it has seen; what its etag is made of.
    pub revision: i64,
}

/// A change of an order: the order after it, what happened, and who did it.
#[derive(Clone, Debug)]
pub struct Change {
    /// The order as it is now.
    pub order: Order,
    /// The revision that was read; 0 for an order that is new.
    pub read: i64,
    /// What happened, each taking one revision.
    pub events: Vec<Event>,
    /// `users/{uuid}` or `services/{name}`.
    pub actor: String,
    /// When.
    pub at: OffsetDateTime,
}

/// The answer of a call, kept under its `request_id`.
#[derive(Clone, Debug)]
pub struct Kept {
    /// Whose call, and which.
    pub key: Key,
    /// What it was told.
    pub answer: Answer,
}

/// One thing that happened to an order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// The revision that it made.
    pub revision: i64,
    /// As it is published.
    pub kind: String,
    /// When.
    pub at: OffsetDateTime,
    /// Who did it.
    pub actor: String,
    /// Where the order stood then.
    pub state: State,
    /// Where its money stood then.
    pub payment_state: PaymentState,
    /// Where its goods stood then.
    pub fulfillment_state: FulfillmentState,
    /// More, in words.
    pub note: String,
}

/// Why nothing was written.
#[derive(Debug, thiserror::Error)]
pub enum WriteError {
    /// The same call was answered in the meantime: its stored answer counts.
    #[error("this request was answered already")]
    Repeated,
    /// The order changed since it was read.
    #[error("the order changed at the same moment")]
    Changed,
    /// The id is another order's.
    #[error("the id is taken")]
    Exists,
    /// The customer has another order of this `request_id`.
    #[error("the request id was used for another order")]
    Reused,
    /// The order is being undone: it does not go on any more.
    #[error("the order is being undone")]
    TooLate,
    /// The order's saga was not where it must be: the order itself says where that is.
    #[error("the order's saga {0}")]
    Saga(&'static str),
    /// The database did not do it.
    #[error(transparent)]
    Failed(#[from] Failure),
}

/// What else belongs into the transaction of a change.
pub type Also<T> =
    Arc<dyn for<'t> Fn(&'t Txn) -> BoxFuture<'t, Result<T, WriteError>> + Send + Sync>;

// === impl Store ===

impl Store {
    /// Connects to the database and brings its tables up to date.
    ///
    /// # Errors
    /// It cannot be reached, or not be migrated.
    pub async fn connect(url: &str) -> Result<Self, Failure> {
        Ok(Self::on(mesh::store::Store::connect(url, Self::migrations()).await?))
    }

    /// Works on a database that is connected and migrated.
    #[must_use]
    pub fn on(mesh: mesh::store::Store) -> Self {
        Self { mesh, waiters: Arc::default() }
    }

    /// The steps that make this service's tables.
    #[must_use]
    pub fn migrations() -> Vec<mesh::store::Migration> {
        vec![
            step("orders_0001_orders", include_str!("migrations/orders_0001_orders.sql")),
            step("orders_0002_delivery", include_str!("migrations/orders_0002_delivery.sql")),
        ]
    }

    /// The connections underneath: readiness asks them, and they are closed last.
    #[must_use]
    pub fn mesh(&self) -> &mesh::store::Store {
        &self.mesh
    }

    /// The stored answer of a call.
    ///
    /// # Errors
    /// The key belongs to another request, or the database cannot be read.
    pub async fn answered(&self, key: &Key) -> Result<Option<Answer>, idempotency::Refused> {
        idempotency::stored(self.mesh.reader(), key).await
    }

    /// Keeps a refusal under its `request_id`.
    ///
    /// # Errors
    /// [`WriteError::Repeated`] if another answer was first, or the database failed.
    pub async fn refuse(&self, kept: Kept, at: OffsetDateTime) -> Result<(), WriteError> {
        self.mesh
            .transaction(move |txn| {
                let kept = kept.clone();
                Box::pin(async move { claim(txn, Some(&kept), at).await })
            })
            .await
    }

    /// Places an order: its answer, its row, its event, and what `also` adds.
    ///
    /// # Errors
    /// [`WriteError`]; then nothing was written.
    pub async fn place<T: Send + 'static>(
        &self,
        change: Change,
        kept: Option<Kept>,
        also: Also<T>,
    ) -> Result<T, WriteError> {
        let work = Arc::new((change, kept, also));
        self.mesh
            .transaction(move |txn| {
                let work = Arc::clone(&work);
                Box::pin(async move {
                    let (change, kept, also) = &*work;
                    claim(txn, kept.as_ref(), change.at).await?;
                    write::place(txn, change, kept.as_ref().map(Kept::request_id)).await?;
                    also(txn).await
                })
            })
            .await
    }

    /// Writes a change of an order: its answer, its row, its events, and what `also` adds.
    ///
    /// # Errors
    /// [`WriteError::Changed`] if another was faster; then nothing was written.
    pub async fn change<T: Send + 'static>(
        &self,
        change: Change,
        kept: Option<Kept>,
        also: Also<T>,
    ) -> Result<T, WriteError> {
        let (id, revision) = (change.order.id, change.revision());
        let work = Arc::new((change, kept, also));
        let changed = self
            .mesh
            .transaction(move |txn| {
                let work = Arc::clone(&work);
                Box::pin(async move {
                    let (change, kept, also) = &*work;
                    claim(txn, kept.as_ref(), change.at).await?;
                    save(txn, change).await?;
                    also(txn).await
                })
            })
            .await?;
        self.tell(id, revision);
        Ok(changed)
    }

    /// Tells those who wait for this order that it has, or is about to have, this revision.
    pub fn tell(&self, id: Uuid, revision: i64) {
        self.waiters.tell(id, revision);
    }
}

// === impl Change ===

impl Change {
    /// The revision that the order has after this change.
    #[must_use]
    pub fn revision(&self) -> i64 {
        // An order sees a handful of events in its life.
        self.read.saturating_add(i64::try_from(self.events.len()).unwrap_or(i64::MAX))
    }
}

// === impl Kept ===

impl Kept {
    fn request_id(&self) -> Uuid {
        self.key.request_id
    }
}

// === impl WriteError ===

impl TxnError for WriteError {
    fn failure(&self) -> Option<&Failure> {
        match self {
            Self::Failed(failure) => Some(failure),
            Self::Repeated
            | Self::Changed
            | Self::Exists
            | Self::Reused
            | Self::TooLate
            | Self::Saga(_) => None,
        }
    }
}

/// Keeps an answer; the first statement of a transaction that changes something, so that of two
/// equal calls the slower one waits here and then finds the answer of the other.
async fn claim(txn: &Txn, kept: Option<&Kept>, at: OffsetDateTime) -> Result<(), WriteError> {
    let Some(Kept { key, answer }) = kept else { return Ok(()) };
    match idempotency::claim(txn, key, answer, at).await? {
        Claim::First => Ok(()),
        Claim::Repeated => Err(WriteError::Repeated),
    }
}

#[cfg(test)]
mod tests;
