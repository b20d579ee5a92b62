//! What the mesh and those around it say of themselves at one moment: the rows of every service,
//! the provider's ledger, the mails, and what clients were told.

use std::collections::{BTreeMap, BTreeSet};

use serde::de::DeserializeOwned;
use serde_json::{Map, Value};

use crate::history::Record;

mod rows;
pub mod timeline;
mod value;

pub use rows::{
    Attempt, CarrierEvent, Cursor, DeadLetter, Mail, Message, Movement, Notification, Order,
    OrderEvent, OrderLine, Parcel, Part, Payment, Posting, ProviderEntry, Refund, Reservation,
    Saga, SagaStep, Shipment, ShipmentLine, Stock,
};
pub use value::bare;

/// Everything that is checked.
#[derive(Clone, Debug, Default)]
pub struct World {
    /// When it was looked at, in microseconds since 1970.
    pub at: i64,
    /// Orders that changed while they were looked at.
    pub moving: BTreeSet<String>,
    /// The tables that were exported.
    pub tables: BTreeSet<String>,
    /// `orders`.
    pub orders: Vec<Order>,
    /// `order_line`.
    pub lines: Vec<OrderLine>,
    /// `order_event`.
    pub events: Vec<OrderEvent>,
    /// `saga`, of the orders.
    pub sagas: Vec<Saga>,
    /// `saga_step`.
    pub steps: Vec<SagaStep>,
    /// `outbox`, by service.
    pub outboxes: BTreeMap<String, Vec<Message>>,
    /// `cursor`, of all services.
    pub cursors: Vec<Cursor>,
    /// `dead_letter`, of all services.
    pub dead_letters: Vec<DeadLetter>,
    /// `stock`.
    pub stocks: Vec<Stock>,
    /// `reservation`.
    pub reservations: Vec<Reservation>,
    /// `reservation_line`.
    pub parts: Vec<Part>,
    /// `movement`.
    pub movements: Vec<Movement>,
    /// `payment`.
    pub payments: Vec<Payment>,
    /// `attempt`.
    pub attempts: Vec<Attempt>,
    /// `refund`.
    pub refunds: Vec<Refund>,
    /// `ledger_entry`.
    pub postings: Vec<Posting>,
    /// The provider's ledger.
    pub provider: Vec<ProviderEntry>,
    /// `shipment`.
    pub shipments: Vec<Shipment>,
    /// `shipment_line`.
    pub shipment_lines: Vec<ShipmentLine>,
    /// `carrier_parcel`.
    pub parcels: Vec<Parcel>,
    /// `carrier_event`.
    pub carrier_events: Vec<CarrierEvent>,
    /// `notification`.
    pub notifications: Vec<Notification>,
    /// The mails in the maildir.
    pub mails: Vec<Mail>,
    /// What clients asked for and were told.
    pub history: Vec<Record>,
}

/// The rows of one table as a service exports them.
pub type Table = Vec<Map<String, Value>>;

/// A row that has another shape than the checks know.
#[derive(Debug, thiserror::Error)]
#[error("a row of `{table}` of {service} cannot be read: {source}")]
pub struct Unreadable {
    /// Whose.
    pub service: String,
    /// Which table.
    pub table: String,
    /// What is wrong with it.
    pub source: serde_json::Error,
}

// === impl World ===

impl World {
    /// Takes in a table. One that no check knows is passed over.
    ///
    /// # Errors
    /// [`Unreadable`] if a column that checks need is missing or of another kind.
    pub fn take(&mut self, service: &str, table: &str, rows: Table) -> Result<(), Unreadable> {
        // Payments and shipping both note what they ask of others as attempts.
        if table == "attempt" && service != "payments" {
            return Ok(());
        }
        let read = Read { service, table, rows };
        match table {
            "orders" => self.orders = read.rows()?,
            "order_line" => self.lines = read.rows()?,
            "order_event" => self.events = read.rows()?,
            "saga" => self.sagas.extend(read.rows::<Saga>()?),
            "saga_step" => self.steps.extend(read.rows::<SagaStep>()?),
            "outbox" => {
                self.outboxes.insert(service.to_owned(), read.rows()?);
            }
            "cursor" => self.cursors.extend(read.rows::<Cursor>()?),
            "dead_letter" => self.dead_letters.extend(read.rows::<DeadLetter>()?),
            "stock" => self.stocks = read.rows()?,
            "reservation" => self.reservations = read.rows()?,
            "reservation_line" => self.parts = read.rows()?,
            "movement" => self.movements = read.rows()?,
            "payment" => self.payments = read.rows()?,
            "attempt" => self.attempts = read.rows()?,
            "refund" => self.refunds = read.rows()?,
            "ledger_entry" => self.postings = read.rows()?,
            "provider" => self.provider = read.rows()?,
            "shipment" => self.shipments = read.rows()?,
            "shipment_line" => self.shipment_lines = read.rows()?,
            "carrier_parcel" => self.parcels = read.rows()?,
            "carrier_event" => self.carrier_events = read.rows()?,
            "notification" => self.notifications = read.rows()?,
            _ => return Ok(()),
        }
        self.tables.insert(table.to_owned());
        Ok(())
    }

    /// Whether nothing works on an order any more, so that everybody must agree about it.
    #[must_use]
    pub fn at_rest(&self, order: &str) -> bool {
        let done = |saga: &Saga| matches!(saga.state.as_str(), "DONE" | "COMPENSATED");
        !self.moving.contains(order) && self.sagas.iter().filter(|saga| saga.key == order).all(done)
    }

    /// How many orders had begun and not ended at this time, in microseconds since 1970.
    #[must_use]
    pub fn in_flight(&self, at: i64) -> usize {
        let ends = ["REJECTED", "CANCELLED", "EXPIRED", "COMPLETED"];
        let mut orders = BTreeMap::new();
        for event in &self.events {
            let (begun, ended) =
                orders.entry(event.order_id.as_str()).or_insert((i64::MAX, i64::MAX));
            *begun = event.at.min(*begun);
            if ends.contains(&event.state.as_str()) {
                *ended = event.at.min(*ended);
            }
        }
        orders.values().filter(|(begun, ended)| *begun <= at && at < *ended).count()
    }

    /// The orders on which nobody works, by their ids.
    #[must_use]
    pub fn resting(&self) -> BTreeMap<&str, &Order> {
        let busy: BTreeSet<&str> = self
            .sagas
            .iter()
            .filter(|saga| !matches!(saga.state.as_str(), "DONE" | "COMPENSATED"))
            .map(|saga| saga.key.as_str())
            .chain(self.moving.iter().map(String::as_str))
            .collect();
        self.orders
            .iter()
            .map(|order| (order.id.as_str(), order))
            .filter(|(id, _)| !busy.contains(id))
            .collect()
    }

    /// The order that a finding's subject belongs to.
    #[must_use]
    pub fn order_of(&self, subject: &str) -> Option<String> {
        let (collection, id) = subject.split_once('/')?;
        let found = match collection {
            "orders" => id.to_owned(),
            "payments" => self.payments.iter().find(|it| it.id == id)?.order_name.clone(),
            "reservations" => self.reservations.iter().find(|it| it.id == id)?.order_id.clone(),
            "shipments" => self.shipments.iter().find(|it| it.id == id)?.order_name.clone(),
            "notifications" => self.notifications.iter().find(|it| it.id == id)?.order_id.clone(),
            _ => return None,
        };
        (!found.is_empty()).then_some(found)
    }
}

struct Read<'a> {
    service: &'a str,
    table: &'a str,
    rows: Table,
}

impl Read<'_> {
    fn rows<T: DeserializeOwned>(self) -> Result<Vec<T>, Unreadable> {
        let (service, table) = (self.service, self.table);
        let read = |row| {
            serde_json::from_value(Value::Object(row)).map_err(|source| Unreadable {
                service: service.to_owned(),
                table: table.to_owned(),
                source,
            })
        };
        self.rows.into_iter().map(read).collect()
    }
}

#[cfg(test)]
pub(crate) mod sample;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_order_is_in_flight_from_its_first_event_to_the_one_that_ends_it() {
        let world = sample::completed();
        let times = || world.events.iter().map(|event| event.at);
        let (first, last) = (times().min().expect("events"), times().max().expect("events"));
        let counts = [first - 1, first, last - 1, last].map(|at| world.in_flight(at));
        assert_eq!(counts, [0, 1, 1, 0]);
    }
}
