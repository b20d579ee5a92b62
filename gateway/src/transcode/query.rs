//! The query string becomes fields (S16 to S28).

use std::collections::{HashMap, HashSet};

use percent_encoding::percent_decode;
use prost_reflect::{DynamicMessage, FieldDescriptor, MessageDescriptor, Value};

use super::{
    bind::{self, Source, from_text},
    build::map_key,
    json_to_wire::merge,
    path::{brief, meant},
};
use crate::{
    error::Error,
    route::template::bad_escape,
    schema::{Binding, Body, FieldPath, dotted, field_named, value_at},
};

/// The most pairs that are read.
const PAIRS: usize = 1_000;
/// The most dots in a name.
const DEPTH: usize = 64;

/// Where a parameter leads.
struct Target {
    path: FieldPath,
    /// For a map: the text of the key.
    key: Option<String>,
}

/// Sets the fields that the query names.
///
/// # Errors
/// [`Error::Field`] and [`Error::Conflict`] by the parameter.
pub fn apply(
    message: &mut DynamicMessage,
    binding: &Binding,
    query: &str,
    ignored: &[String],
) -> Result<(), Error> {
    let mut seen = HashSet::new();
    let pairs = query.split('&').filter(|pair| !pair.is_empty());
    for (count, pair) in pairs.enumerate() {
        if count == PAIRS {
            return Err(Error::field("query", "has more than 1000 parameters"));
        }
        let (name, text) = pair.split_once('=').unwrap_or((pair, ""));
        let name = decoded(name).map_err(|problem| Error::field(brief(name), problem))?;
        let text = decoded(text).map_err(|problem| Error::field(brief(&name), problem))?;
        let target = match target(&binding.method.input, &name, &binding.body) {
            Ok(target) => target,
            // A parameter of the system, unless a field bears its name (S27).
            Err(_) if ignored.contains(&name) => continue,
            Err(problem) => return Err(Error::field(brief(&name), problem)),
        };
        put(message, binding, target, &text, &mut seen)?;
    }
    Ok(())
}

fn put(
    message: &mut DynamicMessage,
    binding: &Binding,
    Target { path, key }: Target,
    text: &str,
    seen: &mut HashSet<(Vec<u32>, Option<String>)>,
) -> Result<(), Error> {
    let Some(field) = path.last().cloned() else { return Ok(()) };
    if let Body::Field(body) = &binding.body
        && path.first() == Some(body)
        && !binding.variables.contains(&path)
    {
        return Err(Error::conflict(dotted(&path), "comes from the body"));
    }
    let repeats = field.is_list() && key.is_none();
    let place = (path.iter().map(FieldDescriptor::number).collect(), key.clone());
    let first = seen.insert(place);
    if let Some(key) = key {
        return entry(message, &path, &key, text);
    }
    if !repeats && !first {
        return Err(Error::conflict(dotted(&path), "is given twice"));
    }
    let value =
        from_text(&field.kind(), text).map_err(|problem| Error::field(dotted(&path), problem))?;
    if repeats {
        return bind::set(message, &path, value, Source::Again);
    }
    let said = binding.variables.contains(&path);
    merge(message, &path, value, said, "the query")
}

/// `m[k]=v` (S20).
fn entry(
    message: &mut DynamicMessage,
    path: &FieldPath,
    key: &str,
    text: &str,
) -> Result<(), Error> {
    let name = || format!("{}[{}]", dotted(path), brief(key));
    let wrong = |problem| Error::field(name(), problem);
    let Some(kind) = path.last().map(FieldDescriptor::kind) else { return Ok(()) };
    let Some(entry) = kind.as_message().filter(|entry| entry.is_map_entry()) else {
        return Err(wrong("is no map".to_owned()));
    };
    let key = map_key(&entry.map_entry_key_field().kind(), key).map_err(wrong)?;
    let value = from_text(&entry.map_entry_value_field().kind(), text).map_err(wrong)?;
    let mut map = match value_at(message, path) {
        Some(Value::Map(map)) => map,
        _ => HashMap::new(),
    };
    if map.insert(key, value).is_some() {
        return Err(Error::conflict(name(), "is given twice"));
    }
    bind::set(message, path, Value::Map(map), Source::Once)
}

/// The field that a parameter names, or what is wrong with the name.
fn target(input: &MessageDescriptor, name: &str, body: &Body) -> Result<Target, String> {
    if *body == Body::All {
        return Err(
            "is no parameter: this call takes everything from the path and the body".to_owned()
        );
    }
    let (names, key) = match name.strip_suffix(']').and_then(|name| name.split_once('[')) {
        Some((names, key)) => (names, Some(key.to_owned())),
        None => (name, None),
    };
    let mut path = FieldPath::new();
    let mut at = Some(input.clone());
    for (depth, step) in names.split('.').enumerate() {
        if depth == DEPTH {
            return Err("has more than 64 parts".to_owned());
        }
        let Some(message) = at else {
            return Err(format!("goes on after {}, which is no singular message", brief(names)));
        };
        let Some(field) = field_named(&message, step) else {
            return Err(unknown(&message, step));
        };
        at = field.kind().as_message().filter(|_| !field.is_list() && !field.is_map()).cloned();
        path.push(field);
    }
    let map = path.last().is_some_and(FieldDescriptor::is_map);
    match (map, &key) {
        (true, None) => Err("is a map: name a key, as in m[k]=v".to_owned()),
        (false, Some(_)) => Err("is no map; a list is given by repeating its name".to_owned()),
        (true, Some(_)) | (false, None) => Ok(Target { path, key }),
    }
}

fn unknown(message: &MessageDescriptor, name: &str) -> String {
    let fields: Vec<_> = message.fields().collect();
    match meant(name, fields.iter().map(FieldDescriptor::json_name)) {
        Some(meant) => format!("is no parameter of this call; did you mean {meant}?"),
        None => "is no parameter of this call".to_owned(),
    }
}

/// A name or a value: `+` is a space, every escape is decoded once.
fn decoded(raw: &str) -> Result<String, &'static str> {
    if bad_escape(raw.as_bytes()).is_some() {
        return Err("has a `%` that two hexadecimal digits do not follow");
    }
    let spaced = raw.replace('+', " ");
    percent_decode(spaced.as_bytes())
        .decode_utf8()
        .map(|text| text.into_owned())
        .map_err(|_error| "is not UTF-8")
}
