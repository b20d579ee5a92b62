//! What is answered of an order while users, payments or shipping do not answer.

use std::time::Duration;

use mesh::clock;
use serde_json::Value;

use crate::{
    bed::{Bed, Changes, Reply},
    lives::order,
};

/// Those who know something of an order beside orders.
const OTHERS: [&str; 3] = ["users", "payments", "shipping"];
/// Those who are there are waited for, so that a slow machine changes nothing.
const PATIENT: Changes = Changes {
    flags: &[("orders", &["--detail-timeout=2s"])],
    defaults_at_the_edge: false,
    nonsense: false,
    behind_doors: &[],
    spans: None,
};
/// As it is delivered, and everybody can be made to hang.
const HANGING: Changes = Changes { flags: &[], behind_doors: &OTHERS, ..PATIENT };

/// Far less than a call may take, and more than it takes to do without.
const SOON: Duration = Duration::from_secs(3);

impl Bed {
    /// A confirmed order, of which the carrier will take a parcel; its name and its customer.
    async fn sent(&self) -> (String, String) {
        self.variant("MUG", (9, 99), 10).await;
        let (_, token) = self.customer("ada@example.com").await;
        let order = order("MUG", 2, (19, 98), "tok_visa");
        let reply = self.post("/v1/orders?wait=5s", Some(&token), &order).await;
        assert_eq!(reply.text("state"), "STATE_CONFIRMED", "{}", reply.body);
        let name = reply.text("name");
        for _ in 0..600 {
            let summary = self.summary(&name, &token).await;
            if summary.body["delivery"]["shipments"][0]["state"] == "STATE_BOOKED" {
                return (name, token);
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        panic!("nothing of {name} is booked");
    }

    async fn summary(&self, name: &str, token: &str) -> Reply {
        self.answered(&format!("/v1/{name}:summary"), token).await
    }

    async fn full(&self, name: &str, token: &str) -> Reply {
        self.answered(&format!("/v1/{name}?view=FULL"), token).await
    }

    /// An answer that comes, and soon, whoever is away.
    async fn answered(&self, path: &str, token: &str) -> Reply {
        let began = clock::instant();
        let reply = self.get(path, Some(token)).await;
        let took = clock::instant() - began;
        assert_eq!(reply.status, 200, "{path}: {}", reply.body);
        assert!(took < SOON, "{path} took {took:?}");
        reply
    }
}

/// What an answer says that it does without, in the order of the alphabet.
fn without(reply: &Reply) -> Vec<&str> {
    let marks = reply.headers.get_all("mesh-degraded").iter();
    let names = marks.flat_map(|mark| mark.to_str().expect("text").split(','));
    let mut names: Vec<_> = names.collect();
    names.sort_unstable();
    names
}

/// Whether the payment and the shipments in a summary are there.
fn parts(summary: &Reply) -> [&Value; 2] {
    ["payment", "delivery"].map(|part| &summary.body[part]["availability"])
}

#[tokio::test(flavor = "multi_thread")]
async fn while_everybody_answers_an_order_lacks_nothing() {
    let bed = Bed::with(PATIENT).await;
    let (name, token) = bed.sent().await;
    let plain = bed.get(&format!("/v1/{name}"), Some(&token)).await;
    assert_eq!((&plain.body["customerDetails"], without(&plain)), (&Value::Null, vec![]));

    for view in ["FULL", "ORDER_VIEW_FULL", "2"] {
        let full = bed.answered(&format!("/v1/{name}?view={view}"), &token).await;
        let customer = &full.body["customerDetails"];
        assert_eq!(customer["availability"], "AVAILABILITY_KNOWN", "{customer}");
        assert_eq!(customer["displayName"], "Ada", "{customer}");
        assert_eq!(customer["email"], "ada@example.com", "{customer}");
        assert!(without(&full).is_empty(), "{:?}", full.headers);
    }

    let summary = bed.summary(&name, &token).await;
    assert!(without(&summary).is_empty(), "{:?}", summary.headers);
    assert_eq!(parts(&summary), ["AVAILABILITY_KNOWN"; 2], "{}", summary.body);
    assert_eq!(summary.body["order"]["name"], name);
    let payment = &summary.body["payment"];
    assert_eq!(payment["state"], "STATE_AUTHORIZED", "{payment}");
    assert_eq!(payment["authorized"]["units"], "19", "{payment}");
    assert_eq!(payment["payment"], name.replace("orders/", "payments/"));
    let shipments = bed.get(&format!("/v1/shipments?order={name}"), Some(&token)).await;
    let (told, known) =
        (&summary.body["delivery"]["shipments"][0], &shipments.body["shipments"][0]);
    assert_eq!(told["shipment"], known["name"]);
    assert_eq!((&told["carrier"], &told["tracking"]), (&known["carrier"], &known["tracking"]));
    assert!(told["tracking"].is_string(), "{told}");
    bed.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn without_users_payments_and_shipping_the_order_is_there_and_says_what_it_lacks() {
    let bed = Bed::with(PATIENT).await;
    let (name, token) = bed.sent().await;

    bed.stop("users").await;
    let full = bed.full(&name, &token).await;
    assert_eq!(full.body["name"], name);
    assert_eq!(full.body["state"], "STATE_CONFIRMED", "{}", full.body);
    let customer = &full.body["customerDetails"];
    assert_eq!(customer["availability"], "AVAILABILITY_UNAVAILABLE", "{customer}");
    assert_eq!((&customer["displayName"], without(&full)), (&Value::Null, vec!["users"]));
    // What does not need them is as it was.
    let summary = bed.summary(&name, &token).await;
    assert!(without(&summary).is_empty(), "{:?}", summary.headers);

    bed.stop("payments").await;
    let summary = bed.summary(&name, &token).await;
    assert_eq!(without(&summary), ["payments"]);
    assert_eq!(parts(&summary), ["AVAILABILITY_UNAVAILABLE", "AVAILABILITY_KNOWN"]);
    assert_eq!(summary.body["payment"]["state"], Value::Null, "{}", summary.body);

    bed.stop("shipping").await;
    let summary = bed.summary(&name, &token).await;
    assert_eq!(without(&summary), ["payments", "shipping"]);
    assert_eq!(parts(&summary), ["AVAILABILITY_UNAVAILABLE"; 2], "{}", summary.body);
    assert_eq!(summary.body["order"]["name"], name);
    assert_eq!(summary.body["order"]["state"], "STATE_CONFIRMED", "{}", summary.body);
    bed.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn whoever_hangs_keeps_nobody_waiting() {
    let bed = Bed::with(HANGING).await;
    let (name, token) = bed.sent().await;
    for service in OTHERS {
        bed.hang(service);
    }
    // Not only at first: what was found out is no longer waited for, or as short as before.
    for _ in 0..3 {
        let full = bed.full(&name, &token).await;
        assert_eq!((&full.body["name"], without(&full)), (&Value::from(&*name), vec!["users"]));
        let summary = bed.summary(&name, &token).await;
        assert_eq!(without(&summary), ["payments", "shipping"]);
        assert_eq!(parts(&summary), ["AVAILABILITY_UNAVAILABLE"; 2], "{}", summary.body);
        assert_eq!(summary.body["order"]["state"], "STATE_CONFIRMED", "{}", summary.body);
    }
    bed.end().await;
}
