//! What the compiler sees of a Rust file: text without comments, without strings, without tests.

/// A Rust file, line by line, in three readings of equal length.
#[derive(Clone, Debug)]
pub(super) struct Code {
    /// Comments blanked out.
    text: String,
    /// Comments and the insides of strings blanked out.
    bare: String,
    /// For each line, whether it belongs to `#[cfg(test)]`.
    tests: Vec<bool>,
}

/// A line that is compiled into the product.
#[derive(Clone, Copy, Debug)]
pub(super) struct Line<'a> {
    /// Counted from 1.
    pub(super) number: usize,
    pub(super) text: &'a str,
    pub(super) bare: &'a str,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Code,
    Comment,
    Text,
}

// === impl Code ===

impl Code {
    pub(super) fn of(source: &str) -> Self {
        let kinds = kinds(source.as_bytes());
        let blank =
            |keep: &dyn Fn(Kind) -> bool| -> String {
                source
                    .char_indices()
                    .map(|(at, c)| {
                        if c == '\n' || kinds.get(at).copied().is_some_and(keep) { c } else { ' ' }
                    })
                    .collect()
            };
        let text = blank(&|kind| kind != Kind::Comment);
        let bare = blank(&|kind| kind == Kind::Code);
        let tests = tests(&bare);
        Self { text, bare, tests }
    }

    /// The lines outside tests.
    pub(super) fn lines(&self) -> impl Iterator<Item = Line<'_>> {
        let all = self.text.lines().zip(self.bare.lines()).zip(&self.tests).enumerate();
        all.filter(|(_, (_, test))| !**test).map(|(index, ((text, bare), _))| Line {
            number: index + 1,
            text,
            bare,
        })
    }

    /// Calls of a macro outside tests: the line, and all that stands between its brackets.
    pub(super) fn macros(&self, name: &str) -> Vec<(usize, &str)> {
        let mut calls = Vec::new();
        for (start, _) in self.bare.match_indices(&format!("{name}!(")) {
            if self.bare.get(..start).is_some_and(|before| before.ends_with(is_word)) {
                continue;
            }
            let line = self.bare.get(..start).map_or(0, |before| before.matches('\n').count());
            if self.tests.get(line).copied().unwrap_or(false) {
                continue;
            }
            let open = start + name.len() + 1;
            let close = self.bare.get(open..).map_or(open, |rest| open + closing(rest));
            // Blanking keeps characters, not bytes: both readings are cut at the same character.
            let skip = self.bare.get(..open).map_or(0, |it| it.chars().count());
            let take = self.bare.get(open..close).map_or(0, |it| it.chars().count());
            let from = self.text.char_indices().nth(skip).map_or(self.text.len(), |(at, _)| at);
            let rest = self.text.get(from..).unwrap_or_default();
            let to = rest.char_indices().nth(take).map_or(rest.len(), |(at, _)| at);
            calls.push((line + 1, rest.get(..to).unwrap_or_default()));
        }
        calls
    }
}

/// Whether `word` stands in `line` by itself, not as a part of another word.
pub(super) fn mentions(line: &str, word: &str) -> bool {
    line.match_indices(word).any(|(at, _)| {
        let before = line.get(..at).is_some_and(|it| it.ends_with(is_word));
        let after = line.get(at + word.len()..).is_some_and(|it| it.starts_with(is_word));
        !before && !after
    })
}

fn is_word(c: char) -> bool {
    c.is_alphanumeric() || c == '_'
}

/// What each byte of a Rust file belongs to.
fn kinds(source: &[u8]) -> Vec<Kind> {
    let mut kinds = vec![Kind::Code; source.len()];
    let mut at = 0;
    while at < source.len() {
        let rest = source.get(at..).unwrap_or_default();
        let (kind, length) = token(rest, at.checked_sub(1).and_then(|it| source.get(it)).copied());
        for kind_of in kinds.iter_mut().skip(at).take(length) {
            *kind_of = kind;
        }
        at += length.max(1);
    }
    kinds
}

/// The first token of `rest`, as far as this file is concerned: its kind and length.
fn token(rest: &[u8], before: Option<u8>) -> (Kind, usize) {
    if rest.starts_with(b"//") {
        return (Kind::Comment, rest.iter().position(|byte| *byte == b'\n').unwrap_or(rest.len()));
    }
    if rest.starts_with(b"/*") {
        return (Kind::Comment, block(rest));
    }
    if rest.starts_with(b"\"") {
        return (Kind::Text, string(rest));
    }
    let in_word = before.is_some_and(|it| it.is_ascii_alphanumeric() || it == b'_');
    if !in_word && let Some(length) = raw(rest) {
        return (Kind::Text, length);
    }
    if rest.starts_with(b"'") {
        // `'a'` and `'\n'` are characters; `'a` alone is a lifetime.
        if rest.get(1) == Some(&b'\\') {
            let end =
                rest.iter().skip(3).position(|byte| *byte == b'\'').map_or(rest.len(), |it| it + 4);
            return (Kind::Text, end);
        }
        let width =
            std::str::from_utf8(rest.get(1..).unwrap_or_default().get(..4).unwrap_or_default())
                .ok()
                .and_then(|it| it.chars().next())
                .map_or(1, char::len_utf8);
        if rest.get(1 + width) == Some(&b'\'') {
            return (Kind::Text, width + 2);
        }
    }
    (Kind::Code, 1)
}

/// The length of a block comment, which may hold others.
fn block(rest: &[u8]) -> usize {
    let (mut depth, mut at) = (0_usize, 0);
    while at < rest.len() {
        match rest.get(at..at + 2) {
            Some(b"/*") => {
                depth += 1;
                at += 2;
            }
            Some(b"*/") => {
                depth -= 1;
                at += 2;
                if depth == 0 {
                    return at;
                }
            }
            _ => at += 1,
        }
    }
    rest.len()
}

/// The length of a string in quotes.
fn string(rest: &[u8]) -> usize {
    let mut at = 1;
    while let Some(byte) = rest.get(at) {
        match byte {
            b'\\' => at += 2,
            b'"' => return at + 1,
            _ => at += 1,
        }
    }
    rest.len()
}

/// The length of a raw string, if one begins here: `r"…"`, `r#"…"#`, `br"…"`.
fn raw(rest: &[u8]) -> Option<usize> {
    let prefix = if rest.starts_with(b"br") || rest.starts_with(b"cr") { 2 } else { 1 };
    if prefix == 1 && !rest.starts_with(b"r") {
        return None;
    }
    let hashes = rest.iter().skip(prefix).take_while(|byte| **byte == b'#').count();
    if rest.get(prefix + hashes) != Some(&b'"') {
        return None;
    }
    let mut end = vec![b'"'];
    end.extend(std::iter::repeat_n(b'#', hashes));
    let from = prefix + hashes + 1;
    let inside = rest.get(from..)?;
    let length = inside
        .windows(end.len())
        .position(|it| it == end)
        .map_or(inside.len(), |it| it + end.len());
    Some(from + length)
}

/// For each line, whether it belongs to an item under `#[cfg(test)]`.
fn tests(bare: &str) -> Vec<bool> {
    let mut tests = vec![false; bare.lines().count()];
    for marker in ["#[cfg(test)]", "#[cfg(all(test", "#[cfg(any(test"] {
        for (start, _) in bare.match_indices(marker) {
            let item = bare.get(start..).unwrap_or_default();
            let end = match (item.find('{'), item.find(';')) {
                (Some(brace), semicolon) if semicolon.is_none_or(|it| brace < it) => {
                    brace + item.get(brace..).map_or(0, closing)
                }
                (_, semicolon) => semicolon.unwrap_or(item.len()),
            };
            let first = bare.get(..start).map_or(0, |before| before.matches('\n').count());
            let lines = item.get(..end).map_or(0, |it| it.matches('\n').count());
            for line in tests.iter_mut().skip(first).take(lines + 1) {
                *line = true;
            }
        }
    }
    tests
}

/// Where the bracket that opens `text` is closed.
fn closing(text: &str) -> usize {
    let mut depth = 0_usize;
    for (at, c) in text.char_indices() {
        match c {
            '(' | '[' | '{' => depth += 1,
            ')' | ']' | '}' => {
                depth = depth.saturating_sub(1);
                if depth == 0 {
                    return at;
                }
            }
            _ => {}
        }
    }
    text.len()
}

#[cfg(test)]
mod tests {
    use super::*;

    const SOURCE: &str = "
use tokio; // sea_orm
/* tonic /* nested */ tonic */
fn f<'a>(c: char) { let s = \"proto // not a comment\"; let r = r#\"mesh \"quoted\" \"#; }
const Q: char = '\"'; const N: char = '\\''; const E: char = 'é';
#[cfg(test)]
mod tests {
    use tonic;
    fn g() { assert!(true) }
}
fn after() {}
";

    #[test]
    fn comments_strings_and_tests_are_not_code() {
        let code = Code::of(SOURCE);
        let bare: String = code.lines().map(|line| line.bare).collect();
        assert!(bare.contains("tokio") && bare.contains("after"));
        for word in ["sea_orm", "tonic", "proto", "mesh", "assert"] {
            assert!(!bare.contains(word), "{word} in {bare}");
        }
        let text: String = code.lines().map(|line| line.text).collect();
        assert!(text.contains("proto // not a comment") && !text.contains("sea_orm"));
        assert_eq!(code.lines().last().unwrap().number, 11);
    }

    #[test]
    fn the_arguments_of_a_macro_come_with_their_strings() {
        let code = Code::of(
            "fn f() {\n  let é = \"ü\"; let a = format!(\"SELECT {}\", g(1)); my_format!(2)\n}",
        );
        assert_eq!(code.macros("format"), [(2, "(\"SELECT {}\", g(1)")]);
    }

    #[test]
    fn a_word_is_not_found_inside_another() {
        assert!(mentions("use mesh::money", "mesh"));
        assert!(!mentions("ordermesh", "mesh"));
        assert!(!mentions("mesh_ready", "mesh"));
    }
}
