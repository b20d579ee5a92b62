use std::collections::BTreeSet;

use mesh::store as db;
use prost::Message as _;
use proto::{
    google::r#type::Money,
    payments::v1::{
        self as api, payment::State, payments_service_server::PaymentsService as _,
        refund::State as Refunded,
    },
};
use sea_orm::FromQueryResult;
use serde_json::json;
use tonic::{Code, Request};

use super::*;
use crate::{
    domain::{Account, AttemptState},
    harness::{CUSTOMER, On, Order, World, as_orders, euro, on_both_databases, reason},
    store::Page,
};

on_both_databases! {
    every_parcel_is_captured_by_its_own_command_and_the_last_gives_the_rest_back
    a_refund_is_paid_of_one_capture_after_the_other_and_once
    a_refund_whose_answer_is_lost_is_found_out_and_another_one_waits
    no_more_is_granted_than_was_taken_and_what_is_refused_is_granted_no_longer
    a_part_that_fails_stops_the_parts_behind_it
    a_person_asks_with_a_request_id_and_a_saga_with_a_command
    what_is_malformed_of_a_refund_names_its_field
    refunds_come_in_pages_the_newest_first
}

fn orders() -> Caller {
    Caller::of_service("orders")
}

fn finance() -> Caller {
    Caller::with_roles("users/f", &["finance"])
}

/// An order of 10.50 of which these amounts were captured, the last finally.
async fn captured(world: &World, amounts: &[Money]) -> Order {
    let (order, authorized) = world.paid("tok_visa").await;
    authorized.unwrap();
    for (place, amount) in amounts.iter().enumerate() {
        let (step, last) = (format!("capture@{place}"), place + 1 == amounts.len());
        world.capture(&order, &step, Some(amount.clone()), last).await.unwrap();
    }
    order
}

/// A refund as the saga of its order asks for it.
fn by_saga(order: &Order, step: &str, amount: Money) -> api::CreateRefundRequest {
    let command = Some(order.command(step));
    api::CreateRefundRequest { command, ..order.refund(amount) }
}

/// What each account of a payment comes to.
async fn balances(world: &World, order: &Order) -> Vec<(Account, i64)> {
    let page = Page { size: 1_000, before: None };
    let id = order.id.to_string();
    let entries = world.store.entries(Some(&id), &page).await.unwrap();
    let accounts: BTreeSet<Account> = entries.iter().map(|entry| entry.posting.account).collect();
    let sum = |account| {
        let of_it = entries.iter().filter(|entry| entry.posting.account == account);
        (account, of_it.map(|entry| entry.posting.amount.minor).sum())
    };
    accounts.into_iter().map(sum).collect()
}

/// What was published about a payment.
async fn told<M: prost::Message + prost::Name + Default>(
    world: &World,
    order: &Order,
    kind: &str,
) -> Vec<M> {
    #[derive(FromQueryResult)]
    struct Row {
        payload: Vec<u8>,
    }
    let sql = "SELECT payload FROM outbox WHERE aggregate = $1 AND type = $2 ORDER BY seq";
    let values = vec![order.name().into(), kind.into()];
    let rows: Vec<Row> =
        db::rows(world.db.store.reader(), "read the outbox", sql, values).await.unwrap();
    let read = |row: Row| {
        let data = prost_types::Any::decode(row.payload.as_slice()).unwrap();
        assert_eq!(data.type_url, M::type_url());
        M::decode(data.value.as_slice()).unwrap()
    };
    rows.into_iter().map(read).collect()
}

async fn every_parcel_is_captured_by_its_own_command_and_the_last_gives_the_rest_back(on: On) {
    let world = World::new(on).await;
    let order = captured(&world, &[euro(3, 0), euro(2, 0), euro(4, 0)]).await;
    // Each again: nothing more is taken, though the payment went on.
    for (step, last) in [("capture@0", false), ("capture@1", false), ("capture@2", true)] {
        let again = world.capture(&order, step, Some(euro(1, 0)), last).await.unwrap();
        assert_eq!((again.state(), again.captured), (State::Captured, Some(euro(9, 0))), "{step}");
    }
    let events: Vec<api::PaymentCaptured> = told(&world, &order, "payment.captured").await;
    let mut so_far = Vec::new();
    for event in events {
        assert_eq!(event.payment, order.name());
        assert_eq!(event.order, format!("orders/{}", order.id));
        assert_eq!(event.customer, CUSTOMER);
        so_far.push((event.amount.unwrap(), event.captured.unwrap(), event.r#final));
    }
    let expected = [
        (euro(3, 0), euro(3, 0), false),
        (euro(2, 0), euro(5, 0), false),
        (euro(4, 0), euro(9, 0), true),
    ];
    assert_eq!(so_far, expected);
    // Nothing is left to give back: that is said, and changes nothing.
    let voided = world.void(&order).await.unwrap();
    assert_eq!((voided.state(), voided.authorized), (State::Captured, Some(euro(9, 0))));
    assert_eq!(told::<api::PaymentVoided>(&world, &order, "payment.voided").await, []);
    // Authorized, captured three times, and the rest released.
    assert_eq!(world.ledgers_agree().await, 5);
    // Another one's last parcel never leaves: what is left of it is voided.
    let (order, _) = world.paid("tok_visa").await;
    world.capture(&order, "capture@0", Some(euro(3, 0)), false).await.unwrap();
    let voided = world.void(&order).await.unwrap();
    assert_eq!((voided.state(), voided.authorized), (State::Captured, Some(euro(3, 0))));
    assert_eq!(world.ledgers_agree().await, 8);
}

async fn a_refund_is_paid_of_one_capture_after_the_other_and_once(on: On) {
    let world = World::new(on).await;
    let order = captured(&world, &[euro(3, 0), euro(2, 0), euro(4, 0)]).await;
    let request = by_saga(&order, "refund@1", euro(2, 0));
    let first = world.refund(orders(), request.clone()).await.unwrap();
    assert_eq!((first.state(), first.refunded), (Refunded::Succeeded, Some(euro(2, 0))));
    assert_eq!(world.state(&order).await, State::PartiallyRefunded);
    let again = world.refund(orders(), request).await.unwrap();
    assert_eq!((again.name, again.refunded), (first.name, Some(euro(2, 0))));
    // One is left of the first capture, two of the second, and the rest comes of the third.
    let more = world.refund(orders(), by_saga(&order, "refund@2", euro(5, 0))).await.unwrap();
    assert_eq!((more.state(), &more.order), (Refunded::Succeeded, &format!("orders/{}", order.id)));
    let payment = world.payment(&order).await;
    let refunds = payment.attempts.iter().filter(|one| one.refund.is_some());
    let parts: Vec<_> = refunds.map(|one| (one.reference.clone(), one.amount.minor)).collect();
    let reference = |n| format!("pay/{}/refund/{n}", order.id);
    assert_eq!(
        parts,
        [(reference(1), 200), (reference(2), 100), (reference(3), 200), (reference(4), 200)]
    );
    world.refund(orders(), by_saga(&order, "refund@3", euro(2, 0))).await.unwrap();
    assert_eq!(world.state(&order).await, State::Refunded);
    let events: Vec<api::PaymentRefunded> = told(&world, &order, "payment.refunded").await;
    assert_eq!(events[3].refund, more.name);
    assert_eq!(events[4].order, format!("orders/{}", order.id));
    let so_far: Vec<_> = events.into_iter().map(|event| event.refunded.unwrap()).collect();
    assert_eq!(so_far, [euro(2, 0), euro(3, 0), euro(5, 0), euro(7, 0), euro(9, 0)]);
    // The customer has it all back; the provider keeps its fees.
    assert_eq!(
        balances(&world, &order).await,
        [
            (Account::Customer, 0),
            (Account::Hold, 0),
            (Account::Receivable, -13),
            (Account::Fees, 13),
            (Account::Payable, 0)
        ]
    );
    assert_eq!(world.ledgers_agree().await, 10);
}

async fn a_refund_whose_answer_is_lost_is_found_out_and_another_one_waits(on: On) {
    let world = World::new(on).await;
    for fault in ["apply_drop", "drop"] {
        let order = captured(&world, &[euro(3, 0), euro(4, 0)]).await;
        let rule = json!({"operation": "refund", "fault": fault, "count": 1});
        assert_eq!(world.psp.post("/control/faults", rule).await, 204);
        let request = by_saga(&order, "refund@1", euro(5, 0));
        let doubt = world.refund(orders(), request.clone()).await.unwrap();
        assert_eq!(doubt.state(), Refunded::Pending, "{fault}");
        assert_eq!(world.state(&order).await, State::InDoubt);
        let other = world.refund(finance(), order.refund(euro(1, 0))).await.unwrap_err();
        assert_eq!(
            (other.code(), reason(&other)),
            (Code::Aborted, "REQUEST_IN_PROGRESS".to_owned())
        );
        // What is set aside is other money: to void it, nobody waits for the refund.
        world.void(&order).await.unwrap();
        world.resolve().await;
        let name = doubt.name.clone();
        let found = world.service.get_refund(Request::new(api::GetRefundRequest { name }));
        let found = as_orders(found).await.unwrap().into_inner();
        assert_eq!((found.state(), &found.name), (Refunded::Succeeded, &doubt.name), "{fault}");
        assert_eq!(world.refund(orders(), request).await.unwrap(), found);
        assert_eq!(world.state(&order).await, State::PartiallyRefunded);
        world.ledgers_agree().await;
    }
}

async fn no_more_is_granted_than_was_taken_and_what_is_refused_is_granted_no_longer(on: On) {
    let world = World::new(on).await;
    let (order, _) = world.paid("tok_visa").await;
    // What is set aside was not taken.
    let early = world.refund(finance(), order.refund(euro(1, 0))).await.unwrap_err();
    assert_eq!(reason(&early), "REFUND_EXCEEDS_CAPTURED");
    world.capture(&order, "capture@0", Some(euro(4, 0)), true).await.unwrap();
    let over = world.refund(finance(), order.refund(euro(4, 1))).await.unwrap_err();
    let info = mesh::status::reason(&over).unwrap();
    assert_eq!((over.code(), &*info.reason), (Code::FailedPrecondition, "REFUND_EXCEEDS_CAPTURED"));
    assert_eq!(info.metadata["available"], "4.00 EUR");

    let rule = json!({
        "operation": "refund", "fault": "decline", "decline_code": "expired_card", "count": 1,
    });
    assert_eq!(world.psp.post("/control/faults", rule).await, 204);
    let request = by_saga(&order, "refund@1", euro(4, 0));
    for _first_and_again in 0..2 {
        let refused = world.refund(orders(), request.clone()).await.unwrap();
        assert_eq!(
            (refused.state(), refused.decline_code.as_str(), refused.refunded),
            (Refunded::Failed, "expired_card", Some(euro(0, 0)))
        );
    }
    assert_eq!(world.state(&order).await, State::Captured);
    assert_eq!(balances(&world, &order).await[0], (Account::Customer, -400));
    let granted = world.refund(orders(), by_saga(&order, "refund@2", euro(4, 0))).await.unwrap();
    assert_eq!(granted.state(), Refunded::Succeeded);
    assert_eq!(balances(&world, &order).await[0], (Account::Customer, 0));
    let over = world.refund(finance(), order.refund(euro(0, 1))).await.unwrap_err();
    assert_eq!(mesh::status::reason(&over).unwrap().metadata["available"], "0.00 EUR");
    world.ledgers_agree().await;
}

async fn a_part_that_fails_stops_the_parts_behind_it(on: On) {
    let world = World::new(on).await;
    let order = captured(&world, &[euro(3, 0), euro(2, 0), euro(4, 0)]).await;
    let rule = json!({
        "operation": "refund", "reference_prefix": format!("pay/{}/refund/2", order.id),
        "fault": "decline", "decline_code": "expired_card", "count": 1,
    });
    assert_eq!(world.psp.post("/control/faults", rule).await, 204);
    let refund = world.refund(finance(), order.refund(euro(9, 0))).await.unwrap();
    assert_eq!((refund.state(), refund.refunded), (Refunded::Failed, Some(euro(3, 0))));
    assert_eq!(refund.decline_code, "expired_card");
    let payment = world.payment(&order).await;
    let states: Vec<_> =
        payment.attempts.iter().rev().take(3).rev().map(|attempt| attempt.state).collect();
    assert_eq!(states, [AttemptState::Succeeded, AttemptState::Declined, AttemptState::Failed]);
    assert_eq!(world.state(&order).await, State::PartiallyRefunded);
    // Nothing is promised any more: all that is left may be granted again.
    assert_eq!(balances(&world, &order).await.last(), Some(&(Account::Payable, 0)));
    let rest = world.refund(finance(), order.refund(euro(6, 0))).await.unwrap();
    assert_eq!(rest.state(), Refunded::Succeeded);
    world.ledgers_agree().await;
}

async fn a_person_asks_with_a_request_id_and_a_saga_with_a_command(on: On) {
    let world = World::new(on).await;
    let order = captured(&world, &[euro(9, 0)]).await;
    let request_id = Uuid::from_u128(0x4000_8000_0000_0000_0001).to_string();
    let asked = api::CreateRefundRequest { request_id, ..order.refund(euro(1, 0)) };
    let first = world.refund(finance(), asked.clone()).await.unwrap();
    assert_eq!(world.refund(finance(), asked.clone()).await.unwrap(), first);
    let mut other = asked;
    other.refund.as_mut().unwrap().amount = Some(euro(2, 0));
    let reused = world.refund(finance(), other).await.unwrap_err();
    assert_eq!(reason(&reused), "REQUEST_ID_REUSED");
    // By its own id, too.
    let refund_id = Uuid::from_u128(7).to_string();
    let asked = api::CreateRefundRequest { refund_id, ..order.refund(euro(1, 0)) };
    let named = world.refund(finance(), asked.clone()).await.unwrap();
    assert_eq!(world.refund(finance(), asked.clone()).await.unwrap(), named);
    let elsewhere = captured(&world, &[euro(9, 0)]).await;
    for payment in [order.name(), elsewhere.name()] {
        let mut other = asked.clone();
        let refund = other.refund.as_mut().unwrap();
        (refund.payment, refund.amount) = (payment, Some(euro(3, 0)));
        let taken = world.refund(finance(), other).await.unwrap_err();
        assert_eq!(
            (taken.code(), reason(&taken)),
            (Code::AlreadyExists, "ALREADY_EXISTS".to_owned())
        );
    }
    for (caller, command) in [(finance(), Some(order.command("refund@1"))), (orders(), None)] {
        let request = api::CreateRefundRequest { command, ..order.refund(euro(1, 0)) };
        let refused = world.refund(caller, request).await.unwrap_err();
        assert_eq!(reason(&refused), "FIELD_VIOLATION");
    }
    assert_eq!(world.payment(&order).await.refunded, 200);
    assert_eq!(world.payment(&elsewhere).await.refunds, []);
    world.ledgers_agree().await;
}

async fn what_is_malformed_of_a_refund_names_its_field(on: On) {
    type Spoil = fn(&mut api::CreateRefundRequest);
    fn refund(request: &mut api::CreateRefundRequest) -> &mut api::Refund {
        request.refund.as_mut().unwrap()
    }
    let world = World::new(on).await;
    let order = captured(&world, &[euro(9, 0)]).await;
    let spoils: [(&str, Spoil); 9] = [
        ("refund", |request| request.refund = None),
        ("refund_id", |request| request.refund_id = "1".to_owned()),
        ("request_id", |request| request.request_id = "1".to_owned()),
        ("refund.payment", |request| refund(request).payment.clear()),
        ("refund.amount", |request| refund(request).amount = None),
        ("refund.amount", |request| refund(request).amount = Some(euro(0, 0))),
        ("refund.reason", |request| refund(request).reason = " ".to_owned()),
        ("refund.reason", |request| refund(request).reason = "x".repeat(501)),
        ("refund.reason", |request| refund(request).reason = "a\0b".to_owned()),
    ];
    for (field, spoil) in spoils {
        let mut request = order.refund(euro(1, 0));
        spoil(&mut request);
        let refused = world.refund(finance(), request).await.unwrap_err();
        assert_eq!(reason(&refused), "FIELD_VIOLATION", "{field}");
        let told = tonic_types::StatusExt::get_details_bad_request(&refused).unwrap();
        assert_eq!(told.field_violations[0].field, field);
    }
    let mut request = order.refund(euro(1, 0));
    refund(&mut request).amount =
        Some(Money { currency_code: "USD".to_owned(), units: 1, nanos: 0 });
    let refused = world.refund(finance(), request).await.unwrap_err();
    assert_eq!(reason(&refused), "CURRENCY_MISMATCH");
    let nowhere = world.refund(finance(), Order::new().refund(euro(1, 0))).await.unwrap_err();
    assert_eq!(nowhere.code(), Code::NotFound);
    assert_eq!(world.payment(&order).await.refunds, []);
}

async fn refunds_come_in_pages_the_newest_first(on: On) {
    let world = World::new(on).await;
    let order = captured(&world, &[euro(9, 0)]).await;
    let other = captured(&world, &[euro(9, 0)]).await;
    let mut names = Vec::new();
    // Their ids say nothing of their age.
    for id in [3, 1, 2] {
        let refund_id = Uuid::from_u128(id).to_string();
        let asked = api::CreateRefundRequest { refund_id, ..order.refund(euro(1, 0)) };
        names.insert(0, world.refund(finance(), asked).await.unwrap().name);
    }
    world.refund(finance(), other.refund(euro(1, 0))).await.unwrap();
    let list = async |payment: String, page_size, page_token: String| {
        let request = api::ListRefundsRequest { page_size, page_token, payment };
        let call = world.service.list_refunds(Request::new(request));
        mesh::testing::as_caller(finance(), call).await.unwrap().into_inner()
    };
    let first = list(order.name(), 2, String::new()).await;
    let second = list(order.name(), 2, first.next_page_token.clone()).await;
    let listed: Vec<_> =
        first.refunds.iter().chain(&second.refunds).map(|one| one.name.clone()).collect();
    assert_eq!((listed, second.next_page_token.as_str()), (names, ""));
    assert_eq!(list(String::new(), 50, String::new()).await.refunds.len(), 4);
}
