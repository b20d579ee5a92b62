//! Accounts, credentials and the tokens that say who calls.
//!
//! A call enters at [`grpc`], is decided in [`domain`], and is written with the events it
//! caused by [`store`]. [`passwords`] and [`signing`] do what costs time, [`jobs`] what is due,
//! [`bootstrap`] what comes before everything else. If it goes wrong anywhere, [`error`] says
//! how that looks from outside.

pub mod config;
pub mod grpc;
pub mod domain;
pub mod passwords;
pub mod signing;
pub mod store;
pub mod events;
pub mod jobs;
pub mod bootstrap;
pub mod error;

use anyhow::Context as _;
use mesh::{App, auth::Keys, clock, page::Pages};
use proto::{
    auth::v1::tokens_service_server::TokensServiceServer,
    users::v1::users_service_server::UsersServiceServer,
};

pub use config::Config;

use crate::{
    grpc::{Tokens, Users},
    passwords::Passwords,
    signing::Ring,
    store::Store,
};

/// Builds the process. Its accounts and keys exist when it returns, so that the first call that
/// is let in can be answered.
///
/// # Errors
/// A port is taken, the database cannot be opened, or a secret cannot be read.
pub async fn app(config: Config) -> anyhow::Result<App> {
    let pages = Pages::new(config.mesh.page_key()?);
    let app = App::new("users", proto::DESCRIPTORS, config.mesh.clone())?;
    let store = Store::connect(&config.database_url).await.context("cannot open the database")?;
    let passwords = Passwords::new().await?;
    let ring = Ring::default();
    jobs::rotate_keys(&store, &ring, config.signing_key_age_max, clock::now()).await?;
    if let Some(folder) = &config.secrets_dir {
        bootstrap::run(&store, &passwords, folder, clock::now()).await?;
    }
    let users = Users::new(store.clone(), passwords.clone(), pages);
    let tokens = Tokens::new(store.clone(), passwords, ring.clone());
    let age_max = config.signing_key_age_max;
    let (rotated, forgotten) = (store.clone(), store.clone());
    Ok(app
        .store(&store.mesh())
        .publishes(&store.mesh())
        .keys(own_keys(ring.clone()))
        .grpc(UsersServiceServer::new(users))
        .grpc(TokensServiceServer::new(tokens))
        .task("rotate_keys", move |draining| jobs::keep_keys(rotated, ring, age_max, draining))
        .task("forget", move |draining| jobs::forget(forgotten, draining)))
}

/// The keys that this process signs with: it checks tokens without asking itself for them.
fn own_keys(ring: Ring) -> Keys {
    Keys::from_source(move || {
        let keys = ring.public().into_iter().map(|key| mesh::auth::Jwk {
            kty: "OKP".to_owned(),
            alg: "EdDSA".to_owned(),
            crv: "Ed25519".to_owned(),
            r#use: "sig".to_owned(),
            kid: key.kid,
            x: key.x,
        });
        let keys = keys.collect();
        Box::pin(async move { Ok(keys) })
    })
}

#[cfg(test)]
mod tests;
