//! Decode, decide, store, encode. No rule lives here.

mod decode;
mod encode;
mod prices;
mod products;
mod variants;

use mesh::{
    auth::Caller,
    clock,
    idempotency::{Answer, Key},
    page::Pages,
};
use proto::catalog::v1::{self as api, catalog_service_server::CatalogService};
use time::OffsetDateTime;
use tonic::{Request, Response, Status};

use crate::{
    error::Error,
    store::{Kept, Store, WriteError},
};

/// Serves `ordermesh.catalog.v1.CatalogService`.
#[derive(Clone)]
pub struct Catalog {
    store: Store,
    pages: Pages,
}

// === impl Catalog ===

impl Catalog {
    /// Serves what is in `store`.
    #[must_use]
    pub fn new(store: Store, pages: Pages) -> Self {
        Self { store, pages }
    }

    /// The answer that this call was given before.
    async fn answered<M>(&self, key: Option<&Key>) -> Result<Option<M>, Error>
    where
        M: prost::Message + Default,
    {
        let Some(key) = key else { return Ok(None) };
        match self.store.answered(key).await? {
            Some(answer) => match answer.replay() {
                Ok(answer) => Ok(Some(answer)),
                Err(refusal) => Err(Error::Again(Box::new(refusal))),
            },
            None => Ok(None),
        }
    }

    /// What the call is told after `answer` was written, or was not.
    async fn ended<M>(
        &self,
        name: &str,
        key: Option<Key>,
        answer: M,
        written: Result<(), WriteError>,
        at: OffsetDateTime,
    ) -> Result<M, Error>
    where
        M: prost::Message + Default,
    {
        let Err(error) = written else { return Ok(answer) };
        match Error::of_write(name, error) {
            Some(error) => self.refused(key, error, at).await,
            // Somebody was faster with the same request: the first answer is the only one.
            None => {
                self.answered(key.as_ref()).await?.ok_or_else(|| Error::Changed(name.to_owned()))
            }
        }
    }

    /// Tells a refusal, and keeps it if it is one to keep.
    async fn refused<M>(
        &self,
        key: Option<Key>,
        error: Error,
        at: OffsetDateTime,
    ) -> Result<M, Error>
    where
        M: prost::Message + Default,
    {
        let Some(key) = key else { return Err(error) };
        let status = Status::from(error);
        let again = || Error::Again(Box::new(status.clone()));
        let Some(answer) = Answer::refusal(&status) else { return Err(again()) };
        match self.store.refuse(Kept { key: key.clone(), answer }, at).await {
            Ok(()) => Err(again()),
            Err(WriteError::Failed(failure)) => Err(failure.into()),
            Err(WriteError::Repeated | WriteError::Changed | WriteError::Taken) => {
                self.answered(Some(&key)).await?.ok_or_else(again)
            }
        }
    }
}

/// The key of a call that brought a `request_id`; `bare` is the request without it.
fn key<M: prost::Message>(
    method: &'static str,
    request_id: &str,
    bare: &M,
) -> Result<Option<Key>, Error> {
    let id = decode::request_id(request_id)?;
    let caller = Caller::current();
    let principal = caller.as_ref().map_or("anonymous", Caller::principal);
    Ok(id.map(|id| Key::new(principal, method, id, bare)))
}

fn kept<M: prost::Message>(key: Option<&Key>, answer: &M) -> Option<Kept> {
    key.map(|key| Kept { key: key.clone(), answer: Answer::success(answer) })
}

/// Hands each rpc over to the method that carries it out, with the time it came in.
macro_rules! hand_over {
    ($($rpc:ident($request:ty) -> $answer:ty;)*) => {
        #[tonic::async_trait]
        impl CatalogService for Catalog {
            $(async fn $rpc(
                &self,
                request: Request<$request>,
            ) -> Result<Response<$answer>, Status> {
                let at = clock::now();
                Ok(Response::new(Catalog::$rpc(self, request.into_inner(), at).await?))
            })*
        }
    };
}

hand_over! {
    create_product(api::CreateProductRequest) -> api::Product;
    get_product(api::GetProductRequest) -> api::Product;
    list_products(api::ListProductsRequest) -> api::ListProductsResponse;
    update_product(api::UpdateProductRequest) -> api::Product;
    delete_product(api::DeleteProductRequest) -> api::Product;
    undelete_product(api::UndeleteProductRequest) -> api::Product;
    create_variant(api::CreateVariantRequest) -> api::Variant;
    get_variant(api::GetVariantRequest) -> api::Variant;
    list_variants(api::ListVariantsRequest) -> api::ListVariantsResponse;
    batch_get_variants(api::BatchGetVariantsRequest) -> api::BatchGetVariantsResponse;
    update_variant(api::UpdateVariantRequest) -> api::Variant;
    set_price(api::SetPriceRequest) -> api::Variant;
    get_price(api::GetPriceRequest) -> api::Price;
    list_prices(api::ListPricesRequest) -> api::ListPricesResponse;
}

#[cfg(test)]
mod tests;
