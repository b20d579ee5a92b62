//! Scalars from text: integers without passing through a float, floats in their own range.

use prost_reflect::{EnumDescriptor, Kind, Syntax, Value};

use super::{base64, scan::is_number};

/// A scalar, an enum value or bytes from the text of a JSON string, a path or a query. `bool`
/// is not among them: a JSON string is none.
///
/// # Errors
/// What would be right.
pub fn scalar(kind: &Kind, text: &str) -> Result<Value, String> {
    match kind {
        Kind::Int32 | Kind::Sint32 | Kind::Sfixed32 => {
            ranged(text, "a 32-bit integer").map(Value::I32)
        }
        Kind::Int64 | Kind::Sint64 | Kind::Sfixed64 => {
            ranged(text, "a 64-bit integer").map(Value::I64)
        }
        Kind::Uint32 | Kind::Fixed32 => ranged(text, "an unsigned 32-bit integer").map(Value::U32),
        Kind::Uint64 | Kind::Fixed64 => ranged(text, "an unsigned 64-bit integer").map(Value::U64),
        Kind::Float => float(text, f32::is_infinite).map(Value::F32),
        Kind::Double => float(text, f64::is_infinite).map(Value::F64),
        Kind::String => Ok(Value::String(text.to_owned())),
        Kind::Bytes => base64::decoded(text)
            .map(|bytes| Value::Bytes(bytes.into()))
            .ok_or_else(|| "must be base64".to_owned()),
        Kind::Enum(descriptor) => named(descriptor, text),
        Kind::Bool => Err("must be true or false".to_owned()),
        Kind::Message(_) => Err("must be an object".to_owned()),
    }
}

/// An enum value by its number (S21): unknown ones are kept where the enum is open.
///
/// # Errors
/// What would be right.
pub fn numbered(descriptor: &EnumDescriptor, text: &str) -> Result<Value, String> {
    let number: i32 = ranged(text, "the name or the number of a value")?;
    let closed = descriptor.parent_file().syntax() == Syntax::Proto2;
    if closed && descriptor.get_value(number).is_none() {
        return Err(format!("{number} is no value of {}", descriptor.full_name()));
    }
    Ok(Value::EnumNumber(number))
}

/// An enum value by its name.
fn named(descriptor: &EnumDescriptor, name: &str) -> Result<Value, String> {
    match descriptor.get_value_by_name(name) {
        Some(value) => Ok(Value::EnumNumber(value.number())),
        None => {
            let values: Vec<_> = descriptor.values().collect();
            let meant = super::path::meant(name, values.iter().map(|value| value.name()));
            Err(match meant {
                Some(meant) => format!("is no value of this enum; did you mean {meant}?"),
                None => format!("must be a value of {}", descriptor.full_name()),
            })
        }
    }
}

fn ranged<T: TryFrom<i128>>(text: &str, what: &str) -> Result<T, String> {
    integer(text).and_then(|value| T::try_from(value).ok()).ok_or_else(|| format!("must be {what}"))
}

/// S29: exact, in every spelling that JSON has for a whole number: `1.0`, `1e2`, `-0`. A
/// million digits cost one pass.
#[must_use]
pub fn integer(text: &str) -> Option<i128> {
    if !is_number(text) {
        return None;
    }
    let (negative, rest) = text.strip_prefix('-').map_or((false, text), |rest| (true, rest));
    let (mantissa, exponent) = rest.split_once(['e', 'E']).unwrap_or((rest, "0"));
    let (whole, fraction) = mantissa.split_once('.').unwrap_or((mantissa, ""));
    let digits = || whole.bytes().chain(fraction.bytes());
    let leading = digits().take_while(|digit| *digit == b'0').count();
    let count = whole.len() + fraction.len();
    if leading == count {
        return Some(0);
    }
    let trailing = digits().rev().take_while(|digit| *digit == b'0').count();
    let significant = count - leading - trailing;
    let scale = exponent_of(exponent)
        .checked_sub(i64::try_from(fraction.len()).ok()?)?
        .checked_add(i64::try_from(trailing).ok()?)?;
    // No field holds more than 20 digits; i128 holds 38.
    let scale = u32::try_from(scale).ok().filter(|scale| *scale <= 20)?;
    if significant > 20 {
        return None;
    }
    let value = digits()
        .skip(leading)
        .take(significant)
        .fold(0_i128, |sum, digit| sum * 10 + i128::from(digit - b'0'));
    let value = value.checked_mul(10_i128.pow(scale))?;
    Some(if negative { -value } else { value })
}

/// An exponent; one beyond a billion is a billion.
fn exponent_of(text: &str) -> i64 {
    let (negative, digits) = match text.as_bytes().first() {
        Some(b'-') => (true, &text[1..]),
        Some(b'+') => (false, &text[1..]),
        Some(_) | None => (false, text),
    };
    let value = digits
        .bytes()
        .fold(0, |sum: i64, digit| (sum * 10 + i64::from(digit - b'0')).min(1_000_000_000));
    if negative { -value } else { value }
}

/// S24: `NaN` and the infinities in exactly this spelling; what overflows is no number.
fn float<T: std::str::FromStr + Copy>(text: &str, infinite: fn(T) -> bool) -> Result<T, String> {
    let wrong = || "must be a number in range, NaN, Infinity or -Infinity".to_owned();
    if matches!(text, "NaN" | "Infinity" | "-Infinity") {
        return text.parse().map_err(|_error| wrong());
    }
    let value: T = is_number(text).then(|| text.parse().ok()).flatten().ok_or_else(wrong)?;
    if infinite(value) { Err(wrong()) } else { Ok(value) }
}
