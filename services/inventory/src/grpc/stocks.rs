//! The rpcs about stock.

use mesh::idempotency::Answer;
use proto::inventory::v1 as api;
use time::OffsetDateTime;

use super::{
    Inventory, call,
    decode::{self, StockName},
    encode, told,
};
use crate::{
    domain::{Sku, Stock},
    error::Error,
    events,
    store::Correction,
};

/// The most names in one `BatchGetStocks`.
const BATCH: usize = 100;

impl Inventory {
    pub(super) async fn get_stock(
        &self,
        request: api::GetStockRequest,
        _: OffsetDateTime,
    ) -> Result<api::Stock, Error> {
        let asked = decode::stock("name", &request.name)?;
        let found = self.store.stocks_of(std::slice::from_ref(&asked.sku)).await?;
        one(&asked, &found)
    }

    pub(super) async fn list_stocks(
        &self,
        request: api::ListStocksRequest,
        _: OffsetDateTime,
    ) -> Result<api::ListStocksResponse, Error> {
        let sku = match request.variant.as_str() {
            "" => None,
            name => Some(decode::variant("variant", name)?),
        };
        let place = match request.location.as_str() {
            "" => None,
            name => Some(decode::location("location", name)?),
        };
        let args = ["ListStocks", &request.variant, &request.location];
        let page = self.page(request.page_size, &request.page_token, &args)?;
        // No id of a variant or a location has a `~`.
        let after = page.after.split_once('~').unwrap_or_default();
        let mut found =
            self.store.stocks(after, sku.as_ref(), place.as_ref(), page.size + 1).await?;
        let next_page_token =
            self.cut(&page, &mut found, |last| format!("{}~{}", last.sku, last.place));
        let stocks = found.iter().map(encode::stock).collect();
        Ok(api::ListStocksResponse { stocks, next_page_token })
    }

    pub(super) async fn batch_get_stocks(
        &self,
        request: api::BatchGetStocksRequest,
        _: OffsetDateTime,
    ) -> Result<api::BatchGetStocksResponse, Error> {
        if !(1..=BATCH).contains(&request.names.len()) {
            return Err(Error::malformed("names", format!("must be 1 to {BATCH} names")));
        }
        let asked = request
            .names
            .iter()
            .enumerate()
            .map(|(index, name)| decode::stock(format!("names[{index}]"), name))
            .collect::<Result<Vec<_>, _>>()?;
        let skus: Vec<Sku> = asked.iter().map(|name| name.sku.clone()).collect();
        let found = self.store.stocks_of(&skus).await?;
        let stocks = asked.iter().map(|name| one(name, &found)).collect::<Result<_, _>>()?;
        Ok(api::BatchGetStocksResponse { stocks })
    }

    pub(super) async fn adjust_stock(
        &self,
        mut request: api::AdjustStockRequest,
        at: OffsetDateTime,
    ) -> Result<api::Stock, Error> {
        let request_id = std::mem::take(&mut request.request_id);
        let (place, sku) = decode::stock_at("name", &request.name)?;
        let by = decode::adjustment(request.delta, request.reason)?;
        let note = decode::note(&request.note)?;
        let read = decode::optional_etag("etag", &request.etag)?;
        let tell = |stock: &Stock| Answer::success(&encode::stock(stock));
        let call = call("AdjustStock", &request_id, &request, at, tell)?;
        let wish = Correction { sku, place, by, note, read };
        told(&self.store.adjust(call, wish).await?)
    }
}

/// The stock that was asked for, of those that were read.
fn one(asked: &StockName, found: &[Stock]) -> Result<api::Stock, Error> {
    let StockName { sku, place } = asked;
    let Some(place) = place else { return Ok(encode::sum(sku, found)) };
    found
        .iter()
        .find(|stock| stock.sku == *sku && stock.place == *place)
        .map(encode::stock)
        .ok_or_else(|| Error::NotFound(events::stock_name(place, sku)))
}
