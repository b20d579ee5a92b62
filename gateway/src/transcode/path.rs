//! Where a field stands in a request, as `BadRequest` names it: `note.lines[0].quantity`.

use std::fmt;

/// The way from the request to a field.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Path(Vec<Step>);

/// One step of the way.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    /// Into a field, or a member that may be one.
    Key(String),
    /// Into an element.
    Index(usize),
    /// Into the value of a map.
    Entry(String),
}

// === impl Path ===

impl Path {
    /// Goes one step down.
    pub fn push(&mut self, step: Step) {
        self.0.push(step);
    }

    /// Comes back.
    pub fn pop(&mut self) {
        self.0.pop();
    }
}

impl fmt::Display for Path {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, step) in self.0.iter().enumerate() {
            match step {
                Step::Key(name) if index == 0 => f.write_str(&brief(name))?,
                Step::Key(name) => write!(f, ".{}", brief(name))?,
                Step::Index(index) => write!(f, "[{index}]")?,
                Step::Entry(key) => write!(f, "[{}]", brief(key))?,
            }
        }
        Ok(())
    }
}

/// What a sender wrote, short enough to be said back to them.
#[must_use]
pub fn brief(text: &str) -> String {
    const LONGEST: usize = 64;
    let mut said: String =
        text.chars().take(LONGEST).map(|c| if c.is_control() { '\u{fffd}' } else { c }).collect();
    if text.chars().nth(LONGEST).is_some() {
        said.push('…');
    }
    said
}

/// The name among `known` that `name` was probably meant to be.
pub fn meant<'a>(name: &str, known: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    const LONGEST: usize = 64;
    if name.len() > LONGEST {
        return None;
    }
    let allowed = name.len() / 3;
    known
        .take(1_000)
        .map(|known| (distance(name.as_bytes(), known.as_bytes()), known))
        .filter(|(distance, _)| *distance <= allowed.clamp(1, 3))
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, known)| known)
}

/// How many bytes must be changed, added or left out to get from one to the other.
fn distance(a: &[u8], b: &[u8]) -> usize {
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, x) in a.iter().enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, y) in b.iter().enumerate() {
            let changed = diagonal + usize::from(!x.eq_ignore_ascii_case(y));
            diagonal = row[j + 1];
            row[j + 1] = changed.min(row[j] + 1).min(diagonal + 1);
        }
    }
    row[b.len()]
}
