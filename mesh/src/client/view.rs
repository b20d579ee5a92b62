//! What this process knows of its dependencies, for whoever looks at it.

use std::{collections::BTreeMap, sync::Arc};

use serde_json::{Value, json};

use super::{
    callee::{Callee, Method},
    guarded::Guard,
};
use crate::clock;

/// The numbers of a dependency that are read when metrics are.
#[derive(Clone, Debug)]
pub(crate) struct Reading {
    pub(crate) dependency: String,
    /// Who is outside of the mesh has none.
    pub(crate) retry_budget: Option<u64>,
    pub(crate) bulkhead_in_use: u64,
    /// Instances, by what state they are in.
    pub(crate) endpoints: BTreeMap<&'static str, u64>,
}

/// Every dependency of this process: its instances, its budget, its places, and the breakers of
/// its methods. Who is outside of the mesh has no instances, methods and budget.
#[must_use]
pub fn view() -> Value {
    let callees = Callee::all().into_iter().map(|it| (Arc::clone(&it.label), it.view()));
    let guards = Guard::all().into_iter().map(|it| (Arc::clone(&it.name), it.view()));
    let mut all: Vec<_> = callees.chain(guards).collect();
    all.sort_by(|(a, _), (b, _)| a.cmp(b));
    Value::Array(all.into_iter().map(|(_, view)| view).collect())
}

/// The numbers of every dependency. One that is called under several policies is one.
pub(crate) fn readings() -> Vec<Reading> {
    let now = clock::instant();
    let mut readings: Vec<Reading> = Vec::new();
    let callees = Callee::all().into_iter().map(|callee| Reading {
        dependency: callee.name.to_string(),
        retry_budget: Some(callee.budget.left(now)),
        bulkhead_in_use: callee.bulkhead.in_use() as u64,
        endpoints: callee.endpoints.states(),
    });
    let guards = Guard::all().into_iter().map(|guard| Reading {
        dependency: guard.name.to_string(),
        retry_budget: None,
        bulkhead_in_use: guard.bulkhead.in_use() as u64,
        endpoints: BTreeMap::new(),
    });
    for reading in callees.chain(guards) {
        match readings.iter_mut().find(|known| known.dependency == reading.dependency) {
            Some(known) => {
                let budgets = [known.retry_budget, reading.retry_budget];
                known.retry_budget = budgets.into_iter().flatten().min();
                known.bulkhead_in_use += reading.bulkhead_in_use;
            }
            None => readings.push(reading),
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
            "name": &*self.label,
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

// === impl Guard ===

impl Guard {
    fn view(&self) -> Value {
        let (calls, failures) = self.breaker.counts(clock::instant());
        json!({
            "name": &*self.name,
            "endpoints": [],
            "breaker": {
                "state": self.breaker.state().name(),
                "calls_10s": calls,
                "failures_10s": failures,
            },
            "retry_budget": null,
            "bulkhead": { "in_use": self.bulkhead.in_use(), "max": self.bulkhead.max() },
            "methods": [],
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
