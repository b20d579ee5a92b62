//! How many calls this process works on, so that what nobody waits for can give way to them.

use std::{
    future::Future,
    pin::Pin,
    sync::atomic::{AtomicIsize, Ordering},
    task::{Context, Poll},
};

use crate::Ctx;

/// Of all servers of the process.
static CALLS: AtomicIsize = AtomicIsize::new(0);

/// Added to the count until dropped.
#[derive(Debug)]
struct Counted(isize);

pin_project_lite::pin_project! {
    /// The work of a call, counted for as long as it is there.
    pub(crate) struct Working<F> {
        #[pin]
        call: F,
        _counted: Counted,
    }
}

/// How many calls are worked on.
pub(crate) fn calls() -> usize {
    // Less than none: somebody rests who does not work for a call.
    usize::try_from(CALLS.load(Ordering::Relaxed)).unwrap_or_default()
}

/// Does the work of a call.
// Not an `async fn`: that would keep room for the future twice, and move it once more.
pub(crate) fn working<F: Future>(call: F) -> Working<F> {
    Working { call, _counted: Counted::add(1) }
}

/// Waits, in a call, for what goes on in the background: meanwhile the call counts as none, since
/// giving way to it would only let it wait longer, and others are served in its place.
pub async fn resting<F: Future>(awaited: F) -> F::Output {
    let _counted = Counted::add(-1);
    if let Some(ctx) = Ctx::current() {
        ctx.rest();
    }
    awaited.await
}

// === impl Working ===

impl<F: Future> Future for Working<F> {
    type Output = F::Output;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<F::Output> {
        self.project().call.poll(cx)
    }
}

// === impl Counted ===

impl Counted {
    fn add(calls: isize) -> Self {
        CALLS.fetch_add(calls, Ordering::Relaxed);
        Self(calls)
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        CALLS.fetch_sub(self.0, Ordering::Relaxed);
    }
}
