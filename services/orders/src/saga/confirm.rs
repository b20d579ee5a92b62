//! The pivot: everything is looked at once more, then the order is confirmed by one commit.

use std::time::Duration;

use mesh::{
    Within as _, clock,
    saga::{Outcome, TIMED_OUT, Why},
};
use proto::inventory::v1::{GetReservationRequest, Reservation, reservation::State};

use super::{Fulfilment, Step, merged, name, no, stock::wanted, unsure};
use crate::{
    domain::{Ask, Offer, Order, RejectReason},
    saga::Unpriced,
    store::Stored,
};

const CALL: Duration = Duration::from_secs(2);

impl Fulfilment {
    pub(super) async fn confirm(&self) -> Outcome {
        merged(self.try_to_confirm().await)
    }

    async fn try_to_confirm(&self) -> Step {
        let stored = self.going_on().await?;
        let (held, offer) = tokio::join!(self.held(&stored.order), self.offer(&stored.order));
        held?;
        match offer? {
            None => {}
            Some(offer) if offer.total.minor > stored.order.payment.authorized_minor => {
                // One payment is for one amount: nothing more can be set aside now.
                let facts = [("current_total", offer.total.to_string())];
                return Err(no(RejectReason::PriceChanged, &facts));
            }
            Some(offer) => return Ok(self.ask(&stored, Ask::Price(offer), "prices moved")),
        }
        self.confirmed(&stored)
    }

    fn confirmed(&self, stored: &Stored) -> Step {
        let at = clock::now();
        let effect = self.moved(stored, at, |order| order.confirm(at))?;
        Ok(Outcome::Done { reply: Vec::new(), effect })
    }

    /// Asks whether the stock is still held: so much of each line, and no more. A hold that was
    /// asked for before the customer agreed to less may have come late, and been the first.
    async fn held(&self, order: &Order) -> Result<(), Outcome> {
        let request = GetReservationRequest { name: name("reservations", self.order_id()) };
        let answer = self.peers.inventory.clone().get_reservation(request.within(CALL)).await?;
        let reservation = answer.into_inner();
        match reservation.state() {
            State::Held if is_as_ordered(&reservation, order) => Ok(()),
            State::Held => {
                let why = Why::new("NOT_FULFILLABLE", "other quantities are held than are ordered");
                Err(Outcome::No { why, alert: true })
            }
            State::Unspecified
            | State::Committed
            | State::Fulfilled
            | State::Released
            | State::Expired => Err(Outcome::no(TIMED_OUT, "the stock is no longer held")),
        }
    }

    /// What the customer would have to agree to, if prices moved since they were last read.
    async fn offer(&self, order: &Order) -> Result<Option<Offer>, Outcome> {
        if order.quoted || self.priced_recently() {
            return Ok(None);
        }
        let variants: Vec<&str> = order.lines.iter().map(|line| line.variant.as_str()).collect();
        match self.peers.prices(&variants).await {
            Ok(prices) => order
                .drift(&prices)
                .map_err(|refusal| Outcome::no("NOT_FULFILLABLE", refusal.to_string())),
            Err(Unpriced::NotForSale(_)) => Ok(None),
            Err(Unpriced::Down(status)) => Err(Outcome::not_sent(status.to_string(), &status)),
            Err(Unpriced::Nonsense(problem)) => Err(unsure(&problem)),
        }
    }

    fn priced_recently(&self) -> bool {
        let reply = self.run.reply("authorize_payment").unwrap_or_default();
        let Ok(micros) = <[u8; 8]>::try_from(reply) else { return false };
        clock::now() - clock::from_micros(i64::from_be_bytes(micros)) < self.patience.price_fresh
    }
}

fn is_as_ordered(held: &Reservation, order: &Order) -> bool {
    let mut wanted = wanted(order);
    wanted.retain(|line| line.quantity > 0);
    held.lines.len() == wanted.len()
        && wanted.iter().all(|wanted| {
            let found = held.lines.iter().find(|line| line.line_id == wanted.line_id);
            found.is_some_and(|line| line.quantity == wanted.quantity)
        })
}
