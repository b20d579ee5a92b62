//! Rows as they travel, as JSON.

use prost_types::{Struct, value::Kind};
use serde_json::{Map, Number, Value};

/// The row by the names of its columns.
pub(super) fn object(row: Struct) -> Map<String, Value> {
    row.fields.into_iter().map(|(name, field)| (name, value(field))).collect()
}

fn value(field: prost_types::Value) -> Value {
    match field.kind {
        Some(Kind::NumberValue(number)) => {
            Number::from_f64(number).map_or(Value::Null, Value::Number)
        }
        Some(Kind::StringValue(text)) => Value::String(text),
        Some(Kind::BoolValue(flag)) => Value::Bool(flag),
        Some(Kind::StructValue(row)) => Value::Object(object(row)),
        Some(Kind::ListValue(list)) => Value::Array(list.values.into_iter().map(value).collect()),
        Some(Kind::NullValue(_)) | None => Value::Null,
    }
}
