//! Confirmed orders on their way: to the door, astray, or called off; and those who watch.
//!
//! What became of them is read from [`books`], and [`watch`] follows them.

mod books;
mod watch;

use std::time::Duration;

use proto::operator::v1::{
    ListSagasRequest, PauseSagaRequest, ResumeSagaRequest, sagas_service_client::SagasServiceClient,
};
use serde_json::{Value, json};

use self::books::{cents, count};
use crate::{
    bed::{Bed, Changes, Reply},
    lives::{euros, order},
};

/// A carrier that comes for parcels by itself.
const COMES: Changes = changed(&[("shipping", &["--auto-dispatch=true"])]);
/// A carrier that takes what is handed to it, and keeps it.
const DAWDLES: Changes = changed(&[("shipping", &["--carrier-speed=1h"])]);

/// How long a state is waited for.
const PATIENCE: Duration = Duration::from_secs(30);
/// Between two looks at it.
const PAUSE: Duration = Duration::from_millis(20);

const fn changed(flags: &'static [(&'static str, &'static [&'static str])]) -> Changes {
    Changes { flags, defaults_at_the_edge: false, nonsense: false, behind_doors: &[], spans: None }
}

impl Bed {
    /// Places an order, and does not wait for it.
    async fn placed(&self, token: &str, order: &Value) -> String {
        let reply = self.post("/v1/orders", Some(token), order).await;
        assert_eq!(reply.status, 201, "{}", reply.body);
        reply.text("name")
    }

    /// Waits until something reads as it should.
    async fn becomes(&self, name: &str, token: &str, key: &str, value: &str) -> Reply {
        let looking = async {
            loop {
                let reply = self.get(&format!("/v1/{name}"), Some(token)).await;
                assert_eq!(reply.status, 200, "{}", reply.body);
                if reply.body[key] == value {
                    return reply;
                }
                tokio::time::sleep(PAUSE).await;
            }
        };
        match tokio::time::timeout(PATIENCE, looking).await {
            Ok(reply) => reply,
            Err(_late) => {
                let reply = self.get(&format!("/v1/{name}"), Some(token)).await;
                let events = self.history(name, token).await;
                panic!("{key} does not become {value}: {} after {events:?}", reply.body)
            }
        }
    }

    /// The shipments of an order, once there are so many and the carrier will take them.
    async fn booked(&self, order: &str, token: &str, number: usize) -> Vec<Value> {
        let looking = async {
            loop {
                let found = self.listed("shipments", &format!("order={order}"), token).await;
                let waits = |shipment: &Value| shipment["state"] == "STATE_PENDING";
                if found.len() == number && !found.iter().any(waits) {
                    return found;
                }
                tokio::time::sleep(PAUSE).await;
            }
        };
        tokio::time::timeout(PATIENCE, looking).await.expect("shipments in time")
    }

    async fn dispatch(&self, shipment: &Value) {
        let name = shipment["name"].as_str().expect("a name");
        let path = format!("/v1/{name}:dispatch");
        let reply = self.post(&path, Some(&self.admin), &json!({})).await;
        assert_eq!(reply.status, 200, "{}", reply.body);
    }

    /// Says what became of a shipment, as its carrier would.
    async fn report(&self, shipment: &Value, kind: &str) {
        let name = shipment["name"].as_str().expect("a name");
        let path = format!("/v1/{name}:recordCarrierEvent");
        let event = json!({"eventId": "the-end", "kind": kind});
        let reply = self.post(&path, Some(&self.admin), &event).await;
        assert_eq!(reply.status, 200, "{}", reply.body);
    }

    /// Five of a variant, far from everything else.
    async fn store_in_the_north(&self, sku: &str) {
        let admin = Some(self.admin.as_str());
        let north = json!({"displayName": "North"});
        let north = self.post("/v1/locations?location_id=north", admin, &north).await;
        assert_eq!(north.status, 201, "{}", north.body);
        let received = json!({"delta": "5", "reason": "ADJUSTMENT_REASON_RECEIVED"});
        let path = format!("/v1/stocks/north~{sku}:adjust");
        let stock = self.post(&path, admin, &received).await;
        assert_eq!(stock.status, 200, "{}", stock.body);
    }

    /// Keeps what carries an order out from doing anything; its name.
    async fn hold_saga(&self, order: &str) -> String {
        let mut sagas = SagasServiceClient::new(self.channel("orders"));
        let list = ListSagasRequest { key: order.to_owned(), ..ListSagasRequest::default() };
        let held = async {
            let list = sagas.list_sagas(self.as_admin(list)).await?.into_inner();
            let name = list.sagas.first().expect("a saga").name.clone();
            let pause = PauseSagaRequest { name: name.clone(), reason: "a test".to_owned() };
            sagas.pause_saga(self.as_admin(pause)).await?;
            Ok::<_, tonic::Status>(name)
        };
        let held = mesh::ctx::background("hold", PATIENCE, None, held).await;
        held.expect("in time").expect("a saga to hold")
    }

    /// Lets it go on, unless it does already: who calls an order off does not wait for it.
    async fn let_go(&self, saga: &str) {
        let mut sagas = SagasServiceClient::new(self.channel("orders"));
        let resume = ResumeSagaRequest { name: saga.to_owned(), reason: "a test".to_owned() };
        let resumed = sagas.resume_saga(self.as_admin(resume));
        let resumed = mesh::ctx::background("let go", PATIENCE, None, resumed).await;
        if let Err(status) = resumed.expect("in time") {
            assert_eq!(status.code(), tonic::Code::FailedPrecondition, "{status}");
        }
    }

    fn as_admin<T>(&self, message: T) -> tonic::Request<T> {
        let mut request = tonic::Request::new(message);
        let token = format!("Bearer {}", self.admin).parse().expect("ASCII");
        request.metadata_mut().insert("authorization", token);
        request
    }
}

/// An order that is sent to where a carrier does this with it.
fn order_to(organization: &str, sku: &str, quantity: u32, total: (i64, i64)) -> Value {
    let mut order = order(sku, quantity, total, "tok_visa");
    order["shipTo"] = json!({"regionCode": "DE", "organization": organization});
    order
}

#[tokio::test(flavor = "multi_thread")]
async fn an_order_goes_to_the_door_by_itself_and_everything_happens_once() {
    let bed = Bed::with(COMES).await;
    bed.variant("MUG", (9, 99), 10).await;
    let (_, token) = bed.customer("ada@example.com").await;
    let name = bed.placed(&token, &order("MUG", 2, (19, 98), "tok_visa")).await;
    let done = bed.becomes(&name, &token, "state", "STATE_COMPLETED").await;
    assert_eq!(done.text("paymentState"), "PAYMENT_STATE_CAPTURED", "{}", done.body);
    assert_eq!(done.text("fulfillmentState"), "FULFILLMENT_STATE_DELIVERED", "{}", done.body);
    assert_eq!(done.body["totals"]["total"], euros((19, 98)));
    let line = &done.body["lines"][0];
    let units = ["quantity", "cancelled", "shipped", "delivered"].map(|key| count(&line[key]));
    assert_eq!(units, [2, 0, 2, 2], "{line}");

    let history = bed.history(&name, &token).await;
    let revisions: Vec<i64> = history.iter().map(|(revision, _)| *revision).collect();
    let expected: Vec<i64> = (1..=count(&done.body["revision"])).collect();
    assert_eq!(revisions, expected, "{history:?}");
    for once in ["order.created", "order.confirmed", "order.completed"] {
        assert_eq!(history.iter().filter(|(_, kind)| kind == once).count(), 1, "{history:?}");
    }

    let shipments = bed.listed("shipments", &format!("order={name}"), &token).await;
    assert_eq!(shipments.len(), 1, "{shipments:?}");
    assert_eq!(shipments[0]["state"], "STATE_DELIVERED");
    assert!(shipments[0]["tracking"].as_str().is_some_and(|tracking| !tracking.is_empty()));
    assert_eq!(bed.counters("MUG").await, [8, 0, 0]);
    let moved = ["KIND_RECEIVED", "KIND_HELD", "KIND_ALLOCATED", "KIND_SHIPPED"];
    assert_eq!(bed.movements("MUG").await, moved);
    bed.paid(&name, 1998, 0).await;
    let mails = ["ORDER_CONFIRMED", "ORDER_RECEIVED", "SHIPMENT_DELIVERED", "SHIPMENT_DISPATCHED"];
    assert_eq!(bed.mailed(&name, &token, 4).await, mails);
    bed.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn whoever_watches_sees_every_revision_once_although_the_connection_is_cut_again_and_again() {
    let bed = Bed::start().await;
    bed.variant("MUG", (9, 99), 10).await;
    let (_, token) = bed.customer("ada@example.com").await;
    let name = bed.placed(&token, &order("MUG", 1, (9, 99), "tok_visa")).await;
    let goes_on = async {
        let shipments = bed.booked(&name, &token, 1).await;
        bed.dispatch(&shipments[0]).await;
    };
    let (lines, events, cut, ()) = tokio::join!(
        bed.watch_lines(&name, &token),
        bed.watch_events(&name, &token, usize::MAX),
        bed.watch_events(&name, &token, 1),
        goes_on,
    );
    let done = bed.becomes(&name, &token, "state", "STATE_COMPLETED").await;
    let history = bed.history(&name, &token).await;
    assert_eq!(history.len(), usize::try_from(count(&done.body["revision"])).unwrap());
    for (watched, how) in [(lines, "lines"), (events, "events"), (cut, "cut")] {
        assert!(watched.snapshot >= 1, "{how}: {watched:?}");
        let seen = usize::try_from(watched.snapshot).unwrap();
        assert_eq!(watched.events, history[seen..], "{how}");
    }
    bed.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_paid_for_and_does_not_arrive_is_paid_back_and_only_what_is_there_is_stock() {
    let bed = Bed::with(DAWDLES).await;
    let (_, token) = bed.customer("ada@example.com").await;
    for (fate, sku, left) in [("KIND_LOST", "MUG", [8, 0, 0]), ("KIND_RETURNED", "CUP", [10, 0, 0])]
    {
        bed.variant(sku, (9, 99), 10).await;
        let name = bed.placed(&token, &order(sku, 2, (19, 98), "tok_visa")).await;
        let shipments = bed.booked(&name, &token, 1).await;
        bed.dispatch(&shipments[0]).await;
        bed.becomes(&name, &token, "paymentState", "PAYMENT_STATE_CAPTURED").await;
        bed.paid(&name, 1998, 0).await;
        bed.report(&shipments[0], fate).await;
        let done = bed.becomes(&name, &token, "state", "STATE_COMPLETED").await;
        assert_eq!(done.text("paymentState"), "PAYMENT_STATE_REFUNDED", "{fate}: {}", done.body);
        let line = &done.body["lines"][0];
        let units = ["quantity", "cancelled", "shipped", "delivered"].map(|key| count(&line[key]));
        assert_eq!(units, [2, 2, 0, 0], "{fate}: {line}");
        bed.paid(&name, 1998, 1998).await;
        assert_eq!(bed.counters(sku).await, left, "{fate}");
        let payment = name.replace("orders/", "payments/");
        let refunds = bed.listed("refunds", &format!("payment={payment}"), &bed.admin).await;
        assert_eq!(refunds.len(), 1, "{fate}: {refunds:?}");
        assert_eq!(refunds[0]["state"], "STATE_SUCCEEDED", "{fate}: {refunds:?}");
        assert_eq!(refunds[0]["amount"], euros((19, 98)), "{fate}");
    }
    bed.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_owed_for_what_is_lost_however_soon() {
    let bed = Bed::with(COMES).await;
    let (_, token) = bed.customer("ada@example.com").await;
    for (fate, sku, left) in [
        ("carrier:lost", "MUG", [8, 0, 0]),
        ("carrier:returned", "CUP", [10, 0, 0]),
        ("carrier:lost carrier:drops_answer", "JAR", [8, 0, 0]),
    ] {
        bed.variant(sku, (9, 99), 10).await;
        let name = bed.placed(&token, &order_to(fate, sku, 2, (19, 98))).await;
        bed.becomes(&name, &token, "state", "STATE_COMPLETED").await;
        assert_eq!(bed.counters(sku).await, left, "{fate}");
        // It may have been over before anything was taken.
        let payment = name.replace("orders/", "/v1/payments/");
        let payment = bed.get(&payment, Some(&token)).await;
        let taken = cents(&payment.body["captured"]);
        assert!(taken == 0 || taken == 1998, "{fate}: {}", payment.body);
        bed.paid(&name, taken, taken).await;
    }
    bed.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_lost_while_its_money_is_being_taken_is_paid_back() {
    let bed = Bed::with(DAWDLES).await;
    bed.variant("MUG", (9, 99), 5).await;
    let (_, token) = bed.customer("ada@example.com").await;
    // Carried out at once, and answered late.
    let late = json!({"operation": "capture", "fault": "delay", "delay_ms": 1_500, "count": 1});
    bed.provider_misbehaves(&late).await;
    let name = bed.placed(&token, &order("MUG", 1, (9, 99), "tok_visa")).await;
    let shipments = bed.booked(&name, &token, 1).await;
    bed.dispatch(&shipments[0]).await;
    bed.provider_takes(&name, 999).await;
    bed.report(&shipments[0], "KIND_LOST").await;
    let done = bed.becomes(&name, &token, "state", "STATE_COMPLETED").await;
    assert_eq!(done.text("paymentState"), "PAYMENT_STATE_REFUNDED", "{}", done.body);
    bed.paid(&name, 999, 999).await;
    assert_eq!(bed.counters("MUG").await, [4, 0, 0]);
    bed.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_called_off_before_the_carrier_has_it_leaves_nothing_held_and_nothing_set_aside() {
    let bed = Bed::start().await;
    bed.variant("MUG", (9, 99), 5).await;
    let (_, token) = bed.customer("ada@example.com").await;
    let name = bed.placed(&token, &order("MUG", 5, (49, 95), "tok_visa")).await;
    bed.booked(&name, &token, 1).await;
    assert_eq!(bed.counters("MUG").await, [5, 0, 5]);
    let reply = bed.post(&format!("/v1/{name}:cancel"), Some(&token), &json!({})).await;
    assert_eq!(reply.status, 200, "{}", reply.body);
    let done = bed.becomes(&name, &token, "state", "STATE_CANCELLED").await;
    assert_eq!(done.text("paymentState"), "PAYMENT_STATE_VOIDED", "{}", done.body);
    assert_eq!(bed.counters("MUG").await, [5, 0, 0]);
    bed.paid(&name, 0, 0).await;
    let shipments = bed.listed("shipments", &format!("order={name}"), &token).await;
    assert_eq!(shipments[0]["state"], "STATE_CANCELLED", "{shipments:?}");
    let mails = ["ORDER_CANCELLED", "ORDER_CONFIRMED", "ORDER_RECEIVED"];
    assert_eq!(bed.mailed(&name, &token, 3).await, mails);
    bed.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_the_carrier_has_cannot_be_called_off() {
    let bed = Bed::with(DAWDLES).await;
    bed.variant("MUG", (9, 99), 5).await;
    let (_, token) = bed.customer("ada@example.com").await;
    let name = bed.placed(&token, &order("MUG", 1, (9, 99), "tok_visa")).await;
    bed.dispatch(&bed.booked(&name, &token, 1).await[0]).await;
    let shipped = "FULFILLMENT_STATE_SHIPPED";
    bed.becomes(&name, &token, "fulfillmentState", shipped).await;
    let charged = "PAYMENT_STATE_CAPTURED";
    let before = bed.becomes(&name, &token, "paymentState", charged).await;
    let reply = bed.post(&format!("/v1/{name}:cancel"), Some(&token), &json!({})).await;
    assert_eq!((reply.status.as_u16(), reply.reason()), (400, "NOT_CANCELLABLE"), "{}", reply.body);
    let after = bed.get(&format!("/v1/{name}"), Some(&token)).await;
    assert_eq!(after.body, before.body);
    bed.paid(&name, 999, 0).await;
    bed.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cancellation_that_comes_after_the_carrier_is_lost_and_the_order_is_delivered() {
    let bed = Bed::start().await;
    bed.variant("MUG", (9, 99), 5).await;
    let (_, token) = bed.customer("ada@example.com").await;
    let name = bed.placed(&token, &order("MUG", 1, (9, 99), "tok_visa")).await;
    let shipments = bed.booked(&name, &token, 1).await;
    // Who carries the order out does not hear that it left.
    let saga = bed.hold_saga(&name).await;
    bed.dispatch(&shipments[0]).await;
    let reply = bed.post(&format!("/v1/{name}:cancel"), Some(&token), &json!({})).await;
    assert_eq!(reply.status, 200, "{}", reply.body);
    bed.let_go(&saga).await;
    let done = bed.becomes(&name, &token, "state", "STATE_COMPLETED").await;
    assert_eq!(done.text("fulfillmentState"), "FULFILLMENT_STATE_DELIVERED", "{}", done.body);
    let history = bed.history(&name, &token).await;
    let at = |kind: &str| history.iter().position(|(_, event)| event == kind);
    assert!(at("order.cancelling").is_some(), "{history:?}");
    assert!(at("order.cancelling") < at("order.cancel_lost"), "{history:?}");
    assert!(at("order.cancel_lost") < at("order.completed"), "{history:?}");
    assert_eq!(bed.counters("MUG").await, [4, 0, 0]);
    bed.paid(&name, 999, 0).await;
    bed.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_the_carrier_has_is_delivered_and_paid_and_the_rest_is_called_off() {
    let bed = Bed::start().await;
    bed.variant("MUG", (9, 99), 5).await;
    bed.variant("CUP", (5, 0), 0).await;
    bed.store_in_the_north("CUP").await;
    let (_, token) = bed.customer("ada@example.com").await;
    let mut both = order("MUG", 1, (14, 99), "tok_visa");
    both["lines"] = json!([
        {"variant": "variants/MUG", "quantity": 1},
        {"variant": "variants/CUP", "quantity": 1},
    ]);
    let name = bed.placed(&token, &both).await;
    let shipments = bed.booked(&name, &token, 2).await;
    let mug = shipments.iter().find(|it| it["location"] == "locations/main");
    bed.dispatch(mug.expect("one from main")).await;
    let partly = "FULFILLMENT_STATE_PARTIALLY_DELIVERED";
    bed.becomes(&name, &token, "fulfillmentState", partly).await;
    let reply = bed.post(&format!("/v1/{name}:cancel"), Some(&token), &json!({})).await;
    assert_eq!(reply.status, 200, "{}", reply.body);
    let done = bed.becomes(&name, &token, "state", "STATE_COMPLETED").await;
    assert_eq!(done.body["totals"]["total"], euros((9, 99)), "{}", done.body);
    assert_eq!(done.text("paymentState"), "PAYMENT_STATE_CAPTURED", "{}", done.body);
    let lines = done.body["lines"].as_array().expect("lines");
    let units: Vec<_> =
        lines.iter().map(|it| ["delivered", "cancelled"].map(|key| count(&it[key]))).collect();
    assert_eq!(units, [[1, 0], [0, 1]], "{}", done.body);
    assert_eq!(bed.counters("MUG").await, [4, 0, 0]);
    assert_eq!(bed.counters("CUP").await, [5, 0, 0]);
    bed.paid(&name, 999, 0).await;
    bed.end().await;
}
