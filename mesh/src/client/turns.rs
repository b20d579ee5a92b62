//! For tests: two threads that take their steps in every order there is.

use std::{
    cell::RefCell,
    sync::{Arc, Condvar, Mutex},
};

/// How many steps are tried in every order: all that those of any test take.
const STEPS: u32 = 10;

thread_local! {
    static MINE: RefCell<Option<(Arc<Turns>, usize)>> = const { RefCell::new(None) };
}

/// Which of two threads takes the next step: a bit for each.
struct Turns {
    order: u32,
    now: Mutex<Now>,
    moved: Condvar,
}

struct Now {
    step: u32,
    going: [bool; 2],
}

/// A thread that takes its turns, until it is over or has panicked.
struct Going(Arc<Turns>, usize);

/// Two threads do these, in every order of their steps; then both are over.
pub(super) fn in_every_order<T: Sync>(new: fn() -> T, one: fn(&T), other: fn(&T), then: fn(&T)) {
    for order in 0..1 << STEPS {
        let (now, moved) = (Mutex::new(Now { step: 0, going: [true; 2] }), Condvar::new());
        let (turns, shared) = (Arc::new(Turns { order, now, moved }), new());
        std::thread::scope(|scope| {
            for (me, does) in [one, other].into_iter().enumerate() {
                let (turns, shared) = (&turns, &shared);
                scope.spawn(move || {
                    let _going = Going::begin(turns, me);
                    does(shared);
                });
            }
        });
        then(&shared);
        assert!(turns.now.lock().unwrap().step <= STEPS, "more steps than were tried");
    }
}

/// What this thread does in one step, when it is its turn. Of a thread that takes none: at once.
pub(super) fn step<T>(act: impl FnOnce() -> T) -> T {
    let Some((turns, me)) = MINE.with_borrow(Clone::clone) else { return act() };
    let now = turns.now.lock().unwrap();
    let mut now = turns.moved.wait_while(now, |now| now.next(turns.order) != me).unwrap();
    let acted = act();
    now.step += 1;
    turns.moved.notify_all();
    acted
}

// === impl Now ===

impl Now {
    fn next(&self, order: u32) -> usize {
        let next = usize::from(order >> self.step & 1 == 1);
        if self.going[next] { next } else { 1 - next }
    }
}

// === impl Going ===

impl Going {
    fn begin(turns: &Arc<Turns>, me: usize) -> Self {
        MINE.set(Some((Arc::clone(turns), me)));
        Self(Arc::clone(turns), me)
    }
}

impl Drop for Going {
    fn drop(&mut self) {
        self.0.now.lock().unwrap().going[self.1] = false;
        self.0.moved.notify_all();
    }
}
