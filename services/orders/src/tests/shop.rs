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
    payments::v1::{self as payments, payment, payments_service_server, refund},
    saga::v1::Command,
    shipping::v1::{self as shipping, shipment, shipping_service_server},
    users::v1::{self as users, users_service_server},
};
use tokio::sync::{Barrier, Notify, watch};
use tonic::{
    Code, Request, Response, Status,
    body::Body,
    codegen::{Service, http},
    server::{Grpc, NamedService},
    service::Routes,
};

use crate::saga::Peers;

/// All five of them.
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
    /// Services that take a call and never answer it.
    pub hung: BTreeSet<&'static str>,
    /// Services that refuse every call.
    pub forbidding: BTreeSet<&'static str>,
    /// Every call that came, by its method.
    pub calls: Vec<String>,
    /// Calls of these methods are answered once there is one of each.
    pub together: Option<(&'static [&'static str], Arc<Barrier>)>,
    /// Whose account is closed.
    pub closed: BTreeSet<String>,
    /// Who may not order.
    pub inactive: BTreeSet<String>,
    /// How the next authorizations go; `Authorized` once there are no more.
    pub script: VecDeque<Provider>,
    /// Reservations by name.
    pub reservations: BTreeMap<String, (reservation::State, Vec<reservation::Line>)>,
    /// Lines beyond the first lie elsewhere.
    pub scattered: bool,
    /// Reservations answer that so many more units are held.
    pub held_too_much: i32,
    /// An e-mail is told; a limit, if it is to be.
    pub limit: Option<Money>,
    /// Shipments by name.
    pub shipments: BTreeMap<String, shipping::Shipment>,
    /// Shipping takes nothing for these locations.
    pub refused: BTreeSet<String>,
    /// Parts of reservations that were fulfilled, and that were restocked: location and units.
    pub fulfilled: Vec<(String, i32)>,
    /// See `fulfilled`.
    pub restocked: Vec<(String, i32)>,
    /// What of a refund is answered, in turn; `Succeeded` once there are no more.
    pub refunds: VecDeque<refund::State>,
    /// How the next captures go; `Authorized` (well) once there are no more.
    pub captures: VecDeque<Provider>,
    /// What is shipped is lost while its money is taken, and nobody hears that it was.
    pub lost_while_taken: bool,
    /// Commands that were carried out.
    commands: BTreeSet<String>,
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
    /// It does not get there.
    NeverSent,
}

/// A payment.
#[derive(Clone, Debug, Default)]
pub struct Paid {
    /// Where it stands.
    pub state: payment::State,
    /// How much.
    pub amount: Money,
    /// Cents that were taken, and that were given back.
    pub captured: i64,
    /// See `captured`.
    pub refunded: i64,
    /// Nothing more can be taken.
    pub closed: bool,
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

/// One of the five, as the mesh sees it.
#[derive(Clone)]
struct Fake<const SERVICE: usize>(Arc<Shop>);

const CATALOG: usize = 0;
const USERS: usize = 1;
const INVENTORY: usize = 2;
const PAYMENTS: usize = 3;
const SHIPPING: usize = 4;

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

    /// Clients of the five.
    pub fn peers(self: &Arc<Self>) -> Peers {
        let by_name = [
            ("catalog", Routes::new(Fake::<CATALOG>(Arc::clone(self)))),
            ("users", Routes::new(Fake::<USERS>(Arc::clone(self)))),
            ("inventory", Routes::new(Fake::<INVENTORY>(Arc::clone(self)))),
            ("payments", Routes::new(Fake::<PAYMENTS>(Arc::clone(self)))),
            ("shipping", Routes::new(Fake::<SHIPPING>(Arc::clone(self)))),
        ];
        let by_name: BTreeMap<&str, Channel> = by_name
            .into_iter()
            .map(|(name, routes)| (name, testing::channel_named(name, routes).unwrap()))
            .collect();
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
        let state = self.state();
        if state.down.contains(service) {
            return Err(refused(Code::Unavailable, "DEPENDENCY_DOWN", vec![]));
        }
        if state.forbidding.contains(service) {
            return Err(refused(Code::PermissionDenied, "PERMISSION_DENIED", vec![]));
        }
        Ok(())
    }

    /// Notes a call, and keeps it as long as the test wants it kept.
    async fn taken(&self, service: &'static str, method: &str) {
        let (hung, together) = {
            let mut state = self.state();
            state.calls.push(method.to_owned());
            (state.hung.contains(service), state.together.clone())
        };
        if hung {
            std::future::pending::<()>().await;
        }
        if let Some((methods, barrier)) = together
            && methods.contains(&method)
        {
            barrier.wait().await;
        }
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
        let state = self.state();
        if state.closed.contains(&request.name) {
            return Err(refused(Code::NotFound, "NOT_FOUND", vec![]));
        }
        Ok(users::CheckCustomerResponse {
            active: !state.inactive.contains(&request.name),
            name: request.name,
            email: "ada@example.com".to_owned(),
            display_name: "Ada".to_owned(),
            order_limit: state.limit.clone(),
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
            for line in &asked.lines {
                let available = state.stock.get(sku(line)).copied().unwrap_or_default();
                if available < i64::from(line.quantity) {
                    let facts =
                        vec![("sku", sku(line).to_owned()), ("available", available.to_string())];
                    return Err(refused(Code::FailedPrecondition, "OUT_OF_STOCK", facts));
                }
            }
            let mut lines = asked.lines;
            for (number, line) in lines.iter_mut().enumerate() {
                *state.stock.entry(sku(line).to_owned()).or_default() -= i64::from(line.quantity);
                let elsewhere = state.scattered && number > 0;
                let location = if elsewhere { "locations/HAM" } else { "locations/BER" };
                let quantity = line.quantity;
                let part = reservation::Allotment {
                    location: location.to_owned(),
                    quantity,
                    ..reservation::Allotment::default()
                };
                line.allotments.push(part);
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
        for line in before.map(|(_, lines)| lines).unwrap_or_default() {
            *state.stock.entry(sku(&line).to_owned()).or_default() += i64::from(line.quantity);
        }
        Ok(state.reservation(request.name))
    }

    fn fulfil(
        &self,
        request: inventory::FulfillReservationRequest,
    ) -> Result<inventory::Reservation, Status> {
        self.note("FulfillReservation");
        self.up("inventory")?;
        let mut state = self.state();
        state.not_undone(request.command.as_ref())?;
        if state.is_first(request.command.as_ref()) {
            let parts = request.lines.into_iter().map(|line| (line.location, line.quantity));
            state.fulfilled.extend(parts);
        }
        Ok(state.reservation(request.name))
    }

    fn restock(
        &self,
        request: inventory::RestockReservationRequest,
    ) -> Result<inventory::Reservation, Status> {
        self.note("RestockReservation");
        self.up("inventory")?;
        let mut state = self.state();
        if state.is_first(request.command.as_ref()) {
            let parts = request.lines.into_iter().map(|line| (line.location, line.quantity));
            state.restocked.extend(parts);
        }
        Ok(state.reservation(request.name))
    }

    fn send(&self, request: shipping::CreateShipmentRequest) -> Result<shipping::Shipment, Status> {
        self.note("CreateShipment");
        self.up("shipping")?;
        let mut state = self.state();
        state.not_undone(request.command.as_ref())?;
        let asked = request.shipment.unwrap_or_default();
        if state.refused.contains(&asked.location) {
            return Err(refused(Code::FailedPrecondition, "SHIPMENT_STATE", vec![]));
        }
        let name = format!("shipments/{}", request.shipment_id);
        let booked = shipment::State::Booked.into();
        let asked = shipping::Shipment { name: name.clone(), state: booked, ..asked };
        Ok(state.shipments.entry(name).or_insert(asked).clone())
    }

    fn sent(&self, request: shipping::GetShipmentRequest) -> Result<shipping::Shipment, Status> {
        self.up("shipping")?;
        let found = self.state().shipments.get(&request.name).cloned();
        found.ok_or_else(|| refused(Code::NotFound, "NOT_FOUND", vec![]))
    }

    /// The shipments of one order.
    fn list(
        &self,
        request: shipping::ListShipmentsRequest,
    ) -> Result<shipping::ListShipmentsResponse, Status> {
        self.up("shipping")?;
        let state = self.state();
        let of = |shipment: &&shipping::Shipment| shipment.order == request.order;
        let shipments = state.shipments.values().filter(of).cloned().collect();
        Ok(shipping::ListShipmentsResponse { shipments, next_page_token: String::new() })
    }

    fn call_back(
        &self,
        request: shipping::CancelShipmentRequest,
    ) -> Result<shipping::Shipment, Status> {
        self.note("CancelShipment");
        self.up("shipping")?;
        let mut state = self.state();
        state.undo(request.command.as_ref());
        let name = request.name;
        let found = state.shipments.entry(name.clone()).or_default();
        if found.state() >= shipment::State::Dispatched
            && found.state() < shipment::State::Cancelled
        {
            return Err(refused(Code::FailedPrecondition, "SHIPMENT_STATE", vec![]));
        }
        found.name = name;
        found.set_state(shipment::State::Cancelled);
        Ok(found.clone())
    }

    /// The shipment from this location goes on.
    pub fn carry(&self, location: &str, to: shipment::State) {
        let mut state = self.state();
        let found = state.shipments.values_mut().find(|it| it.location.ends_with(location));
        found.expect("a shipment from there").set_state(to);
    }

    fn capture(
        &self,
        request: payments::CapturePaymentRequest,
    ) -> Result<payments::Payment, Status> {
        self.note(if request.r#final { "CapturePayment final" } else { "CapturePayment" });
        self.up("payments")?;
        let mut state = self.state();
        let first = state.is_first(request.command.as_ref());
        let next = state.captures.pop_front().unwrap_or(Provider::Authorized);
        let paid = state.payments.entry(request.name.clone()).or_default();
        if next == Provider::InDoubt {
            paid.state = payment::State::InDoubt;
            drop(state);
            self.forget(request.command.as_ref());
            return Ok(self.state().payment(request.name));
        }
        if first && paid.closed {
            drop(state);
            self.forget(request.command.as_ref());
            return Err(refused(Code::FailedPrecondition, "PAYMENT_STATE", vec![]));
        }
        if first {
            paid.captured += cents(&request.amount.unwrap_or_default());
            paid.closed = request.r#final;
            paid.state = if paid.closed {
                payment::State::Captured
            } else {
                payment::State::PartiallyCaptured
            };
        }
        if std::mem::take(&mut state.lost_while_taken) {
            for shipment in state.shipments.values_mut() {
                shipment.set_state(shipment::State::Lost);
            }
            return Err(refused(Code::Unavailable, "CONNECTION_LOST", vec![]));
        }
        if next == Provider::AnswerLost {
            return Err(refused(Code::Unavailable, "CONNECTION_LOST", vec![]));
        }
        Ok(state.payment(request.name))
    }

    /// What was refused leaves nothing behind.
    fn forget(&self, command: Option<&Command>) {
        let command = command.expect("a saga's command");
        self.state().commands.remove(&format!("{}/{}", command.saga, command.step_key));
    }

    fn pay_back(&self, request: payments::CreateRefundRequest) -> Result<payments::Refund, Status> {
        self.note("CreateRefund");
        self.up("payments")?;
        let mut state = self.state();
        let asked = request.refund.unwrap_or_default();
        if state.is_first(request.command.as_ref()) {
            let paid = state.payments.entry(asked.payment.clone()).or_default();
            paid.refunded += cents(&asked.amount.clone().unwrap_or_default());
        }
        let told = state.refunds.pop_front().unwrap_or(refund::State::Succeeded).into();
        let name = format!("refunds/{}", request.refund_id);
        Ok(payments::Refund { name, state: told, ..asked })
    }

    fn paid_back(&self, request: payments::GetRefundRequest) -> Result<payments::Refund, Status> {
        self.up("payments")?;
        let told = self.state().refunds.pop_front().unwrap_or(refund::State::Succeeded).into();
        Ok(payments::Refund { name: request.name, state: told, ..payments::Refund::default() })
    }

    fn create(&self, request: payments::CreatePaymentRequest) -> Result<payments::Payment, Status> {
        self.up("payments")?;
        let mut state = self.state();
        state.not_undone(request.command.as_ref())?;
        let name = format!("payments/{}", request.payment_id);
        let asked = request.payment.unwrap_or_default();
        let known = state.payments.get(&name).is_some_and(|paid| {
            paid.state != payment::State::Unspecified && Some(&paid.amount) != asked.amount.as_ref()
        });
        if known {
            return Err(refused(Code::AlreadyExists, "ALREADY_EXISTS", vec![]));
        }
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
        if next == Provider::NeverSent {
            return Err(refused(Code::Unavailable, "DEPENDENCY_DOWN", vec![]));
        }
        if next == Provider::Hangs {
            self.gate.notified().await;
        }
        let mut state = self.state();
        let late = state.not_undone(request.command.as_ref());
        let paid = state.payments.entry(request.name.clone()).or_default();
        match next {
            Provider::Authorized | Provider::Hangs | Provider::AnswerLost | Provider::NeverSent => {
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
        paid.closed = true;
        if paid.captured > 0 {
            paid.state = payment::State::Captured;
        } else if paid.state != payment::State::Failed {
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

    /// Whether a command comes for the first time.
    fn is_first(&mut self, command: Option<&Command>) -> bool {
        let command = command.expect("a saga's command");
        self.commands.insert(format!("{}/{}", command.saga, command.step_key))
    }

    fn reservation(&self, name: String) -> inventory::Reservation {
        let (state, mut lines) = match self.reservations.get(&name) {
            Some((state, lines)) => ((*state).into(), lines.clone()),
            None => (0, Vec::new()),
        };
        for line in &mut lines {
            line.quantity += self.held_too_much;
        }
        inventory::Reservation { name, state, lines, ..inventory::Reservation::default() }
    }

    fn payment(&self, name: String) -> payments::Payment {
        let paid = self.payments.get(&name).cloned().unwrap_or_default();
        // What is held or was taken; nothing is known of it while the first answer is in doubt.
        let held = [payment::State::Authorized, payment::State::PartiallyCaptured];
        let held = !paid.closed && (held.contains(&paid.state) || paid.captured > 0);
        let taken = (paid.captured > 0).then(|| euro(paid.captured));
        let authorized = if held { Some(paid.amount.clone()) } else { taken };
        let declined = paid.state == payment::State::Failed;
        payments::Payment {
            name,
            decline_code: if declined { "insufficient_funds" } else { "" }.to_owned(),
            payment_method: "tok_visa".to_owned(),
            state: paid.state.into(),
            authorized,
            captured: Some(euro(paid.captured)),
            refunded: Some(euro(paid.refunded)),
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

impl NamedService for Fake<SHIPPING> {
    const NAME: &'static str = shipping_service_server::SERVICE_NAME;
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
        let service = ["catalog", "users", "inventory", "payments", "shipping"][SERVICE];
        Box::pin(async move { Ok(serve(shop, service, request).await) })
    }
}

async fn serve(
    shop: Arc<Shop>,
    service: &'static str,
    request: http::Request<Body>,
) -> http::Response<Body> {
    let method = request.uri().path().rsplit('/').next().unwrap_or_default().to_owned();
    shop.taken(service, &method).await;
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
        "GetPayment" => {
            let get = |message: payments::GetPaymentRequest| -> Ready<Result<_, Status>> {
                ready(shop.up("payments").and_then(|()| {
                    let state = shop.state();
                    let known = state.payments.contains_key(&message.name);
                    let missing = || refused(Code::NotFound, "NOT_FOUND", vec![]);
                    if known { Ok(state.payment(message.name)) } else { Err(missing()) }
                }))
            };
            unary(request, get).await
        }
        "FulfillReservation" => unary(request, |message| ready(shop.fulfil(message))).await,
        "RestockReservation" => unary(request, |message| ready(shop.restock(message))).await,
        "CapturePayment" => unary(request, |message| ready(shop.capture(message))).await,
        "CreateRefund" => unary(request, |message| ready(shop.pay_back(message))).await,
        "GetRefund" => unary(request, |message| ready(shop.paid_back(message))).await,
        "CreateShipment" => unary(request, |message| ready(shop.send(message))).await,
        "GetShipment" => unary(request, |message| ready(shop.sent(message))).await,
        "ListShipments" => unary(request, |message| ready(shop.list(message))).await,
        "CancelShipment" => unary(request, |message| ready(shop.call_back(message))).await,
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

fn sku(line: &reservation::Line) -> &str {
    line.variant.strip_prefix("variants/").unwrap_or_default()
}

fn cents(money: &Money) -> i64 {
    money.units * 100 + i64::from(money.nanos / 10_000_000)
}

fn euro(cents: i64) -> Money {
    let nanos = i32::try_from(cents % 100 * 10_000_000).unwrap();
    Money { currency_code: "EUR".to_owned(), units: cents / 100, nanos }
}
