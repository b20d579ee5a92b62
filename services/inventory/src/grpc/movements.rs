//! The rpcs about movements.

use proto::inventory::v1 as api;
use time::OffsetDateTime;

use super::{Inventory, decode, encode};
use crate::error::Error;

impl Inventory {
    pub(super) async fn get_movement(
        &self,
        request: api::GetMovementRequest,
        _: OffsetDateTime,
    ) -> Result<api::Movement, Error> {
        let id = decode::uuid("name", "movements", &request.name)?;
        let found = self.store.movement(id).await?.ok_or(Error::NotFound(request.name))?;
        Ok(encode::movement(&found))
    }

    pub(super) async fn list_movements(
        &self,
        request: api::ListMovementsRequest,
        _: OffsetDateTime,
    ) -> Result<api::ListMovementsResponse, Error> {
        let stock = match request.stock.as_str() {
            "" => None,
            name => Some(decode::stock_at("stock", name)?),
        };
        let cause = decode::optional_uuid("cause", "reservations", &request.cause)?;
        let args = ["ListMovements", &request.stock, &request.cause];
        let page = self.page(request.page_size, &request.page_token, &args)?;
        let stock = stock.as_ref().map(|(place, sku)| (place, sku));
        let mut found = self.store.movements(&page.after, stock, cause, page.size + 1).await?;
        let next_page_token = self.cut(&page, &mut found, |last| last.id.to_string());
        let movements = found.iter().map(encode::movement).collect();
        Ok(api::ListMovementsResponse { movements, next_page_token })
    }
}
