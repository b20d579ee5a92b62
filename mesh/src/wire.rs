//! The wire types that mesh itself speaks, generated from the contract.

pub use generated::{google, ordermesh};

/// The contract of these types with its options, as an encoded
/// `google.protobuf.FileDescriptorSet`.
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
