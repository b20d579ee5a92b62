//! Between HTTP's JSON and the wire: the seam behind which the codec stands. Above it nobody
//! knows how a message is made; [`json_to_wire()`] and [`wire_to_json()`] are all there is.

pub mod path;
pub mod scan;
pub mod number;
pub mod base64;
pub mod well_known;
pub mod build;
pub mod bind;
pub mod query;
pub mod mask;
pub mod json_to_wire;
pub mod wire_to_json;

pub use json_to_wire::{Input, PREFIX, json_to_wire};
pub use wire_to_json::{Reply, Writer, wire_to_json};

#[cfg(test)]
mod tests;
