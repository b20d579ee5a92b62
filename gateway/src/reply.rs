//! The shape of what a client gets back, and the headers that ask for it.

pub mod negotiate;
pub mod problem;
pub mod conditional;
pub mod idempotency;
