//! The connections of a channel without what a call meets before them: what benches compare with.

use std::{
    fmt,
    future::Future,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use http::{Request, Response};
use tonic::body::Body;

use super::{
    connect,
    endpoint::{Endpoints, Reach, Tried},
    outgoing::Outgoing,
};
use crate::{
    clock,
    registry::{Address, Snapshot},
    status,
};

/// What the callee is told that a call may take; nobody looks at it here.
const TIME: Duration = Duration::from_secs(10);

/// The instances of a callee, over connections that are opened ahead of use. No deadline, no
/// place, no retry, no breaker.
#[derive(Clone)]
pub struct Bare(Arc<Endpoints>);

// === impl Bare ===

impl Bare {
    /// Begins to connect.
    #[must_use]
    pub fn to(name: &str, addresses: &[Address]) -> Self {
        let network = connect::Network::Loopback;
        Self(Arc::new(Endpoints::over(
            name,
            Snapshot::fixed(addresses),
            network,
            Reach::default(),
            Arc::default(),
        )))
    }
}

impl fmt::Debug for Bare {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Bare").finish()
    }
}

impl tower::Service<Request<Body>> for Bare {
    type Response = Response<Body>;
    type Error = tonic::Status;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, tonic::Status>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), tonic::Status>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        let endpoints = Arc::clone(&self.0);
        Box::pin(async move {
            let (mut request, now) = (Some(request.map(Outgoing::Streamed)), clock::instant());
            match endpoints.send(&mut request, (now, now + TIME), &mut Tried::default()).await {
                Ok((response, _pick)) => Ok(response.map(Body::new)),
                Err(error) => Err(status::of(&error.failure("bare"))),
            }
        })
    }
}
