//! `OutboxService`: what waits in an outbox.

use tonic::{Request, Response, Status};

use super::{Error, timestamp};
use crate::{
    clock::from_micros,
    log,
    store::Store,
    wire::ordermesh::operator::v1::{
        Backlog, GetBacklogRequest, outbox_service_server::OutboxService,
    },
};

/// Serves the outbox of one database.
#[derive(Debug)]
pub(crate) struct Outbox {
    store: Store,
}

// === impl Outbox ===

impl Outbox {
    pub(crate) fn new(store: &Store) -> Self {
        Self { store: store.clone() }
    }

    async fn backlog(&self) -> Result<Backlog, Error> {
        let waiting = log::backlog(&self.store).await?;
        Ok(Backlog {
            unsequenced: waiting.unsequenced,
            head: log::head(&self.store).await?,
            oldest: log::oldest(&self.store).await?,
            oldest_unsequenced_time: waiting.since.map(from_micros).map(timestamp),
        })
    }
}

#[tonic::async_trait]
impl OutboxService for Outbox {
    async fn get_backlog(
        &self,
        _: Request<GetBacklogRequest>,
    ) -> Result<Response<Backlog>, Status> {
        Ok(Response::new(self.backlog().await?))
    }
}
