//! Stock, reservations and the movements that explain them.
//!
//! A call enters at [`grpc`]; [`store`] locks what it is about, has [`domain`] decide, and writes
//! the decision with the events it caused and the answer. If it goes wrong anywhere, [`error`]
//! says how that looks from outside. [`jobs`] ends the holds whose time is over.

pub mod config;
pub mod grpc;
pub mod domain;
pub mod store;
pub mod events;
pub mod jobs;
pub mod error;

use anyhow::Context as _;
use mesh::{App, operator::Table, page::Pages};
use proto::inventory::v1::inventory_service_server::InventoryServiceServer;

pub use config::Config;

use crate::{grpc::Inventory, store::Store};

/// What a checker reads of us.
const TABLES: [Table; 4] = [
    Table { name: "stock", sql: "SELECT * FROM stock ORDER BY sku, location" },
    Table { name: "reservation", sql: "SELECT * FROM reservation ORDER BY id" },
    Table {
        name: "reservation_line",
        sql: "SELECT * FROM reservation_line ORDER BY reservation, part",
    },
    Table { name: "movement", sql: "SELECT * FROM movement ORDER BY id" },
];

/// Builds the process.
///
/// # Errors
/// A port is taken, or the database cannot be opened.
pub async fn app(config: Config) -> anyhow::Result<App> {
    let pages = Pages::new(config.mesh.page_key()?);
    let app = App::new("inventory", proto::DESCRIPTORS, config.mesh.clone())?;
    let store = Store::connect(&config.database_url).await.context("cannot open the database")?;
    let inventory = Inventory::new(store.clone(), pages);
    Ok(app
        .store(&store.mesh())
        .publishes(&store.mesh())
        .exports(&store.mesh(), &TABLES)
        .grpc(InventoryServiceServer::new(inventory))
        .task("end_holds", move |draining| jobs::end_holds(store, draining)))
}
