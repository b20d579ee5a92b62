//! `meshproof bench orders`: orders a second and how long they take, beside the floor. What else
//! is measured has a module of its own.

mod events;
mod pair;

use std::{collections::HashMap, path::PathBuf, time::Duration};

use anyhow::Context as _;
use mesh::{
    Channel, Ctx,
    client::http::Http,
    clock,
    ctx::Trace,
    wire::ordermesh::auth::v1::{PasswordCredential, issue_token_request::Credential},
};
use proto::events::v1::{SubscribeRequest, event_log_service_client::EventLogServiceClient};
use serde_json::{Value, json};
use tonic::codegen::{
    Bytes,
    http::{HeaderMap, Method, StatusCode},
};

pub use self::events::Events;
use crate::{
    access::{Authorization, Identity, Place, request, sign_in},
    cli::progress,
    collect::Sources,
    cpu,
    load::{Buyer, Outcome, Until, variants},
    store_floor::Floor,
    world::World,
};

/// Rounds of load and floor, one after the other; figures are medians.
const ROUNDS: usize = 3;
/// How many orders a closed loop keeps in flight.
const AT_ONCE: usize = 64;

/// How long orders may take to be delivered, and the log to be read.
const REST: Duration = Duration::from_secs(300);

/// How soon an admin port or the simulator answers.
const SOON: Duration = Duration::from_secs(2);

/// The benchmarks.
#[derive(Debug, clap::Subcommand)]
pub enum Bench {
    /// Orders accepted and confirmed a second, their latencies, CPU per order, and the floor.
    Orders(Box<Orders>),
    /// Events a second that three consumers take in, each with an effect, and the floor.
    Events(Events),
}

/// Where the mesh is, and how long to load it.
#[derive(Debug, clap::Args)]
pub struct Orders {
    /// Where the mesh is.
    #[command(flatten)]
    pub place: Place,
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
    /// Two more orders processes, one of which leaves events alone, as
    /// `static://?with=host:port&without=host:port`.
    #[arg(long, requires = "pair_pids")]
    pub pair: Option<String>,
    /// Their pids in this order.
    #[arg(long, value_delimiter = ',')]
    pub pair_pids: Vec<u32>,
    /// Whom to order as.
    #[arg(long)]
    pub email: String,
    /// Their password.
    #[arg(long)]
    pub password: String,
    /// The e-mail address of the admin, who may read logs and tables.
    #[arg(long)]
    pub admin: String,
    /// File with the admin's password.
    #[arg(long)]
    pub admin_password_file: PathBuf,
    /// How long each part of a round lasts.
    #[arg(long, default_value = "5s", value_parser = mesh::config::duration)]
    pub each: Duration,
    /// How long the provider takes to answer.
    #[arg(long, default_value = "50ms", value_parser = mesh::config::duration)]
    pub provider: Duration,
}

// === impl Bench ===

impl Bench {
    /// Measures what is named; the answer is one JSON object.
    ///
    /// # Errors
    /// The mesh cannot be reached, or an order failed: then there are no figures.
    pub async fn run(self) -> anyhow::Result<Value> {
        match self {
            Self::Orders(orders) => orders.measure().await,
            Self::Events(events) => events.measure().await,
        }
    }
}

// === impl Orders ===

impl Orders {
    async fn measure(self) -> anyhow::Result<Value> {
        let place = &self.place;
        let pids: Vec<u32> =
            self.pids.iter().filter_map(|pair| pair.rsplit_once('=')?.1.parse().ok()).collect();
        let resident = cpu::resident(&pids);
        self.slow_down_the_provider().await?;
        let buyer = Buyer {
            orders: place.channel("orders").await?,
            authorization: self.sign_in(place.channel("users").await?).await?,
            variants: variants(place.channel("catalog").await?).await?,
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
            quiet(&buyer, self.provider).await?;
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
        quiet(&buyer, self.provider).await?;
        let from = clock::micros(clock::now());
        let whole = buyer.open(half, self.each * 2, Until::Confirmed).await;
        good(&whole)?;
        progress("waiting for every order to be delivered");
        let sources = self.sources().await?;
        anyhow::ensure!(sources.rest(REST).await?, "the mesh does not come to rest");
        let after = After::of(&sources.world().await?, from);
        progress("three subscribers read the log");
        let log = log_rate(&buyer.orders, &sources.authorization).await?;

        let mut report = json!({
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
                "completed_p50_ms": rounded(percentile(&after.completed, 50)),
                "completed_p95_ms": rounded(percentile(&after.completed, 95)),
                "outbox_to_consumer_p50_ms": rounded(percentile(&after.consumed, 50)),
                "outbox_to_consumer_p95_ms": rounded(percentile(&after.consumed, 95)),
                "log_events_per_second_to_each_of_3": rounded(log),
                "idle_rss_max_mib": resident.first().map_or(0, |bytes| bytes >> 20),
            },
            "method": format!(
                "median of {ROUNDS} interleaved rounds of {} s; closed loop, {AT_ONCE} in flight, for rates; \
                 open loop at half the confirmed rate, from the intended send, for latencies; provider at {} ms; \
                 SQLite WAL synchronous=FULL in mesh and floor, the floor on one connection; CPU of all mesh processes; \
                 COMPLETED with the carrier's stages as set, outbox to consumer from the event's row to the \
                 notification's, both of the last open loop; the log from its beginning by three at once",
                self.each.as_secs(),
                self.provider.as_millis(),
            ),
        });
        if let Some(registry) = &self.pair {
            let pair = self.pair(&buyer, registry).await?;
            pair.add_to(&mut report);
        }
        Ok(report)
    }

    async fn pair(&self, buyer: &Buyer, registry: &str) -> anyhow::Result<pair::Pair> {
        // What is accepted has to be carried out before the other's turn, which takes longer.
        let place = Place { registry: registry.to_owned(), ..self.place.clone() };
        pair::measure(buyer, &place, &self.pair_pids, self.each / 3, self.provider).await
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

    async fn sign_in(&self, users: Channel) -> anyhow::Result<Authorization> {
        let credential = Credential::Password(PasswordCredential {
            email: self.email.clone(),
            password: self.password.clone(),
        });
        sign_in(users, credential).await
    }

    /// What the services say of themselves, as the admin reads it.
    async fn sources(&self) -> anyhow::Result<Sources> {
        let place = &self.place;
        let identity = Identity {
            token_file: None,
            email: Some(self.admin.clone()),
            password_file: Some(self.admin_password_file.clone()),
            client_secret_file: None,
        };
        let authorization = identity.sign_in(place).await?;
        let services = Sources::services(place).await?;
        Ok(Sources { services, authorization, provider: None, maildir: None, history: None })
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

async fn get(base: &str, path: &str) -> anyhow::Result<(StatusCode, String)> {
    let http = Http::new(base);
    let answer = http.call(Method::GET, path, HeaderMap::new(), Bytes::new(), SOON);
    let (status, body) = answer.await.with_context(|| format!("{base}{path} does not answer"))?;
    Ok((status, String::from_utf8_lossy(&body).into_owned()))
}

/// Waits until what was accepted is carried out: the next order is confirmed at once.
async fn quiet(buyer: &Buyer, provider: Duration) -> anyhow::Result<()> {
    for _ in 0..120 {
        let probe = buyer.closed(1, Duration::from_millis(1), Until::Confirmed).await;
        let calm = provider * 3 + Duration::from_millis(50);
        if probe.latencies.first().is_some_and(|latency| *latency < calm) {
            return Ok(());
        }
        tokio::time::sleep(Duration::from_millis(500)).await;
    }
    anyhow::bail!("the mesh does not come to rest")
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

/// What became of orders after they were confirmed, in milliseconds, sorted.
struct After {
    /// From being placed to being COMPLETED.
    completed: Vec<f64>,
    /// From an event's row in the outbox to its effect at the consumer.
    consumed: Vec<f64>,
}

impl After {
    /// Of what happened from this time on.
    fn of(world: &World, from: i64) -> Self {
        let events = world.events.iter().filter(|event| event.at >= from);
        let mut placed = HashMap::new();
        let mut completed = Vec::new();
        for event in events {
            if event.kind == "order.created" {
                placed.insert(event.order_id.as_str(), event.at);
            }
        }
        for event in world.events.iter().filter(|event| event.kind == "order.completed") {
            if let Some(at) = placed.get(event.order_id.as_str()) {
                completed.push(milliseconds(event.at - at));
            }
        }
        let published: HashMap<&str, i64> = (world.outboxes.get("orders").into_iter().flatten())
            .filter(|event| event.created_at >= from)
            .map(|event| (event.event_id.as_str(), event.created_at))
            .collect();
        let mut consumed: Vec<f64> = (world.notifications.iter())
            .filter_map(|it| {
                Some(milliseconds(it.created_at - published.get(it.event_id.as_str())?))
            })
            .collect();
        completed.sort_unstable_by(f64::total_cmp);
        consumed.sort_unstable_by(f64::total_cmp);
        Self { completed, consumed }
    }
}

/// Events a second that each of three subscribers gets who read the whole log at once.
async fn log_rate(source: &Channel, authorization: &Authorization) -> anyhow::Result<f64> {
    let began = clock::instant();
    let read = || async {
        let mut log = EventLogServiceClient::new(source.clone());
        let ask = request(SubscribeRequest::default(), authorization);
        let mut pieces = log.subscribe(ask).await?.into_inner();
        let mut count = 0_u32;
        while let Some(piece) = pieces.message().await? {
            count += u32::try_from(piece.events.len()).unwrap_or(u32::MAX);
            if piece.position >= piece.head {
                break;
            }
        }
        Ok::<_, tonic::Status>(count)
    };
    let all = async { tokio::try_join!(read(), read(), read()) };
    let (count, ..) =
        Ctx::root(REST, Trace::new()).scope(all).await.context("cannot read the log")?;
    Ok(f64::from(count) / began.elapsed().as_secs_f64())
}

fn milliseconds(micros: i64) -> f64 {
    Duration::from_micros(u64::try_from(micros).unwrap_or_default()).as_secs_f64() * 1_000.0
}

/// The value that so many hundredths of the sorted ones do not exceed.
fn percentile(sorted: &[f64], hundredths: usize) -> f64 {
    let index = (sorted.len() * hundredths).div_ceil(100).saturating_sub(1);
    sorted.get(index).copied().unwrap_or(f64::NAN)
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_unstable_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or(f64::NAN)
}

fn rounded(value: f64) -> f64 {
    (value * 100.0).round() / 100.0
}
