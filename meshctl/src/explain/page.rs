//! An order on one page, for people.

use std::fmt::Write as _;

use proto::orders::v1::{OrderLine, pending_action::Kind};

use super::Known;
use crate::{
    sagas,
    say::{Table, amount, state, when},
};

/// The page.
pub(super) fn of(known: &Known) -> String {
    let parts = [
        head(known),
        section("lines", lines(known)),
        section("history", history(known)),
        section("saga", known.sagas.iter().map(sagas::told).collect()),
        section("money", money(known)),
        section("stock", stock(known)),
        section("parcels", parcels(known)),
        section("mails", mails(known)),
        section("dead letters", letters(known)),
        section("could not be asked", silent(known)),
    ];
    parts.concat().trim_end().to_owned()
}

fn section(title: &str, body: String) -> String {
    if body.is_empty() { body } else { format!("\n{}\n{body}", title.to_uppercase()) }
}

fn head(known: &Known) -> String {
    let order = &known.order;
    let standing = state(order.state().as_str_name(), "STATE_");
    let money = state(order.payment_state().as_str_name(), "PAYMENT_STATE_");
    let goods = state(order.fulfillment_state().as_str_name(), "FULFILLMENT_STATE_");
    let total = order.totals.as_ref().and_then(|totals| totals.total.as_ref());
    let mut facts = Table::indented(2);
    facts.row(["customer", &order.customer]);
    facts.row(["e-mail", &order.customer_email]);
    facts.row(["total", &amount(total)]);
    facts.row(["money", money]);
    facts.row(["goods", goods]);
    facts.row(["placed", &when(order.create_time.as_ref())]);
    if order.confirm_time.is_some() {
        facts.row(["confirmed", &when(order.confirm_time.as_ref())]);
    }
    if let Some(trace) = known.trace_id() {
        facts.row(["trace", trace]);
    }
    if let Some(pending) = &order.pending_action {
        let what = match pending.kind() {
            Kind::Price => "the customer has to agree to other prices",
            Kind::Stock => "the customer has to agree to less",
            Kind::Payment => "the customer has to finish the payment",
            Kind::Unspecified => "the customer",
        };
        let until = when(pending.expire_time.as_ref());
        facts.row(["waits for", &format!("{what}, until {until} {}", pending.url)]);
    }
    if let Some(rejection) = &order.rejection {
        let why: Vec<String> =
            rejection.metadata.iter().map(|(key, value)| format!("{key} = {value}")).collect();
        let reason = rejection.reason().as_str_name();
        facts.row(["rejected for", &format!("{reason} {}", why.join(", "))]);
    }
    format!("{}  {standing}  r{}\n{facts}", order.name, order.revision)
}

fn lines(known: &Known) -> String {
    let mut table = Table::indented(2);
    for it in &known.order.lines {
        let units = format!("{} × {}", it.quantity, amount(it.unit_price.as_ref()));
        let total = amount(it.total.as_ref());
        table.row([&it.line_id, &it.variant, &units, &total, &counts(it), &it.title]);
    }
    table.to_string()
}

/// What became of a line's units: nothing is said of what did not happen.
fn counts(line: &OrderLine) -> String {
    let counts = [
        ("cancelled", line.cancelled),
        ("shipped", line.shipped),
        ("delivered", line.delivered),
        ("returned", line.returned),
    ];
    let told = counts.iter().filter(|(_, units)| *units > 0);
    told.map(|(what, units)| format!("{units} {what}")).collect::<Vec<_>>().join(", ")
}

fn history(known: &Known) -> String {
    let mut table = Table::indented(2);
    for it in &known.events {
        let money = state(it.payment_state().as_str_name(), "PAYMENT_STATE_");
        let standing = state(it.state().as_str_name(), "STATE_");
        let at = when(it.event_time.as_ref());
        let revision = format!("r{}", it.revision);
        table.row([&revision, &at, &it.r#type, standing, money, &it.actor, &it.note]);
    }
    table.to_string()
}

fn money(known: &Known) -> String {
    let Some(payment) = &known.payment else { return String::new() };
    let standing = state(payment.state().as_str_name(), "STATE_");
    let mut text = format!("{}  {standing}\n", payment.name);
    let mut facts = Table::indented(2);
    facts.row(["amount", &amount(payment.amount.as_ref())]);
    facts.row(["authorized", &amount(payment.authorized.as_ref())]);
    facts.row(["captured", &amount(payment.captured.as_ref())]);
    facts.row(["refunded", &amount(payment.refunded.as_ref())]);
    if !payment.decline_code.is_empty() {
        facts.row(["declined for", &payment.decline_code]);
    }
    text.push_str(&facts.to_string());
    let mut attempts = Table::indented(2);
    for it in &known.attempts {
        let kind = state(it.kind().as_str_name(), "KIND_");
        let standing = state(it.state().as_str_name(), "STATE_");
        let (at, sum) = (when(it.create_time.as_ref()), amount(it.amount.as_ref()));
        attempts.row([&at, kind, &sum, standing, &it.decline_code, &it.reference]);
    }
    text.push_str(&attempts.to_string());
    text
}

fn stock(known: &Known) -> String {
    let mut text = String::new();
    for it in &known.reservations {
        let standing = state(it.state().as_str_name(), "STATE_");
        // Writing to a string cannot fail.
        let _written = writeln!(text, "{}  {standing}", it.name).is_ok();
        let mut table = Table::indented(2);
        for moved in known.movements.iter().filter(|moved| moved.cause == it.name) {
            let kind = state(moved.kind().as_str_name(), "KIND_");
            let (at, units) = (when(moved.create_time.as_ref()), moved.quantity.to_string());
            table.row([&at, kind, &units, &moved.stock]);
        }
        text.push_str(&table.to_string());
    }
    text
}

fn parcels(known: &Known) -> String {
    let mut table = Table::indented(2);
    for it in &known.shipments {
        let standing = state(it.state().as_str_name(), "STATE_");
        let units: i32 = it.lines.iter().map(|line| line.quantity).sum();
        let units = format!("{units} units from {}", it.location);
        let at = when(it.update_time.as_ref());
        table.row([&it.name, standing, &at, &units, &it.carrier, &it.tracking]);
    }
    table.to_string()
}

fn mails(known: &Known) -> String {
    let mut table = Table::indented(2);
    for it in &known.notifications {
        let kind = state(it.kind().as_str_name(), "KIND_");
        let standing = state(it.state().as_str_name(), "STATE_");
        let at = when(it.create_time.as_ref());
        table.row([&at, kind, standing, &it.address, &it.subject, &it.problem]);
    }
    table.to_string()
}

fn letters(known: &Known) -> String {
    let mut table = Table::indented(2);
    for it in &known.dead_letters {
        let kind = it.event.as_ref().map_or("", |event| event.r#type.as_str());
        table.row([&it.name, &it.consumer, kind, &it.error]);
    }
    table.to_string()
}

fn silent(known: &Known) -> String {
    let mut table = Table::indented(2);
    for (who, why) in &known.silent {
        table.row([who, why]);
    }
    table.to_string()
}

#[cfg(test)]
mod tests {
    use proto::{
        notifications::v1::Notification,
        operator::v1::Saga,
        orders::v1::{Order, OrderEvent, order},
        payments::v1::{Attempt, Payment},
        shipping::v1::Shipment,
    };

    use super::*;

    fn known() -> Known {
        let name = "orders/1".to_owned();
        Known {
            order: Order {
                name: name.clone(),
                state: order::State::Completed.into(),
                lines: vec![OrderLine { quantity: 2, delivered: 2, ..OrderLine::default() }],
                ..Order::default()
            },
            events: vec![OrderEvent { r#type: "order.created".to_owned(), ..<_>::default() }],
            sagas: vec![Saga {
                name: "sagas/1".to_owned(),
                traceparent: "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01".to_owned(),
                ..Saga::default()
            }],
            payment: Some(Payment { name: "payments/1".to_owned(), ..Payment::default() }),
            attempts: vec![Attempt { reference: "pay/1/authorize/1".to_owned(), ..<_>::default() }],
            shipments: vec![Shipment { tracking: "T1".to_owned(), ..Shipment::default() }],
            notifications: vec![Notification { subject: "Yours".to_owned(), ..<_>::default() }],
            silent: vec![("inventory", "inventory: no connection (Unavailable)".to_owned())],
            ..Known::default()
        }
    }

    #[test]
    fn a_page_tells_what_everybody_knows_and_who_could_not_be_asked() {
        let page = of(&known());
        assert!(page.starts_with("orders/1  COMPLETED"), "{page}");
        for part in [
            "4bf92f3577b34da6a3ce929d0e0e4736",
            "2 delivered",
            "order.created",
            "sagas/1",
            "payments/1",
            "pay/1/authorize/1",
            "T1",
            "Yours",
            "COULD NOT BE ASKED",
            "no connection",
        ] {
            assert!(page.contains(part), "{part} in {page}");
        }
        assert!(!page.contains("DEAD LETTERS"), "{page}");
    }

    #[test]
    fn the_page_as_json_has_the_same_parts() {
        let json = known().json().unwrap();
        assert_eq!(json["traceId"], "4bf92f3577b34da6a3ce929d0e0e4736");
        assert_eq!(json["order"]["state"], "STATE_COMPLETED");
        assert_eq!(json["shipments"][0]["tracking"], "T1");
        assert!(json["notAsked"]["inventory"].is_string());
    }
}
