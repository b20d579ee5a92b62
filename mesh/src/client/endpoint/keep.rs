//! Keeps the connections to an instance open, ahead of use.

use std::{sync::Arc, time::Duration};

use tokio::time::Instant;

use super::{
    instance::{Instance, Line},
    set::Set,
};
use crate::{
    client::{connect, http2::Connected},
    clock,
};

/// How often a second connection is asked whether it is still needed.
const LOOK: Duration = Duration::from_secs(10);
/// After a connection that was of use the next one is opened at once: so many times, and once more
/// each time that this has passed. A peer may hang up after every call; it is not dialled as often.
const AT_ONCE: u32 = 20;
const ONE_MORE: Duration = Duration::from_millis(500);
/// Beyond that there is a pause before it, no longer than this, nor than one part in so many of what
/// a call waits for a connection: calls do not fail for it.
const SHORT: (Duration, u32) = (Duration::from_millis(100), 10);

/// How often the next connection may be opened at once.
#[derive(Debug)]
struct Redials {
    left: u32,
    since: Instant,
}

/// Keeps one connection to `instance` until it is removed; the second only while there are more
/// calls than the first one takes.
pub(super) async fn keep(set: Arc<Set>, instance: Arc<Instance>, slot: usize) {
    let drain = instance.drain.clone();
    let (lowest, highest) = set.settings.backoff;
    let mut ceiling = lowest;
    let mut redials = Redials { left: AT_ONCE, since: clock::instant() };
    let mut away = false;
    loop {
        let dialled = async {
            if slot > 0 {
                instance.crowded.notified().await;
            }
            connect::dial(&instance.address, &set.settings.connect).await
        };
        match drain.run_until_cancelled(dialled).await {
            None => return,
            Some(Ok(connected)) => {
                tracing::debug!(callee = set.name, instance = instance.id, "connected");
                if std::mem::take(&mut away) {
                    instance.returned(&set);
                }
                let served = serve(&set, &instance, slot, connected).await;
                if drain.is_cancelled() {
                    return;
                }
                // It was of use: the next one is opened at once, or almost. Whoever hangs up on a
                // new connection is treated like one who cannot be reached.
                if served {
                    if redials.spend(clock::instant()) {
                        ceiling = lowest;
                        continue;
                    }
                    ceiling = ceiling.min(SHORT.0).min(set.settings.failfast / SHORT.1);
                }
            }
            Some(Err(error)) => {
                tracing::debug!(callee = set.name, instance = instance.id, %error, "cannot connect");
                instance.failed(&error);
                away = true;
                set.settings.hurry.notify_one();
            }
        }
        let nanos = u64::try_from(ceiling.as_nanos()).unwrap_or(u64::MAX);
        let pause = Duration::from_nanos(fastrand::u64(..=nanos));
        if drain.run_until_cancelled(tokio::time::sleep(pause)).await.is_none() {
            return;
        }
        ceiling = (ceiling * 2).min(highest);
    }
}

// === impl Redials ===

impl Redials {
    /// Whether there is one more.
    fn spend(&mut self, now: Instant) -> bool {
        let passed = now.saturating_duration_since(self.since);
        let more = passed.as_millis() / ONE_MORE.as_millis();
        let more = u32::try_from(more).unwrap_or(AT_ONCE).min(AT_ONCE);
        self.since += ONE_MORE * more;
        self.left = (self.left + more).min(AT_ONCE);
        if self.left == AT_ONCE {
            self.since = now;
        }
        let paid = self.left > 0;
        self.left = self.left.saturating_sub(1);
        paid
    }
}

/// Lends a connection to calls until it ends. Says whether any was sent over it.
async fn serve(set: &Set, instance: &Instance, slot: usize, connected: Connected) -> bool {
    let Connected { sender, mut ends } = connected;
    let line = Arc::new(Line::new(sender));
    instance.opened(slot, Arc::clone(&line), set.at());
    set.connected.notify_waiters();
    let ended = tokio::select! {
        biased;
        ended = &mut ends => Some(ended),
        () = instance.drain.cancelled() => None,
        () = unneeded(instance, slot, &line) => None,
    };
    instance.retire(&line);
    let served = line.was_used();
    // Ours was the last sender but for those of calls: with them it ends by itself.
    drop(line);
    let ended = match ended {
        Some(ended) => {
            // It goes, or its process is gone: another one may have taken its place.
            set.settings.hurry.notify_one();
            ended
        }
        None => ends.await,
    };
    match ended.unwrap_or(Ok(())) {
        Ok(()) => tracing::debug!(callee = set.name, instance = instance.id, "connection ended"),
        Err(error) => {
            tracing::debug!(callee = set.name, instance = instance.id, %error, "connection broke");
            instance.failed(&error);
        }
    }
    served
}

/// Ends when a second connection has nothing to do, and the first one has room again.
async fn unneeded(instance: &Instance, slot: usize, line: &Line) {
    if slot == 0 {
        return std::future::pending().await;
    }
    loop {
        tokio::time::sleep(LOOK).await;
        let first = instance.lines.first().and_then(|first| first.load_full());
        if line.is_idle() && first.is_some_and(|first| first.is_open() && first.is_calm()) {
            return;
        }
    }
}
