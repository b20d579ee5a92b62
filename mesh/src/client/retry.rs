//! Whether an attempt is followed by another one, and when.
//!
//! Decided without the budget: it is asked last, by whoever carries this out, so that nothing is
//! paid for what does not happen.

use std::time::Duration;

use http::HeaderMap;

use super::{backoff::Backoff, classify::Again};
use crate::marks::PUSHBACK;

/// What a callee says about trying again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Pushback {
    /// Nothing.
    Silent,
    /// After this time.
    After(Duration),
    /// Not at all: a negative number, or nothing that can be read.
    Stop,
}

/// An attempt that failed, and the call that it belongs to.
#[derive(Clone, Copy, Debug)]
pub(super) struct Failed {
    /// Which one it was; 1 is the first.
    pub(super) attempt: u32,
    /// How often the call went on before because nobody had begun with it.
    pub(super) resent: u32,
    /// How many instances there are to ask.
    pub(super) instances: usize,
    /// The attempt of our caller's call to us: 1 unless it tried again.
    pub(super) inherited: u32,
    pub(super) again: Again,
    pub(super) idempotent: bool,
    /// Whether `ABORTED` is tried again.
    pub(super) aborted: bool,
    /// Whether the request is still there in full.
    pub(super) replayable: bool,
    pub(super) pushback: Pushback,
    /// What is left of the call's time.
    pub(super) left: Duration,
    /// What an attempt takes as a rule.
    pub(super) expected: Duration,
}

/// What comes next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Next {
    /// Another attempt after this time.
    Attempt(Duration),
    /// Nothing.
    Stop,
}

// === impl Pushback ===

impl Pushback {
    pub(super) fn of(headers: &HeaderMap) -> Self {
        let Some(value) = headers.get(PUSHBACK) else { return Self::Silent };
        let millis = value.to_str().ok().and_then(|text| text.parse::<u32>().ok());
        millis.map_or(Self::Stop, |millis| Self::After(Duration::from_millis(millis.into())))
    }

    /// When to try again, if the callee says so.
    pub(super) fn after(self) -> Option<Duration> {
        match self {
            Self::After(after) => Some(after),
            Self::Silent | Self::Stop => None,
        }
    }
}

/// So often a call goes on of which nobody has begun, where there are no more instances than that.
const RESENT: u32 = 2;

/// Decides; `draw` is random from 0 to 1.
pub(super) fn decide(failed: Failed, backoff: &Backoff, draw: f64) -> Next {
    let Failed { again, resent, instances, pushback, left, expected, .. } = failed;
    // What nobody has begun was no attempt: it goes on where nothing is tried again, too, for as
    // long as there is time and somebody to ask.
    let (attempt, most) = if again == Again::Any {
        (resent.saturating_add(1), u32::try_from(instances).unwrap_or(u32::MAX).max(RESENT))
    } else {
        (failed.attempt, backoff.retries)
    };
    if !may(failed) || attempt > most || left <= expected {
        return Next::Stop;
    }
    let room = left - expected;
    let wait = match pushback {
        Pushback::Stop => return Next::Stop,
        Pushback::After(after) => after,
        Pushback::Silent if backoff.jitter => {
            backoff.ceiling(attempt).min(room).mul_f64(draw.clamp(0.0, 1.0))
        }
        Pushback::Silent => backoff.wait(attempt, draw),
    };
    if wait < room { Next::Attempt(wait) } else { Next::Stop }
}

/// Whether this call may be sent again after such an end.
fn may(failed: Failed) -> bool {
    // One level tries again, or the levels multiply.
    let ours = failed.idempotent && failed.inherited <= 1;
    failed.replayable
        && match failed.again {
            Again::Never => false,
            Again::Idempotent => ours,
            Again::IdempotentWithPushback => ours && failed.pushback.after().is_some(),
            Again::IdempotentByPolicy => ours && failed.aborted,
            // Nothing was begun, so nothing is multiplied.
            Again::Any => true,
        }
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;
    use proptest::prelude::*;

    use super::*;

    const MS: Duration = Duration::from_millis(1);

    fn unavailable() -> Failed {
        Failed {
            attempt: 1,
            resent: 0,
            instances: 1,
            inherited: 1,
            again: Again::Idempotent,
            idempotent: true,
            aborted: false,
            replayable: true,
            pushback: Pushback::Silent,
            left: 1_000 * MS,
            expected: MS,
        }
    }

    fn next(failed: Failed) -> Next {
        decide(failed, &Backoff::default(), 1.0)
    }

    #[test]
    fn there_are_three_attempts() {
        let attempts: Vec<_> =
            (1..=4).map(|attempt| next(Failed { attempt, ..unavailable() })).collect();
        assert_eq!(
            attempts,
            [Next::Attempt(25 * MS), Next::Attempt(50 * MS), Next::Stop, Next::Stop]
        );
    }

    #[test]
    fn only_what_may_be_repeated_is_tried_again() {
        let aborted = Failed { again: Again::IdempotentByPolicy, ..unavailable() };
        let any = Failed { again: Again::Any, idempotent: false, ..unavailable() };
        for (failed, again) in [
            (unavailable(), true),
            (Failed { idempotent: false, ..unavailable() }, false),
            (Failed { replayable: false, ..unavailable() }, false),
            (Failed { again: Again::Never, ..unavailable() }, false),
            (aborted, false),
            (Failed { aborted: true, ..aborted }, true),
            (Failed { aborted: true, idempotent: false, ..aborted }, false),
            (any, true),
            (Failed { replayable: false, ..any }, false),
        ] {
            assert_eq!(next(failed) != Next::Stop, again, "{failed:?}");
        }
    }

    #[test]
    fn below_a_retry_nothing_is_tried_again_but_what_was_not_begun() {
        assert_eq!(next(Failed { inherited: 2, ..unavailable() }), Next::Stop);
        let unsent = Failed { inherited: 2, again: Again::Any, ..unavailable() };
        assert_eq!(next(unsent), Next::Attempt(25 * MS));
    }

    #[test]
    fn what_nobody_has_begun_goes_on_where_nothing_is_tried_again_as_often_as_there_are_instances()
    {
        let never = Backoff::never();
        let unsent = Failed { again: Again::Any, idempotent: false, ..unavailable() };
        for (instances, most) in [(0, 2), (1, 2), (2, 2), (3, 3), (16, 16)] {
            for resent in 0..20 {
                // Whichever attempt it is: it was none.
                let failed = Failed { attempt: 3, resent, instances, ..unsent };
                let next = decide(failed, &never, 1.0);
                assert_eq!(next != Next::Stop, resent < most, "{resent} of {instances}");
            }
        }
        assert_eq!(decide(Failed { left: MS, ..unsent }, &never, 1.0), Next::Stop, "no time");
        assert_eq!(decide(unavailable(), &never, 1.0), Next::Stop);
    }

    #[test]
    fn pushback_takes_the_place_of_the_back_off() {
        let pushed = |pushback| next(Failed { pushback, ..unavailable() });
        assert_eq!(pushed(Pushback::After(700 * MS)), Next::Attempt(700 * MS));
        assert_eq!(pushed(Pushback::After(Duration::ZERO)), Next::Attempt(Duration::ZERO));
        assert_eq!(pushed(Pushback::After(999 * MS)), Next::Stop, "no time is left then");
        assert_eq!(pushed(Pushback::Stop), Next::Stop);
    }

    #[test]
    fn too_much_to_do_is_tried_again_only_when_the_callee_named_a_time() {
        let exhausted = Failed { again: Again::IdempotentWithPushback, ..unavailable() };
        assert_eq!(next(exhausted), Next::Stop);
        let pushed = Failed { pushback: Pushback::After(5 * MS), ..exhausted };
        assert_eq!(next(pushed), Next::Attempt(5 * MS));
        assert_eq!(next(Failed { pushback: Pushback::Stop, ..exhausted }), Next::Stop);
    }

    #[test]
    fn pushback_is_read_as_grpc_writes_it() {
        for (text, expected) in [
            (None, Pushback::Silent),
            (Some("0"), Pushback::After(Duration::ZERO)),
            (Some("250"), Pushback::After(250 * MS)),
            (Some("-1"), Pushback::Stop),
            (Some("soon"), Pushback::Stop),
            (Some(""), Pushback::Stop),
        ] {
            let mut headers = HeaderMap::new();
            if let Some(text) = text {
                headers.insert(PUSHBACK, HeaderValue::from_static(text));
            }
            assert_eq!(Pushback::of(&headers), expected, "{text:?}");
        }
    }

    proptest! {
        #[test]
        fn no_attempt_begins_with_less_time_than_it_needs(
            left in 0_u64..2_000, expected in 0_u64..2_000, draw in 0.0..1.0_f64,
            pushback in proptest::option::of(0_u64..2_000), jitter: bool, attempt in 1_u32..3,
        ) {
            let millis = Duration::from_millis;
            let pushback = pushback.map_or(Pushback::Silent, |after| Pushback::After(millis(after)));
            let (left, expected) = (millis(left), millis(expected));
            let failed = Failed { left, expected, pushback, attempt, ..unavailable() };
            if let Next::Attempt(wait) = decide(failed, &Backoff::default().jitter(jitter), draw) {
                prop_assert!(wait + expected <= left, "{wait:?} of {left:?}");
            }
        }
    }
}
