//! The tables of payments, in the order in which they came to be.

use mesh::store::step;

/// Every step so far. One that was released is never edited.
#[must_use]
pub fn all() -> Vec<mesh::store::Migration> {
    vec![
        step("m0001_payments", include_str!("migrations/m0001_payments.sql")),
        step("payments_0002_refunds", include_str!("migrations/payments_0002_refunds.sql")),
    ]
}
