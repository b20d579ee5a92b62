//! Which place each line of a reservation is taken from.

use std::{cmp::Reverse, collections::BTreeMap};

use super::{Place, Sku};

/// How much of a variant a line asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Wanted {
    /// The id of the order's line.
    pub line: String,
    /// Of what.
    pub sku: Sku,
    /// How many, above zero.
    pub quantity: i64,
}

/// What one place can give of a variant.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Shelf {
    /// Of what.
    pub sku: Sku,
    /// Where.
    pub place: Place,
    /// How many can be promised of what lies there; may be negative.
    pub available: i64,
    /// How far below zero promises may take it.
    pub backorder_limit: i64,
}

/// Whether lines may be promised before the goods have come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Backorder {
    /// Only what is available.
    Refused,
    /// Up to the limit of each shelf.
    Allowed,
}

/// The part of a line that comes from one place.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Allotment {
    /// The id of the order's line.
    pub line: String,
    /// Of what.
    pub sku: Sku,
    /// From where.
    pub place: Place,
    /// How many, above zero.
    pub quantity: i64,
    /// How many of them wait for goods to come.
    pub backordered: i64,
    /// How many have left.
    pub shipped: i64,
    /// How many of those have come back.
    pub returned: i64,
}

impl Allotment {
    /// How many have not left.
    #[must_use]
    pub fn open(&self) -> i64 {
        self.quantity - self.shipped
    }
}

/// A line that cannot be served in full.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Short {
    /// The id of the order's line.
    pub line: String,
    /// Of what.
    pub sku: Sku,
    /// How many it asks for.
    pub wanted: i64,
    /// How many it could have had after the lines before it.
    pub available: i64,
}

/// A reservation's line that waits for goods.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Waiting {
    /// The id of the reservation.
    pub reservation: String,
    /// The id of the order's line.
    pub line: String,
    /// For how many.
    pub backordered: i64,
}

/// Allots every line in full, or says which lines are short.
///
/// The first place that serves all lines from what is available serves them; else each line,
/// in turn, is taken from where most is left, and if that is allowed, the rest is owed by the
/// place with the most room to its limit. Of equals, the first by id: the same input gets the
/// same answer.
///
/// # Errors
/// Every [`Short`] line, in the order of the lines.
pub fn allocate(
    lines: &[Wanted],
    shelves: &[Shelf],
    backorder: Backorder,
) -> Result<Vec<Allotment>, Vec<Short>> {
    if let Some(place) = serves_all(lines, shelves) {
        return Ok(lines.iter().map(|line| allot(line, &place, line.quantity, 0)).collect());
    }
    let mut left = shelves.to_vec();
    left.sort_by(|a, b| a.place.cmp(&b.place));
    let mut allotted = Vec::new();
    let mut short = Vec::new();
    for line in lines {
        match split(line, &mut left, backorder) {
            Ok(parts) => allotted.extend(parts),
            Err(line) => short.push(line),
        }
    }
    if short.is_empty() { Ok(allotted) } else { Err(short) }
}

/// Divides `goods` among the lines that wait for them, first come, first served: how many each
/// line gets, lines that get nothing left out.
#[must_use]
pub fn serve(waiting: &[Waiting], goods: i64) -> Vec<(&Waiting, i64)> {
    let mut left = goods;
    let mut served = Vec::new();
    for line in waiting {
        let part = line.backordered.min(left);
        if part > 0 {
            left -= part;
            served.push((line, part));
        }
    }
    served
}

fn serves_all(lines: &[Wanted], shelves: &[Shelf]) -> Option<Place> {
    let mut wanted: BTreeMap<&Sku, i64> = BTreeMap::new();
    for line in lines {
        *wanted.entry(&line.sku).or_default() += line.quantity;
    }
    let mut serves: BTreeMap<&Place, usize> = BTreeMap::new();
    for shelf in shelves {
        if wanted.get(&shelf.sku).is_some_and(|quantity| shelf.available >= *quantity) {
            *serves.entry(&shelf.place).or_default() += 1;
        }
    }
    serves.into_iter().find(|(_, count)| *count == wanted.len()).map(|(place, _)| place.clone())
}

/// Takes a line from the shelves, or leaves them as they are.
fn split(
    line: &Wanted,
    shelves: &mut [Shelf],
    backorder: Backorder,
) -> Result<Vec<Allotment>, Short> {
    let mut order: Vec<usize> = (0..shelves.len())
        .filter(|&at| shelves.get(at).is_some_and(|s| s.sku == line.sku))
        .collect();
    let available = |at: &usize| shelves.get(*at).map_or(0, |shelf| shelf.available);
    // The sort is stable: of equals, the first place comes first.
    order.sort_by_key(|at| Reverse(available(at)));
    let stocked: i64 = order.iter().map(|at| available(at).max(0)).sum();
    let room = |at: &usize| {
        shelves.get(*at).map_or(0, |shelf| (shelf.backorder_limit + shelf.available.min(0)).max(0))
    };
    let owed = (line.quantity - stocked).max(0);
    let owing = match backorder {
        Backorder::Refused => None,
        // `max_by_key` answers the last of equals.
        Backorder::Allowed => order.iter().rev().max_by_key(|at| room(at)).copied(),
    };
    if owed > owing.as_ref().map_or(0, room) {
        return Err(Short {
            line: line.line.clone(),
            sku: line.sku.clone(),
            wanted: line.quantity,
            available: stocked,
        });
    }
    let mut rest = line.quantity - owed;
    let mut parts: Vec<Allotment> = Vec::new();
    for at in order {
        let Some(shelf) = shelves.get_mut(at) else { continue };
        let taken = shelf.available.max(0).min(rest);
        let later = if owing == Some(at) { owed } else { 0 };
        if taken + later > 0 {
            rest -= taken;
            shelf.available -= taken + later;
            parts.push(allot(line, &shelf.place, taken + later, later));
        }
    }
    parts.sort_by(|a, b| a.place.cmp(&b.place));
    Ok(parts)
}

fn allot(line: &Wanted, place: &Place, quantity: i64, backordered: i64) -> Allotment {
    Allotment {
        line: line.line.clone(),
        sku: line.sku.clone(),
        place: place.clone(),
        quantity,
        backordered,
        shipped: 0,
        returned: 0,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn wanted(line: &str, sku: &str, quantity: i64) -> Wanted {
        Wanted { line: line.to_owned(), sku: Sku::parse(sku).unwrap(), quantity }
    }

    fn shelf(sku: &str, place: &str, available: i64, backorder_limit: i64) -> Shelf {
        Shelf {
            sku: Sku::parse(sku).unwrap(),
            place: Place::parse(place).unwrap(),
            available,
            backorder_limit,
        }
    }

    /// `line:quantity(of which backordered)@place`, one word a part.
    fn told(answer: &Result<Vec<Allotment>, Vec<Short>>) -> String {
        let words: Vec<String> = match answer {
            Ok(parts) => parts
                .iter()
                .map(|p| format!("{}:{}({})@{}", p.line, p.quantity, p.backordered, p.place))
                .collect(),
            Err(short) => {
                short.iter().map(|s| format!("{}!{}/{}", s.line, s.available, s.wanted)).collect()
            }
        };
        words.join(" ")
    }

    #[test]
    fn one_place_serves_all_lines_if_one_can() {
        let lines = [wanted("1", "A", 2), wanted("2", "B", 2)];
        let shelves = [
            shelf("A", "east", 9, 0),
            shelf("A", "north", 2, 0),
            shelf("A", "west", 5, 0),
            shelf("B", "east", 1, 0),
            shelf("B", "north", 2, 0),
            shelf("B", "west", 5, 0),
        ];
        let answer = allocate(&lines, &shelves, Backorder::Refused);
        assert_eq!(told(&answer), "1:2(0)@north 2:2(0)@north");
    }

    #[test]
    fn else_each_line_is_taken_from_where_most_is_left() {
        let lines = [wanted("1", "A", 4), wanted("2", "A", 4)];
        let shelves = [shelf("A", "east", 3, 0), shelf("A", "north", 5, 0)];
        let answer = allocate(&lines, &shelves, Backorder::Refused);
        assert_eq!(told(&answer), "1:4(0)@north 2:3(0)@east 2:1(0)@north");
    }

    #[test]
    fn every_short_line_is_told() {
        let lines =
            [wanted("1", "A", 4), wanted("2", "B", 1), wanted("3", "C", 1), wanted("4", "A", 1)];
        let shelves = [shelf("A", "east", 3, 9), shelf("B", "north", 1, 9)];
        let answer = allocate(&lines, &shelves, Backorder::Refused);
        // The fourth line is not short: the first one did not take what it could not have in full.
        assert_eq!(told(&answer), "1!3/4 3!0/1");
    }

    #[test]
    fn what_is_owed_stays_within_the_limit_of_one_place() {
        let lines = [wanted("1", "A", 8)];
        let shelves = [shelf("A", "east", 3, 4), shelf("A", "north", 0, 5)];
        let allowed = allocate(&lines, &shelves, Backorder::Allowed);
        assert_eq!(told(&allowed), "1:3(0)@east 1:5(5)@north");
        assert_eq!(told(&allocate(&lines, &shelves, Backorder::Refused)), "1!3/8");
        let deep = [shelf("A", "east", -3, 4), shelf("A", "north", -5, 5)];
        assert_eq!(
            told(&allocate(&[wanted("1", "A", 1)], &deep, Backorder::Allowed)),
            "1:1(1)@east"
        );
        assert_eq!(told(&allocate(&[wanted("1", "A", 2)], &deep, Backorder::Allowed)), "1!0/2");
    }

    #[test]
    fn goods_go_to_those_who_wait_longest() {
        let waiting = |name: &str, backordered| Waiting {
            reservation: name.to_owned(),
            line: "1".to_owned(),
            backordered,
        };
        let all = [waiting("a", 2), waiting("b", 3), waiting("c", 1)];
        let got = |goods| -> Vec<(String, i64)> {
            serve(&all, goods).into_iter().map(|(w, n)| (w.reservation.clone(), n)).collect()
        };
        assert_eq!(got(0), []);
        assert_eq!(got(3), [("a".to_owned(), 2), ("b".to_owned(), 1)]);
        assert_eq!(got(9), [("a".to_owned(), 2), ("b".to_owned(), 3), ("c".to_owned(), 1)]);
    }

    fn lines() -> impl Strategy<Value = Vec<Wanted>> {
        prop::collection::vec(("[AB]", 1_i64..6), 1..5).prop_map(|lines| {
            let line = |(at, (sku, quantity)): (usize, (String, i64))| {
                wanted(&at.to_string(), &sku, quantity)
            };
            lines.into_iter().enumerate().map(line).collect()
        })
    }

    fn shelves() -> impl Strategy<Value = Vec<Shelf>> {
        prop::collection::btree_map(("[AB]", "[a-c]"), (-3_i64..8, 0_i64..5), 0..6).prop_map(
            |shelves| {
                let row = |((sku, place), (available, limit)): ((String, String), (i64, i64))| {
                    shelf(&sku, &place, available.max(-limit), limit)
                };
                shelves.into_iter().map(row).collect()
            },
        )
    }

    proptest! {
        #[test]
        fn an_allotment_fills_every_line_and_takes_nothing_that_is_not_there(
            lines in lines(), shelves in shelves(), allowed in any::<bool>(),
        ) {
            let backorder = if allowed { Backorder::Allowed } else { Backorder::Refused };
            let answer = allocate(&lines, &shelves, backorder);
            let mut mixed = shelves.clone();
            mixed.reverse();
            prop_assert_eq!(&answer, &allocate(&lines, &mixed, backorder), "same input, same answer");
            let Ok(parts) = answer else { return Ok(()) };
            for line in &lines {
                let sum: i64 = parts.iter().filter(|p| p.line == line.line).map(|p| p.quantity).sum();
                prop_assert_eq!(sum, line.quantity);
            }
            for shelf in &shelves {
                let here = || parts.iter().filter(|p| p.sku == shelf.sku && p.place == shelf.place);
                let taken: i64 = here().map(|p| p.quantity).sum();
                let owed: i64 = here().map(|p| p.backordered).sum();
                let limit = if allowed { shelf.backorder_limit } else { 0 };
                prop_assert!(taken == 0 || shelf.available - taken >= -limit);
                // What is owed is exactly what goes below zero.
                let below = (taken - shelf.available).max(0) - (-shelf.available).max(0);
                prop_assert_eq!(owed, if taken == 0 { 0 } else { below });
            }
        }
    }
}
