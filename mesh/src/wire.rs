//! The wire types that mesh itself speaks, generated from the contract.
#![allow(
    missing_docs,
    clippy::all,
    clippy::pedantic,
    clippy::restriction,
    reason = "generated; the comments stand in the .proto files"
)]

include!(concat!(env!("OUT_DIR"), "/modules.rs"));
