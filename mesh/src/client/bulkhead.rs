//! Bounds how many calls one dependency may hold up at the same time.

use std::{sync::Arc, time::Duration};

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// The places of one dependency, or of one of its methods.
#[derive(Debug)]
pub(super) struct Bulkhead {
    places: Arc<Semaphore>,
    max: usize,
    /// How long a call may wait for a place; zero fails at once.
    queue_timeout: Duration,
}

/// A place; dropping it gives it back.
#[derive(Debug)]
pub(super) struct Place {
    _permit: OwnedSemaphorePermit,
}

/// No place was free in time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Full;

// === impl Bulkhead ===

impl Bulkhead {
    pub(super) fn new(max: usize, queue_timeout: Duration) -> Self {
        let max = max.min(Semaphore::MAX_PERMITS);
        Self { places: Arc::new(Semaphore::new(max)), max, queue_timeout }
    }

    /// A place, now or within the time that calls may wait. The call's own deadline is its
    /// caller's to watch.
    pub(super) async fn enter(&self) -> Result<Place, Full> {
        if let Ok(permit) = Arc::clone(&self.places).try_acquire_owned() {
            return Ok(Place { _permit: permit });
        }
        if self.queue_timeout.is_zero() {
            return Err(Full);
        }
        let waiting = Arc::clone(&self.places).acquire_owned();
        match tokio::time::timeout(self.queue_timeout, waiting).await {
            Ok(Ok(permit)) => Ok(Place { _permit: permit }),
            // The semaphore is never closed.
            Ok(Err(_)) | Err(_) => Err(Full),
        }
    }

    /// How many places are taken.
    pub(super) fn in_use(&self) -> usize {
        self.max - self.places.available_permits()
    }

    pub(super) fn max(&self) -> usize {
        self.max
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[tokio::test(start_paused = true)]
    async fn the_call_after_the_last_place_fails_at_once() {
        let bulkhead = Bulkhead::new(256, Duration::ZERO);
        let mut places = Vec::new();
        for _ in 0..256 {
            places.push(bulkhead.enter().await.expect("a place"));
        }
        let before = tokio::time::Instant::now();
        assert_eq!(bulkhead.enter().await.expect_err("full"), Full);
        assert_eq!(before.elapsed(), Duration::ZERO);
        places.pop();
        assert!(bulkhead.enter().await.is_ok());
        assert_eq!(bulkhead.in_use(), 255);
    }

    #[tokio::test(start_paused = true)]
    async fn where_it_may_wait_it_waits_no_longer() {
        let bulkhead = Bulkhead::new(1, SECOND);
        let place = bulkhead.enter().await.expect("a place");
        let before = tokio::time::Instant::now();
        assert_eq!(bulkhead.enter().await.expect_err("full"), Full);
        assert_eq!(before.elapsed(), SECOND);
        let (entered, ()) = tokio::join!(bulkhead.enter(), async move { drop(place) });
        assert!(entered.is_ok());
    }
}
