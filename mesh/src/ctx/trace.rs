//! Where a call stands in its trace.

use std::{
    fmt,
    sync::atomic::{AtomicU64, Ordering},
    time::Duration,
};

use http::{HeaderName, HeaderValue};

/// The header that carries it.
pub(crate) static TRACEPARENT: HeaderName = HeaderName::from_static(TRACEPARENT_NAME);
pub(crate) const TRACEPARENT_NAME: &str = "traceparent";

/// How long version 00 of it is.
const LENGTH: usize = 55;

/// Where a call stands in its trace (W3C Trace Context).
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Trace {
    trace: u128,
    span: u64,
    sampled: bool,
    /// No span has this id: whoever is below it has no parent.
    begins: bool,
}

/// One of how many the share of traces is told in.
const WHOLE: u64 = 1_000_000_000;

/// How many of [`WHOLE`] traces that begin here are sampled.
static SHARE: AtomicU64 = AtomicU64::new(WHOLE);

// === impl Trace ===

impl Trace {
    /// A trace that begins here; sampled, unless only a share is.
    #[must_use]
    pub fn new() -> Self {
        Self {
            trace: fastrand::u128(1..),
            span: fastrand::u64(1..),
            sampled: drawn(),
            begins: true,
        }
    }

    /// The same place in a trace of somebody whose word on what is recorded here does not count: it
    /// is if they record it and it is among the share that is.
    #[must_use]
    pub fn from_outside(self) -> Self {
        Self { sampled: self.sampled && drawn(), ..self }
    }

    /// Of the traces that begin in this process, `share` is sampled: from 0 to 1.
    pub(crate) fn sample(share: f64) {
        let share = Duration::from_secs(1).mul_f64(share.clamp(0.0, 1.0)).as_nanos();
        SHARE.store(u64::try_from(share).unwrap_or(WHOLE), Ordering::Relaxed);
    }

    /// Reads a `traceparent` header; `None` if it is not one (version 00 to fe, ids not zero).
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        // `00-<trace>-<span>-<flags>`; later versions may say more behind that.
        let (known, more) = text.as_bytes().split_at_checked(LENGTH)?;
        if [2, 35, 52].iter().any(|dash| known[*dash] != b'-') {
            return None;
        }
        let version = read_hex(&known[..2])?;
        let (high, low) = (read_hex(&known[3..19])?, read_hex(&known[19..35])?);
        let (trace, span) = (u128::from(high) << 64 | u128::from(low), read_hex(&known[36..52])?);
        let flags = read_hex(&known[53..])?;
        let ends = more.is_empty() || (version > 0 && more[0] == b'-');
        if version == 0xff || trace == 0 || span == 0 || !ends {
            return None;
        }
        Some(Self { trace, span, sampled: flags & 1 == 1, begins: false })
    }

    /// A new span of the same trace.
    #[must_use]
    pub fn child(self) -> Self {
        Self { span: fastrand::u64(1..), ..self }
    }

    /// The same place, at which a span is.
    pub(crate) fn of_a_span(self) -> Self {
        Self { begins: false, ..self }
    }

    /// Whether those who record spans record those of this trace.
    #[must_use]
    pub fn is_sampled(self) -> bool {
        self.sampled
    }

    /// The trace, the span, and the span that one below this place has as its parent: 0 for none.
    pub(crate) fn ids(self) -> (u128, u64, u64) {
        (self.trace, self.span, if self.begins { 0 } else { self.span })
    }

    /// The value of the `traceparent` header. Every call has one, and no two are the same: it is
    /// not to be remembered for the next (RFC 7541, section 7.1.3).
    pub(crate) fn header(self) -> Option<HeaderValue> {
        let mut text: [u8; LENGTH] = *b"00-00000000000000000000000000000000-0000000000000000-00";
        let [high, low] = [self.trace >> 64, self.trace & u128::from(u64::MAX)];
        write_hex(&mut text[3..19], u64::try_from(high).unwrap_or_default());
        write_hex(&mut text[19..35], u64::try_from(low).unwrap_or_default());
        write_hex(&mut text[36..52], self.span);
        text[54] += u8::from(self.sampled);
        let mut value = HeaderValue::from_bytes(&text).ok()?;
        value.set_sensitive(true);
        Some(value)
    }

    /// The trace id, 32 hexadecimal digits.
    #[must_use]
    pub fn id(self) -> String {
        format!("{:032x}", self.trace)
    }

    /// The span id, 16 hexadecimal digits.
    #[must_use]
    pub fn span_id(self) -> String {
        format!("{:016x}", self.span)
    }
}

impl Default for Trace {
    fn default() -> Self {
        Self::new()
    }
}

/// The form of the `traceparent` header.
impl fmt::Display for Trace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "00-{:032x}-{:016x}-{:02x}", self.trace, self.span, u8::from(self.sampled))
    }
}

impl fmt::Debug for Trace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// Whether one more trace is sampled.
fn drawn() -> bool {
    fastrand::u64(..WHOLE) < SHARE.load(Ordering::Relaxed)
}

/// Writes a number into as many digits as there are.
fn write_hex(digits: &mut [u8], mut number: u64) {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    for two in digits.rchunks_exact_mut(2) {
        let [.., byte] = number.to_be_bytes();
        two[1] = DIGITS[usize::from(byte & 0xf)];
        two[0] = DIGITS[usize::from(byte >> 4)];
        number >>= 8;
    }
}

/// Reads lowercase hexadecimal digits, at most 16.
fn read_hex(digits: &[u8]) -> Option<u64> {
    digits.iter().try_fold(0, |number, digit| {
        let four = match digit {
            b'0'..=b'9' => digit - b'0',
            b'a'..=b'f' => digit - b'a' + 10,
            _ => return None,
        };
        Some(number << 4 | u64::from(four))
    })
}
