//! The choice of an instance by itself, for a bench of single layers.

use futures_util::FutureExt as _;
use tokio::time::Instant;

use super::{Endpoints, Pick, Tried};

// === impl Endpoints ===

impl Endpoints {
    /// The instance for an attempt that is not made; `None` where none can be reached at once.
    pub(in crate::client) fn chosen(&self, now: Instant) -> Option<Pick> {
        let mut tried = Tried::by(true);
        tried.next();
        let picked = self.set.pick(&tried, &Tried::default(), now, now).now_or_never();
        let (pick, _found) = picked??;
        tried.begin(&pick);
        Some(pick)
    }

    /// How many calls to the instance of `pick` were reported lately.
    pub(in crate::client) fn reported(&self, pick: &Pick) -> u64 {
        pick.instance.gate().rate(self.set.at()).calls.into()
    }
}
