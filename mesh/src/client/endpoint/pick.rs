//! What a call holds of the instance that it was given to.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use http::{Request, Response};
use tokio::time::Instant;

use super::instance::{Instance, Line};
use crate::{
    client::{
        classify::EndpointVerdict,
        http2::{Incoming, Lost},
        long::Lane,
        outgoing::Outgoing,
    },
    clock,
    registry::Address,
    status::Failure,
};

/// So many instances that were asked are kept in place; few calls ask more.
const TRIED: usize = 4;

/// A call's place at an instance, for as long as its answer lasts. Dropped without a report it
/// says nothing of the instance.
#[derive(Debug)]
pub(in crate::client) struct Pick {
    pub(super) instance: Arc<Instance>,
    way: Way,
    /// The instance is out, and this call finds out whether it is well again.
    probe: bool,
}

/// How the call goes there.
#[derive(Debug)]
pub(super) enum Way {
    /// It is not known yet.
    Open,
    /// Over a connection for all calls.
    Line(Arc<Line>),
    /// Over one for long streams.
    Lane(Arc<Lane>),
}

/// The instances that a call was given to: its next attempt goes elsewhere, if it can.
#[derive(Debug, Default)]
pub(in crate::client) struct Tried {
    serials: [u64; TRIED],
    /// Those beyond them.
    more: Vec<u64>,
    count: usize,
    /// The call may be repeated: it costs nobody an answer if it finds its instance as slow as it
    /// was known to be.
    repeatable: bool,
    last: Option<(Arc<Instance>, bool)>,
    /// Who is told where the latest attempt went while its future has this.
    told: Option<Arc<AtomicU64>>,
}

/// There is no answer.
#[derive(Debug)]
pub(in crate::client) enum SendError {
    /// No instance can be reached: nothing was sent.
    Down,
    /// Every instance that was asked handed the request back: nothing was sent.
    Unsent(Box<Request<Outgoing>>),
    /// The instance said that it has not looked at the request (GOAWAY, `REFUSED_STREAM`). It may
    /// be sent again, but its body is gone.
    Refused,
    /// It was sent, and the answer failed to come: it may have been carried out.
    Broken {
        /// Where. To be reported by whoever judges `error`.
        pick: Pick,
        /// Why.
        error: h2::Error,
    },
}

// === impl Pick ===

impl Pick {
    pub(super) fn new(instance: Arc<Instance>, probe: bool) -> Self {
        instance.pending.fetch_add(1, Ordering::Relaxed);
        Self { instance, way: Way::Open, probe }
    }

    /// Takes a connection that is open; `false` if it closed in between.
    pub(super) fn over_line(&mut self) -> bool {
        let Some(line) = self.instance.line() else { return false };
        line.begin();
        self.way = Way::Line(line);
        true
    }

    pub(super) fn over_lane(&mut self, lane: Arc<Lane>) {
        self.way = Way::Lane(lane);
    }

    /// Sends a request over its connection, and waits for the head of its answer.
    pub(super) async fn send(
        &self,
        request: &mut Option<Request<Outgoing>>,
        time: (Instant, Instant),
    ) -> Result<Response<Incoming>, Lost> {
        let sender = match &self.way {
            Way::Open => return Err(Lost::Unsent),
            Way::Line(line) => &line.sender,
            Way::Lane(lane) => &lane.0,
        };
        sender.send(request, time).await
    }

    /// Begins nothing more on the connection, which handed a request back.
    pub(super) fn retire(&self) {
        match &self.way {
            Way::Open => {}
            Way::Line(line) => self.instance.retire(line),
            Way::Lane(lane) => self.instance.lanes.forget(lane),
        }
    }

    /// Says how the attempt went, and how long the answer took.
    pub(in crate::client) fn report(
        &mut self,
        verdict: EndpointVerdict,
        latency: Duration,
        now: Instant,
    ) {
        self.instance.report(verdict, std::mem::take(&mut self.probe), latency, now);
    }

    /// The same for a hard failure that says how long it wants to be left alone.
    pub(in crate::client) fn push_back(&mut self, pushback: Duration, now: Instant) {
        self.instance.push_back(std::mem::take(&mut self.probe), pushback, now);
    }

    /// A stream that began at `since` had its first message: a probe is over with that.
    pub(in crate::client) fn heard(&mut self, since: Instant) {
        if self.probe {
            let now = clock::instant();
            let latency = now.saturating_duration_since(since);
            self.report(EndpointVerdict::Success, latency, now);
        }
    }

    /// What the registry calls the instance.
    pub(in crate::client) fn id(&self) -> &str {
        &self.instance.id
    }

    /// Where it serves.
    pub(in crate::client) fn address(&self) -> &Address {
        &self.instance.address
    }
}

impl Drop for Pick {
    fn drop(&mut self) {
        self.instance.pending.fetch_sub(1, Ordering::Relaxed);
        if let Way::Line(line) = &self.way {
            line.end();
        }
        if self.probe {
            self.instance.release();
        }
    }
}

// === impl Tried ===

impl Tried {
    /// None yet, of a call that may be repeated or not.
    pub(in crate::client) fn by(repeatable: bool) -> Self {
        Self { repeatable, ..Self::default() }
    }

    /// Whether an attempt may go where nothing was heard of for long.
    pub(super) fn may_look(&self) -> bool {
        self.repeatable && self.count == 0
    }

    /// The instance that the latest attempt went to, for a report after its future was dropped:
    /// an attempt that took too long. Where [`Pick`] lives, report there.
    pub(in crate::client) fn report(
        &mut self,
        verdict: EndpointVerdict,
        latency: Duration,
        now: Instant,
    ) {
        if let Some((instance, probe)) = self.last.take() {
            instance.report(verdict, probe, latency, now);
        }
    }

    /// Where the latest attempt went, if one was begun.
    pub(in crate::client) fn address(&self) -> Option<&Address> {
        self.last.as_ref().map(|(instance, _)| &instance.address)
    }

    /// Another attempt begins, and nobody has it yet.
    pub(super) fn next(&mut self) {
        self.last = None;
    }

    pub(super) fn begin(&mut self, pick: &Pick) {
        let serial = pick.instance.serial;
        if let Some(told) = &self.told {
            told.store(serial, Ordering::Relaxed);
        }
        self.add(serial);
        self.last = Some((Arc::clone(&pick.instance), pick.probe));
    }

    fn add(&mut self, serial: u64) {
        match self.serials.get_mut(self.count) {
            Some(slot) => *slot = serial,
            None => self.more.push(serial),
        }
        self.count += 1;
    }

    /// The instance has not begun with it: that was no attempt, but the next one goes elsewhere, or
    /// one that refuses all, and so has the least to do, would be asked each time.
    pub(super) fn refused(&mut self) {
        self.last = None;
        if let Some(told) = &self.told {
            told.store(0, Ordering::Relaxed);
        }
    }

    /// It was not sent: that was no attempt.
    pub(super) fn undo(&mut self) {
        self.refused();
        if self.count == 0 || self.more.pop().is_some() {
            self.count = self.count.saturating_sub(1);
            return;
        }
        self.count -= 1;
        if let Some(slot) = self.serials.get_mut(self.count) {
            *slot = 0;
        }
    }

    pub(super) fn has(&self, instance: &Instance) -> bool {
        let serial = instance.serial;
        self.serials.contains(&serial) || (!self.more.is_empty() && self.more.contains(&serial))
    }

    /// Says from now on where it goes: to whoever sends an attempt beside this one.
    pub(in crate::client) fn tell(&mut self) -> Arc<AtomicU64> {
        Arc::clone(self.told.get_or_insert_default())
    }

    /// For an attempt beside the one that told this: it goes elsewhere, if it can.
    pub(in crate::client) fn beside(told: &AtomicU64) -> Self {
        let mut tried = Self::default();
        let serial = told.load(Ordering::Relaxed);
        if serial != 0 {
            tried.add(serial);
        }
        tried
    }

    /// Takes in where an attempt beside its own went: the next one goes elsewhere.
    pub(in crate::client) fn join(&mut self, beside: &Self) {
        let others = beside.serials.into_iter().take(beside.count);
        for serial in others.chain(beside.more.iter().copied()) {
            if !self.serials.contains(&serial) && !self.more.contains(&serial) {
                self.add(serial);
            }
        }
    }

    /// The latest attempt was given up after this long, because another one was answered.
    pub(in crate::client) fn outlasted(&self, took: Duration, now: Instant) {
        if let Some((instance, _)) = &self.last {
            instance.outlasted(took, now);
        }
    }
}

// === impl SendError ===

impl SendError {
    /// What a caller of `callee` is told.
    pub(in crate::client) fn failure(&self, callee: &str) -> Failure {
        match self {
            Self::Down | Self::Unsent(_) | Self::Refused => Failure::Down(callee.to_owned()),
            Self::Broken { .. } => Failure::Broken(callee.to_owned()),
        }
    }
}
