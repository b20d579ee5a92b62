//! The provider misbehaves, and no money is lost, charged twice or guessed.

use serde_json::{Value, json};

use crate::{bed::Bed, lives::order};

impl Bed {
    /// The provider's own ledger, summed by payment and account.
    async fn providers_ledger(&self) -> Value {
        let uri = format!("http://127.0.0.1:{}/v1/ledger", self.port("psp-simulator"));
        let reply = self.send_to(http::Method::GET, &uri, None, &[], bytes::Bytes::new()).await;
        assert_eq!(reply.status, 200, "{}", reply.body);
        reply.body
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_answer_that_is_lost_after_it_was_carried_out_is_found_out_and_charged_once() {
    let bed = Bed::start().await;
    bed.variant("MUG", (9, 99), 5).await;
    let (_, token) = bed.customer("ada@example.com").await;
    for magic in ["tok_apply_drop", "tok_drop", "tok_500_applied"] {
        let reply =
            bed.post("/v1/orders?wait=5s", Some(&token), &order("MUG", 1, (9, 99), magic)).await;
        assert_eq!(reply.status, 201, "{magic}: {}", reply.body);
        let name = reply.text("name");
        let settled = bed.settled(&name, &token).await;
        assert_eq!(settled.text("state"), "STATE_CONFIRMED", "{magic}: {}", settled.body);
        assert_eq!(settled.text("paymentState"), "PAYMENT_STATE_AUTHORIZED", "{magic}");
        let payment = name.replace("orders/", "payments/");
        let payment = bed.get(&format!("/v1/{payment}"), Some(&token)).await;
        assert_eq!(payment.body["authorized"], crate::lives::euros((9, 99)), "{}", payment.body);
    }
    let ledger = bed.providers_ledger().await;
    let text = ledger.to_string();
    assert!(text.len() > 2, "{text}");
    bed.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_order_whose_payment_is_in_doubt_is_called_off_and_nothing_stays_charged() {
    let bed = Bed::start().await;
    bed.variant("MUG", (9, 99), 5).await;
    let (_, token) = bed.customer("ada@example.com").await;
    let order = order("MUG", 5, (49, 95), "tok_apply_drop");
    let reply = bed.post("/v1/orders", Some(&token), &order).await;
    assert_eq!(reply.status, 201, "{}", reply.body);
    let name = reply.text("name");
    let cancelled = bed.post(&format!("/v1/{name}:cancel"), Some(&token), &json!({})).await;
    assert_eq!(cancelled.status, 200, "{}", cancelled.body);
    let settled = bed.settled(&name, &token).await;
    assert_eq!(settled.text("state"), "STATE_CANCELLED", "{}", settled.body);
    let stock = bed.get("/v1/stocks/main~MUG", Some(&bed.admin)).await;
    assert_eq!(stock.text("available"), "5", "{}", stock.body);
    bed.end().await;
}
