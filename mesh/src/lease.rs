//! Who may do what only one process at a time does: a row with an owner, an end and a fence.

mod store;

pub(crate) use store::{give_back, renew, take};
