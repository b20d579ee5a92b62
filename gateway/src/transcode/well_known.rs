//! The messages that JSON writes in a form of their own (S26, S28, S35): which they are, and
//! the texts of times, durations and field masks.

use prost_reflect::{DynamicMessage, Kind, MessageDescriptor, ReflectMessage as _, Value};

/// A message with a JSON form of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WellKnown {
    /// `google.protobuf.Any`
    Any,
    /// `google.protobuf.Timestamp`
    Timestamp,
    /// `google.protobuf.Duration`
    Duration,
    /// `google.protobuf.FieldMask`
    FieldMask,
    /// `google.protobuf.Struct`
    Struct,
    /// `google.protobuf.Value`
    Value,
    /// `google.protobuf.ListValue`
    ListValue,
    /// `google.protobuf.BoolValue` and its like: a scalar that may be absent.
    Wrapper,
}

/// The first and the last second that a timestamp may name: the years 1 to 9999.
const SECONDS: std::ops::RangeInclusive<i64> = -62_135_596_800..=253_402_300_799;
/// The longest duration, in seconds.
const LONGEST: i64 = 315_576_000_000;
const DAY: i64 = 86_400;

// === impl WellKnown ===

impl WellKnown {
    /// Whether this message has a form of its own.
    #[must_use]
    pub fn of(message: &MessageDescriptor) -> Option<Self> {
        let name = message.full_name().strip_prefix("google.protobuf.")?;
        match name {
            "Any" => Some(Self::Any),
            "Timestamp" => Some(Self::Timestamp),
            "Duration" => Some(Self::Duration),
            "FieldMask" => Some(Self::FieldMask),
            "Struct" => Some(Self::Struct),
            "Value" => Some(Self::Value),
            "ListValue" => Some(Self::ListValue),
            "BoolValue" | "Int32Value" | "Int64Value" | "UInt32Value" | "UInt64Value"
            | "FloatValue" | "DoubleValue" | "StringValue" | "BytesValue" => Some(Self::Wrapper),
            _ => None,
        }
    }
}

/// Whether `null` is a value for this kind, and not the absence of one.
#[must_use]
pub fn takes_null(kind: &Kind) -> bool {
    kind.as_message().is_some_and(|message| WellKnown::of(message) == Some(WellKnown::Value))
        || kind.as_enum().is_some_and(|values| values.full_name() == "google.protobuf.NullValue")
}

/// A time, a duration or a field mask from its text.
///
/// # Errors
/// What would be right.
pub fn from_text(
    form: WellKnown,
    message: &MessageDescriptor,
    text: &str,
) -> Result<DynamicMessage, String> {
    let mut value = DynamicMessage::new(message.clone());
    match form {
        WellKnown::Timestamp => {
            let (seconds, nanos) = timestamp(text).ok_or_else(|| {
                "must be an RFC 3339 time such as 2024-02-29T12:00:00Z".to_owned()
            })?;
            set(&mut value, "seconds", Value::I64(seconds))?;
            set(&mut value, "nanos", Value::I32(nanos))?;
        }
        WellKnown::Duration => {
            let (seconds, nanos) = duration(text)
                .ok_or_else(|| "must be a duration in seconds such as 1.5s".to_owned())?;
            set(&mut value, "seconds", Value::I64(seconds))?;
            set(&mut value, "nanos", Value::I32(nanos))?;
        }
        WellKnown::FieldMask => {
            let paths = mask(text).ok_or_else(|| {
                "must be a list of field paths in camelCase, split by commas".to_owned()
            })?;
            let paths = paths.into_iter().map(Value::String).collect();
            set(&mut value, "paths", Value::List(paths))?;
        }
        WellKnown::Any
        | WellKnown::Struct
        | WellKnown::Value
        | WellKnown::ListValue
        | WellKnown::Wrapper => return Err("has no form as a string".to_owned()),
    }
    Ok(value)
}

/// Sets a field of a well-known message; one that lacks it comes from descriptors that only
/// bear the name.
///
/// # Errors
/// A sentence that says so.
pub fn set(message: &mut DynamicMessage, name: &str, value: Value) -> Result<(), String> {
    message
        .try_set_field_by_name(name, value)
        .map_err(|_error| format!("{} is not the well-known one", message.descriptor().full_name()))
}

/// Seconds and nanoseconds of an RFC 3339 time: upper-case `T` and `Z`, any offset, at most
/// nine digits of a fraction.
#[must_use]
pub fn timestamp(text: &str) -> Option<(i64, i32)> {
    let bytes = text.as_bytes();
    let separators = [(4, b'-'), (7, b'-'), (10, b'T'), (13, b':'), (16, b':')];
    if !text.is_ascii() || separators.iter().any(|(at, byte)| bytes.get(*at) != Some(byte)) {
        return None;
    }
    let number = |from, to| digits(text.get(from..to)?);
    let (year, month, day) = (number(0, 4)?, number(5, 7)?, number(8, 10)?);
    let (hour, minute, second) = (number(11, 13)?, number(14, 16)?, number(17, 19)?);
    if year == 0 || !(1..=12).contains(&month) || day == 0 || day > days_in(year, month) {
        return None;
    }
    if hour > 23 || minute > 59 || second > 59 {
        return None;
    }
    let (fraction, zone) = match text[19..].strip_prefix('.') {
        Some(rest) => rest.split_at(rest.find(|c: char| !c.is_ascii_digit())?),
        None => ("0", &text[19..]),
    };
    let nanos = nanos(fraction)?;
    let offset = match zone.as_bytes() {
        [b'Z'] => 0,
        [sign @ (b'+' | b'-'), _, _, b':', _, _] => {
            let (hours, minutes) = (digits(&zone[1..3])?, digits(&zone[4..6])?);
            if hours > 23 || minutes > 59 {
                return None;
            }
            let offset = hours * 3_600 + minutes * 60;
            if *sign == b'-' { -offset } else { offset }
        }
        _ => return None,
    };
    let seconds =
        days_from_civil(year, month, day) * DAY + hour * 3_600 + minute * 60 + second - offset;
    SECONDS.contains(&seconds).then_some((seconds, nanos))
}

/// A timestamp as text, `None` if it is out of range.
#[must_use]
pub fn timestamp_text(seconds: i64, nanos: i32) -> Option<String> {
    if !SECONDS.contains(&seconds) || !(0..1_000_000_000).contains(&nanos) {
        return None;
    }
    let (year, month, day) = civil_from_days(seconds.div_euclid(DAY));
    let rest = seconds.rem_euclid(DAY);
    let (hour, minute, second) = (rest / 3_600, rest / 60 % 60, rest % 60);
    let fraction = fraction_text(nanos.unsigned_abs());
    Some(format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}{fraction}Z"))
}

/// Seconds and nanoseconds of `[-]s[.n]s`.
#[must_use]
pub fn duration(text: &str) -> Option<(i64, i32)> {
    let text = text.strip_suffix('s')?;
    let (negative, text) = text.strip_prefix('-').map_or((false, text), |rest| (true, rest));
    let (whole, fraction) = text.split_once('.').unwrap_or((text, "0"));
    let (seconds, nanos) = (digits(whole)?, nanos(fraction)?);
    if seconds > LONGEST || (seconds == LONGEST && nanos > 0) {
        return None;
    }
    Some(if negative { (-seconds, -nanos) } else { (seconds, nanos) })
}

/// A duration as text, `None` if it is out of range or its signs differ.
#[must_use]
pub fn duration_text(seconds: i64, nanos: i32) -> Option<String> {
    let mixed = (seconds > 0 && nanos < 0) || (seconds < 0 && nanos > 0);
    if mixed || !(-LONGEST..=LONGEST).contains(&seconds) || nanos.unsigned_abs() >= 1_000_000_000 {
        return None;
    }
    let sign = if seconds < 0 || nanos < 0 { "-" } else { "" };
    Some(format!("{sign}{}{}s", seconds.unsigned_abs(), fraction_text(nanos.unsigned_abs())))
}

/// The paths of a field mask. Only names that come back the same way are taken.
#[must_use]
pub fn mask(text: &str) -> Option<Vec<String>> {
    if text.is_empty() {
        return Some(Vec::new());
    }
    text.split(',').map(snake).collect()
}

/// A path of a field mask in camelCase, `None` if it would not come back as it is.
#[must_use]
pub fn camel(path: &str) -> Option<String> {
    let mut text = String::with_capacity(path.len());
    let mut raise = false;
    for c in path.chars() {
        match c {
            '_' if raise => return None,
            '_' => raise = true,
            'a'..='z' if raise => {
                text.push(c.to_ascii_uppercase());
                raise = false;
            }
            _ if raise || c.is_ascii_uppercase() => return None,
            _ => text.push(c),
        }
    }
    (!raise).then_some(text)
}

fn snake(path: &str) -> Option<String> {
    let mut text = String::with_capacity(path.len() + 4);
    for c in path.chars() {
        match c {
            'A'..='Z' => text.extend(['_', c.to_ascii_lowercase()]),
            'a'..='z' | '0'..='9' | '.' | '*' => text.push(c),
            _ => return None,
        }
    }
    (!text.is_empty()).then_some(text)
}

/// The value of a text of digits, at least one and at most twelve.
fn digits(text: &str) -> Option<i64> {
    let fits = (1..=12).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_digit());
    fits.then(|| text.parse().ok()).flatten()
}

/// The nanoseconds of one to nine digits after the point.
fn nanos(fraction: &str) -> Option<i32> {
    let value = digits(fraction).filter(|_| fraction.len() <= 9)?;
    let scale = u32::try_from(9 - fraction.len()).ok()?;
    i32::try_from(value * 10_i64.pow(scale)).ok()
}

/// No, three, six or nine digits (S38).
fn fraction_text(nanos: u32) -> String {
    if nanos == 0 {
        String::new()
    } else if nanos.is_multiple_of(1_000_000) {
        format!(".{:03}", nanos / 1_000_000)
    } else if nanos.is_multiple_of(1_000) {
        format!(".{:06}", nanos / 1_000)
    } else {
        format!(".{nanos:09}")
    }
}

fn days_in(year: i64, month: i64) -> i64 {
    let leap = year % 4 == 0 && (year % 100 != 0 || year % 400 == 0);
    match month {
        2 => 28 + i64::from(leap),
        4 | 6 | 9 | 11 => 30,
        _ => 31,
    }
}

/// Days since 1970 of a date. Years begin in March, so that the leap day is the last one.
fn days_from_civil(year: i64, month: i64, day: i64) -> i64 {
    let year = year - i64::from(month <= 2);
    let era = year.div_euclid(400);
    let year_of_era = year.rem_euclid(400);
    let day_of_year = (153 * ((month + 9) % 12) + 2) / 5 + day - 1;
    let day_of_era = year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + day_of_year;
    era * 146_097 + day_of_era - 719_468
}

fn civil_from_days(days: i64) -> (i64, i64, i64) {
    let days = days + 719_468;
    let era = days.div_euclid(146_097);
    let day_of_era = days.rem_euclid(146_097);
    let year_of_era =
        (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * shifted + 2) / 5 + 1;
    let month = if shifted < 10 { shifted + 3 } else { shifted - 9 };
    (year_of_era + era * 400 + i64::from(month <= 2), month, day)
}
