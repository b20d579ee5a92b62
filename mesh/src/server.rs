//! What a call meets coming in.
//!
//! A connection is taken by `accept`; a call on it passes `call`: its deadline is read and
//! enforced, its caller is known and admitted, a panic of its handler becomes an answer. Beside
//! the services stand `health` and reflection, and the `admin` port.

mod accept;
mod admin;
mod answer;
mod call;
mod health;

pub use accept::Peer;
pub(crate) use accept::{Listener, Wire};
pub(crate) use admin::{Check, Readiness, admin, failpoints};
pub(crate) use call::{Calls, Limits};
pub(crate) use health::health;
