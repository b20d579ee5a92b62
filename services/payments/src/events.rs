//! What is published about a payment; what is consumed: nothing.

use mesh::{money::Money, outbox::Fact};
use prost::Name;
use prost_types::Any;
use proto::{google::r#type, payments::v1 as api};
use time::OffsetDateTime;

use crate::domain::{Event, Payment};

/// The published form of what happened to a payment.
#[must_use]
pub fn published(payment: &Payment, event: &Event) -> Fact {
    let name = format!("payments/{}", payment.id);
    let (order, customer) = (payment.order.clone(), payment.customer.clone());
    match event {
        Event::Authorized { amount } => fact(
            "payment.authorized",
            &api::PaymentAuthorized {
                payment: name,
                order,
                customer,
                amount: Some(money(*amount)),
                authorization_expire_time: payment.authorization_expires_at.map(timestamp),
            },
        ),
        Event::ActionRequired { url } => {
            let action_url = url.clone();
            let message = api::PaymentActionRequired { payment: name, order, customer, action_url };
            fact("payment.action_required", &message)
        }
        Event::Declined { code, retriable } => fact(
            "payment.declined",
            &api::PaymentDeclined {
                payment: name,
                order,
                customer,
                amount: Some(money(payment.amount)),
                decline_code: code.clone(),
                retriable: *retriable,
            },
        ),
        Event::InDoubt { reference } => {
            let reference = reference.clone();
            let message = api::PaymentInDoubt { payment: name, order, customer, reference };
            fact("payment.in_doubt", &message)
        }
        Event::Captured { amount, last } => fact(
            "payment.captured",
            &api::PaymentCaptured {
                payment: name,
                order,
                customer,
                amount: Some(money(*amount)),
                captured: Some(money(payment.money(payment.captured))),
                r#final: *last,
            },
        ),
        Event::Voided { amount } => {
            let amount = amount.map(money);
            fact("payment.voided", &api::PaymentVoided { payment: name, order, customer, amount })
        }
        Event::Refunded { refund, amount } => fact(
            "payment.refunded",
            &api::PaymentRefunded {
                payment: name,
                order,
                customer,
                refund: format!("refunds/{refund}"),
                amount: Some(money(*amount)),
                refunded: Some(money(payment.money(payment.refunded))),
            },
        ),
    }
}

/// An amount as the API writes it.
#[must_use]
pub fn money(amount: Money) -> r#type::Money {
    let (units, nanos) = amount.parts();
    r#type::Money { currency_code: amount.currency.code().to_owned(), units, nanos }
}

/// A time as the API writes it.
#[must_use]
pub fn timestamp(at: OffsetDateTime) -> prost_types::Timestamp {
    // Below one second there are less than 10^9 nanoseconds: always fits.
    let nanos = i32::try_from(at.nanosecond()).unwrap_or_default();
    prost_types::Timestamp { seconds: at.unix_timestamp(), nanos }
}

fn fact(kind: &'static str, message: &impl Name) -> Fact {
    let data = Any { type_url: url_of(message), value: message.encode_to_vec() };
    Fact { kind, data }
}

fn url_of<M: Name>(_message: &M) -> String {
    M::type_url()
}

#[cfg(test)]
mod tests {
    use mesh::money::Currency;
    use prost::Message as _;
    use uuid::Uuid;

    use super::*;
    use crate::domain::Method;

    /// The fields that every event of ours begins with.
    #[derive(Clone, PartialEq, prost::Message)]
    struct Whose {
        #[prost(string, tag = "1")]
        payment: String,
        #[prost(string, tag = "2")]
        order: String,
        #[prost(string, tag = "3")]
        customer: String,
    }

    fn payment() -> Payment {
        let amount = Money::new(1_250, Currency::parse("EUR").unwrap());
        let method = Method::parse("tok_visa").unwrap();
        let (order, customer) = ("orders/1".to_owned(), "users/2".to_owned());
        Payment::new(Uuid::nil(), order, customer, amount, method, OffsetDateTime::UNIX_EPOCH)
    }

    #[test]
    fn every_event_names_its_payment_order_and_customer() {
        let payment = payment();
        let (amount, words) = (payment.amount, String::new);
        for (event, kind, message) in [
            (Event::Authorized { amount }, "payment.authorized", "PaymentAuthorized"),
            (
                Event::ActionRequired { url: words() },
                "payment.action_required",
                "PaymentActionRequired",
            ),
            (
                Event::Declined { code: words(), retriable: false },
                "payment.declined",
                "PaymentDeclined",
            ),
            (Event::InDoubt { reference: words() }, "payment.in_doubt", "PaymentInDoubt"),
            (Event::Captured { amount, last: true }, "payment.captured", "PaymentCaptured"),
            (Event::Voided { amount: None }, "payment.voided", "PaymentVoided"),
            (
                Event::Refunded { refund: Uuid::nil(), amount },
                "payment.refunded",
                "PaymentRefunded",
            ),
        ] {
            let fact = published(&payment, &event);
            assert_eq!(fact.kind, kind);
            let url = format!("type.googleapis.com/ordermesh.payments.v1.{message}");
            assert_eq!(fact.data.type_url, url);
            let whose = Whose::decode(fact.data.value.as_slice()).unwrap();
            let name = format!("payments/{}", payment.id);
            assert_eq!(
                (whose.payment, whose.order.as_str(), whose.customer.as_str()),
                (name, "orders/1", "users/2"),
                "{kind}"
            );
        }
    }

    #[test]
    fn an_event_says_whose_money_it_is_and_how_much() {
        let payment = payment();
        let amount = payment.amount;
        let fact = published(&payment, &Event::Authorized { amount });
        assert_eq!(fact.kind, "payment.authorized");
        let told = "type.googleapis.com/ordermesh.payments.v1.PaymentAuthorized";
        assert_eq!(fact.data.type_url, told);
        let read = api::PaymentAuthorized::decode(fact.data.value.as_slice()).unwrap();
        assert_eq!((read.order.as_str(), read.customer.as_str()), ("orders/1", "users/2"));
        assert_eq!(read.amount.map(|amount| (amount.units, amount.nanos)), Some((12, 500_000_000)));
    }
}
