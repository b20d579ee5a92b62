//! What calls to a dependency may cost, and what is done when they fail.

use std::time::Duration;

use super::{
    backoff::Backoff,
    breaker::{self, Rule},
    budget::Allowance,
};

/// How a dependency is called. Attached by `Channel::with`.
///
/// ```
/// use mesh::Policy;
/// // A method of its own that takes long as a rule.
/// let long = Policy { longest: None, ..Policy::default() };
/// let policy = Policy::default().method("ordermesh.orders.v1.OrdersService/QuoteOrder", long);
/// ```
#[derive(Clone, Debug, PartialEq)]
pub struct Policy {
    /// The longest that one attempt may take; a stream lasts as long as its call.
    pub timeout: Option<Duration>,
    /// The longest that a call may take with all its attempts; not of streams.
    pub longest: Option<Duration>,
    /// How often what may be repeated is tried again, and after how long.
    pub backoff: Backoff,
    /// Whether `ABORTED` is tried again as well.
    pub retry_aborted: bool,
    /// One more attempt while the first is slow; see [`Hedge`].
    pub hedge: Option<Hedge>,
    /// When calls are refused because the dependency is sick.
    pub breaker: Rule,
    /// How much retries and hedges may add. Of the dependency: a method has none of
    /// its own.
    pub budget: Allowance,
    /// How many calls may be under way at the same time. Of the dependency.
    pub bulkhead: usize,
    /// The same for a method by itself, beside those of the dependency.
    pub method_bulkhead: Option<usize>,
    /// How long a call may wait until there are fewer; zero fails at once.
    pub queue_timeout: Duration,
    /// Whether fewer calls are sent to a dependency that refuses them for having too much to do.
    pub throttle: bool,
    /// What holds instead for single methods, by `package.Service/Method`.
    pub methods: Vec<(String, Self)>,
}

/// One more attempt at a method that may be repeated, once the first has taken longer than most.
/// The first answer counts, the other attempt is cancelled; the budget pays.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Hedge {
    /// After the time within which so many per cent of the attempts end.
    pub percent: u32,
    /// But not before this.
    pub least: Duration,
}

// === impl Hedge ===

impl Default for Hedge {
    fn default() -> Self {
        Self { percent: 95, least: Duration::from_millis(10) }
    }
}

// === impl Policy ===

impl Default for Policy {
    fn default() -> Self {
        Self {
            timeout: None,
            longest: None,
            backoff: Backoff::default(),
            retry_aborted: false,
            hedge: None,
            breaker: Rule::default(),
            budget: Allowance::default(),
            bulkhead: 256,
            method_bulkhead: None,
            queue_timeout: Duration::ZERO,
            throttle: true,
            methods: Vec::new(),
        }
    }
}

impl Policy {
    /// For providers outside of the mesh: one attempt of 3 s, and a breaker that is slow to
    /// forgive. A payment is repeated by whoever looks after it, not here.
    #[must_use]
    pub fn external() -> Self {
        Self {
            timeout: Some(timeout::external()),
            backoff: Backoff::never(),
            breaker: breaker::opossum(),
            ..Self::default()
        }
    }

    /// The same, but for the method `package.Service/Method`.
    #[must_use]
    pub fn method(mut self, name: &str, policy: Self) -> Self {
        self.methods.retain(|(known, _)| known != name);
        self.methods.push((name.to_owned(), policy));
        self
    }

    /// What holds for the method `package.Service/Method`.
    pub(super) fn of(&self, name: &str) -> &Self {
        self.methods.iter().find(|(known, _)| known == name).map_or(self, |(_, policy)| policy)
    }
}

/// Times that attempts may take.
pub mod timeout {
    use std::time::Duration;

    /// 3 000 ms: for providers outside of the mesh.
    #[must_use]
    pub fn external() -> Duration {
        Duration::from_millis(3_000)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn preset_external_is_one_attempt_of_3_000_ms_behind_opossum() {
        let policy = Policy::external();
        assert_eq!(policy.timeout, Some(Duration::from_millis(3_000)));
        assert_eq!(policy.backoff.retries, 0);
        assert_eq!(policy.breaker, breaker::opossum());
    }

    #[test]
    fn a_method_may_have_a_policy_of_its_own() {
        let policy = Policy::default().method("a.B/C", Policy::external());
        assert_eq!(policy.of("a.B/C"), &Policy::external());
        assert_eq!(policy.of("a.B/D"), &policy);
    }

    #[test]
    fn the_default_is_what_the_design_says() {
        let policy = Policy::default();
        assert_eq!((policy.bulkhead, policy.queue_timeout), (256, Duration::ZERO));
        assert_eq!(policy.hedge, None);
        assert_eq!(Hedge::default(), Hedge { percent: 95, least: Duration::from_millis(10) });
    }
}
