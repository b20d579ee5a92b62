//! How answers are printed: for people, or as JSON of the contract.

use std::{fmt::Write as _, sync::LazyLock};

use anyhow::Context as _;
use mesh::money;
use prost::Name;
use prost_reflect::{DescriptorPool, DynamicMessage, SerializeOptions};
use prost_types::Timestamp;
use proto::google::r#type::Money;
use serde_json::Value;
use time::{OffsetDateTime, format_description::FormatItem, macros::format_description};

/// An answer, in both forms.
#[derive(Clone, Debug)]
pub struct Told {
    /// For people.
    pub text: String,
    /// For programs.
    pub json: Value,
}

/// Lines of columns, each as wide as its widest.
#[derive(Clone, Debug, Default)]
pub struct Table {
    indent: usize,
    rows: Vec<Vec<String>>,
}

static POOL: LazyLock<Option<DescriptorPool>> =
    LazyLock::new(|| DescriptorPool::decode(proto::DESCRIPTORS).ok());

const CLOCK: &[FormatItem<'_>] =
    format_description!("[year]-[month]-[day] [hour]:[minute]:[second].[subsecond digits:3]");

/// A message in the contract's JSON.
///
/// # Errors
/// The descriptors do not know the message: the build is broken.
pub fn json<M: Name>(message: &M) -> anyhow::Result<Value> {
    let pool = POOL.as_ref().context("the descriptors cannot be read")?;
    let descriptor = pool
        .get_message_by_name(&M::full_name())
        .with_context(|| format!("{} is not in the descriptors", M::full_name()))?;
    let message = DynamicMessage::decode(descriptor, message.encode_to_vec().as_slice())?;
    let options = SerializeOptions::new().skip_default_fields(true);
    Ok(message.serialize_with_options(serde_json::value::Serializer, &options)?)
}

/// Several messages in the contract's JSON.
///
/// # Errors
/// As [`json`].
pub fn list<M: Name>(messages: &[M]) -> anyhow::Result<Value> {
    messages.iter().map(json).collect::<anyhow::Result<Vec<_>>>().map(Value::Array)
}

/// A time in UTC; nothing where there is none.
#[must_use]
pub fn when(at: Option<&Timestamp>) -> String {
    at.and_then(instant).and_then(|at| at.format(CLOCK).ok()).unwrap_or_default()
}

/// How long something took.
#[must_use]
pub fn took(from: Option<&Timestamp>, to: Option<&Timestamp>) -> String {
    match (from.and_then(instant), to.and_then(instant)) {
        (Some(from), Some(to)) => format!("{} ms", (to - from).whole_milliseconds()),
        (_, None) => "open".to_owned(),
        (None, Some(_)) => String::new(),
    }
}

/// An amount: `39.00 EUR`.
#[must_use]
pub fn amount(money: Option<&Money>) -> String {
    let Some(money) = money else { return "-".to_owned() };
    money::Money::from_parts(&money.currency_code, money.units, money.nanos)
        .map_or_else(|_malformed| format!("{money:?}"), |money| money.to_string())
}

/// The name of a state without its prefix: `STATE_PENDING` is `PENDING`.
#[must_use]
pub fn state<'a>(name: &'a str, prefix: &str) -> &'a str {
    name.strip_prefix(prefix).unwrap_or(name)
}

fn instant(at: &Timestamp) -> Option<OffsetDateTime> {
    let at = OffsetDateTime::from_unix_timestamp(at.seconds).ok()?
        + time::Duration::nanoseconds(i64::from(at.nanos));
    Some(at)
}

// === impl Table ===

impl Table {
    /// A table whose lines begin with so many spaces.
    #[must_use]
    pub fn indented(indent: usize) -> Self {
        Self { indent, rows: Vec::new() }
    }

    /// Adds a line.
    pub fn row<const N: usize>(&mut self, cells: [&str; N]) {
        self.rows.push(cells.into_iter().map(str::to_owned).collect());
    }
}

impl std::fmt::Display for Table {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let columns = self.rows.iter().map(Vec::len).max().unwrap_or_default();
        let width = |column: usize| {
            let cells = self.rows.iter().filter_map(|row| row.get(column));
            cells.map(|cell| cell.chars().count()).max().unwrap_or_default()
        };
        let widths: Vec<usize> = (0..columns).map(width).collect();
        for row in &self.rows {
            let mut line = String::new();
            for (cell, width) in row.iter().zip(&widths) {
                write!(line, "{cell:<width$}  ")?;
            }
            writeln!(f, "{:indent$}{}", "", line.trim_end(), indent = self.indent)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use proto::operator::v1::Backlog;

    use super::*;

    #[test]
    fn a_message_is_printed_as_the_contract_has_it() {
        let time = Timestamp { seconds: 1, nanos: 0 };
        let backlog = Backlog {
            unsequenced: 7,
            head: 0,
            oldest_unsequenced_time: Some(time),
            ..<_>::default()
        };
        let expected = serde_json::json!({
            "unsequenced": "7",
            "oldestUnsequencedTime": "1970-01-01T00:00:01Z",
        });
        assert_eq!(json(&backlog).unwrap(), expected);
    }

    #[test]
    fn times_and_amounts_read_like_times_and_amounts() {
        let time = |seconds, nanos| Timestamp { seconds, nanos };
        assert_eq!(when(Some(&time(1_714_564_800, 5_000_000))), "2024-05-01 12:00:00.005");
        assert_eq!(took(Some(&time(1, 0)), Some(&time(2, 500_000_000))), "1500 ms");
        assert_eq!(took(Some(&time(1, 0)), None), "open");
        let money = Money { currency_code: "EUR".to_owned(), units: 39, nanos: 0 };
        assert_eq!(amount(Some(&money)), "39.00 EUR");
    }

    #[test]
    fn columns_are_as_wide_as_their_widest_cell() {
        let mut table = Table::indented(2);
        table.row(["a", "bc", "d"]);
        table.row(["long", "", "e"]);
        assert_eq!(table.to_string(), "  a     bc  d\n  long      e\n");
    }
}
