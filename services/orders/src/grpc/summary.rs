//! What other services know of an order: `GetOrderSummary`, and `GetOrder` in full.
//!
//! A part that cannot be had now is left out, and says that it is; it never keeps the rest from
//! being answered, nor from being answered soon.

use std::future::Future;

use mesh::{
    Within as _,
    client::{Verdict, judge},
};
use proto::{
    orders::v1::{self as api, Availability},
    payments::v1::{GetPaymentRequest, Payment},
    shipping::v1::{ListShipmentsRequest, ListShipmentsResponse, Shipment},
    users::v1::{CheckCustomerRequest, CheckCustomerResponse},
};
use tonic::{Code, Response, Status};
use uuid::Uuid;

use super::{Orders, encode, parse};
use crate::{error::Error, saga};

/// How many shipments are asked for: more than an order comes to, and the most that shipping
/// answers at once.
const SHIPMENTS: i32 = 1_000;

/// A part of an answer that another service knows.
trait Part<M>: Sized {
    /// It, by what that service says.
    fn known(message: M) -> Self;

    /// That it is not there, and why.
    fn without(availability: Availability) -> Self;
}

impl Orders {
    pub(super) async fn summary(
        &self,
        request: &api::GetOrderSummaryRequest,
    ) -> Result<api::OrderSummary, Error> {
        let id = parse::name(&request.name)?;
        let order = encode::order(&self.visible(id).await?);
        let (payment, delivery) = tokio::join!(self.payment(id), self.delivery(&order.name));
        Ok(api::OrderSummary {
            order: Some(order),
            payment: Some(payment?),
            delivery: Some(delivery?),
        })
    }

    /// The customer, by their name: for those alone who may see the order.
    pub(super) async fn customer_details(
        &self,
        customer: &str,
    ) -> Result<api::CustomerDetails, Error> {
        let request = CheckCustomerRequest { name: customer.to_owned() };
        let request = request.within(self.patience.detail);
        part("users", self.views.users.clone().check_customer(request)).await
    }

    async fn payment(&self, order: Uuid) -> Result<api::PaymentSummary, Error> {
        let request = GetPaymentRequest { name: saga::name("payments", order) };
        let request = request.within(self.patience.detail);
        part("payments", self.views.payments.clone().get_payment(request)).await
    }

    async fn delivery(&self, order: &str) -> Result<api::DeliverySummary, Error> {
        let request = ListShipmentsRequest {
            page_size: SHIPMENTS,
            page_token: String::new(),
            order: order.to_owned(),
        };
        let request = request.within(self.patience.detail);
        part("shipping", self.views.shipping.clone().list_shipments(request)).await
    }
}

/// What `call` answers, or that there is no such thing, or that it is not known now. Only in the
/// last case is our own answer a lesser one, and marked.
async fn part<M, P: Part<M>>(
    service: &'static str,
    call: impl Future<Output = Result<Response<M>, Status>>,
) -> Result<P, Error> {
    let asked = async {
        match call.await {
            Ok(message) => Ok(Response::new(P::known(message.into_inner()))),
            Err(status) if status.code() == Code::NotFound => {
                Ok(Response::new(P::without(Availability::None)))
            }
            Err(status) => Err(status),
        }
    };
    let otherwise = async |_why| Ok(P::without(Availability::Unavailable));
    // A call on its way is large, and an answer may have several.
    let answer = Box::pin(mesh::fallback(asked, otherwise)).await;
    answer.map_err(|status| match judge(&status) {
        // What is refused is not passed off as something that is out of reach.
        Verdict::No => Error::Answered(Box::new(status)),
        Verdict::NotSent | Verdict::Unsure => Error::Down { service, source: Box::new(status) },
    })
}

impl Part<CheckCustomerResponse> for api::CustomerDetails {
    fn known(customer: CheckCustomerResponse) -> Self {
        Self {
            display_name: customer.display_name,
            email: customer.email,
            ..Self::without(Availability::Known)
        }
    }

    fn without(availability: Availability) -> Self {
        Self { availability: availability.into(), ..Self::default() }
    }
}

impl Part<Payment> for api::PaymentSummary {
    /// Neither the payment method nor where the customer acts: a summary is shown to support.
    fn known(payment: Payment) -> Self {
        Self {
            payment: payment.name,
            state: payment.state,
            amount: payment.amount,
            authorized: payment.authorized,
            captured: payment.captured,
            refunded: payment.refunded,
            decline_code: payment.decline_code,
            ..Self::without(Availability::Known)
        }
    }

    fn without(availability: Availability) -> Self {
        Self { availability: availability.into(), ..Self::default() }
    }
}

impl Part<ListShipmentsResponse> for api::DeliverySummary {
    fn known(found: ListShipmentsResponse) -> Self {
        let availability =
            if found.shipments.is_empty() { Availability::None } else { Availability::Known };
        let shipments = found.shipments.into_iter().map(shipment).collect();
        Self { shipments, ..Self::without(availability) }
    }

    fn without(availability: Availability) -> Self {
        Self { availability: availability.into(), shipments: Vec::new() }
    }
}

fn shipment(shipment: Shipment) -> api::ShipmentSummary {
    api::ShipmentSummary {
        shipment: shipment.name,
        state: shipment.state,
        carrier: shipment.carrier,
        tracking: shipment.tracking,
    }
}
