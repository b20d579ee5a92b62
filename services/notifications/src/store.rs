//! Where notifications are kept. The only module that knows there is a database.
//!
//! What is told about one order is decided under the lock of its row in `recipient`, whichever
//! log the event came by: so the address is either known to an event of a shipment, or its
//! notification is there for the event that brings the address.

mod inbox;
mod read;
mod due;
mod preferences;
mod keep;
mod rows;
#[cfg(test)]
mod tests;

use mesh::{
    idempotency::{self, Answer, Key},
    operator::Table,
    store::{Failure, TxnError, step},
};

pub use due::{Due, Sent};
pub use preferences::Stored;

/// The notifications of this process. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Store {
    mesh: mesh::store::Store,
}

/// The answer of a call, kept under its `request_id`.
#[derive(Clone, Debug)]
pub struct Kept {
    /// Whose call, and which.
    pub key: Key,
    /// What it was told.
    pub answer: Answer,
}

/// Why nothing was written.
#[derive(Debug, thiserror::Error)]
pub enum WriteError {
    /// The same call was answered in the meantime: its stored answer counts.
    #[error("this request was answered already")]
    Repeated,
    /// Another call changed the row in between.
    #[error("the row was changed by another call")]
    Changed,
    /// The database did not do it.
    #[error(transparent)]
    Failed(#[from] Failure),
}

/// What an audit reads: who was told what, and how far it came. No address and no text.
pub const EXPORTS: &[Table] = &[Table {
    name: "notification",
    sql: "SELECT id, event_id, channel, recipient, kind, 'orders/' || order_id AS order_name, \
          state, message_id, attempts, created_at, sent_at FROM notification ORDER BY id",
}];

// === impl Store ===

impl Store {
    /// Connects to the database and brings its tables up to date.
    ///
    /// # Errors
    /// It cannot be reached, or not be migrated.
    pub async fn connect(url: &str) -> Result<Self, Failure> {
        let mesh = mesh::store::Store::connect(url, Self::migrations()).await?;
        Ok(Self { mesh })
    }

    /// Works on a database that is connected and migrated.
    #[must_use]
    pub fn on(mesh: mesh::store::Store) -> Self {
        Self { mesh }
    }

    /// The steps that make this service's tables. One that was released is never edited.
    #[must_use]
    pub fn migrations() -> Vec<mesh::store::Migration> {
        vec![step(
            "notifications_0001_mail",
            include_str!("migrations/notifications_0001_mail.sql"),
        )]
    }

    /// The connections underneath: readiness asks them, and they are closed last.
    #[must_use]
    pub fn mesh(&self) -> mesh::store::Store {
        self.mesh.clone()
    }

    /// The stored answer of a call.
    ///
    /// # Errors
    /// The key belongs to another request, or the database cannot be read.
    pub async fn answered(&self, key: &Key) -> Result<Option<Answer>, idempotency::Refused> {
        idempotency::stored(self.mesh.reader(), key).await
    }
}

// === impl WriteError ===

impl TxnError for WriteError {
    fn failure(&self) -> Option<&Failure> {
        match self {
            Self::Failed(failure) => Some(failure),
            Self::Repeated | Self::Changed => None,
        }
    }
}

/// `$2, $3, $4`: the marks of `count` values, the first of them `$first`.
fn marks(first: usize, count: usize) -> String {
    (first..first + count).map(|mark| format!("${mark}")).collect::<Vec<_>>().join(", ")
}

/// What cannot be read was not written by this module.
fn broken(what: &'static str) -> Failure {
    Failure::new("read the notifications", format!("{what} is malformed"))
}
