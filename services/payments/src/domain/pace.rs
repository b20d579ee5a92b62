//! How patiently the provider is asked, and what for.

use std::time::Duration;

/// What the resolver does to learn what became of an attempt.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Probe {
    /// Sends the same request under the same key: the provider answers what it did, or does it.
    Send,
    /// Asks for what it did under our reference.
    Ask,
}

/// How patiently the provider is asked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pace {
    /// How long to wait before each time that it is asked what became of an attempt; after the
    /// last, a person has to find out.
    pub schedule: Vec<Duration>,
    /// When an attempt that was not sent, or whose sender says nothing, is taken up.
    pub unsent_after: Duration,
    /// How often at most an attempt is looked at that waits for the customer.
    pub action_poll: Duration,
    /// For how long the provider surely knows a key. Later the key would do it all again.
    pub keys_kept: Duration,
}

impl Default for Pace {
    fn default() -> Self {
        const SECOND: Duration = Duration::from_secs(1);
        const HOUR: Duration = Duration::from_secs(3_600);
        let mut schedule = vec![SECOND, 5 * SECOND, 30 * SECOND, 300 * SECOND, HOUR];
        schedule.extend([24 * HOUR; 5]);
        Self {
            schedule,
            unsent_after: 5 * SECOND,
            action_poll: 2 * SECOND,
            // An hour less than the provider promises: our clocks are not one.
            keys_kept: 23 * HOUR,
        }
    }
}
