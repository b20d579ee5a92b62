//! I1: nothing is promised that is not there, and nothing leaves that never came.

use std::collections::BTreeMap;

use super::{Finding, Invariant::I1};
use crate::world::World;

pub(super) fn find(world: &World) -> Vec<Finding> {
    let mut findings = Vec::new();
    for it in &world.stocks {
        let available = it.on_hand - it.held - it.allocated;
        if available < -it.backorder_limit {
            let sentence = format!(
                "{} lie there, {} are held and {} allocated: {} more than may be promised",
                it.on_hand,
                it.held,
                it.allocated,
                -it.backorder_limit - available
            );
            findings.push(Finding::new(I1, format!("stocks/{}~{}", it.location, it.sku), sentence));
        }
    }
    let mut flows: BTreeMap<(&str, &str), (i64, i64)> = BTreeMap::new();
    for it in &world.movements {
        let (came, left) = flows.entry((&it.location, &it.sku)).or_default();
        match it.kind.as_str() {
            "RECEIVED" | "ADJUSTED" | "RETURNED" => *came += it.quantity,
            "SHIPPED" => *left += it.quantity,
            _ => {}
        }
    }
    for ((location, sku), (came, left)) in flows {
        if left > came {
            let sentence = format!("{left} were shipped, but only {came} ever came");
            findings.push(Finding::new(I1, format!("stocks/{location}~{sku}"), sentence));
        }
    }
    findings
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::world::sample;

    #[test]
    fn what_is_there_and_came_is_enough() {
        assert_eq!(find(&sample::completed()), []);
    }

    #[test]
    fn promises_beyond_the_limit_are_found() {
        let mut world = sample::completed();
        let stock = &mut world.stocks[0];
        stock.held = stock.on_hand - stock.allocated + 1;
        assert_eq!(sample::subjects(&find(&world)), ["stocks/north~SKU"]);
        world.stocks[0].backorder_limit = 1;
        assert_eq!(find(&world), []);
    }

    #[test]
    fn goods_that_left_and_never_came_are_found() {
        let mut world = sample::completed();
        world.movements.retain(|it| it.kind != "RECEIVED");
        assert_eq!(sample::subjects(&find(&world)), ["stocks/north~SKU"]);
    }
}
