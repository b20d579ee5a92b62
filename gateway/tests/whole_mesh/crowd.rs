//! Two thousand buyers and five hundred units.

use std::{
    collections::BTreeMap,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};

use futures_util::{StreamExt as _, stream};

use crate::{
    bed::{Bed, Reply},
    lives::order,
};

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

    let again = Arc::new(AtomicUsize::new(0));
    let outcomes = stream::iter(0..BUYERS)
        .map(|_| {
            let (bed, token, again) = (Arc::clone(&bed), token.clone(), Arc::clone(&again));
            async move {
                let reply = bought(&bed, &token, &again).await;
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

    let again = again.load(Ordering::Relaxed);
    eprintln!(
        "{BUYERS} buyers of {UNITS} units: {outcomes:?}; {again} times 503 or 504, asked again"
    );
    let count = |outcome: &str| outcomes.get(outcome).copied().unwrap_or_default();
    assert_eq!(count("STATE_CONFIRMED"), UNITS, "{outcomes:?}");
    let refused = count("400 OUT_OF_STOCK") + count("REJECTED \"OUT_OF_STOCK\"");
    assert_eq!(refused, BUYERS - UNITS, "{outcomes:?}");
    let stock = bed.get("/v1/stocks/main~LAST", Some(&bed.admin)).await;
    assert_eq!(stock.body["available"].as_str().unwrap_or("0"), "0", "{}", stock.body);
}

/// Places one order as a careful client does: what is 503 or 504 may have been carried out, and is
/// asked for again under the same id. On a machine that is busy with other things that happens.
async fn bought(bed: &Bed, token: &str, again: &AtomicUsize) -> Reply {
    const TRIES: usize = 5;
    let path = format!("/v1/orders?requestId={}", uuid::Uuid::new_v4());
    let body = order("LAST", 1, (1, 0), "tok_visa");
    let mut reply = bed.post(&path, Some(token), &body).await;
    for _ in 1..TRIES {
        if !matches!(reply.status.as_u16(), 503 | 504) {
            break;
        }
        again.fetch_add(1, Ordering::Relaxed);
        reply = bed.post(&path, Some(token), &body).await;
    }
    reply
}
