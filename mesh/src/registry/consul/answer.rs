//! Reading what `/v1/health/service` says: of each instance the little that is needed.

use std::collections::{BTreeMap, HashSet};

use http::HeaderMap;
use serde::Deserialize;
use serde_json::Value;

use super::super::{Address, Failure, Instance};

/// One instance. Its checks are not read: Consul has filtered by them, and their definitions
/// have had more than one form.
#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Row {
    node: Node,
    service: Service,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Node {
    #[serde(default)]
    node: String,
    #[serde(default)]
    address: String,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Service {
    #[serde(rename = "ID")]
    id: String,
    #[serde(default)]
    address: String,
    port: u16,
    weights: Option<Weights>,
    meta: Option<BTreeMap<String, String>>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Weights {
    passing: u32,
}

/// The instances in an answer. One that cannot be read hides no other.
pub(super) fn instances(body: &[u8]) -> Result<Vec<Instance>, Failure> {
    let rows: Vec<Value> =
        serde_json::from_slice(body).map_err(|error| Failure::Unreadable(error.to_string()))?;
    let count = rows.len();
    let mut instances = Vec::with_capacity(count);
    // An id is unique on its node; on two nodes it is two instances.
    let mut ids = HashSet::new();
    for row in rows {
        match serde_json::from_value::<Row>(row) {
            Ok(row) => {
                if let Some(mut instance) = row.service.instance(&row.node.address) {
                    if !ids.insert(instance.id.clone()) {
                        instance.id = format!("{}@{}", instance.id, row.node.node);
                    }
                    instances.push(instance);
                }
            }
            Err(error) => tracing::warn!(%error, "an instance in Consul cannot be read"),
        }
    }
    if count > 0 && instances.is_empty() {
        return Err(Failure::Unreadable(format!("none of {count} instances has an address")));
    }
    Ok(instances)
}

/// Whether an answer that names nobody means that there is nobody: an agent that has just
/// started, and one that may not tell us, say the same.
pub(super) fn worth_believing(headers: &HeaderMap) -> Result<(), Failure> {
    let says = |name, value| headers.get(name).is_some_and(|it| it == value);
    if says("x-consul-results-filtered-by-acls", "true") {
        return Err(Failure::Denied("our token may not read this service".to_owned()));
    }
    if says("x-consul-knownleader", "false") {
        return Err(Failure::Answered("without a leader it knows of nobody".to_owned()));
    }
    Ok(())
}

// === impl Service ===

impl Service {
    fn instance(self, node: &str) -> Option<Instance> {
        let host = if self.address.is_empty() { node } else { &self.address };
        if host.is_empty() || self.port == 0 {
            return None;
        }
        Some(Instance {
            address: Address::of(host, self.port),
            weight: self.weights.map_or(1, |weights| weights.passing).max(1),
            meta: self.meta.unwrap_or_default(),
            id: self.id,
        })
    }
}
