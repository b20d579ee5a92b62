//! Keeps the connections to an instance open, ahead of use.

use std::{sync::Arc, time::Duration};

use super::{
    instance::{Instance, Line},
    set::Set,
};
use crate::client::{connect, http2::Connected};

/// How often a second connection is asked whether it is still needed.
const LOOK: Duration = Duration::from_secs(10);

/// Keeps one connection to `instance` until it is removed; the second only while there are more
/// calls than the first one takes.
pub(super) async fn keep(set: Arc<Set>, instance: Arc<Instance>, slot: usize) {
    let drain = instance.drain.clone();
    let (lowest, highest) = set.settings.backoff;
    let mut ceiling = lowest;
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
                // It was of use: the next one is opened at once. Whoever hangs up on a new
                // connection is treated like one who cannot be reached.
                if served {
                    ceiling = lowest;
                    continue;
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
