//! How long a client waits (S49).

use std::time::Duration;

use http::HeaderMap;

use crate::error::Error;

/// The headers that name a timeout.
pub const HEADERS: [&str; 3] = ["grpc-timeout", "x-server-timeout", "connect-timeout-ms"];

type Read = fn(&str) -> Option<Duration>;

/// The least of what the headers say; `default` if they say nothing, never above `max`.
///
/// # Errors
/// [`Error::MalformedTimeout`] names the header that cannot be read.
pub fn timeout(headers: &HeaderMap, default: Duration, max: Duration) -> Result<Duration, Error> {
    let mut least = None;
    let readers: [(Read, &str); 3] = [
        (grpc, "one to eight digits and one of H, M, S, m, u, n are expected"),
        (seconds, "seconds are expected, as in 2.5"),
        (milliseconds, "one to ten digits are expected"),
    ];
    for (header, (read, problem)) in HEADERS.into_iter().zip(readers) {
        for value in headers.get_all(header) {
            let timeout = value.to_str().ok().and_then(read);
            let timeout = timeout.ok_or(Error::MalformedTimeout { header, problem })?;
            least = Some(least.map_or(timeout, |least: Duration| least.min(timeout)));
        }
    }
    Ok(least.unwrap_or(default).min(max))
}

/// Digits and a unit (gRPC over HTTP/2, "Requests").
fn grpc(text: &str) -> Option<Duration> {
    let unit = text.chars().last()?;
    let value = digits(text.strip_suffix(unit)?, 8)?;
    match unit {
        'H' => Some(Duration::from_secs(value * 3_600)),
        'M' => Some(Duration::from_secs(value * 60)),
        'S' => Some(Duration::from_secs(value)),
        'm' => Some(Duration::from_millis(value)),
        'u' => Some(Duration::from_micros(value)),
        'n' => Some(Duration::from_nanos(value)),
        _ => None,
    }
}

fn seconds(text: &str) -> Option<Duration> {
    let (whole, fraction) = text.split_once('.').unwrap_or((text, "0"));
    let scale = u32::try_from(9_usize.checked_sub(fraction.len())?).ok()?;
    let nanos = digits(fraction, 9)? * 10_u64.pow(scale);
    Some(Duration::from_secs(digits(whole, 8)?) + Duration::from_nanos(nanos))
}

fn milliseconds(text: &str) -> Option<Duration> {
    digits(text, 10).map(Duration::from_millis)
}

fn digits(text: &str, most: usize) -> Option<u64> {
    let fits = (1..=most).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_digit());
    fits.then(|| text.parse().ok()).flatten()
}

#[cfg(test)]
mod tests {
    use super::*;

    const DEFAULT: Duration = Duration::from_secs(10);
    const MAX: Duration = Duration::from_secs(60);

    #[test]
    fn s49_the_least_of_what_is_asked_counts_and_never_more_than_the_most() {
        for (headers, expected) in [
            (&[][..], Some(10_000)),
            (&[("grpc-timeout", "250m")], Some(250)),
            (&[("grpc-timeout", "1H")], Some(60_000)),
            (&[("grpc-timeout", "20S")], Some(20_000)),
            (&[("grpc-timeout", "99999999u")], Some(60_000)),
            (&[("grpc-timeout", "0n")], Some(0)),
            (&[("x-server-timeout", "2.5")], Some(2_500)),
            (&[("x-server-timeout", "30")], Some(30_000)),
            (&[("connect-timeout-ms", "1500")], Some(1_500)),
            (&[("grpc-timeout", "3S"), ("x-server-timeout", "2")], Some(2_000)),
            (&[("grpc-timeout", "1n"), ("grpc-timeout", "x")], None),
            (&[("grpc-timeout", "123456789m")], None),
            (&[("grpc-timeout", "S")], None),
            (&[("grpc-timeout", "1")], None),
            (&[("grpc-timeout", "1s")], None),
            (&[("grpc-timeout", "-1S")], None),
            (&[("grpc-timeout", "1 S")], None),
            (&[("grpc-timeout", "")], None),
            (&[("x-server-timeout", "1.")], None),
            (&[("x-server-timeout", "1e3")], None),
            (&[("x-server-timeout", "1.0000000001")], None),
            (&[("connect-timeout-ms", "12345678901")], None),
        ] {
            let mut map = HeaderMap::new();
            for (name, value) in headers {
                map.append(*name, value.parse().expect("a header"));
            }
            let found = timeout(&map, DEFAULT, MAX);
            assert_eq!(found.as_ref().ok().map(Duration::as_millis), expected, "{headers:?}");
            if let Err(error) = found {
                assert_eq!(error.row().0, 400);
            }
        }
    }
}
