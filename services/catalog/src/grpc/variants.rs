//! The rpcs about variants and what they cost.

use std::collections::HashMap;

use mesh::{clock, idempotency::Key};
use proto::catalog::v1 as api;
use time::OffsetDateTime;

use super::{Catalog, decode, encode, kept, key};
use crate::{
    domain::{Refusal, Sku, Variant, VariantEvent},
    error::Error,
    store::{OnSale, StoredVariant},
};

/// The most variants that one call reads.
const BATCH: usize = 100;

/// A change of one variant, before it is decided.
struct Change {
    sku: Sku,
    /// What the caller read.
    revision: i64,
    key: Option<Key>,
    at: OffsetDateTime,
}

impl Catalog {
    pub(super) async fn create_variant(
        &self,
        mut request: api::CreateVariantRequest,
        at: OffsetDateTime,
    ) -> Result<api::Variant, Error> {
        let request_id = std::mem::take(&mut request.request_id);
        let variant = decode::required("variant", request.variant.as_ref())?;
        let sku = decode::sku("variant_id", &request.variant_id)?;
        let product = decode::product("variant.product", &variant.product)?;
        let title = decode::title("variant.title", &variant.title)?;
        let price = decode::amount("variant.price", variant.price.as_ref())?;
        let product_name = variant.product.clone();
        let key = key("CreateVariant", &request_id, &request)?;
        if let Some(answer) = self.answered(key.as_ref()).await? {
            return Ok(answer);
        }
        let added = match self.store.product(product).await? {
            None => Err(Error::NotFound(product_name)),
            Some(stored) => stored
                .value
                .variant(sku, title, price, clock::id(), at)
                .map_err(|refusal| Error::Refused { name: product_name, refusal }),
        };
        let (variant, event) = match added {
            Ok(added) => added,
            Err(error) => return self.refused(key, error, at).await,
        };
        let answer = encode::variant(&variant, true, 1);
        let kept = kept(key.as_ref(), &answer);
        let written = self.store.add_variant(variant, event, kept).await;
        let name = answer.name.clone();
        self.ended(&name, key, answer, written, at).await
    }

    pub(super) async fn get_variant(
        &self,
        request: api::GetVariantRequest,
        at: OffsetDateTime,
    ) -> Result<api::Variant, Error> {
        let sku = decode::variant("name", &request.name)?;
        let found = self.store.variant(&sku, at).await?.ok_or(Error::NotFound(request.name))?;
        Ok(encoded(&found))
    }

    pub(super) async fn list_variants(
        &self,
        request: api::ListVariantsRequest,
        at: OffsetDateTime,
    ) -> Result<api::ListVariantsResponse, Error> {
        let product = match request.product.as_str() {
            "" => None,
            name => Some(decode::product("product", name)?),
        };
        let args = ["ListVariants", &request.product];
        let page = self.pages.page(request.page_size, &request.page_token, &args)?;
        let mut found = self.store.variants(&page.after, product, page.size + 1, at).await?;
        let next_page_token =
            self.pages.cut(&page, &mut found, |last| last.value.variant.sku.as_str().to_owned());
        let variants = found.iter().map(encoded).collect();
        Ok(api::ListVariantsResponse { variants, next_page_token })
    }

    pub(super) async fn batch_get_variants(
        &self,
        request: api::BatchGetVariantsRequest,
        at: OffsetDateTime,
    ) -> Result<api::BatchGetVariantsResponse, Error> {
        if request.names.is_empty() || request.names.len() > BATCH {
            return Err(Error::malformed("names", format!("must be 1 to {BATCH} names")));
        }
        let skus = request
            .names
            .iter()
            .enumerate()
            .map(|(index, name)| decode::variant(format!("names[{index}]"), name))
            .collect::<Result<Vec<_>, _>>()?;
        let found = self.store.variants_of(&skus, at).await?;
        let by_sku: HashMap<&Sku, &StoredVariant> =
            found.iter().map(|stored| (&stored.value.variant.sku, stored)).collect();
        let variants = skus
            .iter()
            .map(|sku| match by_sku.get(sku) {
                Some(stored) => Ok(encoded(stored)),
                None => Err(Error::NotFound(format!("variants/{}", sku.as_str()))),
            })
            .collect::<Result<_, _>>()?;
        Ok(api::BatchGetVariantsResponse { variants })
    }

    pub(super) async fn update_variant(
        &self,
        mut request: api::UpdateVariantRequest,
        at: OffsetDateTime,
    ) -> Result<api::Variant, Error> {
        let request_id = std::mem::take(&mut request.request_id);
        let variant = decode::required("variant", request.variant.as_ref())?;
        let sku = decode::variant("variant.name", &variant.name)?;
        let title = decode::changed_variant(variant, request.update_mask.as_ref())?;
        let revision = decode::etag("variant.etag", &variant.etag)?;
        let key = key("UpdateVariant", &request_id, &request)?;
        self.change_variant(Change { sku, revision, key, at }, |variant| {
            Ok(variant.update(title.clone(), at))
        })
        .await
    }

    pub(super) async fn set_price(
        &self,
        mut request: api::SetPriceRequest,
        at: OffsetDateTime,
    ) -> Result<api::Variant, Error> {
        let request_id = std::mem::take(&mut request.request_id);
        let sku = decode::variant("name", &request.name)?;
        let amount = decode::amount("price", request.price.as_ref())?;
        let effective_at = decode::time("effective_time", request.effective_time.as_ref())?;
        let revision = decode::etag("etag", &request.etag)?;
        let key = key("SetPrice", &request_id, &request)?;
        let version = clock::id();
        self.change_variant(Change { sku, revision, key, at }, |variant| {
            variant.set_price(version, amount, effective_at, at)
        })
        .await
    }

    async fn change_variant(
        &self,
        change: Change,
        decide: impl Fn(&mut Variant) -> Result<VariantEvent, Refusal> + Send + Sync,
    ) -> Result<api::Variant, Error> {
        let Change { sku, revision, key, at } = change;
        if let Some(answer) = self.answered(key.as_ref()).await? {
            return Ok(answer);
        }
        let name = format!("variants/{}", sku.as_str());
        let read = match self.store.variant(&sku, at).await? {
            None => Err(Error::NotFound(name.clone())),
            Some(read) if read.revision != revision => Err(Error::EtagMismatch(name.clone())),
            Some(read) => Ok(read),
        };
        let decided = read.and_then(|read| {
            let mut variant = read.value.variant.clone();
            let event = decide(&mut variant)
                .map_err(|refusal| Error::Refused { name: name.clone(), refusal })?;
            Ok((read, variant, event))
        });
        let (read, variant, event) = match decided {
            Ok(decided) => decided,
            Err(error) => return self.refused(key, error, at).await,
        };
        let answer = encode::variant(&variant, read.value.active, read.revision + 1);
        let kept = kept(key.as_ref(), &answer);
        let written = self.store.save_variant(&read, variant, event, kept).await;
        self.ended(&name, key, answer, written, at).await
    }
}

fn encoded(stored: &StoredVariant) -> api::Variant {
    let OnSale { variant, active } = &stored.value;
    encode::variant(variant, *active, stored.revision)
}
