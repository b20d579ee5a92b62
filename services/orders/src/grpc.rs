//! Calls: decode, decide, store, encode. No rule lives here.

pub mod encode;
mod change;
mod parse;
mod place;
mod read;
mod summary;
mod watch;

use std::{future::Future, time::Duration};

use futures_util::{StreamExt as _, stream::BoxStream};
use mesh::{
    app::Draining, auth::Caller, clock, idempotency::Key, page::Pages, saga::Runner, store::Failure,
};
use proto::orders::v1::{self as api, orders_service_server::OrdersService};
use tonic::{Request, Response, Status, metadata::MetadataValue};
use uuid::Uuid;

pub use watch::Watching;

use crate::{
    error::Error,
    saga::{Patience, Peers},
    store::{Store, WriteError},
};

/// Serves `ordermesh.orders.v1.OrdersService`.
#[derive(Clone)]
pub struct Orders {
    /// Where orders are kept.
    pub store: Store,
    /// Whom they need.
    pub peers: Peers,
    /// The same, for what is only shown: apart, so that views close no way to sagas.
    pub views: Peers,
    /// What carries them on.
    pub runner: Runner,
    /// What seals page tokens and quotes.
    pub pages: Pages,
    /// How long things may take.
    pub patience: Patience,
    /// How long a quote is honoured.
    pub quote_age_max: Duration,
    /// How watches go.
    pub watching: Watching,
    /// Says when watches have to end.
    pub leaving: Draining,
}

/// An answer, and whether it was given before.
struct Told<M> {
    message: M,
    replayed: bool,
}

/// How long a commit may take.
const COMMIT: Duration = Duration::from_secs(10);

/// The response metadata of an answer that was given before.
const REPLAYED: &str = "mesh-replayed";

#[tonic::async_trait]
impl OrdersService for Orders {
    async fn quote_order(
        &self,
        request: Request<api::QuoteOrderRequest>,
    ) -> Result<Response<api::QuoteOrderResponse>, Status> {
        let quote = self.quote(request.get_ref(), clock::now()).await?;
        Ok(Response::new(quote))
    }

    async fn create_order(
        &self,
        request: Request<api::CreateOrderRequest>,
    ) -> Result<Response<api::Order>, Status> {
        answer(self.create(request.into_inner(), clock::now()).await)
    }

    async fn get_order(
        &self,
        request: Request<api::GetOrderRequest>,
    ) -> Result<Response<api::Order>, Status> {
        let order = self.get(request.get_ref()).await?;
        Ok(Response::new(order))
    }

    async fn get_order_summary(
        &self,
        request: Request<api::GetOrderSummaryRequest>,
    ) -> Result<Response<api::OrderSummary>, Status> {
        let summary = self.summary(request.get_ref()).await?;
        Ok(Response::new(summary))
    }

    async fn list_orders(
        &self,
        request: Request<api::ListOrdersRequest>,
    ) -> Result<Response<api::ListOrdersResponse>, Status> {
        let page = self.list(request.get_ref()).await?;
        Ok(Response::new(page))
    }

    async fn batch_get_orders(
        &self,
        request: Request<api::BatchGetOrdersRequest>,
    ) -> Result<Response<api::BatchGetOrdersResponse>, Status> {
        let orders = self.batch_get(request.get_ref()).await?;
        Ok(Response::new(orders))
    }

    async fn cancel_order(
        &self,
        request: Request<api::CancelOrderRequest>,
    ) -> Result<Response<api::Order>, Status> {
        answer(self.cancel(request.into_inner(), clock::now()).await)
    }

    async fn accept_order_changes(
        &self,
        request: Request<api::AcceptOrderChangesRequest>,
    ) -> Result<Response<api::Order>, Status> {
        answer(self.accept(request.into_inner(), clock::now()).await)
    }

    type WatchOrderStream = BoxStream<'static, Result<api::WatchOrderResponse, Status>>;

    async fn watch_order(
        &self,
        request: Request<api::WatchOrderRequest>,
    ) -> Result<Response<Self::WatchOrderStream>, Status> {
        let watch = self.watch(request.get_ref()).await?;
        Ok(Response::new(watch.boxed()))
    }

    async fn list_order_events(
        &self,
        request: Request<api::ListOrderEventsRequest>,
    ) -> Result<Response<api::ListOrderEventsResponse>, Status> {
        let page = self.list_events(request.get_ref()).await?;
        Ok(Response::new(page))
    }
}

// === impl Orders ===

impl Orders {
    /// The answer that this request was given before, if it was; asked before any look at live
    /// state.
    async fn answered(&self, key: Option<&Key>) -> Result<Option<Told<api::Order>>, Error> {
        let Some(key) = key else { return Ok(None) };
        let Some(answer) = self.store.answered(key).await? else { return Ok(None) };
        let message =
            answer.replay().map_err(|status| Error::Answered(Box::new(replay(status))))?;
        Ok(Some(Told { message, replayed: true }))
    }
}

// === impl Told ===

impl<M> Told<M> {
    fn first(message: M) -> Self {
        Self { message, replayed: false }
    }
}

/// Commits and sets off what follows, although the caller may leave meanwhile.
async fn finished<T: Send + 'static>(
    name: &'static str,
    work: impl Future<Output = Result<T, WriteError>> + Send + 'static,
) -> Result<T, WriteError> {
    match mesh::detach(name, COMMIT, work).await {
        Ok(Some(done)) => done,
        // Whether it was committed is not known: a repeat of the request finds out.
        Ok(None) | Err(_) => Err(Failure::new("commit in time", name).into()),
    }
}

/// The key of a call that may be repeated: `request` is what was sent, without its request id.
fn key(
    caller: &Caller,
    method: &'static str,
    request_id: Option<Uuid>,
    request: &impl prost::Message,
) -> Option<Key> {
    request_id.map(|id| Key::new(caller.principal(), method, id, request))
}

fn answer<M>(told: Result<Told<M>, Error>) -> Result<Response<M>, Status> {
    let Told { message, replayed } = told?;
    let mut response = Response::new(message);
    if replayed {
        response.metadata_mut().insert(REPLAYED, MetadataValue::from_static("true"));
    }
    Ok(response)
}

fn replay(mut refusal: Status) -> Status {
    refusal.metadata_mut().insert(REPLAYED, MetadataValue::from_static("true"));
    refusal
}
