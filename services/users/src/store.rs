//! Where accounts, keys and sessions are kept. The only module that knows there is a database.

mod accounts;
mod credentials;
mod sessions;

use mesh::{
    idempotency::{self, Answer, Claim, Key},
    store::{Failure, Txn, TxnError, step},
};
use time::OffsetDateTime;

use crate::domain::User;

pub use sessions::{Attempt, Exchanged, Opening, Proved, Settled};

/// The database of this service. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Store {
    mesh: mesh::store::Store,
}

/// An account as it is stored.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stored {
    /// The account.
    pub user: User,
    /// How often it was written; what its etag is made of.
    pub revision: i64,
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
    /// Another call changed the account in between.
    #[error("the account was changed by another call")]
    Changed,
    /// Another account has this value already.
    #[error("{0} is taken")]
    Taken(&'static str),
    /// The database did not do it.
    #[error(transparent)]
    Failed(#[from] Failure),
}

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

    /// The steps that make this service's tables.
    #[must_use]
    pub fn migrations() -> Vec<mesh::store::Migration> {
        vec![step("users_0001_accounts", include_str!("migrations/users_0001_accounts.sql"))]
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
}

// === impl WriteError ===

impl TxnError for WriteError {
    fn failure(&self) -> Option<&Failure> {
        match self {
            Self::Failed(failure) => Some(failure),
            Self::Repeated | Self::Changed | Self::Taken(_) => None,
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
