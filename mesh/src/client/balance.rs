//! Which instance gets a call: arithmetic without I/O, time and chance are handed in.
//!
//! Of two instances taken at random the one with the lower cost is chosen: expected latency,
//! times what it has to do already, by weight. Latency is a *peak* EWMA: a slower answer counts
//! at once, a faster one over ten seconds, so that an instance is left quickly and found again
//! slowly. One that is left so is looked at again by a call now and then, or whoever was cut off
//! for a while would be asked little for more than a minute after.

use std::{
    str::FromStr,
    sync::atomic::{AtomicU32, AtomicU64, Ordering},
    time::Duration,
};

/// Instances that one client is connected to; of more, each client takes its own choice.
pub(super) const SUBSET: usize = 16;
/// What latency is taken for until there is anything to go by.
pub(super) const GUESS: Duration = Duration::from_millis(5);
/// How long it takes until a latency counts a third of what it did.
const DECAY: Duration = Duration::from_secs(10);
/// How long a new instance takes until it gets its full share, and with what part it begins.
const RAMP: (Duration, f32) = (Duration::from_secs(10), 0.1);
/// A hard failure counts as an answer that took this long, or ten times what was usual.
const PENALTY: Duration = Duration::from_millis(100);
/// No latency counts as longer: no server of ours works longer on a call. Without a bound an
/// instance that failed ten times in a row would be avoided for minutes after its repair.
const LONGEST: Duration = Duration::from_secs(10);
/// Nothing was heard of an instance for so long: its latency is doubted, and the next answer takes
/// the place of what was known.
const OLD: Duration = Duration::from_secs(3);
/// While there is such an instance, it gets one call in so many: less than a fiftieth, however
/// slow it still is.
const REVISIT: u32 = 64;
/// The clock of [`Load`] ticks every 2^6 µs and goes round after 76 hours.
const TICK: u32 = 6;

/// How calls are spread.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Balance {
    /// Of two instances, taken at random, the one with the lower cost.
    #[default]
    P2c,
    /// In turn, each as often as its weight says.
    RoundRobin,
}

/// A way to balance that there is not.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is not a way to balance; use p2c or round_robin")]
pub(super) struct Unknown(String);

/// The latency of an instance: a peak EWMA in seconds and when it was brought up to date, in
/// one word. An estimate that nothing was measured for is negative.
#[derive(Debug)]
pub(super) struct Load(AtomicU64);

/// Places in a list of at most [`SUBSET`] instances, as bits.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Places(u32);

/// Whose turn it is, by weight.
#[derive(Debug, Default)]
pub(super) struct Rotation(AtomicU64);

// === impl Balance ===

impl Balance {
    /// As flags give it.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::P2c => "p2c",
            Self::RoundRobin => "round_robin",
        }
    }
}

impl FromStr for Balance {
    type Err = Unknown;

    fn from_str(name: &str) -> Result<Self, Unknown> {
        match name {
            "p2c" => Ok(Self::P2c),
            "round_robin" => Ok(Self::RoundRobin),
            _ => Err(Unknown(name.to_owned())),
        }
    }
}

// === impl Load ===

impl Load {
    /// An instance of which nothing is known but what its peers take.
    pub(super) fn guess(latency: Duration, at: Duration) -> Self {
        Self(AtomicU64::new(pack(-latency.as_secs_f32(), ticks(at))))
    }

    /// Forgets what was measured.
    pub(super) fn reset(&self, latency: Duration, at: Duration) {
        self.0.store(pack(-latency.as_secs_f32(), ticks(at)), Ordering::Relaxed);
    }

    /// Takes an answer in.
    pub(super) fn observe(&self, latency: Duration, at: Duration) {
        self.update(at, |_| latency);
    }

    /// Takes in that an answer would have taken longer than this.
    pub(super) fn outlasted(&self, latency: Duration, at: Duration) {
        if latency > self.latency(at) {
            self.observe(latency, at);
        }
    }

    /// Takes a hard failure in. Without the penalty the instance that fails fastest would look
    /// best of all.
    pub(super) fn fail(&self, latency: Duration, at: Duration) {
        self.update(at, |usual| latency.max(usual * 10).max(PENALTY));
    }

    /// What an answer takes, as it looks at `at`.
    pub(super) fn latency(&self, at: Duration) -> Duration {
        let (estimate, then) = unpack(self.0.load(Ordering::Relaxed));
        Duration::try_from_secs_f32(estimate.abs() * kept(then, ticks(at))).unwrap_or(LONGEST)
    }

    /// What one more call costs where `pending` are under way already.
    pub(super) fn cost(&self, pending: u16, weight: f32, at: Duration) -> f32 {
        let (estimate, then) = unpack(self.0.load(Ordering::Relaxed));
        estimate.abs() * kept(then, ticks(at)) * (f32::from(pending) + 1.0) / weight
    }

    /// Whether what is known, or was guessed of peers that may have been sick, is doubted by now.
    pub(super) fn is_old(&self, at: Duration) -> bool {
        let (_, then) = unpack(self.0.load(Ordering::Relaxed));
        passed(then, ticks(at)) >= OLD
    }

    /// Whether anything was measured.
    pub(super) fn measured(&self) -> bool {
        unpack(self.0.load(Ordering::Relaxed)).0.is_sign_positive()
    }

    fn update(&self, at: Duration, latency: impl Fn(Duration) -> Duration) {
        let now = ticks(at);
        let next = |word| {
            let (estimate, then) = unpack(word);
            let kept = kept(then, now);
            let usual = Duration::try_from_secs_f32(estimate.abs() * kept).unwrap_or(LONGEST);
            let latency = latency(usual).min(LONGEST).as_secs_f32();
            let guessed = estimate.is_sign_negative();
            let estimate = if guessed || latency > estimate || passed(then, now) >= OLD {
                latency
            } else {
                latency + (estimate - latency) * kept
            };
            Some(pack(estimate, now))
        };
        // Never an error: there always is a next one.
        let _updated = self.0.fetch_update(Ordering::Relaxed, Ordering::Relaxed, next).is_ok();
    }
}

// === impl Places ===

impl Places {
    /// With `place` among them.
    pub(super) fn with(self, place: usize) -> Self {
        Self(self.0 | u32::try_from(place).map_or(0, |place| 1_u32.checked_shl(place).unwrap_or(0)))
    }

    /// Those that are not in `other`.
    pub(super) fn without(self, other: Self) -> Self {
        Self(self.0 & !other.0)
    }

    pub(super) fn is_empty(self) -> bool {
        self.0 == 0
    }

    pub(super) fn count(self) -> u32 {
        self.0.count_ones()
    }

    pub(super) fn iter(self) -> impl Iterator<Item = usize> + Clone {
        (0..SUBSET).filter(move |place| self.0 >> place & 1 == 1)
    }

    fn nth(self, n: u32) -> Option<usize> {
        self.iter().nth(usize::try_from(n).ok()?)
    }
}

// === impl Rotation ===

impl Rotation {
    /// The next of `weights`, by its index. Over as many turns as the weights sum up to, each is
    /// taken exactly as often as its weight says; the turns of a heavy one are spread.
    pub(super) fn next(&self, weights: impl Iterator<Item = u32> + Clone) -> Option<usize> {
        nth_turn(self.0.fetch_add(1, Ordering::Relaxed), weights)
    }
}

/// What may be chosen: `ready`, but not `ejected`, and if possible not `tried`. Where fewer than
/// half of `all` are left, ejections are ignored: then it is not the instances.
pub(super) fn candidates(all: usize, ready: Places, ejected: Places, tried: Places) -> Places {
    let usable = ready.without(ejected);
    let panic = usize::try_from(usable.count()).is_ok_and(|usable| usable * 2 < all);
    let usable = if panic { ready } else { usable };
    let fresh = usable.without(tried);
    if fresh.is_empty() { usable } else { fresh }
}

/// Of two taken at random the one that costs less. `random` gives a number below its argument.
pub(super) fn choose(
    candidates: Places,
    mut random: impl FnMut(u32) -> u32,
    cost: impl Fn(usize) -> f32,
) -> Option<usize> {
    let count = candidates.count();
    if count < 2 {
        return candidates.nth(0);
    }
    let first = random(count);
    let second = random(count - 1);
    // Two different ones, each pair as likely as any other.
    let second = second + u32::from(second >= first);
    let (first, second) = (candidates.nth(first)?, candidates.nth(second)?);
    Some(if cost(first) <= cost(second) { first } else { second })
}

/// One of the `old` candidates, for every [`REVISIT`]th call while there is one. Where nothing was
/// heard of any of them there is nothing to go by.
pub(super) fn revisit(candidates: Places, old: Places, calls: &AtomicU32) -> Option<usize> {
    let doubted = candidates.without(candidates.without(old));
    if doubted.is_empty() || doubted == candidates {
        return None;
    }
    let call = calls.fetch_add(1, Ordering::Relaxed) + 1;
    if call.is_multiple_of(REVISIT) { doubted.nth(call / REVISIT % doubted.count()) } else { None }
}

/// Part of its weight that an instance gets `age` after it could first be reached.
pub(super) fn ramp(age: Duration) -> f32 {
    (age.as_secs_f32() / RAMP.0.as_secs_f32()).clamp(RAMP.1, 1.0)
}

/// What an instance begins with: the median of its peers.
pub(super) fn median(mut peers: Vec<Duration>) -> Duration {
    peers.sort_unstable();
    peers.get(peers.len() / 2).copied().unwrap_or(GUESS)
}

/// The instances that a client connects to, if there are more than [`SUBSET`]: by rendezvous, so
/// that each client has its own and an instance that comes or goes moves no others.
pub(super) fn subset<T>(client: u64, mut all: Vec<T>, id: impl Fn(&T) -> &str) -> Vec<T> {
    if all.len() > SUBSET {
        all.sort_by_cached_key(|one| std::cmp::Reverse(score(client, id(one))));
        all.truncate(SUBSET);
    }
    all
}

fn score(client: u64, id: &str) -> u64 {
    // FNV-1a, then the finalizer of splitmix64: the same in every build, unlike std's hasher.
    let hash = id.bytes().fold(client ^ 0xcbf2_9ce4_8422_2325, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
    });
    let hash = (hash ^ (hash >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let hash = (hash ^ (hash >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    hash ^ (hash >> 31)
}

fn nth_turn(turn: u64, weights: impl Iterator<Item = u32> + Clone) -> Option<usize> {
    let common = weights.clone().map(u64::from).fold(0, gcd).max(1);
    let weights = weights.map(|weight| u64::from(weight) / common);
    let total: u64 = weights.clone().sum();
    let place = turn.checked_rem(total)?;
    // Steps of the golden section that share no divisor with the total visit every place once a
    // round, and spread the places of one instance over it.
    let step = (total * 618 / 1_000..).find(|step| gcd(*step, total) == 1).unwrap_or(1);
    let place = u128::from(place) * u128::from(step) % u128::from(total);
    let ends = weights.scan(0, |end, weight| {
        *end += u128::from(weight);
        Some(*end)
    });
    ends.enumerate().find(|(_, end)| place < *end).map(|(index, _)| index)
}

fn gcd(a: u64, b: u64) -> u64 {
    if b == 0 { a } else { gcd(b, a % b) }
}

/// What is left of an estimate: all at `then`, a third ten seconds later.
fn kept(then: u32, now: u32) -> f32 {
    let passed = passed(then, now);
    if passed.is_zero() {
        return 1.0;
    }
    (-(passed.as_secs_f32() / DECAY.as_secs_f32())).exp()
}

fn passed(then: u32, now: u32) -> Duration {
    let passed = now.wrapping_sub(then);
    // Another thread may have been here with a later clock.
    let passed = if passed > u32::MAX / 2 { 0 } else { passed };
    Duration::from_micros(u64::from(passed) << TICK)
}

fn ticks(at: Duration) -> u32 {
    u32::try_from(at.as_micros() >> TICK & u128::from(u32::MAX)).unwrap_or_default()
}

fn pack(estimate: f32, ticks: u32) -> u64 {
    u64::from(estimate.to_bits()) << 32 | u64::from(ticks)
}

fn unpack(word: u64) -> (f32, u32) {
    let [a, b, c, d, ticks @ ..] = word.to_be_bytes();
    (f32::from_bits(u32::from_be_bytes([a, b, c, d])), u32::from_be_bytes(ticks))
}

#[cfg(test)]
mod tests;
