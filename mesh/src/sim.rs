//! Whole networks in this one process, in virtual time: clients, servers and the registry are the
//! real ones, the wires between them and the clock are not.
//!
//! Everything that is left to chance is drawn from a seed: the same seed is the same history, to
//! the byte that arrives. Each scenario is played with several seeds; the one that fails is named,
//! and can be played alone.

use std::{
    collections::BTreeMap,
    future::Future,
    hash::{DefaultHasher, Hash as _, Hasher as _},
    panic::AssertUnwindSafe,
    sync::{Arc, Mutex},
    time::Duration,
};

use tokio::{sync::Notify, time::Instant};

use crate::{clock, registry::scripted::Scripted};

mod net;
mod process;
mod caller;
mod tests;

use caller::{Caller, Done};
use net::Net;
use process::{Process, Script};

/// How many seeds each scenario is played with, beside the one that is played twice.
const SEEDS: u64 = 10;
/// Names another number; `cargo xtask test --full` does.
const SEEDS_VAR: &str = "ORDERMESH_SIM_SEEDS";
/// Names the one seed to play.
const SEED_VAR: &str = "ORDERMESH_SIM_SEED";
/// No scenario takes longer, in its own time.
const LONGEST: Duration = Duration::from_secs(2 * 3_600);
/// How much of the history of a failure is shown.
const SHOWN: usize = 30;
/// How long the registry takes to answer, at most.
const LAG: Duration = Duration::from_millis(500);

const MS: Duration = Duration::from_millis(1);
const SECOND: Duration = Duration::from_secs(1);

/// What happened, and when.
#[derive(Clone, Debug)]
struct History {
    born: Instant,
    lines: Arc<Mutex<Vec<String>>>,
}

/// One network with all that is in it.
#[derive(Clone, Debug)]
struct World {
    net: Net,
    registry: Scripted,
    history: History,
    /// How often each write was begun, by what its caller named it.
    effects: Arc<Mutex<BTreeMap<String, u32>>>,
}

/// A value that can be waited for. tokio's `watch` wakes those who wait in an order that no seed
/// decides.
#[derive(Debug, Default)]
pub(crate) struct Told<T> {
    value: Mutex<T>,
    changed: Notify,
}

// === impl Told ===

impl<T> Told<T> {
    fn new(value: T) -> Self {
        Self { value: Mutex::new(value), changed: Notify::new() }
    }

    pub(crate) fn change<R>(&self, change: impl FnOnce(&mut T) -> R) -> R {
        let changed = change(&mut self.value.lock().unwrap());
        self.changed.notify_waiters();
        changed
    }

    pub(crate) fn look<R>(&self, look: impl FnOnce(&T) -> R) -> R {
        look(&self.value.lock().unwrap())
    }

    pub(crate) async fn until(&self, holds: impl Fn(&T) -> bool) {
        loop {
            let changed = self.changed.notified();
            tokio::pin!(changed);
            changed.as_mut().enable();
            if self.look(&holds) {
                return;
            }
            changed.await;
        }
    }
}

// === impl History ===

impl History {
    fn note(&self, what: impl std::fmt::Display) {
        let at = self.born.elapsed().as_micros();
        self.lines.lock().unwrap().push(format!("{at:>10} {what}"));
    }

    fn hash(&self) -> u64 {
        let mut hasher = DefaultHasher::new();
        self.lines.lock().unwrap().hash(&mut hasher);
        hasher.finish()
    }

    fn end(&self) -> String {
        let lines = self.lines.lock().unwrap();
        lines[lines.len().saturating_sub(SHOWN)..].join("\n")
    }
}

// === impl World ===

impl World {
    fn new(seed: u64) -> Self {
        fastrand::seed(seed);
        let history = History { born: clock::instant(), lines: Arc::default() };
        Self {
            net: Net::new(seed, history.clone()),
            registry: Scripted::new(LAG),
            history,
            effects: Arc::default(),
        }
    }

    /// A duration between these, by chance.
    fn any(&self, from: Duration, to: Duration) -> Duration {
        let micros = |time: Duration| u64::try_from(time.as_micros()).unwrap();
        Duration::from_micros(fastrand::u64(micros(from)..=micros(to)))
    }

    /// How long this has gone on.
    fn at(&self) -> Duration {
        self.history.born.elapsed()
    }

    async fn passes(&self, time: Duration) {
        tokio::time::sleep(time).await;
    }
}

/// Plays a scenario with every seed, and with the first of them twice.
fn play(scenario: impl AsyncFn(&World)) {
    let name = std::any::type_name_of_val(&scenario).trim_end_matches("::{{closure}}");
    let name = name.split_once("::").map_or(name, |(_, name)| name);
    if let Some(seed) = number(SEED_VAR) {
        run(name, seed, &scenario);
        return;
    }
    let first = run(name, 0, &scenario);
    let again = run(name, 0, &scenario);
    same(&first, &again);
    for seed in 1..number(SEEDS_VAR).unwrap_or(SEEDS) {
        run(name, seed, &scenario);
    }
}

/// Plays it once: what happened.
fn run(name: &str, seed: u64, scenario: &impl AsyncFn(&World)) -> History {
    let mut builder = tokio::runtime::Builder::new_current_thread();
    let runtime = builder.enable_time().start_paused(true).build().unwrap();
    let _entered = runtime.enter();
    let world = World::new(seed);
    let played = std::panic::catch_unwind(AssertUnwindSafe(|| {
        runtime.block_on(tokio::time::timeout(LONGEST, scenario(&world))).expect("it ends");
    }));
    let history = world.history.clone();
    assert!(
        played.is_ok(),
        "{name} fails with seed {seed} after {:?}; the end of it:\n{}\n\
         to play it alone: {SEED_VAR}={seed} cargo test -p mesh --lib {name}",
        world.at(),
        history.end(),
    );
    history
}

/// Says where two histories part, if they do.
fn same(first: &History, again: &History) {
    if first.hash() == again.hash() {
        return;
    }
    let (first, again) = (first.lines.lock().unwrap(), again.lines.lock().unwrap());
    let parts = first.iter().zip(&*again).position(|(first, again)| first != again);
    let at = parts.unwrap_or(first.len().min(again.len()));
    let (first, again) = (first.get(at), again.get(at));
    panic!("the same seed was another history from line {at} on: {first:?}, {again:?}");
}

fn number(variable: &str) -> Option<u64> {
    let text = std::env::var(variable).ok()?;
    Some(text.parse().unwrap_or_else(|_| panic!("{variable}={text} is not a number")))
}

#[expect(clippy::disallowed_methods, reason = "ends with the runtime of the scenario")]
fn spawn<F>(future: F) -> tokio::task::JoinHandle<F::Output>
where
    F: Future<Output: Send + 'static> + Send + 'static,
{
    tokio::spawn(future)
}
