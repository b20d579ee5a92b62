//! How many streams the peer of a connection admits, and who has one of them.

use std::sync::{
    Arc,
    atomic::{AtomicU64, AtomicUsize, Ordering},
};

use tokio::{
    sync::{Semaphore, TryAcquireError},
    time::Instant,
};

use super::Lost;
use crate::{client::window::Word, clock};

/// The streams that the peer of a connection admits. Those that are free and those in use, without
/// the surplus, are always as many as that; whoever takes or gives back one looks for surplus.
#[derive(Debug)]
pub(super) struct Room<F = Semaphore, W = AtomicU64> {
    /// Those that are not in use; closed when none can begin any more.
    free: F,
    /// How many there are, in use or not.
    admits: AtomicUsize,
    /// Those that the peer has admitted once, and admits no more.
    surplus: W,
}

/// One of them. Given back when the stream is over, or dropped.
#[derive(Debug)]
pub(super) struct Place(Arc<Room>);

/// What is free, and can be taken. A test has one whose threads it lets meet in every order.
trait Free {
    fn take(&self) -> Result<(), TryAcquireError>;

    fn add(&self, more: usize);

    /// Takes up to so many away: as many as it says.
    fn forget(&self, most: usize) -> usize;
}

// === impl Room ===

impl Default for Room {
    /// As long as the peer has not said how many it admits.
    fn default() -> Self {
        Self { free: Semaphore::new(0), admits: AtomicUsize::new(0), surplus: AtomicU64::new(0) }
    }
}

impl Room {
    /// A place, if there is one.
    pub(super) fn enter(self: &Arc<Self>) -> Result<Place, TryAcquireError> {
        self.take().map(|()| Place(Arc::clone(self)))
    }

    /// A place when there is one, and when that is.
    pub(super) async fn wait(self: &Arc<Self>) -> Result<(Place, Instant), Lost> {
        loop {
            let permit = self.free.acquire().await.map_err(|_closed| Lost::Unsent)?;
            permit.forget();
            if !self.is_surplus() {
                return Ok((Place(Arc::clone(self)), clock::instant()));
            }
        }
    }

    /// None can begin any more.
    pub(super) fn close(&self) {
        self.free.close();
    }

    pub(super) fn is_closed(&self) -> bool {
        self.free.is_closed()
    }
}

#[expect(private_bounds, reason = "a parameter for tests alone")]
impl<F: Free, W: Word> Room<F, W> {
    /// How many there are, in use or not.
    pub(super) fn admits(&self) -> usize {
        self.admits.load(Ordering::Relaxed)
    }

    /// The peer may change its mind on how many it admits.
    pub(super) fn resize(&self, admits: usize) {
        let before = self.admits.swap(admits, Ordering::Relaxed);
        if admits < before {
            let gone = before - admits;
            self.owe((gone - self.free.forget(gone)) as u64);
            return;
        }
        let mut more = admits - before;
        while more > 0 && self.is_surplus() {
            more -= 1;
        }
        self.free.add(more);
    }

    fn take(&self) -> Result<(), TryAcquireError> {
        loop {
            self.free.take()?;
            if !self.is_surplus() {
                return Ok(());
            }
        }
    }

    fn give_back(&self) {
        if !self.is_surplus() {
            self.free.add(1);
        }
    }

    fn owe(&self, more: u64) {
        let mut many = self.surplus.read();
        while let Err(changed) = self.surplus.replace(many, many + more) {
            many = changed;
        }
    }

    /// Whether there is one too many; there is one less by that. One may become free just before
    /// that is known, so whoever takes one looks, too.
    fn is_surplus(&self) -> bool {
        let mut many = self.surplus.read();
        while many > 0 {
            match self.surplus.replace(many, many - 1) {
                Ok(_) => return true,
                Err(changed) => many = changed,
            }
        }
        false
    }
}

// === impl Place ===

impl Drop for Place {
    fn drop(&mut self) {
        self.0.give_back();
    }
}

// === impl Free ===

impl Free for Semaphore {
    fn take(&self) -> Result<(), TryAcquireError> {
        self.try_acquire().map(tokio::sync::SemaphorePermit::forget)
    }

    fn add(&self, more: usize) {
        self.add_permits(more);
    }

    fn forget(&self, most: usize) -> usize {
        self.forget_permits(most)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::client::turns;

    /// Whatever is done to it is a step.
    #[derive(Default)]
    struct Stepped<T>(T);

    impl Free for Stepped<Semaphore> {
        fn take(&self) -> Result<(), TryAcquireError> {
            turns::step(|| self.0.take())
        }

        fn add(&self, more: usize) {
            turns::step(|| self.0.add(more));
        }

        fn forget(&self, most: usize) -> usize {
            turns::step(|| self.0.forget(most))
        }
    }

    impl Word for Stepped<AtomicU64> {
        fn read(&self) -> u64 {
            turns::step(|| self.0.read())
        }

        fn replace(&self, was: u64, next: u64) -> Result<u64, u64> {
            let (word, relaxed) = (&self.0, Ordering::Relaxed);
            turns::step(|| word.compare_exchange(was, next, relaxed, relaxed))
        }

        fn write(&self, next: u64) {
            turns::step(|| self.0.write(next));
        }
    }

    /// A room, and how many places in it are in use.
    struct Used {
        room: Room<Stepped<Semaphore>, Stepped<AtomicU64>>,
        used: AtomicUsize,
    }

    impl Used {
        /// So many places, of which some are in use.
        fn of(admits: usize, used: usize) -> Self {
            let (free, surplus) = (Stepped(Semaphore::new(0)), Stepped::default());
            let room = Room { free, admits: AtomicUsize::new(0), surplus };
            room.resize(admits);
            let all = Self { room, used: AtomicUsize::new(0) };
            (0..used).for_each(|_| assert!(all.take()));
            all
        }

        fn take(&self) -> bool {
            let taken = self.room.take().is_ok();
            self.used.fetch_add(usize::from(taken), Ordering::Relaxed);
            taken
        }

        fn give_back(&self) {
            self.used.fetch_sub(1, Ordering::Relaxed);
            self.room.give_back();
        }

        /// As many can be taken as are admitted and not in use, and then one for each given back.
        fn is_exact(&self) {
            let admits = self.room.admits();
            let before = self.used.load(Ordering::Relaxed);
            while self.take() {}
            let used = self.used.load(Ordering::Relaxed);
            assert_eq!(used, admits.max(before), "{admits} are admitted, {before} were in use");
            for _ in 0..used {
                self.give_back();
                while self.take() {}
                let used = self.used.load(Ordering::Relaxed);
                assert!(used <= admits.max(before), "{used} of {admits}");
            }
            (0..self.used.load(Ordering::Relaxed)).for_each(|_| self.give_back());
            while self.take() {}
            assert_eq!(self.used.load(Ordering::Relaxed), admits);
        }
    }

    #[test]
    fn in_whatever_order_threads_meet_a_place_given_back_is_none_too_many() {
        turns::in_every_order(
            || Used::of(2, 2),
            Used::give_back,
            |all| all.room.resize(1),
            Used::is_exact,
        );
    }

    #[test]
    fn in_whatever_order_threads_meet_a_place_taken_is_none_too_many() {
        turns::in_every_order(
            || Used::of(3, 1),
            |all| {
                all.take();
            },
            |all| all.room.resize(1),
            Used::is_exact,
        );
    }

    #[test]
    fn in_whatever_order_threads_meet_no_place_is_lost() {
        turns::in_every_order(
            || {
                let all = Used::of(2, 2);
                all.room.resize(0);
                all
            },
            Used::give_back,
            |all| all.room.resize(3),
            Used::is_exact,
        );
    }
}
