//! What carrying events costs who creates orders: two processes of the same program, one of which
//! leaves events alone, asked in turns.

use std::time::Duration;

use anyhow::Context as _;
use serde_json::Value;

use super::{AT_ONCE, good, median, quiet, rounded};
use crate::{
    access::Place,
    cli::progress,
    cpu,
    load::{Buyer, Until},
};

/// How often each is asked.
const TURNS: usize = 7;

/// One of two, and what it did.
struct Twin {
    buyer: Buyer,
    pid: u32,
    /// Orders a second in each turn.
    rates: Vec<f64>,
    /// CPU of the process in each turn, in microseconds per order.
    costs: Vec<f64>,
}

/// What came of both.
pub(super) struct Pair {
    /// Orders created a second with delivery, per those without: the median of all turns.
    ratio: f64,
    /// Orders a second, with and without.
    rates: [f64; 2],
    /// CPU per order in microseconds, with and without.
    costs: [f64; 2],
}

/// Asks the processes that `place` calls `with` and `without` in turns.
pub(super) async fn measure(
    buyer: &Buyer,
    place: &Place,
    pids: &[u32],
    each: Duration,
    provider: Duration,
) -> anyhow::Result<Pair> {
    let twin = async |name: &str, pid: Option<&u32>| -> anyhow::Result<Twin> {
        let orders = place.channel(name).await?;
        let pid = *pid.with_context(|| format!("no pid for {name}"))?;
        let buyer = Buyer { orders, ..buyer.clone() };
        Ok(Twin { buyer, pid, rates: Vec::new(), costs: Vec::new() })
    };
    let mut with = twin("with", pids.first()).await?;
    let mut without = twin("without", pids.get(1)).await?;
    for turn in 0..TURNS {
        progress(&format!("turn {} of {TURNS}: with delivery and without", turn + 1));
        // Who comes first changes, so that neither always works beside what the other left.
        if turn % 2 == 0 {
            with.turn(each, provider).await?;
            without.turn(each, provider).await?;
        } else {
            without.turn(each, provider).await?;
            with.turn(each, provider).await?;
        }
    }
    let ratios = with.rates.iter().zip(&without.rates).map(|(with, without)| with / without);
    Ok(Pair {
        ratio: rounded(median(ratios.collect())),
        rates: [rounded(median(with.rates)), rounded(median(without.rates))],
        costs: [rounded(median(with.costs)), rounded(median(without.costs))],
    })
}

// === impl Pair ===

impl Pair {
    /// Puts it among the ratios and figures of a report.
    pub(super) fn add_to(&self, report: &mut Value) {
        report["ratios"]["create_with_delivery_per_without"] = self.ratio.into();
        let names = ["with", "without"];
        for ((name, rate), cost) in names.into_iter().zip(self.rates).zip(self.costs) {
            report["figures"][format!("create_per_second_{name}_delivery")] = rate.into();
            report["figures"][format!("create_cpu_us_{name}_delivery")] = cost.into();
        }
    }
}

// === impl Twin ===

impl Twin {
    async fn turn(&mut self, each: Duration, provider: Duration) -> anyhow::Result<()> {
        // Connections and caches are warm.
        good(&self.buyer.closed(8, each / 5, Until::Confirmed).await)?;
        let before = cpu::spent(&[self.pid]);
        let burst = self.buyer.closed(AT_ONCE, each, Until::Accepted).await;
        let spent = cpu::spent(&[self.pid]).saturating_sub(before);
        let orders = u32::try_from(good(&burst)?.latencies.len())?;
        self.rates.push(burst.rate());
        self.costs.push(spent.as_secs_f64() * 1_000_000.0 / f64::from(orders));
        // Nothing of it is left to do beside the other's turn.
        quiet(&self.buyer, provider).await
    }
}
