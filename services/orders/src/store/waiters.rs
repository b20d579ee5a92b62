//! Who waits in this process for an order to move.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
};

use tokio::sync::watch;
use uuid::Uuid;

/// The calls that wait, by order.
#[derive(Debug, Default)]
pub(super) struct Waiters(Mutex<HashMap<Uuid, watch::Sender<i64>>>);

/// One call that waits. Forgotten when dropped.
#[derive(Debug)]
pub(super) struct Waiter {
    id: Uuid,
    all: Arc<Waiters>,
    told: watch::Receiver<i64>,
}

// === impl Waiters ===

impl Waiters {
    /// The order has, or is about to have, this revision.
    pub(super) fn tell(&self, id: Uuid, revision: i64) {
        let orders = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(sender) = orders.get(&id) {
            sender.send_if_modified(|known| {
                let newer = revision > *known;
                *known = revision.max(*known);
                newer
            });
        }
    }

    pub(super) fn wait(self: &Arc<Self>, id: Uuid) -> Waiter {
        let mut orders = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let sender = orders.entry(id).or_insert_with(|| watch::Sender::new(0));
        Waiter { id, all: Arc::clone(self), told: sender.subscribe() }
    }
}

// === impl Waiter ===

impl Waiter {
    /// The newest revision that was told.
    pub(super) fn told(&mut self) -> i64 {
        *self.told.borrow_and_update()
    }

    /// Resolves when a newer revision is told.
    pub(super) async fn newer(&mut self) {
        if self.told.changed().await.is_err() {
            // Unreachable while the sender stands in the map; then polling remains.
            std::future::pending::<()>().await;
        }
    }
}

impl Drop for Waiter {
    fn drop(&mut self) {
        let mut orders = self.all.0.lock().unwrap_or_else(PoisonError::into_inner);
        // This waiter still counts as a receiver.
        if orders.get(&self.id).is_some_and(|sender| sender.receiver_count() <= 1) {
            orders.remove(&self.id);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_waiter_hears_of_its_order_and_is_forgotten_with_the_last_one() {
        let all = Arc::new(Waiters::default());
        let (id, other) = (Uuid::from_u128(1), Uuid::from_u128(2));
        let (mut one, two) = (all.wait(id), all.wait(id));
        all.tell(other, 9);
        assert_eq!(one.told(), 0);
        all.tell(id, 2);
        one.newer().await;
        assert_eq!(one.told(), 2);
        all.tell(id, 1);
        assert_eq!(one.told(), 2, "a late word does not turn it back");
        drop(one);
        assert_eq!(all.0.lock().unwrap().len(), 1);
        drop(two);
        assert!(all.0.lock().unwrap().is_empty());
    }
}
