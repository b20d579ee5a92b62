//! One more attempt while the first is slow. Off unless a policy says so.

use std::time::Duration;

use super::{
    call::{Call, Came},
    callee,
    endpoint::Tried,
    kept::Kept,
};
use crate::{clock, telemetry};

impl Call {
    /// After which time another attempt joins this one; `None` if none does.
    pub(super) fn hedge(&self, number: u32, kept: &Kept) -> Option<Duration> {
        let hedge = self.method.policy.hedge?;
        let whole = matches!(kept, Kept::Whole { .. });
        if number > 1 || !self.repeatable || !whole {
            return None;
        }
        // Without a measure of what is slow nothing is.
        let slow = self.method.latency.quantile(hedge.percent, clock::instant())?;
        Some(slow.max(hedge.least))
    }

    /// Two attempts, the second `after` a while: the first answer counts, the other attempt is
    /// dropped, which cancels it.
    pub(super) async fn hedged(&self, after: Duration, kept: &mut Kept, tried: &mut Tried) -> Came {
        let mut request = kept.request();
        let first = self.attempt(1, &mut request, tried, clock::instant());
        tokio::pin!(first);
        tokio::select! {
            biased;
            came = &mut first => return came,
            () = tokio::time::sleep(after) => {}
        }
        if !self.callee.spend() {
            return first.await;
        }
        callee::count(&telemetry::metrics().hedges, &self.callee.name);
        self.span.event(telemetry::names::span::HEDGE, Vec::new);
        let mut elsewhere = Tried::default();
        let mut request = kept.request();
        let second = self.attempt(2, &mut request, &mut elsewhere, clock::instant());
        tokio::pin!(second);
        tokio::select! {
            biased;
            came = &mut first => if came.is_answer() { came } else { came.or(second.await) },
            came = &mut second => if came.is_answer() { came } else { came.or(first.await) },
        }
    }
}
