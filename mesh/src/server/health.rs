//! gRPC health (grpc.health.v1) on tonic-health's generated types.
//!
//! `""` says that the process lives, a service's name whether it is ready. tonic-health's own
//! server cannot turn all services at once, and its `Watch` fails for a name that is unknown.

use std::pin::Pin;

use tokio::sync::watch;
use tokio_stream::{Stream, StreamExt as _, wrappers::WatchStream};
use tonic::{Request, Response, Status};
use tonic_health::pb::{
    HealthCheckRequest, HealthCheckResponse,
    health_check_response::ServingStatus,
    health_server::{Health, HealthServer},
};

use crate::status::Failure;

/// The health of this process and its services.
#[derive(Debug)]
pub(crate) struct Serving {
    names: Vec<&'static str>,
    ready: watch::Receiver<bool>,
}

/// Health of the process (`""`) and of the services in `names`, which are ready together.
pub(crate) fn health(
    names: Vec<&'static str>,
    ready: watch::Receiver<bool>,
) -> HealthServer<Serving> {
    HealthServer::new(Serving { names, ready })
}

#[tonic::async_trait]
impl Health for Serving {
    type WatchStream = Pin<Box<dyn Stream<Item = Result<HealthCheckResponse, Status>> + Send>>;

    async fn check(
        &self,
        request: Request<HealthCheckRequest>,
    ) -> Result<Response<HealthCheckResponse>, Status> {
        let service = request.into_inner().service;
        if service.is_empty() {
            return Ok(Response::new(said(ServingStatus::Serving)));
        }
        if !self.knows(&service) {
            return Err(Failure::UnknownService(service).into());
        }
        Ok(Response::new(readiness(*self.ready.borrow())))
    }

    async fn watch(
        &self,
        request: Request<HealthCheckRequest>,
    ) -> Result<Response<Self::WatchStream>, Status> {
        let service = request.into_inner().service;
        let stream: Self::WatchStream = if service.is_empty() || !self.knows(&service) {
            let status = if service.is_empty() {
                ServingStatus::Serving
            } else {
                ServingStatus::ServiceUnknown
            };
            Box::pin(tokio_stream::once(Ok(said(status))).chain(tokio_stream::pending()))
        } else {
            Box::pin(WatchStream::new(self.ready.clone()).map(|ready| Ok(readiness(ready))))
        };
        Ok(Response::new(stream))
    }
}

// === impl Serving ===

impl Serving {
    fn knows(&self, service: &str) -> bool {
        self.names.contains(&service)
    }
}

fn readiness(ready: bool) -> HealthCheckResponse {
    said(if ready { ServingStatus::Serving } else { ServingStatus::NotServing })
}

fn said(status: ServingStatus) -> HealthCheckResponse {
    HealthCheckResponse { status: status.into() }
}
