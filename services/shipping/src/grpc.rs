//! Calls: decoded, handed to store and resolver, encoded. No rule lives here.

mod decode;
mod encode;
#[cfg(test)]
mod tests;

use mesh::{
    auth::{Caller, Scope},
    clock,
    idempotency::{Answer, Key},
    page::Pages,
};
use proto::shipping::v1::{self as api, shipping_service_server::ShippingService};
use tonic::{Request, Response, Status};
use uuid::Uuid;

use crate::{
    domain::{Refusal, Shipment},
    error::Error,
    resolver::Resolver,
    store::{self, Begun, Call, Once, Only, Store},
};

/// `ordermesh.shipping.v1.ShippingService`.
#[derive(Clone)]
pub struct Shipping {
    store: Store,
    resolver: Resolver,
    pages: Pages,
}

// === impl Shipping ===

impl Shipping {
    /// Serves the shipments of `store`; `pages` seals the tokens of lists.
    #[must_use]
    pub fn new(store: Store, resolver: Resolver, pages: Pages) -> Self {
        Self { store, resolver, pages }
    }

    async fn create(
        &self,
        mut request: api::CreateShipmentRequest,
    ) -> Result<api::Shipment, Error> {
        let request_id = std::mem::take(&mut request.request_id);
        let command = request.command.take();
        let id = decode::id("shipment_id", &request.shipment_id)?;
        let plan = decode::plan(request.shipment.as_ref())?;
        let mut call = call("CreateShipment", &request_id, &request)?;
        if let Some(command) = &command {
            call.once = Once::Command(decode::command(command)?);
        }
        let answer = self.store.create(call, id, plan).await?;
        self.resolver.ring();
        told(&answer)
    }

    async fn get(&self, request: api::GetShipmentRequest) -> Result<api::Shipment, Error> {
        let id = decode::name(&request.name)?;
        let found = self.store.shipment(id).await?;
        // Permission before existence: nobody owns what is not there.
        Caller::current()?.owns(found.as_ref().map_or("", |it| &it.plan.customer))?;
        found.as_ref().map(encode::shipment).ok_or(Error::NotFound(id))
    }

    async fn list(
        &self,
        request: api::ListShipmentsRequest,
    ) -> Result<api::ListShipmentsResponse, Error> {
        let order = decode::optional_order(&request.order)?;
        let customer = match Caller::current()?.scope() {
            Scope::All => None,
            Scope::Own(customer) => Some(customer.to_string()),
        };
        let args = ["ListShipments", &request.order, customer.as_deref().unwrap_or_default()];
        let page = self.pages.page(request.page_size, &request.page_token, &args)?;
        let mut found = self.store.shipments(&Only { customer, order }, &page).await?;
        let next_page_token = self.pages.cut(&page, &mut found, store::key);
        let shipments = found.iter().map(encode::shipment).collect();
        Ok(api::ListShipmentsResponse { shipments, next_page_token })
    }

    async fn cancel(
        &self,
        mut request: api::CancelShipmentRequest,
    ) -> Result<api::Shipment, Error> {
        let request_id = std::mem::take(&mut request.request_id);
        let command = request.command.take();
        let id = decode::name(&request.name)?;
        let reason = decode::reason(request.reason)?;
        let mut revision = decode::optional_etag(&request.etag)?;
        let mut call = call("CancelShipment", &request_id, &request)?;
        if let Some(command) = &command {
            if Caller::current()?.service().is_none() {
                return Err(Error::malformed("command", "is for services only"));
            }
            call.once = Once::Undo(decode::command(command)?);
            revision = None;
        }
        let begun = self.store.cancel(call.clone(), id, reason, revision).await?;
        self.answered(call, id, begun, Shipment::is_cancelled).await
    }

    async fn dispatch(
        &self,
        mut request: api::DispatchShipmentRequest,
    ) -> Result<api::Shipment, Error> {
        let request_id = std::mem::take(&mut request.request_id);
        let id = decode::name(&request.name)?;
        let revision = decode::optional_etag(&request.etag)?;
        let call = call("DispatchShipment", &request_id, &request)?;
        let begun = self.store.dispatch(call.clone(), id, revision).await?;
        self.answered(call, id, begun, Shipment::is_dispatched).await
    }

    async fn record(
        &self,
        mut request: api::RecordCarrierEventRequest,
    ) -> Result<api::Shipment, Error> {
        let request_id = std::mem::take(&mut request.request_id);
        let id = decode::name(&request.name)?;
        let noted = decode::noted(&request, clock::now())?;
        let call = call("RecordCarrierEvent", &request_id, &request)?;
        told(&self.store.note(call, id, noted).await?)
    }

    /// The second half of a call: the carrier is asked, and its answer is the call's.
    async fn answered(
        &self,
        call: Call,
        id: Uuid,
        begun: Begun,
        came_of: fn(&Shipment) -> Result<(), Refusal>,
    ) -> Result<api::Shipment, Error> {
        let (shipment, send) = match begun {
            Begun::Answered(answer) => return told(&answer),
            Begun::Open(shipment, send) => (shipment, send),
        };
        if let Some(attempt) = send {
            self.resolver.carry_out(*shipment, attempt).await?;
        }
        told(&self.store.settle(call, id, came_of).await?)
    }
}

/// A call; `bare` is the request without its `request_id` and its command.
fn call<M: prost::Message>(
    method: &'static str,
    request_id: &str,
    bare: &M,
) -> Result<Call, Error> {
    let id = decode::request_id(request_id)?;
    let caller = Caller::current()?;
    let once =
        id.map_or(Once::Never, |id| Once::Request(Key::new(caller.principal(), method, id, bare)));
    let tell = |shipment: &Shipment| Answer::success(&encode::shipment(shipment));
    Ok(Call { once, actor: caller.subject.to_string(), tell })
}

/// What the call is told, as it was the first time.
fn told(answer: &Answer) -> Result<api::Shipment, Error> {
    answer.replay().map_err(|refusal| Error::Again(Box::new(refusal)))
}

#[tonic::async_trait]
impl ShippingService for Shipping {
    async fn create_shipment(
        &self,
        request: Request<api::CreateShipmentRequest>,
    ) -> Result<Response<api::Shipment>, Status> {
        Ok(Response::new(self.create(request.into_inner()).await?))
    }

    async fn get_shipment(
        &self,
        request: Request<api::GetShipmentRequest>,
    ) -> Result<Response<api::Shipment>, Status> {
        Ok(Response::new(self.get(request.into_inner()).await?))
    }

    async fn list_shipments(
        &self,
        request: Request<api::ListShipmentsRequest>,
    ) -> Result<Response<api::ListShipmentsResponse>, Status> {
        Ok(Response::new(self.list(request.into_inner()).await?))
    }

    async fn cancel_shipment(
        &self,
        request: Request<api::CancelShipmentRequest>,
    ) -> Result<Response<api::Shipment>, Status> {
        Ok(Response::new(self.cancel(request.into_inner()).await?))
    }

    async fn dispatch_shipment(
        &self,
        request: Request<api::DispatchShipmentRequest>,
    ) -> Result<Response<api::Shipment>, Status> {
        Ok(Response::new(self.dispatch(request.into_inner()).await?))
    }

    async fn record_carrier_event(
        &self,
        request: Request<api::RecordCarrierEventRequest>,
    ) -> Result<Response<api::Shipment>, Status> {
        Ok(Response::new(self.record(request.into_inner()).await?))
    }
}
