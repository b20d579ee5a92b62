//! Values as an export has them: whole numbers come as numbers or as text, ids with and without
//! the name of their collection.

use serde::{Deserialize, Deserializer, de::Error};
use serde_json::Value;

/// A whole number.
pub(super) fn int<'de, D: Deserializer<'de>>(deserializer: D) -> Result<i64, D::Error> {
    let value = Value::deserialize(deserializer)?;
    whole(&value).ok_or_else(|| D::Error::custom(format!("{value} is not a whole number")))
}

/// A whole number, or nothing.
pub(super) fn maybe_int<'de, D: Deserializer<'de>>(
    deserializer: D,
) -> Result<Option<i64>, D::Error> {
    match Value::deserialize(deserializer)? {
        Value::Null => Ok(None),
        value @ (Value::Bool(_)
        | Value::Number(_)
        | Value::String(_)
        | Value::Array(_)
        | Value::Object(_)) => whole(&value)
            .map(Some)
            .ok_or_else(|| D::Error::custom(format!("{value} is not a whole number"))),
    }
}

/// Text; nothing is empty text.
pub(super) fn text<'de, D: Deserializer<'de>>(deserializer: D) -> Result<String, D::Error> {
    match Value::deserialize(deserializer)? {
        Value::Null => Ok(String::new()),
        Value::String(text) => Ok(text),
        value @ (Value::Bool(_) | Value::Number(_)) => Ok(spelled(&value)),
        value @ (Value::Array(_) | Value::Object(_)) => {
            Err(D::Error::custom(format!("{value} is not text")))
        }
    }
}

/// An id without its collection: `orders/7` and `7` are both `7`.
pub(super) fn id<'de, D: Deserializer<'de>>(deserializer: D) -> Result<String, D::Error> {
    text(deserializer).map(|name| bare(&name).to_owned())
}

/// A mail's name without its brackets.
pub(super) fn mail_name<'de, D: Deserializer<'de>>(deserializer: D) -> Result<String, D::Error> {
    let name = text(deserializer)?;
    Ok(name.trim_start_matches('<').trim_end_matches('>').to_owned())
}

/// What is behind the last slash.
#[must_use]
pub fn bare(name: &str) -> &str {
    name.rsplit_once('/').map_or(name, |(_, id)| id)
}

fn whole(value: &Value) -> Option<i64> {
    match value {
        Value::Number(number) => number.as_i64().or_else(|| {
            let float = number.as_f64().filter(|float| float.fract() == 0.0)?;
            format!("{float:.0}").parse().ok()
        }),
        Value::String(text) => text.parse().ok(),
        Value::Bool(flag) => Some(i64::from(*flag)),
        Value::Null | Value::Array(_) | Value::Object(_) => None,
    }
}

/// A number of an export is a double: a whole one is spelled without its fraction.
fn spelled(value: &Value) -> String {
    whole(value).map_or_else(|| value.to_string(), |whole| whole.to_string())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_whole_number_is_read_as_number_double_text_and_flag() {
        for (value, expected) in [
            (json!(7), Some(7)),
            (json!(7.0), Some(7)),
            (json!(1_732_000_000_000_000.0), Some(1_732_000_000_000_000)),
            (json!("9007199254740993"), Some(9_007_199_254_740_993)),
            (json!(true), Some(1)),
            (json!(7.5), None),
            (json!("x"), None),
            (json!(null), None),
        ] {
            assert_eq!(whole(&value), expected, "{value}");
        }
    }

    #[test]
    fn an_id_is_the_same_with_and_without_its_collection() {
        assert_eq!((bare("orders/7"), bare("7"), bare("")), ("7", "7", ""));
    }
}
