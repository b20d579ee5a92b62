//! When a signing key is made, used, published and forgotten.
//!
//! A key is published before it signs, so that every verifier knows it in time, and stays
//! published until the last token that it signed has expired.

use time::{Duration, OffsetDateTime};

use super::session::SERVICE_TOKEN;

/// How long a new key is published before it signs: twice the time that verifiers keep a set
/// of keys for.
pub const PUBLISHED_AHEAD: Duration = Duration::minutes(10);
/// How long a key that signs no more stays published: the longest token, and some leeway.
pub const PUBLISHED_AFTER: Duration = SERVICE_TOKEN.saturating_add(Duration::minutes(5));

/// One key, as far as time is concerned.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Key {
    /// Its number: one more than that of the key before.
    pub generation: i64,
    /// When it begins to sign.
    pub active_at: OffsetDateTime,
}

/// What is to be done about the keys now.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Plan {
    /// A key to be made.
    pub make: Option<Key>,
    /// Keys, by generation, that no valid token was signed with.
    pub forget: Vec<i64>,
}

/// Says what is to be done; `keys` in the order of their generations, `age_max` after which a
/// key gets a successor.
#[must_use]
pub fn plan(keys: &[Key], age_max: Duration, at: OffsetDateTime) -> Plan {
    let make = match keys.last() {
        None => Some(Key { generation: 1, active_at: at }),
        Some(newest) if newest.active_at + age_max <= at => {
            Some(Key { generation: newest.generation + 1, active_at: at + PUBLISHED_AHEAD })
        }
        Some(_young) => None,
    };
    let forget = keys
        .windows(2)
        .filter_map(|pair| match pair {
            [old, next] if next.active_at + PUBLISHED_AFTER <= at => Some(old.generation),
            _ => None,
        })
        .collect();
    Plan { make, forget }
}

/// Which key signs at `at`: the newest that has begun to. Before the first one has, it is that
/// one: the clock of the replica that made it is ahead of ours. `None` only without any key.
#[must_use]
pub fn signing(keys: &[Key], at: OffsetDateTime) -> Option<Key> {
    keys.iter().rev().find(|key| key.active_at <= at).or(keys.first()).copied()
}

#[cfg(test)]
mod tests {
    use time::macros::datetime;

    use super::*;

    const NOON: OffsetDateTime = datetime!(2026-03-01 12:00 UTC);
    const MONTH: Duration = Duration::days(30);

    fn key(generation: i64, active_at: OffsetDateTime) -> Key {
        Key { generation, active_at }
    }

    #[test]
    fn the_first_key_signs_at_once_and_a_later_one_after_it_is_known() {
        let first = key(1, NOON);
        let old = NOON + MONTH;
        let second = key(2, old + PUBLISHED_AHEAD);
        for (keys, at, make) in [
            (vec![], NOON, Some(first)),
            (vec![first], NOON, None),
            (vec![first], old - Duration::SECOND, None),
            (vec![first], old, Some(second)),
            (vec![first, second], old, None),
        ] {
            assert_eq!(plan(&keys, MONTH, at).make, make, "{keys:?} at {at}");
        }
    }

    #[test]
    fn a_key_is_forgotten_once_nothing_it_signed_is_valid() {
        let keys = [key(1, NOON), key(2, NOON + MONTH)];
        let over = NOON + MONTH + PUBLISHED_AFTER;
        assert_eq!(plan(&keys, MONTH, over - Duration::SECOND).forget, Vec::<i64>::new());
        assert_eq!(plan(&keys, MONTH, over).forget, [1]);
    }

    #[test]
    fn the_newest_key_that_has_begun_signs() {
        let keys = [key(1, NOON), key(2, NOON + MONTH)];
        for (at, expected) in [
            (NOON - Duration::SECOND, Some(1)),
            (NOON, Some(1)),
            (NOON + MONTH - Duration::SECOND, Some(1)),
            (NOON + MONTH, Some(2)),
        ] {
            assert_eq!(signing(&keys, at).map(|key| key.generation), expected, "{at}");
        }
        assert_eq!(signing(&[], NOON), None);
    }

    #[test]
    fn at_any_moment_of_three_rotations_the_key_of_every_valid_token_is_published() {
        let mut keys: Vec<Key> = Vec::new();
        // Tokens that are out: the generation that signed them and when they end.
        let mut out: Vec<(i64, OffsetDateTime)> = Vec::new();
        let age_max = Duration::hours(6);
        for minutes in 0..(24 * 60) {
            let at = NOON + Duration::minutes(minutes);
            let plan = plan(&keys, age_max, at);
            keys.extend(plan.make);
            keys.retain(|key| !plan.forget.contains(&key.generation));
            let signing = signing(&keys, at).expect("there is always one that signs");
            out.push((signing.generation, at + SERVICE_TOKEN));
            out.retain(|(_, ends)| *ends > at);
            for (generation, _) in &out {
                assert!(keys.iter().any(|key| key.generation == *generation), "{at}");
            }
        }
        assert!(keys.last().is_some_and(|key| key.generation >= 4), "{keys:?}");
    }
}
