//! One instance of a callee: how fast it is, whether it is well, and the connections to it.

use std::{
    sync::{
        Arc, Mutex, MutexGuard, PoisonError, Weak,
        atomic::{AtomicBool, AtomicU32, AtomicU64, AtomicUsize, Ordering},
    },
    time::Duration,
};

use arc_swap::ArcSwapOption;
use http::uri;
use serde_json::{Value, json};
use tokio::{sync::Notify, time::Instant};
use tokio_util::sync::CancellationToken;

use super::set::Set;
use crate::{
    client::{
        balance::{self, Load},
        classify::EndpointVerdict,
        connect,
        gate::{Change, Gate},
        http2::{Connected, Sender},
        long::{Lane, Lanes},
    },
    registry::{self, Address},
};

/// Connections for all calls, to one instance.
pub(super) const LINES: usize = 2;
/// Where the state of the gate is "in" or "a probe is under way" instead of a time.
const IN: u64 = 0;
const PROBED: u64 = u64::MAX;

static SERIALS: AtomicU64 = AtomicU64::new(1);

/// One instance.
#[derive(Debug)]
pub(super) struct Instance {
    /// Tells it from all others that this process ever knew.
    pub(super) serial: u64,
    pub(super) id: String,
    pub(super) address: Address,
    pub(super) authority: uri::Authority,
    weight: AtomicU32,
    pub(super) load: Load,
    /// Calls under way.
    pub(super) pending: AtomicU32,
    gate: Mutex<Gate>,
    /// What the gate says, for those who only look: `IN`, `PROBED`, or since when (in microseconds
    /// of the set's clock) a probe is due.
    out: AtomicU64,
    /// When it could first be reached, or came back: microseconds plus one, 0 for never.
    since: AtomicU64,
    pub(super) lines: [ArcSwapOption<Line>; LINES],
    pub(super) lanes: Lanes,
    /// Asks for the second connection.
    pub(super) crowded: Notify,
    /// It was removed: no new calls, and its connections close with their last.
    pub(super) drain: CancellationToken,
    last_error: Mutex<Option<String>>,
    set: Weak<Set>,
}

/// A connection that all calls share.
#[derive(Debug)]
pub(super) struct Line {
    pub(super) sender: Sender,
    /// Streams in use.
    used: AtomicUsize,
    /// Whether any was ever begun.
    begun: AtomicBool,
}

// === impl Instance ===

impl Instance {
    /// `None` if there can be nothing at such an address.
    pub(super) fn new(
        set: &Arc<Set>,
        known: &registry::Instance,
        latency: Duration,
    ) -> Option<Self> {
        Some(Self {
            serial: SERIALS.fetch_add(1, Ordering::Relaxed),
            id: known.id.clone(),
            address: known.address.clone(),
            authority: known.address.to_string().parse().ok()?,
            weight: AtomicU32::new(known.weight.max(1)),
            load: Load::guess(latency, set.at()),
            pending: AtomicU32::new(0),
            gate: Mutex::default(),
            out: AtomicU64::new(IN),
            since: AtomicU64::new(0),
            lines: Default::default(),
            lanes: Lanes::default(),
            crowded: Notify::new(),
            drain: set.close.child_token(),
            last_error: Mutex::default(),
            set: Arc::downgrade(set),
        })
    }

    pub(super) fn weight(&self) -> u32 {
        self.weight.load(Ordering::Relaxed)
    }

    pub(super) fn set_weight(&self, weight: u32) {
        self.weight.store(weight.max(1), Ordering::Relaxed);
    }

    /// What one more call costs here.
    pub(super) fn cost(&self, at: Duration) -> f32 {
        let since = Duration::from_micros(self.since.load(Ordering::Relaxed));
        let ramp = balance::ramp(at.saturating_sub(since));
        // Far above any real weight; below, the conversion is exact.
        let weight = u16::try_from(self.weight()).unwrap_or(u16::MAX);
        let pending = self.pending.load(Ordering::Relaxed);
        let pending = u16::try_from(pending).unwrap_or(u16::MAX);
        self.load.cost(pending, f32::from(weight) * ramp, at)
    }

    /// Whether nothing was heard of it for long, and nothing is under way that would be.
    pub(super) fn is_old(&self, at: Duration) -> bool {
        self.load.is_old(at) && self.pending.load(Ordering::Relaxed) == 0
    }

    /// Whether a call could be sent now.
    pub(super) fn is_ready(&self) -> bool {
        self.lines.iter().any(|line| line.load().as_deref().is_some_and(Line::is_open))
    }

    pub(super) fn is_out(&self) -> bool {
        self.out.load(Ordering::Relaxed) != IN
    }

    /// Whether this call is the one that tries whether it is well again.
    pub(super) fn probe(&self, at: Duration) -> bool {
        let due = self.out.load(Ordering::Relaxed);
        if due == IN || due == PROBED || Duration::from_micros(due) > at {
            return false;
        }
        let mut gate = self.gate();
        let granted = gate.probe(at);
        self.publish(&gate);
        granted
    }

    /// Ends a probe without a verdict.
    pub(super) fn release(&self) {
        let Some(set) = self.set.upgrade() else { return };
        let mut gate = self.gate();
        gate.release(set.at());
        self.publish(&gate);
    }

    /// Takes in how a call went.
    pub(super) fn report(
        &self,
        verdict: EndpointVerdict,
        probe: bool,
        latency: Duration,
        now: Instant,
    ) {
        let Some(set) = self.set.upgrade() else { return };
        let at = set.time(now);
        match verdict {
            EndpointVerdict::Success => self.load.observe(latency, at),
            EndpointVerdict::Hard => self.load.fail(latency, at),
            EndpointVerdict::Soft | EndpointVerdict::Neutral => {}
        }
        self.record(&set, verdict, probe, at);
    }

    /// An answer was waited for so long, and no longer: it says nothing of whether it is well.
    pub(super) fn outlasted(&self, took: Duration, now: Instant) {
        if let Some(set) = self.set.upgrade() {
            self.load.outlasted(took, set.time(now));
        }
    }

    /// A hard failure that says how long it wants to be left alone.
    pub(super) fn push_back(&self, probe: bool, pushback: Duration, now: Instant) {
        let Some(set) = self.set.upgrade() else { return };
        let at = set.time(now);
        self.load.observe(pushback, at);
        self.record(&set, EndpointVerdict::Hard, probe, at);
    }

    fn record(&self, set: &Set, verdict: EndpointVerdict, probe: bool, at: Duration) {
        let change = {
            let mut gate = self.gate();
            let change = gate.record(verdict, probe, at);
            self.publish(&gate);
            change
        };
        match change {
            Change::None => {}
            Change::Suspect => set.judge(self, at),
            Change::Back => {
                self.begin_anew(set, at);
                tracing::info!(callee = set.name, instance = self.id, "{} is back", self.id);
            }
            Change::OutAgain => set.stays_out(&self.id),
        }
    }

    /// The gate, and only for a moment.
    pub(super) fn gate(&self) -> MutexGuard<'_, Gate> {
        self.gate.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes it out.
    pub(super) fn eject(&self, at: Duration) {
        let mut gate = self.gate();
        gate.eject(at);
        self.publish(&gate);
    }

    /// It can be reached again, and for a while it could not: what was running there has begun
    /// anew, or the way to it is another one.
    pub(super) fn returned(&self, set: &Set) {
        if !self.is_ready() {
            self.begin_anew(set, set.at());
        }
    }

    /// What it was like when it was sick says nothing of what it is like now.
    fn begin_anew(&self, set: &Set, at: Duration) {
        self.load.reset(set.latency(Some(self), at), at);
        self.begin(at);
    }

    /// From now on its share grows.
    fn begin(&self, at: Duration) {
        self.since.store(micros(at).saturating_add(1), Ordering::Relaxed);
    }

    fn publish(&self, gate: &Gate) {
        let out = match gate.due() {
            Some(due) => micros(due).max(1),
            None if gate.is_out() => PROBED,
            None => IN,
        };
        self.out.store(out, Ordering::Relaxed);
    }

    /// A connection with room; the one with more of it if neither has.
    pub(super) fn line(&self) -> Option<Arc<Line>> {
        let open = |slot: &ArcSwapOption<Line>| slot.load_full().filter(|line| line.is_open());
        let [first, second] = &self.lines;
        let Some(first) = open(first) else { return open(second) };
        if !first.is_crowded() {
            return Some(first);
        }
        match open(second) {
            Some(second) if second.left() > first.left() => Some(second),
            Some(_) => Some(first),
            None => {
                self.crowded.notify_one();
                Some(first)
            }
        }
    }

    /// A connection is open. The first one begins the time of the instance.
    pub(super) fn opened(&self, slot: usize, line: Arc<Line>, at: Duration) {
        if self.since.load(Ordering::Relaxed) == 0 {
            self.begin(at);
        }
        if let Some(slot) = self.lines.get(slot) {
            slot.store(Some(line));
        }
    }

    /// Begins no more calls on a connection.
    pub(super) fn retire(&self, line: &Arc<Line>) {
        for slot in &self.lines {
            slot.compare_and_swap(line, None);
        }
    }

    /// A connection for long streams that has room for one more; `None` if none can be opened.
    pub(super) async fn lane(&self, settings: &connect::Settings) -> Option<Arc<Lane>> {
        if let Some(lane) = self.lanes.room() {
            return Some(lane);
        }
        // A hundred streams that begin at once wait for one connection, and do not open a hundred.
        let failed = self.lanes.failed.load(Ordering::Relaxed);
        let _dials = self.lanes.dials.lock().await;
        if let Some(lane) = self.lanes.room() {
            return Some(lane);
        }
        // Nor do they try one after the other where one could not.
        if self.lanes.failed.load(Ordering::Relaxed) != failed {
            return None;
        }
        match connect::dial(&self.address, settings).await {
            Ok(Connected { sender, .. }) => Some(self.lanes.open(sender)),
            Err(error) => {
                self.failed(&error);
                self.lanes.failed.fetch_add(1, Ordering::Relaxed);
                None
            }
        }
    }

    pub(super) fn failed(&self, error: &dyn std::fmt::Display) {
        let mut last = self.last_error.lock().unwrap_or_else(PoisonError::into_inner);
        *last = Some(error.to_string());
    }

    /// Why it could not be reached, or its connection broke, for the last time.
    pub(super) fn last_error(&self) -> Option<String> {
        self.last_error.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    pub(super) fn state(&self) -> &'static str {
        if self.drain.is_cancelled() {
            "draining"
        } else if self.is_out() {
            "ejected"
        } else if self.is_ready() {
            "ready"
        } else {
            "connecting"
        }
    }

    pub(super) fn view(&self, at: Duration) -> Value {
        json!({
            "id": self.id,
            "address": self.address.to_string(),
            "weight": self.weight(),
            "ewma_ms": self.load.latency(at).as_secs_f64() * 1_000.0,
            "pending": self.pending.load(Ordering::Relaxed),
            "state": self.state(),
            "last_error": self.last_error(),
        })
    }
}

// === impl Line ===

impl Line {
    pub(super) fn new(sender: Sender) -> Self {
        Self { sender, used: AtomicUsize::new(0), begun: AtomicBool::new(false) }
    }

    /// A call begins here; [`Line::end`] ends it.
    pub(super) fn begin(&self) {
        self.used.fetch_add(1, Ordering::Relaxed);
        // Looking is cheaper than writing, where many do.
        if !self.begun.load(Ordering::Relaxed) {
            self.begun.store(true, Ordering::Relaxed);
        }
    }

    pub(super) fn end(&self) {
        self.used.fetch_sub(1, Ordering::Relaxed);
    }

    /// Whether any call was ever begun here.
    pub(super) fn was_used(&self) -> bool {
        self.begun.load(Ordering::Relaxed)
    }

    /// Whether none is under way.
    pub(super) fn is_idle(&self) -> bool {
        self.used.load(Ordering::Relaxed) == 0
    }

    /// Whether a call may begin here.
    pub(super) fn is_open(&self) -> bool {
        !self.sender.is_closed()
    }

    /// Whether four fifths of its streams are in use.
    fn is_crowded(&self) -> bool {
        let admits = self.sender.admits();
        self.used.load(Ordering::Relaxed) >= admits - admits / 5
    }

    fn left(&self) -> usize {
        let admits = self.sender.admits();
        admits.saturating_sub(self.used.load(Ordering::Relaxed))
    }

    /// Whether less than two fifths of its streams are in use.
    pub(super) fn is_calm(&self) -> bool {
        self.used.load(Ordering::Relaxed) < self.sender.admits() / 5 * 2
    }
}

fn micros(at: Duration) -> u64 {
    u64::try_from(at.as_micros()).unwrap_or(PROBED - 1)
}
