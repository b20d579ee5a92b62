//! What every service keeps of events: those it tells, and how far it took in those of others.

use serde::Deserialize;

use super::super::value::{int, maybe_int, text};

/// `outbox`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
pub struct Message {
    /// Its id.
    pub event_id: String,
    /// Whose: `orders/…`.
    pub aggregate: String,
    /// The revision that it tells of.
    #[serde(deserialize_with = "int")]
    pub seq: i64,
    /// `order.created` and so on.
    #[serde(rename = "type", default, deserialize_with = "text")]
    pub kind: String,
    /// When.
    #[serde(default, deserialize_with = "int")]
    pub created_at: i64,
    /// Its place in the log, once it has one.
    #[serde(default, deserialize_with = "maybe_int")]
    pub position: Option<i64>,
}

/// `cursor`: how far a consumer has read a source.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
pub struct Cursor {
    /// Who reads.
    pub consumer: String,
    /// Whose log.
    pub source: String,
    /// The last position that took effect.
    #[serde(deserialize_with = "int")]
    pub position: i64,
}

/// `dead_letter`: an event that a consumer could not take.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
pub struct DeadLetter {
    /// Whose it is.
    #[serde(default, deserialize_with = "text")]
    pub consumer: String,
    /// Which event.
    #[serde(default, deserialize_with = "text")]
    pub event_id: String,
    /// Of what.
    #[serde(default, deserialize_with = "text")]
    pub aggregate: String,
    /// Whether it still waits.
    #[serde(default, deserialize_with = "text")]
    pub state: String,
}
