//! `meshproof bench orders`: orders a second and how long they take, beside the floor.

use std::{path::PathBuf, sync::Arc, time::Duration};

use anyhow::Context as _;
use mesh::{
    Channel, client::http::Http, ctx, registry::Registry, wire::ordermesh::auth::v1 as auth,
};
use proto::catalog::v1::{ListVariantsRequest, catalog_service_client::CatalogServiceClient};
use serde_json::{Value, json};
use tonic::codegen::{
    Bytes,
    http::{HeaderMap, Method, StatusCode},
};

use crate::{
    cpu,
    load::{Buyer, Outcome, Until},
    store_floor::Floor,
};

/// Rounds of load and floor, one after the other; figures are medians.
const ROUNDS: usize = 3;
/// How many orders a closed loop keeps in flight.
const AT_ONCE: usize = 64;

/// How soon an admin port or the simulator answers.
const SOON: Duration = Duration::from_secs(2);

/// Measures a running mesh.
#[derive(Debug, clap::Parser)]
#[command(name = "meshproof", version, about)]
pub struct Cli {
    /// What to measure.
    #[command(subcommand)]
    pub command: Command,
}

/// What can be measured.
#[derive(Debug, clap::Subcommand)]
pub enum Command {
    /// Benchmarks; each prints one JSON object.
    #[command(subcommand)]
    Bench(Bench),
}

/// The benchmarks.
#[derive(Debug, clap::Subcommand)]
pub enum Bench {
    /// Orders accepted and confirmed a second, their latencies, CPU per order, and the floor.
    Orders(Orders),
}

/// Where the mesh is, and how long to load it.
#[derive(Debug, clap::Args)]
pub struct Orders {
    /// The services, as `static://?name=host:port`.
    #[arg(long)]
    pub registry: String,
    /// The provider's simulator, as `http://host:port`.
    #[arg(long)]
    pub psp: String,
    /// The admin port of the orders service, as `http://host:port`.
    #[arg(long)]
    pub orders_admin: String,
    /// The database file of the orders service.
    #[arg(long)]
    pub orders_database: PathBuf,
    /// A folder to work in, on the disk of the databases.
    #[arg(long)]
    pub work: PathBuf,
    /// The processes of the mesh, as `name=pid,name=pid`.
    #[arg(long, value_delimiter = ',')]
    pub pids: Vec<String>,
    /// Whom to order as.
    #[arg(long)]
    pub email: String,
    /// Their password.
    #[arg(long)]
    pub password: String,
    /// How long each part of a round lasts.
    #[arg(long, default_value = "5s", value_parser = mesh::config::duration)]
    pub each: Duration,
    /// How long the provider takes to answer.
    #[arg(long, default_value = "50ms", value_parser = mesh::config::duration)]
    pub provider: Duration,
}

/// Measures what `cli` names; the answer is one JSON object.
///
/// # Errors
/// The mesh cannot be reached, or an order failed: then there are no figures.
pub async fn run(cli: Cli) -> anyhow::Result<Value> {
    let Command::Bench(Bench::Orders(orders)) = cli.command;
    orders.measure().await
}

impl Orders {
    async fn measure(self) -> anyhow::Result<Value> {
        let registry = Registry::parse(&self.registry)?;
        let channel = |name: &str| Channel::to(name, &registry.addresses(name));
        let pids: Vec<u32> =
            self.pids.iter().filter_map(|pair| pair.rsplit_once('=')?.1.parse().ok()).collect();
        let resident = cpu::resident(&pids);
        self.slow_down_the_provider().await?;
        let buyer = Buyer {
            orders: channel("orders"),
            authorization: self.sign_in(channel("users")).await?.parse()?,
            variants: variants(channel("catalog")).await?,
        };
        // Warm: connections, caches, prepared statements.
        good(&buyer.closed(8, self.each / 5, Until::Confirmed).await)?;

        let (mut accepted, mut confirmed, mut single, mut grouped, mut cpus) =
            (Vec::new(), Vec::new(), Vec::new(), Vec::new(), Vec::new());
        let mut joined = 1_usize;
        let mut statements = 0;
        for round in 0..ROUNDS {
            progress(&format!("round {} of {ROUNDS}: accepted", round + 1));
            let before = self.commits().await?;
            let burst = buyer.closed(AT_ONCE, self.each, Until::Accepted).await;
            accepted.push(good(&burst)?.rate());
            let after = self.commits().await?;
            joined = ((after.1 - before.1) / (after.0 - before.0).max(1)).max(1);
            self.quiet(&buyer).await?;
            progress(&format!("round {} of {ROUNDS}: confirmed", round + 1));
            let before = cpu::spent(&pids);
            let sustained = buyer.closed(AT_ONCE, self.each, Until::Confirmed).await;
            confirmed.push(good(&sustained)?.rate());
            let spent = cpu::spent(&pids).saturating_sub(before);
            let orders = u32::try_from(sustained.latencies.len())?;
            cpus.push(spent.as_secs_f64() * 1_000_000.0 / f64::from(orders));
            progress(&format!("round {} of {ROUNDS}: floor", round + 1));
            let floor = Floor::sample(&self.orders_database)?;
            statements = floor.statements();
            let file = self.work.join("floor.db");
            single.push(floor.run(&file, 1, self.each)?);
            grouped.push(floor.run(&file, joined, self.each)?);
        }
        let (accepted, confirmed) = (median(accepted), median(confirmed));
        let (single, grouped) = (median(single), median(grouped));
        let half = confirmed / 2.0;
        progress(&format!("open loop at {half:.0} orders/s"));
        let create = buyer.open(half, self.each * 2, Until::Accepted).await;
        good(&create)?;
        self.quiet(&buyer).await?;
        let whole = buyer.open(half, self.each * 2, Until::Confirmed).await;
        good(&whole)?;

        Ok(json!({
            "bench": "orders",
            "ratios": {
                "accepted_per_ungrouped_floor": rounded(accepted / single),
                "accepted_per_grouped_floor": rounded(accepted / grouped),
                "confirmed_per_accepted": rounded(confirmed / accepted),
            },
            "figures": {
                "accepted_per_second": rounded(accepted),
                "confirmed_per_second": rounded(confirmed),
                "floor_ungrouped_per_second": rounded(single),
                "floor_grouped_per_second": rounded(grouped),
                "floor_orders_per_transaction": joined,
                "floor_statements_per_order": statements,
                "cpu_us_per_confirmed_order": rounded(median(cpus)),
                "open_loop_rate": rounded(half),
                "create_p50_ms": rounded(create.percentile(50)),
                "create_p95_ms": rounded(create.percentile(95)),
                "create_p99_ms": rounded(create.percentile(99)),
                "confirmed_p50_ms": rounded(whole.percentile(50)),
                "confirmed_p95_ms": rounded(whole.percentile(95)),
                "confirmed_p99_ms": rounded(whole.percentile(99)),
                "idle_rss_max_mib": resident.first().map_or(0, |bytes| bytes >> 20),
            },
            "method": format!(
                "median of {ROUNDS} interleaved rounds of {} s; closed loop, {AT_ONCE} in flight, for rates; \
                 open loop at half the confirmed rate, from the intended send, for latencies; provider at {} ms; \
                 SQLite WAL synchronous=FULL in mesh and floor, the floor on one connection; CPU of all mesh processes",
                self.each.as_secs(),
                self.provider.as_millis(),
            ),
        }))
    }

    /// Tells the simulator to take its time over every authorization.
    async fn slow_down_the_provider(&self) -> anyhow::Result<()> {
        let fault = json!({
            "operation": "authorize",
            "fault": "delay",
            "delay_ms": u64::try_from(self.provider.as_millis())?,
        });
        let (status, body) = Http::new(&self.psp)
            .call(Method::POST, "/control/faults", HeaderMap::new(), fault.to_string().into(), SOON)
            .await
            .context("the provider's simulator does not answer")?;
        anyhow::ensure!(status.is_success(), "the simulator refused a delay: {body:?}");
        Ok(())
    }

    async fn sign_in(&self, users: Channel) -> anyhow::Result<String> {
        let credential =
            auth::issue_token_request::Credential::Password(auth::PasswordCredential {
                email: self.email.clone(),
                password: self.password.clone(),
            });
        let request = auth::IssueTokenRequest { credential: Some(credential) };
        let mut users = auth::tokens_service_client::TokensServiceClient::new(users);
        let signed_in =
            ctx::background("sign_in", ctx::ROOT_TIMEOUT, None, users.issue_token(request));
        let token = signed_in.await?.context("cannot sign in")?.into_inner();
        Ok(format!("Bearer {}", token.access_token))
    }

    /// Waits until what was accepted is carried out: the next order is confirmed at once.
    async fn quiet(&self, buyer: &Buyer) -> anyhow::Result<()> {
        for _ in 0..60 {
            let probe = buyer.closed(1, Duration::from_millis(1), Until::Confirmed).await;
            let calm = self.provider * 3 + Duration::from_millis(50);
            if probe.latencies.first().is_some_and(|latency| *latency < calm) {
                return Ok(());
            }
            tokio::time::sleep(Duration::from_millis(500)).await;
        }
        anyhow::bail!("the mesh does not come to rest")
    }

    /// Commits of the orders service so far, and transactions in them.
    async fn commits(&self) -> anyhow::Result<(usize, usize)> {
        let (_, text) = get(&self.orders_admin, "/metrics").await?;
        let figure = |name: &str| -> Option<usize> {
            let line = text.lines().find(|line| line.starts_with(name))?;
            line.rsplit_once(' ')?.1.parse().ok()
        };
        figure("mesh_store_commits_total")
            .zip(figure("mesh_store_transactions_total"))
            .context("the orders service does not say how it joins transactions")
    }
}

/// What can be bought: every variant of the catalog that is on sale.
async fn variants(catalog: Channel) -> anyhow::Result<Arc<[String]>> {
    let mut catalog = CatalogServiceClient::new(catalog);
    let request = ListVariantsRequest { page_size: 1_000, ..ListVariantsRequest::default() };
    let listed =
        ctx::background("list_variants", ctx::ROOT_TIMEOUT, None, catalog.list_variants(request));
    let variants = listed.await?.context("cannot list the variants")?.into_inner().variants;
    anyhow::ensure!(!variants.is_empty(), "the catalog is empty: nothing can be ordered");
    Ok(variants.into_iter().map(|variant| variant.name).collect())
}

async fn get(base: &str, path: &str) -> anyhow::Result<(StatusCode, String)> {
    let http = Http::new(base);
    let answer = http.call(Method::GET, path, HeaderMap::new(), Bytes::new(), SOON);
    let (status, body) = answer.await.with_context(|| format!("{base}{path} does not answer"))?;
    Ok((status, String::from_utf8_lossy(&body).into_owned()))
}

/// A load in which an order failed has no figures.
fn good(outcome: &Outcome) -> anyhow::Result<&Outcome> {
    match &outcome.first_failure {
        Some(failure) => anyhow::bail!(
            "{} of {} orders failed, the first with {failure}",
            outcome.failed,
            outcome.failed + outcome.latencies.len()
        ),
        None => Ok(outcome),
    }
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_unstable_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or(f64::NAN)
}

fn rounded(value: f64) -> f64 {
    (value * 100.0).round() / 100.0
}

#[expect(clippy::print_stderr, reason = "progress of a command line program")]
fn progress(text: &str) {
    eprintln!("{text}");
}
