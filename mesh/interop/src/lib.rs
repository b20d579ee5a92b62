//! gRPC's own interoperability tests over mesh: the service and its client are programs beside
//! this file, which `cargo xtask interop` runs against those of another implementation.

pub use generated::grpc::testing;

/// The service with its rules, as an encoded `google.protobuf.FileDescriptorSet`.
pub const DESCRIPTORS: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/descriptors.bin"));

/// Comes back in the headers of the answer.
pub const ECHO_INITIAL: &str = "x-grpc-test-echo-initial";

/// Comes back in the trailers of the answer.
pub const ECHO_TRAILING: &str = "x-grpc-test-echo-trailing-bin";

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

/// A payload of so many zeros; `None` for a size that is none.
#[must_use]
pub fn zeros(size: i32) -> Option<testing::Payload> {
    Some(testing::Payload { r#type: 0, body: vec![0; usize::try_from(size).ok()?] })
}
