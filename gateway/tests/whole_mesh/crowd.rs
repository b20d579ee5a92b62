//! Two thousand buyers and five hundred units.

use std::{collections::BTreeMap, sync::Arc};

use futures_util::{StreamExt as _, stream};

use crate::{bed::Bed, lives::order};

const BUYERS: usize = 2_000;
const UNITS: usize = 500;
/// How many ask at the same moment.
const AT_ONCE: usize = 64;

#[expect(clippy::print_stderr, reason = "both counts are part of the claim")]
#[tokio::test(flavor = "multi_thread")]
async fn of_two_thousand_buyers_of_five_hundred_units_exactly_five_hundred_are_served() {
    let bed = Arc::new(Bed::start().await);
    bed.variant("LAST", (1, 0), UNITS.try_into().unwrap()).await;
    let (_, token) = bed.customer("crowd@example.com").await;

    let outcomes = stream::iter(0..BUYERS)
        .map(|_| {
            let (bed, token) = (Arc::clone(&bed), token.clone());
            async move {
                let body = order("LAST", 1, (1, 0), "tok_visa");
                let reply = bed.post("/v1/orders", Some(&token), &body).await;
                if reply.status == 400 {
                    return format!("400 {}", reply.reason());
                }
                assert_eq!(reply.status, 201, "{:?}", reply.body);
                let settled = bed.settled(&reply.text("name"), &token).await;
                match settled.text("state").as_str() {
                    "STATE_REJECTED" => format!("REJECTED {}", settled.body["rejection"]["reason"]),
                    state => state.to_owned(),
                }
            }
        })
        .buffer_unordered(AT_ONCE)
        .fold(BTreeMap::<String, usize>::new(), async |mut counts, outcome| {
            *counts.entry(outcome).or_default() += 1;
            counts
        })
        .await;

    eprintln!("{BUYERS} buyers of {UNITS} units: {outcomes:?}");
    let count = |outcome: &str| outcomes.get(outcome).copied().unwrap_or_default();
    assert_eq!(count("STATE_CONFIRMED"), UNITS, "{outcomes:?}");
    let refused = count("400 OUT_OF_STOCK") + count("REJECTED \"OUT_OF_STOCK\"");
    assert_eq!(refused, BUYERS - UNITS, "{outcomes:?}");
    let stock = bed.get("/v1/stocks/main~LAST", Some(&bed.admin)).await;
    assert_eq!(stock.body["available"].as_str().unwrap_or("0"), "0", "{}", stock.body);
}
