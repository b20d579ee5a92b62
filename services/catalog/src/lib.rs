//! Products, variants and their versioned prices.
//!
//! A call enters at [`grpc`], is decided in [`domain`], and is written with the events it caused
//! by [`store`]. If it goes wrong anywhere, [`error`] says how that looks from outside.

pub mod config;
pub mod grpc;
pub mod domain;
pub mod store;
pub mod events;
pub mod error;

use anyhow::Context as _;
use mesh::{App, page::Pages};
use proto::catalog::v1::catalog_service_server::CatalogServiceServer;

pub use config::Config;

use crate::{grpc::Catalog, store::Store};

/// Builds the process.
///
/// # Errors
/// A port is taken, or the database cannot be opened.
pub async fn app(config: Config) -> anyhow::Result<App> {
    let pages = Pages::new(config.mesh.page_key()?);
    let app = App::new("catalog", proto::DESCRIPTORS, config.mesh.clone())?;
    let store = Store::connect(&config.database_url).await.context("cannot open the database")?;
    let catalog = Catalog::new(store.clone(), pages);
    Ok(app.store(&store.mesh()).publishes(&store.mesh()).grpc(CatalogServiceServer::new(catalog)))
}
