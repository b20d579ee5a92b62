//! Orders, and the saga that carries each one to its end.
//!
//! A call enters at [`grpc`], is decided in [`domain`], is written with the events it caused by
//! [`store`], and carries on across the mesh in [`saga`]. If it goes wrong anywhere, [`error`]
//! says how that looks from outside.

pub mod config;
pub mod grpc;
pub mod domain;
pub mod store;
pub mod events;
pub mod saga;
pub mod error;

use std::time::Duration;

use mesh::{App, app::Draining, operator::Table, page::Pages};
use proto::orders::v1::orders_service_server::OrdersServiceServer;

use crate::{
    grpc::{Orders, Watching},
    saga::{Peers, Wake},
    store::Store,
};

pub use config::Config;

/// Longer than a watch goes on by itself.
const WATCH: (&str, Duration) =
    ("/ordermesh.orders.v1.OrdersService/WatchOrder", Duration::from_secs(31 * 60));

/// What auditors may read in whole, beside what every database has.
const TABLES: [Table; 4] = [
    Table { name: "orders", sql: "SELECT * FROM orders ORDER BY id" },
    Table { name: "order_line", sql: "SELECT * FROM order_line ORDER BY order_id, number" },
    Table { name: "order_event", sql: "SELECT * FROM order_event ORDER BY order_id, revision" },
    Table { name: "cancellation", sql: "SELECT * FROM cancellation ORDER BY order_id, revision" },
];

/// Builds the process: ports are bound and tables are there when this returns.
///
/// # Errors
/// A port is taken, a file named by a setting cannot be read, or the database cannot be opened.
pub async fn app(config: Config) -> anyhow::Result<App> {
    let pages = Pages::new(config.mesh.page_key()?);
    let app = App::new("orders", proto::DESCRIPTORS, config.mesh.clone())?;
    let store = Store::connect(&config.database_url).await?;
    let peers = Peers::of(|name| app.channel(name));
    let runner = saga::runner(&store, &peers, config.patience(), config.saga_lease);
    let orders = Orders {
        store: store.clone(),
        peers,
        views: Peers::of(|name| app.channel(name).apart("views")),
        runner: runner.clone(),
        pages,
        patience: config.patience(),
        quote_age_max: config.quote_age_max,
        watching: Watching::default(),
        leaving: Draining::default(),
    };
    let (followed, leaving) = (store.clone(), orders.leaving.clone());
    Ok(app
        .store(store.mesh())
        .grpc(OrdersServiceServer::new(orders))
        .longest(WATCH.0, WATCH.1)
        .publishes(store.mesh())
        .exports(store.mesh(), &TABLES)
        .sagas(store.mesh(), &runner)
        .consumes(store.mesh(), "shipping", Wake::for_shipping(&runner))
        .consumes(store.mesh(), "payments", Wake::for_payments(&runner))
        .task("watches", move |draining| followed.follow(leaving, draining))
        .task("fulfilment", move |draining| runner.run(draining)))
}

#[cfg(test)]
mod tests;
