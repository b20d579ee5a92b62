//! What is published: each event of the domain as a message of the contract.

use mesh::outbox::Fact;
use prost::Name;
use prost_types::Any;
use proto::orders::v1 as api;

use crate::{
    domain::{CancelReason, Cause, Event, FulfillmentState, Order, Units},
    grpc::encode,
};

/// The event as it leaves, with the order as it is after it.
#[must_use]
pub fn published(order: &Order, event: &Event) -> Fact {
    let (name, customer) = (name(order), order.customer.clone());
    let customer_email = order.customer_email.clone();
    match event {
        Event::Created => fact(
            "order.created",
            &api::OrderCreated {
                order: name,
                customer,
                customer_email,
                lines: order.lines.iter().map(encode::line).collect(),
                totals: Some(encode::totals(&order.totals)),
            },
        ),
        Event::ActionRequired => fact(
            "order.action_required",
            &api::OrderActionRequired {
                order: name,
                customer,
                customer_email,
                pending_action: order.pending.as_ref().map(encode::pending),
            },
        ),
        Event::Revised => fact(
            "order.revised",
            &api::OrderRevised {
                order: name,
                customer,
                lines: order.lines.iter().map(encode::line).collect(),
                totals: Some(encode::totals(&order.totals)),
            },
        ),
        Event::PaymentChanged(previous) => fact(
            "order.payment_changed",
            &api::OrderPaymentChanged {
                order: name,
                customer,
                previous_payment_state: encode::payment_state(*previous).into(),
                payment_state: encode::payment_state(order.payment_state()).into(),
            },
        ),
        Event::Confirmed => fact(
            "order.confirmed",
            &api::OrderConfirmed {
                order: name,
                customer,
                customer_email,
                total: Some(encode::money(order.totals.total)),
                confirm_time: order.confirmed_at.map(encode::timestamp),
            },
        ),
        Event::Rejected => fact(
            "order.rejected",
            &api::OrderRejected {
                order: name,
                customer,
                customer_email,
                rejection: order.rejection.as_ref().map(encode::rejection),
            },
        ),
        Event::Cancelling(cancellation) => fact(
            "order.cancelling",
            &api::OrderCancelling {
                order: name,
                customer,
                reason: encode::cancel_reason(cancellation.reason).into(),
                actor: cancellation.actor.clone(),
            },
        ),
        Event::Cancelled => {
            fact("order.cancelled", &api::OrderCancelled { order: name, customer, customer_email })
        }
        Event::Expired => {
            fact("order.expired", &api::OrderExpired { order: name, customer, customer_email })
        }
        Event::FulfillmentChanged(previous) => {
            fact("order.fulfillment_changed", &fulfillment_changed(order, *previous))
        }
        Event::LineCancelled(cause, units) => {
            fact("order.line_cancelled", &line_cancelled(order, *cause, units))
        }
        Event::CancelLost => fact(
            "order.cancel_lost",
            &api::OrderCancelLost { order: name, customer, customer_email },
        ),
        Event::Completed => {
            let total = Some(encode::money(order.totals.total));
            let told = api::OrderCompleted { order: name, customer, customer_email, total };
            fact("order.completed", &told)
        }
    }
}

fn fulfillment_changed(order: &Order, previous: FulfillmentState) -> api::OrderFulfillmentChanged {
    api::OrderFulfillmentChanged {
        order: name(order),
        customer: order.customer.clone(),
        previous_fulfillment_state: encode::fulfillment_state(previous).into(),
        fulfillment_state: encode::fulfillment_state(order.fulfillment_state()).into(),
        lines: order.lines.iter().map(encode::line).collect(),
    }
}

fn line_cancelled(order: &Order, cause: Cause, units: &[Units]) -> api::OrderLineCancelled {
    api::OrderLineCancelled {
        order: name(order),
        customer: order.customer.clone(),
        customer_email: order.customer_email.clone(),
        cause: encode::cause(cause).into(),
        units: units.iter().map(encode::units).collect(),
        totals: Some(encode::totals(&order.totals)),
    }
}

/// The name of an order, which is also the aggregate of its events and the key of its saga.
#[must_use]
pub fn name(order: &Order) -> String {
    format!("orders/{}", order.id)
}

/// What the trail of an order says of an event besides its type and the states.
#[must_use]
pub fn note(order: &Order, event: &Event) -> String {
    match event {
        Event::Cancelling(cancellation) => {
            let reason = match cancellation.reason {
                CancelReason::CustomerRequest => "CUSTOMER_REQUEST",
                CancelReason::Duplicate => "DUPLICATE",
                CancelReason::Fraud => "FRAUD",
                CancelReason::NotShippable => "NOT_SHIPPABLE",
            };
            if cancellation.note.is_empty() {
                reason.to_owned()
            } else {
                format!("{reason}: {}", cancellation.note)
            }
        }
        Event::Rejected => order.rejection.as_ref().map_or_else(String::new, |rejection| {
            encode::reject_reason(rejection.reason).as_str_name().to_owned()
        }),
        Event::LineCancelled(cause, units) => {
            let cause = match cause {
                Cause::CalledOff => "CALLED_OFF",
                Cause::Lost => "LOST",
                Cause::Returned => "RETURNED",
            };
            let units: Vec<String> =
                units.iter().map(|units| format!("{}×{}", units.line_id, units.quantity)).collect();
            format!("{cause}: {}", units.join(", "))
        }
        Event::Created
        | Event::ActionRequired
        | Event::Revised
        | Event::PaymentChanged(_)
        | Event::Confirmed
        | Event::Cancelled
        | Event::Expired
        | Event::FulfillmentChanged(_)
        | Event::CancelLost
        | Event::Completed => String::new(),
    }
}

fn fact<M: Name>(kind: &'static str, message: &M) -> Fact {
    Fact { kind, data: Any { type_url: M::type_url(), value: message.encode_to_vec() } }
}

#[cfg(test)]
mod tests {
    use mesh::money::{Currency, Money};
    use time::OffsetDateTime;

    use super::*;
    use crate::domain::{
        Agreement, Cancellation, Draft, PaymentState, Price, StockPolicy, Wanted, price,
    };

    fn order() -> Order {
        let euro = Money::new(999, Currency::parse("EUR").unwrap());
        let variant = "variants/MUG".to_owned();
        let wanted = [Wanted { variant: variant.clone(), quantity: 2 }];
        let prices =
            [Price { variant, title: "A mug".to_owned(), unit: euro, version: "1".to_owned() }];
        let draft = Draft {
            customer: "users/1".to_owned(),
            customer_email: "ada@example.com".to_owned(),
            ship_to: None,
            payment_method: "tok_secret".to_owned(),
            stock_policy: StockPolicy::AllOrNothing,
            quoted: false,
            patience: time::Duration::minutes(15),
        };
        let lines = price::price(&wanted, &prices).unwrap();
        let at = OffsetDateTime::UNIX_EPOCH;
        Order::place(uuid::Uuid::nil(), draft, lines, &Agreement::Current, at).unwrap().0
    }

    #[test]
    fn every_event_is_published_under_its_type_as_its_message() {
        let order = order();
        let cancelling = Event::Cancelling(Cancellation {
            reason: CancelReason::Fraud,
            actor: "users/2".to_owned(),
            note: String::new(),
        });
        for (event, kind, message) in [
            (Event::Created, "order.created", "OrderCreated"),
            (Event::ActionRequired, "order.action_required", "OrderActionRequired"),
            (Event::Revised, "order.revised", "OrderRevised"),
            (
                Event::PaymentChanged(PaymentState::Unpaid),
                "order.payment_changed",
                "OrderPaymentChanged",
            ),
            (Event::Confirmed, "order.confirmed", "OrderConfirmed"),
            (Event::Rejected, "order.rejected", "OrderRejected"),
            (cancelling, "order.cancelling", "OrderCancelling"),
            (Event::Cancelled, "order.cancelled", "OrderCancelled"),
            (Event::Expired, "order.expired", "OrderExpired"),
            (
                Event::FulfillmentChanged(FulfillmentState::Unfulfilled),
                "order.fulfillment_changed",
                "OrderFulfillmentChanged",
            ),
            (
                Event::LineCancelled(Cause::Lost, vec![]),
                "order.line_cancelled",
                "OrderLineCancelled",
            ),
            (Event::CancelLost, "order.cancel_lost", "OrderCancelLost"),
            (Event::Completed, "order.completed", "OrderCompleted"),
        ] {
            let fact = published(&order, &event);
            assert_eq!(fact.kind, kind);
            assert_eq!(
                fact.data.type_url,
                format!("type.googleapis.com/ordermesh.orders.v1.{message}")
            );
            let token = b"tok_secret";
            assert!(!fact.data.value.windows(token.len()).any(|bytes| bytes == token), "{kind}");
        }
    }

    #[test]
    fn a_placed_order_is_told_with_its_lines_and_its_total() {
        let fact = published(&order(), &Event::Created);
        let created = fact.data.to_msg::<api::OrderCreated>().unwrap();
        assert_eq!(created.order, "orders/00000000-0000-0000-0000-000000000000");
        assert_eq!((created.lines.len(), created.lines[0].quantity), (1, 2));
        let total = created.totals.unwrap().total.unwrap();
        assert_eq!((total.units, total.nanos), (19, 980_000_000));
    }
}
