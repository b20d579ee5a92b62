//! What stands between the socket and the routes: who calls, how much, how large, how long.

pub mod limits;
pub mod headers;
pub mod client_ip;
pub mod cors;
pub mod auth;
pub mod rate_limit;
pub mod deadline;
pub mod security;
