//! The rows that are looked at, by the names of their columns. Columns that no check asks for are
//! passed over. Times are microseconds since 1970, UTC; money is minor units; ids are bare.

mod orders;
mod logs;
mod stock;
mod money;
mod parcels;
mod mails;

pub use logs::{Cursor, DeadLetter, Message};
pub use mails::{Mail, Notification};
pub use money::{Attempt, Payment, Posting, ProviderEntry, Refund};
pub use orders::{Order, OrderEvent, OrderLine, Saga, SagaStep};
pub use parcels::{CarrierEvent, Parcel, Shipment, ShipmentLine};
pub use stock::{Movement, Part, Reservation, Stock};
