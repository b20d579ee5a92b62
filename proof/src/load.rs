//! Placing orders: as fast as answers come (closed loop), or at a constant rate (open loop).
//!
//! In the open loop a latency begins when the order was due, not when it was sent: an order
//! that had to wait behind a slow one has waited (no coordinated omission). A [`Buyer`] is
//! measured; a `crowd` does what a `plan` drawn from a seed says, and records what it was told.

use std::{sync::Arc, time::Duration};

use anyhow::Context as _;
use futures_util::{StreamExt as _, stream};
use mesh::{Channel, Ctx, clock, ctx::Trace};
use proto::{
    catalog::v1::{ListVariantsRequest, catalog_service_client::CatalogServiceClient},
    orders::v1::{
        CreateOrderRequest, Order, OrderLine, order::State,
        orders_service_client::OrdersServiceClient,
    },
};
use tonic::{Request, Status, metadata::AsciiMetadataValue};
use uuid::Uuid;

mod crowd;
mod plan;
mod watching;

pub use crowd::Load;
pub(crate) use crowd::spoken;

/// How long an order may be waited for; the service waits no longer than 5 s.
const WAIT: Duration = Duration::from_secs(5);
/// How long a call may take before the load gives it up.
const PATIENCE: Duration = Duration::from_secs(9);

/// Places orders as one customer.
#[derive(Clone, Debug)]
pub struct Buyer {
    /// The orders service.
    pub orders: Channel,
    /// `Bearer …`.
    pub authorization: AsciiMetadataValue,
    /// What is bought, one variant an order, in turn.
    pub variants: Arc<[String]>,
}

/// Until when an order is followed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Until {
    /// It is stored.
    Accepted,
    /// It is confirmed.
    Confirmed,
}

/// What came of a load.
#[derive(Clone, Debug, Default)]
pub struct Outcome {
    /// How long each order that got there took, sorted.
    pub latencies: Vec<Duration>,
    /// Orders that did not get there.
    pub failed: usize,
    /// The first of the failures, in words.
    pub first_failure: Option<String>,
    /// From the first order to the last answer.
    pub took: Duration,
}

// === impl Buyer ===

impl Buyer {
    /// Places one order and follows it.
    async fn buy(&self, number: usize, until: Until) -> Result<(), Status> {
        let variant = self.variants[number % self.variants.len()].clone();
        let wait = match until {
            Until::Accepted => None,
            Until::Confirmed => WAIT.try_into().ok(),
        };
        let mut request = Request::new(CreateOrderRequest {
            order: Some(Order {
                lines: vec![OrderLine { variant, quantity: 1, ..OrderLine::default() }],
                payment_method: "tok_visa".to_owned(),
                ..Order::default()
            }),
            request_id: Uuid::new_v4().to_string(),
            accept_current_price: true,
            wait,
            ..CreateOrderRequest::default()
        });
        request.metadata_mut().insert("authorization", self.authorization.clone());
        let mut client = OrdersServiceClient::new(self.orders.clone());
        let ctx = Ctx::root(PATIENCE, Trace::new());
        let order = ctx.scope(client.create_order(request)).await?.into_inner();
        match until {
            Until::Confirmed if order.state() != State::Confirmed => Err(Status::new(
                tonic::Code::Ok,
                format!("{} after the wait", order.state().as_str_name()),
            )),
            Until::Confirmed | Until::Accepted => Ok(()),
        }
    }

    /// Keeps `at_once` orders in flight for `duration`.
    pub async fn closed(&self, at_once: usize, duration: Duration, until: Until) -> Outcome {
        let began = clock::instant();
        let results = stream::iter(0..)
            .take_while(|_| std::future::ready(began.elapsed() < duration))
            .map(async |number| {
                let sent = clock::instant();
                (self.buy(number, until).await, sent.elapsed())
            })
            .buffer_unordered(at_once)
            .collect::<Vec<_>>()
            .await;
        Outcome::of(results, began.elapsed())
    }

    /// Places `rate` orders a second for `duration`, whatever becomes of those before.
    pub async fn open(&self, rate: f64, duration: Duration, until: Until) -> Outcome {
        let began = clock::instant();
        let gap = Duration::from_secs_f64(1.0 / rate);
        let mut due = began;
        let mut sent = tokio::task::JoinSet::new();
        let mut number = 0;
        while due < began + duration {
            tokio::time::sleep_until(due).await;
            let (buyer, this) = (self.clone(), due);
            sent.spawn(async move { (buyer.buy(number, until).await, this.elapsed()) });
            due += gap;
            number += 1;
        }
        Outcome::of(sent.join_all().await, began.elapsed())
    }
}

// === impl Outcome ===

impl Outcome {
    fn of(results: Vec<(Result<(), Status>, Duration)>, took: Duration) -> Self {
        let mut outcome = Self { took, ..Self::default() };
        for (result, latency) in results {
            match result {
                Ok(()) => outcome.latencies.push(latency),
                Err(status) => {
                    outcome.failed += 1;
                    outcome
                        .first_failure
                        .get_or_insert_with(|| format!("{}: {}", status.code(), status.message()));
                }
            }
        }
        outcome.latencies.sort_unstable();
        outcome
    }

    /// Orders that got there, a second.
    #[must_use]
    pub fn rate(&self) -> f64 {
        let count = u32::try_from(self.latencies.len()).unwrap_or(u32::MAX);
        f64::from(count) / self.took.as_secs_f64()
    }

    /// The latency that so many hundredths of the orders did not exceed, in milliseconds.
    #[must_use]
    pub fn percentile(&self, hundredths: usize) -> f64 {
        let last = self.latencies.len().saturating_sub(1);
        let index = (self.latencies.len() * hundredths).div_ceil(100).saturating_sub(1).min(last);
        self.latencies.get(index).map_or(f64::NAN, |latency| latency.as_secs_f64() * 1_000.0)
    }
}

/// What can be bought: every variant of the catalog that is on sale.
///
/// # Errors
/// The catalog does not answer, or is empty.
pub async fn variants(catalog: Channel) -> anyhow::Result<Arc<[String]>> {
    let mut catalog = CatalogServiceClient::new(catalog);
    let request = ListVariantsRequest { page_size: 1_000, ..ListVariantsRequest::default() };
    let listed = Ctx::root(PATIENCE, Trace::new()).scope(catalog.list_variants(request)).await;
    let variants = listed.context("cannot list the variants")?.into_inner().variants;
    anyhow::ensure!(!variants.is_empty(), "the catalog is empty: nothing can be ordered");
    Ok(variants.into_iter().map(|variant| variant.name).collect())
}

/// How many in words, for sums of a report.
fn count(items: usize) -> u64 {
    u64::try_from(items).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_percentile_is_a_latency_that_was_seen() {
        let outcome = Outcome {
            latencies: (1..=200).map(Duration::from_millis).collect(),
            ..Outcome::default()
        };
        for (hundredths, expected) in [(50, 100.0), (95, 190.0), (99, 198.0), (100, 200.0)] {
            assert!((outcome.percentile(hundredths) - expected).abs() < 1e-9, "p{hundredths}");
        }
        assert!(Outcome::default().percentile(50).is_nan());
    }
}
