//! Deadlines: the arithmetic, the wire form, and the one future that enforces them.
//!
//! On the wire a deadline is `grpc-timeout`: a time that is left, at most eight digits and a
//! unit (gRPC over HTTP/2, "Requests"). We round down, so that a callee never believes it has
//! more time than its caller will wait.

use std::{
    future::Future,
    pin::Pin,
    task::{Context, Poll},
    time::Duration,
};

use http::HeaderName;
use tokio::time::{Instant, Sleep};

use crate::clock;

/// The header that says how much time is left.
pub(crate) static TIMEOUT: HeaderName = HeaderName::from_static("grpc-timeout");

/// The deadline passed first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("deadline passed")]
pub struct Late;

/// A `grpc-timeout` that cannot be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("grpc-timeout is one to eight digits and one of the units H, M, S, m, u, n")]
pub struct Malformed;

pin_project_lite::pin_project! {
    /// A future that ends with [`Late`] when its deadline passes.
    pub struct Within<F> {
        #[pin]
        inner: F,
        #[pin]
        late: Sleep,
    }
}

// === impl Within ===

impl<F: Future> Future for Within<F> {
    type Output = Result<F::Output, Late>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = self.project();
        poll_within(this.late, cx, |cx| this.inner.poll(cx))
    }
}

/// What `poll` gives, if the time of a timer has not come.
pub(crate) fn poll_within<T>(
    late: Pin<&mut Sleep>,
    cx: &mut Context<'_>,
    poll: impl FnOnce(&mut Context<'_>) -> Poll<T>,
) -> Poll<Result<T, Late>> {
    // Lateness first: an answer that becomes ready together with the timer is late, and
    // says so every time, not in some of the runs.
    if has_passed(&late) {
        return Poll::Ready(Err(Late));
    }
    match poll(cx) {
        Poll::Ready(done) => Poll::Ready(Ok(done)),
        Poll::Pending => late.poll(cx).map(|()| Err(Late)),
    }
}

/// Whether the time of a timer has come. A look at the clock costs less than setting a timer:
/// that is done only once there is something to wait for, and most of a call does not wait.
pub(crate) fn has_passed(late: &Sleep) -> bool {
    late.deadline() <= clock::instant()
}

/// Ends `future` at `deadline`.
pub fn within<F: Future>(deadline: Instant, future: F) -> Within<F> {
    Within { inner: future, late: tokio::time::sleep_until(deadline) }
}

/// What a call may use of the `left` time of the call that makes it: the rest, between 1 and
/// 25 ms, is kept to encode an answer or to fall back.
#[must_use]
pub fn for_child(left: Duration) -> Duration {
    let margin = (left / 20).clamp(Duration::from_millis(1), Duration::from_millis(25));
    left.saturating_sub(margin)
}

/// Writes the time left as `grpc-timeout`: microseconds, beyond eight digits the next coarser
/// unit, always rounded down. `None` when nothing is left: such a call is not sent.
#[must_use]
pub fn encode(left: Duration) -> Option<String> {
    const LARGEST: u128 = 99_999_999;
    let micros = left.as_micros();
    if micros == 0 {
        return None;
    }
    let (number, unit) = [(1, 'u'), (1_000, 'm'), (1_000_000, 'S'), (60_000_000, 'M')]
        .into_iter()
        .map(|(each, unit)| (micros / each, unit))
        .find(|(number, _)| *number <= LARGEST)
        .unwrap_or((LARGEST.min(micros / 3_600_000_000), 'H'));
    Some(format!("{number}{unit}"))
}

/// Reads `grpc-timeout`.
///
/// # Errors
/// [`Malformed`] for anything but one to eight digits and a unit.
pub fn decode(text: &str) -> Result<Duration, Malformed> {
    let (digits, unit) = text.split_at_checked(text.len().wrapping_sub(1)).ok_or(Malformed)?;
    if digits.is_empty() || digits.len() > 8 || !digits.bytes().all(|b| b.is_ascii_digit()) {
        return Err(Malformed);
    }
    let number: u64 = digits.parse().map_err(|_error| Malformed)?;
    match unit {
        "H" => Ok(Duration::from_secs(number * 3_600)),
        "M" => Ok(Duration::from_secs(number * 60)),
        "S" => Ok(Duration::from_secs(number)),
        "m" => Ok(Duration::from_millis(number)),
        "u" => Ok(Duration::from_micros(number)),
        "n" => Ok(Duration::from_nanos(number)),
        _ => Err(Malformed),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_timeout_is_rounded_down_into_eight_digits() {
        for (left, expected) in [
            (Duration::from_nanos(999), None),
            (Duration::from_nanos(1_999), Some("1u")),
            (Duration::from_micros(99_999_999), Some("99999999u")),
            (Duration::from_micros(100_000_999), Some("100000m")),
            (Duration::from_secs(99_999_999), Some("99999999S")),
            (Duration::from_secs(100_000_000), Some("1666666M")),
            (Duration::MAX, Some("99999999H")),
        ] {
            assert_eq!(encode(left).as_deref(), expected, "{left:?}");
        }
    }

    #[test]
    fn a_timeout_that_is_not_a_timeout_is_refused() {
        for text in ["", "1", "m", "123456789m", "-1m", "+1m", "1 m", "1x", "1M ", "é", "1é"] {
            assert_eq!(decode(text), Err(Malformed), "{text:?}");
        }
        assert_eq!(decode("500m"), Ok(Duration::from_millis(500)));
        assert_eq!(decode("99999999H"), Ok(Duration::from_secs(99_999_999 * 3_600)));
    }

    proptest! {
        #[test]
        fn what_is_written_is_read_as_no_more(nanos in 1_000u64..u64::MAX) {
            let left = Duration::from_nanos(nanos);
            let read = decode(&encode(left).expect("something is left")).expect("reads");
            prop_assert!(read <= left);
        }

        #[test]
        fn a_child_has_less_than_its_parent(nanos in 1u64..u64::MAX) {
            let left = Duration::from_nanos(nanos);
            prop_assert!(for_child(left) < left);
        }
    }

    #[tokio::test(start_paused = true)]
    async fn an_answer_at_the_very_deadline_is_late() {
        for _ in 0..20 {
            let at = Instant::now() + Duration::from_millis(50);
            assert_eq!(within(at, tokio::time::sleep_until(at)).await, Err(Late));
        }
    }
}
