//! Payments, their attempts and the ledger; with the provider's simulator.
//!
//! A call enters at [`grpc`], is decided in [`domain`], is written with the events it caused by
//! [`store`], and is carried to the [`provider`] by the [`resolver`], which also finds out what
//! happened where no answer came. If it goes wrong anywhere, [`error`] says how that looks from
//! outside. [`psp`] is a provider of its own, in a process of its own.

pub mod config;
pub mod grpc;
pub mod domain;
pub mod store;
pub mod provider;
pub mod resolver;
pub mod events;
pub mod error;
pub mod migrations;
pub mod psp;
#[cfg(test)]
mod harness;

use std::{sync::Arc, time::Duration};

use mesh::{App, Policy, operator::Table};
use proto::payments::v1::payments_service_server::PaymentsServiceServer;

use crate::{
    config::Config, grpc::Payments, provider::HttpProvider, resolver::Resolver, store::Store,
};

/// How long a call may take that waits for the provider.
const LONGEST: Duration = Duration::from_secs(30);

/// What a checker reads of us: no payment method and no evidence is part of it.
const TABLES: [Table; 4] = [
    Table {
        name: "payment",
        sql: "SELECT id, order_name, customer, state, amount_minor, currency, authorized_minor, \
              captured_minor, refunded_minor, revision, created_at, updated_at \
              FROM payment ORDER BY id",
    },
    Table {
        name: "attempt",
        sql: "SELECT id, payment, kind, n, reference, state, amount_minor, currency, created_at \
              FROM attempt ORDER BY id",
    },
    Table {
        name: "refund",
        sql: "SELECT id, payment, state, amount_minor, currency, refunded_minor, saga, created_at \
              FROM refund ORDER BY id",
    },
    Table {
        name: "ledger_entry",
        sql: "SELECT id, payment, reference, movement, account, amount_minor, currency, at \
              FROM ledger_entry ORDER BY id",
    },
];

/// Whom it calls outside of the mesh, and how.
#[must_use]
pub fn outside(config: &Config) -> Vec<(&'static str, Policy)> {
    vec![(provider::NAME, provider::policy(config.provider_timeout))]
}

/// The process: its store, its service, and the task that resolves what is in doubt.
///
/// # Errors
/// A setting is wrong, a port is taken, or the database cannot be opened.
pub async fn app(config: Config) -> anyhow::Result<App> {
    let pace = mesh::config::setting(config.pace())?;
    let page_key = config.mesh.page_key()?;
    let mut app = App::new("payments", proto::DESCRIPTORS, config.mesh.clone())?;
    let store = Store::connect(&config.database_url, pace).await?;
    let policy = provider::policy(config.provider_timeout);
    let policy = app.outside(provider::NAME, &config.provider_url, policy)?;
    let provider = HttpProvider::new(&config.provider_url, policy);
    let resolver = Resolver::new(store.clone(), Arc::new(provider));
    let service = Payments::new(store.clone(), resolver.clone(), page_key);
    Ok(app
        .store(store.mesh())
        .grpc(PaymentsServiceServer::new(service))
        .publishes(store.mesh())
        .exports(store.mesh(), &TABLES)
        .longest("/ordermesh.payments.v1.PaymentsService/AuthorizePayment", LONGEST)
        .longest("/ordermesh.payments.v1.PaymentsService/CapturePayment", LONGEST)
        .longest("/ordermesh.payments.v1.PaymentsService/VoidPayment", LONGEST)
        .longest("/ordermesh.payments.v1.PaymentsService/CreateRefund", LONGEST)
        .task("resolve_attempts", move |draining| resolver.run(draining)))
}
