//! The rpcs about prices.

use mesh::resource;
use proto::catalog::v1 as api;
use time::OffsetDateTime;

use super::{Catalog, decode, encode};
use crate::error::Error;

impl Catalog {
    pub(super) async fn get_price(
        &self,
        request: api::GetPriceRequest,
        _: OffsetDateTime,
    ) -> Result<api::Price, Error> {
        let id = resource::parse_uuid("prices", &request.name)
            .map_err(|error| Error::malformed("name", error))?;
        let price = self.store.price(id).await?.ok_or(Error::NotFound(request.name))?;
        Ok(encode::price(&price))
    }

    pub(super) async fn list_prices(
        &self,
        request: api::ListPricesRequest,
        _: OffsetDateTime,
    ) -> Result<api::ListPricesResponse, Error> {
        let sku = match request.variant.as_str() {
            "" => None,
            name => Some(decode::variant("variant", name)?),
        };
        let args = ["ListPrices", &request.variant];
        let page = self.pages.page(request.page_size, &request.page_token, &args)?;
        let mut found = self.store.prices(&page.after, sku.as_ref(), page.size + 1).await?;
        let next_page_token = self.pages.cut(&page, &mut found, |last| last.id.to_string());
        let prices = found.iter().map(encode::price).collect();
        Ok(api::ListPricesResponse { prices, next_page_token })
    }
}
