//! Where a call stands in its trace.

use std::{
    fmt,
    sync::atomic::{AtomicU64, Ordering},
    time::Duration,
};

use http::{HeaderName, HeaderValue};

/// The header that carries it.
pub(crate) static TRACEPARENT: HeaderName = HeaderName::from_static("traceparent");

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
        let trace = fastrand::u128(1..);
        // Half of the digits draw the lot: they fit.
        let lot = u64::try_from(trace >> 64).unwrap_or_default() % WHOLE;
        let sampled = lot < SHARE.load(Ordering::Relaxed);
        Self { trace, span: fastrand::u64(1..), sampled, begins: true }
    }

    /// Of the traces that begin in this process, `share` is sampled: from 0 to 1.
    pub(crate) fn sample(share: f64) {
        let share = Duration::from_secs(1).mul_f64(share.clamp(0.0, 1.0)).as_nanos();
        SHARE.store(u64::try_from(share).unwrap_or(WHOLE), Ordering::Relaxed);
    }

    /// Reads a `traceparent` header; `None` if it is not one (version 00 to fe, ids not zero).
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let mut parts = text.split('-');
        let (version, trace, span, flags) =
            (parts.next()?, parts.next()?, parts.next()?, parts.next()?);
        let hex = |part: &str, len| {
            part.len() == len && part.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'))
        };
        if !hex(version, 2) || !hex(trace, 32) || !hex(span, 16) || !hex(flags, 2) {
            return None;
        }
        if version == "ff" || (version == "00" && parts.next().is_some()) {
            return None;
        }
        let trace = u128::from_str_radix(trace, 16).ok().filter(|id| *id != 0)?;
        let span = u64::from_str_radix(span, 16).ok().filter(|id| *id != 0)?;
        let flags = u8::from_str_radix(flags, 16).ok()?;
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

    /// The value of the `traceparent` header. Every call has one: it is written where it stands.
    pub(crate) fn header(self) -> Option<HeaderValue> {
        let mut text = *b"00-00000000000000000000000000000000-0000000000000000-00";
        write_hex(&mut text[3..35], self.trace);
        write_hex(&mut text[36..52], self.span.into());
        text[54] += u8::from(self.sampled);
        HeaderValue::from_bytes(&text).ok()
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

/// Writes a number into as many digits as there are.
fn write_hex(digits: &mut [u8], mut number: u128) {
    for digit in digits.iter_mut().rev() {
        let four = u8::try_from(number & 0xf).unwrap_or_default();
        *digit = if four < 10 { b'0' + four } else { b'a' + four - 10 };
        number >>= 4;
    }
}
