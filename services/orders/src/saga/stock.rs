//! Holding stock, releasing it, and promising it for good.

use std::time::Duration;

use mesh::{Within as _, clock, saga::Outcome, status};
use proto::inventory::v1::{
    CommitReservationRequest, CreateReservationRequest, ReleaseReservationRequest, Reservation,
    reservation,
};
use tonic::{Code, Status};

use super::{Fulfilment, Step, Unheard, merged, name, no, order_name, plan::plan, unsure};
use crate::{
    domain::{self, Ask, Offer, Order, Refusal, RejectReason, StockPolicy},
    store::Stored,
};

const CALL: Duration = Duration::from_secs(5);

impl Fulfilment {
    pub(super) async fn hold_stock(&self) -> Outcome {
        merged(self.try_to_hold().await)
    }

    /// Releases what was held, or bars what was not held yet.
    pub(super) async fn release_stock(&self) -> Outcome {
        let request = ReleaseReservationRequest {
            name: name("reservations", self.order_id()),
            request_id: String::new(),
            command: self.command(),
        };
        let released = self.peers.inventory.clone().release_reservation(request.within(CALL)).await;
        match released {
            Ok(_reservation) => Outcome::done(),
            Err(status) => status.into(),
        }
    }

    /// After the pivot: what was held is the order's.
    pub(super) async fn commit_stock(&self) -> Outcome {
        let request = CommitReservationRequest {
            name: name("reservations", self.order_id()),
            request_id: String::new(),
            command: self.command(),
        };
        let committed = self.peers.inventory.clone().commit_reservation(request.within(CALL)).await;
        let reservation = match committed {
            Ok(reservation) => reservation.into_inner(),
            Err(status) => return status.into(),
        };
        let planned = plan(self.order_id(), &reservation);
        match planned.map(|planned| serde_json::to_vec(&planned)) {
            Some(Ok(planned)) => Outcome::done().keep(planned),
            Some(Err(error)) => unsure(&error.to_string()),
            None => unsure("inventory does not say where the goods are"),
        }
    }

    async fn try_to_hold(&self) -> Step {
        let mut stored = self.going_on().await?;
        let mut found = String::new();
        if stored.order.customer_email.is_empty() {
            found = self.checked_customer(&stored.order).await?;
            stored.order.customer_email.clone_from(&found);
        }
        let request = CreateReservationRequest {
            reservation: Some(Reservation {
                order: order_name(&stored.order),
                lines: wanted(&stored.order),
                ..Reservation::default()
            }),
            reservation_id: stored.order.id.to_string(),
            request_id: String::new(),
            command: self.command(),
        };
        let held = self.peers.inventory.clone().create_reservation(request.within(CALL)).await;
        match held {
            Ok(_reservation) => {
                let at = clock::now();
                let effect = self.moved(&stored, at, |order| {
                    if order.totals.total.minor == 0 {
                        return Ok(Vec::new());
                    }
                    order.pay(order.payment.open(), self.patience.to_confirm(), at)
                })?;
                Ok(Outcome::Done { reply: found.into_bytes(), effect })
            }
            Err(status) if is_short(&status) => self.short(&stored, &status).await,
            Err(status) => Err(status.into()),
        }
    }

    /// users could not be asked when the order was placed.
    async fn checked_customer(&self, order: &Order) -> Result<String, Outcome> {
        let customer = match self.peers.customer(&order.customer).await {
            Ok(Some(customer)) => customer,
            Ok(None) => return Err(no(RejectReason::CustomerInactive, &[])),
            Err(Unheard::Failed(status)) => return Err((*status).into()),
            Err(Unheard::Nonsense(problem)) => return Err(unsure(&problem)),
        };
        match domain::may_order(customer.active, customer.limit, order.totals.total) {
            Ok(()) => Ok(customer.email),
            Err(Refusal::Limit(limit)) => {
                Err(no(RejectReason::LimitExceeded, &[("limit", limit.to_string())]))
            }
            // The other refusals of this rule: inactive, or a limit in another currency.
            Err(_refusal) => Err(no(RejectReason::CustomerInactive, &[])),
        }
    }

    /// There is not enough: the customer is asked whether less will do, if that is their wish.
    async fn short(&self, stored: &Stored, status: &Status) -> Step {
        let metadata = status::reason(status).map(|info| info.metadata).unwrap_or_default();
        let facts =
            ["sku", "available"].map(|key| (key, metadata.get(key).cloned().unwrap_or_default()));
        let rejected = || no(RejectReason::OutOfStock, &facts);
        let order = &stored.order;
        match order.stock_policy {
            StockPolicy::AllOrNothing => return Err(rejected()),
            StockPolicy::PartialWithConsent => {}
        }
        let skus = order.lines.iter().map(domain::Line::sku);
        let available = match self.peers.stock(skus, CALL).await {
            Ok(available) => available,
            Err(status) if status.code() == Code::NotFound => return Err(rejected()),
            Err(status) => return Err(status.into()),
        };
        match order.reduced(&available) {
            Ok(Some(offer)) if is_whole(order, &offer) => {
                Err(Outcome::wait(clock::now(), "stock came in meanwhile"))
            }
            Ok(Some(offer)) => {
                Ok(self.ask(stored, Ask::Stock(offer), "not everything is in stock"))
            }
            Ok(None) | Err(_) => Err(rejected()),
        }
    }
}

pub(super) fn wanted(order: &Order) -> Vec<reservation::Line> {
    let kept = order.lines.iter().filter(|line| line.kept() > 0);
    kept.map(|line| reservation::Line {
        line_id: line.id.clone(),
        variant: line.variant.clone(),
        // At most 999, by the rule for lines.
        quantity: i32::try_from(line.kept()).unwrap_or(i32::MAX),
        allotments: Vec::new(),
    })
    .collect()
}

fn is_short(status: &Status) -> bool {
    status.code() == Code::FailedPrecondition
        && status::reason(status).is_some_and(|info| info.reason == "OUT_OF_STOCK")
}

fn is_whole(order: &Order, offer: &Offer) -> bool {
    order.lines.iter().zip(&offer.lines).all(|(line, offered)| line.kept() == offered.quantity)
}
