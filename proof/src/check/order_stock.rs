//! I6: what left the shelves is what orders count as shipped, and an end keeps nothing back.

use std::collections::BTreeMap;

use super::{Finding, Invariant::I6};
use crate::world::World;

/// Units of one variant that belong to one order.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Units {
    /// On the lines of the order.
    counted: i64,
    /// In parcels that are on their way or arrived.
    sent: i64,
    /// In parcels that did not arrive.
    astray: i64,
    /// Taken from the shelves.
    taken: i64,
    /// Consumed beyond what was allocated.
    beyond: i64,
}

pub(super) fn find(world: &World) -> Vec<Finding> {
    let resting = world.resting();
    let mut findings = Vec::new();
    for it in &world.reservations {
        let Some(order) = resting.get(it.order_id.as_str()) else { continue };
        let ended = matches!(&*order.state, "REJECTED" | "CANCELLED" | "EXPIRED" | "COMPLETED");
        if ended && matches!(&*it.state, "HELD" | "COMMITTED") {
            let (state, id) = (&order.state, &it.id);
            let sentence = format!("is {state}, but reservations/{id} is still {}", it.state);
            findings.push(Finding::of_order(I6, &order.id, sentence));
        }
    }
    for ((order, sku), units) in units(world) {
        if !resting.contains_key(order) {
            continue;
        }
        if let Some(problem) = units.problem(world.tables.contains("shipment")) {
            findings.push(Finding::of_order(I6, order, format!("{sku}: {problem}")));
        }
    }
    findings
}

fn units(world: &World) -> BTreeMap<(&str, &str), Units> {
    let mut units: BTreeMap<(&str, &str), Units> = BTreeMap::new();
    for it in &world.lines {
        units.entry((&it.order_id, &it.variant)).or_default().counted += it.shipped;
    }
    let shipments: BTreeMap<&str, (&str, &str)> =
        world.shipments.iter().map(|it| (&*it.id, (&*it.order_name, &*it.state))).collect();
    for it in &world.shipment_lines {
        let Some((order, state)) = shipments.get(&*it.shipment) else { continue };
        let of = units.entry((order, &it.variant)).or_default();
        match *state {
            "DISPATCHED" | "IN_TRANSIT" | "DELIVERED" => of.sent += it.quantity,
            "LOST" | "RETURNED" => of.astray += it.quantity,
            _ => {}
        }
    }
    let orders: BTreeMap<&str, &str> =
        world.reservations.iter().map(|it| (&*it.id, &*it.order_id)).collect();
    for it in &world.movements {
        let Some(order) = orders.get(&*it.cause).filter(|order| !order.is_empty()) else {
            continue;
        };
        let of = units.entry((order, &it.sku)).or_default();
        match it.kind.as_str() {
            "SHIPPED" => {
                of.taken += it.quantity;
                of.beyond += it.quantity;
            }
            "ALLOCATED" => of.beyond -= it.quantity,
            _ => {}
        }
    }
    units
}

// === impl Units ===

impl Units {
    fn problem(self, has_shipments: bool) -> Option<String> {
        if self.beyond > 0 {
            return Some(format!("{} units left that were never allocated", self.beyond));
        }
        if !has_shipments {
            return None;
        }
        if self.counted != self.sent {
            let (counted, sent) = (self.counted, self.sent);
            return Some(format!("{counted} units count as shipped, {sent} are in its parcels"));
        }
        if self.taken != self.sent + self.astray {
            let (taken, sent) = (self.taken, self.sent + self.astray);
            return Some(format!("{taken} units left the shelves, {sent} were sent"));
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::world::sample;

    #[test]
    fn shelves_parcels_and_orders_that_agree_are_good() {
        for world in
            [sample::completed(), sample::cancelled(), sample::refunded(), sample::in_flight()]
        {
            assert_eq!(find(&world), []);
        }
    }

    #[test]
    fn an_ended_order_that_still_holds_stock_is_found() {
        let mut world = sample::cancelled();
        world.reservations[0].state = "COMMITTED".to_owned();
        assert_eq!(sample::subjects(&find(&world)), [sample::order_name()]);
    }

    #[test]
    fn a_shipment_that_the_order_does_not_count_is_found() {
        let mut world = sample::completed();
        world.lines[0].shipped = 1;
        assert_eq!(sample::subjects(&find(&world)), [sample::order_name()]);
    }

    #[test]
    fn a_parcel_that_took_nothing_from_the_shelves_is_found() {
        let mut world = sample::completed();
        world.movements.retain(|it| it.kind != "SHIPPED");
        assert_eq!(sample::subjects(&find(&world)), [sample::order_name()]);
    }
}
