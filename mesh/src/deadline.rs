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

use http::{HeaderName, HeaderValue};
use tokio::time::{Instant, Sleep};

use crate::clock;

/// The header that says how much time is left.
pub(crate) static TIMEOUT: HeaderName = HeaderName::from_static(TIMEOUT_NAME);
pub(crate) const TIMEOUT_NAME: &str = "grpc-timeout";

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
        timed: Timed<F>,
    }
}

pin_project_lite::pin_project! {
    /// The same, which says when it was last asked: whoever goes on at once need not look at the clock.
    pub(crate) struct Timed<F> {
        #[pin]
        inner: F,
        #[pin]
        late: Timer,
    }
}

pin_project_lite::pin_project! {
    /// A time to come. It is waited for only where there is something to wait for, and most of a
    /// call does not wait: until then this is an instant, and nobody's timer.
    pub(crate) struct Timer {
        at: Instant,
        // When somebody has just looked at the clock.
        seen: Option<Instant>,
        #[pin]
        sleep: Option<Sleep>,
    }
}

// === impl Within ===

impl<F: Future> Future for Within<F> {
    type Output = Result<F::Output, Late>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        self.project().timed.poll(cx).map_ok(|(done, _now)| done)
    }
}

// === impl Timed ===

impl<F: Future> Future for Timed<F> {
    type Output = Result<(F::Output, Instant), Late>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = self.project();
        poll_within(this.late, cx, |cx| this.inner.poll(cx))
    }
}

// === impl Timer ===

impl Timer {
    pub(crate) fn new(at: Instant) -> Self {
        Self { at, seen: None, sleep: None }
    }

    /// One that is asked for the first time by somebody who has just seen that it is `now`.
    pub(crate) fn from(now: Instant, at: Instant) -> Self {
        Self { at, seen: Some(now), sleep: None }
    }

    /// The time, if its own has not come.
    pub(crate) fn look(self: Pin<&mut Self>) -> Result<Instant, Late> {
        let this = self.project();
        let now = this.seen.take().unwrap_or_else(clock::instant);
        if *this.at <= now { Err(Late) } else { Ok(now) }
    }

    /// Waits for it.
    pub(crate) fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let mut this = self.project();
        if this.sleep.is_none() {
            this.sleep.set(Some(tokio::time::sleep_until(*this.at)));
        }
        this.sleep.as_pin_mut().map_or(Poll::Pending, |sleep| sleep.poll(cx))
    }
}

/// What `poll` gives, if the time of a timer has not come, and when that was.
pub(crate) fn poll_within<T>(
    mut late: Pin<&mut Timer>,
    cx: &mut Context<'_>,
    poll: impl FnOnce(&mut Context<'_>) -> Poll<T>,
) -> Poll<Result<(T, Instant), Late>> {
    // Lateness first: an answer that becomes ready together with the timer is late, and
    // says so every time, not in some of the runs.
    let now = late.as_mut().look()?;
    match poll(cx) {
        Poll::Ready(done) => Poll::Ready(Ok((done, now))),
        Poll::Pending => late.poll(cx).map(|()| Err(Late)),
    }
}

/// Ends `future` at `deadline`.
pub fn within<F: Future>(deadline: Instant, future: F) -> Within<F> {
    Within { timed: Timed { inner: future, late: Timer::new(deadline) } }
}

/// The same for a future that is polled at once, by somebody who has just seen that it is `now`.
pub(crate) fn within_from<F: Future>(now: Instant, deadline: Instant, future: F) -> Timed<F> {
    Timed { inner: future, late: Timer::from(now, deadline) }
}

/// What a call may use of the `left` time of the call that makes it: the rest, between 1 and
/// 25 ms, is kept to encode an answer or to fall back.
#[must_use]
pub fn for_child(left: Duration) -> Duration {
    let margin = (left / 20).clamp(Duration::from_millis(1), Duration::from_millis(25));
    left.saturating_sub(margin)
}

/// The time left as `grpc-timeout` has it, rounded down: microseconds, from a second three digits of
/// milliseconds, beyond eight digits the next coarser unit. `None` when nothing is left: such a call
/// is not sent.
///
/// Every call has one, and a connection remembers those of the last calls and compares with each (RFC
/// 7541): of a long time, calls that follow each other have the same.
pub(crate) fn header(left: Duration) -> Option<HeaderValue> {
    const LARGEST: u128 = 99_999_999;
    const SECOND: u128 = 1_000_000;
    let micros = left.as_micros();
    if micros == 0 {
        return None;
    }
    let (number, unit) = [(1, b'u'), (1_000, b'm'), (1_000_000, b'S'), (60_000_000, b'M')]
        .into_iter()
        .map(|(each, unit)| (micros / each, unit))
        .find(|(number, unit)| *number <= LARGEST && (*unit != b'u' || *number < SECOND))
        .unwrap_or((LARGEST.min(micros / 3_600_000_000), b'H'));
    let mut left = u32::try_from(number).ok()?;
    if unit == b'm' {
        let step = 10_u32.pow(left.checked_ilog10()?.saturating_sub(2));
        left -= left % step;
    }
    let mut text = [unit; 9];
    let mut from = 8;
    while from == 8 || left > 0 {
        from -= 1;
        text[from] = b'0' + u8::try_from(left % 10).ok()?;
        left /= 10;
    }
    HeaderValue::from_bytes(&text[from..]).ok()
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

    fn encode(left: Duration) -> Option<String> {
        Some(header(left)?.to_str().expect("text").to_owned())
    }

    #[test]
    fn a_timeout_is_rounded_down_into_eight_digits() {
        for (left, expected) in [
            (Duration::from_nanos(999), None),
            (Duration::from_nanos(1_999), Some("1u")),
            (Duration::from_micros(999_999), Some("999999u")),
            (Duration::from_micros(1_009_999), Some("1000m")),
            (Duration::from_micros(1_010_000), Some("1010m")),
            (Duration::from_millis(59_999), Some("59900m")),
            (Duration::from_millis(99_999_999), Some("99900000m")),
            (Duration::from_millis(100_000_999), Some("100000S")),
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
            prop_assert!(nanos < 1_000_000 || read >= left.mul_f64(0.98), "{read:?}");
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
