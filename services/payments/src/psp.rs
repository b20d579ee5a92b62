//! A payment provider to develop and test against, in a process of its own: its own ledger, its
//! own database, its own memory of keys, and every fault that real providers have.
//!
//! A request enters at [`http`], is decided in [`domain`] and written by [`store`]; [`faults`]
//! says what goes wrong with it on purpose.

pub mod config;
pub mod http;
mod refunds;
mod control;
mod broken;
pub mod domain;
pub mod faults;
pub mod answers;
pub mod store;
#[cfg(test)]
mod tests;

use std::{
    collections::HashSet,
    sync::{
        Arc, Mutex,
        atomic::{AtomicI64, Ordering},
    },
    time::Duration,
};

use mesh::{App, clock};
use time::OffsetDateTime;

use self::{config::Config, faults::Table, store::Store};

/// The simulator: what its requests share.
#[derive(Debug)]
pub struct Psp {
    store: Store,
    faults: Mutex<Table>,
    /// References that their token's fault has struck: the repeat goes through.
    struck: Mutex<HashSet<String>>,
    /// How far its clock is ahead, in microseconds.
    ahead: AtomicI64,
    config: Settings,
}

/// How the simulator behaves when nothing is wrong.
#[derive(Clone, Copy, Debug)]
pub struct Settings {
    /// How long every answer takes.
    pub latency: Duration,
    /// How long the answer to `tok_slow` takes: longer than anybody waits.
    pub slow: Duration,
    /// What it keeps of a capture, in hundredths of a percent.
    pub fee_basis_points: i64,
    /// For how long it remembers a key.
    pub keys_kept: Duration,
    /// Whether `/control` is there.
    pub control: bool,
}

// === impl Psp ===

impl Psp {
    /// A provider that keeps its books in `store`.
    #[must_use]
    pub fn new(store: Store, config: Settings) -> Self {
        Self {
            store,
            faults: Mutex::default(),
            struck: Mutex::default(),
            ahead: AtomicI64::new(0),
            config,
        }
    }

    /// What time it is at the provider.
    #[must_use]
    pub fn now(&self) -> OffsetDateTime {
        let ahead = self.ahead.load(Ordering::Relaxed);
        clock::from_micros(clock::micros(clock::now()).saturating_add(ahead))
    }
}

/// The process.
///
/// # Errors
/// A port is taken, or the database cannot be opened.
pub async fn app(config: Config) -> anyhow::Result<App> {
    let app = App::new("psp-simulator", &[], config.mesh.clone())?;
    let store = Store::connect(&config.database_url).await?;
    let psp = Arc::new(Psp::new(store.clone(), config.settings()));
    Ok(app.store(store.mesh()).http(http::service(psp)))
}
