//! Values from a path or a query: text to a field's type, and into the message at its place.

use prost_reflect::{DynamicMessage, FieldDescriptor, Kind, Value};

use super::{
    build::rival,
    number,
    well_known::{self, WellKnown},
};
use crate::{
    error::Error,
    route::template::decoded,
    schema::{FieldPath, dotted},
};

/// How often a field may be set.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Source {
    /// It is replaced.
    Once,
    /// It is a list, which grows.
    Again,
}

/// The value of a variable of the path (S1, S2, S6).
pub(super) fn variable(path: &FieldPath, raw: &str, multi: bool) -> Result<Value, Error> {
    let text = decoded(raw, multi).ok_or_else(|| Error::field(dotted(path), "must be UTF-8"))?;
    let kind = path.last().map(FieldDescriptor::kind);
    kind.map_or_else(|| Err("cannot be read".to_owned()), |kind| from_text(&kind, &text))
        .map_err(|problem| Error::field(dotted(path), problem))
}

/// A value from text, as a path or a query has it (S21 to S26).
///
/// # Errors
/// What would be right.
pub fn from_text(kind: &Kind, text: &str) -> Result<Value, String> {
    match kind {
        Kind::Bool => match text {
            "true" | "1" | "TRUE" => Ok(Value::Bool(true)),
            "false" | "0" | "FALSE" => Ok(Value::Bool(false)),
            _ => Err("must be true or false".to_owned()),
        },
        Kind::Enum(values) => {
            let number = text.starts_with(|c: char| c == '-' || c.is_ascii_digit());
            if number { number::numbered(values, text) } else { number::scalar(kind, text) }
        }
        Kind::Message(message) => match WellKnown::of(message) {
            Some(form @ (WellKnown::Timestamp | WellKnown::Duration | WellKnown::FieldMask)) => {
                well_known::from_text(form, message, text).map(Value::Message)
            }
            Some(WellKnown::Wrapper) => {
                let inner = message.get_field_by_name("value").map(|field| field.kind());
                let inner = inner.ok_or_else(|| "cannot be read".to_owned())?;
                let mut wrapper = DynamicMessage::new(message.clone());
                well_known::set(&mut wrapper, "value", from_text(&inner, text)?)?;
                Ok(Value::Message(wrapper))
            }
            Some(WellKnown::Any | WellKnown::Struct | WellKnown::Value | WellKnown::ListValue)
            | None => Err("is a message: name one of its fields, as in a.b=1".to_owned()),
        },
        Kind::Double
        | Kind::Float
        | Kind::Int32
        | Kind::Int64
        | Kind::Uint32
        | Kind::Uint64
        | Kind::Sint32
        | Kind::Sint64
        | Kind::Fixed32
        | Kind::Fixed64
        | Kind::Sfixed32
        | Kind::Sfixed64
        | Kind::String
        | Kind::Bytes => number::scalar(kind, text),
    }
}

/// Puts a value at its place, opening the messages on the way. A second member of a oneof is
/// refused, on the way too (S28).
pub(super) fn set(
    message: &mut DynamicMessage,
    path: &[FieldDescriptor],
    value: Value,
    source: Source,
) -> Result<(), Error> {
    let mut at = message;
    let mut walked = 0;
    for field in path {
        walked += 1;
        if let Some(other) = rival(at, field) {
            let problem = format!("may not be given together with {}", other.name());
            return Err(Error::conflict(dotted(path), problem));
        }
        if walked == path.len() {
            let held = at.get_field_mut(field);
            match (source, held) {
                (Source::Again, Value::List(values)) => values.push(value),
                (Source::Once | Source::Again, held) => *held = value,
            }
            return Ok(());
        }
        let Value::Message(next) = at.get_field_mut(field) else {
            return Err(Error::field(dotted(path), "passes through no message"));
        };
        at = next;
    }
    Ok(())
}
