//! Whether the whole stack was at work: what it counts has moved by the number of calls.

use std::sync::atomic::{AtomicU64, Ordering};

use anyhow::ensure;
use mesh::{
    client,
    telemetry::names,
    testing::{SpanCounts, layers::counted},
};
use serde_json::Value;

use crate::{
    echo::ECHO,
    load::Variant,
    transport::{Sampled, Stack, Transport as _},
};

/// What a call to the stack has passed, as far as is counted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counted {
    /// Calls of which the client's metrics know.
    pub made: u64,
    /// Calls of which the server's metrics know.
    pub served: u64,
    /// Calls that the breaker has judged.
    judged: u64,
    /// Calls that paid into the budget of retries.
    paid: u64,
    /// Calls that came with a deadline.
    deadlines: u64,
    /// Calls that came with a trace.
    traces: u64,
    /// Spans that were recorded.
    pub spans: SpanCounts,
}

/// Calls the stack so many times, and sees whether each of its parts has noticed.
///
/// Only of a variant that was just started: windows forget after ten seconds.
///
/// # Errors
/// One has not: then no figure of the stack counts.
pub async fn look(stack: &Variant, calls: u32) -> anyhow::Result<()> {
    let seen = &stack.echo.seen;
    let before = Counted::now(stack);
    seen.looking.store(true, Ordering::Relaxed);
    stack.calls(16, calls).await?;
    seen.looking.store(false, Ordering::Relaxed);
    let moved = Counted::now(stack).since(before);
    let calls = u64::from(calls);
    let all = Counted {
        made: calls,
        served: calls,
        judged: calls,
        // A tenth of the calls may be sent once more.
        paid: calls / 10,
        deadlines: calls,
        traces: calls,
        spans: spans_of(stack, calls),
    };
    ensure!(moved == all, "a part of the stack was not at work: {moved:?} of {all:?}");
    Ok(())
}

/// What so many calls leave of spans: a call, its one attempt and what it is to its server where
/// they are recorded, and nothing where they are not.
#[must_use]
pub fn spans_of(stack: &Variant, calls: u64) -> SpanCounts {
    if stack.name == Sampled::NAME {
        SpanCounts { calls, attempts: calls, served: calls }
    } else {
        SpanCounts::default()
    }
}

// === impl Counted ===

impl Counted {
    /// As it stands.
    #[must_use]
    pub fn now(stack: &Variant) -> Self {
        let view = client::view();
        let callee = if stack.name == Sampled::NAME { Sampled::CALLEE } else { Stack::CALLEE };
        let callees = || view.as_array().into_iter().flatten().filter(|it| it["name"] == callee);
        let methods = || callees().filter_map(|it| it["methods"].as_array()).flatten();
        let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        Self {
            made: counted(names::CLIENT_CALLS, ECHO),
            served: counted(names::SERVER_CALLS, ECHO),
            judged: methods()
                .filter(|it| it["name"] == ECHO)
                .map(|it| number(&it["calls_10s"]))
                .sum(),
            paid: callees().map(|it| number(&it["retry_budget"])).sum(),
            deadlines: read(&stack.echo.seen.deadlines),
            traces: read(&stack.echo.seen.traces),
            spans: stack.echo.seen.spans(),
        }
    }

    /// What came since.
    #[must_use]
    pub fn since(self, before: Self) -> Self {
        Self {
            made: self.made - before.made,
            served: self.served - before.served,
            judged: self.judged.saturating_sub(before.judged),
            paid: self.paid.saturating_sub(before.paid),
            deadlines: self.deadlines - before.deadlines,
            traces: self.traces - before.traces,
            spans: SpanCounts {
                calls: self.spans.calls - before.spans.calls,
                attempts: self.spans.attempts - before.spans.attempts,
                served: self.spans.served - before.spans.served,
            },
        }
    }
}

fn number(value: &Value) -> u64 {
    value.as_u64().unwrap_or_default()
}
