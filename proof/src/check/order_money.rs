//! I5: an order that came to nothing has taken nothing, one that is completed what it is worth.

use std::collections::BTreeMap;

use super::{Finding, Invariant::I5, money};
use crate::world::{Order, World};

pub(super) fn find(world: &World) -> Vec<Finding> {
    let books = money::books(world);
    let mut payments: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
    for it in &world.payments {
        // Where it was voided before it came to be, a payment has its order's id and no order.
        let order = if it.order_name.is_empty() { &it.id } else { &it.order_name };
        payments.entry(order).or_default().push(&it.id);
    }
    let mut due: BTreeMap<&str, i64> = BTreeMap::new();
    for it in &world.lines {
        *due.entry(&it.order_id).or_default() += it.total_minor;
    }
    let mut findings = Vec::new();
    for (id, order) in world.resting() {
        let of = payments.get(id).map(Vec::as_slice).unwrap_or_default();
        let sum = |part: fn(&money::Books) -> i64| -> i64 {
            of.iter().filter_map(|payment| books.get(payment)).map(part).sum()
        };
        let (held, net) = (sum(|it| it.held), sum(|it| it.net()));
        let due = due.get(id).copied().unwrap_or_default() + order.shipping_minor;
        if let Some(problem) = problem(order, held, net, due, goodwill(world, of)) {
            findings.push(Finding::of_order(I5, id, problem));
        }
    }
    findings
}

/// What persons gave back, for reasons that are not the order's.
fn goodwill(world: &World, payments: &[&str]) -> i64 {
    world
        .refunds
        .iter()
        .filter(|it| payments.contains(&&*it.payment) && it.saga.is_empty() && it.state != "FAILED")
        .map(|it| it.amount_minor)
        .sum()
}

fn problem(order: &Order, held: i64, net: i64, due: i64, goodwill: i64) -> Option<String> {
    let (state, currency) = (&order.state, &order.currency);
    match state.as_str() {
        "REJECTED" | "CANCELLED" | "EXPIRED" if net != 0 => {
            Some(format!("is {state}, but {net} {currency} of its customer was kept"))
        }
        "REJECTED" | "CANCELLED" | "EXPIRED" if held != 0 => {
            Some(format!("is {state}, but {held} {currency} is still set aside"))
        }
        "COMPLETED" if net != due && net + goodwill != due => {
            Some(format!("is {state} and worth {due} {currency}, but {net} was kept"))
        }
        "COMPLETED" if held != 0 => {
            Some(format!("is {state}, but {held} {currency} is still set aside"))
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::world::sample;

    #[test]
    fn an_end_with_the_money_that_it_asks_for_is_good() {
        for world in
            [sample::completed(), sample::cancelled(), sample::refunded(), sample::in_flight()]
        {
            assert_eq!(find(&world), []);
        }
    }

    #[test]
    fn a_cancelled_order_that_kept_money_is_found_and_one_under_way_is_not() {
        let mut world = sample::completed();
        world.orders[0].state = "CANCELLED".to_owned();
        assert_eq!(sample::subjects(&find(&world)), [sample::order_name()]);
        world.sagas[0].state = "COMPENSATING".to_owned();
        assert_eq!(find(&world), []);
    }

    #[test]
    fn a_rejected_order_with_a_living_authorization_is_found() {
        let mut world = sample::cancelled();
        world.orders[0].state = "REJECTED".to_owned();
        world.postings.retain(|it| it.movement != "RELEASED");
        assert_eq!(sample::subjects(&find(&world)), [sample::order_name()]);
    }

    #[test]
    fn a_completed_order_that_took_another_amount_is_found() {
        let mut world = sample::completed();
        world.lines[0].total_minor -= 1;
        assert_eq!(sample::subjects(&find(&world)), [sample::order_name()]);
    }

    #[test]
    fn what_a_person_gives_back_is_no_fault_of_the_order() {
        let mut world = sample::completed();
        world.refunds.push(sample::refund("gesture", 300));
        world.postings.extend(sample::refund_postings("pay/1/refund/1", 300));
        assert_eq!(find(&world), []);
    }
}
