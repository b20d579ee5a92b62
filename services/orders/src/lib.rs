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

use mesh::{App, page::Pages};
use proto::orders::v1::orders_service_server::OrdersServiceServer;

use crate::{grpc::Orders, saga::Peers, store::Store};

pub use config::Config;

/// Builds the process: ports are bound and tables are there when this returns.
///
/// # Errors
/// A port is taken, a file named by a setting cannot be read, or the database cannot be opened.
pub async fn app(config: Config) -> anyhow::Result<App> {
    let pages = Pages::new(config.mesh.page_key()?);
    let app = App::new("orders", proto::DESCRIPTORS, config.mesh.clone().or_listen(50054))?;
    let store = Store::connect(&config.database_url).await?;
    let peers = Peers::of(|name| app.channel(name));
    let runner = saga::runner(&store, &peers, config.patience(), config.saga_lease);
    let orders = Orders {
        store: store.clone(),
        peers,
        runner: runner.clone(),
        pages,
        patience: config.patience(),
        quote_age_max: config.quote_age_max,
    };
    Ok(app
        .store(store.mesh())
        .grpc(OrdersServiceServer::new(orders))
        .task("fulfilment", move |draining| runner.run(draining)))
}

#[cfg(test)]
mod tests;
