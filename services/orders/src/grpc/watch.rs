//! `WatchOrder`: the order, then what happens to it.

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use futures_util::{Stream, stream};
use mesh::{Ctx, app::Draining, clock};
use proto::orders::v1::{
    self as api,
    watch_order_response::{Heartbeat, Update},
};
use tokio::{sync::mpsc, time::Instant};
use tonic::Status;

use super::{Orders, encode, parse};
use crate::{
    domain::State,
    error::Error,
    store::{Broken, Trail},
};

/// How watches go.
#[derive(Clone, Copy, Debug)]
pub struct Watching {
    /// How often a watch says that it is alive.
    pub heartbeat: Duration,
    /// How long it goes on.
    pub longest: Duration,
    /// How long its reader may leave what was sent unread.
    pub patience: Duration,
    /// As many messages as may wait for the reader.
    pub ahead: usize,
}

/// One watch: writes what its stream reads.
struct Watch {
    trail: Trail,
    /// The first message, if it is to be a snapshot.
    snapshot: Option<api::Order>,
    watching: Watching,
    leaving: Draining,
    sender: mpsc::Sender<api::WatchOrderResponse>,
}

/// How a watch ends badly, for the stream to say after what was sent before.
type Last = Arc<Mutex<Option<Status>>>;

/// So much of the call's time is kept to end a watch well.
const RESERVE: Duration = Duration::from_secs(2);

impl Orders {
    pub(super) async fn watch(
        &self,
        request: &api::WatchOrderRequest,
    ) -> Result<impl Stream<Item = Result<api::WatchOrderResponse, Status>> + Send + use<>, Error>
    {
        let id = parse::name(&request.name)?;
        // Before the order is read: what is told of it from now on is not missed.
        let mut trail = self.store.trail(id, 0);
        let stored = self.visible(id).await?;
        let after = match resume_token(&request.resume_token, stored.revision)? {
            None => stored.revision,
            Some(after) => {
                let next = self.store.events(id, after, 1).await?;
                let next = next.first().map(|entry| entry.revision);
                if stored.revision > after && next != Some(after + 1) {
                    return Err(Error::TokenTooOld);
                }
                after
            }
        };
        trail.go_on_after(after);
        let fresh = request.resume_token.is_empty();
        let ended = stored.order.state.is_end() && after == stored.revision;
        let (sender, receiver) = mpsc::channel(self.watching.ahead.max(1));
        let watch = Watch {
            trail,
            snapshot: fresh.then(|| encode::order(&stored)),
            watching: self.watching,
            leaving: self.leaving.clone(),
            sender,
        };
        let last = Last::default();
        let said = Arc::clone(&last);
        mesh::spawn("watch an order", async move {
            if let Err(error) = watch.run(ended).await {
                *said.lock().unwrap_or_else(PoisonError::into_inner) = Some(error.into());
            }
        });
        Ok(stream::unfold((receiver, last), async |(mut receiver, last)| {
            match receiver.recv().await {
                Some(message) => Some((Ok(message), (receiver, last))),
                None => {
                    let said = last.lock().unwrap_or_else(PoisonError::into_inner).take();
                    said.map(|status| (Err(status), (receiver, last)))
                }
            }
        }))
    }
}

// === impl Watch ===

impl Watch {
    /// Writes until the order has ended, the time is over, or nobody reads any more.
    async fn run(mut self, ended: bool) -> Result<(), Error> {
        let left = Ctx::current().map_or(self.watching.longest, |ctx| ctx.time_left());
        let ends = clock::instant() + self.watching.longest.min(left.saturating_sub(RESERVE));
        if let Some(order) = self.snapshot.take() {
            let revision = order.revision;
            if !self.tell(Update::Order(order), revision).await? {
                return Ok(());
            }
        }
        if ended {
            return Ok(());
        }
        let mut state = None;
        loop {
            // After the last state, what was written with it, and no waiting.
            let over = state.is_some_and(State::is_end);
            let heartbeat = clock::instant() + self.watching.heartbeat;
            let until = if over { clock::instant() } else { heartbeat.min(ends) };
            let Some(entries) = self.next(until).await? else { return Err(Error::Draining) };
            if entries.is_empty() && (over || clock::instant() >= ends) {
                return Ok(());
            }
            if entries.is_empty() {
                let seen = self.trail.seen();
                if !self.tell(Update::Heartbeat(Heartbeat {}), seen).await? {
                    return Ok(());
                }
            }
            for entry in entries {
                state = Some(entry.state);
                let told = Update::OrderEvent(encode::entry(&entry));
                if !self.tell(told, entry.revision).await? {
                    return Ok(());
                }
            }
        }
    }

    /// What happened next; `None` if the process leaves.
    async fn next(&mut self, until: Instant) -> Result<Option<Vec<crate::store::Entry>>, Error> {
        tokio::select! {
            biased;
            () = self.leaving.begun() => Ok(None),
            next = self.trail.next(until) => match next {
                Ok(entries) => Ok(Some(entries)),
                Err(Broken::Gap) => Err(Error::TokenTooOld),
                Err(Broken::Failed(failure)) => Err(failure.into()),
            },
        }
    }

    /// Whether the reader is still there.
    async fn tell(&self, update: Update, revision: i64) -> Result<bool, Error> {
        let message = api::WatchOrderResponse {
            update: Some(update),
            revision,
            resume_token: token_of(revision),
        };
        let sent = self.sender.send(message);
        match tokio::time::timeout(self.watching.patience, sent).await {
            Ok(sent) => Ok(sent.is_ok()),
            Err(_elapsed) => Err(Error::SlowReader),
        }
    }
}

// === impl Watching ===

impl Default for Watching {
    fn default() -> Self {
        Self {
            heartbeat: Duration::from_secs(15),
            longest: Duration::from_secs(30 * 60),
            patience: Duration::from_secs(10),
            ahead: 16,
        }
    }
}

/// Behind which revision a watch goes on; the order has `current`.
fn resume_token(token: &str, current: i64) -> Result<Option<i64>, Error> {
    if token.is_empty() {
        return Ok(None);
    }
    let mut wrong = parse::Violations::default();
    // It grants nothing: whoever may watch the order sees every revision of it.
    let revision = token.strip_prefix('r').and_then(|revision| revision.parse().ok());
    let revision = revision.filter(|revision| (0..=current).contains(revision));
    if revision.is_none() {
        wrong.add("resume_token", "is not one of this order");
    }
    wrong.none_or(revision)
}

/// What goes on behind this revision.
fn token_of(revision: i64) -> String {
    format!("r{revision}")
}
