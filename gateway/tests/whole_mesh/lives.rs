//! The lives of orders, as a customer sees them.

use serde_json::{Value, json};

use crate::bed::{Bed, Reply};

/// An order of `quantity` units of `sku` at `total` euros and cents, paid with `token`.
pub fn order(sku: &str, quantity: u32, total: (i64, i64), token: &str) -> Value {
    json!({
        "lines": [{"variant": format!("variants/{sku}"), "quantity": quantity}],
        "expectedTotal": euros(total),
        "paymentMethod": token
    })
}

pub fn euros((units, cents): (i64, i64)) -> Value {
    json!({"currencyCode": "EUR", "units": units.to_string(), "nanos": cents * 10_000_000})
}

impl Bed {
    /// Waits until the order is not on its way any more, asking as a customer would.
    pub async fn settled(&self, name: &str, token: &str) -> Reply {
        for _ in 0..600 {
            let reply = self.get(&format!("/v1/{name}"), Some(token)).await;
            assert_eq!(reply.status, 200, "{:?}", reply.body);
            match reply.body["state"].as_str() {
                Some("STATE_PENDING" | "STATE_CANCELLING") => {
                    tokio::time::sleep(std::time::Duration::from_millis(20)).await;
                }
                _ => return reply,
            }
        }
        panic!("{name} does not settle");
    }

    async fn events(&self, name: &str, token: &str) -> Vec<String> {
        let reply = self.get(&format!("/v1/{name}:listEvents"), Some(token)).await;
        let events = reply.body["orderEvents"].as_array().cloned().unwrap_or_default();
        events.iter().map(|event| event["type"].as_str().unwrap_or_default().to_owned()).collect()
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_order_is_accepted_at_once_and_confirmed_with_stock_held_and_money_set_aside() {
    let bed = Bed::start().await;
    bed.variant("MUG", (9, 99), 10).await;
    let (ada, token) = bed.customer("ada@example.com").await;

    let quote = json!({"order": {"lines": [{"variant": "variants/MUG", "quantity": 2}]}});
    let quote = bed.post("/v1/orders:quote", Some(&token), &quote).await;
    assert_eq!(quote.status, 200, "{:?}", quote.body);
    assert_eq!(quote.body["totals"]["total"], euros((19, 98)));

    let reply = bed.post("/v1/orders", Some(&token), &order("MUG", 2, (19, 98), "tok_visa")).await;
    assert_eq!(reply.status, 201, "{:?}", reply.body);
    let name = reply.text("name");
    assert_eq!(reply.headers["location"], format!("/v1/{name}"));
    assert_eq!(reply.text("state"), "STATE_PENDING");
    assert_eq!(reply.text("customer"), ada);

    let confirmed = bed.settled(&name, &token).await;
    assert_eq!(confirmed.text("state"), "STATE_CONFIRMED", "{}", confirmed.body);
    assert_eq!(confirmed.text("paymentState"), "PAYMENT_STATE_AUTHORIZED");
    assert_eq!(confirmed.text("customerEmail"), "ada@example.com");
    let events = bed.events(&name, &token).await;
    assert_eq!(events.first().map(String::as_str), Some("order.created"));
    assert_eq!(events.last().map(String::as_str), Some("order.confirmed"));

    let stock = bed.get("/v1/stocks/main~MUG", Some(&bed.admin)).await;
    let available = stock.body["available"].as_str().map(str::to_owned);
    assert_eq!(available.as_deref(), Some("8"), "{}", stock.body);
    bed.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn whoever_waits_is_told_of_the_confirmation() {
    let bed = Bed::start().await;
    bed.variant("MUG", (9, 99), 10).await;
    let (_, token) = bed.customer("ada@example.com").await;
    let order = order("MUG", 1, (9, 99), "tok_visa");
    let reply = bed.post("/v1/orders?wait=5s", Some(&token), &order).await;
    assert_eq!(reply.status, 201, "{:?}", reply.body);
    assert_eq!(reply.text("state"), "STATE_CONFIRMED", "{}", reply.body);
    bed.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_declined_payment_rejects_the_order_and_gives_the_stock_back() {
    let bed = Bed::start().await;
    bed.variant("MUG", (9, 99), 3).await;
    let (_, token) = bed.customer("ada@example.com").await;
    let order = order("MUG", 3, (29, 97), "tok_declined");
    let reply = bed.post("/v1/orders?wait=5s", Some(&token), &order).await;
    assert_eq!(reply.status, 201, "{:?}", reply.body);
    let rejected = bed.settled(&reply.text("name"), &token).await;
    assert_eq!(rejected.text("state"), "STATE_REJECTED", "{}", rejected.body);
    assert_eq!(rejected.body["rejection"]["reason"], "PAYMENT_DECLINED");
    let stock = bed.get("/v1/stocks/main~MUG", Some(&bed.admin)).await;
    assert_eq!(stock.text("available"), "3", "{}", stock.body);
    bed.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_plainly_out_of_stock_is_refused_at_once() {
    let bed = Bed::start().await;
    bed.variant("MUG", (9, 99), 1).await;
    let (_, token) = bed.customer("ada@example.com").await;
    let order = order("MUG", 2, (19, 98), "tok_visa");
    let reply = bed.post("/v1/orders", Some(&token), &order).await;
    assert_eq!((reply.status.as_u16(), reply.reason()), (400, "OUT_OF_STOCK"), "{}", reply.body);
    assert_eq!(reply.detail("ErrorInfo")["metadata"]["available"], "1");
    bed.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_price_that_the_customer_did_not_see_is_not_charged() {
    let bed = Bed::start().await;
    bed.variant("MUG", (9, 99), 5).await;
    let (_, token) = bed.customer("ada@example.com").await;
    let reply = bed.post("/v1/orders", Some(&token), &order("MUG", 1, (8, 99), "tok_visa")).await;
    assert_eq!((reply.status.as_u16(), reply.reason()), (409, "PRICE_CHANGED"), "{}", reply.body);
    bed.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_confirmed_order_is_called_off_and_everything_given_back() {
    let bed = Bed::start().await;
    bed.variant("MUG", (9, 99), 5).await;
    let (_, token) = bed.customer("ada@example.com").await;
    let order = order("MUG", 5, (49, 95), "tok_visa");
    let reply = bed.post("/v1/orders?wait=5s", Some(&token), &order).await;
    let name = reply.text("name");
    assert_eq!(reply.text("state"), "STATE_CONFIRMED", "{}", reply.body);
    let cancel = format!("/v1/{name}:cancel");
    let reply = bed.post(&cancel, Some(&token), &json!({})).await;
    assert_eq!(reply.status, 200, "{:?}", reply.body);
    let cancelled = bed.settled(&name, &token).await;
    assert_eq!(cancelled.text("state"), "STATE_CANCELLED", "{}", cancelled.body);
    assert_eq!(cancelled.text("paymentState"), "PAYMENT_STATE_VOIDED");
    let stock = bed.get("/v1/stocks/main~MUG", Some(&bed.admin)).await;
    assert_eq!(stock.text("available"), "5", "{}", stock.body);
    let again = bed.post(&cancel, Some(&token), &json!({})).await;
    assert_eq!((again.status.as_u16(), again.reason()), (400, "ORDER_STATE"), "{}", again.body);
    bed.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_same_request_twenty_times_at_once_is_one_order_and_twenty_equal_answers() {
    let bed = Bed::start().await;
    bed.variant("MUG", (9, 99), 100).await;
    let (_, token) = bed.customer("ada@example.com").await;
    let id = "0b8f6c1e-7d1c-4b7e-9b55-1d4f3c2a9e01";
    let create = format!("/v1/orders?requestId={id}");
    let body = order("MUG", 1, (9, 99), "tok_visa");
    let twenty = (0..20).map(|_| bed.post(&create, Some(&token), &body));
    let replies = futures_util::future::join_all(twenty).await;
    for reply in &replies {
        assert_eq!(reply.status, 201, "{:?}", reply.body);
        assert_eq!(reply.body, replies[0].body);
    }
    let replayed =
        replies.iter().filter(|reply| reply.headers.contains_key("idempotent-replayed")).count();
    assert_eq!(replayed, 19);
    let orders = bed.get("/v1/orders", Some(&token)).await;
    assert_eq!(orders.body["orders"].as_array().map(Vec::len), Some(1));

    let other = order("MUG", 2, (19, 98), "tok_visa");
    let reused = bed.post(&create, Some(&token), &other).await;
    assert_eq!((reused.status.as_u16(), reused.reason()), (400, "REQUEST_ID_REUSED"));
    bed.end().await;
}
