//! The provider's ledger, over HTTP.

use std::time::Duration;

use anyhow::Context as _;
use mesh::client::http::Http;
use serde::Deserialize;
use tonic::codegen::{
    Bytes,
    http::{HeaderMap, Method},
};

use crate::world::ProviderEntry;

/// How long one page may take.
const PATIENCE: Duration = Duration::from_secs(10);

#[derive(Deserialize)]
struct Page {
    entries: Vec<ProviderEntry>,
}

/// The lines behind a position.
pub(super) async fn ledger(url: &str, after: i64) -> anyhow::Result<Vec<ProviderEntry>> {
    let http = Http::new(url);
    let mut entries: Vec<ProviderEntry> = Vec::new();
    loop {
        let after = entries.last().map_or(after, |entry| entry.position);
        let path = format!("/v1/ledger?after={after}");
        let (status, body) = http
            .call(Method::GET, &path, HeaderMap::new(), Bytes::new(), PATIENCE)
            .await
            .with_context(|| format!("the provider at {url} does not answer"))?;
        anyhow::ensure!(status.is_success(), "the provider refused its ledger: {status}");
        let page: Page =
            serde_json::from_slice(&body).context("the provider's ledger is no JSON")?;
        if page.entries.is_empty() {
            return Ok(entries);
        }
        entries.extend(page.entries);
    }
}
