//! How long tokens live, when a refresh token is good, and when guessing a password ends.

use time::{Duration, OffsetDateTime};
use uuid::Uuid;

/// How long the access token of a person is valid.
pub const USER_TOKEN: Duration = Duration::minutes(15);
/// How long the token of a service is valid.
pub const SERVICE_TOKEN: Duration = Duration::hours(1);
/// How long a refresh token can be used.
pub const REFRESH_TOKEN: Duration = Duration::days(30);

/// How many wrong passwords an account takes within [`FAILURE_WINDOW`].
pub const FAILURES_MAX: i64 = 10;
/// How long failures are counted, from the first; then the count begins anew.
pub const FAILURE_WINDOW: Duration = Duration::minutes(15);

/// A refresh token as it was found. All that descend from one sign-in are a family.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refresh {
    /// The sign-in that it descends from.
    pub family: Uuid,
    /// Whose it is.
    pub user: Uuid,
    /// When it can no longer be used.
    pub expires_at: OffsetDateTime,
    /// Whether it was exchanged already.
    pub used: bool,
    /// Whether its family was revoked.
    pub revoked: bool,
}

/// What becomes of a refresh token that somebody wants to exchange.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Exchange {
    /// A new pair takes its place.
    Granted,
    /// It comes a second time, so it was copied: its family ends.
    Reused,
    /// It is good for nothing.
    Refused,
}

/// The wrong passwords of an account.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Failures {
    /// How many.
    pub count: i64,
    /// Since the first of them.
    pub since: OffsetDateTime,
}

/// What a try to sign in comes to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// The password is right; the count is forgotten.
    Right,
    /// The password is wrong; the count is now this.
    Wrong(Failures),
    /// Too many failures: neither right nor wrong is told before `retry_after` has passed.
    Locked {
        /// How long to wait.
        retry_after: Duration,
    },
}

// === impl Refresh ===

impl Refresh {
    /// What becomes of the token at `at`.
    #[must_use]
    pub fn exchange(&self, at: OffsetDateTime) -> Exchange {
        if self.revoked {
            Exchange::Refused
        } else if self.used {
            Exchange::Reused
        } else if self.expires_at <= at {
            Exchange::Refused
        } else {
            Exchange::Granted
        }
    }
}

// === impl Failures ===

impl Failures {
    /// How long the account stays locked, if it is.
    #[must_use]
    pub fn locked(self, at: OffsetDateTime) -> Option<Duration> {
        let left = self.since + FAILURE_WINDOW - at;
        (self.count >= FAILURES_MAX && left.is_positive()).then_some(left)
    }
}

/// Decides on a try. A locked account gives no verdict, even to the right password: however
/// many guesses run side by side, no more than [`FAILURES_MAX`] of a window are answered.
#[must_use]
pub fn verdict(failures: Option<Failures>, proved: bool, at: OffsetDateTime) -> Verdict {
    let failures = failures.filter(|f| f.since + FAILURE_WINDOW > at);
    match failures {
        Some(failures) => match (failures.locked(at), proved) {
            (Some(retry_after), _) => Verdict::Locked { retry_after },
            (None, true) => Verdict::Right,
            (None, false) => Verdict::Wrong(Failures { count: failures.count + 1, ..failures }),
        },
        None if proved => Verdict::Right,
        None => Verdict::Wrong(Failures { count: 1, since: at }),
    }
}

#[cfg(test)]
mod tests {
    use time::macros::datetime;

    use super::*;

    const NOON: OffsetDateTime = datetime!(2026-03-01 12:00 UTC);

    #[test]
    fn a_refresh_token_is_good_once_until_it_expires_or_its_family_ends() {
        let good = Refresh {
            family: Uuid::nil(),
            user: Uuid::nil(),
            expires_at: NOON + REFRESH_TOKEN,
            used: false,
            revoked: false,
        };
        let second = Duration::SECOND;
        for (refresh, at, expected) in [
            (good.clone(), NOON, Exchange::Granted),
            (good.clone(), NOON + REFRESH_TOKEN - second, Exchange::Granted),
            (good.clone(), NOON + REFRESH_TOKEN, Exchange::Refused),
            (Refresh { used: true, ..good.clone() }, NOON, Exchange::Reused),
            (Refresh { used: true, ..good.clone() }, NOON + REFRESH_TOKEN, Exchange::Reused),
            (Refresh { revoked: true, ..good.clone() }, NOON, Exchange::Refused),
            (Refresh { revoked: true, used: true, ..good }, NOON, Exchange::Refused),
        ] {
            assert_eq!(refresh.exchange(at), expected, "{refresh:?} at {at}");
        }
    }

    #[test]
    fn ten_failures_lock_an_account_until_the_window_ends_even_for_the_right_password() {
        let failed = |count| Some(Failures { count, since: NOON });
        let minute = Duration::MINUTE;
        let wrong = |count, since| Verdict::Wrong(Failures { count, since });
        for (failures, proved, after, expected) in [
            (None, true, 0, Verdict::Right),
            (None, false, 0, wrong(1, NOON)),
            (failed(9), true, 1, Verdict::Right),
            (failed(9), false, 1, wrong(10, NOON)),
            (failed(10), true, 1, Verdict::Locked { retry_after: 14 * minute }),
            (failed(10), false, 14, Verdict::Locked { retry_after: minute }),
            (failed(10), true, 15, Verdict::Right),
            (failed(10), false, 15, wrong(1, NOON + 15 * minute)),
            (failed(3), false, 16, wrong(1, NOON + 16 * minute)),
        ] {
            let at = NOON + after * minute;
            assert_eq!(verdict(failures, proved, at), expected, "{failures:?} {proved} {after}");
        }
    }

    #[test]
    fn no_order_of_guesses_gets_more_than_ten_verdicts_in_a_window() {
        let mut failures = None;
        let mut told = 0;
        for second in 0..800 {
            let at = NOON + Duration::seconds(second);
            match verdict(failures, false, at) {
                Verdict::Wrong(next) => {
                    failures = Some(next);
                    told += 1;
                }
                Verdict::Right | Verdict::Locked { .. } => {}
            }
        }
        assert_eq!(told, FAILURES_MAX);
    }
}
