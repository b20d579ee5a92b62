//! I10: one confirmation per confirmed order, one parcel per shipment, each unit sent once, one
//! effect at the provider per attempt.

use std::collections::{BTreeMap, BTreeSet};

use super::{Finding, Invariant::I10};
use crate::world::{Message, World};

/// How long after its confirmation an order may be without its mail, where nobody says how far
/// the mails have come.
const SOON: i64 = 30_000_000;

/// Who mails.
const MAILER: &str = "notifications";

/// What an order is told at most once in its life.
const ONCE: [&str; 5] =
    ["ORDER_RECEIVED", "ORDER_CONFIRMED", "ORDER_REJECTED", "ORDER_CANCELLED", "ORDER_EXPIRED"];

pub(super) fn find(world: &World) -> Vec<Finding> {
    let mut findings = mailed_twice(world);
    findings.extend(told_again(world));
    findings.extend(made_up(world));
    findings.extend(confirmations(world));
    findings.extend(delivered_twice(world));
    findings.extend(shipped_twice(world));
    findings.extend(parcels(world));
    findings.extend(charged_twice(world));
    findings
}

/// One notification per event, channel and recipient.
fn mailed_twice(world: &World) -> Vec<Finding> {
    let mut seen = BTreeSet::new();
    let twice = world.notifications.iter().filter(|it| {
        !seen.insert((it.event_id.as_str(), it.channel.as_str(), it.recipient.as_str()))
    });
    twice
        .map(|it| {
            let sentence = format!("event {} was told to {} twice", it.event_id, it.recipient);
            Finding::new(I10, subject(&it.order_id, &it.id), sentence)
        })
        .collect()
}

/// An order is received, and comes to its end, once: whatever the events are called, nobody hears
/// of it twice.
fn told_again(world: &World) -> Vec<Finding> {
    let mut seen = BTreeSet::new();
    // Confirmations are counted below.
    let once = world.notifications.iter();
    let once = once.filter(|it| ONCE.contains(&&*it.kind) && it.kind != "ORDER_CONFIRMED");
    let twice = once.filter(|it| !seen.insert((&*it.kind, &*it.order_id, &*it.channel)));
    twice
        .map(|it| {
            let sentence = format!("{} was told to {} twice", it.kind, it.recipient);
            Finding::new(I10, subject(&it.order_id, &it.id), sentence)
        })
        .collect()
}

/// What is told of an order stands in its log, unless that was cleaned away.
fn made_up(world: &World) -> Vec<Finding> {
    let Some(log) = world.outboxes.get("orders") else { return Vec::new() };
    if log.iter().filter_map(|it| it.position).min() != Some(1) {
        return Vec::new();
    }
    let known: BTreeSet<&str> = log.iter().map(|it| it.event_id.as_str()).collect();
    let of_orders = world.notifications.iter().filter(|it| ONCE.contains(&&*it.kind));
    of_orders
        .filter(|it| !known.contains(it.event_id.as_str()))
        .map(|it| {
            let sentence = format!("{} was told, of an event that nobody published", it.kind);
            Finding::new(I10, subject(&it.order_id, &it.id), sentence)
        })
        .collect()
}

/// Exactly one confirmation of every order that was confirmed.
fn confirmations(world: &World) -> Vec<Finding> {
    let log: BTreeMap<&str, &Message> = world
        .outboxes
        .get("orders")
        .into_iter()
        .flatten()
        .map(|it| (it.event_id.as_str(), it))
        .collect();
    let mut mails: BTreeMap<String, usize> = BTreeMap::new();
    for it in &world.notifications {
        let order = match log.get(it.event_id.as_str()) {
            Some(event) if event.kind == "order.confirmed" => event.aggregate.clone(),
            // The event may be gone from the log already.
            None if it.kind == "ORDER_CONFIRMED" => format!("orders/{}", it.order_id),
            Some(_) | None => continue,
        };
        *mails.entry(order).or_default() += 1;
    }
    let confirmed: BTreeMap<&str, &Message> = log
        .values()
        .filter(|it| it.kind == "order.confirmed")
        .map(|it| (it.aggregate.as_str(), *it))
        .collect();
    let mut findings = Vec::new();
    for it in world.events.iter().filter(|it| it.kind == "order.confirmed") {
        let name = format!("orders/{}", it.order_id);
        let count = mails.remove(&name).unwrap_or_default();
        if count > 1 {
            let sentence = format!("its confirmation was mailed {count} times");
            findings.push(Finding::new(I10, name, sentence));
        } else if count == 0 && !is_under_way(world, confirmed.get(&*name).copied(), it.at) {
            findings.push(Finding::new(I10, name, "is confirmed, but nobody mailed it"));
        }
    }
    findings.extend(mails.into_keys().map(|name| {
        Finding::new(I10, name, "its confirmation was mailed, but it was never confirmed")
    }));
    findings
}

/// Whether the mailer has not come to this event yet, or has put it aside for a person.
fn is_under_way(world: &World, event: Option<&Message>, at: i64) -> bool {
    let parked = event.is_some_and(|event| {
        world.dead_letters.iter().any(|it| it.consumer == MAILER && it.event_id == event.event_id)
    });
    let mut cursors = world.cursors.iter();
    let cursor = cursors.find(|it| it.consumer == MAILER && it.source == "orders");
    let behind = match (event, cursor) {
        (Some(Message { position: Some(position), .. }), Some(cursor)) => {
            cursor.position < *position
        }
        (Some(Message { position: None, .. }), _) => true,
        (None, Some(_)) => false,
        (_, None) => world.at - at < SOON,
    };
    parked || behind
}

/// Every mail lies in the maildir once.
fn delivered_twice(world: &World) -> Vec<Finding> {
    let mut seen: BTreeMap<&str, usize> = BTreeMap::new();
    for it in &world.mails {
        *seen.entry(&it.message_id).or_default() += 1;
    }
    let orders: BTreeMap<&str, &str> =
        world.mails.iter().map(|it| (&*it.message_id, &*it.order_id)).collect();
    let mut findings: Vec<Finding> = seen
        .iter()
        .filter(|(_, count)| **count > 1)
        .map(|(id, count)| {
            let order = orders.get(id).copied().unwrap_or_default();
            Finding::new(I10, subject(order, id), format!("the mail {id} was sent {count} times"))
        })
        .collect();
    if !world.mails.is_empty() {
        for it in &world.notifications {
            let sent = it.state == "SENT" && !it.message_id.is_empty();
            if sent && !seen.contains_key(it.message_id.as_str()) {
                let sentence =
                    format!("its mail {} counts as sent, but is not there", it.message_id);
                findings.push(Finding::new(I10, subject(&it.order_id, &it.id), sentence));
            }
        }
    }
    findings
}

/// No more units of a line are on their way than the customer wants.
fn shipped_twice(world: &World) -> Vec<Finding> {
    let alive: BTreeMap<&str, &str> = world
        .shipments
        .iter()
        .filter(|it| !matches!(&*it.state, "CANCELLED" | "LOST" | "RETURNED"))
        .map(|it| (&*it.id, &*it.order_name))
        .collect();
    let mut sent: BTreeMap<(&str, &str), i64> = BTreeMap::new();
    for it in &world.shipment_lines {
        if let Some(order) = alive.get(&*it.shipment) {
            *sent.entry((order, &it.line)).or_default() += it.quantity;
        }
    }
    let mut findings = Vec::new();
    for it in &world.lines {
        let kept = it.ordered - it.cancelled;
        let sent = sent.remove(&(&*it.order_id, &*it.number)).unwrap_or_default();
        if sent > kept && !world.moving.contains(&it.order_id) {
            let sentence = format!("{sent} units of line {} are sent, {kept} wanted", it.number);
            findings.push(Finding::of_order(I10, &it.order_id, sentence));
        }
    }
    findings
}

/// One parcel per shipment, and none without one.
fn parcels(world: &World) -> Vec<Finding> {
    let shipments: BTreeSet<&str> = world.shipments.iter().map(|it| it.id.as_str()).collect();
    let mut seen = BTreeSet::new();
    let mut findings = Vec::new();
    for it in &world.parcels {
        let name = format!("shipments/{}", it.shipment());
        if !shipments.contains(it.shipment()) {
            let sentence = format!("the carrier has its parcel {}, we have not", it.tracking);
            findings.push(Finding::new(I10, name, sentence));
        } else if !seen.insert(it.shipment()) {
            let sentence = format!("the carrier has a second parcel of it, {}", it.tracking);
            findings.push(Finding::new(I10, name, sentence));
        }
    }
    if world.tables.contains("carrier_parcel") {
        let left =
            |state: &str| matches!(state, "DISPATCHED" | "IN_TRANSIT" | "DELIVERED" | "LOST");
        for it in world.shipments.iter().filter(|it| left(&it.state)) {
            if !seen.contains(it.id.as_str()) {
                let sentence = format!("is {}, but the carrier has no parcel of it", it.state);
                findings.push(Finding::new(I10, format!("shipments/{}", it.id), sentence));
            }
        }
    }
    findings
}

/// One effect of each kind per attempt.
fn charged_twice(world: &World) -> Vec<Finding> {
    let mut seen = BTreeSet::new();
    let twice = world.provider.iter().filter(|it| !seen.insert((&*it.reference, &*it.movement)));
    twice
        .map(|it| {
            let payment = it.reference.split('/').nth(1).unwrap_or(&it.reference);
            let sentence = format!("the provider did {} of {} twice", it.movement, it.reference);
            Finding::new(I10, format!("payments/{payment}"), sentence)
        })
        .collect()
}

fn subject(order: &str, other: &str) -> String {
    if order.is_empty() { format!("notifications/{other}") } else { format!("orders/{order}") }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::world::{Cursor, DeadLetter, sample};

    #[test]
    fn effects_that_happened_once_are_good() {
        for world in
            [sample::completed(), sample::cancelled(), sample::refunded(), sample::in_flight()]
        {
            assert_eq!(find(&world), []);
        }
    }

    #[test]
    fn a_second_confirmation_is_found() {
        let mut world = sample::completed();
        let mut again = world.notifications[1].clone();
        again.recipient = "eve@example.org".to_owned();
        world.notifications.push(again);
        assert_eq!(sample::subjects(&find(&world)), [sample::order_name()]);
    }

    #[test]
    fn the_same_event_told_twice_to_one_is_found() {
        let mut world = sample::completed();
        let again = world.notifications[0].clone();
        world.notifications.push(again);
        assert_eq!(sample::subjects(&find(&world)), [sample::order_name()]);
    }

    #[test]
    fn an_order_that_is_received_twice_by_other_events_is_found() {
        let mut world = sample::completed();
        world.notifications[0].kind = "ORDER_RECEIVED".to_owned();
        assert_eq!(find(&world), []);
        let mut again = world.notifications[0].clone();
        again.event_id = "another".to_owned();
        world.notifications.push(again);
        let sentences: Vec<String> = find(&world).into_iter().map(|it| it.sentence).collect();
        assert!(sentences[0].ends_with("twice"), "{sentences:?}");
        assert!(sentences[1].ends_with("that nobody published"), "{sentences:?}");
        // Whether it was published can be said of a whole log alone.
        world.outboxes.get_mut("orders").unwrap().remove(0);
        assert_eq!(find(&world).len(), 1);
    }

    #[test]
    fn a_missing_confirmation_is_found_unless_the_mailer_is_behind_or_put_it_aside() {
        let mut world = sample::completed();
        let confirmation = world.notifications.remove(1);
        world.mails.clear();
        assert_eq!(sample::subjects(&find(&world)), [sample::order_name()]);
        world.cursors[0].position = 1;
        assert_eq!(find(&world), []);
        world.cursors[0].position = 99;
        world.dead_letters.push(DeadLetter {
            consumer: MAILER.to_owned(),
            event_id: confirmation.event_id,
            ..DeadLetter::default()
        });
        assert_eq!(find(&world), []);
    }

    #[test]
    fn without_cursors_a_confirmation_has_half_a_minute() {
        let mut world = sample::completed();
        world.notifications.remove(1);
        world.mails.clear();
        world.cursors = Vec::<Cursor>::new();
        assert_eq!(find(&world).len(), 1);
        world.at = world.orders[0].confirmed_at.unwrap() + SOON - 1;
        assert_eq!(find(&world), []);
    }

    #[test]
    fn a_mail_that_was_sent_twice_or_not_at_all_is_found() {
        let mut world = sample::completed();
        let mail = world.mails[1].clone();
        world.mails.push(mail);
        assert_eq!(sample::subjects(&find(&world)), [sample::order_name()]);
        let mut world = sample::completed();
        world.mails.remove(1);
        assert_eq!(sample::subjects(&find(&world)), [sample::order_name()]);
    }

    #[test]
    fn two_shipments_of_the_same_units_are_found() {
        let mut world = sample::completed();
        let mut line = world.shipment_lines[0].clone();
        let mut shipment = world.shipments[0].clone();
        let mut parcel = world.parcels[0].clone();
        for id in [&mut line.shipment, &mut shipment.id] {
            *id = "again".to_owned();
        }
        parcel.reference = "ship/again/book/1".to_owned();
        world.shipment_lines.push(line);
        world.shipments.push(shipment);
        world.parcels.push(parcel);
        assert_eq!(sample::subjects(&find(&world)), [sample::order_name()]);
        world.shipments[1].state = "LOST".to_owned();
        assert_eq!(find(&world), []);
    }

    #[test]
    fn a_parcel_too_many_or_too_few_is_found() {
        let name = format!("shipments/{}", sample::SHIPMENT);
        let mut world = sample::completed();
        let again = world.parcels[0].clone();
        world.parcels.push(again);
        assert_eq!(sample::subjects(&find(&world)), [&*name]);
        world.parcels.clear();
        assert_eq!(sample::subjects(&find(&world)), [&*name]);
        let mut world = sample::completed();
        world.parcels.push(crate::world::Parcel {
            reference: "ship/unknown/book/1".to_owned(),
            tracking: "T2".to_owned(),
            stage: "BOOKED".to_owned(),
        });
        assert_eq!(sample::subjects(&find(&world)), ["shipments/unknown"]);
    }

    #[test]
    fn a_second_effect_of_one_attempt_is_found() {
        let mut world = sample::completed();
        let again = world.provider[1].clone();
        world.provider.push(again);
        assert_eq!(sample::subjects(&find(&world)), [sample::payment_name()]);
    }
}
