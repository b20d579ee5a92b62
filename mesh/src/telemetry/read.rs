//! Metrics that are read where they are kept, when somebody asks.

use std::sync::{Mutex, PoisonError};

use super::{Dependency, names};
use crate::store::{Stats, Store};

/// Reads the count of calls outside of any call where `ctx` keeps it.
#[derive(Debug)]
pub(super) struct Rootless;

impl prometheus_client::collector::Collector for Rootless {
    fn encode(
        &self,
        mut encoder: prometheus_client::encoding::DescriptorEncoder<'_>,
    ) -> Result<(), std::fmt::Error> {
        use prometheus_client::{encoding::EncodeMetric as _, metrics::counter::ConstCounter};
        let counter = ConstCounter::new(crate::ctx::rootless_calls());
        let help = "Calls made outside of any other call";
        let metric =
            encoder.encode_descriptor(names::ROOTLESS, help, None, counter.metric_type())?;
        counter.encode(metric)
    }
}

/// Reads for how long the registry has been silent where its answers are kept.
#[derive(Debug)]
pub(super) struct Silence;

impl prometheus_client::collector::Collector for Silence {
    fn encode(
        &self,
        mut encoder: prometheus_client::encoding::DescriptorEncoder<'_>,
    ) -> Result<(), std::fmt::Error> {
        use prometheus_client::{encoding::EncodeMetric as _, metrics::gauge::ConstGauge};
        let help = "For how long the registry has said nothing of a service";
        let kind = ConstGauge::new(0.0).metric_type();
        let mut family = encoder.encode_descriptor(names::REGISTRY_STALE, help, None, kind)?;
        for (service, seconds) in crate::registry::stale_seconds() {
            let labels = [("service", service)];
            ConstGauge::new(seconds).encode(family.encode_family(&labels)?)?;
        }
        Ok(())
    }
}

/// Reads what is left of budgets and places when metrics are.
#[derive(Debug)]
pub(super) struct Dependencies;

impl prometheus_client::collector::Collector for Dependencies {
    fn encode(
        &self,
        mut encoder: prometheus_client::encoding::DescriptorEncoder<'_>,
    ) -> Result<(), std::fmt::Error> {
        use prometheus_client::{encoding::EncodeMetric as _, metrics::gauge::ConstGauge};
        let readings = crate::client::readings();
        for (name, help, number) in [
            (
                names::RETRY_BUDGET,
                "Attempts that the budget would pay for",
                (|it| it.retry_budget) as fn(&crate::client::Reading) -> Option<u64>,
            ),
            (names::BULKHEAD_IN_USE, "Calls under way", |it| Some(it.bulkhead_in_use)),
        ] {
            let kind = ConstGauge::new(0_u64).metric_type();
            let mut metric = encoder.encode_descriptor(name, help, None, kind)?;
            for reading in &readings {
                let Some(number) = number(reading) else { continue };
                let labels = Dependency { dependency: reading.dependency.clone() };
                ConstGauge::new(number).encode(metric.encode_family(&labels)?)?;
            }
        }
        let kind = ConstGauge::new(0_u64).metric_type();
        let help = "Instances of a dependency, by state";
        let mut metric = encoder.encode_descriptor(names::ENDPOINTS, help, None, kind)?;
        for reading in &readings {
            for (state, count) in &reading.endpoints {
                let labels = [("dependency", reading.dependency.as_str()), ("state", *state)];
                ConstGauge::new(*count).encode(metric.encode_family(&labels)?)?;
            }
        }
        Ok(())
    }
}

/// Reads how the databases of the process joined transactions, where they keep it.
#[derive(Debug)]
pub(super) struct Databases;

static DATABASES: Mutex<Vec<Store>> = Mutex::new(Vec::new());

impl prometheus_client::collector::Collector for Databases {
    fn encode(
        &self,
        mut encoder: prometheus_client::encoding::DescriptorEncoder<'_>,
    ) -> Result<(), std::fmt::Error> {
        use prometheus_client::{encoding::EncodeMetric as _, metrics::counter::ConstCounter};
        let databases = DATABASES.lock().unwrap_or_else(PoisonError::into_inner);
        let stats: Vec<_> = databases.iter().map(Store::stats).collect();
        let sum = |of: fn(&Stats) -> u64| stats.iter().map(of).sum::<u64>();
        for (name, help, count) in [
            (names::STORE_COMMITS, "Commits that reached the disk", sum(|it| it.commits)),
            (names::STORE_TRANSACTIONS, "Transactions in them", sum(|it| it.transactions)),
        ] {
            let counter = ConstCounter::new(count);
            let metric = encoder.encode_descriptor(name, help, None, counter.metric_type())?;
            counter.encode(metric)?;
        }
        Ok(())
    }
}

/// Shows in the metrics how this database joins transactions.
pub(crate) fn watch(database: &Store) {
    DATABASES.lock().unwrap_or_else(PoisonError::into_inner).push(database.clone());
}
