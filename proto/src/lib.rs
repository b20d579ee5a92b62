//! The shop's contract in Rust: `proto::orders::v1` is the package `ordermesh.orders.v1`.
//!
//! Everything but [`DESCRIPTORS`] is generated from the `.proto` files beside this crate's
//! manifest; a new package needs no edit here.

pub use generated::google;
pub use generated::ordermesh::*;

/// Every file of the contract with its options and comments, as an encoded
/// `google.protobuf.FileDescriptorSet`.
pub const DESCRIPTORS: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/descriptors.bin"));

#[expect(
    missing_docs,
    clippy::all,
    clippy::allow_attributes,
    clippy::allow_attributes_without_reason,
    clippy::too_many_lines,
    reason = "generated: the .proto files are what is documented and linted"
)]
mod generated {
    include!(concat!(env!("OUT_DIR"), "/modules.rs"));
}
