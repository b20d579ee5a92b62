//! Decode, ask the store, encode. No rule lives here.

mod decode;
mod encode;
mod locations;
mod stocks;
mod movements;
mod reservations;

use mesh::{
    auth::Caller,
    clock,
    idempotency::{Answer, Key},
    page::{self, Pages},
};
use proto::{
    inventory::v1::{self as api, inventory_service_server::InventoryService},
    saga::v1 as saga,
};
use time::OffsetDateTime;
use tonic::{Request, Response, Status};

use crate::{
    error::Error,
    store::{Call, Once, Store},
};

/// Serves `ordermesh.inventory.v1.InventoryService`.
#[derive(Clone)]
pub struct Inventory {
    store: Store,
    pages: Pages,
}

/// A page that is asked for.
struct Page {
    after: String,
    size: u64,
    args: [u8; 32],
}

// === impl Inventory ===

impl Inventory {
    /// Serves what is in `store`.
    #[must_use]
    pub fn new(store: Store, pages: Pages) -> Self {
        Self { store, pages }
    }

    /// Reads what a List request says about its page; `args` is what the pages of one list share.
    fn page(&self, size: i32, token: &str, args: &[&str]) -> Result<Page, Error> {
        let size = page::size(size).map_err(|negative| Error::malformed("page_size", negative))?;
        let args = page::args(args);
        let after = match token {
            "" => String::new(),
            token => self.pages.open(token, &args)?,
        };
        Ok(Page { after, size, args })
    }

    /// Cuts what was read, one row more than asked for, to its page; says how to ask for the next.
    fn cut<T>(&self, page: &Page, found: &mut Vec<T>, key: impl Fn(&T) -> String) -> String {
        if u64::try_from(found.len()).is_ok_and(|found| found <= page.size) {
            return String::new();
        }
        found.pop();
        found.last().map_or_else(String::new, |last| self.pages.seal(&key(last), &page.args))
    }
}

/// A call without a command; `bare` is the request without its `request_id`.
fn call<T, M: prost::Message>(
    method: &'static str,
    request_id: &str,
    bare: &M,
    at: OffsetDateTime,
    tell: fn(&T) -> Answer,
) -> Result<Call<T>, Error> {
    let id = decode::request_id(request_id)?;
    let caller = Caller::current();
    let (actor, principal) = match &caller {
        Ok(caller) => (caller.subject.to_string(), caller.principal()),
        Err(_nobody) => (String::new(), "anonymous"),
    };
    let once = id.map_or(Once::Never, |id| Once::Request(Key::new(principal, method, id, bare)));
    Ok(Call { once, actor, at, tell })
}

/// The same for a call that may carry a command, which then stands in for the `request_id`.
fn commanded<T, M: prost::Message>(
    method: &'static str,
    request_id: &str,
    command: Option<&saga::Command>,
    bare: &M,
    at: OffsetDateTime,
    tell: fn(&T) -> Answer,
) -> Result<Call<T>, Error> {
    let mut call = call(method, request_id, bare, at, tell)?;
    if let Some(command) = command {
        if Caller::current().is_ok_and(|caller| caller.service().is_none()) {
            return Err(Error::malformed("command", "is for services only"));
        }
        call.once = Once::Command(decode::command(command)?);
    }
    Ok(call)
}

/// What the call is told, as it was the first time.
fn told<M: prost::Message + Default>(answer: &Answer) -> Result<M, Error> {
    answer.replay().map_err(|refusal| Error::Again(Box::new(refusal)))
}

/// Hands each rpc over to the method that carries it out, with the time it came in.
macro_rules! hand_over {
    ($($rpc:ident($request:ty) -> $answer:ty;)*) => {
        #[tonic::async_trait]
        impl InventoryService for Inventory {
            $(async fn $rpc(
                &self,
                request: Request<$request>,
            ) -> Result<Response<$answer>, Status> {
                let at = clock::now();
                Ok(Response::new(Inventory::$rpc(self, request.into_inner(), at).await?))
            })*
        }
    };
}

hand_over! {
    create_location(api::CreateLocationRequest) -> api::Location;
    get_location(api::GetLocationRequest) -> api::Location;
    list_locations(api::ListLocationsRequest) -> api::ListLocationsResponse;
    get_stock(api::GetStockRequest) -> api::Stock;
    list_stocks(api::ListStocksRequest) -> api::ListStocksResponse;
    batch_get_stocks(api::BatchGetStocksRequest) -> api::BatchGetStocksResponse;
    adjust_stock(api::AdjustStockRequest) -> api::Stock;
    get_movement(api::GetMovementRequest) -> api::Movement;
    list_movements(api::ListMovementsRequest) -> api::ListMovementsResponse;
    create_reservation(api::CreateReservationRequest) -> api::Reservation;
    extend_reservation(api::ExtendReservationRequest) -> api::Reservation;
    commit_reservation(api::CommitReservationRequest) -> api::Reservation;
    fulfill_reservation(api::FulfillReservationRequest) -> api::Reservation;
    restock_reservation(api::RestockReservationRequest) -> api::Reservation;
    release_reservation(api::ReleaseReservationRequest) -> api::Reservation;
    get_reservation(api::GetReservationRequest) -> api::Reservation;
    list_reservations(api::ListReservationsRequest) -> api::ListReservationsResponse;
}

#[cfg(test)]
mod tests;
