//! The rpcs about locations.

use mesh::idempotency::Answer;
use proto::inventory::v1 as api;
use time::OffsetDateTime;

use super::{Inventory, call, decode, encode, told};
use crate::{error::Error, store::Location};

impl Inventory {
    pub(super) async fn create_location(
        &self,
        mut request: api::CreateLocationRequest,
        at: OffsetDateTime,
    ) -> Result<api::Location, Error> {
        let request_id = std::mem::take(&mut request.request_id);
        let location = decode::required("location", request.location.as_ref())?;
        let display_name = decode::display_name(&location.display_name)?;
        let place = decode::place("location_id", &request.location_id)?;
        let tell = |location: &Location| Answer::success(&encode::location(location));
        let call = call("CreateLocation", &request_id, &request, at, tell)?;
        let location = Location { place, display_name, created_at: at };
        told(&self.store.add_location(call, location).await?)
    }

    pub(super) async fn get_location(
        &self,
        request: api::GetLocationRequest,
        _: OffsetDateTime,
    ) -> Result<api::Location, Error> {
        let place = decode::location("name", &request.name)?;
        let found = self.store.location(&place).await?.ok_or(Error::NotFound(request.name))?;
        Ok(encode::location(&found))
    }

    pub(super) async fn list_locations(
        &self,
        request: api::ListLocationsRequest,
        _: OffsetDateTime,
    ) -> Result<api::ListLocationsResponse, Error> {
        let page = self.page(request.page_size, &request.page_token, &["ListLocations"])?;
        let mut found = self.store.locations(&page.after, page.size + 1).await?;
        let next_page_token = self.cut(&page, &mut found, |last| last.place.to_string());
        let locations = found.iter().map(encode::location).collect();
        Ok(api::ListLocationsResponse { locations, next_page_token })
    }
}
