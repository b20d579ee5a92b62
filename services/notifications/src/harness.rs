//! A notifications service on a database and a maildir of its own, and events as others send them.

use std::{fs, os::unix::fs::PermissionsExt as _, path::PathBuf, time::Duration};

use mesh::{
    auth::Caller,
    clock,
    consume::{Handler as _, Trouble},
    log::Event,
    page::Pages,
    store::{self as db, Failure},
    testing::TestDb,
};
use prost::Name;
use proto::{google::r#type::Money, orders::v1 as orders, shipping::v1 as shipping};
use tempfile::TempDir;
use uuid::Uuid;

use crate::{
    domain::{Notification, State},
    events::Inbox,
    grpc::Notifications,
    maildir::Maildir,
    sender::{Pass, Sender},
    store::Store,
};

/// A service whose mails can be counted.
pub(crate) struct World {
    pub(crate) db: TestDb,
    pub(crate) store: Store,
    pub(crate) inbox: Inbox,
    pub(crate) sender: Sender,
    pub(crate) service: Notifications,
    folder: TempDir,
}

/// An order and whose it is, as others speak of it.
#[derive(Clone, Debug)]
pub(crate) struct Order {
    pub(crate) id: Uuid,
    pub(crate) user: Uuid,
    pub(crate) email: String,
}

// === impl World ===

impl World {
    pub(crate) fn on(db: TestDb) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::on(db.store.clone());
        let url = format!("file://{}", folder.path().join("mail").display());
        let from = "Ordermesh <orders@ordermesh.example>".parse().unwrap();
        let sender = Sender::new(store.clone(), Maildir::parse(&url).unwrap(), from);
        let inbox = Inbox::new(store.clone(), &sender);
        let service = Notifications::new(store.clone(), Pages::new([7; 32]));
        Self { db, store, inbox, sender, service, folder }
    }

    /// Takes an event in, as a consumer does: in a transaction that is committed.
    pub(crate) async fn take(&self, event: &Event) -> Result<(), Trouble> {
        let (inbox, event) = (self.inbox.clone(), event.clone());
        self.db
            .store
            .transaction(move |txn| {
                let (inbox, event) = (inbox.clone(), event.clone());
                Box::pin(async move { inbox.handle(txn, &event).await.map_err(Refused) })
            })
            .await
            .map_err(|refused: Refused| refused.0)
    }

    pub(crate) async fn took(&self, event: &Event) {
        self.take(event).await.unwrap();
    }

    pub(crate) async fn pass(&self) -> Pass {
        self.sender.pass().await.unwrap()
    }

    /// Every notification about an order, the oldest first.
    pub(crate) async fn told(&self, order: &Order) -> Vec<Notification> {
        let mut told = self.store.notifications(None, Some(order.id), "", 100).await.unwrap();
        told.reverse();
        told
    }

    pub(crate) async fn states(&self, order: &Order) -> Vec<State> {
        self.told(order).await.iter().map(|told| told.state).collect()
    }

    /// Changes rows as time would.
    pub(crate) async fn change(&self, sql: &'static str) {
        let changed: Result<u64, Failure> = self
            .db
            .store
            .transaction(move |txn| {
                Box::pin(async move { db::execute(txn, "change rows", sql, vec![]).await })
            })
            .await;
        changed.unwrap();
    }

    /// The maildir.
    pub(crate) fn mail(&self) -> PathBuf {
        self.folder.path().join("mail")
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.mail().join(name)
    }

    /// The names of the mails in one of the folders.
    pub(crate) fn files(&self, folder: &str) -> Vec<String> {
        let entries = fs::read_dir(self.path(folder)).into_iter().flatten();
        let mut names: Vec<_> =
            entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    }

    /// The mails that nobody has read yet.
    pub(crate) fn mails(&self) -> Vec<String> {
        let read = |name: &String| {
            let path = self.path("new").join(name);
            assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
            fs::read_to_string(path).unwrap()
        };
        self.files("new").iter().map(read).collect()
    }
}

struct Refused(Trouble);

impl From<Failure> for Refused {
    fn from(failure: Failure) -> Self {
        Self(failure.into())
    }
}

impl mesh::store::TxnError for Refused {
    fn failure(&self) -> Option<&Failure> {
        if let Trouble::Failed(failure) = &self.0 { Some(failure) } else { None }
    }
}

// === impl Order ===

impl Order {
    pub(crate) fn new() -> Self {
        Self { id: clock::id(), user: clock::id(), email: "ada@example.com".to_owned() }
    }

    pub(crate) fn of(user: Uuid) -> Self {
        Self { user, ..Self::new() }
    }

    pub(crate) fn name(&self) -> String {
        format!("orders/{}", self.id)
    }

    pub(crate) fn customer(&self) -> String {
        format!("users/{}", self.user)
    }

    pub(crate) fn caller(&self) -> Caller {
        Caller::customer(&self.customer())
    }

    /// Two mugs, for 19.98 EUR.
    pub(crate) fn created(&self) -> Event {
        self.created_with("A mug")
    }

    pub(crate) fn created_with(&self, title: &str) -> Event {
        let total = Some(euro(19, 980_000_000));
        let line = orders::OrderLine {
            line_id: "1".to_owned(),
            variant: "variants/MUG".to_owned(),
            title: title.to_owned(),
            quantity: 3,
            cancelled: 1,
            total: total.clone(),
            ..Default::default()
        };
        let message = orders::OrderCreated {
            order: self.name(),
            customer: self.customer(),
            customer_email: self.email.clone(),
            lines: vec![line],
            totals: Some(orders::Totals {
                total,
                shipping: Some(euro(0, 0)),
                ..Default::default()
            }),
        };
        event("order.created", &message)
    }

    pub(crate) fn confirmed(&self) -> Event {
        let message = orders::OrderConfirmed {
            order: self.name(),
            customer: self.customer(),
            customer_email: self.email.clone(),
            total: Some(euro(19, 980_000_000)),
            ..Default::default()
        };
        event("order.confirmed", &message)
    }

    pub(crate) fn cancelled(&self) -> Event {
        let message = orders::OrderCancelled {
            order: self.name(),
            customer: self.customer(),
            customer_email: self.email.clone(),
        };
        event("order.cancelled", &message)
    }

    pub(crate) fn dispatched(&self, shipment: Uuid) -> Event {
        let message = shipping::ShipmentDispatched {
            shipment: format!("shipments/{shipment}"),
            order: self.name(),
            customer: self.customer(),
            lines: vec![packed()],
            carrier: "Parcel\r\nPost".to_owned(),
            tracking: "PP-1".to_owned(),
            ..Default::default()
        };
        event("shipment.dispatched", &message)
    }

    pub(crate) fn delivered(&self, shipment: Uuid) -> Event {
        let message = shipping::ShipmentDelivered {
            shipment: format!("shipments/{shipment}"),
            order: self.name(),
            customer: self.customer(),
            lines: vec![packed()],
            ..Default::default()
        };
        event("shipment.delivered", &message)
    }
}

/// A lease that is over at once, as if its holder had died long ago.
pub(crate) const NO_TIME: Duration = Duration::ZERO;

/// A fact in its envelope.
pub(crate) fn event<M: Name>(kind: &str, message: &M) -> Event {
    Event {
        id: clock::id().to_string(),
        source: kind.split('.').next().unwrap().to_owned(),
        kind: kind.to_owned(),
        at: clock::now(),
        aggregate: String::new(),
        seq: 1,
        position: 1,
        data: prost_types::Any { type_url: M::type_url(), value: message.encode_to_vec() },
        traceparent: String::new(),
        causation_id: String::new(),
        correlation_id: String::new(),
    }
}

pub(crate) fn euro(units: i64, nanos: i32) -> Money {
    Money { currency_code: "EUR".to_owned(), units, nanos }
}

fn packed() -> shipping::shipment::Line {
    shipping::shipment::Line {
        line_id: "1".to_owned(),
        variant: "variants/MUG".to_owned(),
        quantity: 2,
    }
}
