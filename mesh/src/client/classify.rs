//! What the end of an attempt says: of the callee, of its instance, and of what to do next.
//!
//! The table of outcomes stands here once.

use std::time::Duration;

use tonic::Code;

use crate::telemetry;

/// How an attempt ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum End {
    /// The callee answered with this code.
    Answered(Code),
    /// The callee answered that the time left would not be enough: `mesh-refused`.
    RefusedForTime,
    /// The callee answered that the caller has had enough: a quota, a lock. It is an answer, and
    /// says nothing of how much the callee has to do.
    Quota,
    /// The time of the attempt was over, or the callee said so.
    Late {
        /// What the attempt had.
        had: Duration,
        /// With less than this a timeout says nothing of the callee.
        fair: Duration,
    },
    /// The connection did not take the request, or its other end did not begin with it.
    Unsent,
    /// The connection broke after the request was sent.
    Broken,
    /// Refused by this process before anything was sent.
    Local,
}

/// What a breaker takes from an attempt.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum BreakerVerdict {
    /// The dependency does its work.
    Success,
    /// It does not.
    Failure,
    /// Nothing: a permit is given back.
    Neutral,
}

/// What the gate of an instance takes from an attempt.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum EndpointVerdict {
    /// The instance does its work.
    Success,
    /// It does not.
    Hard,
    /// It has too much to do: counts in the rate and fails a probe, but is not one of the
    /// consecutive failures.
    Soft,
    /// Nothing: a probe is given back.
    Neutral,
}

/// Which calls may be tried again after such an end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Again {
    /// None.
    Never,
    /// Those that may be repeated.
    Idempotent,
    /// Those that may be repeated, if the callee named a time.
    IdempotentWithPushback,
    /// Those that may be repeated, where the policy opts in.
    IdempotentByPolicy,
    /// All: nothing was begun.
    Any,
}

/// A row of the table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Outcome {
    pub(super) breaker: BreakerVerdict,
    pub(super) endpoint: EndpointVerdict,
    pub(super) again: Again,
    /// Whether a fallback may take the place of the answer.
    pub(super) fallback: bool,
}
// === impl End ===

impl End {
    /// What an answer with `code` means for an attempt that had `had` time until `late`.
    ///
    /// Some libraries answer `CANCELLED` when a deadline passed: by then it has.
    pub(super) fn of(code: Code, had: Duration, fair: Duration, late: bool) -> Self {
        let timeout = code == Code::DeadlineExceeded || (code == Code::Cancelled && late);
        if timeout { Self::Late { had, fair } } else { Self::Answered(code) }
    }

    /// How spans say that it failed; `None` if it did not.
    pub(super) fn error(self) -> Option<&'static str> {
        let code = match self {
            Self::Answered(Code::Ok) => return None,
            Self::Answered(code) => code,
            Self::RefusedForTime | Self::Late { .. } => Code::DeadlineExceeded,
            Self::Quota => Code::ResourceExhausted,
            Self::Unsent | Self::Broken | Self::Local => Code::Unavailable,
        };
        Some(telemetry::code(code))
    }

    /// The row of the table.
    pub(super) fn outcome(self) -> Outcome {
        use Again as A;
        use BreakerVerdict as B;
        use EndpointVerdict as E;
        let (breaker, endpoint, again, fallback) = match self {
            Self::Answered(Code::Unavailable) | Self::Broken => {
                (B::Failure, E::Hard, A::Idempotent, true)
            }
            Self::Unsent => (B::Neutral, E::Neutral, A::Any, true),
            Self::Late { had, fair } if had >= fair => (B::Failure, E::Hard, A::Idempotent, true),
            Self::Quota => (B::Success, E::Success, A::Never, true),
            Self::Late { .. } | Self::RefusedForTime => (B::Neutral, E::Neutral, A::Never, true),
            // A callee that says so itself had less time than we measured for it.
            Self::Answered(Code::DeadlineExceeded) => (B::Neutral, E::Neutral, A::Never, true),
            Self::Answered(Code::Unknown | Code::Internal | Code::DataLoss) => {
                (B::Failure, E::Hard, A::Never, true)
            }
            // It does what it can and says so: a breaker would turn that into nothing at all. How
            // much less it is sent is for the throttle.
            Self::Answered(Code::ResourceExhausted) => {
                (B::Neutral, E::Soft, A::IdempotentWithPushback, true)
            }
            Self::Answered(Code::Aborted) => (B::Success, E::Success, A::IdempotentByPolicy, false),
            Self::Answered(
                Code::Ok
                | Code::Cancelled
                | Code::InvalidArgument
                | Code::NotFound
                | Code::AlreadyExists
                | Code::PermissionDenied
                | Code::FailedPrecondition
                | Code::OutOfRange
                | Code::Unimplemented
                | Code::Unauthenticated,
            ) => (B::Success, E::Success, A::Never, false),
            Self::Local => (B::Neutral, E::Neutral, A::Never, true),
        };
        Outcome { breaker, endpoint, again, fallback }
    }
}

/// Whether a fallback may take the place of a failure with this code; `local` says that this
/// process refused to send.
pub(super) fn may_fall_back(code: Code, local: bool) -> bool {
    let end = if local { End::Local } else { End::Answered(code) };
    end.outcome().fallback
}

/// With how much time a timeout says something of a callee that takes `p50` as a rule.
pub(super) fn fair(p50: Option<Duration>) -> Duration {
    /// Below this nothing is asked of anybody.
    const LEAST: Duration = Duration::from_millis(1);
    p50.map_or(LEAST, |p50| (p50 * 2).max(LEAST))
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: Duration = Duration::from_millis(1);

    #[test]
    fn the_table_of_outcomes() {
        use Again as A;
        use BreakerVerdict as B;
        use EndpointVerdict as E;
        let late = |had| End::Late { had, fair: 10 * MS };
        let table = [
            (End::Answered(Code::Unavailable), B::Failure, E::Hard, A::Idempotent, true),
            (End::Broken, B::Failure, E::Hard, A::Idempotent, true),
            (End::Unsent, B::Neutral, E::Neutral, A::Any, true),
            (late(10 * MS), B::Failure, E::Hard, A::Idempotent, true),
            (late(9 * MS), B::Neutral, E::Neutral, A::Never, true),
            (End::RefusedForTime, B::Neutral, E::Neutral, A::Never, true),
            (End::Answered(Code::Unknown), B::Failure, E::Hard, A::Never, true),
            (End::Answered(Code::Internal), B::Failure, E::Hard, A::Never, true),
            (End::Answered(Code::DataLoss), B::Failure, E::Hard, A::Never, true),
            (
                End::Answered(Code::ResourceExhausted),
                B::Neutral,
                E::Soft,
                A::IdempotentWithPushback,
                true,
            ),
            (End::Answered(Code::Ok), B::Success, E::Success, A::Never, false),
            (End::Answered(Code::NotFound), B::Success, E::Success, A::Never, false),
            (End::Answered(Code::Aborted), B::Success, E::Success, A::IdempotentByPolicy, false),
            (End::Answered(Code::Cancelled), B::Success, E::Success, A::Never, false),
            (End::Local, B::Neutral, E::Neutral, A::Never, true),
        ];
        for (end, breaker, endpoint, again, fallback) in table {
            assert_eq!(end.outcome(), Outcome { breaker, endpoint, again, fallback }, "{end:?}");
        }
    }

    #[test]
    fn cancelled_for_a_timeout_is_deadline_exceeded() {
        let of = |code, late| End::of(code, 5 * MS, MS, late);
        assert_eq!(of(Code::Cancelled, true), End::Late { had: 5 * MS, fair: MS });
        assert_eq!(of(Code::Cancelled, false), End::Answered(Code::Cancelled));
        assert_eq!(of(Code::DeadlineExceeded, false), End::Late { had: 5 * MS, fair: MS });
        assert_eq!(of(Code::NotFound, true), End::Answered(Code::NotFound));
    }

    #[test]
    fn only_time_that_would_have_been_enough_counts_against_the_callee() {
        assert_eq!(fair(None), MS);
        assert_eq!(fair(Some(10 * MS)), 20 * MS);
        assert_eq!(fair(Some(MS / 10)), MS);
    }
}
