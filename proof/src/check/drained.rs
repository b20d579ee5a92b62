//! L3: once nobody asks for anything, every consumer has come as far as the log that it reads,
//! and nothing is parked.

use std::collections::BTreeMap;

use super::{Finding, Invariant::L3};
use crate::world::World;

/// How long after it was written an event may still be on its way.
const LATE: i64 = 20_000_000;

/// Who reads whose log.
const READERS: [(&str, &str); 4] = [
    ("notifications", "orders"),
    ("notifications", "shipping"),
    ("orders", "payments"),
    ("orders", "shipping"),
];

pub(super) fn find(world: &World) -> Vec<Finding> {
    let cursors: BTreeMap<(&str, &str), i64> = (world.cursors.iter())
        .map(|it| ((it.consumer.as_str(), it.source.as_str()), it.position))
        .collect();
    let mut findings = Vec::new();
    for (consumer, source) in READERS {
        let log = world.outboxes.get(source).into_iter().flatten();
        let old = log.filter(|it| it.created_at + LATE < world.at);
        let head = old.filter_map(|it| it.position).max().unwrap_or_default();
        let at = cursors.get(&(consumer, source)).copied().unwrap_or_default();
        if at < head {
            let sentence = format!("has come to {at}, and {head} is old");
            findings.push(Finding::new(L3, format!("cursors/{consumer}/{source}"), sentence));
        }
    }
    for it in world.dead_letters.iter().filter(|it| it.state == "PARKED") {
        let sentence = format!("{} parked event {}", it.consumer, it.event_id);
        findings.push(Finding::new(L3, it.aggregate.clone(), sentence));
    }
    findings
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::world::{DeadLetter, sample};

    #[test]
    fn who_has_read_everything_is_good() {
        assert_eq!(find(&sample::completed()), []);
    }

    #[test]
    fn a_consumer_that_does_not_come_along_is_found_also_if_it_never_began() {
        let mut world = sample::completed();
        world.cursors[0].position = 1;
        assert_eq!(sample::subjects(&find(&world)), ["cursors/notifications/orders"]);
        world.cursors.remove(0);
        assert_eq!(sample::subjects(&find(&world)), ["cursors/notifications/orders"]);
        // What was written just now is on its way.
        world.at = world.outboxes["orders"].iter().map(|it| it.created_at).min().unwrap();
        assert_eq!(find(&world), []);
    }

    #[test]
    fn what_is_parked_is_found_until_somebody_deals_with_it() {
        let mut world = sample::completed();
        world.dead_letters.push(DeadLetter {
            aggregate: sample::order_name(),
            state: "PARKED".to_owned(),
            ..DeadLetter::default()
        });
        assert_eq!(sample::subjects(&find(&world)), [sample::order_name()]);
        world.dead_letters[0].state = "REPLAYED".to_owned();
        assert_eq!(find(&world), []);
    }
}
