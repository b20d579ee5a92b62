//! The rpcs about products.

use mesh::{clock, idempotency::Key};
use proto::catalog::v1 as api;
use time::OffsetDateTime;
use uuid::Uuid;

use super::{Catalog, decode, encode, kept, key};
use crate::{
    domain::{Product, ProductEvent, Refusal},
    error::Error,
    store::StoredProduct,
};

/// A change of one product, before it is decided.
struct Change {
    id: Uuid,
    /// What the caller read.
    revision: Option<i64>,
    key: Option<Key>,
    at: OffsetDateTime,
}

impl Catalog {
    pub(super) async fn create_product(
        &self,
        mut request: api::CreateProductRequest,
        at: OffsetDateTime,
    ) -> Result<api::Product, Error> {
        let request_id = std::mem::take(&mut request.request_id);
        let product = decode::required("product", request.product.as_ref())?;
        let title = decode::title("product.title", &product.title)?;
        let description = decode::description(&product.description)?;
        let id = decode::id("product_id", &request.product_id)?.unwrap_or_else(clock::id);
        let key = key("CreateProduct", &request_id, &request)?;
        if let Some(answer) = self.answered(key.as_ref()).await? {
            return Ok(answer);
        }
        let (product, event) = Product::create(id, title, description, at);
        let answer = encode::product(&product, 1);
        let kept = kept(key.as_ref(), &answer);
        let written = self.store.add_product(product, event, kept).await;
        let name = answer.name.clone();
        self.ended(&name, key, answer, written, at).await
    }

    pub(super) async fn get_product(
        &self,
        request: api::GetProductRequest,
        _: OffsetDateTime,
    ) -> Result<api::Product, Error> {
        let id = decode::product("name", &request.name)?;
        let StoredProduct { value, revision } =
            self.store.product(id).await?.ok_or(Error::NotFound(request.name))?;
        Ok(encode::product(&value, revision))
    }

    pub(super) async fn list_products(
        &self,
        request: api::ListProductsRequest,
        _: OffsetDateTime,
    ) -> Result<api::ListProductsResponse, Error> {
        let deleted = if request.show_deleted { "with deleted" } else { "without deleted" };
        let args = ["ListProducts", deleted];
        let page = self.pages.page(request.page_size, &request.page_token, &args)?;
        let mut found =
            self.store.products(&page.after, request.show_deleted, page.size + 1).await?;
        let next_page_token = self.pages.cut(&page, &mut found, |last| last.value.id.to_string());
        let products =
            found.iter().map(|stored| encode::product(&stored.value, stored.revision)).collect();
        Ok(api::ListProductsResponse { products, next_page_token })
    }

    pub(super) async fn update_product(
        &self,
        mut request: api::UpdateProductRequest,
        at: OffsetDateTime,
    ) -> Result<api::Product, Error> {
        let request_id = std::mem::take(&mut request.request_id);
        let product = decode::required("product", request.product.as_ref())?;
        let id = decode::product("product.name", &product.name)?;
        let mask = request.update_mask.as_ref();
        let (title, description) = decode::changed_product(product, mask)?;
        let revision = Some(decode::etag("product.etag", &product.etag)?);
        let key = key("UpdateProduct", &request_id, &request)?;
        self.change_product(Change { id, revision, key, at }, |product| {
            product.update(title.clone(), description.clone(), at)
        })
        .await
    }

    pub(super) async fn delete_product(
        &self,
        mut request: api::DeleteProductRequest,
        at: OffsetDateTime,
    ) -> Result<api::Product, Error> {
        let request_id = std::mem::take(&mut request.request_id);
        let id = decode::product("name", &request.name)?;
        let revision = decode::optional_etag("etag", &request.etag)?;
        let key = key("DeleteProduct", &request_id, &request)?;
        self.change_product(Change { id, revision, key, at }, |product| product.delete(at)).await
    }

    pub(super) async fn undelete_product(
        &self,
        mut request: api::UndeleteProductRequest,
        at: OffsetDateTime,
    ) -> Result<api::Product, Error> {
        let request_id = std::mem::take(&mut request.request_id);
        let id = decode::product("name", &request.name)?;
        let revision = decode::optional_etag("etag", &request.etag)?;
        let key = key("UndeleteProduct", &request_id, &request)?;
        self.change_product(Change { id, revision, key, at }, |product| product.undelete(at)).await
    }

    async fn change_product(
        &self,
        change: Change,
        decide: impl Fn(&mut Product) -> Result<ProductEvent, Refusal> + Send + Sync,
    ) -> Result<api::Product, Error> {
        let Change { id, revision, key, at } = change;
        if let Some(answer) = self.answered(key.as_ref()).await? {
            return Ok(answer);
        }
        let name = format!("products/{id}");
        let (read, product, event) = match self.decided(id, &name, revision, decide).await {
            Ok(decided) => decided,
            Err(error) => return self.refused(key, error, at).await,
        };
        let answer = encode::product(&product, read + 1);
        let kept = kept(key.as_ref(), &answer);
        let written = self.store.save_product(read, product, event, kept).await;
        self.ended(&name, key, answer, written, at).await
    }

    async fn decided(
        &self,
        id: Uuid,
        name: &str,
        revision: Option<i64>,
        decide: impl Fn(&mut Product) -> Result<ProductEvent, Refusal> + Send + Sync,
    ) -> Result<(i64, Product, ProductEvent), Error> {
        let stored =
            self.store.product(id).await?.ok_or_else(|| Error::NotFound(name.to_owned()))?;
        if revision.is_some_and(|revision| revision != stored.revision) {
            return Err(Error::EtagMismatch(name.to_owned()));
        }
        let mut product = stored.value;
        let event = decide(&mut product)
            .map_err(|refusal| Error::Refused { name: name.to_owned(), refusal })?;
        Ok((stored.revision, product, event))
    }
}
