//! `meshproof load`: customers who order, ask again, call off and watch, at a constant rate, and
//! write down what they were told.

use std::{
    collections::BTreeMap,
    path::PathBuf,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use anyhow::Context as _;
use futures_util::future::OptionFuture;
use mesh::{
    Channel, Ctx,
    client::{Verdict, judge},
    clock,
    ctx::Trace,
    status,
    wire::ordermesh::auth::v1::{PasswordCredential, issue_token_request::Credential},
};
use prost::Message as _;
use proto::{
    google::r#type::PostalAddress,
    orders::v1::{
        CancelOrderRequest, CreateOrderRequest, Order, OrderLine,
        orders_service_client::OrdersServiceClient,
    },
    users::v1::{
        CreateUserRequest, GetUserRequest, User, users_service_client::UsersServiceClient,
    },
};
use serde_json::json;
use tokio::signal::unix::{SignalKind, signal};
use tonic::{Response, Status};
use uuid::Uuid;

use super::{
    PATIENCE, count,
    plan::{Due, Plan, Shape, Task, Wish, draw},
    variants, watching,
};
use crate::{
    access::{Authorization, Place, request, sign_in},
    cli::{Done, progress},
    history::{self, Answer, Asked, Outcome, Record, digest},
};

/// How often a call whose outcome is unknown is repeated with the same id.
const REPEATS: usize = 5;
/// The first pause before a repeat; doubled each time.
const PAUSE: Duration = Duration::from_millis(200);
/// The password of the accounts that a load opens: they own nothing.
const PASSWORD: &str = "a load of nothing but orders";

/// How much to ask for, and for how long.
#[derive(Clone, Debug, clap::Args)]
pub struct Load {
    /// Where the mesh is.
    #[command(flatten)]
    pub place: Place,
    /// Draws the calls: the same seed makes the same ones at the same times.
    #[arg(long, default_value_t = 1)]
    pub seed: u64,
    /// Calls a second, whatever becomes of those before.
    #[arg(long, default_value_t = 20)]
    pub rate: u32,
    /// How long calls are made.
    #[arg(long = "for", default_value = "30s", value_parser = mesh::config::duration)]
    pub lasts: Duration,
    /// How many customers call; their accounts are opened unless they are there.
    #[arg(long, default_value_t = 4)]
    pub customers: usize,
    /// Lets payments and parcels go wrong now and then, by the magic words of the simulators.
    #[arg(long)]
    pub faults: bool,
    /// How long watchers may stay when all calls are made.
    #[arg(long, default_value = "30s", value_parser = mesh::config::duration)]
    pub patience: Duration,
    /// Where what was asked and told is written, one JSON object a line, for `check --history`.
    #[arg(long)]
    pub history: Option<PathBuf>,
}

/// A customer with an account.
#[derive(Clone, Debug)]
struct Customer {
    /// `users/{uuid}`.
    name: String,
    authorization: Authorization,
}

/// What the tasks of a load share.
#[derive(Debug)]
struct Crowd {
    orders: Channel,
    customers: Vec<Customer>,
    variants: Arc<[String]>,
    plan: Plan,
    /// The names of the orders that were placed.
    names: Mutex<BTreeMap<usize, String>>,
    records: Mutex<Vec<Record>>,
}

// === impl Load ===

impl Load {
    pub(crate) async fn run(self) -> anyhow::Result<Done> {
        let variants = variants(self.place.channel("catalog").await?).await?;
        let mut customers = Vec::new();
        for number in 0..self.customers.max(1) {
            customers.push(Customer::open(&self.place, number).await?);
        }
        let plan = draw(Shape {
            seed: self.seed,
            rate: self.rate,
            lasts: self.lasts,
            customers: customers.len(),
            variants: variants.len(),
            faults: self.faults,
        });
        progress(&format!("{} calls in {} s", plan.dues.len(), self.lasts.as_secs()));
        let crowd = Arc::new(Crowd {
            orders: self.place.channel("orders").await?,
            customers,
            variants,
            plan,
            names: Mutex::default(),
            records: Mutex::default(),
        });
        Arc::clone(&crowd).carry_out(self.patience).await;
        let mut records =
            std::mem::take(&mut *crowd.records.lock().unwrap_or_else(PoisonError::into_inner));
        records.sort_by_key(|record| record.invoke);
        for (number, record) in (1..).zip(&mut records) {
            record.number = number;
        }
        if let Some(path) = &self.history {
            history::write(path, &records)?;
        }
        Ok(Done::good(summary(&records, &self)))
    }
}

// === impl Customer ===

impl Customer {
    /// Opens an account, unless it is there, and signs in.
    async fn open(place: &Place, number: usize) -> anyhow::Result<Self> {
        let users = place.channel("users").await?;
        let email = format!("load-{number}@example.com");
        let user = User {
            display_name: format!("Load {number}"),
            email: email.clone(),
            password: PASSWORD.to_owned(),
            ..User::default()
        };
        // The same id each time: the account is found by it again.
        let number_of_id = u128::try_from(number).unwrap_or_default();
        let id = Uuid::from_u128(0x0190_0000_0000_7000_8000_10ad_0000_0000 + number_of_id);
        let opening =
            CreateUserRequest { user: Some(user), user_id: id.to_string(), ..Default::default() };
        let mut client = UsersServiceClient::new(users.clone());
        let opened = Ctx::root(PATIENCE, Trace::new()).scope(client.create_user(opening)).await;
        if let Err(status) = opened
            && status.code() != tonic::Code::AlreadyExists
        {
            return Err(status).context("cannot open an account for the load");
        }
        let password = PasswordCredential { email, password: PASSWORD.to_owned() };
        let authorization = sign_in(users, Credential::Password(password)).await?;
        let name = format!("users/{id}");
        let ask = request(GetUserRequest { name: name.clone() }, &authorization);
        let known = Ctx::root(PATIENCE, Trace::new()).scope(client.get_user(ask)).await;
        known.context("the account of the load has another id")?;
        Ok(Self { name, authorization })
    }
}

// === impl Crowd ===

impl Crowd {
    /// Does what is due when it is due, and waits for the answers. A SIGTERM ends it early: what
    /// was asked is still answered and written down.
    async fn carry_out(self: Arc<Self>, patience: Duration) {
        let began = clock::instant();
        let mut under_way = tokio::task::JoinSet::new();
        let mut ended = signal(SignalKind::terminate()).ok();
        for index in 0..self.plan.dues.len() {
            let Some(due) = self.plan.dues.get(index).cloned() else { break };
            tokio::select! {
                () = tokio::time::sleep_until(began + due.after) => {}
                Some(Some(())) = OptionFuture::from(ended.as_mut().map(|it| it.recv())) => break,
            }
            let crowd = Arc::clone(&self);
            under_way.spawn(async move { Box::pin(crowd.act(due, patience)).await });
        }
        under_way.join_all().await;
    }

    async fn act(&self, due: Due, patience: Duration) {
        let Some(customer) = self.customers.get(due.customer) else { return };
        match due.task {
            Task::Create(order) => self.create(customer, order).await,
            Task::Cancel { order, request_id } => {
                if let Some(name) = self.name(order) {
                    self.cancel(customer, &name, request_id).await;
                }
            }
            Task::Watch { order, cuts } => {
                if let Some(name) = self.name(order) {
                    let invoke = clock::micros(clock::now());
                    let watched = watching::Watched::new(&self.orders, &customer.authorization);
                    let watched = watched.follow(&name, &cuts, patience).await;
                    let (asked, outcome, why) = watched.told(name);
                    self.record(customer, invoke, asked, outcome, why, None);
                }
            }
        }
    }

    /// Places an order, and asks again under the same id until there is an answer.
    async fn create(&self, customer: &Customer, order: usize) {
        let Some(wish) = self.plan.wishes.get(order) else { return };
        let ask = CreateOrderRequest {
            order: Some(self.wanted(wish)),
            request_id: wish.request_id.to_string(),
            accept_current_price: true,
            ..CreateOrderRequest::default()
        };
        let asked = Asked::Create { request_id: ask.request_id.clone() };
        let client = OrdersServiceClient::new(self.orders.clone());
        let answer = self
            .until_known(customer, &asked, || {
                let (mut client, ask) =
                    (client.clone(), request(ask.clone(), &customer.authorization));
                Box::pin(async move { client.create_order(ask).await })
            })
            .await;
        if let Some(answer) = answer {
            let mut names = self.names.lock().unwrap_or_else(PoisonError::into_inner);
            names.insert(order, answer.order);
        }
    }

    async fn cancel(&self, customer: &Customer, name: &str, request_id: Uuid) {
        let ask = CancelOrderRequest {
            name: name.to_owned(),
            request_id: request_id.to_string(),
            ..CancelOrderRequest::default()
        };
        let asked = Asked::Cancel { order: name.to_owned(), request_id: request_id.to_string() };
        let client = OrdersServiceClient::new(self.orders.clone());
        self.until_known(customer, &asked, || {
            let (mut client, ask) = (client.clone(), request(ask.clone(), &customer.authorization));
            Box::pin(async move { client.cancel_order(ask).await })
        })
        .await;
    }

    /// Calls until the outcome is known or patience ends; every call is recorded.
    async fn until_known<C, F>(&self, customer: &Customer, asked: &Asked, call: C) -> Option<Answer>
    where
        C: Fn() -> F,
        F: Future<Output = Result<Response<Order>, Status>>,
    {
        let mut pause = PAUSE;
        for _ in 0..=REPEATS {
            let invoke = clock::micros(clock::now());
            let told = Ctx::root(PATIENCE, Trace::new()).scope(call()).await;
            let (outcome, why, answer) = match told {
                Ok(response) => (Outcome::Ok, String::new(), Some(answer(&response))),
                Err(status) => (outcome(&status), spoken(&status), None),
            };
            self.record(customer, invoke, asked.clone(), outcome, why, answer.clone());
            match outcome {
                Outcome::Ok => return answer,
                Outcome::Refused => return None,
                Outcome::Unknown => {
                    tokio::time::sleep(pause).await;
                    pause *= 2;
                }
            }
        }
        None
    }

    fn record(
        &self,
        customer: &Customer,
        invoke: i64,
        asked: Asked,
        outcome: Outcome,
        why: String,
        answer: Option<Answer>,
    ) {
        let record = Record {
            number: 0,
            by: customer.name.clone(),
            invoke,
            complete: clock::micros(clock::now()),
            asked,
            outcome,
            why,
            answer,
        };
        self.records.lock().unwrap_or_else(PoisonError::into_inner).push(record);
    }

    fn name(&self, order: usize) -> Option<String> {
        self.names.lock().unwrap_or_else(PoisonError::into_inner).get(&order).cloned()
    }

    fn wanted(&self, wish: &Wish) -> Order {
        let line = |(variant, quantity): &(usize, i32)| {
            let variant = self.variants.get(*variant).cloned().unwrap_or_default();
            OrderLine { variant, quantity: *quantity, ..OrderLine::default() }
        };
        let address = PostalAddress {
            region_code: "GB".to_owned(),
            postal_code: "W1U 6RS".to_owned(),
            locality: "London".to_owned(),
            address_lines: vec!["12 St James's Square".to_owned()],
            organization: wish.parcel.to_owned(),
            ..PostalAddress::default()
        };
        Order {
            lines: wish.lines.iter().map(line).collect(),
            ship_to: Some(address),
            payment_method: wish.payment_method.to_owned(),
            ..Order::default()
        }
    }
}

fn answer(response: &Response<Order>) -> Answer {
    let order = response.get_ref();
    let state = order.state().as_str_name();
    Answer {
        order: order.name.clone(),
        state: state.strip_prefix("STATE_").unwrap_or(state).to_owned(),
        revision: order.revision,
        digest: digest(&order.encode_to_vec()),
        replayed: response.metadata().contains_key("mesh-replayed"),
    }
}

/// Only a rule's no is a refusal; what was not sent this time may have been sent before.
fn outcome(status: &Status) -> Outcome {
    match judge(status) {
        Verdict::No => Outcome::Refused,
        Verdict::NotSent | Verdict::Unsure => Outcome::Unknown,
    }
}

/// A failure in words: its code, its reason, and what was said.
pub(crate) fn spoken(status: &Status) -> String {
    match status::reason(status) {
        Some(info) => format!("{:?} {}: {}", status.code(), info.reason, status.message()),
        None => format!("{:?}: {}", status.code(), status.message()),
    }
}

fn summary(records: &[Record], load: &Load) -> serde_json::Value {
    let of = |outcome| count(records.iter().filter(|it| it.outcome == outcome).count());
    let mut orders: Vec<&str> = records.iter().filter_map(Record::order).collect();
    orders.sort_unstable();
    orders.dedup();
    json!({
        "load": "orders",
        "seed": load.seed,
        "calls": count(records.len()),
        "ok": of(Outcome::Ok),
        "refused": of(Outcome::Refused),
        "unknown": of(Outcome::Unknown),
        "orders": count(orders.len()),
    })
}
