//! The instances of a callee, as the registry knows them now.

use std::{
    collections::{BTreeMap, HashSet},
    sync::{Arc, Mutex, PoisonError, Weak, atomic::AtomicU32},
    time::Duration,
};

use arc_swap::ArcSwap;
use serde_json::Value;
use tokio::{
    sync::{Notify, watch},
    time::Instant,
};
use tokio_util::sync::CancellationToken;

use super::{
    Settings, Tried,
    instance::{Instance, LINES},
    keep,
    pick::Pick,
};
use crate::{
    client::{
        balance::{self, Balance, Places, Rotation},
        callee,
        gate::{self, Rate},
    },
    clock,
    registry::Snapshot,
    telemetry,
};

/// All instances of a callee.
#[derive(Debug)]
pub(super) struct Set {
    pub(super) name: String,
    pub(super) settings: Settings,
    /// Those that may be called.
    all: ArcSwap<Vec<Arc<Instance>>>,
    /// Those that were removed, for as long as calls are under way there.
    drained: Mutex<Vec<Weak<Instance>>>,
    /// One instance is judged at a time, so that two do not take each other's room.
    judging: Mutex<()>,
    rotation: Rotation,
    /// Calls while there is an instance of which nothing was heard for long.
    doubtful: AtomicU32,
    /// Which of many instances are this client's.
    client: u64,
    began: Instant,
    /// Rings when a connection has opened.
    pub(super) connected: Notify,
    pub(super) close: CancellationToken,
}

// === impl Set ===

impl Set {
    pub(super) fn new(name: &str, settings: Settings) -> Arc<Self> {
        Arc::new(Self {
            name: name.to_owned(),
            settings,
            all: ArcSwap::default(),
            drained: Mutex::default(),
            judging: Mutex::default(),
            rotation: Rotation::default(),
            doubtful: AtomicU32::new(0),
            client: fastrand::u64(..),
            began: clock::instant(),
            connected: Notify::new(),
            close: CancellationToken::new(),
        })
    }

    /// The time that its instances go by.
    pub(super) fn at(&self) -> Duration {
        self.time(clock::instant())
    }

    pub(super) fn time(&self, now: Instant) -> Duration {
        now.saturating_duration_since(self.began)
    }

    /// Follows the registry for as long as it may say something new.
    pub(super) async fn follow(self: Arc<Self>, mut known: watch::Receiver<Arc<Snapshot>>) {
        while known.changed().await.is_ok() {
            let snapshot = Arc::clone(&known.borrow_and_update());
            self.update(&snapshot);
        }
    }

    /// Makes the instances those of `snapshot`: new ones begin, known ones go on, those that are
    /// gone or have moved finish what they have.
    pub(super) fn update(self: &Arc<Self>, snapshot: &Snapshot) {
        let before = self.all.load_full();
        let mut ids = HashSet::new();
        let known = snapshot.instances.iter().filter(|known| ids.insert(known.id.as_str()));
        let known = balance::subset(self.client, known.collect(), |known| known.id.as_str());
        let mut after = Vec::with_capacity(known.len());
        for known in known {
            let same = |one: &&Arc<Instance>| one.id == known.id && one.address == known.address;
            if let Some(same) = before.iter().find(same) {
                same.set_weight(known.weight);
                after.push(Arc::clone(same));
                continue;
            }
            let latency = self.latency(None, self.at());
            let Some(new) = Instance::new(self, known, latency).map(Arc::new) else {
                tracing::warn!(callee = self.name, "{} is not an address", known.address);
                continue;
            };
            tracing::debug!(callee = self.name, instance = new.id, "{} is new", new.id);
            for slot in 0..LINES {
                let keep = keep::keep(Arc::clone(self), Arc::clone(&new), slot);
                #[expect(
                    clippy::disallowed_methods,
                    reason = "ends with the instance, not with a call"
                )]
                tokio::spawn(keep);
            }
            after.push(new);
        }
        self.all.store(Arc::new(after.clone()));
        let gone = |one: &&Arc<Instance>| !after.iter().any(|other| other.serial == one.serial);
        let mut drained = self.drained.lock().unwrap_or_else(PoisonError::into_inner);
        drained.retain(|one| one.strong_count() > 0);
        for gone in before.iter().filter(gone) {
            tracing::debug!(callee = self.name, instance = gone.id, "{} is gone", gone.id);
            drained.push(Arc::downgrade(gone));
            gone.drain.cancel();
        }
    }

    /// The instance for a call, `now` or as soon as one can be reached, and when that was; `None` if
    /// that `fails`.
    pub(super) async fn pick(
        &self,
        tried: &Tried,
        back: &Tried,
        now: Instant,
        fails: Instant,
    ) -> Option<(Pick, Instant)> {
        if let Some(pick) = self.choose(tried, back, self.time(now)) {
            return Some((pick, now));
        }
        loop {
            let connected = self.connected.notified();
            tokio::pin!(connected);
            // Listening before looking again: a connection that opens in between is not missed.
            connected.as_mut().enable();
            let found = clock::instant();
            if let Some(pick) = self.choose(tried, back, self.time(found)) {
                return Some((pick, found));
            }
            if tokio::time::timeout_at(fails, connected).await.is_err() {
                callee::count(&telemetry::metrics().no_endpoints, &self.name);
                return None;
            }
        }
    }

    fn choose(&self, tried: &Tried, back: &Tried, at: Duration) -> Option<Pick> {
        let all = self.all.load();
        let none = Places::default();
        let (mut ready, mut ejected, mut asked, mut old) = (none, none, none, none);
        let looks = tried.may_look() && self.settings.balance == Balance::P2c;
        for (place, instance) in all.iter().enumerate() {
            if !instance.is_ready() {
                continue;
            }
            ready = ready.with(place);
            if tried.has(instance) || back.has(instance) {
                asked = asked.with(place);
            } else if instance.probe(at) {
                // Somebody has to try it, or it would never come back.
                return Some(Pick::new(Arc::clone(instance), true));
            }
            if instance.is_out() {
                ejected = ejected.with(place);
            }
            if looks && instance.is_old(at) {
                old = old.with(place);
            }
        }
        let candidates = balance::candidates(all.len(), ready, ejected, asked);
        if let Some(again) = balance::revisit(candidates, old, &self.doubtful) {
            return Some(Pick::new(Arc::clone(all.get(again)?), false));
        }
        let chosen = match self.settings.balance {
            Balance::P2c => balance::choose(
                candidates,
                |below| fastrand::u32(..below),
                |place| all.get(place).map_or(f32::MAX, |instance| instance.cost(at)),
            ),
            Balance::RoundRobin => {
                let weight = |place: usize| all.get(place).map_or(1, |instance| instance.weight());
                let turn = self.rotation.next(candidates.iter().map(weight));
                turn.and_then(|turn| candidates.iter().nth(turn))
            }
        };
        Some(Pick::new(Arc::clone(all.get(chosen?)?), false))
    }

    /// Takes a suspect out if it is worse than the others, and there is room.
    pub(super) fn judge(&self, suspect: &Instance, at: Duration) {
        let _judging = self.judging.lock().unwrap_or_else(PoisonError::into_inner);
        let all = self.all.load();
        let out = all.iter().filter(|instance| instance.is_out()).count();
        if suspect.is_out() || !gate::room(all.len(), out) {
            return;
        }
        let this = suspect.gate().rate(at);
        let rest = all
            .iter()
            .filter(|instance| instance.serial != suspect.serial && !instance.is_out())
            .fold(Rate::default(), |sum, instance| sum.plus(instance.gate().rate(at)));
        if !gate::worse(this, rest) {
            return;
        }
        suspect.eject(at);
        self.count_ejection();
        let Rate { calls, failures } = this;
        let (callee, id) = (&self.name, &suspect.id);
        tracing::warn!(callee, instance = id, calls, failures, "{id} is taken out: it fails");
    }

    /// It was tried, and failed.
    pub(super) fn stays_out(&self, id: &str) {
        self.count_ejection();
        let callee = &self.name;
        tracing::warn!(callee, instance = id, "{id} stays out: it failed when it was tried");
    }

    fn count_ejection(&self) {
        callee::count(&telemetry::metrics().ejections, &self.name);
    }

    /// What a call takes at the instances that were measured, without `but`.
    pub(super) fn latency(&self, but: Option<&Instance>, at: Duration) -> Duration {
        let all = self.all.load();
        let peers = all.iter().filter(|peer| {
            peer.load.measured()
                && !peer.is_out()
                && but.is_none_or(|but| but.serial != peer.serial)
        });
        balance::median(peers.map(|peer| peer.load.latency(at)).collect())
    }

    pub(super) fn view(&self) -> Value {
        let at = self.at();
        self.known().iter().map(|instance| instance.view(at)).collect()
    }

    pub(super) fn trouble(&self) -> Option<String> {
        let all = self.all.load();
        if all.iter().any(|instance| instance.is_ready()) {
            return None;
        }
        all.iter().find_map(|instance| instance.last_error())
    }

    pub(super) fn count(&self) -> usize {
        self.all.load().len()
    }

    pub(super) fn states(&self) -> BTreeMap<&'static str, u64> {
        let mut states = BTreeMap::new();
        for instance in self.known() {
            *states.entry(instance.state()).or_default() += 1;
        }
        states
    }

    /// Those that may be called, and those that finish what they have.
    fn known(&self) -> Vec<Arc<Instance>> {
        let drained = self.drained.lock().unwrap_or_else(PoisonError::into_inner);
        self.all.load().iter().cloned().chain(drained.iter().filter_map(Weak::upgrade)).collect()
    }
}
