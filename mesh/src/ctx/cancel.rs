//! Whether anybody still waits for a call. Few handlers ask: for the others nothing is kept.

use std::sync::{
    OnceLock,
    atomic::{AtomicBool, Ordering},
};

use tokio_util::sync::CancellationToken;

/// A token that is made for whoever asks first.
#[derive(Debug)]
pub(super) struct Cancel {
    token: OnceLock<CancellationToken>,
    over: AtomicBool,
}

// === impl Cancel ===

impl Cancel {
    /// One that `token` cancels too.
    pub(super) fn new(token: Option<CancellationToken>) -> Self {
        let token = token.map(OnceLock::from).unwrap_or_default();
        Self { token, over: AtomicBool::new(false) }
    }

    pub(super) fn token(&self) -> &CancellationToken {
        let token = self.token.get_or_init(CancellationToken::new);
        // Either this comes later and sees it, or `cancel` does and sees the token: both change the
        // same word, one after the other.
        if self.over.fetch_or(false, Ordering::AcqRel) {
            token.cancel();
        }
        token
    }

    pub(super) fn cancel(&self) {
        self.over.swap(true, Ordering::AcqRel);
        if let Some(token) = self.token.get() {
            token.cancel();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whoever_asks_is_told_before_and_after() {
        let early = Cancel::new(None);
        let token = early.token().clone();
        assert!(!token.is_cancelled());
        early.cancel();
        assert!(token.is_cancelled() && early.token().is_cancelled());

        let late = Cancel::new(None);
        late.cancel();
        assert!(late.token().is_cancelled());

        let outer = CancellationToken::new();
        let inner = Cancel::new(Some(outer.child_token()));
        inner.cancel();
        assert!(inner.token().is_cancelled() && !outer.is_cancelled());
        let inner = Cancel::new(Some(outer.child_token()));
        outer.cancel();
        assert!(inner.token().is_cancelled());
    }

    #[test]
    fn nobody_who_asks_while_it_is_cancelled_waits_for_ever() {
        for _ in 0..1_000 {
            let cancel = Cancel::new(None);
            let asked = std::thread::scope(|scope| {
                let asks = scope.spawn(|| cancel.token().clone());
                cancel.cancel();
                asks.join().expect("no panic")
            });
            assert!(asked.is_cancelled());
        }
    }
}
