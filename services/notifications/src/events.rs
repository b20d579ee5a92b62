//! What is consumed: events of orders and shipments as notices of the domain. What is published:
//! nothing.

use std::sync::Arc;

use futures_util::future::BoxFuture;
use mesh::{
    consume::{Handler, Trouble},
    log::Event,
    money::Money,
    resource::parse_uuid,
    store::Txn,
};
use proto::{google::r#type, orders::v1 as orders, shipping::v1 as shipping};
use tokio::sync::Notify;
use uuid::Uuid;

use crate::{
    domain::{Line, News, Notice, Parcel, Totals},
    sender::Sender,
    store::Store,
};

/// Takes events of orders and shipments in. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Inbox {
    store: Store,
    bell: Arc<Notify>,
    /// Where the identities of mails belong.
    domain: Arc<str>,
}

/// What is taken in, of all sources.
const TYPES: &[&str] = &[
    "order.created",
    "order.revised",
    "order.confirmed",
    "order.rejected",
    "order.cancelled",
    "order.expired",
    "shipment.dispatched",
    "shipment.delivered",
];

// === impl Inbox ===

impl Inbox {
    /// Takes events into `store`, for `sender` to send what follows from them.
    #[must_use]
    pub fn new(store: Store, sender: &Sender) -> Self {
        Self { store, bell: sender.bell(), domain: sender.domain().into() }
    }
}

impl Handler for Inbox {
    fn types(&self) -> &'static [&'static str] {
        TYPES
    }

    fn handle<'c>(&'c self, txn: &'c Txn, event: &'c Event) -> BoxFuture<'c, Result<(), Trouble>> {
        Box::pin(async move {
            let notice = notice(event)?;
            Ok(self.store.take_in(txn, &notice, &self.domain).await?)
        })
    }

    fn committed(&self, _event: &Event) {
        self.bell.notify_one();
    }
}

/// Whom an event is about.
struct About {
    order: String,
    customer: String,
    email: String,
}

/// What an event says.
///
/// # Errors
/// [`Trouble::Permanent`] if it says nothing that makes sense, now or later.
pub fn notice(event: &Event) -> Result<Notice, Trouble> {
    let (about, news) = match event.kind.as_str() {
        "order.created" => created(event.decode()?)?,
        "order.revised" => revised(event.decode()?)?,
        "order.confirmed" => confirmed(event.decode()?)?,
        "order.rejected" => rejected(event.decode()?),
        "order.cancelled" => cancelled(event.decode()?),
        "order.expired" => expired(event.decode()?),
        "shipment.dispatched" => dispatched(event.decode()?)?,
        "shipment.delivered" => delivered(event.decode()?)?,
        kind => return Err(wrong("type", kind)),
    };
    parse_uuid("users", &about.customer).map_err(|error| wrong("customer", error))?;
    Ok(Notice {
        event: Uuid::try_parse(&event.id).map_err(|error| wrong("id", error))?,
        at: event.at,
        order: parse_uuid("orders", &about.order).map_err(|error| wrong("order", error))?,
        customer: about.customer,
        email: about.email,
        news,
        traceparent: event.traceparent.clone(),
    })
}

fn created(message: orders::OrderCreated) -> Result<(About, News), Trouble> {
    let orders::OrderCreated { order, customer, customer_email, lines, totals } = message;
    let totals = totals.ok_or_else(|| wrong("totals", "missing"))?;
    let totals = Totals {
        discount: amount("totals.discount", totals.discount)?,
        shipping: amount("totals.shipping", totals.shipping)?,
        tax: amount("totals.tax", totals.tax)?,
        total: amount("totals.total", totals.total)?
            .ok_or_else(|| wrong("totals.total", "missing"))?,
    };
    let lines = lines.into_iter().map(line).collect::<Result<_, _>>()?;
    let about = About { order, customer, email: customer_email };
    Ok((about, News::Received { lines, totals }))
}

fn revised(message: orders::OrderRevised) -> Result<(About, News), Trouble> {
    let orders::OrderRevised { order, customer, lines, .. } = message;
    let lines = lines.into_iter().map(line).collect::<Result<_, _>>()?;
    Ok((About { order, customer, email: String::new() }, News::Revised { lines }))
}

fn confirmed(message: orders::OrderConfirmed) -> Result<(About, News), Trouble> {
    let orders::OrderConfirmed { order, customer, customer_email, total, .. } = message;
    let total = amount("total", total)?.ok_or_else(|| wrong("total", "missing"))?;
    Ok((About { order, customer, email: customer_email }, News::Confirmed { total }))
}

fn rejected(message: orders::OrderRejected) -> (About, News) {
    let orders::OrderRejected { order, customer, customer_email, rejection, .. } = message;
    let reason = rejection.map(|rejection| rejection.reason().as_str_name().to_owned());
    let about = About { order, customer, email: customer_email };
    (about, News::Rejected { reason: reason.unwrap_or_default() })
}

fn cancelled(message: orders::OrderCancelled) -> (About, News) {
    let orders::OrderCancelled { order, customer, customer_email, .. } = message;
    (About { order, customer, email: customer_email }, News::Cancelled)
}

fn expired(message: orders::OrderExpired) -> (About, News) {
    let orders::OrderExpired { order, customer, customer_email, .. } = message;
    (About { order, customer, email: customer_email }, News::Expired)
}

fn dispatched(message: shipping::ShipmentDispatched) -> Result<(About, News), Trouble> {
    let shipping::ShipmentDispatched {
        shipment, order, customer, lines, carrier, tracking, ..
    } = message;
    let lines = lines.into_iter().map(|line| packed(line.line_id, &line.variant, line.quantity));
    let parcel =
        Parcel { shipment: shipped(&shipment)?, lines: lines.collect(), carrier, tracking };
    Ok((About { order, customer, email: String::new() }, News::Dispatched(parcel)))
}

fn delivered(message: shipping::ShipmentDelivered) -> Result<(About, News), Trouble> {
    let shipping::ShipmentDelivered { shipment, order, customer, lines, .. } = message;
    let lines = lines.into_iter().map(|line| packed(line.line_id, &line.variant, line.quantity));
    let (carrier, tracking) = (String::new(), String::new());
    let parcel =
        Parcel { shipment: shipped(&shipment)?, lines: lines.collect(), carrier, tracking };
    Ok((About { order, customer, email: String::new() }, News::Delivered(parcel)))
}

fn line(line: orders::OrderLine) -> Result<Line, Trouble> {
    let total = amount("lines.total", line.total)?;
    let quantity = i64::from(line.quantity) - i64::from(line.cancelled);
    let title = if line.title.is_empty() { sku(&line.variant) } else { line.title };
    Ok(Line { id: line.line_id, title, quantity, total })
}

/// A line of a shipment: called by its SKU, unless the order calls it something better.
fn packed(id: String, variant: &str, quantity: i32) -> Line {
    Line { id, title: sku(variant), quantity: i64::from(quantity), total: None }
}

fn sku(variant: &str) -> String {
    variant.strip_prefix("variants/").unwrap_or(variant).to_owned()
}

fn shipped(name: &str) -> Result<Uuid, Trouble> {
    parse_uuid("shipments", name).map_err(|error| wrong("shipment", error))
}

fn amount(field: &str, money: Option<r#type::Money>) -> Result<Option<Money>, Trouble> {
    let Some(money) = money else { return Ok(None) };
    let money = Money::from_parts(&money.currency_code, money.units, money.nanos);
    money.map(Some).map_err(|error| wrong(field, error))
}

/// What cannot be understood now cannot be understood later.
fn wrong(field: &str, problem: impl std::fmt::Display) -> Trouble {
    Trouble::Permanent(format!("{field}: {problem}"))
}

#[cfg(test)]
mod tests {
    use mesh::clock;

    use super::*;
    use crate::harness::{self, Order};

    #[test]
    fn an_order_that_was_placed_is_told_with_what_is_kept_of_its_lines() {
        let order = Order::new();
        let event = order.created();
        let told = notice(&event).unwrap();
        assert_eq!(
            (told.order, &told.customer, &told.email),
            (order.id, &order.customer(), &order.email)
        );
        assert_eq!(told.event.to_string(), event.id);
        let News::Received { lines, totals } = told.news else { panic!("{:?}", told.news) };
        let [line] = &lines[..] else { panic!("one line") };
        // Three were ordered, and the customer agreed to do without one.
        assert_eq!((line.title.as_str(), line.quantity), ("A mug", 2));
        assert_eq!((totals.total.to_string(), totals.tax), ("19.98 EUR".to_owned(), None));
    }

    #[test]
    fn every_type_that_is_taken_in_is_understood() {
        let order = Order::new();
        let name = || (order.name(), order.customer());
        let ((order_name, customer), customer_email) = (name(), order.email.clone());
        let rejected = orders::OrderRejected {
            order: order_name.clone(),
            customer: customer.clone(),
            customer_email: customer_email.clone(),
            rejection: Some(orders::Rejection {
                reason: orders::Reason::OutOfStock.into(),
                ..Default::default()
            }),
        };
        let expired = orders::OrderExpired {
            order: order_name.clone(),
            customer: customer.clone(),
            customer_email,
        };
        let revised =
            orders::OrderRevised { order: order_name, customer, lines: Vec::new(), totals: None };
        let events = [
            order.created(),
            harness::event("order.revised", &revised),
            order.confirmed(),
            harness::event("order.rejected", &rejected),
            order.cancelled(),
            harness::event("order.expired", &expired),
            order.dispatched(clock::id()),
            order.delivered(clock::id()),
        ];
        assert_eq!(events.each_ref().map(|event| event.kind.as_str()), TYPES[..]);
        for event in events {
            let told = notice(&event).unwrap();
            assert_eq!(told.order, order.id, "{}", event.kind);
        }
        let told = notice(&harness::event("order.rejected", &rejected)).unwrap();
        assert_eq!(told.news, News::Rejected { reason: "OUT_OF_STOCK".to_owned() });
    }

    #[test]
    fn what_makes_no_sense_is_put_aside_and_not_tried_again() {
        type Spoil = fn(&mut Event);
        let spoils: [(&str, Spoil); 5] = [
            ("id", |event| event.id = "1".to_owned()),
            ("type", |event| event.kind = "order.renamed".to_owned()),
            ("another message", |event| event.kind = "order.confirmed".to_owned()),
            ("bytes", |event| event.data.value = vec![0xff]),
            ("nothing", |event| event.data.value.clear()),
        ];
        for (what, spoil) in spoils {
            let mut event = Order::new().created();
            spoil(&mut event);
            let trouble = notice(&event).unwrap_err();
            assert!(matches!(trouble, Trouble::Permanent(_)), "{what}: {trouble:?}");
        }
        let nobodys = orders::OrderCancelled { order: Order::new().name(), ..Default::default() };
        let trouble = notice(&harness::event("order.cancelled", &nobodys)).unwrap_err();
        assert!(trouble.to_string().starts_with("customer: "), "{trouble}");
    }
}
