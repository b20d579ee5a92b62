//! Shipments and their way to the customer; with a carrier of its own.
//!
//! A call enters at [`grpc`], is decided in [`domain`], is written with the events it caused by
//! [`store`], and is carried to the [`carrier`] by the [`resolver`], which also finds out what
//! happened where no answer came, and takes in what the carrier reports. If it goes wrong
//! anywhere, [`error`] says how that looks from outside.

pub mod config;
pub mod grpc;
pub mod domain;
pub mod store;
pub mod carrier;
pub mod resolver;
pub mod events;
pub mod error;
#[cfg(test)]
mod harness;

use std::sync::Arc;

use anyhow::Context as _;
use mesh::{App, operator::Table, page::Pages};
use proto::shipping::v1::shipping_service_server::ShippingServiceServer;

pub use config::Config;

use crate::{carrier::BuiltIn, grpc::Shipping, resolver::Resolver, store::Store};

/// What a checker reads of us: no address is part of it.
const TABLES: [Table; 4] = [
    Table {
        name: "shipment",
        sql: "SELECT id, order_name, customer, location, state, cancel_reason, carrier, tracking, \
              revision, created_at, updated_at FROM shipment ORDER BY id",
    },
    Table {
        name: "shipment_line",
        sql: "SELECT shipment, place, line, variant, quantity FROM shipment_line \
              ORDER BY shipment, place",
    },
    Table {
        name: "carrier_parcel",
        sql: "SELECT reference, tracking, stage, due_at, booked_at, changed_at \
              FROM carrier_parcel ORDER BY reference",
    },
    Table {
        name: "carrier_event",
        sql: "SELECT id, reference, kind, at, acknowledged_at FROM carrier_event ORDER BY id",
    },
];

/// The process: its store, its service, its carrier, and the tasks that go between them.
///
/// # Errors
/// A setting is wrong, a port is taken, or the database cannot be opened.
pub async fn app(config: Config) -> anyhow::Result<App> {
    let pace = mesh::config::setting(config.pace())?;
    let pages = Pages::new(config.mesh.page_key()?);
    let app = App::new("shipping", proto::DESCRIPTORS, config.mesh.clone())?;
    let store =
        Store::connect(&config.database_url, pace).await.context("cannot open the database")?;
    let carrier = BuiltIn::new(store.mesh().clone(), config.habits());
    let resolver = Resolver::new(store.clone(), Arc::new(carrier.clone()), config.carrier_timeout);
    let tracker = resolver.clone();
    let service = Shipping::new(store.clone(), resolver.clone(), pages);
    Ok(app
        .store(store.mesh())
        .grpc(ShippingServiceServer::new(service))
        .publishes(store.mesh())
        .exports(store.mesh(), &TABLES)
        .task("ask_carrier", move |draining| resolver.run(draining))
        .task("track_parcels", move |draining| tracker.track(draining))
        .task("move_parcels", move |draining| carrier.run(draining)))
}
