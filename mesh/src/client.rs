//! What a call meets going out.
//!
//! A [`Channel`] is one callee with all its instances. It gives every call a deadline, a
//! trace and an identity (`call`), and sends it over a connection that is open already
//! (`endpoint`). A request that a connection did not send goes to the next one. Streams that last
//! have connections of their own (`long`).

use std::{
    convert::Infallible,
    future::Future,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use tonic::{Code, Request, Status, body::Body};

use crate::{auth::SignIn, registry::Address, status};

mod call;
mod cancel;
mod endpoint;
mod long;
mod reply;
pub mod http;

/// One callee, with all its instances. Cheap to clone; generated clients take it.
#[derive(Clone, Debug)]
pub struct Channel(Arc<Callee>);

#[derive(Debug)]
struct Callee {
    /// What logs and errors call it.
    name: String,
    endpoints: endpoint::Endpoints,
    sign_in: SignIn,
}

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
    /// It was not sent. Ask again later; nothing has happened.
    NotSent,
    /// It may have been carried out, or may still be. Ask again with the same id.
    Unsure,
}

// === impl Channel ===

impl Channel {
    pub(crate) fn new(name: &str, addresses: &[Address], sign_in: SignIn) -> Self {
        let endpoints = endpoint::Endpoints::connect(name, addresses);
        Self(Arc::new(Callee { name: name.to_owned(), endpoints, sign_in }))
    }

    /// A callee at fixed addresses, called without a token of our own: how tools and tests call.
    #[must_use]
    pub fn to(name: &str, addresses: &[Address]) -> Self {
        Self::new(name, addresses, SignIn::default())
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
        let callee = Arc::clone(&self.0);
        let (request, held) = cancel::tie(request);
        Box::pin(async move { Ok(held.by(call::call(&callee, request).await)) })
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

/// Says what a failed call means for whoever must know whether it was carried out.
#[must_use]
pub fn judge(status: &Status) -> Verdict {
    if status.metadata().contains_key(status::LOCAL) {
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
