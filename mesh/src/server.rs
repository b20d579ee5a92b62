//! What a call meets coming in.
//!
//! A socket is kept by `accept`, which counts those of each client (`clients`), each of its connections
//! by `connection`. A call
//! passes `call`: its deadline is read and enforced, `limit` finds it a place, its caller is known
//! and admitted, a panic of its handler becomes an answer, which leaves through `answer`. Beside
//! the services stand `health` and reflection, and the `admin` port.

mod settings;
mod accept;
mod clients;
mod link;
mod connection;
mod admin;
mod median;
mod gradient;
mod limit;
mod upstreams;
mod methods;
mod answer;
mod call;
mod health;

pub(crate) use accept::{Accept, Listener, Wire};
pub(crate) use admin::{Check, Readiness, admin, failpoints};
pub(crate) use call::Calls;
#[cfg(feature = "testing")]
pub(crate) use call::layers;
pub(crate) use clients::Clients;
pub(crate) use health::health;
pub(crate) use limit::{Limiter, Permit};
pub use link::Peer;
pub(crate) use methods::{Methods, Override};
pub use settings::Settings;
