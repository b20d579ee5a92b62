//! The operator's tool.
//!
//! A command of [`cli`] asks the services it finds by [`access`], one file per thing that is asked
//! for: [`explain`], [`dead_letters`], [`sagas`], [`outbox`]. What it prints is made in [`say`],
//! for people or as JSON; [`error`] says what to do where something fails.

pub mod cli;
pub mod access;
pub mod explain;
pub mod dead_letters;
pub mod sagas;
pub mod outbox;
pub mod say;
pub mod error;
