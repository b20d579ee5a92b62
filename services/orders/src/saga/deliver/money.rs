//! Taking the money for what left, and paying it back for what will not arrive: each by a
//! command of its own, so that it is done once.

use mesh::{
    Within as _,
    money::Money,
    saga::{Outcome, Why},
};
use proto::payments::v1::{
    CapturePaymentRequest, CreateRefundRequest, GetRefundRequest, Payment, Refund, payment, refund,
};

use super::{
    super::{
        amount, name,
        plan::{Part, Planned, derived},
        unsure,
    },
    CALL, LONGEST_FOR_MONEY, PAY, Way,
};
use crate::domain::Attempt;

/// What payments says of a payment, in minor units.
pub(super) struct Amounts {
    authorized: i64,
    captured: i64,
}

// === impl Way ===

impl Way<'_> {
    pub(super) async fn capture(&mut self, parcel: &Planned, last: bool) -> Result<(), Outcome> {
        let price = self.price(parcel)?;
        if price.minor == 0 {
            return self.does(|order, at| order.charge(parcel.id, order.payment, at));
        }
        let payment = self.asks_for(parcel, price, last).await?;
        let known = self.order.payment;
        let now = Amounts::of(&payment)?;
        if now.captured < known.captured_minor.saturating_add(price.minor) {
            if known.attempt != Attempt::Unknown && payment.state() == payment::State::InDoubt {
                let patience = self.saga.patience.to_confirm();
                self.does(|order, at| order.pay(known.taken_in_doubt(), patience, at))?;
            }
            return Err(self.wait_at_most(LONGEST_FOR_MONEY, "the payment is being taken"));
        }
        // Of another parcel's capture, nothing is known yet: one follows the other.
        let captured = known.captured_minor.saturating_add(price.minor);
        let taken = known.taken(captured, known.refunded_minor, now.live());
        self.does(|order, at| order.charge(parcel.id, taken, at))
    }

    /// The command for a parcel's money: however often it is sent, it is carried out once.
    async fn asks_for(
        &self,
        parcel: &Planned,
        price: Money,
        last: bool,
    ) -> Result<Payment, Outcome> {
        let request = CapturePaymentRequest {
            name: name("payments", self.order.id),
            amount: amount(price),
            r#final: last,
            command: Some(self.saga.part(Part::Capture.of(parcel.id))),
            ..CapturePaymentRequest::default()
        };
        let mut payments = self.saga.peers.payments.clone();
        Ok(payments.capture_payment(request.within(PAY)).await?.into_inner())
    }

    /// Pays back what was taken for a parcel that is gone, if it was: an earlier call of this step
    /// may have taken it, and was cut off, or overtaken, before that was written down. Nothing can
    /// be taken any more, so the same command is answered only if it was carried out then.
    pub(super) async fn pay_back_what_was_taken(
        &mut self,
        parcel: &Planned,
    ) -> Result<(), Outcome> {
        let price = self.price(parcel)?;
        let payment = match self.asks_for(parcel, price, true).await {
            Ok(payment) => payment,
            Err(Outcome::No { .. }) => return Ok(()),
            Err(other) => return Err(other),
        };
        let known = self.order.payment;
        if payment.state() == payment::State::InDoubt {
            return Err(self.wait_at_most(LONGEST_FOR_MONEY, "the payment is being found out"));
        }
        if Amounts::of(&payment)?.captured < known.captured_minor.saturating_add(price.minor) {
            return Ok(());
        }
        let captured = known.captured_minor.saturating_add(price.minor);
        let taken = known.taken(captured, known.refunded_minor, 0);
        self.does(|order, at| order.charge(parcel.id, taken, at))?;
        self.refund(parcel).await
    }

    pub(super) async fn refund(&mut self, parcel: &Planned) -> Result<(), Outcome> {
        let price = self.price(parcel)?;
        let order = self.order.id.to_string();
        let id = derived(&["refund", &order, &parcel.id.to_string()]);
        let request = CreateRefundRequest {
            refund: Some(Refund {
                payment: name("payments", self.order.id),
                amount: amount(price),
                reason: "not delivered".to_owned(),
                ..Refund::default()
            }),
            refund_id: id.to_string(),
            command: Some(self.saga.part(Part::Refund.of(parcel.id))),
            ..CreateRefundRequest::default()
        };
        let mut payments = self.saga.peers.payments.clone();
        let mut state = payments.create_refund(request.within(PAY)).await?.into_inner().state();
        if state == refund::State::Pending {
            // A repeat answers what it answered first.
            let request = GetRefundRequest { name: name("refunds", id) };
            state = payments.get_refund(request.within(CALL)).await?.into_inner().state();
        }
        match state {
            refund::State::Succeeded => {
                let refunded = self.order.payment.refunded_minor.saturating_add(price.minor);
                self.does(|order, at| order.refund(parcel.id, refunded, at))
            }
            refund::State::Failed => {
                let why = Why::new("REFUND_FAILED", "what is owed is not paid back");
                Err(Outcome::No { why, alert: true })
            }
            refund::State::Pending | refund::State::Unspecified => {
                Err(self.wait_at_most(LONGEST_FOR_MONEY, "a refund is under way"))
            }
        }
    }
}

// === impl Amounts ===

impl Amounts {
    pub(super) fn of(payment: &Payment) -> Result<Self, Outcome> {
        let minor = |money: &Option<proto::google::r#type::Money>| match money {
            None => Ok(0),
            Some(money) => Money::from_parts(&money.currency_code, money.units, money.nanos)
                .map(|money| money.minor)
                .map_err(|error| unsure(&error.to_string())),
        };
        Ok(Self { authorized: minor(&payment.authorized)?, captured: minor(&payment.captured)? })
    }

    /// What is set aside and can still be taken.
    pub(super) fn live(&self) -> i64 {
        self.authorized.saturating_sub(self.captured).max(0)
    }
}
