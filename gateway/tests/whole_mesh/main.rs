//! The whole mesh in one process: every service, the provider and the gateway, over sockets.
#![expect(clippy::panic, clippy::expect_used, reason = "tests")]

mod bed;
mod access;
mod crowd;
mod doorstep;
mod edge;
mod input;
mod lives;
mod provider;
mod spans;
mod without;
