//! The instances of a callee: which one a call is given to, over connections that are opened
//! ahead of use.
//!
//! [`Endpoints::send`] is one attempt. The [`Pick`] that comes with an answer is the call's place
//! at its instance; it is kept to the last frame and told how the attempt went. A request that a
//! connection hands back has not been sent: it goes on by itself, at most once more per instance,
//! and that is no attempt.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use http::{Request, Response, Uri, uri};
use tokio::{
    sync::{Notify, watch},
    time::Instant,
};
use tokio_util::sync::DropGuard;

use super::{
    balance::Balance,
    callee, connect,
    http2::{Incoming, Lost},
    long,
    outgoing::Outgoing,
};
use crate::{clock, registry::Snapshot, telemetry};

mod instance;
mod keep;
#[cfg(feature = "testing")]
mod layer;
mod pick;
mod set;

pub(super) use pick::{Pick, SendError, Tried};

/// All instances of a callee. Dropping it closes their connections.
#[derive(Debug)]
pub(super) struct Endpoints {
    set: Arc<set::Set>,
    _close: DropGuard,
}

/// How instances are reached, as far as an operator may say so.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Reach {
    /// How calls are spread over them.
    pub(super) balance: Balance,
    /// How long a call waits for the first instance that can be reached.
    pub(super) failfast: Duration,
    /// How long a connection may take to open.
    pub(super) connect: Duration,
    /// How long nothing is heard over one until it is asked whether it still is.
    pub(super) keepalive: Duration,
}

/// How instances are called.
#[derive(Clone, Debug)]
pub(super) struct Settings {
    /// How calls are spread over them.
    pub(super) balance: Balance,
    /// How long a call waits for the first instance that can be reached.
    pub(super) failfast: Duration,
    /// Between two tries to connect: full jitter below a ceiling that doubles.
    pub(super) backoff: (Duration, Duration),
    /// The connections.
    pub(super) connect: connect::Settings,
    /// Who is told that an instance cannot be reached.
    pub(super) hurry: Arc<Notify>,
}

// === impl Reach ===

impl Default for Reach {
    fn default() -> Self {
        let Settings { balance, failfast, connect, .. } = Settings::default();
        Self { balance, failfast, connect: connect.timeout, keepalive: connect.keepalive.0 }
    }
}

// === impl Settings ===

impl Settings {
    pub(super) fn of(reach: Reach, network: connect::Network, hurry: Arc<Notify>) -> Self {
        let Reach { balance, failfast, connect: timeout, keepalive } = reach;
        let others = Self::default();
        let keepalive = (keepalive, others.connect.keepalive.1);
        let connect = connect::Settings { timeout, keepalive, network, ..others.connect };
        Self { balance, failfast, connect, hurry, ..others }
    }
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            balance: Balance::default(),
            failfast: Duration::from_secs(1),
            backoff: (Duration::from_millis(50), Duration::from_secs(5)),
            connect: connect::Settings::default(),
            hurry: Arc::default(),
        }
    }
}

// === impl Endpoints ===

impl Endpoints {
    /// Begins to connect to the instances of `name`, in the background, until dropped.
    pub(super) fn over(
        name: &str,
        instances: watch::Receiver<Arc<Snapshot>>,
        network: connect::Network,
        reach: Reach,
        hurry: Arc<Notify>,
    ) -> Self {
        Self::with(name, instances, Settings::of(reach, network, hurry))
    }

    /// The same, with settings of its own.
    pub(super) fn with(
        name: &str,
        mut instances: watch::Receiver<Arc<Snapshot>>,
        settings: Settings,
    ) -> Self {
        let set = set::Set::new(name, settings);
        let first = Arc::clone(&instances.borrow_and_update());
        set.update(&first);
        let close = set.close.clone();
        let follow = Arc::clone(&set).follow(instances);
        #[expect(clippy::disallowed_methods, reason = "ends with the channel, not with a call")]
        tokio::spawn(close.clone().run_until_cancelled_owned(follow));
        Self { set, _close: close.drop_guard() }
    }

    /// One attempt at `request`, from now until it has to end: at an instance that is not among
    /// `tried`, if there is another.
    ///
    /// The request is taken as it is sent. If this future is dropped, `tried` still knows where the
    /// attempt went.
    ///
    /// # Errors
    /// [`SendError`] says whether the request may have been carried out.
    pub(super) async fn send(
        &self,
        request: &mut Option<Request<Outgoing>>,
        (now, ends): (Instant, Instant),
        tried: &mut Tried,
    ) -> Result<(Response<Incoming>, Pick), SendError> {
        tried.next();
        let mut back = Tried::default();
        let (mut now, fails) = (now, now + self.set.settings.failfast);
        loop {
            let pick = self.set.pick(tried, &back, now, fails).await;
            let (mut pick, found) = pick.ok_or(SendError::Down)?;
            // Otherwise it closed while it was picked: another one will do.
            if pick.over_line() {
                target(request, &self.set, &pick);
                tried.begin(&pick);
                match pick.send(request, (found, ends)).await {
                    Ok(response) => return Ok((response, pick)),
                    Err(lost) => self.set.unsent(lost, pick, request, (tried, &mut back))?,
                }
            }
            now = clock::instant();
        }
    }

    /// The same over a connection for long streams.
    pub(super) async fn stream(
        &self,
        request: &mut Option<Request<Outgoing>>,
        (now, ends): (Instant, Instant),
        tried: &mut Tried,
    ) -> Result<(Response<Incoming>, Pick), SendError> {
        tried.next();
        let mut back = Tried::default();
        let settings = self.set.settings.connect.clone();
        let settings = connect::Settings { windows: long::WINDOWS, ..settings };
        let fails = now + self.set.settings.failfast;
        loop {
            // Where short calls arrive there is an instance that answers.
            let pick = self.set.pick(tried, &back, now, fails).await;
            let (mut pick, _found) = pick.ok_or(SendError::Down)?;
            let Some(lane) = pick.instance.lane(&settings).await else {
                if back.has(&pick.instance) {
                    let unsent = request.take().ok_or(SendError::Refused)?;
                    return Err(SendError::Unsent(Box::new(unsent)));
                }
                back.begin(&pick);
                continue;
            };
            pick.over_lane(lane);
            target(request, &self.set, &pick);
            tried.begin(&pick);
            // To open one may have taken a while.
            match pick.send(request, (clock::instant(), ends)).await {
                Ok(response) => return Ok((response, pick)),
                Err(lost) => self.set.unsent(lost, pick, request, (tried, &mut back))?,
            }
        }
    }

    /// How many instances there are to ask.
    pub(super) fn count(&self) -> usize {
        self.set.count()
    }

    /// How many instances are in which state.
    pub(super) fn states(&self) -> BTreeMap<&'static str, u64> {
        self.set.states()
    }

    /// Why no instance can be reached, if that is known and none can.
    pub(super) fn trouble(&self) -> Option<String> {
        self.set.trouble()
    }

    /// Every instance: id, address, weight, latency, calls under way, state, last error.
    pub(super) fn view(&self) -> serde_json::Value {
        self.set.view()
    }
}

// === impl Set ===

impl set::Set {
    /// What it means that there is no answer; nothing, if the request is still there and may go on.
    fn unsent(
        &self,
        lost: Lost,
        pick: Pick,
        request: &mut Option<Request<Outgoing>>,
        (tried, back): (&mut Tried, &mut Tried),
    ) -> Result<(), SendError> {
        match lost {
            Lost::Broken(error) => return Err(SendError::Broken { pick, error }),
            Lost::NotBegun => {
                tried.refused();
                return Err(SendError::Refused);
            }
            Lost::Unsent => {}
        }
        pick.retire();
        tried.undo();
        if back.has(&pick.instance) {
            let unsent = request.take().ok_or(SendError::Refused)?;
            return Err(SendError::Unsent(Box::new(unsent)));
        }
        back.begin(&pick);
        callee::count(&telemetry::metrics().resent, &self.name);
        Ok(())
    }
}

/// Gives a request the scheme and the authority of the instance it goes to.
fn target(request: &mut Option<Request<Outgoing>>, set: &set::Set, pick: &Pick) {
    let Some(request) = request else { return };
    let uri = request.uri_mut();
    let mut parts = std::mem::take(uri).into_parts();
    parts.scheme = Some(set.settings.connect.network.scheme());
    parts.authority = Some(pick.instance.authority.clone());
    parts.path_and_query.get_or_insert(uri::PathAndQuery::from_static("/"));
    // Scheme, authority and path are all there: that is a URI.
    *uri = Uri::from_parts(parts).unwrap_or_default();
}

#[cfg(test)]
pub(super) mod tests;
