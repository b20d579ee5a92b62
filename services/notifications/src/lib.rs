//! What customers are told about their orders, once each.
//!
//! An event of another service enters at [`events`], becomes words in [`domain`] and a row in
//! [`store`], all in the transaction that takes it in. The [`sender`] brings rows to their end:
//! a [`mail`], put into a [`maildir`]. Calls enter at [`grpc`]; if one goes wrong, [`error`] says
//! how that looks from outside.

pub mod config;
pub mod grpc;
pub mod domain;
pub mod store;
pub mod sender;
pub mod mail;
pub mod maildir;
pub mod jobs;
pub mod events;
pub mod error;
#[cfg(test)]
mod harness;

use anyhow::Context as _;
use mesh::{App, page::Pages};
use proto::notifications::v1::notifications_service_server::NotificationsServiceServer;

pub use config::Config;

use crate::{events::Inbox, grpc::Notifications, sender::Sender, store::Store};

/// Builds the process.
///
/// # Errors
/// A setting is wrong, a port is taken, or the database cannot be opened.
pub async fn app(config: Config) -> anyhow::Result<App> {
    mesh::config::setting(config.check())?;
    let pages = Pages::new(config.mesh.page_key()?);
    let app = App::new("notifications", proto::DESCRIPTORS, config.mesh.clone())?;
    let store = Store::connect(&config.database_url).await.context("cannot open the database")?;
    let db = store.mesh();
    let sender = Sender::new(store.clone(), config.mail_url, config.mail_from);
    let inbox = Inbox::new(store.clone(), &sender);
    let (kept, wait, keep) = (store.clone(), config.wait_for_address, config.keep);
    Ok(app
        .store(&db)
        .exports(&db, store::EXPORTS)
        .consumes(&db, "orders", inbox.clone())
        .consumes(&db, "shipping", inbox)
        .grpc(NotificationsServiceServer::new(Notifications::new(store, pages)))
        .task("send_mails", move |draining| sender.run(draining))
        .task("keep", move |draining| jobs::keep(kept, wait, keep, draining)))
}
