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
    /// How many can be promised of what lies there.
    pub available: i64,
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
    /// How many have left.
    pub shipped: i64,
    /// How many of those have come back.
    pub returned: i64,
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

impl Allotment {
    /// How many have not left.
    #[must_use]
    pub fn open(&self) -> i64 {
        self.quantity - self.shipped
    }
}

/// Allots every line in full, or says which lines are short.
///
/// The first place that serves all lines serves them; else each line, in turn, is taken from
/// where most is left. Of equals, the first by id: the same input gets the same answer.
///
/// # Errors
/// Every [`Short`] line, in the order of the lines.
pub fn allocate(lines: &[Wanted], shelves: &[Shelf]) -> Result<Vec<Allotment>, Vec<Short>> {
    if let Some(place) = serves_all(lines, shelves) {
        return Ok(lines.iter().map(|line| allot(line, &place, line.quantity)).collect());
    }
    let mut left = shelves.to_vec();
    left.sort_by(|a, b| a.place.cmp(&b.place));
    let mut allotted = Vec::new();
    let mut short = Vec::new();
    for line in lines {
        match split(line, &mut left) {
            Ok(parts) => allotted.extend(parts),
            Err(line) => short.push(line),
        }
    }
    if short.is_empty() { Ok(allotted) } else { Err(short) }
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
fn split(line: &Wanted, shelves: &mut [Shelf]) -> Result<Vec<Allotment>, Short> {
    let mut order: Vec<usize> = (0..shelves.len())
        .filter(|&at| shelves.get(at).is_some_and(|s| s.sku == line.sku))
        .collect();
    let available = |at: &usize| shelves.get(*at).map_or(0, |shelf| shelf.available.max(0));
    // The sort is stable: of equals, the first place comes first.
    order.sort_by_key(|at| Reverse(available(at)));
    let stocked: i64 = order.iter().map(available).sum();
    if line.quantity > stocked {
        return Err(Short {
            line: line.line.clone(),
            sku: line.sku.clone(),
            wanted: line.quantity,
            available: stocked,
        });
    }
    let mut rest = line.quantity;
    let mut parts: Vec<Allotment> = Vec::new();
    for at in order {
        let Some(shelf) = shelves.get_mut(at) else { continue };
        let taken = shelf.available.max(0).min(rest);
        if taken > 0 {
            rest -= taken;
            shelf.available -= taken;
            parts.push(allot(line, &shelf.place, taken));
        }
    }
    parts.sort_by(|a, b| a.place.cmp(&b.place));
    Ok(parts)
}

fn allot(line: &Wanted, place: &Place, quantity: i64) -> Allotment {
    Allotment {
        line: line.line.clone(),
        sku: line.sku.clone(),
        place: place.clone(),
        quantity,
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

    fn shelf(sku: &str, place: &str, available: i64) -> Shelf {
        Shelf { sku: Sku::parse(sku).unwrap(), place: Place::parse(place).unwrap(), available }
    }

    /// `line:quantity@place`, one word a part; `line!available/wanted`, one word a short line.
    fn told(answer: &Result<Vec<Allotment>, Vec<Short>>) -> String {
        let words: Vec<String> = match answer {
            Ok(parts) => {
                parts.iter().map(|p| format!("{}:{}@{}", p.line, p.quantity, p.place)).collect()
            }
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
            shelf("A", "east", 9),
            shelf("A", "north", 2),
            shelf("A", "west", 5),
            shelf("B", "east", 1),
            shelf("B", "north", 2),
            shelf("B", "west", 5),
        ];
        assert_eq!(told(&allocate(&lines, &shelves)), "1:2@north 2:2@north");
    }

    #[test]
    fn else_each_line_is_taken_from_where_most_is_left() {
        let lines = [wanted("1", "A", 4), wanted("2", "A", 4)];
        let shelves = [shelf("A", "east", 3), shelf("A", "north", 5)];
        assert_eq!(told(&allocate(&lines, &shelves)), "1:4@north 2:3@east 2:1@north");
    }

    #[test]
    fn every_short_line_is_told() {
        let lines =
            [wanted("1", "A", 4), wanted("2", "B", 1), wanted("3", "C", 1), wanted("4", "A", 1)];
        let shelves = [shelf("A", "east", 3), shelf("B", "north", 1)];
        // The fourth line is not short: the first one did not take what it could not have in full.
        assert_eq!(told(&allocate(&lines, &shelves)), "1!3/4 3!0/1");
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
        prop::collection::btree_map(("[AB]", "[a-c]"), 0_i64..8, 0..6).prop_map(|shelves| {
            let row =
                |((sku, place), available): ((String, String), i64)| shelf(&sku, &place, available);
            shelves.into_iter().map(row).collect()
        })
    }

    proptest! {
        #[test]
        fn an_allotment_fills_every_line_and_takes_nothing_that_is_not_there(
            lines in lines(), shelves in shelves(),
        ) {
            let answer = allocate(&lines, &shelves);
            let mut mixed = shelves.clone();
            mixed.reverse();
            prop_assert_eq!(&answer, &allocate(&lines, &mixed), "same input, same answer");
            let Ok(parts) = answer else { return Ok(()) };
            for line in &lines {
                let sum: i64 = parts.iter().filter(|p| p.line == line.line).map(|p| p.quantity).sum();
                prop_assert_eq!(sum, line.quantity);
            }
            for shelf in &shelves {
                let here = parts.iter().filter(|p| p.sku == shelf.sku && p.place == shelf.place);
                prop_assert!(here.map(|p| p.quantity).sum::<i64>() <= shelf.available);
            }
        }
    }
}
