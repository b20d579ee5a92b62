//! The service as its callers meet it, with the rest of the mesh played by [`shop`].

mod delivery;
mod shop;
mod summary;
mod watch;

use std::{sync::Arc, time::Duration};

use mesh::{
    app::Draining,
    auth::Caller,
    clock, status,
    testing::{self, TestDb},
};
use proto::{
    google::r#type::Money,
    inventory::v1::reservation,
    orders::v1::{self as api, order::State, orders_service_server::OrdersService as _},
    payments::v1::payment,
};
use tokio::task::JoinHandle;
use tonic::{Code, Request, Response, Status};
use uuid::Uuid;

use self::shop::{Provider, Shop};
use crate::{
    grpc::Orders,
    saga::{self, Patience},
    store::Store,
};

const ADA: &str = "users/0192f0c1-2345-7abc-8def-0123456789ab";
const BOB: &str = "users/0192f0c1-2345-7abc-8def-0123456789ac";
const STAFF: &str = "users/0192f0c1-2345-7abc-8def-0123456789ad";
const QUARTER: Duration = Duration::from_secs(900);
const LEASE: Duration = Duration::from_millis(300);

/// Advice is waited for, so that a slow machine changes nothing.
const PATIENCE: Patience = Patience {
    confirm: QUARTER,
    action: QUARTER,
    price_fresh: Duration::from_secs(5),
    customer_advice: Duration::from_secs(5),
    stock_advice: Duration::from_secs(5),
    detail: Duration::from_secs(5),
    delivery_look: Duration::from_secs(300),
};

/// Orders, served in this process, and the shop around it.
struct Place {
    shop: Arc<Shop>,
    orders: Orders,
    running: JoinHandle<()>,
    _db: TestDb,
}

impl Drop for Place {
    fn drop(&mut self) {
        self.running.abort();
    }
}

impl Place {
    async fn new() -> Self {
        Self::with(PATIENCE).await
    }

    async fn with(patience: Patience) -> Self {
        Self::on(testing::sqlite(Store::migrations()).await, patience)
    }

    async fn on_postgres() -> Self {
        Self::on(testing::postgres(Store::migrations()).await, PATIENCE)
    }

    fn on(db: TestDb, patience: Patience) -> Self {
        let shop = Shop::open();
        let (orders, running) = serve(&shop, &Store::on(db.store.clone()), patience);
        Self { shop, orders, running, _db: db }
    }

    async fn create(&self, request: api::CreateOrderRequest) -> Result<api::Order, Status> {
        self.create_as(Caller::customer(ADA), request).await.map(Response::into_inner)
    }

    async fn create_as(
        &self,
        caller: Caller,
        request: api::CreateOrderRequest,
    ) -> Result<Response<api::Order>, Status> {
        testing::as_caller(caller, self.orders.create_order(Request::new(request))).await
    }

    async fn cancel(&self, name: &str) -> Result<api::Order, Status> {
        let request = api::CancelOrderRequest { name: name.to_owned(), ..Default::default() };
        let call = self.orders.cancel_order(Request::new(request));
        testing::as_caller(Caller::customer(ADA), call).await.map(Response::into_inner)
    }

    async fn accept(&self, name: &str, cents: i64) -> Result<api::Order, Status> {
        let request = api::AcceptOrderChangesRequest {
            name: name.to_owned(),
            expected_total: Some(euro(cents)),
            ..Default::default()
        };
        let call = self.orders.accept_order_changes(Request::new(request));
        testing::as_caller(Caller::customer(ADA), call).await.map(Response::into_inner)
    }

    async fn get(&self, name: &str) -> api::Order {
        let request = api::GetOrderRequest { name: name.to_owned(), view: 0 };
        let call = self.orders.get_order(Request::new(request));
        testing::as_caller(Caller::customer(ADA), call).await.unwrap().into_inner()
    }

    /// The order once it is confirmed, has ended or needs its customer.
    async fn settled(&self, name: &str) -> api::Order {
        let id = id(name);
        let until = clock::instant() + Duration::from_secs(20);
        self.orders.store.settled(id, until).await.unwrap().unwrap();
        self.get(name).await
    }

    /// What happened to the order: the types, and where order and money stood.
    async fn history(&self, name: &str) -> Vec<(String, State, api::order::PaymentState)> {
        let request = api::ListOrderEventsRequest { name: name.to_owned(), ..Default::default() };
        let call = self.orders.list_order_events(Request::new(request));
        let page = testing::as_caller(Caller::customer(ADA), call).await.unwrap().into_inner();
        let revisions: Vec<i64> = page.order_events.iter().map(|event| event.revision).collect();
        let dense: Vec<i64> = (1..).take(revisions.len()).collect();
        assert_eq!(revisions, dense);
        let short = |kind: &str| kind.strip_prefix("order.").unwrap().to_owned();
        let entry = |e: api::OrderEvent| (short(&e.r#type), e.state(), e.payment_state());
        page.order_events.into_iter().map(entry).collect()
    }

    async fn types(&self, name: &str) -> Vec<String> {
        self.history(name).await.into_iter().map(|(kind, _, _)| kind).collect()
    }
}

/// A process that serves orders on this store: its service, and its runner at work.
#[expect(clippy::disallowed_methods, reason = "ends with the test")]
fn serve(shop: &Arc<Shop>, store: &Store, patience: Patience) -> (Orders, JoinHandle<()>) {
    let peers = shop.peers();
    let runner = saga::runner(store, &peers, patience, LEASE);
    let orders = Orders {
        store: store.clone(),
        views: peers.clone(),
        peers,
        runner: runner.clone(),
        pages: mesh::page::Pages::new([7; 32]),
        patience,
        quote_age_max: QUARTER,
        watching: crate::grpc::Watching::default(),
        leaving: Draining::default(),
    };
    let running = tokio::spawn(async move {
        runner.run(Draining::default()).await.unwrap();
    });
    (orders, running)
}

fn euro(cents: i64) -> Money {
    let nanos = i32::try_from(cents % 100 * 10_000_000).unwrap();
    Money { currency_code: "EUR".to_owned(), units: cents / 100, nanos }
}

fn line(sku: &str, quantity: i32) -> api::OrderLine {
    api::OrderLine { variant: format!("variants/{sku}"), quantity, ..Default::default() }
}

/// Two mugs for 19.98.
fn mugs() -> api::Order {
    api::Order {
        lines: vec![line("MUG", 2)],
        expected_total: Some(euro(1_998)),
        payment_method: "tok_visa".to_owned(),
        ..Default::default()
    }
}

fn request(order: api::Order) -> api::CreateOrderRequest {
    api::CreateOrderRequest { order: Some(order), ..Default::default() }
}

fn request_id(number: u128) -> String {
    Uuid::from_u128(number).to_string()
}

fn id(name: &str) -> Uuid {
    mesh::resource::parse_uuid("orders", name).unwrap()
}

fn of(name: &str, collection: &str) -> String {
    name.replace("orders/", &format!("{collection}/"))
}

fn why<T: std::fmt::Debug>(result: Result<T, Status>) -> (Code, String) {
    let refused = result.unwrap_err();
    let reason = status::reason(&refused).map(|info| info.reason).unwrap_or_default();
    (refused.code(), reason)
}

fn reason(code: Code, reason: &str) -> (Code, String) {
    (code, reason.to_owned())
}

fn rejection(order: &api::Order) -> (api::Reason, Vec<(String, String)>) {
    let rejection = order.rejection.clone().unwrap();
    let mut facts: Vec<_> = rejection.metadata.clone().into_iter().collect();
    facts.sort();
    (rejection.reason(), facts)
}

#[tokio::test]
async fn an_order_is_confirmed_once_stock_is_held_and_money_set_aside() {
    let place = Place::new().await;
    let placed = place.create(request(mugs())).await.unwrap();
    assert_eq!((placed.state(), placed.revision), (State::Pending, 1));
    assert_eq!(placed.customer_email, "ada@example.com");
    assert_eq!(placed.payment_method, "", "the token is not told again");

    let confirmed = place.settled(&placed.name).await;
    assert_eq!(confirmed.state(), State::Confirmed);
    assert_eq!(confirmed.payment_state(), api::order::PaymentState::Authorized);
    assert_eq!(confirmed.etag, format!("\"v{}\"", confirmed.revision));
    use api::order::PaymentState::{Authorized, Authorizing, Unpaid};
    assert_eq!(
        place.history(&placed.name).await,
        [
            ("created".to_owned(), State::Pending, Unpaid),
            ("payment_changed".to_owned(), State::Pending, Authorizing),
            ("payment_changed".to_owned(), State::Pending, Authorized),
            ("confirmed".to_owned(), State::Confirmed, Authorized),
        ]
    );
    place.shop.called("CommitReservation", 1).await;
    let state = place.shop.state();
    let held = &state.reservations[&of(&placed.name, "reservations")];
    assert_eq!(held.0, reservation::State::Committed);
    assert_eq!(state.payments[&of(&placed.name, "payments")].amount, euro(1_998));
}

#[tokio::test]
async fn a_caller_who_waits_is_told_the_outcome() {
    let place = Place::new().await;
    let wait = Some(prost_types::Duration { seconds: 5, nanos: 0 });
    let order = place.create(api::CreateOrderRequest { wait, ..request(mugs()) }).await.unwrap();
    assert_eq!(order.state(), State::Confirmed);
}

#[tokio::test]
async fn what_is_plainly_short_is_refused_at_once_and_stays_refused_for_that_request() {
    let place = Place::new().await;
    place.shop.state().stock.insert("MUG".to_owned(), 1);
    let asked = api::CreateOrderRequest { request_id: request_id(1), ..request(mugs()) };
    let refused = place.create(asked.clone()).await.unwrap_err();
    let info = status::reason(&refused).unwrap();
    assert_eq!((info.metadata["sku"].as_str(), info.metadata["available"].as_str()), ("MUG", "1"));

    place.shop.state().stock.insert("MUG".to_owned(), 100);
    let again = place.create_as(Caller::customer(ADA), asked).await;
    let again = again.map(Response::into_inner);
    let replayed = again.as_ref().unwrap_err().metadata().get("mesh-replayed").cloned();
    assert_eq!(replayed.unwrap(), "true");
    assert_eq!(why(again), reason(Code::FailedPrecondition, "OUT_OF_STOCK"));
    assert_eq!(place.shop.log(), Vec::<String>::new());
    place.create(request(mugs())).await.unwrap();
}

#[tokio::test]
async fn an_order_that_finds_no_stock_is_rejected_with_nothing_held_or_charged() {
    let place = Place::new().await;
    {
        let mut state = place.shop.state();
        state.stock_hidden = true;
        state.stock.insert("MUG".to_owned(), 1);
    }
    let placed = place.create(request(mugs())).await.unwrap();
    let rejected = place.settled(&placed.name).await;
    assert_eq!(rejected.state(), State::Rejected);
    let facts = [("available", "1"), ("sku", "MUG")].map(|(k, v)| (k.to_owned(), v.to_owned()));
    assert_eq!(rejection(&rejected), (api::Reason::OutOfStock, facts.to_vec()));
    assert_eq!(place.types(&placed.name).await, ["created", "rejected"]);
    assert_eq!(place.shop.log(), ["CreateReservation", "ReleaseReservation"]);
    assert_eq!(place.shop.state().stock["MUG"], 1);
}

#[tokio::test]
async fn a_declined_payment_gives_the_stock_back_before_the_order_is_rejected() {
    let place = Place::new().await;
    place.shop.state().script.push_back(Provider::Declined);
    let placed = place.create(request(mugs())).await.unwrap();
    let rejected = place.settled(&placed.name).await;
    assert_eq!(rejected.state(), State::Rejected);
    assert_eq!(rejected.payment_state(), api::order::PaymentState::Failed);
    let facts = vec![("decline_code".to_owned(), "insufficient_funds".to_owned())];
    assert_eq!(rejection(&rejected), (api::Reason::PaymentDeclined, facts));
    let expected = ["CreateReservation", "AuthorizePayment", "VoidPayment", "ReleaseReservation"];
    assert_eq!(place.shop.log(), expected);
    assert_eq!(place.shop.state().stock["MUG"], 100);
    let types = place.types(&placed.name).await;
    assert_eq!(types, ["created", "payment_changed", "payment_changed", "rejected"]);
}

#[tokio::test]
async fn a_payment_in_doubt_is_waited_for_and_not_guessed() {
    let place = Place::new().await;
    place.shop.state().script.extend([Provider::InDoubt, Provider::Authorized]);
    let placed = place.create(request(mugs())).await.unwrap();
    let confirmed = place.settled(&placed.name).await;
    assert_eq!(confirmed.state(), State::Confirmed);
    let money: Vec<_> =
        place.history(&placed.name).await.into_iter().map(|(_, _, money)| money).collect();
    use api::order::PaymentState::{Authorized, Authorizing, InDoubt, Unpaid};
    assert_eq!(money, [Unpaid, Authorizing, InDoubt, Authorized, Authorized]);
    let state = place.shop.state();
    assert_eq!(state.payments[&of(&placed.name, "payments")].attempts.len(), 1);
}

#[tokio::test]
async fn a_lost_answer_is_asked_for_again_by_the_same_command() {
    let place = Place::new().await;
    place.shop.state().script.push_back(Provider::AnswerLost);
    let placed = place.create(request(mugs())).await.unwrap();
    assert_eq!(place.settled(&placed.name).await.state(), State::Confirmed);
    let state = place.shop.state();
    assert_eq!(state.payments[&of(&placed.name, "payments")].attempts.len(), 1);
}

#[tokio::test]
async fn a_payment_that_needs_its_customer_waits_for_them_and_goes_on() {
    let place = Place::new().await;
    place.shop.state().script.extend([Provider::ActionRequired, Provider::Authorized]);
    let placed = place.create(request(mugs())).await.unwrap();
    let waiting = place.settled(&placed.name).await;
    assert_eq!(waiting.state(), State::ActionRequired);
    let pending = waiting.pending_action.unwrap();
    assert_eq!(pending.kind(), api::pending_action::Kind::Payment);
    assert_eq!(pending.url, "https://provider.example/act");
    let refused = place.accept(&placed.name, 1_998).await;
    assert_eq!(why(refused), reason(Code::FailedPrecondition, "ORDER_STATE"));

    place.shop.called("CommitReservation", 1).await;
    let confirmed = place.get(&placed.name).await;
    assert_eq!((confirmed.state(), confirmed.pending_action), (State::Confirmed, None));
}

#[tokio::test]
async fn an_order_whose_customer_does_not_act_expires_with_nothing_held() {
    let place = Place::with(Patience { action: Duration::from_millis(20), ..PATIENCE }).await;
    place.shop.state().script.extend([Provider::ActionRequired; 9]);
    let placed = place.create(request(mugs())).await.unwrap();
    place.shop.called("ReleaseReservation", 1).await;
    let mut order = place.settled(&placed.name).await;
    while order.state() == State::ActionRequired {
        tokio::task::yield_now().await;
        order = place.get(&placed.name).await;
    }
    assert_eq!(order.state(), State::Expired);
    assert_eq!(order.payment_state(), api::order::PaymentState::Voided);
    assert_eq!(place.shop.state().stock["MUG"], 100);
}

#[tokio::test]
async fn an_order_cancelled_while_it_is_being_paid_is_voided_and_released() {
    let place = Place::new().await;
    place.shop.state().script.push_back(Provider::Hangs);
    let placed = place.create(request(mugs())).await.unwrap();
    place.shop.called("AuthorizePayment", 1).await;
    let cancelling = place.cancel(&placed.name).await.unwrap();
    assert_eq!(cancelling.state(), State::Cancelling);
    place.shop.gate.notify_one();
    let cancelled = place.settled(&placed.name).await;
    assert_eq!(cancelled.state(), State::Cancelled);
    assert_eq!(cancelled.payment_state(), api::order::PaymentState::Voided);
    let state = place.shop.state();
    assert_eq!(state.payments[&of(&placed.name, "payments")].state, payment::State::Voided);
    assert_eq!(state.stock["MUG"], 100);
}

#[tokio::test]
async fn a_confirmed_order_can_be_cancelled_and_only_once() {
    let place = Place::new().await;
    let placed = place.create(request(mugs())).await.unwrap();
    place.shop.called("CommitReservation", 1).await;
    place.cancel(&placed.name).await.unwrap();
    let cancelled = place.settled(&placed.name).await;
    assert_eq!(cancelled.state(), State::Cancelled);
    assert_eq!(place.shop.state().stock["MUG"], 100);
    let again = place.cancel(&placed.name).await;
    assert_eq!(why(again), reason(Code::FailedPrecondition, "ORDER_STATE"));
    let types = place.types(&placed.name).await;
    assert_eq!(types[3..], ["confirmed", "cancelling", "payment_changed", "cancelled"]);
}

#[tokio::test]
async fn the_same_request_twenty_times_at_once_is_one_order_and_twenty_equal_answers() {
    let place = Place::new().await;
    let asked = api::CreateOrderRequest { request_id: request_id(1), ..request(mugs()) };
    let calls = (0..20).map(|_| place.create_as(Caller::customer(ADA), asked.clone()));
    let answers: Vec<_> =
        futures_util::future::join_all(calls).await.into_iter().map(Result::unwrap).collect();
    let first = answers.iter().filter(|answer| answer.metadata().get("mesh-replayed").is_none());
    assert_eq!(first.count(), 1);
    let orders: Vec<_> = answers.into_iter().map(Response::into_inner).collect();
    assert!(orders.iter().all(|order| *order == orders[0]));

    place.settled(&orders[0].name).await;
    let later = place.create(asked.clone()).await.unwrap();
    assert_eq!(later, orders[0], "the stored answer, whatever happened since");
    let waiting = Some(prost_types::Duration { seconds: 1, nanos: 0 });
    let other = place.create(api::CreateOrderRequest { wait: waiting, ..asked }).await;
    assert_eq!(why(other), reason(Code::InvalidArgument, "REQUEST_ID_REUSED"));
    let call = place.orders.list_orders(Request::new(api::ListOrdersRequest::default()));
    let listed = testing::as_caller(Caller::customer(ADA), call).await.unwrap().into_inner();
    assert_eq!(listed.orders.len(), 1);
}

#[test]
fn another_process_carries_on_where_one_was_killed() {
    let process = || {
        tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap()
    };
    let (database, killed, successor) = (process(), process(), process());
    let patience = PATIENCE;
    let shop = Shop::open();
    let db = database.block_on(testing::sqlite(Store::migrations()));
    let store = database.block_on(async { Store::on(db.store.clone()) });
    shop.state().script.push_back(Provider::Hangs);
    let name = killed.block_on(async {
        let (orders, _running) = serve(&shop, &store, patience);
        let call = orders.create_order(Request::new(request(mugs())));
        let placed = testing::as_caller(Caller::customer(ADA), call).await.unwrap();
        shop.called("AuthorizePayment", 1).await;
        placed.into_inner().name
    });
    killed.shutdown_background();

    successor.block_on(async {
        let (orders, running) = serve(&shop, &store, patience);
        shop.called("CommitReservation", 1).await;
        let settled = orders.store.order(id(&name)).await.unwrap().unwrap();
        assert_eq!(settled.order.state, crate::domain::State::Confirmed);
        running.abort();
    });
    let state = shop.state();
    assert_eq!(state.payments[&of(&name, "payments")].attempts.len(), 1, "one command, twice");
    assert_eq!(state.stock["MUG"], 98, "held once");
}

#[tokio::test]
async fn a_price_that_moved_before_the_payment_is_the_customers_to_agree_to() {
    let place = Place::new().await;
    let dearer = [("MUG".to_owned(), (1_099, "v2".to_owned()))].into();
    place.shop.state().later = Some((1, dearer));
    let placed = place.create(request(mugs())).await.unwrap();
    let waiting = place.settled(&placed.name).await;
    assert_eq!(waiting.state(), State::ActionRequired);
    let pending = waiting.pending_action.unwrap();
    assert_eq!(pending.kind(), api::pending_action::Kind::Price);
    assert_eq!(pending.current_total, Some(euro(2_198)));
    assert!(!place.shop.log().contains(&"AuthorizePayment".to_owned()));

    let unseen = place.accept(&placed.name, 1_998).await;
    assert_eq!(why(unseen), reason(Code::Aborted, "PRICE_CHANGED"));
    let going_on = place.accept(&placed.name, 2_198).await.unwrap();
    assert_eq!(going_on.state(), State::Pending);
    let confirmed = place.settled(&placed.name).await;
    assert_eq!(confirmed.state(), State::Confirmed);
    assert_eq!(confirmed.totals.unwrap().total, Some(euro(2_198)));
    let state = place.shop.state();
    assert_eq!(state.payments[&of(&placed.name, "payments")].amount, euro(2_198));
}

#[tokio::test]
async fn a_price_that_fell_before_the_pivot_is_agreed_to_and_one_that_rose_ends_the_order() {
    let place = Place::with(Patience { price_fresh: Duration::ZERO, ..PATIENCE }).await;
    let now_at = |cents| [("MUG".to_owned(), (cents, "v2".to_owned()))].into();
    // Read when it is placed and before it is paid; moved before it is confirmed.
    place.shop.state().later = Some((2, now_at(899)));
    let placed = place.create(request(mugs())).await.unwrap();
    let waiting = place.settled(&placed.name).await;
    assert_eq!(waiting.state(), State::ActionRequired);
    assert_eq!(waiting.payment_state(), api::order::PaymentState::Authorized);
    place.accept(&placed.name, 1_798).await.unwrap();
    let confirmed = place.settled(&placed.name).await;
    assert_eq!(confirmed.state(), State::Confirmed);
    assert_eq!(confirmed.totals.unwrap().total, Some(euro(1_798)));

    place.shop.state().later = Some((2, now_at(1_099)));
    let order = api::Order { expected_total: Some(euro(1_798)), ..mugs() };
    let placed = place.create(request(order)).await.unwrap();
    let rejected = place.settled(&placed.name).await;
    assert_eq!(rejected.state(), State::Rejected);
    let facts = vec![("current_total".to_owned(), "21.98 EUR".to_owned())];
    assert_eq!(rejection(&rejected), (api::Reason::PriceChanged, facts));
    assert_eq!(rejected.payment_state(), api::order::PaymentState::Voided);
}

#[tokio::test]
async fn a_price_that_rose_while_the_customer_was_paying_is_noticed_before_the_pivot() {
    let place = Place::with(Patience { price_fresh: Duration::from_millis(200), ..PATIENCE }).await;
    {
        let mut state = place.shop.state();
        // Read when it is placed and before it is paid, which takes the customer a second.
        state.later = Some((2, [("MUG".to_owned(), (1_099, "v2".to_owned()))].into()));
        state.script.extend([Provider::ActionRequired, Provider::Authorized]);
    }
    let placed = place.create(request(mugs())).await.unwrap();
    let mut order = place.settled(&placed.name).await;
    while matches!(order.state(), State::ActionRequired | State::Pending) {
        tokio::task::yield_now().await;
        order = place.get(&placed.name).await;
    }
    assert_eq!(order.state(), State::Rejected);
    assert_eq!(rejection(&order).0, api::Reason::PriceChanged);
    assert_eq!(order.payment_state(), api::order::PaymentState::Voided);
    assert!(place.types(&placed.name).await.contains(&"action_required".to_owned()));
}

#[tokio::test]
async fn a_customer_who_agrees_to_less_gets_what_there_is() {
    let place = Place::new().await;
    place.shop.state().stock.insert("MUG".to_owned(), 1);
    place.shop.state().stock_hidden = true;
    let policy = api::StockPolicy::PartialWithConsent.into();
    let order = api::Order { stock_policy: policy, ..mugs() };
    let placed = place.create(request(order)).await.unwrap();
    place.shop.called("CreateReservation", 1).await;
    place.shop.state().stock_hidden = false;
    let waiting = place.settled(&placed.name).await;
    let pending = waiting.pending_action.unwrap();
    assert_eq!(pending.kind(), api::pending_action::Kind::Stock);
    assert_eq!(pending.options[0].quantity, 1);
    place.accept(&placed.name, 999).await.unwrap();
    let confirmed = place.settled(&placed.name).await;
    assert_eq!(confirmed.state(), State::Confirmed);
    assert_eq!((confirmed.lines[0].quantity, confirmed.lines[0].cancelled), (2, 1));
    let state = place.shop.state();
    assert_eq!(state.stock["MUG"], 0);
    assert_eq!(state.payments[&of(&placed.name, "payments")].amount, euro(999));
}

#[tokio::test]
async fn who_takes_less_is_asked_although_it_is_plainly_short() {
    let place = Place::new().await;
    place.shop.state().stock.insert("MUG".to_owned(), 1);
    let policy = api::StockPolicy::PartialWithConsent.into();
    let placed = place.create(request(api::Order { stock_policy: policy, ..mugs() })).await;
    let placed = placed.unwrap();
    let waiting = place.settled(&placed.name).await;
    assert_eq!(waiting.state(), State::ActionRequired);
    assert_eq!(waiting.pending_action.unwrap().options[0].quantity, 1);

    // Of nothing there is no part.
    place.shop.state().stock.insert("MUG".to_owned(), 0);
    let refused = place.create(request(api::Order { stock_policy: policy, ..mugs() })).await;
    let rejected = place.settled(&refused.unwrap().name).await;
    assert_eq!(
        (rejected.state(), rejection(&rejected).0),
        (State::Rejected, api::Reason::OutOfStock)
    );
}

#[tokio::test]
async fn an_order_waiting_for_agreement_can_be_cancelled() {
    let place = Place::new().await;
    let dearer = [("MUG".to_owned(), (1_099, "v2".to_owned()))].into();
    place.shop.state().later = Some((1, dearer));
    let placed = place.create(request(mugs())).await.unwrap();
    assert_eq!(place.settled(&placed.name).await.state(), State::ActionRequired);
    place.cancel(&placed.name).await.unwrap();
    assert_eq!(place.settled(&placed.name).await.state(), State::Cancelled);
    assert_eq!(place.shop.state().stock["MUG"], 100);
}

#[tokio::test]
async fn a_total_that_the_customer_did_not_expect_is_not_charged() {
    let place = Place::new().await;
    let order = api::Order { expected_total: Some(euro(1_997)), ..mugs() };
    let refused = place.create(request(order)).await.unwrap_err();
    let info = status::reason(&refused).unwrap();
    assert_eq!((refused.code(), info.reason.as_str()), (Code::Aborted, "PRICE_CHANGED"));
    assert_eq!(info.metadata["current_total"], "19.98 EUR");
    assert_eq!(info.metadata["lines"], "1=19.98 EUR");
    let any = api::CreateOrderRequest {
        accept_current_price: true,
        ..request(api::Order { expected_total: None, ..mugs() })
    };
    assert!(place.create(any).await.is_ok());
}

#[tokio::test]
async fn a_quote_is_honoured_although_prices_moved_but_for_its_customer_only() {
    let place = Place::new().await;
    let asked = api::QuoteOrderRequest { order: Some(mugs()) };
    let call = place.orders.quote_order(Request::new(asked));
    let quoted = testing::as_caller(Caller::customer(ADA), call).await.unwrap().into_inner();
    assert_eq!(quoted.totals.unwrap().total, Some(euro(1_998)));

    place.shop.state().prices.insert("MUG".to_owned(), (5_000, "v2".to_owned()));
    let order = || api::Order { quote: quoted.quote.clone(), expected_total: None, ..mugs() };
    let placed = place.create(request(order())).await.unwrap();
    let confirmed = place.settled(&placed.name).await;
    assert_eq!(confirmed.state(), State::Confirmed);
    assert_eq!(confirmed.totals.unwrap().total, Some(euro(1_998)));

    let by_bob = place.create_as(Caller::customer(BOB), request(order())).await;
    assert_eq!(why(by_bob), reason(Code::InvalidArgument, "FIELD_VIOLATION"));
    let more = api::Order { lines: vec![line("MUG", 3)], ..order() };
    assert_eq!(
        why(place.create(request(more)).await),
        reason(Code::InvalidArgument, "FIELD_VIOLATION")
    );
}

#[tokio::test]
async fn another_customers_order_is_denied_by_every_call_whether_it_exists_or_not() {
    let place = Place::new().await;
    let placed = place.create(request(mugs())).await.unwrap();
    let unknown = format!("orders/{}", clock::id());
    let denied = reason(Code::PermissionDenied, "PERMISSION_DENIED");
    let bob = || Caller::customer(BOB);
    for name in [placed.name, unknown] {
        for view in [api::OrderView::Unspecified, api::OrderView::Full] {
            let get = api::GetOrderRequest { name: name.clone(), view: view.into() };
            let get = testing::as_caller(bob(), place.orders.get_order(Request::new(get))).await;
            assert_eq!(why(get), denied, "{name}");
        }
        let summary = api::GetOrderSummaryRequest { name: name.clone() };
        let summary = place.orders.get_order_summary(Request::new(summary));
        assert_eq!(why(testing::as_caller(bob(), summary).await), denied, "{name}");
        let batch = api::BatchGetOrdersRequest { names: vec![name.clone()] };
        let batch = place.orders.batch_get_orders(Request::new(batch));
        assert_eq!(why(testing::as_caller(bob(), batch).await), denied, "{name}");
        let events = api::ListOrderEventsRequest { name: name.clone(), ..Default::default() };
        let events = place.orders.list_order_events(Request::new(events));
        assert_eq!(why(testing::as_caller(bob(), events).await), denied, "{name}");
        let cancel = api::CancelOrderRequest { name: name.clone(), ..Default::default() };
        let cancel = place.orders.cancel_order(Request::new(cancel));
        assert_eq!(why(testing::as_caller(bob(), cancel).await), denied, "{name}");
        let accept = api::AcceptOrderChangesRequest {
            name: name.clone(),
            expected_total: Some(euro(1)),
            ..Default::default()
        };
        let accept = place.orders.accept_order_changes(Request::new(accept));
        assert_eq!(why(testing::as_caller(bob(), accept).await), denied, "{name}");
    }
    let for_ada = || api::Order { customer: ADA.to_owned(), ..mugs() };
    let create = place.create_as(bob(), request(for_ada())).await;
    assert_eq!(why(create), denied);
    let quote = api::QuoteOrderRequest { order: Some(for_ada()) };
    let quote = place.orders.quote_order(Request::new(quote));
    assert_eq!(why(testing::as_caller(bob(), quote).await), denied);
    let list = place.orders.list_orders(Request::new(api::ListOrdersRequest::default()));
    let list = testing::as_caller(bob(), list).await.unwrap().into_inner();
    assert_eq!(list.orders, []);
}

#[tokio::test]
async fn staff_order_for_a_customer_and_cancel_only_what_they_have_read() {
    let place = Place::new().await;
    let staff = || Caller::with_roles(STAFF, &["support"]);
    let nobody = place.create_as(staff(), request(mugs())).await;
    assert_eq!(why(nobody), reason(Code::InvalidArgument, "FIELD_VIOLATION"));
    let order = api::Order { customer: ADA.to_owned(), ..mugs() };
    let placed = place.create_as(staff(), request(order)).await.unwrap().into_inner();
    assert_eq!(placed.customer, ADA);
    place.shop.called("CommitReservation", 1).await;

    let cancel = async |etag: &str| {
        let request = api::CancelOrderRequest {
            name: placed.name.clone(),
            etag: etag.to_owned(),
            reason: api::CancelReason::Fraud.into(),
            ..Default::default()
        };
        testing::as_caller(staff(), place.orders.cancel_order(Request::new(request))).await
    };
    assert_eq!(why(cancel("").await), reason(Code::InvalidArgument, "FIELD_VIOLATION"));
    assert_eq!(why(cancel("\"v1\"").await), reason(Code::Aborted, "ETAG_MISMATCH"));
    let etag = place.get(&placed.name).await.etag;
    cancel(&etag).await.unwrap();
    assert_eq!(place.settled(&placed.name).await.state(), State::Cancelled);
    let unknown = api::GetOrderRequest { name: format!("orders/{}", clock::id()), view: 0 };
    let unknown = place.orders.get_order(Request::new(unknown));
    assert_eq!(
        why(testing::as_caller(staff(), unknown).await),
        reason(Code::NotFound, "NOT_FOUND")
    );
}

#[tokio::test]
async fn without_users_and_inventory_an_order_is_taken_and_without_prices_it_is_not() {
    let place = Place::new().await;
    place.shop.state().down.extend(["users", "inventory"]);
    let placed = place.create(request(mugs())).await.unwrap();
    assert_eq!((placed.state(), placed.customer_email.as_str()), (State::Pending, ""));
    place.shop.state().down.clear();
    let confirmed = place.settled(&placed.name).await;
    assert_eq!(confirmed.state(), State::Confirmed);
    assert_eq!(confirmed.customer_email, "ada@example.com");

    place.shop.state().down.insert("catalog");
    let refused = place.create(request(mugs())).await;
    assert_eq!(why(refused), reason(Code::Unavailable, "DEPENDENCY_DOWN"));
}

#[tokio::test]
async fn who_may_not_order_is_refused_at_once_or_by_the_saga() {
    let place = Place::new().await;
    place.shop.state().inactive.insert(ADA.to_owned());
    let refused = place.create(request(mugs())).await;
    assert_eq!(why(refused), reason(Code::FailedPrecondition, "CUSTOMER_INACTIVE"));

    place.shop.state().down.insert("users");
    let placed = place.create(request(mugs())).await.unwrap();
    place.shop.state().down.clear();
    let rejected = place.settled(&placed.name).await;
    assert_eq!(rejected.state(), State::Rejected);
    assert_eq!(rejection(&rejected), (api::Reason::CustomerInactive, vec![]));
}

#[tokio::test]
async fn a_variant_that_is_not_for_sale_is_named_by_its_line() {
    let place = Place::new().await;
    let order = api::Order { lines: vec![line("MUG", 2), line("PEN", 1)], ..mugs() };
    let refused = place.create(request(order)).await.unwrap_err();
    use tonic_types::StatusExt as _;
    let wrong = refused.get_details_bad_request().unwrap().field_violations;
    assert_eq!(wrong[0].field, "order.lines[1].variant");
}

#[tokio::test]
async fn what_is_only_validated_is_not_placed() {
    let place = Place::new().await;
    let asked = api::CreateOrderRequest {
        validate_only: true,
        request_id: request_id(1),
        ..request(mugs())
    };
    let order = place.create(asked.clone()).await.unwrap();
    assert_eq!((order.name.as_str(), order.totals.unwrap().total), ("", Some(euro(1_998))));
    let list = place.orders.list_orders(Request::new(api::ListOrdersRequest::default()));
    let list = testing::as_caller(Caller::customer(ADA), list).await.unwrap().into_inner();
    assert_eq!(list.orders, []);
    let placed = place.create(api::CreateOrderRequest { validate_only: false, ..asked }).await;
    assert!(placed.is_ok(), "validating does not use up the request id");
}

#[tokio::test]
async fn an_id_of_the_callers_choice_is_taken_once() {
    let place = Place::new().await;
    let order_id = clock::id().to_string();
    let asked = api::CreateOrderRequest { order_id: order_id.clone(), ..request(mugs()) };
    let placed = place.create(asked.clone()).await.unwrap();
    assert_eq!(placed.name, format!("orders/{order_id}"));
    let again = place.create(asked).await;
    assert_eq!(why(again), reason(Code::AlreadyExists, "ALREADY_EXISTS"));
}

#[tokio::test]
async fn lists_go_on_by_their_token_and_no_other() {
    let place = Place::new().await;
    for _ in 0..3 {
        place.create(request(mugs())).await.unwrap();
    }
    let list = async |page_size, page_token: &str, caller| {
        let request = api::ListOrdersRequest { page_size, page_token: page_token.to_owned() };
        let call = place.orders.list_orders(Request::new(request));
        testing::as_caller(caller, call).await.map(Response::into_inner)
    };
    let ada = || Caller::customer(ADA);
    let first = list(2, "", ada()).await.unwrap();
    assert_eq!(first.orders.len(), 2);
    let rest = list(2, &first.next_page_token, ada()).await.unwrap();
    assert_eq!((rest.orders.len(), rest.next_page_token.as_str()), (1, ""));
    let stolen = list(2, &first.next_page_token, Caller::customer(BOB)).await;
    assert_eq!(why(stolen), reason(Code::InvalidArgument, "PAGE_TOKEN_MISMATCH"));
    let negative = list(-1, "", ada()).await;
    assert_eq!(why(negative), reason(Code::InvalidArgument, "FIELD_VIOLATION"));
    let all = list(10, "", Caller::with_roles(STAFF, &["support"])).await.unwrap();
    assert_eq!(all.orders.len(), 3);
}
