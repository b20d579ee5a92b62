//! How long to wait before something is tried again.

use std::time::Duration;

/// How often something is tried again, and after how long.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Backoff {
    /// How often it is tried again after the first time.
    pub retries: u32,
    /// The first ceilings; the last one is doubled from then on.
    pub ceilings: &'static [Duration],
    /// The highest ceiling.
    pub max: Duration,
    /// Whether a time below the ceiling is drawn, or the ceiling itself is waited for.
    pub jitter: bool,
}

// === impl Backoff ===

impl Default for Backoff {
    /// Two retries, after up to 25 and 50 ms; never more than 250 ms.
    fn default() -> Self {
        const CEILINGS: [Duration; 1] = [Duration::from_millis(25)];
        let max = Duration::from_millis(250);
        Self { retries: 2, ceilings: &CEILINGS, max, jitter: true }
    }
}

impl Backoff {
    /// One attempt and no other.
    #[must_use]
    pub fn never() -> Self {
        Self { retries: 0, ..Self::default() }
    }

    /// The same with or without jitter.
    #[must_use]
    pub fn jitter(self, jitter: bool) -> Self {
        Self { jitter, ..self }
    }

    /// The longest wait before the retry with this number; 1 is the first.
    #[must_use]
    pub fn ceiling(&self, retry: u32) -> Duration {
        let at = usize::try_from(retry.saturating_sub(1)).unwrap_or(usize::MAX);
        let Some(last) = self.ceilings.last() else { return Duration::ZERO };
        let ceiling = self.ceilings.get(at).copied().unwrap_or_else(|| {
            let doublings = u32::try_from(at + 1 - self.ceilings.len()).unwrap_or(u32::MAX);
            last.saturating_mul(2_u32.saturating_pow(doublings))
        });
        ceiling.min(self.max)
    }

    /// How long to wait before that retry: full jitter, where `draw` is random from 0 to 1.
    #[must_use]
    pub fn wait(&self, retry: u32, draw: f64) -> Duration {
        let ceiling = self.ceiling(retry);
        if self.jitter { ceiling.mul_f64(draw.clamp(0.0, 1.0)) } else { ceiling }
    }
}

/// Three retries at 100, 200 and 400 ms; with jitter these are ceilings.
#[must_use]
pub fn rpc() -> Backoff {
    const CEILINGS: [Duration; 1] = [Duration::from_millis(100)];
    let max = Duration::from_millis(400);
    Backoff { retries: 3, ceilings: &CEILINGS, max, jitter: true }
}

/// Three retries at 1, 5 and 10 s. Whoever goes on after that doubles up to five minutes.
#[must_use]
pub fn publish() -> Backoff {
    const CEILINGS: [Duration; 3] =
        [Duration::from_secs(1), Duration::from_secs(5), Duration::from_secs(10)];
    Backoff { retries: 3, ceilings: &CEILINGS, max: Duration::from_secs(300), jitter: true }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn waits(backoff: Backoff, draw: f64, count: u32) -> Vec<u128> {
        (1..=count).map(|retry| backoff.wait(retry, draw).as_millis()).collect()
    }

    #[test]
    fn a_call_backs_off_from_25_to_250_ms_with_full_jitter() {
        let backoff = Backoff::default();
        assert_eq!(backoff.retries, 2);
        assert_eq!(waits(backoff, 1.0, 6), [25, 50, 100, 200, 250, 250]);
        assert_eq!(waits(backoff, 0.0, 2), [0, 0]);
        assert_eq!(waits(backoff, 0.5, 3), [12, 25, 50]);
    }

    #[test]
    fn preset_rpc_is_three_retries_at_100_200_and_400_ms() {
        assert_eq!(rpc().retries, 3);
        assert_eq!(waits(rpc().jitter(false), 0.3, 3), [100, 200, 400]);
        assert_eq!(waits(rpc(), 0.5, 3), [50, 100, 200]);
    }

    #[test]
    fn preset_publish_is_three_retries_at_1_5_and_10_s_and_goes_on_to_five_minutes() {
        assert_eq!(publish().retries, 3);
        let seconds: Vec<_> =
            (1..=9).map(|retry| publish().jitter(false).wait(retry, 0.0).as_secs()).collect();
        assert_eq!(seconds, [1, 5, 10, 20, 40, 80, 160, 300, 300]);
    }
}
