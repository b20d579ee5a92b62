//! I2: the counters are the fold of the movements, and every hold ends once.

use std::collections::BTreeMap;

use super::{Finding, Invariant::I2};
use crate::world::{Reservation, World};

/// How long a hold without a saga may outlive its time: the job that ends it comes by.
const LATE: i64 = 60_000_000;

/// Sums of one reservation's movements of one variant at one place.
#[derive(Clone, Copy, Debug, Default)]
struct Sums {
    held: i64,
    allocated: i64,
    unheld: i64,
    shipped: i64,
    deallocated: i64,
    /// What the reservation's lines say.
    wanted: i64,
}

pub(super) fn find(world: &World) -> Vec<Finding> {
    let mut findings = counters(world);
    findings.extend(holds(world));
    findings.extend(orphans(world));
    findings
}

fn counters(world: &World) -> Vec<Finding> {
    let mut folds: BTreeMap<(&str, &str), [i64; 3]> = BTreeMap::new();
    for it in &world.movements {
        let [on_hand, held, allocated] = signs(&it.kind);
        let fold = folds.entry((&it.location, &it.sku)).or_default();
        fold[0] += on_hand * it.quantity;
        fold[1] += held * it.quantity;
        fold[2] += allocated * it.quantity;
    }
    let mut findings = Vec::new();
    for it in &world.stocks {
        let fold = folds.remove(&(it.location.as_str(), it.sku.as_str())).unwrap_or_default();
        let row = [it.on_hand, it.held, it.allocated];
        if row != fold {
            let sentence =
                format!("on hand, held and allocated are {row:?}, but its movements give {fold:?}");
            findings.push(Finding::new(I2, format!("stocks/{}~{}", it.location, it.sku), sentence));
        }
    }
    let missing = folds.into_iter().filter(|(_, fold)| *fold != [0; 3]);
    findings.extend(missing.map(|((location, sku), fold)| {
        let sentence = format!("has no row, but its movements give {fold:?}");
        Finding::new(I2, format!("stocks/{location}~{sku}"), sentence)
    }));
    findings
}

/// What one unit of a movement does to on hand, held and allocated.
fn signs(kind: &str) -> [i64; 3] {
    match kind {
        "RECEIVED" | "RETURNED" | "ADJUSTED" => [1, 0, 0],
        "HELD" => [0, 1, 0],
        "HOLD_RELEASED" | "HOLD_EXPIRED" => [0, -1, 0],
        "ALLOCATED" => [0, -1, 1],
        "DEALLOCATED" => [0, 0, -1],
        "SHIPPED" => [-1, 0, -1],
        _ => [0; 3],
    }
}

fn holds(world: &World) -> Vec<Finding> {
    let mut sums: BTreeMap<&str, BTreeMap<(&str, &str), Sums>> = BTreeMap::new();
    for it in world.movements.iter().filter(|it| !it.cause.is_empty()) {
        let of = sums.entry(&it.cause).or_default().entry((&it.location, &it.sku)).or_default();
        match it.kind.as_str() {
            "HELD" => of.held += it.quantity,
            "ALLOCATED" => of.allocated += it.quantity,
            "HOLD_RELEASED" | "HOLD_EXPIRED" => of.unheld += it.quantity,
            "SHIPPED" => of.shipped += it.quantity,
            "DEALLOCATED" => of.deallocated += it.quantity,
            _ => {}
        }
    }
    for it in &world.parts {
        let of = sums.entry(&it.reservation).or_default();
        of.entry((&it.location, &it.sku)).or_default().wanted += it.quantity;
    }
    let known: BTreeMap<&str, &Reservation> =
        world.reservations.iter().map(|it| (it.id.as_str(), it)).collect();
    let mut findings = Vec::new();
    for (id, places) in &sums {
        let Some(reservation) = known.get(id) else {
            let sentence = "movements name it, but there is no such reservation";
            findings.push(Finding::new(I2, format!("reservations/{id}"), sentence));
            continue;
        };
        for ((location, sku), of) in places {
            if let Some(problem) = unbalanced(&reservation.state, *of) {
                let sentence = format!("{problem} ({sku} at {location}, {})", reservation.state);
                findings.push(Finding::new(I2, format!("reservations/{id}"), sentence));
            }
        }
    }
    findings
}

/// What the movements of one reservation miss, or have too much.
fn unbalanced(state: &str, of: Sums) -> Option<String> {
    let open = of.held - of.allocated - of.unheld;
    let promised = of.allocated - of.shipped - of.deallocated;
    let wanted = if state == "HELD" { of.wanted } else { 0 };
    if open > wanted {
        return Some(format!("{} units were held and never given back", open - wanted));
    }
    if open < wanted {
        return Some(format!("{} units of a hold ended more than once", wanted - open));
    }
    match state {
        "COMMITTED" if promised < 0 => {
            Some(format!("{} units left beyond what was allocated", -promised))
        }
        "COMMITTED" => None,
        _ if promised != 0 => {
            Some(format!("{promised} units are still allocated, though it has ended"))
        }
        _ => None,
    }
}

/// Holds that nothing will end.
fn orphans(world: &World) -> Vec<Finding> {
    let mut findings = Vec::new();
    for it in world.reservations.iter().filter(|it| it.state == "HELD") {
        let why = if it.saga.is_empty() {
            (it.expires_at + LATE < world.at).then(|| "is held beyond its time".to_owned())
        } else {
            let saga = world.sagas.iter().find(|saga| saga.id == it.saga);
            let ended = saga.is_none_or(|saga| {
                matches!(saga.state.as_str(), "DONE" | "COMPENSATED") && world.at_rest(&saga.key)
            });
            // A saga of an order that came while others were looked at is not known yet.
            let excused = saga.is_none() && world.moving.contains(&it.order_id);
            (ended && !excused)
                .then(|| format!("is held, but its saga {} does not live any more", it.saga))
        };
        if let Some(why) = why {
            findings.push(Finding::new(I2, format!("reservations/{}", it.id), why));
        }
    }
    findings
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::world::sample;

    #[test]
    fn movements_that_explain_every_counter_are_good() {
        for world in [sample::completed(), sample::cancelled(), sample::in_flight()] {
            assert_eq!(find(&world), []);
        }
    }

    #[test]
    fn a_counter_that_its_movements_do_not_give_is_found() {
        let mut world = sample::completed();
        world.stocks[0].on_hand += 1;
        assert_eq!(sample::subjects(&find(&world)), ["stocks/north~SKU"]);
    }

    #[test]
    fn a_hold_that_is_deleted_without_a_movement_is_found() {
        let mut world = sample::cancelled();
        world.movements.retain(|it| it.kind != "DEALLOCATED");
        world.stocks[0].allocated = 2;
        let name = format!("reservations/{}", sample::ORDER);
        assert_eq!(sample::subjects(&find(&world)), [name]);
    }

    #[test]
    fn a_hold_that_ends_twice_is_found() {
        let mut world = sample::completed();
        let release = sample::movement("HOLD_RELEASED", 2, 9);
        world.movements.push(release);
        world.stocks[0].held = -2;
        let name = format!("reservations/{}", sample::ORDER);
        assert_eq!(sample::subjects(&find(&world)), [name]);
    }

    #[test]
    fn a_hold_whose_saga_has_ended_is_found_and_a_living_one_is_not() {
        let mut world = sample::in_flight();
        assert_eq!(find(&world), []);
        world.sagas[0].state = "COMPENSATED".to_owned();
        assert_eq!(find(&world).len(), 1);
        world.moving.insert(sample::ORDER.to_owned());
        assert_eq!(find(&world), []);
    }

    #[test]
    fn a_hold_of_a_person_is_found_beyond_its_time() {
        let mut world = sample::in_flight();
        world.reservations[0].saga = String::new();
        world.reservations[0].expires_at = world.at - LATE;
        assert_eq!(find(&world), []);
        world.reservations[0].expires_at -= 1;
        assert_eq!(find(&world).len(), 1);
    }
}
