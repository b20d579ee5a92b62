//! What a registry said last, kept while it is silent: the same for every kind of registry.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, PoisonError, Weak},
    time::Duration,
};

use tokio::{
    sync::{Notify, watch},
    time::Instant,
};
use tokio_util::sync::{CancellationToken, DropGuard};

use super::{Answer, Failure, Found, Snapshot, Source};
use crate::clock;

/// Between two tries to ask: full jitter below a ceiling that doubles.
pub(super) const BACKOFF: (Duration, Duration) =
    (Duration::from_millis(500), Duration::from_secs(30));
/// How long an answer counts where its registry names no shorter time.
pub(super) const FRESH: Duration = Duration::from_secs(60);
/// How long a service that had instances is still said to have them once the registry knows of
/// none: one that has just lost its memory says so too.
const EMPTY_GRACE: Duration = Duration::from_secs(10);

/// What is known of one service. Dropping it ends the questions.
pub(super) struct Entry {
    shared: Arc<Shared>,
    _stop: DropGuard,
}

/// What the task that asks writes and others read.
struct Shared {
    name: String,
    snapshots: watch::Sender<Arc<Snapshot>>,
    /// Why the last question had no answer.
    failure: watch::Sender<Option<Failure>>,
    hurry: Arc<Notify>,
}

/// The rules, without I/O.
#[derive(Debug, Default)]
struct Known {
    /// Until when the last answer counts.
    fresh_until: Option<Instant>,
    /// Since when the registry has known of no instance, although there were some.
    empty_since: Option<Instant>,
}

/// The wait before the next try.
#[derive(Clone, Copy, Debug)]
pub(super) struct Backoff(Duration);

/// Every entry of the process, for the metrics.
static ENTRIES: Mutex<Vec<Weak<Shared>>> = Mutex::new(Vec::new());

// === impl Entry ===

impl Entry {
    /// Begins to ask, in the background.
    pub(super) fn follow(name: &str, source: impl FnOnce(Arc<Notify>) -> Found) -> Self {
        let hurry = Arc::new(Notify::new());
        let shared = Arc::new(Shared {
            name: name.to_owned(),
            snapshots: watch::Sender::new(Arc::default()),
            failure: watch::Sender::new(None),
            hurry: Arc::clone(&hurry),
        });
        let mut entries = ENTRIES.lock().unwrap_or_else(PoisonError::into_inner);
        entries.retain(|entry| entry.strong_count() > 0);
        entries.push(Arc::downgrade(&shared));
        drop(entries);
        let stop = CancellationToken::new();
        match source(hurry) {
            Found::Fixed(instances) => {
                let fetched_at = Some(clock::instant());
                shared.say(Snapshot { instances, fetched_at, stale: false });
            }
            Found::Asked(source) => {
                let ask = Arc::clone(&shared).ask(source);
                #[expect(
                    clippy::disallowed_methods,
                    reason = "ends with the registry, not with a call"
                )]
                tokio::spawn(stop.clone().run_until_cancelled_owned(ask));
            }
        }
        Self { shared, _stop: stop.drop_guard() }
    }

    pub(super) fn snapshots(&self) -> watch::Receiver<Arc<Snapshot>> {
        self.shared.snapshots.subscribe()
    }

    pub(super) fn failure(&self) -> watch::Receiver<Option<Failure>> {
        self.shared.failure.subscribe()
    }

    /// Asks soon when it is rung.
    pub(super) fn hurry(&self) -> Arc<Notify> {
        Arc::clone(&self.shared.hurry)
    }
}

// === impl Shared ===

impl Shared {
    /// Asks again and again; an answer that does not come changes nothing but its age.
    async fn ask(self: Arc<Self>, mut source: Box<dyn Source>) {
        let mut known = Known::default();
        let mut backoff = Backoff::default();
        loop {
            let failed = {
                let next = source.next();
                tokio::pin!(next);
                loop {
                    tokio::select! {
                        answer = &mut next => break self.take(&mut known, answer),
                        () = at(known.due()) => self.pass(&mut known),
                    }
                }
            };
            if !failed {
                backoff = Backoff::default();
                continue;
            }
            let again = clock::instant() + backoff.next();
            while clock::instant() < again {
                let due = known.due().map_or(again, |due| due.min(again));
                tokio::time::sleep_until(due).await;
                self.pass(&mut known);
            }
        }
    }

    /// Takes an answer in; whether there was none.
    fn take(&self, known: &mut Known, answer: Result<Answer, Failure>) -> bool {
        let at = clock::instant();
        match answer {
            Ok(answer) => {
                self.failure.send_replace(None);
                let next = known.answered(&self.known(), answer, at);
                self.say(next);
                false
            }
            Err(failure) => {
                // Said once for each silence, not for each try.
                if self.failure.send_replace(Some(failure.clone())).is_none() {
                    tracing::warn!(
                        callee = self.name,
                        "the instances of {} stay as they were: {failure}",
                        self.name
                    );
                }
                true
            }
        }
    }

    /// Lets time have its effect.
    fn pass(&self, known: &mut Known) {
        let next = known.pass(&self.known(), clock::instant());
        self.say(next);
    }

    /// What is known now. Nothing can be said while it is borrowed, hence the clone.
    fn known(&self) -> Arc<Snapshot> {
        Arc::clone(&self.snapshots.borrow())
    }

    /// Wakes those who watch only if there is something to do for them.
    fn say(&self, next: Snapshot) {
        self.snapshots.send_if_modified(|was| {
            let changed = was.instances != next.instances
                || was.stale != next.stale
                || was.fetched_at.is_none();
            *was = Arc::new(next);
            changed
        });
    }

    /// For how long nothing was heard, where something should have been.
    fn stale_seconds(&self) -> f64 {
        let known = self.snapshots.borrow();
        match known.fetched_at {
            Some(at) if known.stale => clock::instant().saturating_duration_since(at).as_secs_f64(),
            Some(_) | None => 0.0,
        }
    }
}

// === impl Known ===

impl Known {
    /// When time alone changes something.
    fn due(&self) -> Option<Instant> {
        let empty = self.empty_since.map(|since| since + EMPTY_GRACE);
        match (self.fresh_until, empty) {
            (Some(fresh), Some(empty)) => Some(fresh.min(empty)),
            (fresh, empty) => fresh.or(empty),
        }
    }

    fn answered(&mut self, was: &Snapshot, answer: Answer, at: Instant) -> Snapshot {
        self.fresh_until = Some(at + answer.fresh);
        let mut instances = answer.instances;
        if instances.is_empty() && !was.instances.is_empty() {
            let since = *self.empty_since.get_or_insert(at);
            if at < since + EMPTY_GRACE {
                instances = was.instances.clone();
            } else {
                self.empty_since = None;
            }
        } else {
            self.empty_since = None;
        }
        Snapshot { instances, fetched_at: Some(at), stale: false }
    }

    fn pass(&mut self, was: &Snapshot, at: Instant) -> Snapshot {
        let mut next = was.clone();
        if self.empty_since.is_some_and(|since| since + EMPTY_GRACE <= at) {
            self.empty_since = None;
            next.instances.clear();
        }
        if self.fresh_until.is_some_and(|until| until <= at) {
            self.fresh_until = None;
            next.stale = true;
        }
        next
    }
}

// === impl Backoff ===

impl Default for Backoff {
    fn default() -> Self {
        Self(BACKOFF.0)
    }
}

impl Backoff {
    /// How long to wait this time.
    pub(super) fn next(&mut self) -> Duration {
        let ceiling = self.0;
        self.0 = (ceiling * 2).min(BACKOFF.1);
        jitter(ceiling)
    }
}

/// Anything up to `ceiling`.
pub(super) fn jitter(ceiling: Duration) -> Duration {
    let nanos = u64::try_from(ceiling.as_nanos()).unwrap_or(u64::MAX);
    Duration::from_nanos(fastrand::u64(..=nanos))
}

/// For how long each service's registry has been silent, beyond what it may be.
pub(crate) fn stale_seconds() -> BTreeMap<String, f64> {
    let entries = ENTRIES.lock().unwrap_or_else(PoisonError::into_inner);
    let mut seconds = BTreeMap::new();
    for entry in entries.iter().filter_map(Weak::upgrade) {
        let longest: &mut f64 = seconds.entry(entry.name.clone()).or_default();
        *longest = longest.max(entry.stale_seconds());
    }
    seconds
}

async fn at(when: Option<Instant>) {
    match when {
        Some(when) => tokio::time::sleep_until(when).await,
        None => std::future::pending().await,
    }
}
