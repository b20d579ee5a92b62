//! Rows of refunds.

use mesh::{
    clock::{from_micros, micros},
    store::Failure,
};
use sea_orm::{FromQueryResult, Value};

use super::{known, money, text, uuid};
use crate::domain::{Refund, RefundOverview, RefundState};

/// A row of `refund`.
#[derive(FromQueryResult)]
pub(in crate::store) struct RefundRow {
    id: String,
    payment: String,
    order_name: String,
    state: String,
    amount_minor: i64,
    currency: String,
    refunded_minor: i64,
    reason: String,
    saga: String,
    decline_code: Option<String>,
    created_at: i64,
}

/// The columns of [`RefundRow`].
pub(in crate::store) const REFUND: &str = "id, payment, order_name, state, amount_minor, currency, \
     refunded_minor, reason, saga, decline_code, created_at";

// === impl RefundRow ===

impl RefundRow {
    pub(in crate::store) fn overview(self) -> Result<RefundOverview, Failure> {
        Ok(RefundOverview {
            refund: Refund {
                id: uuid(&self.id)?,
                amount: money(self.amount_minor, &self.currency)?,
                reason: self.reason,
                saga: self.saga,
                created_at: from_micros(self.created_at),
            },
            payment: uuid(&self.payment)?,
            order: self.order_name,
            state: known(&REFUND_STATES, &self.state)?,
            refunded: self.refunded_minor,
            decline_code: self.decline_code,
        })
    }
}

/// The values of a refund, in the order of [`REFUND`].
pub(in crate::store) fn of_refund(shown: &RefundOverview) -> Vec<Value> {
    vec![
        shown.refund.id.to_string().into(),
        shown.payment.to_string().into(),
        shown.order.as_str().into(),
        text(&REFUND_STATES, shown.state).into(),
        shown.refund.amount.minor.into(),
        shown.refund.amount.currency.code().into(),
        shown.refunded.into(),
        shown.refund.reason.as_str().into(),
        shown.refund.saga.as_str().into(),
        shown.decline_code.clone().into(),
        micros(shown.refund.created_at).into(),
    ]
}

const REFUND_STATES: [(RefundState, &str); 3] = [
    (RefundState::Pending, "PENDING"),
    (RefundState::Succeeded, "SUCCEEDED"),
    (RefundState::Failed, "FAILED"),
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_state_of_a_refund_has_a_name_of_its_own() {
        for (state, name) in REFUND_STATES {
            assert_eq!((state.to_string().as_str(), text(&REFUND_STATES, state)), (name, name));
        }
    }
}
