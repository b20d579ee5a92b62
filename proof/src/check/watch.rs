//! I15: what a watcher saw is gap-free, in order and a part of the order's history, however often
//! it was cut off.

use std::collections::BTreeMap;

use super::{Finding, Invariant::I15};
use crate::{
    history::{Asked, Seen},
    world::{OrderEvent, World, bare},
};

/// An order as it is, for those who watched it.
struct Kept<'a> {
    revision: i64,
    events: BTreeMap<i64, &'a OrderEvent>,
}

pub(super) fn find(world: &World) -> Vec<Finding> {
    let mut orders: BTreeMap<&str, Kept<'_>> = world
        .orders
        .iter()
        .map(|it| (&*it.id, Kept { revision: it.revision, events: BTreeMap::new() }))
        .collect();
    for it in &world.events {
        if let Some(kept) = orders.get_mut(it.order_id.as_str()) {
            kept.events.insert(it.revision, it);
        }
    }
    let mut findings = Vec::new();
    for it in &world.history {
        let Asked::Watch { order, seen, ended } = &it.asked else { continue };
        let problem = match orders.get(bare(order)) {
            Some(kept) => kept.problem(seen, *ended),
            None if seen.is_empty() => None,
            None => Some("was watched, but is not there".to_owned()),
        };
        if let Some(problem) = problem {
            let sentence = format!("watch {} of {}: {problem}", it.number, it.by);
            findings.push(Finding::of_order(I15, bare(order), sentence));
        }
    }
    findings
}

// === impl Kept ===

impl Kept<'_> {
    fn problem(&self, seen: &[Seen], ended: bool) -> Option<String> {
        let mut last: Option<i64> = None;
        for it in seen {
            let now = it.revision;
            if now > self.revision {
                return Some(format!("saw r{now}, but the order is at r{}", self.revision));
            }
            match last {
                Some(last) if it.event.is_empty() && now < last => {
                    return Some(format!("saw r{last}, then a snapshot of r{now}"));
                }
                Some(last) if !it.event.is_empty() && now <= last => {
                    return Some(format!("saw r{last}, then r{now} again"));
                }
                Some(last) if !it.event.is_empty() && now != last + 1 => {
                    return Some(format!("saw r{last}, then r{now}: what is between is missing"));
                }
                Some(_) | None => {}
            }
            let kept = self.events.get(&now).map(|event| event.kind.as_str());
            if let Some(kept) = kept.filter(|kept| !it.event.is_empty() && it.event != *kept) {
                return Some(format!("was told that r{now} is {}, but it is {kept}", it.event));
            }
            last = Some(now);
        }
        let end = self
            .events
            .values()
            .find(|it| matches!(&*it.state, "REJECTED" | "CANCELLED" | "EXPIRED" | "COMPLETED"));
        match (ended, end, last) {
            (true, None, _) => Some("was told that it has ended, but it has not".to_owned()),
            (true, Some(end), last) if last.unwrap_or_default() < end.revision => {
                Some(format!("was let go before it ended at r{}", end.revision))
            }
            (true, Some(_), _) | (false, _, _) => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::world::sample;

    /// What is found if a watcher of the completed order saw this: `s` for a snapshot.
    fn found(seen: &[(i64, &str)], ended: bool) -> usize {
        let mut world = sample::completed();
        let kinds: Vec<String> = world.events.iter().map(|it| it.kind.clone()).collect();
        let seen = seen
            .iter()
            .map(|(revision, mark)| Seen {
                revision: *revision,
                event: match *mark {
                    "s" => String::new(),
                    "" => kinds.get(usize::try_from(*revision).unwrap() - 1).unwrap().clone(),
                    other => other.to_owned(),
                },
                first: false,
            })
            .collect();
        world.history.retain(|it| !matches!(it.asked, Asked::Watch { .. }));
        let mut watch = world.history[0].clone();
        watch.asked = Asked::Watch { order: sample::order_name(), seen, ended };
        world.history.push(watch);
        find(&world).len()
    }

    #[test]
    fn a_snapshot_and_every_revision_after_it_are_good() {
        assert_eq!(find(&sample::completed()), []);
        assert_eq!(found(&[(1, "s"), (2, ""), (3, "")], false), 0);
        assert_eq!(found(&[(2, "s"), (3, ""), (3, "s"), (4, "")], false), 0);
        assert_eq!(found(&[(1, "s"), (4, "s")], false), 0);
        assert_eq!(found(&[], false), 0);
    }

    #[test]
    fn gaps_repeats_steps_back_and_inventions_are_found() {
        let end = i64::try_from(sample::completed().events.len()).unwrap();
        for (seen, ended) in [
            (&[(1, "s"), (3, "")][..], false),
            (&[(1, "s"), (2, ""), (2, "")], false),
            (&[(3, "s"), (2, "s")], false),
            (&[(1, "s"), (2, "order.rejected")], false),
            (&[(end + 1, "s")], false),
            (&[(1, "s")], true),
        ] {
            assert_eq!(found(seen, ended), 1, "{seen:?}");
        }
        assert_eq!(found(&[(end, "s")], true), 0);
    }
}
