//! Who is let in while there is more to do than a process can: the critical first, nobody for
//! longer than it is worth.

// A test lets the threads that share these meet in every order.
#[cfg(not(test))]
use std::sync::{Mutex as Lock, atomic::AtomicU32 as Count};
use std::{
    collections::VecDeque,
    sync::{
        Arc, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use tokio::{sync::oneshot, time::Instant};

#[cfg(test)]
use self::turns::{Count, Lock};
use super::{
    gradient::{Gradient, Window},
    settings::Settings,
};
use crate::{clock, ctx::Criticality, telemetry};

/// How many calls wait, as a multiple of the limit: about as many times as long as they take.
const WAITING: u32 = 4;
/// The longest that a call waits, and the part of the time it has left.
const WAIT: (Duration, u32) = (Duration::from_secs(1), 4);
/// What a refused caller is told to wait, in milliseconds.
const PUSHBACK: std::ops::Range<u64> = 50..200;

/// Lets calls in up to a limit that adapts, and streams up to one that does not.
#[derive(Debug)]
pub(crate) struct Limiter {
    limit: Count,
    in_flight: Count,
    /// How many wait; read without the lock by those who leave.
    waiting: Count,
    queues: Lock<[VecDeque<oneshot::Sender<Permit>>; 3]>,
    learning: Lock<(Gradient, Window)>,
    streams: AtomicUsize,
    streams_max: usize,
}

/// The place of a call. Given back when dropped.
#[derive(Debug)]
pub(crate) struct Permit {
    place: Option<Place>,
    limiter: Arc<Limiter>,
    begun: Instant,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Place {
    Call,
    Stream,
}

/// There is more to do than can be done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Shed {
    /// When to come again.
    pub(super) pushback: Duration,
}

// === impl Limiter ===

impl Limiter {
    pub(crate) fn new(settings: &Settings) -> Arc<Self> {
        let gradient = Gradient::new(settings.limit_min, settings.limit_max);
        telemetry::metrics().limit.set(gradient.limit().into());
        Arc::new(Self {
            limit: Count::new(gradient.limit()),
            in_flight: Count::new(0),
            waiting: Count::new(0),
            queues: Lock::default(),
            learning: Lock::new((gradient, Window::new(clock::instant()))),
            streams: AtomicUsize::new(0),
            streams_max: settings.streams_max,
        })
    }

    /// Lets a call in, `now` or, if need be, after a while that leaves most of its time until `ends`.
    pub(super) async fn call(
        self: &Arc<Self>,
        who: Criticality,
        now: Instant,
        ends: Instant,
    ) -> Result<Permit, Shed> {
        // Who comes now does not overtake who waits.
        if self.waiting.load(Ordering::SeqCst) == 0 && self.take(who) {
            return Ok(self.permit(Place::Call, now));
        }
        let (permit, granted) = oneshot::channel();
        self.queue(who, permit)?;
        let wait = (ends.saturating_duration_since(now) / WAIT.1).min(WAIT.0);
        match tokio::time::timeout_at(now + wait, granted).await {
            Ok(Ok(permit)) => Ok(permit),
            // Somebody more important took the place in the queue; or it was not worth waiting.
            Ok(Err(_)) | Err(_) => Err(Shed::now()),
        }
    }

    /// Lets a stream in.
    pub(super) fn stream(self: &Arc<Self>, now: Instant) -> Result<Permit, Shed> {
        if self.streams.fetch_add(1, Ordering::SeqCst) >= self.streams_max {
            self.streams.fetch_sub(1, Ordering::SeqCst);
            return Err(Shed::now());
        }
        Ok(self.permit(Place::Stream, now))
    }

    /// How many calls have a place.
    #[cfg(test)]
    pub(crate) fn in_flight(&self) -> u32 {
        self.in_flight.load(Ordering::SeqCst)
    }

    /// How many calls have a place at most.
    #[cfg(test)]
    pub(crate) fn limit(&self) -> u32 {
        self.limit.load(Ordering::Relaxed)
    }

    /// How many streams are served.
    #[cfg(test)]
    pub(crate) fn streams(&self) -> usize {
        self.streams.load(Ordering::SeqCst)
    }

    fn permit(self: &Arc<Self>, place: Place, begun: Instant) -> Permit {
        Permit { place: Some(place), limiter: Arc::clone(self), begun }
    }

    /// Takes a place if there is one for calls as important as this.
    fn take(&self, who: Criticality) -> bool {
        let room = share(self.limit.load(Ordering::Relaxed), who);
        let one_more = |now: u32| (now < room).then(|| now + 1);
        self.in_flight.fetch_update(Ordering::SeqCst, Ordering::SeqCst, one_more).is_ok()
    }

    fn queue(
        self: &Arc<Self>,
        who: Criticality,
        permit: oneshot::Sender<Permit>,
    ) -> Result<(), Shed> {
        let mut queues = self.queues.lock().unwrap_or_else(PoisonError::into_inner);
        let most = WAITING.saturating_mul(self.limit.load(Ordering::Relaxed));
        if self.waiting.load(Ordering::SeqCst) >= most {
            for queue in queues.iter_mut() {
                queue.retain(|waiter| !waiter.is_closed());
            }
            self.count(&queues);
        }
        if self.waiting.load(Ordering::SeqCst) >= most {
            // The newest of those that are less important makes room.
            let less = queues[..rank(who)].iter_mut().find_map(VecDeque::pop_back);
            if less.is_none() {
                return Err(Shed::now());
            }
        }
        queues[rank(who)].push_back(permit);
        self.count(&queues);
        // A place that was given back before we could be seen waiting.
        self.grant(&mut queues);
        Ok(())
    }

    /// Gives free places to those who wait, the most important first, then who came first.
    fn grant(self: &Arc<Self>, queues: &mut [VecDeque<oneshot::Sender<Permit>>; 3]) {
        'places: for who in [Criticality::Critical, Criticality::Normal, Criticality::Sheddable] {
            while let Some(waiter) = queues[rank(who)].pop_front() {
                if waiter.is_closed() {
                    continue;
                }
                if !self.take(who) {
                    queues[rank(who)].push_front(waiter);
                    break 'places;
                }
                if let Err(mut unwanted) = waiter.send(self.permit(Place::Call, clock::instant())) {
                    // Dropping it would ask for the lock that we hold.
                    unwanted.place = None;
                    self.in_flight.fetch_sub(1, Ordering::SeqCst);
                }
            }
        }
        self.count(queues);
    }

    fn count(&self, queues: &[VecDeque<oneshot::Sender<Permit>>; 3]) {
        let waiting = queues.iter().map(VecDeque::len).sum::<usize>();
        self.waiting.store(u32::try_from(waiting).unwrap_or(u32::MAX), Ordering::SeqCst);
    }

    fn give_back(self: &Arc<Self>, place: Place) {
        match place {
            Place::Stream => {
                self.streams.fetch_sub(1, Ordering::SeqCst);
            }
            Place::Call => {
                self.in_flight.fetch_sub(1, Ordering::SeqCst);
                if self.waiting.load(Ordering::SeqCst) > 0 {
                    let mut queues = self.queues.lock().unwrap_or_else(PoisonError::into_inner);
                    self.grant(&mut queues);
                }
            }
        }
    }

    /// Learns from a call that took `took` with its handler.
    fn learn(self: &Arc<Self>, now: Instant, took: Duration) {
        // Whoever finds the lock taken is one sample of many.
        let Ok(mut learning) = self.learning.try_lock() else { return };
        let at_once = self.in_flight.load(Ordering::Relaxed);
        let (gradient, window) = &mut *learning;
        let Some((took, busiest)) = window.add(now, took, at_once) else { return };
        let limit = gradient.update(took, busiest);
        drop(learning);
        if self.limit.swap(limit, Ordering::Relaxed) < limit {
            let mut queues = self.queues.lock().unwrap_or_else(PoisonError::into_inner);
            self.grant(&mut queues);
        }
        telemetry::metrics().limit.set(limit.into());
    }
}

// === impl Permit ===

impl Permit {
    /// When it was given.
    pub(super) fn begun(&self) -> Instant {
        self.begun
    }

    /// The handler is done: lets the limit learn how long it took.
    pub(crate) fn sample(&self, now: Instant) {
        if self.place == Some(Place::Call) {
            self.limiter.learn(now, now.saturating_duration_since(self.begun));
        }
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        if let Some(place) = self.place {
            self.limiter.give_back(place);
        }
    }
}

// === impl Shed ===

impl Shed {
    fn now() -> Self {
        Self { pushback: Duration::from_millis(fastrand::u64(PUSHBACK)) }
    }
}

/// What part of the limit is there for calls as important as this.
fn share(limit: u32, who: Criticality) -> u32 {
    let percent = match who {
        Criticality::Sheddable => 75,
        Criticality::Normal => 90,
        Criticality::Critical => 100,
    };
    (limit.saturating_mul(percent) / 100).max(1)
}

fn rank(who: Criticality) -> usize {
    match who {
        Criticality::Sheddable => 0,
        Criticality::Normal => 1,
        Criticality::Critical => 2,
    }
}

#[cfg(test)]
mod tests;
#[cfg(test)]
mod turns;
