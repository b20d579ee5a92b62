//! The one place of this program that reads the clock; it measures its own work only.

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// Now, for durations and timeouts.
#[expect(
    clippy::disallowed_methods,
    reason = "mesh::clock is for services; xtask depends on nothing of ours"
)]
pub(crate) fn now() -> Instant {
    Instant::now()
}

/// The time of day in UTC, as logs carry it.
#[expect(
    clippy::disallowed_methods,
    reason = "mesh::clock is for services; xtask depends on nothing of ours"
)]
pub(crate) fn timestamp() -> String {
    rfc3339(SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default())
}

/// Microseconds since 1970, as the mesh's databases keep time.
#[expect(
    clippy::disallowed_methods,
    reason = "mesh::clock is for services; xtask depends on nothing of ours"
)]
pub(crate) fn micros() -> u64 {
    let since_1970 = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since_1970.as_micros()).unwrap_or(u64::MAX)
}

fn rfc3339(since_1970: Duration) -> String {
    let (days, seconds) = (since_1970.as_secs() / 86_400, since_1970.as_secs() % 86_400);
    // Days to a date, counted from 1 March of year 0 so that the leap day comes last.
    let shifted = days + 719_468;
    let (era, day) = (shifted / 146_097, shifted % 146_097);
    let year = (day - day / 1_460 + day / 36_524 - day / 146_096) / 365;
    let day = day - (365 * year + year / 4 - year / 100);
    let month = (5 * day + 2) / 153;
    let (day, month) =
        (day - (153 * month + 2) / 5 + 1, if month < 10 { month + 3 } else { month - 9 });
    let year = year + era * 400 + u64::from(month <= 2);
    let (hour, minute, second) = (seconds / 3_600, seconds / 60 % 60, seconds % 60);
    let micros = since_1970.subsec_micros();
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}.{micros:06}Z")
}

/// Waits a little between two looks at something that cannot tell us when it changes.
pub(crate) fn nap(milliseconds: u64) {
    std::thread::sleep(Duration::from_millis(milliseconds));
}

/// `1 m 5 s`, `12.3 s` or `80 ms`.
pub(crate) fn spoken(time: Duration) -> String {
    let seconds = time.as_secs();
    if seconds >= 60 {
        format!("{} min {} s", seconds / 60, seconds % 60)
    } else if seconds > 0 {
        format!("{}.{} s", seconds, time.subsec_millis() / 100)
    } else {
        format!("{} ms", time.subsec_millis())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn days_become_dates_also_around_leap_days() {
        for (seconds, date) in [
            (0, "1970-01-01T00:00:00.000000Z"),
            (951_782_400, "2000-02-29T00:00:00.000000Z"),
            (1_709_251_199, "2024-02-29T23:59:59.000000Z"),
            (1_798_761_600, "2027-01-01T00:00:00.000000Z"),
        ] {
            assert_eq!(rfc3339(Duration::from_secs(seconds)), date);
        }
    }

    #[test]
    fn a_duration_is_said_in_the_unit_that_a_reader_expects() {
        for (milliseconds, words) in [(80, "80 ms"), (12_345, "12.3 s"), (65_000, "1 min 5 s")] {
            assert_eq!(spoken(Duration::from_millis(milliseconds)), words);
        }
    }
}
