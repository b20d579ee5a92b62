//! What this process knows of its dependencies, for whoever looks at it.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use super::callee::{Callee, Method};
use crate::clock;

/// The numbers of a dependency that are read when metrics are.
#[derive(Clone, Debug)]
pub(crate) struct Reading {
    pub(crate) dependency: String,
    pub(crate) retry_budget: u64,
    pub(crate) bulkhead_in_use: u64,
    /// Instances, by what state they are in.
    pub(crate) endpoints: BTreeMap<&'static str, u64>,
}

/// Every dependency of this process: its instances, its budget, its places, and the breakers of
/// its methods.
#[must_use]
pub fn view() -> Value {
    let mut all = Callee::all();
    all.sort_by(|a, b| a.name.cmp(&b.name));
    Value::Array(all.iter().map(|callee| callee.view()).collect())
}

/// The numbers of every dependency. One that is called under several policies is one.
pub(crate) fn readings() -> Vec<Reading> {
    let now = clock::instant();
    let mut readings: Vec<Reading> = Vec::new();
    for callee in Callee::all() {
        let (budget, in_use) = (callee.budget.left(now), callee.bulkhead.in_use() as u64);
        match readings.iter_mut().find(|known| *known.dependency == *callee.name) {
            Some(known) => {
                known.retry_budget = known.retry_budget.min(budget);
                known.bulkhead_in_use += in_use;
            }
            None => readings.push(Reading {
                dependency: callee.name.to_string(),
                retry_budget: budget,
                bulkhead_in_use: in_use,
                endpoints: callee.endpoints.states(),
            }),
        }
    }
    readings
}

// === impl Callee ===

impl Callee {
    fn view(&self) -> Value {
        let now = clock::instant();
        let mut methods = self.methods();
        methods.sort_by(|a, b| a.name.cmp(&b.name));
        let (calls, failures) = self.shared.counts(now);
        json!({
            "name": &*self.name,
            "endpoints": self.endpoints.view(),
            "breaker": {
                "state": self.shared.state().name(),
                "calls_10s": calls,
                "failures_10s": failures,
            },
            "retry_budget": self.budget.left(now),
            "bulkhead": { "in_use": self.bulkhead.in_use(), "max": self.bulkhead.max() },
            "methods": methods.iter().map(|method| method.view()).collect::<Vec<_>>(),
        })
    }
}

// === impl Method ===

impl Method {
    fn view(&self) -> Value {
        let now = clock::instant();
        let (calls, failures) = self.breaker.counts(now);
        let millis = |percent| {
            let quantile = self.latency.quantile(percent, now);
            quantile.map(|quantile| quantile.as_secs_f64() * 1e3)
        };
        json!({
            "name": &*self.name,
            "breaker": self.breaker.state().name(),
            "calls_10s": calls,
            "failures_10s": failures,
            "p50_ms": millis(50),
            "p95_ms": millis(95),
            "unary": self.facts.unary,
            "idempotent": self.facts.idempotent,
        })
    }
}
