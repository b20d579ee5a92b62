//! L1: once nobody asks for anything, every order has ended or waits for a person or a timer.

use std::collections::BTreeMap;

use super::{Finding, Invariant::L1};
use crate::world::{Saga, World};

/// How long a saga may be due without being looked at.
const LATE: i64 = 60_000_000;

pub(super) fn find(world: &World) -> Vec<Finding> {
    let mut sagas: BTreeMap<&str, Vec<&Saga>> = BTreeMap::new();
    for it in &world.sagas {
        sagas.entry(&it.key).or_default().push(it);
    }
    let mut findings = Vec::new();
    for order in &world.orders {
        let of = sagas.remove(order.id.as_str()).unwrap_or_default();
        let ended = matches!(&*order.state, "REJECTED" | "CANCELLED" | "EXPIRED" | "COMPLETED");
        let mut alive = of.iter().filter(|it| !matches!(&*it.state, "DONE" | "COMPENSATED"));
        let problem = match alive.next() {
            Some(saga) if saga.state == "STUCK" => {
                Some(format!("its saga {} is stuck: {}", saga.id, saga.last_error))
            }
            Some(saga) if saga.state != "PAUSED" && saga.next_run_at + LATE < world.at => {
                Some(format!("its saga {} is due, and nobody looks at it", saga.id))
            }
            Some(_) => None,
            None if ended => None,
            None => Some(format!("is {}, and no saga leads it on", order.state)),
        };
        findings.extend(problem.map(|problem| Finding::of_order(L1, &order.id, problem)));
    }
    findings
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::world::sample;

    #[test]
    fn an_end_and_a_timer_are_good() {
        for world in [sample::completed(), sample::cancelled(), sample::in_flight()] {
            assert_eq!(find(&world), []);
        }
    }

    #[test]
    fn an_order_that_nobody_leads_on_is_found() {
        let changes: [fn(&mut Saga); 3] = [
            |saga| saga.state = "STUCK".to_owned(),
            |saga| saga.state = "COMPENSATED".to_owned(),
            |saga| saga.next_run_at = -LATE,
        ];
        for change in changes {
            let mut world = sample::in_flight();
            change(&mut world.sagas[0]);
            assert_eq!(sample::subjects(&find(&world)), [sample::order_name()]);
        }
    }
}
