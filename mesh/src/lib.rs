//! What every process of Ordermesh is built on.
//!
//! A process is started by [`run`], which reads its settings ([`config`]), sets up
//! [`telemetry`] and serves an [`App`]. A call that comes in passes [`server`], carries its
//! deadline and its trace in a [`Ctx`], and leaves again through a [`Channel`] of [`client`],
//! which finds the callee in the [`registry`]. [`auth`] says who calls, [`tls`] over what, and [`status`] what
//! they are told. What must survive a crash is kept by [`store`] and its neighbours:
//! [`idempotency`], [`outbox`], [`barrier`] and [`saga`]. Events leave through the outbox, are
//! read in the order of its [`log`], and are taken in elsewhere by what [`consume`]s them.

pub mod wire;
pub mod app;
pub mod config;
pub mod telemetry;
pub mod clock;
pub mod ctx;
pub mod deadline;
pub mod busy;
pub mod marks;
pub mod server;
pub mod client;
pub mod registry;
pub mod auth;
pub mod tls;
pub mod status;
pub mod store;
pub mod idempotency;
pub mod outbox;
mod lease;
pub mod log;
pub mod consume;
pub mod barrier;
pub mod saga;
pub mod operator;
mod clean_up;
pub mod failpoint;
pub mod bug;
pub mod money;
pub mod resource;
pub mod page;
#[cfg(feature = "testing")]
pub mod testing;
#[cfg(test)]
mod sim;

pub use app::{App, run, run_beside};
pub use client::{Channel, Policy, Within, fallback};
pub use config::Config;
pub use ctx::{Ctx, detach, offload, spawn};

/// What is known of each method, by its name: looked up in every call, where a hash that withstands
/// strangers costs more than it is worth. Names that they make up are not kept.
type ByName<T> = std::collections::HashMap<String, T, foldhash::fast::RandomState>;
