//! `meshproof bench events`: how fast three consumers with effects read a log that is there, beside
//! a bare program that writes the same rows in transactions of the same size.

use std::{
    path::{Path, PathBuf},
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU32, Ordering},
    },
    time::Duration,
};

use anyhow::Context as _;
use clap::Parser as _;
use futures_util::future::{BoxFuture, try_join_all};
use mesh::{
    App, Config,
    app::Draining,
    clock,
    consume::{Handler, Trouble},
    log::{self, Event},
    outbox::{self, Fact},
    store::{self, Failure, Store, Txn},
};
use proto::orders::v1::{OrderCreated, OrderLine};
use rusqlite::{Connection, params};
use serde_json::{Value, json};
use tokio::time::Instant;

use super::{median, rounded};
use crate::cli::progress;

/// Rounds of consumers and floor, one after the other; figures are medians.
const ROUNDS: usize = 3;

/// Who reads at once.
const CONSUMERS: usize = 3;

/// Events that are written, and given their positions, in one transaction.
const WRITTEN: u32 = 500;

/// How long a round may take.
const PATIENCE: Duration = Duration::from_secs(300);

/// The effect of an event: what it said of which order, and how many an order had.
const TABLES: &str = "CREATE TABLE told (event_id TEXT PRIMARY KEY, aggregate TEXT NOT NULL, \
    seq BIGINT NOT NULL, type TEXT NOT NULL, lines BIGINT NOT NULL, at BIGINT NOT NULL)";

const EFFECT: &str = "INSERT INTO told (event_id, aggregate, seq, type, lines, at) \
    VALUES ($1, $2, $3, $4, $5, $6)";

/// Whose tokens to take, and how much to read.
#[derive(Debug, clap::Args)]
pub struct Events {
    /// The services, as `static://?name=host:port`: whoever issues tokens is among them.
    #[arg(long)]
    pub registry: String,
    /// File with the secret of the client `notifications`, as whom the consumers read.
    #[arg(long)]
    pub secret: PathBuf,
    /// A folder to work in, on the disk of the databases.
    #[arg(long)]
    pub work: PathBuf,
    /// How many events the log has.
    #[arg(long, default_value_t = 50_000)]
    pub events: u32,
}

/// How mesh's settings are read where there is no command line.
#[derive(Debug, clap::Parser)]
struct Settings {
    #[command(flatten)]
    mesh: Config,
}

/// Notes each event, and when the first and the last of them came.
struct Noting {
    taken: Arc<Taken>,
}

/// How far a consumer has come.
#[derive(Debug, Default)]
struct Taken {
    first: Mutex<Option<Instant>>,
    last: Mutex<Option<Instant>>,
    count: AtomicU32,
}

// === impl Events ===

impl Events {
    pub(super) async fn measure(self) -> anyhow::Result<Value> {
        let source = Store::connect(&url(&self.work.join("source.db")), Vec::new()).await?;
        progress(&format!("writing a log of {} events", self.events));
        self.fill(&source).await?;
        let app = App::new("orders", proto::DESCRIPTORS, self.config(false)?)?;
        let address = format!("http://{}", app.address());
        let stop = Draining::default();
        let stopped = stop.clone();
        let app = app.store(&source).publishes(&source);
        let serve = app.serve(async move { stopped.begun().await });
        let rounds = async {
            let measured = self.rounds(&address).await;
            stop.begin();
            measured
        };
        let (served, measured) = tokio::join!(serve, rounds);
        served.context("the source failed")?;
        let (read, bare) = measured?;
        let consumed = median(read.clone());
        let floor = median(bare);
        Ok(json!({
            "bench": "events",
            "ratios": {
                "consumed_per_floor": rounded(consumed / floor),
            },
            "figures": {
                "consumed_events_per_second_to_each_of_3": rounded(consumed),
                "slowest_events_per_second": rounded(read.into_iter().fold(f64::MAX, f64::min)),
                "floor_events_per_second": rounded(floor),
                "events": self.events,
                "events_per_transaction": log::BATCH,
            },
            "method": format!(
                "median of {ROUNDS} interleaved rounds; {CONSUMERS} consumers at once in one process with the source, each \
                 with a SQLite file of its own (WAL, synchronous=FULL), from the first event that was taken in to the commit \
                 of the last, the slowest of a round counted; effect: one row, in the transaction that moves the cursor; \
                 the floor: one bare connection, the same rows and cursor, as many in a transaction, three files at once"
            ),
        }))
    }

    /// Events a second of the slowest consumer, and of the slowest floor, in each round.
    async fn rounds(&self, source: &str) -> anyhow::Result<(Vec<f64>, Vec<f64>)> {
        let (mut read, mut bare) = (Vec::new(), Vec::new());
        for round in 0..ROUNDS {
            progress(&format!("round {} of {ROUNDS}: consumers", round + 1));
            let names = (0..CONSUMERS).map(|number| format!("consumer-{round}-{number}.db"));
            let reading = names.map(|name| self.consume(source, self.work.join(name)));
            let taken = try_join_all(reading).await?;
            read.push(slowest(&taken, self.events));
            progress(&format!("round {} of {ROUNDS}: floor", round + 1));
            let writing = (0..CONSUMERS).map(|number| {
                let file = self.work.join(format!("floor-{round}-{number}.db"));
                let events = self.events;
                tokio::task::spawn_blocking(move || floor(&file, events))
            });
            let mut rates = Vec::new();
            for rate in try_join_all(writing).await? {
                rates.push(rate?);
            }
            bare.push(rates.into_iter().fold(f64::MAX, f64::min));
        }
        Ok((read, bare))
    }

    /// Writes the log: one event each of as many orders, with what an order of two lines says.
    async fn fill(&self, source: &Store) -> anyhow::Result<()> {
        let line = OrderLine {
            line_id: "1".to_owned(),
            variant: "variants/MUG-1".to_owned(),
            title: "A mug".to_owned(),
            quantity: 2,
            ..OrderLine::default()
        };
        let message = OrderCreated {
            customer: format!("users/{}", clock::id()),
            customer_email: "ada@example.org".to_owned(),
            lines: vec![line.clone(), line],
            ..OrderCreated::default()
        };
        let mut left = self.events;
        while left > 0 {
            let count = left.min(WRITTEN);
            let message = message.clone();
            let written = source.transaction(move |txn| {
                let message = message.clone();
                Box::pin(async move {
                    for _ in 0..count {
                        let order = format!("orders/{}", clock::id());
                        let told = OrderCreated { order: order.clone(), ..message.clone() };
                        let fact = Fact::of("order.created", &told);
                        outbox::append(txn, &order, 1, fact, clock::now()).await?;
                    }
                    Ok::<_, Failure>(())
                })
            });
            written.await?;
            left -= count;
        }
        log::sequence(source).await?;
        let head = log::head(source).await?;
        anyhow::ensure!(head == i64::from(self.events), "the log ends at {head}");
        Ok(())
    }

    /// Reads the whole log into a new database.
    async fn consume(&self, source: &str, file: PathBuf) -> anyhow::Result<Arc<Taken>> {
        let tables = vec![store::step("bench_0001_told", TABLES)];
        let store = Store::connect(&url(&file), tables).await?;
        let taken = Arc::<Taken>::default();
        let app = App::new("notifications", proto::DESCRIPTORS, self.config(true)?)?;
        let handler = Noting { taken: Arc::clone(&taken) };
        let app = app.store(&store).consumes(&store, source, handler);
        let (all, until) = (self.events, Arc::clone(&taken));
        let done = async move {
            let came = async {
                while until.count.load(Ordering::Relaxed) < all {
                    tokio::time::sleep(Duration::from_millis(5)).await;
                }
            };
            // Who is too slow is told so below.
            let _in_time = tokio::time::timeout(PATIENCE, came).await.is_ok();
        };
        app.serve(done).await.context("a consumer failed")?;
        let count = taken.count.load(Ordering::Relaxed);
        anyhow::ensure!(count == all, "a consumer took {count} of {all} events in");
        Ok(taken)
    }

    fn config(&self, signs_in: bool) -> anyhow::Result<Config> {
        let mut words: Vec<&str> = ["bench", "--listen", ANY, "--admin-listen", ANY].to_vec();
        words.extend(["--issuer", "users", "--registry", &self.registry]);
        let secret = self.secret.to_str().context("the name of the secret is not UTF-8")?;
        if signs_in {
            words.extend(["--client-secret-file", secret]);
        }
        Ok(Settings::try_parse_from(words)?.mesh)
    }
}

/// Some free port.
const ANY: &str = "127.0.0.1:0";

// === impl Noting ===

impl Handler for Noting {
    fn types(&self) -> &'static [&'static str] {
        &["order.created"]
    }

    fn handle<'c>(&'c self, txn: &'c Txn, event: &'c Event) -> BoxFuture<'c, Result<(), Trouble>> {
        Box::pin(async move {
            self.taken.begins();
            let message: OrderCreated = event.decode()?;
            let values = vec![
                event.id.as_str().into(),
                event.aggregate.as_str().into(),
                event.seq.into(),
                event.kind.as_str().into(),
                i64::try_from(message.lines.len()).unwrap_or(i64::MAX).into(),
                clock::micros(event.at).into(),
            ];
            store::execute(txn, "note an event", EFFECT, values).await?;
            Ok(())
        })
    }

    fn committed(&self, _event: &Event) {
        self.taken.count.fetch_add(1, Ordering::Relaxed);
        *self.taken.last.lock().unwrap_or_else(PoisonError::into_inner) = Some(clock::instant());
    }
}

// === impl Taken ===

impl Taken {
    fn begins(&self) {
        let mut first = self.first.lock().unwrap_or_else(PoisonError::into_inner);
        first.get_or_insert_with(clock::instant);
    }
}

/// From the first event that any of them took in to the last one of all.
fn slowest(taken: &[Arc<Taken>], events: u32) -> f64 {
    let read = |at: &Mutex<Option<Instant>>| *at.lock().unwrap_or_else(PoisonError::into_inner);
    let rates = taken.iter().filter_map(|taken| {
        let took = read(&taken.last)?.saturating_duration_since(read(&taken.first)?);
        Some(f64::from(events) / took.as_secs_f64())
    });
    rates.fold(f64::MAX, f64::min)
}

/// The same rows by one connection and nothing else.
fn floor(file: &Path, events: u32) -> anyhow::Result<f64> {
    let mut db = Connection::open(file)?;
    db.execute_batch("PRAGMA journal_mode = WAL; PRAGMA synchronous = FULL;")?;
    db.execute_batch(TABLES)?;
    db.execute_batch("CREATE TABLE cursor (position BIGINT); INSERT INTO cursor VALUES (0);")?;
    let ids: Vec<_> = (0..events).map(|_| clock::id().to_string()).collect();
    let began = clock::instant();
    for chunk in ids.chunks(log::BATCH) {
        let transaction = db.transaction()?;
        let count = i64::try_from(chunk.len())?;
        transaction
            .prepare_cached("UPDATE cursor SET position = position + $1")?
            .execute([count])?;
        for id in chunk {
            let aggregate = format!("orders/{id}");
            let row = params![id, aggregate, 1, "order.created", 2, clock::micros(clock::now())];
            transaction.prepare_cached(EFFECT)?.execute(row)?;
        }
        transaction.commit()?;
    }
    Ok(f64::from(events) / began.elapsed().as_secs_f64())
}

fn url(file: &Path) -> String {
    format!("sqlite://{}", file.display())
}
