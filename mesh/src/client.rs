//! What a call meets going out.
//!
//! A [`Channel`] is one callee with all its instances, called under a [`Policy`]. What a call
//! meets, from the outside in: its deadline, a place (`call`, `bulkhead`), attempts (`retry`,
//! `hedge`, paid by `budget`); in each attempt the `throttle` and the [`breaker`] (`attempt`),
//! then an instance (`balance`, `gate`) over a connection that is open already (`endpoint`). What
//! the end of an attempt means stands in `classify`. Streams that last have connections of their
//! own (`long`). Around a call there may be a [`fallback()`]. What is not gRPC goes through [`http`] or
//! is [`guarded()`].

use std::{
    convert::Infallible,
    future::Future,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use tokio::sync::{Notify, watch};
use tonic::{Code, Request, Status, body::Body};

use callee::Callee;

use crate::{
    auth::SignIn,
    marks,
    registry::{Address, Snapshot},
    telemetry::Spans,
    tls,
};

mod fallback;
mod callee;
mod methods;
mod policy;
mod dependency;
mod call;
mod say;
mod kept;
mod outgoing;
mod bulkhead;
mod retry;
pub mod backoff;
mod budget;
mod hedge;
mod attempt;
mod throttle;
pub mod breaker;
mod window;
#[cfg(test)]
mod turns;
mod latency;
mod classify;
mod balance;
mod endpoint;
mod gate;
mod connect;
mod http2;
mod long;
mod reply;
mod tool;
mod view;
mod guarded;
pub mod http;
#[cfg(feature = "testing")]
mod bare;
#[cfg(feature = "testing")]
pub(crate) mod layers;

#[cfg(feature = "testing")]
pub use bare::Bare;
pub use budget::Allowance;
pub use dependency::Override;
pub use fallback::fallback;
pub use guarded::{Unserved, guarded};
pub use policy::{Hedge, Policy, timeout};
pub use tool::{Exposed, Tool, Trust};
pub use view::view;

#[cfg(test)]
pub(crate) use connect::Hosts;
pub(crate) use connect::Network;
pub(crate) use dependency::Dependency;
pub(crate) use methods::Methods;
pub(crate) use view::{Reading, readings};

/// One callee, with all its instances. Cheap to clone; generated clients take it.
#[derive(Clone, Debug)]
pub struct Channel(Arc<Callee>);

/// How far a call may go: attached to a request by [`Within::within`].
#[derive(Clone, Copy, Debug)]
struct Limit(Duration);

/// In the extensions of a request: its answer is a stream that may last, and may be read slowly.
/// It gets a place on connections that no other calls share.
#[derive(Clone, Copy, Debug)]
pub struct Long;

/// Bounds a single call more tightly than the call it belongs to: on a message or a request.
pub trait Within<T> {
    /// This request, to be answered within `timeout`. Can only tighten.
    fn within(self, timeout: Duration) -> Request<T>;
}

/// What a failed call says about whether it was carried out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// The callee decided, and said no. Asking again gives the same answer.
    No,
    /// It was not sent, or refused before anything was done. Ask again later.
    NotSent,
    /// It may have been carried out, or may still be. Ask again with the same id.
    Unsure,
}

// === impl Channel ===

impl Channel {
    pub(crate) fn new(
        name: &str,
        instances: watch::Receiver<Arc<Snapshot>>,
        sign_in: SignIn,
        facts: Arc<Methods>,
        network: Network,
        calls: Dependency,
        hurry: Arc<Notify>,
    ) -> Self {
        let endpoints =
            Arc::new(endpoint::Endpoints::over(name, instances, network, calls.reach, hurry));
        Self(Callee::new(named(name), endpoints, sign_in, facts, calls))
    }

    /// Records the calls that are made with it.
    pub(crate) fn recorded(self, spans: &Spans) -> Self {
        self.0.record(spans);
        self
    }

    /// A callee at fixed addresses of this machine, called without a token of our own: how tools
    /// and tests call.
    #[must_use]
    pub fn to(name: &str, addresses: &[Address]) -> Self {
        Self::at(name, addresses, Network::Loopback)
    }

    /// The same over TLS.
    #[must_use]
    pub fn over_tls(name: &str, addresses: &[Address], connector: tls::Connector) -> Self {
        Self::at(name, addresses, Network::Tls(connector))
    }

    fn at(name: &str, addresses: &[Address], network: Network) -> Self {
        let (snapshot, facts) = (Snapshot::fixed(addresses), Methods::of_mesh());
        let (sign_in, calls) = (SignIn::default(), Dependency::default());
        Self::new(name, snapshot, sign_in, facts, network, calls, Arc::default())
    }

    /// A callee on a network that a test plays.
    #[cfg(test)]
    pub(crate) fn over(
        name: &str,
        instances: watch::Receiver<Arc<Snapshot>>,
        hosts: Hosts,
    ) -> Self {
        let network = Network::Memory(hosts);
        let (calls, hurry) = (Dependency::default(), Arc::default());
        let endpoints = endpoint::Endpoints::over(name, instances, network, calls.reach, hurry);
        let endpoints = Arc::new(endpoints);
        let (sign_in, facts) = (SignIn::default(), Methods::of_mesh());
        Self(Callee::new(named(name), endpoints, sign_in, facts, calls))
    }

    /// How many calls are under way.
    #[cfg(test)]
    pub(crate) fn in_use(&self) -> usize {
        self.0.bulkhead.in_use()
    }

    /// How many of its instances are in which state.
    #[cfg(test)]
    pub(crate) fn states(&self) -> std::collections::BTreeMap<&'static str, u64> {
        self.0.endpoints.states()
    }

    /// The same callee over the same connections, with a budget, places and breakers of its own for
    /// this part of its calls: what is asked here by many and in haste closes no way to those who
    /// need an answer. Logs, views and the metric of breakers tell it by `part`, as `users/views`.
    #[must_use]
    pub fn apart(&self, part: &str) -> Self {
        let label = format!("{}/{part}", self.0.name).into();
        self.anew(label, self.0.calls.policy.clone())
    }

    /// The same callee over the same connections, under another policy and with a budget, places
    /// and breakers of its own. Who calls with both keeps one of them [`Channel::apart`]. What an
    /// operator says of it (`--dependency`) counts more than `policy`.
    #[must_use]
    pub fn with(&self, policy: Policy) -> Self {
        let policy = self.0.calls.under(policy);
        self.anew(Arc::clone(&self.0.label), policy)
    }

    fn anew(&self, label: Arc<str>, policy: Policy) -> Self {
        let Callee { name, endpoints, sign_in, facts, calls, .. } = &*self.0;
        let (names, endpoints) = ((Arc::clone(name), label), Arc::clone(endpoints));
        let calls = Dependency { policy, ..calls.clone() };
        Self(Callee::new(names, endpoints, sign_in.clone(), Arc::clone(facts), calls))
            .recorded(self.0.spans())
    }

    /// Where the breaker of `package.Service/Method` stands, and every change of it. Methods with
    /// few calls share one, which has the empty name.
    #[must_use]
    pub fn breaker(&self, method: &str) -> watch::Receiver<breaker::State> {
        if method.is_empty() {
            return self.0.shared.watch();
        }
        self.0.method(method).breaker.watch()
    }

    /// Why no instance of the callee can be reached, where that is so and known. Statuses do not
    /// tell it: they may go on to whom it does not concern.
    #[must_use]
    pub fn trouble(&self) -> Option<String> {
        self.0.endpoints.trouble()
    }

    /// What logs and errors call the callee.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.0.name
    }
}

impl tower::Service<::http::Request<Body>> for Channel {
    type Response = ::http::Response<Body>;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, Infallible>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        // Admission happens inside the call, under its deadline.
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: ::http::Request<Body>) -> Self::Future {
        // One future and no block around it: that would hold the request twice.
        Box::pin(call::call(Arc::clone(&self.0), request))
    }
}

// === impl Within ===

impl<T> Within<T> for Request<T> {
    fn within(mut self, timeout: Duration) -> Self {
        let limit = self.extensions().get::<Limit>();
        let tightest = limit.map_or(timeout, |limit| limit.0.min(timeout));
        self.extensions_mut().insert(Limit(tightest));
        self
    }
}

impl<T: prost::Message> Within<T> for T {
    fn within(self, timeout: Duration) -> Request<T> {
        Request::new(self).within(timeout)
    }
}

/// The names of a callee none of whose calls are kept apart.
fn named(name: &str) -> (Arc<str>, Arc<str>) {
    let name: Arc<str> = name.into();
    (Arc::clone(&name), name)
}

/// Whether a call was refused, here or there, because somebody has too much to do.
pub(crate) fn is_shed(status: &Status) -> bool {
    let metadata = status.metadata();
    let refused = metadata.get(marks::REFUSED).is_some_and(|why| why != marks::BUDGET);
    let local = metadata.contains_key(marks::LOCAL);
    refused || (local && status.code() == Code::ResourceExhausted)
}

/// Says what a failed call means for whoever must know whether it was carried out.
#[must_use]
pub fn judge(status: &Status) -> Verdict {
    let metadata = status.metadata();
    if metadata.contains_key(marks::LOCAL) || metadata.contains_key(marks::REFUSED) {
        return Verdict::NotSent;
    }
    match status.code() {
        Code::FailedPrecondition
        | Code::InvalidArgument
        | Code::NotFound
        | Code::AlreadyExists
        | Code::PermissionDenied
        | Code::OutOfRange
        | Code::Unimplemented => Verdict::No,
        // Our own token was refused, before anything was read: it will be renewed.
        Code::Unauthenticated => Verdict::NotSent,
        Code::Ok
        | Code::Cancelled
        | Code::Unknown
        | Code::DeadlineExceeded
        | Code::ResourceExhausted
        | Code::Aborted
        | Code::Internal
        | Code::Unavailable
        | Code::DataLoss => Verdict::Unsure,
    }
}
