//! Rows as values and back.

use mesh::{
    clock::from_micros,
    money::{Currency, Money},
    store::Failure,
};
use prost::Message;
use sea_orm::FromQueryResult;
use uuid::Uuid;

use super::broken;
use crate::domain::{Kind, Letter, Line, Notification, State};

/// The columns of [`Row`].
pub(super) const COLUMNS: &str = "id, event_id, recipient, kind, order_id, shipment_id, state, \
     address, subject, body, message_id, problem, attempts, created_at, sent_at";

#[derive(FromQueryResult)]
pub(super) struct Row {
    id: String,
    event_id: String,
    recipient: String,
    kind: String,
    order_id: String,
    shipment_id: Option<String>,
    state: String,
    address: String,
    subject: String,
    body: String,
    message_id: String,
    problem: String,
    attempts: i64,
    created_at: i64,
    sent_at: Option<i64>,
}

/// The lines of an order as they are kept.
#[derive(Clone, PartialEq, Message)]
struct KeptLines {
    #[prost(message, repeated, tag = "1")]
    lines: Vec<KeptLine>,
}

#[derive(Clone, PartialEq, Message)]
struct KeptLine {
    #[prost(string, tag = "1")]
    id: String,
    #[prost(string, tag = "2")]
    title: String,
    #[prost(int64, tag = "3")]
    quantity: i64,
    #[prost(int64, tag = "4")]
    total_minor: i64,
    /// Empty where no total is known.
    #[prost(string, tag = "5")]
    currency: String,
}

// === impl Row ===

impl Row {
    pub(super) fn notification(self) -> Result<Notification, Failure> {
        Ok(Notification {
            id: id(&self.id)?,
            event: id(&self.event_id)?,
            customer: self.recipient,
            order: id(&self.order_id)?,
            shipment: self.shipment_id.as_deref().map(id).transpose()?,
            kind: kind(&self.kind)?,
            state: State::parse(&self.state).ok_or_else(|| broken("state"))?,
            address: self.address,
            letter: Letter { subject: self.subject, body: self.body },
            message_id: self.message_id,
            problem: self.problem,
            attempts: self.attempts,
            created_at: from_micros(self.created_at),
            sent_at: self.sent_at.map(from_micros),
        })
    }
}

pub(super) fn id(text: &str) -> Result<Uuid, Failure> {
    Uuid::try_parse(text).map_err(|_error| broken("id"))
}

pub(super) fn kind(text: &str) -> Result<Kind, Failure> {
    Kind::parse(text).ok_or_else(|| broken("kind"))
}

pub(super) fn lines_to_bytes(lines: &[Line]) -> Vec<u8> {
    let kept = |line: &Line| KeptLine {
        id: line.id.clone(),
        title: line.title.clone(),
        quantity: line.quantity,
        total_minor: line.total.map_or(0, |total| total.minor),
        currency: line.total.map_or_else(String::new, |total| total.currency.to_string()),
    };
    KeptLines { lines: lines.iter().map(kept).collect() }.encode_to_vec()
}

pub(super) fn lines_of_bytes(bytes: &[u8]) -> Result<Vec<Line>, Failure> {
    let kept = KeptLines::decode(bytes).map_err(|_error| broken("lines"))?;
    let line = |line: KeptLine| {
        let currency = Some(line.currency.as_str()).filter(|code| !code.is_empty());
        let currency = currency.map(Currency::parse).transpose();
        let currency = currency.map_err(|_error| broken("currency"))?;
        Ok(Line {
            id: line.id,
            title: line.title,
            quantity: line.quantity,
            total: currency.map(|currency| Money::new(line.total_minor, currency)),
        })
    };
    kept.lines.into_iter().map(line).collect()
}
