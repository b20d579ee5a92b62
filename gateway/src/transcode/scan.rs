//! Strict JSON (RFC 8259) into a tree whose nodes know where they stand: no duplicate keys, no
//! lone surrogates, nothing before or after the value, and never deeper than [`DEPTH`].

use std::borrow::Cow;

use super::path::{Path, Step};
use crate::error::Error;

/// The deepest nesting of arrays and objects.
pub const DEPTH: usize = 100;

/// A value and the byte where it begins.
#[derive(Clone, Debug, PartialEq)]
pub struct Node<'a> {
    /// Where it begins in the body.
    pub at: usize,
    /// What it is.
    pub json: Json<'a>,
}

/// A JSON value. A number is kept as it was written.
#[derive(Clone, Debug, PartialEq)]
pub enum Json<'a> {
    /// `null`
    Null,
    /// `true` or `false`
    Bool(bool),
    /// The text of a number, which follows the grammar.
    Number(&'a str),
    /// A string without its escapes.
    String(Cow<'a, str>),
    /// The elements.
    Array(Vec<Node<'a>>),
    /// The members, no key twice.
    Object(Vec<Member<'a>>),
}

/// A member of an object.
#[derive(Clone, Debug, PartialEq)]
pub struct Member<'a> {
    /// Its key, without escapes.
    pub key: Cow<'a, str>,
    /// Where the key begins.
    pub at: usize,
    /// Its value.
    pub node: Node<'a>,
}

struct Scanner<'a> {
    text: &'a str,
    at: usize,
    path: Path,
    depth: usize,
}

/// Reads a body. `None` if it is empty or white space only (S33).
///
/// # Errors
/// [`Error::MalformedJson`] with the byte and the field where reading stopped.
pub fn parse(body: &[u8]) -> Result<Option<Node<'_>>, Error> {
    let text = std::str::from_utf8(body).map_err(|error| Error::MalformedJson {
        at: error.valid_up_to(),
        field: String::new(),
        problem: "the body is not UTF-8",
    })?;
    let mut scanner = Scanner { text, at: 0, path: Path::default(), depth: 0 };
    scanner.space();
    if scanner.at == text.len() {
        return Ok(None);
    }
    let node = scanner.value()?;
    scanner.space();
    if scanner.at < text.len() {
        return Err(scanner.broken("nothing may follow the value"));
    }
    Ok(Some(node))
}

/// Whether `text` is a number by the grammar of JSON, to its last byte.
#[must_use]
pub fn is_number(text: &str) -> bool {
    number_end(text.as_bytes()) == Ok(text.len())
}

// === impl Scanner ===

impl<'a> Scanner<'a> {
    fn value(&mut self) -> Result<Node<'a>, Error> {
        let at = self.at;
        let json = match self.peek() {
            Some(b'{') => self.nested(Self::object)?,
            Some(b'[') => self.nested(Self::array)?,
            Some(b'"') => Json::String(self.string()?),
            Some(b'-' | b'0'..=b'9') => self.number()?,
            Some(_) => self.word()?,
            None => return Err(self.broken("a value is missing")),
        };
        Ok(Node { at, json })
    }

    fn nested(
        &mut self,
        read: fn(&mut Self) -> Result<Json<'a>, Error>,
    ) -> Result<Json<'a>, Error> {
        if self.depth == DEPTH {
            return Err(self.broken("arrays and objects are nested more than 100 deep"));
        }
        self.depth += 1;
        self.at += 1;
        self.space();
        let json = read(self)?;
        self.depth -= 1;
        Ok(json)
    }

    fn object(&mut self) -> Result<Json<'a>, Error> {
        let mut members = Vec::new();
        if self.eat(b'}') {
            return Ok(Json::Object(members));
        }
        loop {
            let at = self.at;
            if self.peek() != Some(b'"') {
                return Err(self.broken("a key in double quotes is expected here"));
            }
            let key = self.string()?;
            self.space();
            if !self.eat(b':') {
                return Err(self.broken("`:` is expected here"));
            }
            self.space();
            self.path.push(Step::Key(key.to_string()));
            let node = self.value()?;
            self.path.pop();
            members.push(Member { key, at, node });
            self.space();
            if self.eat(b',') {
                self.space();
            } else if self.eat(b'}') {
                break;
            } else {
                return Err(self.broken("`,` or `}` is expected here"));
            }
        }
        self.unique(&members)?;
        Ok(Json::Object(members))
    }

    fn array(&mut self) -> Result<Json<'a>, Error> {
        let mut elements = Vec::new();
        if self.eat(b']') {
            return Ok(Json::Array(elements));
        }
        loop {
            self.path.push(Step::Index(elements.len()));
            elements.push(self.value()?);
            self.path.pop();
            self.space();
            if self.eat(b',') {
                self.space();
            } else if self.eat(b']') {
                return Ok(Json::Array(elements));
            } else {
                return Err(self.broken("`,` or `]` is expected here"));
            }
        }
    }

    /// S31. Sorting has no worst case that a sender could choose, as hashing has.
    fn unique(&mut self, members: &[Member<'a>]) -> Result<(), Error> {
        if members.len() < 2 {
            return Ok(());
        }
        let mut order: Vec<usize> = (0..members.len()).collect();
        order.sort_by(|a, b| members[*a].key.cmp(&members[*b].key));
        let twice = order.windows(2).find(|pair| members[pair[0]].key == members[pair[1]].key);
        let Some(twice) = twice else { return Ok(()) };
        let second = &members[twice[1]];
        self.at = second.at;
        self.path.push(Step::Key(second.key.to_string()));
        Err(self.broken("the key stands here twice"))
    }

    fn word(&mut self) -> Result<Json<'a>, Error> {
        for (word, json) in
            [("null", Json::Null), ("true", Json::Bool(true)), ("false", Json::Bool(false))]
        {
            if self.text[self.at..].starts_with(word) {
                self.at += word.len();
                return Ok(json);
            }
        }
        Err(self.broken("this begins no JSON value"))
    }

    fn number(&mut self) -> Result<Json<'a>, Error> {
        let rest = &self.text[self.at..];
        match number_end(rest.as_bytes()) {
            Ok(end) => {
                self.at += end;
                Ok(Json::Number(&rest[..end]))
            }
            Err(at) => {
                self.at += at;
                Err(self.broken("a digit is expected here"))
            }
        }
    }

    fn string(&mut self) -> Result<Cow<'a, str>, Error> {
        self.at += 1;
        let start = self.at;
        self.run();
        if self.eat(b'"') {
            return Ok(Cow::Borrowed(&self.text[start..self.at - 1]));
        }
        let mut owned = self.text[start..self.at].to_owned();
        loop {
            match self.peek() {
                Some(b'"') => {
                    self.at += 1;
                    return Ok(Cow::Owned(owned));
                }
                Some(b'\\') => {
                    self.at += 1;
                    owned.push(self.escape()?);
                }
                Some(_) => {
                    return Err(self.broken("a control character in a string must be escaped"));
                }
                None => return Err(self.broken("the string has no end")),
            }
            let from = self.at;
            self.run();
            owned.push_str(&self.text[from..self.at]);
        }
    }

    /// Passes over characters that stand for themselves.
    fn run(&mut self) {
        let rest = &self.text.as_bytes()[self.at..];
        let stop = rest.iter().position(|byte| matches!(byte, b'"' | b'\\' | 0..=0x1f));
        self.at += stop.unwrap_or(rest.len());
    }

    fn escape(&mut self) -> Result<char, Error> {
        let letter = self.peek();
        self.at += usize::from(letter.is_some_and(|byte| byte.is_ascii()));
        let unescaped = match letter {
            Some(same @ (b'"' | b'\\' | b'/')) => char::from(same),
            Some(b'b') => '\u{8}',
            Some(b'f') => '\u{c}',
            Some(b'n') => '\n',
            Some(b'r') => '\r',
            Some(b't') => '\t',
            Some(b'u') => return self.unicode(),
            Some(_) | None => return Err(self.broken("this is no escape of JSON")),
        };
        Ok(unescaped)
    }

    /// S36: pairs of surrogates are joined, a lone one stands for nothing.
    fn unicode(&mut self) -> Result<char, Error> {
        let first = self.four()?;
        let code = match first {
            0xd800..=0xdbff if self.text[self.at..].starts_with("\\u") => {
                self.at += 2;
                let second = self.four()?;
                if !(0xdc00..=0xdfff).contains(&second) {
                    return Err(self.broken("half of a surrogate pair is missing"));
                }
                0x1_0000 + ((first - 0xd800) << 10) + (second - 0xdc00)
            }
            _ => first,
        };
        char::from_u32(code).ok_or_else(|| self.broken("half of a surrogate pair is missing"))
    }

    fn four(&mut self) -> Result<u32, Error> {
        let digits = self.text.as_bytes().get(self.at..self.at + 4);
        let value = digits.and_then(|digits| {
            digits
                .iter()
                .try_fold(0, |sum, digit| Some(sum << 4 | char::from(*digit).to_digit(16)?))
        });
        let value = value.ok_or_else(|| self.broken("`\\u` needs four hexadecimal digits"))?;
        self.at += 4;
        Ok(value)
    }

    fn space(&mut self) {
        let rest = &self.text.as_bytes()[self.at..];
        let stop = rest.iter().position(|byte| !matches!(byte, b' ' | b'\t' | b'\n' | b'\r'));
        self.at += stop.unwrap_or(rest.len());
    }

    fn peek(&self) -> Option<u8> {
        self.text.as_bytes().get(self.at).copied()
    }

    fn eat(&mut self, byte: u8) -> bool {
        let found = self.peek() == Some(byte);
        self.at += usize::from(found);
        found
    }

    fn broken(&self, problem: &'static str) -> Error {
        Error::MalformedJson { at: self.at, field: self.path.to_string(), problem }
    }
}

/// Where a number ends, or where it breaks the grammar.
fn number_end(text: &[u8]) -> Result<usize, usize> {
    let digits = |from: usize| {
        let rest = text.get(from..).unwrap_or_default();
        let count = rest.iter().position(|byte| !byte.is_ascii_digit()).unwrap_or(rest.len());
        if count == 0 { Err(from) } else { Ok(from + count) }
    };
    let mut at = usize::from(text.first() == Some(&b'-'));
    let whole = digits(at)?;
    if text[at] == b'0' && whole > at + 1 {
        return Err(at + 1);
    }
    at = whole;
    if text.get(at) == Some(&b'.') {
        at = digits(at + 1)?;
    }
    if matches!(text.get(at), Some(b'e' | b'E')) {
        let sign = usize::from(matches!(text.get(at + 1), Some(b'+' | b'-')));
        at = digits(at + 1 + sign)?;
    }
    Ok(at)
}
