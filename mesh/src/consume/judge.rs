//! What a failure means for the event that it happened to: pure, so that every case can be seen.

use std::time::Duration;

use super::Trouble;

/// Why an event was not taken in, seen from outside of its handler.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Fault {
    /// Something is away; with time it comes back.
    Away(String),
    /// It can never be taken in.
    Hopeless(String),
    /// The handler is wrong about it: a panic, or a rule of the database that said no.
    Bug(String),
}

/// What to do about an event that failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Next {
    /// Again, after this time.
    Again(Duration),
    /// Park it.
    Park,
}

/// Why an event is among the dead letters.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Cause {
    Permanent,
    Bug,
    Behind,
}

/// How often a handler may be wrong about an event.
const TRIES: u32 = 3;

/// Between the tries in place.
const IN_PLACE: Duration = Duration::from_millis(50);

/// Then, and from the last of them on twice as long each time.
const LATER: [Duration; 3] =
    [Duration::from_secs(1), Duration::from_secs(5), Duration::from_secs(10)];

const LONGEST: Duration = Duration::from_secs(300);

// === impl Fault ===

impl Fault {
    pub(super) fn of(trouble: Trouble) -> Self {
        match trouble {
            Trouble::Transient(why) => Self::Away(why),
            Trouble::Permanent(why) => Self::Hopeless(why),
            Trouble::Failed(failure) => {
                let why = crate::status::with_causes(&failure);
                if super::store::is_refusal(&failure) { Self::Bug(why) } else { Self::Away(why) }
            }
        }
    }

    /// What to do after the `tries`-th try failed with this.
    pub(super) fn next(&self, tries: u32) -> Next {
        match self {
            Self::Hopeless(_) => Next::Park,
            Self::Bug(_) if tries >= TRIES => Next::Park,
            Self::Bug(_) => Next::Again(IN_PLACE),
            Self::Away(_) => Next::Again(pause(tries)),
        }
    }

    pub(super) fn cause(&self) -> Cause {
        match self {
            Self::Bug(_) => Cause::Bug,
            Self::Away(_) | Self::Hopeless(_) => Cause::Permanent,
        }
    }

    pub(super) fn why(&self) -> &str {
        match self {
            Self::Away(why) | Self::Hopeless(why) | Self::Bug(why) => why,
        }
    }
}

// === impl Cause ===

impl Cause {
    pub(super) fn as_str(self) -> &'static str {
        match self {
            Self::Permanent => "PERMANENT",
            Self::Bug => "BUG",
            Self::Behind => "BEHIND",
        }
    }
}

/// Three times in place, then later and later.
fn pause(tries: u32) -> Duration {
    let Some(later) = tries.checked_sub(TRIES) else { return IN_PLACE };
    match LATER.get(usize::try_from(later).unwrap_or(usize::MAX)) {
        Some(pause) => *pause,
        None => {
            let doublings = later.saturating_sub(2).min(16);
            LATER[2].saturating_mul(1 << doublings).min(LONGEST)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::Failure;

    const S: Duration = Duration::from_secs(1);

    #[test]
    fn what_is_away_is_waited_for_longer_and_longer_and_never_parked() {
        let away = Fault::of(Trouble::Transient("no route".to_owned()));
        let pauses: Vec<_> = (1..=9).map(|tries| away.next(tries)).collect();
        let expected = [IN_PLACE, IN_PLACE, S, 5 * S, 10 * S, 20 * S, 40 * S, 80 * S, 160 * S];
        assert_eq!(pauses, expected.map(Next::Again));
        assert_eq!(away.next(10), Next::Again(LONGEST));
        assert_eq!(away.next(u32::MAX), Next::Again(LONGEST));
        // A database that is away is no fault of the event.
        let lost = Trouble::Failed(Failure::new("write", "connection reset"));
        assert_eq!(Fault::of(lost).next(100), Next::Again(LONGEST));
    }

    #[test]
    fn a_bug_has_three_tries_and_what_is_hopeless_has_one() {
        let bug = Fault::Bug("a panic".to_owned());
        assert_eq!([1, 2, 3].map(|tries| bug.next(tries) == Next::Park), [false, false, true]);
        let hopeless = Fault::of(Trouble::Permanent("no such type".to_owned()));
        assert_eq!(hopeless.next(1), Next::Park);
    }
}
