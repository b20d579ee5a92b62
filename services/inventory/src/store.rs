//! Where stock is kept. The only module that knows there is a database.
//!
//! A call that changes something is one transaction: it takes its barrier or its `request_id`
//! first, locks what it is about, has the domain decide, and keeps the answer with the effect. A
//! refusal is decided before anything is written, so that a request's can be kept too; a command's
//! leaves no trace, and what goes wrong later rolls everything back.

mod once;
mod stocks;
mod movements;
mod shelves;
mod reservations;
mod holds;
mod expiry;
mod locations;

use mesh::{
    clock,
    idempotency::Answer,
    store::{Failure, step},
};
use time::OffsetDateTime;
use uuid::Uuid;

use crate::domain::{Movement, Place, Reason, Sku};

pub use holds::{Ask, Way};
pub use once::Once;
pub use stocks::Correction;

/// The database of this service. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Store {
    mesh: mesh::store::Store,
}

/// A call that changes something.
#[derive(Clone, Debug)]
pub struct Call<T> {
    /// What makes its attempts one.
    pub once: Once,
    /// Who calls: `users/{uuid}` or `services/{name}`.
    pub actor: String,
    /// When it came in.
    pub at: OffsetDateTime,
    /// How what it leads to is answered.
    pub tell: fn(&T) -> Answer,
}

/// A place where stock lies.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Location {
    /// Its id.
    pub place: Place,
    /// What people call it.
    pub display_name: String,
    /// When it was added.
    pub created_at: OffsetDateTime,
}

/// Why a counter is what it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Moved {
    /// Its id.
    pub id: Uuid,
    /// Of what.
    pub sku: Sku,
    /// Where.
    pub place: Place,
    /// What happened.
    pub movement: Movement,
    /// How many.
    pub quantity: i64,
    /// Why, if a person did it.
    pub reason: Option<Reason>,
    /// What that person had to say.
    pub note: String,
    /// The reservation that caused it.
    pub cause: Option<Uuid>,
    /// Who did it.
    pub actor: String,
    /// When.
    pub at: OffsetDateTime,
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
        vec![
            step("inventory_0001_stock", include_str!("migrations/inventory_0001_stock.sql")),
            step("inventory_0002_delivery", include_str!("migrations/inventory_0002_delivery.sql")),
        ]
    }

    /// The connections underneath: readiness asks them, and they are closed last.
    #[must_use]
    pub fn mesh(&self) -> mesh::store::Store {
        self.mesh.clone()
    }

    /// The time that holds end by.
    ///
    /// # Errors
    /// The database cannot be asked.
    pub async fn now(&self) -> Result<OffsetDateTime, Failure> {
        Ok(clock::from_micros(self.mesh.now_micros(self.mesh.reader()).await?))
    }

    /// What ends a SELECT whose rows are going to be changed. SQLite has one writer, who has
    /// locked everything already.
    fn for_update(&self) -> &'static str {
        if self.mesh.is_postgres() { " FOR UPDATE" } else { "" }
    }
}

/// `($1, $2), ($3, $4)`: the marks of `rows` rows of `columns` values.
fn marks(rows: usize, columns: usize) -> String {
    let row = |row: usize| {
        let marks = (1..=columns).map(|column| format!("${}", row * columns + column));
        format!("({})", marks.collect::<Vec<_>>().join(", "))
    };
    (0..rows).map(row).collect::<Vec<_>>().join(", ")
}

/// What cannot be read was not written by this module.
fn broken(what: &'static str) -> Failure {
    Failure::new("read the inventory", format!("{what} is malformed"))
}
