//! I13: what a client was told is so. What a client was not told may be either, never both.

use std::collections::{BTreeMap, BTreeSet};

use super::{Finding, Invariant::I13};
use crate::{
    history::{Asked, Outcome, Record},
    world::{OrderEvent, World, bare},
};

pub(super) fn find(world: &World) -> Vec<Finding> {
    let revisions: BTreeMap<&str, i64> =
        world.orders.iter().map(|it| (it.id.as_str(), it.revision)).collect();
    let events: BTreeMap<(&str, i64), &OrderEvent> =
        world.events.iter().map(|it| ((it.order_id.as_str(), it.revision), it)).collect();
    let cancelled: BTreeSet<&str> = world
        .events
        .iter()
        .filter(|it| it.kind == "order.cancelling")
        .map(|it| it.order_id.as_str())
        .collect();
    let mut findings = Vec::new();
    for it in world.history.iter().filter(|it| it.outcome == Outcome::Ok) {
        if let Some((order, problem)) = lost(it, &revisions, &events, &cancelled) {
            findings.push(Finding::of_order(I13, order, problem));
        }
    }
    findings.extend(refused_and_done(world));
    findings
}

/// What is not there of what this call was told.
fn lost<'a>(
    call: &'a Record,
    revisions: &BTreeMap<&str, i64>,
    events: &BTreeMap<(&str, i64), &OrderEvent>,
    cancelled: &BTreeSet<&str>,
) -> Option<(&'a str, String)> {
    let answer = call.answer.as_ref()?;
    let order = bare(&answer.order);
    let (by, told) = (&call.by, format!("{} at r{}", answer.state, answer.revision));
    let Some(revision) = revisions.get(order) else {
        return Some((order, format!("{by} was told that it is {told}, but it is not there")));
    };
    if *revision < answer.revision {
        return Some((order, format!("{by} was told that it is {told}, but it is at r{revision}")));
    }
    match events.get(&(order, answer.revision)) {
        Some(event) if event.state != answer.state => {
            return Some((order, format!("{by} was told {told}, but it was {} then", event.state)));
        }
        Some(_) | None => {}
    }
    let is_cancel = matches!(call.asked, Asked::Cancel { .. });
    (is_cancel && !cancelled.contains(order))
        .then(|| (order, format!("{by} was told that it is called off, but it never was")))
}

/// Requests that were refused, every time, and have an order all the same.
fn refused_and_done(world: &World) -> Vec<Finding> {
    let mut refused: BTreeMap<(&str, &str), bool> = BTreeMap::new();
    for it in &world.history {
        if let Asked::Create { request_id } = &it.asked {
            let all = refused.entry((&it.by, request_id)).or_insert(true);
            *all &= it.outcome == Outcome::Refused;
        }
    }
    let done = world
        .orders
        .iter()
        .filter(|it| refused.get(&(&*it.customer, &*it.request_id)) == Some(&true));
    done.map(|it| {
        let sentence = format!("{} was told that it is refused, but it is there", it.customer);
        Finding::of_order(I13, &it.id, sentence)
    })
    .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::world::sample;

    #[test]
    fn what_was_told_and_is_there_is_good() {
        for world in [sample::completed(), sample::cancelled(), sample::in_flight()] {
            assert_eq!(find(&world), []);
        }
    }

    #[test]
    fn an_acknowledged_order_that_is_not_there_is_found() {
        let mut world = sample::completed();
        world.orders.clear();
        assert_eq!(sample::subjects(&find(&world)), [sample::order_name()]);
    }

    #[test]
    fn an_unknown_outcome_may_be_either() {
        let mut world = sample::completed();
        world.history[0].outcome = Outcome::Unknown;
        assert_eq!(find(&world), []);
        world.orders.clear();
        assert_eq!(find(&world), []);
    }

    #[test]
    fn a_refused_order_that_is_there_is_found() {
        let mut world = sample::completed();
        world.history[0].outcome = Outcome::Refused;
        world.history[0].answer = None;
        assert_eq!(sample::subjects(&find(&world)), [sample::order_name()]);
    }

    #[test]
    fn a_state_that_was_told_and_never_was_is_found() {
        let mut world = sample::completed();
        world.history[0].answer.as_mut().unwrap().state = "CONFIRMED".to_owned();
        assert_eq!(sample::subjects(&find(&world)), [sample::order_name()]);
        world.history[0].answer.as_mut().unwrap().revision = 99;
        assert_eq!(sample::subjects(&find(&world)), [sample::order_name()]);
    }

    #[test]
    fn an_acknowledged_cancellation_that_never_was_is_found() {
        let mut world = sample::cancelled();
        assert_eq!(find(&world), []);
        for it in world.events.iter_mut().filter(|it| it.kind == "order.cancelling") {
            it.kind = "order.payment_changed".to_owned();
        }
        assert_eq!(sample::subjects(&find(&world)), [sample::order_name()]);
    }
}
