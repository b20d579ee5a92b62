//! The other services, as a test needs them: what they answer is a table, what they did is a log.

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    convert::Infallible,
    future::{Future, Ready, ready},
    sync::{Arc, Mutex, MutexGuard},
    task::{Context, Poll},
};

use futures_util::future::BoxFuture;
use mesh::{
    Channel,
    status::{self, Explain, Explanation, tell},
    testing,
};
use proto::{
    catalog::v1::{self as catalog, catalog_service_server},
    google::r#type::Money,
    inventory::v1::{self as inventory, inventory_service_server, reservation},
    payments::v1::{self as payments, payment, payments_service_server},
    saga::v1::Command,
    users::v1::{self as users, users_service_server},
};
use tokio::sync::{Notify, watch};
use tonic::{
    Code, Request, Response, Status,
    body::Body,
    codegen::{Service, http},
    server::{Grpc, NamedService},
    service::Routes,
};

use crate::saga::Peers;

/// All four of them.
#[derive(Debug)]
pub struct Shop {
    state: Mutex<State>,
    log: watch::Sender<Vec<String>>,
    /// Lets one `AuthorizePayment` pass that was told to hang.
    pub gate: Notify,
}

/// What they know and how they behave.
#[derive(Debug, Default)]
pub struct State {
    /// Cents, and the version, by SKU.
    pub prices: Prices,
    /// Prices to answer after so many more reads.
    pub later: Option<(u32, Prices)>,
    /// Units by SKU.
    pub stock: BTreeMap<String, i64>,
    /// Inventory does not say what there is, and still decides.
    pub stock_hidden: bool,
    /// Services that cannot be reached.
    pub down: BTreeSet<&'static str>,
    /// Who may not order.
    pub inactive: BTreeSet<String>,
    /// How the next authorizations go; `Authorized` once there are no more.
    pub script: VecDeque<Provider>,
    /// Reservations by name.
    pub reservations: BTreeMap<String, (reservation::State, Vec<(String, i64)>)>,
    /// Payments by name.
    pub payments: BTreeMap<String, Paid>,
    undone: BTreeSet<(String, String)>,
}

/// Cents, and the version, by SKU.
pub type Prices = BTreeMap<String, (i64, String)>;

/// How an authorization goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Provider {
    /// Yes.
    Authorized,
    /// No.
    Declined,
    /// Nobody knows.
    InDoubt,
    /// The customer has to act.
    ActionRequired,
    /// No answer until the gate opens; then yes.
    Hangs,
    /// It is done, and the answer is lost.
    AnswerLost,
}

/// A payment.
#[derive(Clone, Debug, Default)]
pub struct Paid {
    /// Where it stands.
    pub state: payment::State,
    /// How much.
    pub amount: Money,
    /// How many authorizations were asked for, by command.
    pub attempts: BTreeSet<String>,
}

#[derive(Debug, thiserror::Error)]
#[error("{reason}")]
struct Refused {
    code: Code,
    reason: &'static str,
    facts: Vec<(&'static str, String)>,
}

/// One of the four, as the mesh sees it.
#[derive(Clone)]
struct Fake<const SERVICE: usize>(Arc<Shop>);

const CATALOG: usize = 0;
const USERS: usize = 1;
const INVENTORY: usize = 2;
const PAYMENTS: usize = 3;

impl Explain for Refused {
    const DOMAIN: &'static str = "ordermesh.fake.v1";

    fn explain(&self) -> Explanation {
        let told = tell(self.code, self.reason);
        self.facts.iter().fold(told, |told, (key, value)| told.with(*key, value))
    }
}

// === impl Shop ===

impl Shop {
    /// Sells mugs at 9.99 and hats at 20.00, a hundred of each.
    pub fn open() -> Arc<Self> {
        let price = |cents| (cents, "v1".to_owned());
        let state = State {
            prices: [("MUG".to_owned(), price(999)), ("HAT".to_owned(), price(2_000))].into(),
            stock: [("MUG".to_owned(), 100), ("HAT".to_owned(), 100)].into(),
            ..State::default()
        };
        Arc::new(Self {
            state: Mutex::new(state),
            log: watch::Sender::new(Vec::new()),
            gate: Notify::new(),
        })
    }

    /// Clients of the four.
    pub fn peers(self: &Arc<Self>) -> Peers {
        let catalog = testing::channel(Routes::new(Fake::<CATALOG>(Arc::clone(self)))).unwrap();
        let users = testing::channel(Routes::new(Fake::<USERS>(Arc::clone(self)))).unwrap();
        let inventory = testing::channel(Routes::new(Fake::<INVENTORY>(Arc::clone(self)))).unwrap();
        let payments = testing::channel(Routes::new(Fake::<PAYMENTS>(Arc::clone(self)))).unwrap();
        let by_name: BTreeMap<&str, Channel> = [
            ("catalog", catalog),
            ("users", users),
            ("inventory", inventory),
            ("payments", payments),
        ]
        .into();
        Peers::of(|name| by_name[name].clone())
    }

    pub fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap()
    }

    /// The calls that changed something, or tried to.
    pub fn log(&self) -> Vec<String> {
        self.log.borrow().clone()
    }

    /// Resolves once this was called so often.
    pub async fn called(&self, call: &str, times: usize) {
        let mut log = self.log.subscribe();
        let often =
            |log: &Vec<String>| log.iter().filter(|called| *called == call).count() >= times;
        log.wait_for(often).await.unwrap();
    }

    fn note(&self, call: &str) {
        self.log.send_modify(|log| log.push(call.to_owned()));
    }

    fn up(&self, service: &'static str) -> Result<(), Status> {
        if self.state().down.contains(service) {
            return Err(refused(Code::Unavailable, "DEPENDENCY_DOWN", vec![]));
        }
        Ok(())
    }

    fn variants(
        &self,
        request: catalog::BatchGetVariantsRequest,
    ) -> Result<catalog::BatchGetVariantsResponse, Status> {
        self.up("catalog")?;
        let mut state = self.state();
        let variants = request.names.into_iter().map(|name| {
            let sku = name.strip_prefix("variants/").unwrap_or_default();
            let Some((cents, version)) = state.prices.get(sku) else {
                return Err(refused(Code::NotFound, "NOT_FOUND", vec![("name", name)]));
            };
            Ok(catalog::Variant {
                title: format!("A fine {sku}"),
                price: Some(euro(*cents)),
                price_version: version.clone(),
                state: catalog::variant::State::Active.into(),
                name,
                ..catalog::Variant::default()
            })
        });
        let variants = variants.collect::<Result<_, _>>()?;
        state.later = match state.later.take() {
            Some((0 | 1, prices)) => {
                state.prices = prices;
                None
            }
            Some((reads, prices)) => Some((reads - 1, prices)),
            None => None,
        };
        Ok(catalog::BatchGetVariantsResponse { variants })
    }

    fn check(
        &self,
        request: users::CheckCustomerRequest,
    ) -> Result<users::CheckCustomerResponse, Status> {
        self.up("users")?;
        Ok(users::CheckCustomerResponse {
            active: !self.state().inactive.contains(&request.name),
            name: request.name,
            email: "ada@example.com".to_owned(),
            display_name: "Ada".to_owned(),
            order_limit: None,
        })
    }

    fn stocks(
        &self,
        request: inventory::BatchGetStocksRequest,
    ) -> Result<inventory::BatchGetStocksResponse, Status> {
        self.up("inventory")?;
        let state = self.state();
        if state.stock_hidden {
            return Err(refused(Code::Unavailable, "DEPENDENCY_DOWN", vec![]));
        }
        let stocks = request.names.into_iter().map(|name| {
            let sku = name.strip_prefix("stocks/-~").unwrap_or_default();
            let available = state.stock.get(sku).copied().unwrap_or_default();
            inventory::Stock { available, name, ..inventory::Stock::default() }
        });
        Ok(inventory::BatchGetStocksResponse { stocks: stocks.collect() })
    }

    fn reserve(
        &self,
        request: inventory::CreateReservationRequest,
    ) -> Result<inventory::Reservation, Status> {
        self.note("CreateReservation");
        self.up("inventory")?;
        let mut state = self.state();
        state.not_undone(request.command.as_ref())?;
        let name = format!("reservations/{}", request.reservation_id);
        let asked = request.reservation.unwrap_or_default();
        if !state.reservations.contains_key(&name) {
            let lines: Vec<(String, i64)> = asked
                .lines
                .iter()
                .map(|line| (line.variant.replace("variants/", ""), i64::from(line.quantity)))
                .collect();
            for (sku, quantity) in &lines {
                let available = state.stock.get(sku).copied().unwrap_or_default();
                if available < *quantity {
                    let facts = vec![("sku", sku.clone()), ("available", available.to_string())];
                    return Err(refused(Code::FailedPrecondition, "OUT_OF_STOCK", facts));
                }
            }
            for (sku, quantity) in &lines {
                *state.stock.entry(sku.clone()).or_default() -= quantity;
            }
            state.reservations.insert(name.clone(), (reservation::State::Held, lines));
        }
        Ok(state.reservation(name))
    }

    fn commit(
        &self,
        request: inventory::CommitReservationRequest,
    ) -> Result<inventory::Reservation, Status> {
        self.up("inventory")?;
        let mut state = self.state();
        if let Some(reservation) = state.reservations.get_mut(&request.name) {
            reservation.0 = reservation::State::Committed;
        }
        self.note("CommitReservation");
        Ok(state.reservation(request.name))
    }

    fn release(
        &self,
        request: inventory::ReleaseReservationRequest,
    ) -> Result<inventory::Reservation, Status> {
        self.note("ReleaseReservation");
        self.up("inventory")?;
        let mut state = self.state();
        state.undo(request.command.as_ref());
        let released = (reservation::State::Released, Vec::new());
        let before = state.reservations.insert(request.name.clone(), released);
        for (sku, quantity) in before.map(|(_, lines)| lines).unwrap_or_default() {
            *state.stock.entry(sku).or_default() += quantity;
        }
        Ok(state.reservation(request.name))
    }

    fn create(&self, request: payments::CreatePaymentRequest) -> Result<payments::Payment, Status> {
        self.up("payments")?;
        let mut state = self.state();
        state.not_undone(request.command.as_ref())?;
        let name = format!("payments/{}", request.payment_id);
        let asked = request.payment.unwrap_or_default();
        let paid = state.payments.entry(name.clone()).or_default();
        if paid.state == payment::State::Unspecified {
            paid.state = payment::State::Created;
            paid.amount = asked.amount.unwrap_or_default();
        }
        Ok(state.payment(name))
    }

    async fn authorize(
        self: Arc<Self>,
        request: payments::AuthorizePaymentRequest,
    ) -> Result<payments::Payment, Status> {
        self.note("AuthorizePayment");
        self.up("payments")?;
        let next = {
            let mut state = self.state();
            state.not_undone(request.command.as_ref())?;
            let standing = state.payment(request.name.clone());
            let settled = [payment::State::Authorized, payment::State::Failed];
            if settled.contains(&standing.state()) {
                return Ok(standing);
            }
            let command = request.command.clone().unwrap_or_default().command_id;
            state.payments.entry(request.name.clone()).or_default().attempts.insert(command);
            state.script.pop_front().unwrap_or(Provider::Authorized)
        };
        if next == Provider::Hangs {
            self.gate.notified().await;
        }
        let mut state = self.state();
        let late = state.not_undone(request.command.as_ref());
        let paid = state.payments.entry(request.name.clone()).or_default();
        match next {
            Provider::Authorized | Provider::Hangs | Provider::AnswerLost => {
                // What was voided meanwhile stays so.
                late?;
                paid.state = payment::State::Authorized;
            }
            Provider::Declined => {
                paid.state = payment::State::Failed;
                let facts = vec![("decline_code", "insufficient_funds".to_owned())];
                return Err(refused(Code::FailedPrecondition, "PAYMENT_DECLINED", facts));
            }
            Provider::InDoubt => paid.state = payment::State::InDoubt,
            Provider::ActionRequired => paid.state = payment::State::ActionRequired,
        }
        if next == Provider::AnswerLost {
            return Err(refused(Code::Unavailable, "CONNECTION_LOST", vec![]));
        }
        Ok(state.payment(request.name))
    }

    fn void(&self, request: payments::VoidPaymentRequest) -> Result<payments::Payment, Status> {
        self.note("VoidPayment");
        self.up("payments")?;
        let mut state = self.state();
        state.undo(request.command.as_ref());
        let paid = state.payments.entry(request.name.clone()).or_default();
        if paid.state != payment::State::Failed {
            paid.state = payment::State::Voided;
        }
        Ok(state.payment(request.name))
    }
}

// === impl State ===

impl State {
    fn not_undone(&self, command: Option<&Command>) -> Result<(), Status> {
        let command = command.expect("a saga's command");
        if self.undone.contains(&(command.saga.clone(), command.step_key.clone())) {
            return Err(refused(Code::FailedPrecondition, "UNDONE", vec![]));
        }
        Ok(())
    }

    fn undo(&mut self, command: Option<&Command>) {
        let command = command.expect("a saga's command");
        self.undone.insert((command.saga.clone(), command.step_key.clone()));
    }

    fn reservation(&self, name: String) -> inventory::Reservation {
        let state = self.reservations.get(&name).map_or(0, |(state, _)| (*state).into());
        inventory::Reservation { name, state, ..inventory::Reservation::default() }
    }

    fn payment(&self, name: String) -> payments::Payment {
        let paid = self.payments.get(&name).cloned().unwrap_or_default();
        let authorized = paid.state == payment::State::Authorized;
        payments::Payment {
            name,
            state: paid.state.into(),
            authorized: authorized.then(|| paid.amount.clone()),
            amount: Some(paid.amount),
            action_url: "https://provider.example/act".to_owned(),
            ..payments::Payment::default()
        }
    }
}

// === impl Fake ===

impl NamedService for Fake<CATALOG> {
    const NAME: &'static str = catalog_service_server::SERVICE_NAME;
}

impl NamedService for Fake<USERS> {
    const NAME: &'static str = users_service_server::SERVICE_NAME;
}

impl NamedService for Fake<INVENTORY> {
    const NAME: &'static str = inventory_service_server::SERVICE_NAME;
}

impl NamedService for Fake<PAYMENTS> {
    const NAME: &'static str = payments_service_server::SERVICE_NAME;
}

impl<const SERVICE: usize> Service<http::Request<Body>> for Fake<SERVICE> {
    type Response = http::Response<Body>;
    type Error = Infallible;
    type Future = BoxFuture<'static, Result<http::Response<Body>, Infallible>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: http::Request<Body>) -> Self::Future {
        let shop = Arc::clone(&self.0);
        Box::pin(async move { Ok(serve(shop, request).await) })
    }
}

async fn serve(shop: Arc<Shop>, request: http::Request<Body>) -> http::Response<Body> {
    let method = request.uri().path().rsplit('/').next().unwrap_or_default().to_owned();
    match method.as_str() {
        "BatchGetVariants" => unary(request, |message| ready(shop.variants(message))).await,
        "CheckCustomer" => unary(request, |message| ready(shop.check(message))).await,
        "BatchGetStocks" => unary(request, |message| ready(shop.stocks(message))).await,
        "CreateReservation" => unary(request, |message| ready(shop.reserve(message))).await,
        "CommitReservation" => unary(request, |message| ready(shop.commit(message))).await,
        "ReleaseReservation" => unary(request, |message| ready(shop.release(message))).await,
        "GetReservation" => {
            let get = |message: inventory::GetReservationRequest| -> Ready<Result<_, Status>> {
                ready(shop.up("inventory").map(|()| shop.state().reservation(message.name)))
            };
            unary(request, get).await
        }
        "CreatePayment" => unary(request, |message| ready(shop.create(message))).await,
        "AuthorizePayment" => unary(request, |message| Arc::clone(&shop).authorize(message)).await,
        "VoidPayment" => unary(request, |message| ready(shop.void(message))).await,
        other => panic!("nobody told the fakes about {other}"),
    }
}

/// Serves one call: what the generated code does, for a method that a test needs.
async fn unary<Q, A, F>(
    request: http::Request<Body>,
    answer: impl Fn(Q) -> F,
) -> http::Response<Body>
where
    Q: prost::Message + Default + 'static,
    A: prost::Message + Default + 'static,
    F: Future<Output = Result<A, Status>>,
{
    let service = tower::service_fn(|request: Request<Q>| {
        let answered = answer(request.into_inner());
        async move { answered.await.map(Response::new) }
    });
    Grpc::new(tonic_prost::ProstCodec::<A, Q>::default()).unary(service, request).await
}

fn refused(code: Code, reason: &'static str, facts: Vec<(&'static str, String)>) -> Status {
    status::of(&Refused { code, reason, facts })
}

fn euro(cents: i64) -> Money {
    let nanos = i32::try_from(cents % 100 * 10_000_000).unwrap();
    Money { currency_code: "EUR".to_owned(), units: cents / 100, nanos }
}
