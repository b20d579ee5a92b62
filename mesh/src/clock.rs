//! The only reader of time: UTC for records, tokio's instant for waiting.
//!
//! Waiting goes by tokio's clock, so that a test can pause it; records go by UTC, cut to
//! microseconds, which is what both databases keep.

use time::OffsetDateTime;
use tokio::time::Instant;
use uuid::Uuid;

/// The time of day, in UTC, cut to microseconds.
#[expect(clippy::disallowed_methods, reason = "this is the clock")]
#[must_use]
pub fn now() -> OffsetDateTime {
    let now = OffsetDateTime::now_utc();
    let micros = now.microsecond();
    now.replace_microsecond(micros).unwrap_or(now)
}

/// The instant that timeouts are measured from; stands still in a test that pauses time.
#[must_use]
pub fn instant() -> Instant {
    Instant::now()
}

/// A new `UUIDv7`: ids sort by the millisecond they were made in. That is not commit order.
#[expect(clippy::disallowed_methods, reason = "this is the clock")]
#[must_use]
pub fn id() -> Uuid {
    Uuid::now_v7()
}

/// Microseconds since 1970, as times are kept in SQL.
#[must_use]
pub fn micros(at: OffsetDateTime) -> i64 {
    // The range of `OffsetDateTime` (years ±9999) fits 64 bits of microseconds.
    i64::try_from(at.unix_timestamp_nanos() / 1_000).unwrap_or(i64::MAX)
}

/// The time that [`micros`] wrote; times beyond the year 9999 become 1970.
#[must_use]
pub fn from_micros(micros: i64) -> OffsetDateTime {
    OffsetDateTime::from_unix_timestamp_nanos(i128::from(micros) * 1_000)
        .unwrap_or(OffsetDateTime::UNIX_EPOCH)
}

/// A time as the contract spells it.
#[must_use]
pub fn timestamp(at: OffsetDateTime) -> prost_types::Timestamp {
    // Below a second there are less than 10^9 nanoseconds: always fits.
    let nanos = i32::try_from(at.nanosecond()).unwrap_or_default();
    prost_types::Timestamp { seconds: at.unix_timestamp(), nanos }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_survives_the_way_into_sql_and_back() {
        let at = now();
        assert_eq!(from_micros(micros(at)), at);
    }

    #[test]
    fn ids_sort_by_when_they_were_made() {
        let (a, b) = (id(), id());
        assert!(a < b, "{a} {b}");
    }
}
