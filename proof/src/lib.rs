//! Loads a running mesh, checks that what everybody says of it fits together, and measures it.
//!
//! [`load`] places orders in closed and open loops and records what clients were told
//! ([`history`]); [`collect`] reads what every service, the provider and the maildir say, which is a
//! [`world`]; [`mod@check`] is pure: from a world to findings, each with the whole life of its
//! order. [`mod@bench`] measures, beside what the same disk does without a mesh
//! ([`store_floor`]), and what it costs ([`cpu`]).

pub mod cli;
pub mod access;
pub mod load;
pub mod history;
pub mod collect;
pub mod world;
pub mod check;
pub mod bench;
pub mod store_floor;
pub mod cpu;
