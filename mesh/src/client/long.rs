//! Connections for long streams, which other calls do not share.
//!
//! A stream that is read slowly holds as much as its window admits. On a shared connection a few
//! of them use up the window of the connection, and a few hundred its streams: every other call
//! would wait for them. Here the windows of all streams fit into that of the connection, and a
//! connection that is full is followed by another one.

use std::sync::{Arc, Mutex, PoisonError, Weak, atomic::AtomicU64};

use super::http2::Sender;

/// Streams on one connection; below the 256 that a server of ours admits.
const STREAMS: usize = 100;
/// Flow control windows: of a stream, of a connection, in bytes.
pub(super) const WINDOWS: (u32, u32) = (64 << 10, 8 << 20);

/// The connections to one instance that have a stream on them.
#[derive(Debug, Default)]
pub(super) struct Lanes {
    open: Mutex<Vec<Weak<Lane>>>,
    /// Held by whoever opens one.
    pub(super) dials: tokio::sync::Mutex<()>,
    /// How often none could be opened.
    pub(super) failed: AtomicU64,
}

/// A connection; it closes with its last stream. Each stream holds it for as long as it lasts.
#[derive(Debug)]
pub(super) struct Lane(pub(super) Sender);

// === impl Lanes ===

impl Lanes {
    /// A connection that has room for one more stream.
    pub(super) fn room(&self) -> Option<Arc<Lane>> {
        let mut lanes = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        lanes.retain(|lane| lane.strong_count() > 0);
        let mut open = lanes.iter().filter(|lane| lane.strong_count() < STREAMS);
        open.find_map(|lane| lane.upgrade().filter(|lane| !lane.0.is_closed()))
    }

    /// Takes a new connection in.
    pub(super) fn open(&self, sender: Sender) -> Arc<Lane> {
        let lane = Arc::new(Lane(sender));
        let mut lanes = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        lanes.push(Arc::downgrade(&lane));
        lane
    }

    /// Begins no more streams on a connection.
    pub(super) fn forget(&self, lane: &Arc<Lane>) {
        let mut lanes = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        lanes.retain(|other| !std::ptr::eq(other.as_ptr(), Arc::as_ptr(lane)));
    }
}
