//! What the notifications service keeps, and what it sent.

use serde::Deserialize;

use super::super::value::{id, int, mail_name, text};

/// `notification`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
pub struct Notification {
    /// Its id.
    pub id: String,
    /// Which event it tells of.
    pub event_id: String,
    /// About which order.
    #[serde(default, alias = "order_name", deserialize_with = "id")]
    pub order_id: String,
    /// How it goes out.
    #[serde(default, deserialize_with = "text")]
    pub channel: String,
    /// To whom.
    #[serde(default, deserialize_with = "text")]
    pub recipient: String,
    /// Which letter: `ORDER_CONFIRMED` and so on.
    #[serde(default, deserialize_with = "text")]
    pub kind: String,
    /// Whether it went out.
    #[serde(default, deserialize_with = "text")]
    pub state: String,
    /// The mail's name.
    #[serde(default, deserialize_with = "mail_name")]
    pub message_id: String,
    /// When it was made.
    #[serde(default, deserialize_with = "int")]
    pub created_at: i64,
}

/// A mail as it lies in the maildir.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Mail {
    /// Its file.
    pub file: String,
    /// The header `Message-ID`.
    pub message_id: String,
    /// To whom.
    pub to: String,
    /// What it is about.
    pub subject: String,
    /// The order that it names; empty for none.
    pub order_id: String,
}
