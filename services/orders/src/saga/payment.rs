//! Setting the money aside, and giving it back.

use std::time::Duration;

use mesh::{
    Within as _, clock,
    money::Money,
    saga::{Outcome, Why},
    status,
};
use proto::payments::v1::{
    AuthorizePaymentRequest, CreatePaymentRequest, GetPaymentRequest, Payment, VoidPaymentRequest,
    payment::State,
};
use time::OffsetDateTime;
use tonic::{Code, Status};

use super::{Fulfilment, Step, amount, growing, merged, name, no, order_name, unsure};
use crate::{
    domain::{Ask, Attempt, Order, PendingAction, RejectReason},
    saga::Unpriced,
    store::Stored,
};

const CALL: Duration = Duration::from_secs(30);

/// How seldom a payment is asked for that waits for its provider, or for the customer.
const LONGEST_IN_DOUBT: Duration = Duration::from_secs(30);
const LONGEST_FOR_CUSTOMER: Duration = Duration::from_secs(10);

impl Fulfilment {
    pub(super) async fn authorize_payment(&self) -> Outcome {
        merged(self.try_to_authorize().await)
    }

    pub(super) async fn void_payment(&self) -> Outcome {
        merged(self.try_to_void().await)
    }

    async fn try_to_authorize(&self) -> Step {
        let stored = self.going_on().await?;
        let order = &stored.order;
        if order.totals.total.minor == 0 {
            return Ok(Outcome::done());
        }
        let asked_before = order.pending.is_some() || order.payment.attempt != Attempt::Open;
        let mut priced_at = None;
        if !asked_before {
            // The last moment at which the customer can agree to another price: from here on
            // money is set aside.
            priced_at = Some(self.priced(&stored).await?);
        }
        if !asked_before {
            let request = create(order, self.command());
            let created = self.peers.payments.clone().create_payment(request.within(CALL)).await;
            created.map_err(|status| other_amount(order, status))?;
        }
        let request = AuthorizePaymentRequest {
            name: name("payments", order.id),
            command: self.command(),
            ..AuthorizePaymentRequest::default()
        };
        let answer = self.peers.payments.clone().authorize_payment(request.within(CALL)).await;
        match answer {
            Ok(payment) => self.authorized(&stored, &payment.into_inner(), priced_at),
            Err(status) => Err(declined(status)),
        }
    }

    /// What the payment's state means for the order.
    fn authorized(
        &self,
        stored: &Stored,
        payment: &Payment,
        priced_at: Option<OffsetDateTime>,
    ) -> Step {
        let (order, at) = (&stored.order, clock::now());
        let patience = self.patience.to_confirm();
        match payment.state() {
            State::Authorized
            | State::PartiallyCaptured
            | State::Captured
            | State::PartiallyRefunded
            | State::Refunded => {
                let total = authorized_amount(payment)?;
                let pay =
                    |order: &mut Order| order.pay(order.payment.authorized(total), patience, at);
                let effect = self.moved(stored, at, pay)?;
                // Without it, prices are read again before the pivot.
                let reply = priced_at.map(|at| clock::micros(at).to_be_bytes().to_vec());
                let reply = reply.unwrap_or_default();
                Ok(Outcome::Done { reply, effect })
            }
            State::ActionRequired => self.customer_must_act(stored, &payment.action_url),
            State::InDoubt => {
                let pay = |order: &mut Order| order.pay(order.payment.in_doubt(), patience, at);
                let effect = self.moved(stored, at, pay)?;
                let since = if effect.is_some() { at } else { order.updated_at };
                let until = growing(since, at, LONGEST_IN_DOUBT).min(order.confirm_by.max(at));
                Ok(Outcome::Wait { until, why: "the payment is in doubt".to_owned(), effect })
            }
            State::Created | State::Authorizing => {
                let until = at + Duration::from_millis(500);
                Ok(Outcome::wait(until, "the provider is being asked"))
            }
            State::Failed => {
                let code = payment.decline_code.clone();
                Err(no(RejectReason::PaymentDeclined, &[("decline_code", code)]))
            }
            State::Voided | State::Unspecified => Err(no(RejectReason::NotFulfillable, &[])),
        }
    }

    fn customer_must_act(&self, stored: &Stored, url: &str) -> Step {
        let (order, at) = (&stored.order, clock::now());
        let why = "its customer has to finish the payment";
        if let Some(PendingAction { ask: Ask::Payment(_), expires_at }) = &order.pending {
            let until = growing(order.updated_at, at, LONGEST_FOR_CUSTOMER).min(*expires_at);
            return Ok(Outcome::wait(until, why));
        }
        let ask = Ask::Payment(url.to_owned());
        let expires_at = (at + self.patience.action).min(self.run.deadline);
        let patience = self.patience.to_confirm();
        let effect = self.moved(stored, at, |order| {
            let mut happened = order.pay(order.payment.open(), patience, at)?;
            happened.extend(order.ask(ask.clone(), expires_at, at)?);
            Ok(happened)
        })?;
        let until = (at + Duration::from_secs(1)).min(expires_at);
        Ok(Outcome::Wait { until, why: why.to_owned(), effect })
    }

    /// When prices were read last. Asks the customer if they moved since the order was placed.
    async fn priced(&self, stored: &Stored) -> Result<OffsetDateTime, Outcome> {
        let (order, at) = (&stored.order, clock::now());
        if order.quoted {
            return Ok(at);
        }
        let variants: Vec<&str> = order.lines.iter().map(|line| line.variant.as_str()).collect();
        let prices = match self.peers.prices(&variants).await {
            Ok(prices) => prices,
            // What is not sold any more was sold to this customer.
            Err(Unpriced::NotForSale(_)) => return Ok(at),
            // The prices that it was placed with are fresh enough.
            Err(Unpriced::Down(_)) if at - order.placed_at < self.patience.price_fresh => {
                return Ok(order.placed_at);
            }
            Err(Unpriced::Down(_)) if self.is_noted().await? => {
                return Ok(OffsetDateTime::UNIX_EPOCH);
            }
            Err(Unpriced::Down(status)) => {
                return Err(Outcome::not_sent(status.to_string(), &status));
            }
            Err(Unpriced::Nonsense(problem)) => return Err(unsure(&problem)),
        };
        match order.drift(&prices) {
            Ok(None) => Ok(at),
            // It is noted already, for the amount that the customer agreed to, and a payment is
            // for one amount: this price is looked at once more before the pivot.
            Ok(Some(_)) if self.is_noted().await? => Ok(OffsetDateTime::UNIX_EPOCH),
            Ok(Some(offer)) => Err(self.ask(stored, Ask::Price(offer), "prices moved")),
            Err(refusal) => {
                let why = Why::new("NOT_FULFILLABLE", refusal.to_string());
                Err(Outcome::No { why, alert: true })
            }
        }
    }

    /// Whether payments has the payment of this order: this step was tried before.
    async fn is_noted(&self) -> Result<bool, Outcome> {
        let request = GetPaymentRequest { name: name("payments", self.order_id()) };
        match self.peers.payments.clone().get_payment(request.within(CALL)).await {
            Ok(_payment) => Ok(true),
            Err(status) if status.code() == Code::NotFound => Ok(false),
            Err(status) => Err(status.into()),
        }
    }

    /// Gives back what is set aside, or bars what was not asked for yet. What is in doubt is
    /// resolved by payments first.
    async fn try_to_void(&self) -> Step {
        let stored = self.stored().await?;
        let at = clock::now();
        let request = VoidPaymentRequest {
            name: name("payments", self.order_id()),
            request_id: String::new(),
            command: self.command(),
        };
        let answer = self.peers.payments.clone().void_payment(request.within(CALL)).await;
        let payment = match answer {
            Ok(payment) => payment.into_inner(),
            Err(status) if is_in_progress(&status) => {
                let until = growing(stored.order.updated_at, at, LONGEST_IN_DOUBT);
                return Ok(Outcome::wait(until, "the payment is being resolved"));
            }
            Err(status) => return Err(status.into()),
        };
        let patience = self.patience.to_confirm();
        let effect = match payment.state() {
            State::Authorizing | State::InDoubt | State::ActionRequired => {
                let until = growing(stored.order.updated_at, at, LONGEST_IN_DOUBT);
                return Ok(Outcome::wait(until, "the payment is being resolved"));
            }
            State::Failed => {
                self.moved(&stored, at, |order| order.pay(order.payment.failed(), patience, at))?
            }
            State::Voided
            | State::Created
            | State::Authorized
            | State::PartiallyCaptured
            | State::Captured
            | State::PartiallyRefunded
            | State::Refunded
            | State::Unspecified => {
                self.moved(&stored, at, |order| order.pay(order.payment.void(), patience, at))?
            }
        };
        Ok(Outcome::Done { reply: Vec::new(), effect })
    }
}

fn create(order: &Order, command: Option<proto::saga::v1::Command>) -> CreatePaymentRequest {
    CreatePaymentRequest {
        payment: Some(Payment {
            order: order_name(order),
            customer: order.customer.clone(),
            amount: amount(order.totals.total),
            payment_method: order.payment_method.clone(),
            ..Payment::default()
        }),
        payment_id: order.id.to_string(),
        request_id: String::new(),
        command,
    }
}

/// A payment for another amount was noted late, after its order was revised.
fn other_amount(order: &Order, status: Status) -> Outcome {
    if status.code() == Code::AlreadyExists {
        let total = order.totals.total.to_string();
        return no(RejectReason::PriceChanged, &[("current_total", total)]);
    }
    status.into()
}

fn authorized_amount(payment: &Payment) -> Result<Money, Outcome> {
    let amount = payment.authorized.as_ref().ok_or_else(|| unsure("payments names no amount"))?;
    Money::from_parts(&amount.currency_code, amount.units, amount.nanos)
        .map_err(|error| unsure(&error.to_string()))
}

/// A decline is kept with its code; every other failure is judged as any.
fn declined(status: Status) -> Outcome {
    match status::reason(&status) {
        Some(info) if info.reason == "PAYMENT_DECLINED" => {
            let code = info.metadata.get("decline_code").cloned().unwrap_or_default();
            no(RejectReason::PaymentDeclined, &[("decline_code", code)])
        }
        Some(_) | None if is_in_progress(&status) => {
            Outcome::wait(clock::now() + Duration::from_secs(1), "the provider is being asked")
        }
        Some(_) | None => status.into(),
    }
}

fn is_in_progress(status: &Status) -> bool {
    status::reason(status).is_some_and(|info| info.reason == "REQUEST_IN_PROGRESS")
}
