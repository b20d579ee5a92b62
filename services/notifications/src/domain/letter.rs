//! The words of a notification: plain text, in which nothing of others takes a line of its own.

use mesh::money::Money;
use uuid::Uuid;

use super::{Line, News, Parcel, Totals, text::plain};

/// A notification in words.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Letter {
    /// One line.
    pub subject: String,
    /// Lines that end in `\n`.
    pub body: String,
}

// === impl Letter ===

impl Letter {
    /// What is said about an order, if anything; `known` are its lines as they were told last.
    pub(super) fn of(order: Uuid, news: &News, known: &[Line]) -> Option<Self> {
        let name = format!("orders/{order}");
        let (subject, paragraphs) = match news {
            News::Received { lines, totals } => received(&name, lines, totals),
            News::Revised { .. } => return None,
            News::Confirmed { total } => confirmed(&name, known, *total),
            News::Rejected { reason } => rejected(&name, reason),
            News::Cancelled => cancelled(&name),
            News::Expired => expired(&name),
            News::Dispatched(parcel) => dispatched(&name, parcel, known),
            News::Delivered(parcel) => delivered(&name, parcel, known),
        };
        let paragraphs: Vec<_> =
            paragraphs.into_iter().filter(|paragraph| !paragraph.is_empty()).collect();
        let body = format!("Hello,\n\n{}\n", paragraphs.join("\n\n"));
        Some(Self { subject: format!("{subject} ({name})"), body })
    }
}

type Words = (&'static str, Vec<String>);

fn received(name: &str, lines: &[Line], totals: &Totals) -> Words {
    let text = format!(
        "thank you for your order {name}. We are arranging stock and payment, and tell you as \
         soon as it is confirmed."
    );
    ("We have received your order", vec![text, listed(lines), costs(totals)])
}

fn confirmed(name: &str, known: &[Line], total: Money) -> Words {
    let text = format!(
        "your order {name} is confirmed: your goods are set aside and your payment is \
         authorised. We tell you when they are on their way."
    );
    ("Your order is confirmed", vec![text, listed(known), format!("  Total: {total}")])
}

fn rejected(name: &str, reason: &str) -> Words {
    let because = because(reason);
    let text = format!(
        "we are sorry: your order {name} could not be fulfilled, because {because}. Nothing is \
         held or charged."
    );
    ("Your order could not be fulfilled", vec![text])
}

fn cancelled(name: &str) -> Words {
    let text = format!("your order {name} is cancelled. Nothing is held or charged.");
    ("Your order is cancelled", vec![text])
}

fn expired(name: &str) -> Words {
    let text = format!(
        "your order {name} has ended, because what we asked you for was not done in time. \
         Nothing is held or charged."
    );
    ("Your order has expired", vec![text])
}

fn dispatched(name: &str, parcel: &Parcel, known: &[Line]) -> Words {
    let text = format!("goods of your order {name} are on their way:");
    let (carrier, tracking) = (plain(&parcel.carrier), plain(&parcel.tracking));
    let followed = match (carrier.is_empty(), tracking.is_empty()) {
        (true, true) => String::new(),
        (false, true) => format!("  Carrier: {carrier}"),
        (true, false) => format!("  Tracking number: {tracking}"),
        (false, false) => format!("  Carrier: {carrier}\n  Tracking number: {tracking}"),
    };
    ("Your goods are on their way", vec![text, listed(&titled(&parcel.lines, known)), followed])
}

fn delivered(name: &str, parcel: &Parcel, known: &[Line]) -> Words {
    let text = format!("goods of your order {name} were delivered:");
    ("Your goods were delivered", vec![text, listed(&titled(&parcel.lines, known))])
}

/// Why an order could not be fulfilled, after the word "because".
fn because(reason: &str) -> &'static str {
    match reason {
        "OUT_OF_STOCK" => "not everything is in stock",
        "PAYMENT_DECLINED" => "your payment was declined",
        "LIMIT_EXCEEDED" => "it exceeds the limit of your account",
        "CUSTOMER_INACTIVE" => "your account is not active",
        "PRICE_CHANGED" => "prices changed before it was confirmed",
        "TIMED_OUT" => "it could not be arranged in time",
        _ => "something in it cannot be delivered",
    }
}

fn listed(lines: &[Line]) -> String {
    let line = |line: &Line| {
        let (quantity, title) = (line.quantity, plain(&line.title));
        let cost = line.total.map_or_else(String::new, |total| format!(": {total}"));
        format!("  {quantity} × {title}{cost}")
    };
    lines.iter().filter(|line| line.quantity > 0).map(line).collect::<Vec<_>>().join("\n")
}

fn costs(totals: &Totals) -> String {
    let parts = [
        ("Discount", totals.discount),
        ("Shipping", totals.shipping),
        ("Tax", totals.tax),
        ("Total", Some(totals.total)),
    ];
    let told = |(name, amount): (&str, Option<Money>)| {
        let amount = amount.filter(|amount| amount.minor != 0 || name == "Total")?;
        Some(format!("  {name}: {amount}"))
    };
    parts.into_iter().filter_map(told).collect::<Vec<_>>().join("\n")
}

/// The lines of a shipment, called as the order's.
fn titled(lines: &[Line], known: &[Line]) -> Vec<Line> {
    let titled = |line: &Line| {
        let known = known.iter().find(|known| known.id == line.id);
        let title = known.map_or(&line.title, |known| &known.title).clone();
        Line { title, ..line.clone() }
    };
    lines.iter().map(titled).collect()
}
