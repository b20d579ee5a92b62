//! What a call over mesh costs, beside tonic's own transport and a bare echo of hyper.
//!
//! Everything that is compared runs in turns in one run, since machines swing: only ratios of one
//! run say something. `cargo xtask bench mesh` builds the program beside this file and runs it.
//! The rival is in that program alone, so that nothing else of the workspace ever links it.

pub mod run;
pub mod cost;
pub mod layers;
pub mod count;
pub mod pinned;
pub mod faults;
pub mod idle;
pub mod transport;
pub mod floor;
pub mod echo;
pub mod load;
pub mod counters;
pub mod machine;
pub mod figures;

pub use generated::mesh::bench::v1 as api;

/// The service with its rules, as an encoded `google.protobuf.FileDescriptorSet`.
pub const DESCRIPTORS: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/descriptors.bin"));

#[expect(
    missing_docs,
    clippy::all,
    clippy::allow_attributes,
    clippy::allow_attributes_without_reason,
    clippy::too_many_lines,
    reason = "generated; the comments stand in the .proto files"
)]
mod generated {
    include!(concat!(env!("OUT_DIR"), "/modules.rs"));
}
