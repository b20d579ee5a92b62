//! Spans that are counted and thrown away: a process records all of its calls, and no collector
//! is there that would have to take them.

use std::{
    future::poll_fn,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    task::{Context, Poll},
};

use opentelemetry::trace::SpanKind;
use opentelemetry_sdk::trace::SpanData;
use tokio::sync::mpsc;

use crate::{App, telemetry::Spans};

/// How many spans may wait to be counted: all of a run, so that none is lost. Room is taken as it
/// is needed.
const ROOM: usize = 1 << 20;

/// How many are taken at once.
const BATCH: usize = 512;

/// Takes spans from the queue in which a process puts them, as an exporter does, and counts them.
/// Clones are the same counter.
#[derive(Clone, Debug)]
pub struct SpanCounter {
    spans: Spans,
    taken: Arc<Mutex<Taken>>,
}

/// How many spans of calls have ended.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SpanCounts {
    /// Of calls that were made.
    pub calls: u64,
    /// Of their attempts.
    pub attempts: u64,
    /// Of calls that were served.
    pub served: u64,
}

#[derive(Debug)]
struct Taken {
    queue: mpsc::Receiver<SpanData>,
    batch: Vec<SpanData>,
    counts: SpanCounts,
}

// === impl SpanCounter ===

impl SpanCounter {
    /// Begins to take spans, until nobody is left who records any.
    #[expect(clippy::disallowed_methods, reason = "ends with the runtime of the test")]
    #[must_use]
    pub fn start() -> Self {
        let (sender, queue) = mpsc::channel(ROOM);
        let taken =
            Taken { queue, batch: Vec::with_capacity(BATCH), counts: SpanCounts::default() };
        let taken = Arc::new(Mutex::new(taken));
        let takes = Arc::clone(&taken);
        tokio::spawn(poll_fn(move |cx| lock(&takes).take(cx)));
        Self { spans: Spans::over(sender), taken }
    }

    /// `app`, which records every call that is sampled, to be counted here. Before it makes a
    /// channel.
    #[must_use]
    pub fn record(&self, app: App) -> App {
        app.record_to(self.spans.clone())
    }

    /// Every span that has ended by now.
    #[must_use]
    pub fn counts(&self) -> SpanCounts {
        let mut taken = lock(&self.taken);
        while let Ok(span) = taken.queue.try_recv() {
            taken.counts.add(&span);
        }
        taken.counts
    }
}

// === impl SpanCounts ===

impl SpanCounts {
    fn add(&mut self, span: &SpanData) {
        match span.span_kind {
            SpanKind::Server => self.served += 1,
            SpanKind::Client if span.name.starts_with("Attempt.") => self.attempts += 1,
            SpanKind::Client => self.calls += 1,
            SpanKind::Internal | SpanKind::Producer | SpanKind::Consumer => {}
        }
    }
}

// === impl Taken ===

impl Taken {
    fn take(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        loop {
            let came = std::task::ready!(self.queue.poll_recv_many(cx, &mut self.batch, BATCH));
            if came == 0 {
                return Poll::Ready(());
            }
            for span in self.batch.drain(..) {
                self.counts.add(&span);
            }
        }
    }
}

fn lock(taken: &Mutex<Taken>) -> MutexGuard<'_, Taken> {
    taken.lock().unwrap_or_else(PoisonError::into_inner)
}
