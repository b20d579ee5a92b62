//! The rpcs about reservations.

use mesh::{clock, idempotency::Answer};
use proto::inventory::v1 as api;
use time::OffsetDateTime;

use super::{Inventory, call, commanded, decode, encode, told};
use crate::{
    domain::reservation::Reservation,
    error::Error,
    store::{Ask, Way},
};

impl Inventory {
    pub(super) async fn create_reservation(
        &self,
        mut request: api::CreateReservationRequest,
        at: OffsetDateTime,
    ) -> Result<api::Reservation, Error> {
        let request_id = std::mem::take(&mut request.request_id);
        let command = request.command.take();
        let reservation = decode::required("reservation", request.reservation.as_ref())?;
        let order = decode::optional_uuid("reservation.order", "orders", &reservation.order)?;
        let lines = decode::lines(&reservation.lines)?;
        let id = decode::id("reservation_id", &request.reservation_id)?;
        if command.is_some() {
            decode::required("reservation.order", order.as_ref())?;
            decode::required("reservation_id", id.as_ref())?;
        }
        let method = "CreateReservation";
        let call = commanded(method, &request_id, command.as_ref(), &request, at, answer)?;
        let ask = Ask { id: id.unwrap_or_else(clock::id), order, lines };
        told(&self.store.hold(call, ask).await?)
    }

    pub(super) async fn extend_reservation(
        &self,
        mut request: api::ExtendReservationRequest,
        at: OffsetDateTime,
    ) -> Result<api::Reservation, Error> {
        let request_id = std::mem::take(&mut request.request_id);
        let id = decode::uuid("name", "reservations", &request.name)?;
        let ttl = decode::ttl(request.ttl.as_ref())?;
        let call = call("ExtendReservation", &request_id, &request, at, answer)?;
        told(&self.store.extend(call, id, ttl).await?)
    }

    pub(super) async fn commit_reservation(
        &self,
        mut request: api::CommitReservationRequest,
        at: OffsetDateTime,
    ) -> Result<api::Reservation, Error> {
        let request_id = std::mem::take(&mut request.request_id);
        let command = request.command.take();
        let id = decode::uuid("name", "reservations", &request.name)?;
        let method = "CommitReservation";
        let call = commanded(method, &request_id, command.as_ref(), &request, at, answer)?;
        told(&self.store.commit(call, id).await?)
    }

    pub(super) async fn fulfill_reservation(
        &self,
        mut request: api::FulfillReservationRequest,
        at: OffsetDateTime,
    ) -> Result<api::Reservation, Error> {
        let request_id = std::mem::take(&mut request.request_id);
        let command = request.command.take();
        let id = decode::uuid("name", "reservations", &request.name)?;
        let lines = request.lines.iter();
        let parts =
            decode::parts(lines.map(|line| (&line.line_id, &line.location, line.quantity)))?;
        let method = "FulfillReservation";
        let call = commanded(method, &request_id, command.as_ref(), &request, at, answer)?;
        told(&self.store.deliver(call, id, Way::Out, parts).await?)
    }

    pub(super) async fn restock_reservation(
        &self,
        mut request: api::RestockReservationRequest,
        at: OffsetDateTime,
    ) -> Result<api::Reservation, Error> {
        let request_id = std::mem::take(&mut request.request_id);
        let command = request.command.take();
        let id = decode::uuid("name", "reservations", &request.name)?;
        let lines = request.lines.iter();
        let parts =
            decode::parts(lines.map(|line| (&line.line_id, &line.location, line.quantity)))?;
        let method = "RestockReservation";
        let call = commanded(method, &request_id, command.as_ref(), &request, at, answer)?;
        told(&self.store.deliver(call, id, Way::Back, parts).await?)
    }

    pub(super) async fn release_reservation(
        &self,
        mut request: api::ReleaseReservationRequest,
        at: OffsetDateTime,
    ) -> Result<api::Reservation, Error> {
        let request_id = std::mem::take(&mut request.request_id);
        let command = request.command.take();
        let id = decode::uuid("name", "reservations", &request.name)?;
        let method = "ReleaseReservation";
        let call = commanded(method, &request_id, command.as_ref(), &request, at, answer)?;
        told(&self.store.release(call, id).await?)
    }

    pub(super) async fn get_reservation(
        &self,
        request: api::GetReservationRequest,
        _: OffsetDateTime,
    ) -> Result<api::Reservation, Error> {
        let id = decode::uuid("name", "reservations", &request.name)?;
        let found = self.store.reservation(id).await?.ok_or(Error::NotFound(request.name))?;
        Ok(encode::reservation(&found))
    }

    pub(super) async fn list_reservations(
        &self,
        request: api::ListReservationsRequest,
        _: OffsetDateTime,
    ) -> Result<api::ListReservationsResponse, Error> {
        let order = decode::optional_uuid("order", "orders", &request.order)?;
        let args = ["ListReservations", &request.order];
        let page = self.page(request.page_size, &request.page_token, &args)?;
        let mut found = self.store.reservations(&page.after, order, page.size + 1).await?;
        let next_page_token = self.cut(&page, &mut found, |last| last.id.to_string());
        let reservations = found.iter().map(encode::reservation).collect();
        Ok(api::ListReservationsResponse { reservations, next_page_token })
    }
}

fn answer(reservation: &Reservation) -> Answer {
    Answer::success(&encode::reservation(reservation))
}
