//! Places in whatever order threads meet. What the limiter shares lets two threads take turns: what
//! one does between two looks at it happens in one go, and the turn changes before a look at every
//! choice of a few of them.

use std::{
    cell::RefCell,
    pin::Pin,
    sync::{self, Arc, Condvar, LockResult, MutexGuard, TryLockError, TryLockResult},
};

use futures_util::FutureExt as _;
use tokio::runtime::Handle;

use super::*;

/// How often the turn changes at most, beside where a thread would wait for the other.
const CHANGES: usize = 3;

thread_local! {
    static MINE: RefCell<Option<(Arc<Turns>, usize)>> = const { RefCell::new(None) };
}

/// Whose turn it is, and before which looks it changes.
struct Turns {
    changes: Vec<u32>,
    now: sync::Mutex<Now>,
    moved: Condvar,
}

struct Now {
    turn: usize,
    looks: u32,
    going: [bool; 2],
}

/// A thread that takes its turns, until it is over or has panicked.
struct Going(Arc<Turns>, usize);

/// A count that threads share, and a lock.
#[derive(Debug, Default)]
pub(super) struct Count(std::sync::atomic::AtomicU32);

#[derive(Debug, Default)]
pub(super) struct Lock<T>(sync::Mutex<T>);

// === impl Turns ===

impl Turns {
    /// Lets the other go on, if it does; comes back when the turn does.
    fn pass(&self, mut now: MutexGuard<'_, Now>, me: usize) {
        if now.going[1 - me] {
            now.turn = 1 - me;
            self.moved.notify_all();
            drop(self.moved.wait_while(now, |now| now.turn != me).unwrap());
        }
    }
}

// === impl Going ===

impl Going {
    fn begin(turns: &Arc<Turns>, me: usize) -> Self {
        MINE.set(Some((Arc::clone(turns), me)));
        let now = turns.now.lock().unwrap();
        drop(turns.moved.wait_while(now, |now| now.turn != me).unwrap());
        Self(Arc::clone(turns), me)
    }
}

impl Drop for Going {
    fn drop(&mut self) {
        let mut now = self.0.now.lock().unwrap();
        now.going[self.1] = false;
        now.turn = 1 - self.1;
        self.0.moved.notify_all();
    }
}

// === impl Count ===

impl Count {
    pub(super) fn new(count: u32) -> Self {
        Self(count.into())
    }

    pub(super) fn load(&self, order: Ordering) -> u32 {
        look();
        self.0.load(order)
    }

    pub(super) fn store(&self, count: u32, order: Ordering) {
        look();
        self.0.store(count, order);
    }

    pub(super) fn swap(&self, count: u32, order: Ordering) -> u32 {
        look();
        self.0.swap(count, order)
    }

    pub(super) fn fetch_sub(&self, count: u32, order: Ordering) -> u32 {
        look();
        self.0.fetch_sub(count, order)
    }

    pub(super) fn fetch_update(
        &self,
        set: Ordering,
        fetch: Ordering,
        change: impl FnMut(u32) -> Option<u32>,
    ) -> Result<u32, u32> {
        look();
        self.0.fetch_update(set, fetch, change)
    }
}

// === impl Lock ===

impl<T> Lock<T> {
    pub(super) fn new(value: T) -> Self {
        Self(sync::Mutex::new(value))
    }

    pub(super) fn lock(&self) -> LockResult<MutexGuard<'_, T>> {
        look();
        let Some((turns, me)) = MINE.with_borrow(Clone::clone) else { return self.0.lock() };
        loop {
            match self.0.try_lock() {
                Ok(held) => return Ok(held),
                Err(TryLockError::Poisoned(held)) => return Err(held),
                Err(TryLockError::WouldBlock) => turns.pass(turns.now.lock().unwrap(), me),
            }
        }
    }

    pub(super) fn try_lock(&self) -> TryLockResult<MutexGuard<'_, T>> {
        look();
        self.0.try_lock()
    }
}

/// A look at what threads share; other tests do not notice.
fn look() {
    let Some((turns, me)) = MINE.with_borrow(Clone::clone) else { return };
    let mut now = turns.now.lock().unwrap();
    now.looks += 1;
    if turns.changes.contains(&now.looks) {
        turns.pass(now, me);
    }
}

type Comes = Pin<Box<dyn Future<Output = Result<Permit, Shed>> + Send>>;

/// A limiter with those who have a place in it and those who wait for one.
struct Scene {
    limiter: Arc<Limiter>,
    held: sync::Mutex<Vec<Permit>>,
    waits: sync::Mutex<Vec<Comes>>,
}

impl Scene {
    /// `limit` places, so many of them taken, and so many who wait.
    fn with(limit: u32, taken: usize, waiting: usize) -> Self {
        let settings = Settings { limit_min: limit, limit_max: limit, ..Settings::default() };
        let limiter = Limiter::new(&settings);
        let scene = Self { limiter, held: sync::Mutex::default(), waits: sync::Mutex::default() };
        (0..taken + waiting).for_each(|_| scene.comes());
        assert_eq!(scene.counts(), (taken, waiting));
        scene
    }

    /// Somebody comes, and has a place or waits.
    fn comes(&self) {
        let (limiter, now) = (Arc::clone(&self.limiter), clock::instant());
        let ends = now + Duration::from_secs(10);
        let mut comes: Comes =
            Box::pin(async move { limiter.call(Criticality::Critical, now, ends).await });
        match comes.as_mut().now_or_never() {
            Some(permit) => self.held.lock().unwrap().push(permit.expect("nobody is sent away")),
            None => self.waits.lock().unwrap().push(comes),
        }
    }

    /// One who has a place goes.
    fn goes(&self) {
        let permit = self.held.lock().unwrap().pop();
        drop(permit.expect("somebody has a place"));
    }

    /// The first of those who wait waits no longer.
    fn gives_up(&self) {
        drop(self.waits.lock().unwrap().remove(0));
    }

    /// How many have a place, and how many wait, once all have looked.
    fn counts(&self) -> (usize, usize) {
        let mut waits = self.waits.lock().unwrap();
        let mut held = self.held.lock().unwrap();
        waits.retain_mut(|waits| match waits.as_mut().now_or_never() {
            Some(permit) => {
                held.push(permit.expect("nobody is sent away"));
                false
            }
            None => true,
        });
        (held.len(), waits.len())
    }
}

/// What two threads do at once, and what comes of it.
struct Meeting {
    scene: fn() -> Scene,
    does: [fn(&Scene); 2],
    /// So many have a place then, and so many wait.
    then: (usize, usize),
}

impl Meeting {
    /// Lets them meet in every order that has `changes` and then some more.
    fn every(&self, first: usize, changes: &[u32]) {
        let looks = self.once(first, changes);
        if changes.len() == CHANGES {
            return;
        }
        for next in changes.last().map_or(1, |last| last + 1)..=looks {
            self.every(first, &[changes, &[next]].concat());
        }
    }

    /// Lets them meet in this order, and whatever was taken come back. Says how many looks it took.
    fn once(&self, first: usize, changes: &[u32]) -> u32 {
        let scene = (self.scene)();
        let now = sync::Mutex::new(Now { turn: first, looks: 0, going: [true; 2] });
        let turns = Arc::new(Turns { changes: changes.to_vec(), now, moved: Condvar::new() });
        let runtime = Handle::current();
        std::thread::scope(|scope| {
            for (me, does) in self.does.into_iter().enumerate() {
                let (turns, scene, runtime) = (&turns, &scene, &runtime);
                scope.spawn(move || {
                    let _entered = runtime.enter();
                    let _going = Going::begin(turns, me);
                    does(scene);
                });
            }
        });
        let order = format!("{first} begins, the turn changes before {changes:?}");
        assert_eq!(scene.counts(), self.then, "{order}");
        assert_eq!(scene.limiter.in_flight() as usize, self.then.0, "{order}");
        // Whoever waits has a place as soon as there is one.
        for left in (0..self.then.0 + self.then.1).rev() {
            scene.goes();
            assert_eq!(scene.counts().0, left.min(self.then.0), "{order}");
        }
        assert_eq!(scene.limiter.in_flight(), 0, "{order}");
        turns.now.lock().unwrap().looks
    }
}

fn in_every_order(scene: fn() -> Scene, does: [fn(&Scene); 2], then: (usize, usize)) {
    let mut builder = tokio::runtime::Builder::new_current_thread();
    // Entered and no more: within a task of it, who looks too often would be told to wait.
    let runtime = builder.enable_time().start_paused(true).build().unwrap();
    let _entered = runtime.enter();
    let meeting = Meeting { scene, does, then };
    (0..2).for_each(|first| meeting.every(first, &[]));
}

#[test]
fn in_whatever_order_a_place_comes_back_and_somebody_comes_it_is_theirs() {
    in_every_order(|| Scene::with(1, 1, 0), [Scene::goes, Scene::comes], (1, 0));
}

#[test]
fn in_whatever_order_two_come_for_one_place_one_has_it() {
    in_every_order(|| Scene::with(1, 0, 0), [Scene::comes, Scene::comes], (1, 1));
}

#[test]
fn in_whatever_order_who_waits_gives_up_no_place_is_lost_with_them() {
    in_every_order(|| Scene::with(1, 1, 1), [Scene::goes, Scene::gives_up], (0, 0));
    in_every_order(|| Scene::with(1, 1, 2), [Scene::goes, Scene::gives_up], (1, 0));
}

#[test]
fn in_whatever_order_two_places_come_back_two_who_wait_have_them() {
    in_every_order(|| Scene::with(2, 2, 2), [Scene::goes, Scene::goes], (2, 0));
}

#[test]
fn in_whatever_order_a_place_comes_back_who_waits_is_before_who_comes() {
    in_every_order(|| Scene::with(1, 1, 1), [Scene::goes, Scene::comes], (1, 1));
}
