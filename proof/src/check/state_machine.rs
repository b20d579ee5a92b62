//! I8: the history of an order is a path, each revision one step of it; so is a parcel's.

use std::collections::{BTreeMap, BTreeSet};

use super::{Finding, Invariant::I8};
use crate::world::{OrderEvent, Saga, SagaStep, World};

/// How far the clocks of two replicas may be apart, in microseconds.
const CLOCKS: i64 = 1_000_000;

pub(super) fn find(world: &World) -> Vec<Finding> {
    let mut histories: BTreeMap<&str, Vec<&OrderEvent>> = BTreeMap::new();
    for it in &world.events {
        histories.entry(&it.order_id).or_default().push(it);
    }
    let mut findings = Vec::new();
    for order in &world.orders {
        let mut history = histories.remove(order.id.as_str()).unwrap_or_default();
        history.sort_by_key(|it| it.revision);
        let problem = counted(&history, order.revision)
            .or_else(|| walked(&history, &order.state))
            .or_else(|| paid(&history, &order.payment_state));
        findings.extend(problem.map(|problem| Finding::of_order(I8, &order.id, problem)));
    }
    findings.extend(
        histories.keys().map(|id| Finding::of_order(I8, id, "has a history, but is not there")),
    );
    findings.extend(led_by_two(world));
    findings.extend(both_ways(world));
    findings.extend(parcels(world));
    findings
}

/// Who works on a saga hears that his own step was undone only if another one has turned it round;
/// then he may record nothing, neither that nor a step forward in a saga whose order has ended.
fn led_by_two(world: &World) -> Vec<Finding> {
    let ended: BTreeSet<&str> = (world.orders.iter())
        .filter(|it| is_end(&it.state) && it.state != "COMPLETED")
        .map(|it| it.id.as_str())
        .collect();
    let problem = |saga: &Saga| {
        let forward =
            saga.reason.is_empty() && matches!(&*saga.state, "RUNNING" | "STUCK" | "DONE");
        if saga.reason == "UNDONE" {
            Some("recorded that its own step was undone: another one leads it".to_owned())
        } else if forward && ended.contains(&*saga.key) && !world.moving.contains(&saga.key) {
            Some(format!("is {} and goes forward, but its order has ended", saga.state))
        } else {
            None
        }
    };
    (world.sagas.iter())
        .filter_map(|saga| {
            let sentence = format!("its saga {} {}", saga.id, problem(saga)?);
            Some(Finding::of_order(I8, &saga.key, sentence))
        })
        .collect()
}

/// From the first undo on nothing is recorded of a step forward, unless an undo came too late and
/// the saga has gone on.
fn both_ways(world: &World) -> Vec<Finding> {
    let back = |it: &&SagaStep| it.direction == "UNDO";
    let resumed: BTreeSet<&str> = (world.steps.iter().filter(back))
        .filter(|it| it.state == "FAILED")
        .map(|it| it.saga.as_str())
        .collect();
    let mut turned: BTreeMap<&str, i64> = BTreeMap::new();
    for undo in world.steps.iter().filter(back) {
        let first = turned.entry(&undo.saga).or_insert(undo.started_at);
        *first = undo.started_at.min(*first);
    }
    let keys: BTreeMap<&str, &str> =
        world.sagas.iter().map(|it| (it.id.as_str(), it.key.as_str())).collect();
    (world.steps.iter())
        .filter(|it| it.direction == "DO" && !resumed.contains(it.saga.as_str()))
        .filter_map(|it| {
            let last = it.ended_at.unwrap_or_default().max(it.started_at);
            let late = last.saturating_sub(*turned.get(it.saga.as_str())?);
            (late > CLOCKS).then(|| {
                let (saga, step, order) = (&it.saga, &it.step_key, keys.get(it.saga.as_str()));
                let seconds = late / 1_000_000;
                let sentence = format!(
                    "its saga {saga} recorded its step {step} {seconds} s after it was turned round: \
                     two have led it"
                );
                Finding::of_order(I8, order.unwrap_or(&saga.as_str()), sentence)
            })
        })
        .collect()
}

/// Revisions rise by one, up to the order's own.
fn counted(history: &[&OrderEvent], revision: i64) -> Option<String> {
    for (expected, it) in (1..).zip(history) {
        if it.revision != expected {
            return Some(format!("r{expected} is missing: {} is r{}", it.kind, it.revision));
        }
    }
    let last = history.last().map_or(0, |it| it.revision);
    (last != revision).then(|| format!("is at r{revision}, but its history ends at r{last}"))
}

/// Each state follows the one before, and nothing follows an end.
fn walked(history: &[&OrderEvent], state: &str) -> Option<String> {
    let mut current = "";
    for (index, it) in history.iter().enumerate() {
        let next = match led_to(&it.kind) {
            Some(next) => next,
            // Of several events of one commit, each bears the state after the last.
            None if is_followed(history, index, &it.state) => continue,
            None => &it.state,
        };
        if next != current && !follows(current, next) {
            let from = if current.is_empty() { "nothing" } else { current };
            return Some(format!("r{} {} leads from {from} to {next}", it.revision, it.kind));
        }
        if next == current && led_to(&it.kind).is_some() && is_end(current) {
            return Some(format!("r{} {} comes after its end, {current}", it.revision, it.kind));
        }
        current = next;
    }
    (current != state).then(|| format!("is {state}, but its history ends at {current}"))
}

/// Whether a later event of the same commit leads to this state.
fn is_followed(history: &[&OrderEvent], index: usize, state: &str) -> bool {
    let Some(this) = history.get(index) else { return false };
    let later = history.iter().skip(index + 1).take_while(|it| it.at == this.at);
    later.into_iter().any(|it| led_to(&it.kind) == Some(state))
}

/// The state that an event of this type leads to, whatever was before.
fn led_to(kind: &str) -> Option<&'static str> {
    Some(match kind {
        "order.created" | "order.revised" => "PENDING",
        "order.action_required" => "ACTION_REQUIRED",
        "order.confirmed" => "CONFIRMED",
        "order.rejected" => "REJECTED",
        "order.cancelling" => "CANCELLING",
        "order.cancelled" => "CANCELLED",
        "order.expired" => "EXPIRED",
        "order.completed" => "COMPLETED",
        _ => return None,
    })
}

fn follows(from: &str, to: &str) -> bool {
    match from {
        "" => to == "PENDING",
        "PENDING" => matches!(to, "ACTION_REQUIRED" | "CONFIRMED" | "REJECTED" | "CANCELLING"),
        "ACTION_REQUIRED" => matches!(to, "PENDING" | "EXPIRED" | "CANCELLING"),
        "CONFIRMED" => matches!(to, "CANCELLING" | "COMPLETED"),
        "CANCELLING" => matches!(to, "CANCELLED" | "CONFIRMED"),
        _ => false,
    }
}

fn is_end(state: &str) -> bool {
    matches!(state, "REJECTED" | "CANCELLED" | "EXPIRED" | "COMPLETED")
}

/// Where the money of an order may be next. One commit may take several steps at once.
fn paid(history: &[&OrderEvent], state: &str) -> Option<String> {
    let mut current = "UNPAID";
    for it in history {
        let next = it.payment_state.as_str();
        if next != current && !may_reach(current, next) {
            return Some(format!(
                "r{} {}: money went from {current} to {next}",
                it.revision, it.kind
            ));
        }
        current = next;
    }
    (current != state).then(|| format!("its money is {state}, but its history ends at {current}"))
}

fn may_reach(from: &str, to: &str) -> bool {
    let mut seen = vec![from];
    let mut index = 0;
    while let Some(state) = seen.get(index).copied() {
        index += 1;
        // Whatever the resolver proves may follow, but nothing is inferred through it.
        if state == "IN_DOUBT" && index > 1 {
            continue;
        }
        for next in successors(state) {
            if *next == to || (state == "IN_DOUBT" && index == 1) {
                return true;
            }
            if !seen.contains(next) {
                seen.push(next);
            }
        }
    }
    false
}

fn successors(state: &str) -> &'static [&'static str] {
    match state {
        "UNPAID" => &["AUTHORIZING", "VOIDED"],
        "FAILED" | "VOIDED" => &["AUTHORIZING", "VOIDED"],
        "AUTHORIZING" => &["AUTHORIZED", "FAILED", "VOIDED", "IN_DOUBT"],
        "AUTHORIZED" => &["PARTIALLY_CAPTURED", "CAPTURED", "VOIDED", "AUTHORIZING", "IN_DOUBT"],
        "PARTIALLY_CAPTURED" => &["CAPTURED", "PARTIALLY_REFUNDED", "OVERCHARGED", "IN_DOUBT"],
        "CAPTURED" => &["PARTIALLY_REFUNDED", "REFUNDED", "OVERCHARGED", "IN_DOUBT"],
        "OVERCHARGED" => &["PARTIALLY_REFUNDED", "REFUNDED", "CAPTURED", "IN_DOUBT"],
        "PARTIALLY_REFUNDED" => &["REFUNDED", "OVERCHARGED", "IN_DOUBT", "CHARGED_BACK"],
        "REFUNDED" => &["CHARGED_BACK"],
        "CHARGED_BACK" => &["CAPTURED", "PARTIALLY_REFUNDED", "REFUNDED"],
        "IN_DOUBT" => &["AUTHORIZED"],
        _ => &[],
    }
}

/// A parcel only goes forward, and stays where it ends.
fn parcels(world: &World) -> Vec<Finding> {
    let mut paths: BTreeMap<&str, Vec<(i64, &str)>> = BTreeMap::new();
    for it in world.outboxes.get("shipping").into_iter().flatten() {
        if it.aggregate.starts_with("shipments/") {
            paths.entry(&it.aggregate).or_default().push((it.seq, &it.kind));
        }
    }
    let mut findings = Vec::new();
    for (name, mut path) in paths {
        path.sort_unstable();
        let steps = path.iter().zip(path.iter().skip(1));
        for ((_, from), (seq, to)) in steps {
            let (before, after) = (stage(from), stage(to));
            let late = *to == "shipment.cancelled" && before > stage("shipment.booked");
            if before >= after || late {
                let sentence = format!("r{seq} {to} comes after {from}");
                findings.push(Finding::new(I8, name, sentence));
                break;
            }
        }
    }
    findings
}

fn stage(kind: &str) -> u8 {
    match kind {
        "shipment.created" => 1,
        "shipment.booked" => 2,
        "shipment.dispatched" => 3,
        "shipment.in_transit" => 4,
        _ => 5,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::world::sample;

    /// What is found in an order with this history of types and states, all in one commit each.
    fn found(history: &[(&str, &str)]) -> usize {
        let mut world = sample::in_flight();
        world.sagas.clear();
        world.events = (1..)
            .zip(history)
            .map(|(revision, (kind, state))| OrderEvent {
                order_id: sample::ORDER.to_owned(),
                revision,
                at: revision,
                kind: format!("order.{kind}"),
                state: (*state).to_owned(),
                payment_state: "UNPAID".to_owned(),
                ..OrderEvent::default()
            })
            .collect();
        let last = world.events.last().unwrap();
        world.orders[0].state.clone_from(&last.state);
        world.orders[0].revision = last.revision;
        world.orders[0].payment_state = "UNPAID".to_owned();
        find(&world).len()
    }

    #[test]
    fn every_path_of_the_samples_is_good() {
        for world in
            [sample::completed(), sample::cancelled(), sample::refunded(), sample::in_flight()]
        {
            assert_eq!(find(&world), []);
        }
    }

    #[test]
    fn only_paths_of_the_table_are_good() {
        let (p, c) = ("PENDING", "CONFIRMED");
        let good: [&[(&str, &str)]; 4] = [
            &[("created", p), ("rejected", "REJECTED")],
            &[("created", p), ("action_required", "ACTION_REQUIRED"), ("payment_changed", p)],
            &[("created", p), ("confirmed", c), ("cancelling", "CANCELLING"), ("restored", c)],
            &[
                ("created", p),
                ("confirmed", c),
                ("completed", "COMPLETED"),
                ("refunded", "COMPLETED"),
            ],
        ];
        for history in good {
            assert_eq!(found(history), 0, "{history:?}");
        }
        let bad: [&[(&str, &str)]; 5] = [
            &[("confirmed", c)],
            &[("created", p), ("completed", "COMPLETED")],
            &[("created", p), ("rejected", "REJECTED"), ("confirmed", c)],
            &[("created", p), ("confirmed", c), ("rejected", "REJECTED")],
            &[("created", p), ("rejected", "REJECTED"), ("rejected", "REJECTED")],
        ];
        for history in bad {
            assert_eq!(found(history), 1, "{history:?}");
        }
    }

    #[test]
    fn two_steps_of_one_commit_may_bear_the_state_after_both() {
        let mut world = sample::in_flight();
        for (revision, kind) in [(2, "order.payment_changed"), (3, "order.action_required")] {
            world.events.push(OrderEvent {
                order_id: sample::ORDER.to_owned(),
                revision,
                at: 77,
                kind: kind.to_owned(),
                state: "ACTION_REQUIRED".to_owned(),
                payment_state: "AUTHORIZING".to_owned(),
                ..OrderEvent::default()
            });
        }
        world.orders[0].revision = 3;
        world.orders[0].state = "ACTION_REQUIRED".to_owned();
        world.orders[0].payment_state = "AUTHORIZING".to_owned();
        assert_eq!(find(&world), []);
    }

    #[test]
    fn a_revision_that_is_missing_is_found() {
        let mut world = sample::completed();
        world.events.remove(1);
        assert_eq!(sample::subjects(&find(&world)), [sample::order_name()]);
    }

    #[test]
    fn money_that_goes_back_is_found() {
        for (from, to, expected) in [
            ("UNPAID", "AUTHORIZED", true),
            ("AUTHORIZED", "REFUNDED", true),
            ("CAPTURED", "AUTHORIZED", false),
            ("REFUNDED", "CAPTURED", true),
            ("IN_DOUBT", "CAPTURED", true),
            ("CAPTURED", "VOIDED", false),
        ] {
            assert_eq!(may_reach(from, to), expected, "{from} to {to}");
        }
        let mut world = sample::completed();
        world.events.last_mut().unwrap().payment_state = "AUTHORIZED".to_owned();
        assert_eq!(sample::subjects(&find(&world)), [sample::order_name()]);
    }

    #[test]
    fn a_saga_that_two_have_led_is_found() {
        let changes: [fn(&mut Saga); 3] = [
            |saga| saga.reason = "UNDONE".to_owned(),
            |saga| (saga.state, saga.reason) = ("STUCK".to_owned(), String::new()),
            |saga| (saga.state, saga.reason) = ("RUNNING".to_owned(), String::new()),
        ];
        for change in changes {
            let mut world = sample::cancelled();
            change(&mut world.sagas[0]);
            assert_eq!(sample::subjects(&find(&world)), [sample::order_name()]);
        }
    }

    #[test]
    fn a_step_forward_after_the_first_undo_is_found() {
        let last = |world: &mut World, after: i64| {
            let undo = world.steps.iter().find(|it| it.direction == "UNDO").unwrap().started_at;
            let step = world.steps.iter_mut().find(|it| it.direction == "DO").unwrap();
            step.ended_at = Some(undo + after);
        };
        for (after, found) in [(CLOCKS, 0), (CLOCKS + 1, 1)] {
            let mut world = sample::cancelled();
            last(&mut world, after);
            assert_eq!(find(&world).len(), found, "{after}");
        }
        let mut world = sample::cancelled();
        last(&mut world, CLOCKS + 1);
        world.steps.iter_mut().find(|it| it.direction == "UNDO").unwrap().state =
            "FAILED".to_owned();
        assert_eq!(find(&world), [], "the saga has gone on");
    }

    #[test]
    fn a_parcel_that_goes_back_is_found() {
        let mut world = sample::completed();
        let log = world.outboxes.get_mut("shipping").unwrap();
        let last = log.len() - 1;
        let kind = log[0].kind.clone();
        log[0].kind = std::mem::replace(&mut log[last].kind, kind);
        assert_eq!(find(&world).len(), 1);
    }
}
