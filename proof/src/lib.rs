//! Loads a running mesh and measures it.
//!
//! [`mod@bench`] says what is measured and how it is reported, [`load`] places orders in closed and
//! open loops, [`store_floor`] is what the same disk does without a mesh, [`cpu`] what it costs.

pub mod bench;
pub mod load;
pub mod store_floor;
pub mod cpu;
