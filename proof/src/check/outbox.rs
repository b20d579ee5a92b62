//! I11: every revision of every aggregate has its event, and places in the log keep their order.

use std::collections::BTreeMap;

use super::{Finding, Invariant::I11};
use crate::world::{Message, World};

pub(super) fn find(world: &World) -> Vec<Finding> {
    let mut findings = Vec::new();
    for (service, log) in &world.outboxes {
        let mut aggregates: BTreeMap<&str, Vec<&Message>> = BTreeMap::new();
        for it in log {
            aggregates.entry(&it.aggregate).or_default().push(it);
        }
        // The beginning may have been cleaned away.
        let is_whole = log.iter().filter_map(|it| it.position).min().unwrap_or(1) <= 1;
        for (name, revision) in revisions(world, service) {
            let events = aggregates.remove(name.as_str()).unwrap_or_default();
            let problem = missing(&events, revision, is_whole);
            findings.extend(problem.map(|problem| Finding::new(I11, name, problem)));
        }
        findings.extend(positions(service, log));
    }
    findings.extend(told_in_order(world));
    findings
}

/// The revisions of what publishes, by aggregate. What never had an event is left out: a
/// tombstone is not told of.
fn revisions(world: &World, service: &str) -> Vec<(String, i64)> {
    match service {
        "orders" => {
            world.orders.iter().map(|it| (format!("orders/{}", it.id), it.revision)).collect()
        }
        "payments" => {
            world.payments.iter().map(|it| (format!("payments/{}", it.id), it.revision)).collect()
        }
        "inventory" => world
            .reservations
            .iter()
            .filter(|it| !(it.order_id.is_empty() && it.state == "RELEASED"))
            .map(|it| (format!("reservations/{}", it.id), it.revision))
            .collect(),
        "shipping" => world
            .shipments
            .iter()
            .filter(|it| !it.order_name.is_empty())
            .map(|it| (format!("shipments/{}", it.id), it.revision))
            .collect(),
        _ => Vec::new(),
    }
}

/// What is wrong with the events of one aggregate.
fn missing(events: &[&Message], revision: i64, is_whole: bool) -> Option<String> {
    let mut events = events.to_vec();
    events.sort_by_key(|it| it.seq);
    let first = events.first().map_or(revision + 1, |it| it.seq);
    let mut expected = if is_whole { 1 } else { first };
    let mut last: Option<&Message> = None;
    for it in events {
        if it.seq != expected {
            return Some(format!("r{expected} has no event, r{} has", it.seq));
        }
        if let Some(before) = last.filter(|before| !is_before(before.position, it.position)) {
            return Some(format!(
                "r{} stands in the log before r{}, at {:?} and {:?}",
                it.seq, before.seq, it.position, before.position
            ));
        }
        expected += 1;
        last = Some(it);
    }
    (expected - 1 != revision)
        .then(|| format!("is at r{revision}, but its events end at r{}", expected - 1))
}

/// What has no place yet comes after everything that has one.
fn is_before(earlier: Option<i64>, later: Option<i64>) -> bool {
    match (earlier, later) {
        (Some(earlier), Some(later)) => earlier < later,
        (_, None) => true,
        (None, Some(_)) => false,
    }
}

/// The places of a log are dense: a reader who has seen the last has seen all.
fn positions(service: &str, log: &[Message]) -> Vec<Finding> {
    let mut positions: Vec<i64> = log.iter().filter_map(|it| it.position).collect();
    positions.sort_unstable();
    let pairs = positions.iter().zip(positions.iter().skip(1));
    let gaps = pairs.filter(|(one, next)| **next != **one + 1);
    gaps.take(1)
        .map(|(one, next)| {
            let sentence = format!("position {one} is followed by {next}");
            Finding::new(I11, format!("logs/{service}"), sentence)
        })
        .collect()
}

/// Mails of one order go out in the order of its events.
fn told_in_order(world: &World) -> Vec<Finding> {
    let events: BTreeMap<&str, (&str, i64)> = world
        .outboxes
        .values()
        .flatten()
        .map(|it| (it.event_id.as_str(), (it.aggregate.as_str(), it.seq)))
        .collect();
    let mut told: BTreeMap<&str, Vec<(i64, i64)>> = BTreeMap::new();
    for it in &world.notifications {
        // What was put aside and replayed comes late, but not before what was put aside with it.
        if let Some((aggregate, seq)) = events.get(it.event_id.as_str()) {
            told.entry(aggregate).or_default().push((*seq, it.created_at));
        }
    }
    let mut findings = Vec::new();
    for (name, mut mails) in told {
        mails.sort_unstable();
        let pairs = mails.iter().zip(mails.iter().skip(1));
        let mut wrong = pairs.filter(|((_, earlier), (_, later))| later < earlier);
        if let Some(((one, _), (other, _))) = wrong.next() {
            let sentence = format!("its r{other} was mailed before r{one}");
            findings.push(Finding::new(I11, name, sentence));
        }
    }
    findings
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::world::sample;

    #[test]
    fn logs_that_tell_every_revision_in_order_are_good() {
        for world in
            [sample::completed(), sample::cancelled(), sample::refunded(), sample::in_flight()]
        {
            assert_eq!(find(&world), []);
        }
    }

    #[test]
    fn an_event_that_is_missing_is_found_unless_it_was_cleaned_away() {
        let mut world = sample::completed();
        let log = world.outboxes.get_mut("orders").unwrap();
        log.remove(0);
        for it in log.iter_mut() {
            it.position = it.position.map(|position| position - 1);
        }
        assert_eq!(sample::subjects(&find(&world)), [sample::order_name()]);
        for it in world.outboxes.get_mut("orders").unwrap() {
            it.position = it.position.map(|position| position + 1);
        }
        assert_eq!(find(&world), []);
        world.outboxes.get_mut("orders").unwrap().pop();
        assert_eq!(sample::subjects(&find(&world)), [sample::order_name()]);
    }

    #[test]
    fn what_waits_for_its_place_is_good_but_not_before_what_has_one() {
        let mut world = sample::completed();
        world.outboxes.get_mut("orders").unwrap().last_mut().unwrap().position = None;
        assert_eq!(find(&world), []);
        let log = world.outboxes.get_mut("orders").unwrap();
        let last = log.len() - 1;
        log[last].position = log[last - 1].position.take();
        assert_eq!(sample::subjects(&find(&world)), [sample::order_name()]);
    }

    #[test]
    fn a_hole_in_the_log_is_found() {
        let mut world = sample::completed();
        world.outboxes.get_mut("orders").unwrap().last_mut().unwrap().position = Some(99);
        assert_eq!(sample::subjects(&find(&world)), ["logs/orders"]);
    }

    #[test]
    fn mails_in_another_order_than_their_events_are_found() {
        let mut world = sample::completed();
        world.notifications[0].created_at = world.notifications[1].created_at + 1;
        assert_eq!(sample::subjects(&find(&world)), [sample::order_name()]);
    }
}
