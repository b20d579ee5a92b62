//! The grammar of a path template (`google/api/http.proto`), and the two decodings of a path.

use percent_encoding::percent_decode;

/// A path template, taken apart.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Template {
    /// As it was written: the name of the route in logs and metrics.
    pub text: String,
    /// What stands between the slashes.
    pub segments: Vec<Segment>,
    /// What follows the last colon, normalised.
    pub verb: Option<String>,
    /// Which segments are whose value.
    pub variables: Vec<Variable>,
}

/// One segment of a template.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Segment {
    /// These bytes, normalised.
    Literal(String),
    /// `*`: any one segment that is not empty.
    One,
    /// `**`: any number of segments, none included.
    Many,
}

/// A field whose value is part of the path.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Variable {
    /// The names on the way to the field.
    pub path: Vec<String>,
    /// Its first segment.
    pub first: usize,
    /// One after its last segment.
    pub end: usize,
    /// Whether it can hold a slash: a property of the template, not of what matched (S3).
    pub multi: bool,
}

/// Why a template cannot be read.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{problem} at byte {at} of `{text}`")]
pub struct Malformed {
    problem: &'static str,
    at: usize,
    text: String,
}

struct Parser<'a> {
    text: &'a str,
    at: usize,
    segments: Vec<Segment>,
    variables: Vec<Variable>,
}

// === impl Template ===

impl Template {
    /// Reads a template.
    ///
    /// # Errors
    /// [`Malformed`] says where it breaks the grammar.
    pub fn parse(text: &str) -> Result<Self, Malformed> {
        let mut parser = Parser { text, at: 0, segments: Vec::new(), variables: Vec::new() };
        let verb = parser.template()?;
        let Parser { segments, variables, .. } = parser;
        Ok(Self { text: text.to_owned(), segments, verb, variables })
    }

    /// Whether `**` stands before another segment: legal, and worth a warning.
    #[must_use]
    pub fn is_unusual(&self) -> bool {
        self.segments.iter().rev().skip(1).any(|segment| *segment == Segment::Many)
    }
}

// === impl Parser ===

impl Parser<'_> {
    fn template(&mut self) -> Result<Option<String>, Malformed> {
        self.expect(b'/', "a template begins with `/`")?;
        if self.at == self.text.len() {
            self.segments.push(Segment::Literal(String::new()));
            return Ok(None);
        }
        self.segments(false)?;
        let mut verb = None;
        if self.eat(b':') {
            let word = self.literal(b"")?;
            if word.is_empty() {
                return Err(self.malformed("a verb is missing"));
            }
            verb = Some(word);
        }
        if self.at < self.text.len() {
            return Err(self.malformed("nothing may follow here"));
        }
        Ok(verb)
    }

    fn segments(&mut self, in_variable: bool) -> Result<(), Malformed> {
        loop {
            self.segment(in_variable)?;
            if !self.eat(b'/') {
                return Ok(());
            }
        }
    }

    fn segment(&mut self, in_variable: bool) -> Result<(), Malformed> {
        let rest = self.rest();
        if rest.starts_with("**") {
            self.at += 2;
            self.segments.push(Segment::Many);
        } else if rest.starts_with('*') {
            self.at += 1;
            self.segments.push(Segment::One);
        } else if rest.starts_with('{') {
            if in_variable {
                return Err(self.malformed("a variable stands in no variable"));
            }
            self.variable()?;
        } else {
            let word = self.literal(if in_variable { b":}" } else { b":" })?;
            if word.is_empty() {
                return Err(self.malformed("a segment is empty"));
            }
            self.segments.push(Segment::Literal(word));
        }
        Ok(())
    }

    fn variable(&mut self) -> Result<(), Malformed> {
        self.expect(b'{', "a variable begins with `{`")?;
        let end = self.rest().find(['=', '}']).ok_or_else(|| self.malformed("`}` is missing"))?;
        let path: Vec<String> = self.rest()[..end].split('.').map(str::to_owned).collect();
        if !path.iter().all(|name| is_identifier(name)) {
            return Err(self.malformed("a variable is named by the path of a field"));
        }
        self.at += end;
        let first = self.segments.len();
        if self.eat(b'=') {
            self.segments(true)?;
        } else {
            self.segments.push(Segment::One);
        }
        self.expect(b'}', "`}` is missing")?;
        let end = self.segments.len();
        let multi = end - first > 1 || self.segments[first..].contains(&Segment::Many);
        if self.variables.iter().any(|other| other.path == path) {
            return Err(self.malformed("a variable stands here twice"));
        }
        self.variables.push(Variable { path, first, end, multi });
        Ok(())
    }

    fn literal(&mut self, stop: &[u8]) -> Result<String, Malformed> {
        let rest = self.rest();
        let end = rest
            .bytes()
            .position(|byte| byte == b'/' || stop.contains(&byte))
            .unwrap_or(rest.len());
        let word = &rest[..end];
        if word.bytes().any(|byte| matches!(byte, b'{' | b'}' | b'*' | b'?' | b'#')) {
            return Err(self.malformed("a character that a literal cannot have"));
        }
        let word = normalized(word.as_bytes())
            .ok_or_else(|| self.malformed("`%` needs two hexadecimal digits"))?;
        self.at += end;
        Ok(word)
    }

    fn rest(&self) -> &str {
        &self.text[self.at..]
    }

    fn eat(&mut self, byte: u8) -> bool {
        let found = self.text.as_bytes().get(self.at) == Some(&byte);
        self.at += usize::from(found);
        found
    }

    fn expect(&mut self, byte: u8, problem: &'static str) -> Result<(), Malformed> {
        if self.eat(byte) { Ok(()) } else { Err(self.malformed(problem)) }
    }

    fn malformed(&self, problem: &'static str) -> Malformed {
        Malformed { problem, at: self.at, text: self.text.to_owned() }
    }
}

/// Where an escape is malformed, if one is (S5).
#[must_use]
pub fn bad_escape(raw: &[u8]) -> Option<usize> {
    let mut at = 0;
    while let Some(found) = raw[at..].iter().position(|byte| *byte == b'%') {
        at += found;
        let digits = raw.get(at + 1..at + 3);
        if !digits.is_some_and(|digits| digits.iter().all(u8::is_ascii_hexdigit)) {
            return Some(at);
        }
        at += 3;
    }
    None
}

/// A segment with escapes of unreserved characters taken out and all others in upper case: two
/// spellings of one segment are equal then (S4). `None` if an escape is malformed.
#[must_use]
pub fn normalized(raw: &[u8]) -> Option<String> {
    let mut text = Vec::with_capacity(raw.len());
    let mut rest = raw;
    while let Some((&byte, after)) = rest.split_first() {
        if byte != b'%' {
            text.push(byte);
            rest = after;
            continue;
        }
        let (high, low) = (hex(*after.first()?)?, hex(*after.get(1)?)?);
        let value = high << 4 | low;
        if value.is_ascii_alphanumeric() || matches!(value, b'-' | b'.' | b'_' | b'~') {
            text.push(value);
        } else {
            text.extend([b'%', after[0].to_ascii_uppercase(), after[1].to_ascii_uppercase()]);
        }
        rest = &after[2..];
    }
    String::from_utf8(text).ok()
}

/// The value of a variable: every escape decoded exactly once (S1), but of a variable that can
/// hold several segments `%2F` stays as it was sent (S2). `None` if it is not UTF-8 (S6).
#[must_use]
pub fn decoded(raw: &str, multi: bool) -> Option<String> {
    if !raw.contains('%') {
        return Some(raw.to_owned());
    }
    if !multi {
        return String::from_utf8(percent_decode(raw.as_bytes()).collect()).ok();
    }
    let mut bytes = Vec::with_capacity(raw.len());
    let mut rest = raw;
    while let Some(at) = slash(rest) {
        bytes.extend(percent_decode(&rest.as_bytes()[..at]));
        bytes.extend_from_slice(&rest.as_bytes()[at..at + 3]);
        rest = &rest[at + 3..];
    }
    bytes.extend(percent_decode(rest.as_bytes()));
    String::from_utf8(bytes).ok()
}

/// Where the next `%2F` begins.
fn slash(raw: &str) -> Option<usize> {
    raw.as_bytes().windows(3).position(|three| matches!(three, b"%2F" | b"%2f"))
}

fn hex(digit: u8) -> Option<u8> {
    char::from(digit).to_digit(16).and_then(|value| u8::try_from(value).ok())
}

fn is_identifier(name: &str) -> bool {
    name.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_')
        && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_')
}
