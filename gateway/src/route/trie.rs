//! The routes of all methods in one trie: literal before `*` before `**`, with backtracking,
//! never recursing and never looking at a node and a segment twice.

use std::collections::{BTreeSet, HashMap, HashSet};

use super::template::{Segment, Template, normalized};

/// The method of a route that takes every method.
pub const ANY: &str = "*";

/// All routes, each with a value.
#[derive(Debug)]
pub struct Router<T> {
    nodes: Vec<Node>,
    routes: Vec<T>,
    verbs: HashSet<String>,
}

#[derive(Debug, Default)]
struct Node {
    literals: HashMap<String, usize>,
    one: Option<usize>,
    many: Option<usize>,
    ends: Vec<End>,
    /// Whether a `**` stands on the way here: then several segments may lead to it.
    deep: bool,
}

#[derive(Debug)]
struct End {
    verb: Option<String>,
    method: String,
    route: usize,
}

/// A route that fits a path.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Found<'a, T> {
    /// What was registered.
    pub route: &'a T,
    /// The path, without its verb.
    path: &'a str,
    /// Where each segment of the path begins and ends.
    segments: Vec<(usize, usize)>,
    /// For each segment of the template the first segment of the path that it covers; then the
    /// number of segments.
    covered: Vec<usize>,
}

/// Why no route fits.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Missed {
    /// No method has this path.
    Path,
    /// These methods have it.
    Method(BTreeSet<String>),
}

/// Two routes are equal: which one would win is nobody's guess.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Taken {
    /// The place of the route that was there first.
    pub by: usize,
}

/// One point of the search to which it can come back.
struct Step {
    node: usize,
    /// The segment that the node's children meet.
    segment: usize,
    /// How many template segments lead here.
    depth: usize,
    next: Choice,
}

#[derive(Clone, Copy)]
enum Choice {
    Literal,
    One,
    /// `**` over this many segments.
    Many(usize),
    Done,
}

/// What a search accepts at its end.
struct Wanted<'a> {
    verb: Option<&'a str>,
    /// `None`: any method will do, all are noted.
    method: Option<&'a str>,
}

// === impl Found ===

impl<'a, T> Found<'a, T> {
    /// What of the path the template's segments from `first` to before `end` cover, undecoded.
    #[must_use]
    pub fn value(&self, first: usize, end: usize) -> &'a str {
        let (Some(&from), Some(&to)) = (self.covered.get(first), self.covered.get(end)) else {
            return "";
        };
        match (self.segments.get(from), to.checked_sub(1).and_then(|to| self.segments.get(to))) {
            (Some((start, _)), Some((_, end))) if from < to => &self.path[*start..*end],
            _ => "",
        }
    }
}

// === impl Router ===

impl<T> Default for Router<T> {
    fn default() -> Self {
        Self { nodes: vec![Node::default()], routes: Vec::new(), verbs: HashSet::new() }
    }
}

impl<T> Router<T> {
    /// Adds a route.
    ///
    /// # Errors
    /// [`Taken`] if a route of the same method fits the very same paths (S11).
    pub fn insert(&mut self, method: &str, template: &Template, route: T) -> Result<(), Taken> {
        let mut at = 0;
        for segment in &template.segments {
            let new = self.nodes.len();
            let deep = self.nodes[at].deep || *segment == Segment::Many;
            let node = &mut self.nodes[at];
            at = match segment {
                Segment::Literal(word) => *node.literals.entry(word.clone()).or_insert(new),
                Segment::One => *node.one.get_or_insert(new),
                Segment::Many => *node.many.get_or_insert(new),
            };
            if at == new {
                self.nodes.push(Node { deep, ..Node::default() });
            }
        }
        let ends = &mut self.nodes[at].ends;
        if let Some(end) = ends.iter().find(|end| end.verb == template.verb && end.method == method)
        {
            return Err(Taken { by: end.route });
        }
        ends.push(End {
            verb: template.verb.clone(),
            method: method.to_owned(),
            route: self.routes.len(),
        });
        // A route that takes every method comes after those that name theirs.
        ends.sort_by_key(|end| end.method == ANY);
        self.verbs.extend(template.verb.clone());
        self.routes.push(route);
        Ok(())
    }

    /// The route at `index`, in the order of insertion.
    #[must_use]
    pub fn route(&self, index: usize) -> Option<&T> {
        self.routes.get(index)
    }

    /// All routes, in the order of insertion.
    pub fn iter(&self) -> impl Iterator<Item = &T> {
        self.routes.iter()
    }

    /// Finds the route for a raw path, the escapes of which are well-formed.
    ///
    /// # Errors
    /// [`Missed`] says whether another method would find one.
    pub fn find<'a>(&'a self, method: &str, path: &'a str) -> Result<Found<'a, T>, Missed> {
        let Some(after) = path.strip_prefix('/') else { return Err(Missed::Path) };
        let last = path.len() - after.rsplit('/').next().map_or(0, str::len);
        // A verb starts only after the last slash; the longest registered one wins (S12).
        for (colon, _) in path[last..].match_indices(':') {
            let verb = normalized(&path.as_bytes()[last + colon + 1..]);
            let Some(verb) = verb.filter(|verb| self.verbs.contains(verb)) else { continue };
            match self.find_with(method, &path[..last + colon], Some(&verb)) {
                Err(Missed::Path) => {}
                // The wrong method for a known verb: never a value that ends in it.
                decided @ (Ok(_) | Err(Missed::Method(_))) => return decided,
            }
        }
        self.find_with(method, path, None)
    }

    fn find_with<'a>(
        &'a self,
        method: &str,
        path: &'a str,
        verb: Option<&str>,
    ) -> Result<Found<'a, T>, Missed> {
        let mut seen = BTreeSet::new();
        let segments = segments(path);
        let wanted = Wanted { verb, method: Some(method) };
        if let Some((route, covered)) = self.search(path, &segments, &wanted, &mut seen) {
            return Ok(Found { route: &self.routes[route], path, segments, covered });
        }
        self.search(path, &segments, &Wanted { verb, method: None }, &mut seen);
        if seen.is_empty() { Err(Missed::Path) } else { Err(Missed::Method(seen)) }
    }

    fn search(
        &self,
        path: &str,
        segments: &[(usize, usize)],
        wanted: &Wanted<'_>,
        methods: &mut BTreeSet<String>,
    ) -> Option<(usize, Vec<usize>)> {
        let mut failed = HashSet::new();
        // For each template segment on the way: the first path segment it covers.
        let mut covered: Vec<usize> = Vec::new();
        let mut steps = vec![Step { node: 0, segment: 0, depth: 0, next: Choice::Literal }];
        while let Some(step) = steps.last_mut() {
            covered.truncate(step.depth);
            let node = &self.nodes[step.node];
            if matches!(step.next, Choice::Literal)
                && step.segment == segments.len()
                && let Some(route) = node.end(wanted, methods)
            {
                covered.push(segments.len());
                return Some((route, covered));
            }
            let Some((child, next_segment)) = step.advance(node, path, segments) else {
                steps.pop();
                continue;
            };
            let deep = self.nodes[child].deep;
            // Below a `**` several ways lead to one node; a second look would fail as the first.
            if deep && !failed.insert((child, next_segment)) {
                continue;
            }
            covered.push(step.segment);
            let depth = covered.len();
            steps.push(Step { node: child, segment: next_segment, depth, next: Choice::Literal });
        }
        None
    }
}

// === impl Node ===

impl Node {
    fn end(&self, wanted: &Wanted<'_>, methods: &mut BTreeSet<String>) -> Option<usize> {
        let fits = self.ends.iter().filter(|end| end.verb.as_deref() == wanted.verb);
        let Some(method) = wanted.method else {
            methods.extend(fits.map(|end| end.method.clone()));
            return None;
        };
        let mut fits = fits.filter(|end| end.method == method || end.method == ANY);
        fits.next().map(|end| end.route)
    }
}

// === impl Step ===

impl Step {
    /// The next child to try, and the segment that the child's own children meet.
    fn advance(
        &mut self,
        node: &Node,
        path: &str,
        segments: &[(usize, usize)],
    ) -> Option<(usize, usize)> {
        let here = segments.get(self.segment).map(|(start, end)| &path[*start..*end]);
        loop {
            match self.next {
                Choice::Literal => {
                    self.next = Choice::One;
                    if node.literals.is_empty() {
                        continue;
                    }
                    let child = here.and_then(|raw| {
                        // Most paths are spelt in the normal form already.
                        if raw.contains('%') {
                            normalized(raw.as_bytes()).and_then(|word| node.literals.get(&word))
                        } else {
                            node.literals.get(raw)
                        }
                    });
                    if let Some(child) = child {
                        return Some((*child, self.segment + 1));
                    }
                }
                Choice::One => {
                    self.next = Choice::Many(0);
                    if let (Some(child), Some(_)) = (node.one, here.filter(|raw| !raw.is_empty())) {
                        return Some((child, self.segment + 1));
                    }
                }
                Choice::Many(count) => {
                    let Some(child) = node.many.filter(|_| self.segment + count <= segments.len())
                    else {
                        self.next = Choice::Done;
                        continue;
                    };
                    self.next = Choice::Many(count + 1);
                    // Its value has no trailing slash (S7).
                    let last = count.checked_sub(1).and_then(|n| segments.get(self.segment + n));
                    if last.is_none_or(|(start, end)| start < end) {
                        return Some((child, self.segment + count));
                    }
                }
                Choice::Done => return None,
            }
        }
    }
}

/// Where each segment of a path begins and ends. `/` has one, which is empty.
fn segments(path: &str) -> Vec<(usize, usize)> {
    let mut start = 1;
    path[1..]
        .split('/')
        .map(|segment| {
            let range = (start, start + segment.len());
            start = range.1 + 1;
            range
        })
        .collect()
}
