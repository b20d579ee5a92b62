//! A payments service beside a simulator, both real, on a database of their own.

use std::{collections::BTreeSet, future::Future, sync::Arc, time::Duration};

use clap::Parser as _;
use mesh::{
    auth::Caller,
    client::http::Http,
    clock,
    config::Bound,
    testing::{self, TestDb},
};
use proto::{
    google::r#type::Money,
    payments::v1::{self as api, payment::State, payments_service_server::PaymentsService as _},
    saga::v1::Command,
};
use tokio::sync::oneshot;
use tonic::{Request, Status};
use uuid::Uuid;

use crate::{
    domain::{Account, Movement, Pace, Payment},
    grpc::Payments,
    migrations,
    provider::{HttpProvider, Provider, policy},
    psp,
    resolver::Resolver,
    store::{Page, Store},
};

/// Which database a claim is shown on.
#[derive(Clone, Copy, Debug)]
pub(crate) enum On {
    Sqlite,
    Postgres,
}

/// A provider in this process.
pub(crate) struct Psp {
    pub(crate) http: Http,
    pub(crate) base: String,
    pub(crate) port: u16,
    /// It leaves when this is dropped.
    _stop: oneshot::Sender<()>,
}

/// A payments service and its provider.
pub(crate) struct World {
    pub(crate) db: TestDb,
    pub(crate) psp: Psp,
    pub(crate) store: Store,
    pub(crate) resolver: Resolver,
    pub(crate) service: Payments,
    _psp_db: TestDb,
}

/// One payment, as a saga of orders sees it.
#[derive(Clone)]
pub(crate) struct Order {
    pub(crate) id: Uuid,
    saga: String,
}

/// How long the service waits for the provider, and how late the provider answers at its latest.
pub(crate) const TIMEOUT: Duration = Duration::from_millis(300);
const SLOW: &str = "900ms";

/// A pace without pauses: everything that is in doubt is due at once.
pub(crate) fn hasty() -> Pace {
    Pace {
        schedule: vec![Duration::ZERO; 10],
        unsent_after: Duration::ZERO,
        action_poll: Duration::ZERO,
        keys_kept: Duration::from_secs(3_600),
    }
}

pub(crate) async fn database(on: On) -> TestDb {
    match on {
        On::Sqlite => testing::sqlite(migrations::all()).await,
        On::Postgres => testing::postgres(migrations::all()).await,
    }
}

/// A database without tables of ours, for the simulator to make its own.
pub(crate) async fn psp_database(on: On) -> TestDb {
    let db = match on {
        On::Sqlite => testing::sqlite(Vec::new()).await,
        On::Postgres => testing::postgres(Vec::new()).await,
    };
    db.store.close().await.unwrap();
    db
}

// === impl Psp ===

impl Psp {
    /// A simulator that keeps its books in `db`.
    pub(crate) async fn start(db: &TestDb) -> Self {
        Self::on(Bound::free().unwrap(), db).await
    }

    /// A simulator on sockets that others may have called already.
    pub(crate) async fn on(bound: Bound, db: &TestDb) -> Self {
        let arguments = [
            "psp-simulator",
            "--database-url",
            &db.url,
            "--slow",
            SLOW,
            "--drain",
            "0s",
            "--control",
        ];
        let mut config = psp::config::Config::try_parse_from(arguments).unwrap();
        config.mesh.bound = Some(Arc::new(bound));
        let app = psp::app(config).await.unwrap();
        let port = app.address().port();
        let base = format!("http://127.0.0.1:{port}");
        let (stop, stopped) = oneshot::channel::<()>();
        mesh::detach("simulator", Duration::from_secs(120), async move {
            let served = app.serve(async move {
                let _stopped_or_dropped = stopped.await.is_ok();
            });
            served.await.unwrap()
        });
        Self { http: Http::new(&base), base, port, _stop: stop }
    }

    pub(crate) async fn post(&self, path: &str, body: serde_json::Value) -> u16 {
        let body = body.to_string().into();
        let headers = http::HeaderMap::new();
        let call = self.http.call(http::Method::POST, path, headers, body, TIMEOUT * 10);
        testing::as_nobody(call).await.unwrap().0.as_u16()
    }

    pub(crate) async fn get(&self, path: &str) -> serde_json::Value {
        let (method, headers) = (http::Method::GET, http::HeaderMap::new());
        let call = self.http.call(method, path, headers, bytes::Bytes::new(), TIMEOUT * 10);
        let (status, body) = testing::as_nobody(call).await.unwrap();
        assert_eq!(status.as_u16(), 200, "{path}");
        serde_json::from_slice(&body).unwrap()
    }

    /// What moved at the provider: reference, movement, amount, fee.
    async fn moved(&self) -> BTreeSet<(String, String, i64, i64)> {
        let ledger = self.get("/v1/ledger?after=0").await;
        let text =
            |entry: &serde_json::Value, field: &str| entry[field].as_str().unwrap().to_owned();
        let entries = ledger["entries"].as_array().unwrap();
        let moved: BTreeSet<_> = entries
            .iter()
            .map(|entry| {
                let amount = entry["amount"].as_i64().unwrap();
                let fee = entry["fee"].as_i64().unwrap();
                (text(entry, "reference"), text(entry, "movement"), amount, fee)
            })
            .collect();
        assert_eq!(moved.len(), entries.len(), "nothing moves twice");
        moved
    }
}

// === impl World ===

impl World {
    pub(crate) async fn new(on: On) -> Self {
        Self::at_pace(on, hasty()).await
    }

    pub(crate) async fn at_pace(on: On, pace: Pace) -> Self {
        let psp_db = psp_database(on).await;
        let psp = Psp::start(&psp_db).await;
        let db = database(on).await;
        let provider = Arc::new(HttpProvider::new(&psp.base, policy(TIMEOUT)));
        let (store, resolver, service) = service(&db, provider, pace);
        Self { db, psp, store, resolver, service, _psp_db: psp_db }
    }

    /// Lets the resolver work until nothing is due, at most a dozen times.
    pub(crate) async fn resolve(&self) {
        for _ in 0..12 {
            if self.resolver.pass().await.unwrap() == 0 {
                return;
            }
        }
    }

    /// What moved by our ledger, as [`Psp::moved`] says it; it sums to 0, too.
    async fn moved(&self) -> BTreeSet<(String, String, i64, i64)> {
        let page = Page { size: 1_000, before: None };
        let entries = self.store.entries(None, &page).await.unwrap();
        assert_eq!(entries.iter().map(|entry| entry.posting.amount.minor).sum::<i64>(), 0);
        // What is promised to a customer is between us and them.
        let moves = entries.iter().filter(|entry| match entry.posting.movement {
            Movement::RefundGranted | Movement::RefundGrantRevoked => false,
            Movement::Refunded => entry.posting.account == Account::Customer,
            Movement::Authorized | Movement::Released | Movement::Captured => {
                entry.posting.account == Account::Hold
            }
        });
        moves
            .map(|hold| {
                let fee = entries.iter().find(|entry| {
                    entry.posting.account == Account::Fees
                        && entry.posting.reference == hold.posting.reference
                        && entry.posting.movement == hold.posting.movement
                });
                (
                    hold.posting.reference.clone(),
                    format!("{:?}", hold.posting.movement).to_lowercase(),
                    hold.posting.amount.minor.abs(),
                    fee.map_or(0, |fee| fee.posting.amount.minor),
                )
            })
            .collect()
    }

    /// No orphan charge, no phantom charge; says how many movements there were.
    pub(crate) async fn ledgers_agree(&self) -> usize {
        let (ours, theirs) = (self.moved().await, self.psp.moved().await);
        assert_eq!(ours, theirs);
        ours.len()
    }

    pub(crate) async fn payment(&self, order: &Order) -> Payment {
        self.store.payment(order.id).await.unwrap().unwrap()
    }

    pub(crate) async fn state(&self, order: &Order) -> State {
        let request = api::GetPaymentRequest { name: order.name() };
        let got = as_orders(self.service.get_payment(Request::new(request))).await.unwrap();
        got.into_inner().state()
    }

    pub(crate) async fn create(&self, order: &Order, token: &str) -> Result<api::Payment, Status> {
        let request = Request::new(order.create(token));
        Ok(as_orders(self.service.create_payment(request)).await?.into_inner())
    }

    pub(crate) async fn authorize(&self, order: &Order) -> Result<api::Payment, Status> {
        let command = Some(order.command("authorize_payment"));
        let name = order.name();
        let request = api::AuthorizePaymentRequest { name, command, ..Default::default() };
        let request = Request::new(request);
        Ok(as_orders(self.service.authorize_payment(request)).await?.into_inner())
    }

    pub(crate) async fn void(&self, order: &Order) -> Result<api::Payment, Status> {
        let command = Some(order.command("authorize_payment"));
        let request = api::VoidPaymentRequest { name: order.name(), command, ..Default::default() };
        let request = Request::new(request);
        Ok(as_orders(self.service.void_payment(request)).await?.into_inner())
    }

    pub(crate) async fn capture(
        &self,
        order: &Order,
        step: &str,
        amount: Option<Money>,
        last: bool,
    ) -> Result<api::Payment, Status> {
        let request = api::CapturePaymentRequest {
            name: order.name(),
            amount,
            r#final: last,
            command: Some(order.command(step)),
            ..Default::default()
        };
        let request = Request::new(request);
        Ok(as_orders(self.service.capture_payment(request)).await?.into_inner())
    }

    /// What a person, or the saga of this order, asks to be given back.
    pub(crate) async fn refund(
        &self,
        caller: Caller,
        request: api::CreateRefundRequest,
    ) -> Result<api::Refund, Status> {
        let call = self.service.create_refund(Request::new(request));
        Ok(testing::as_caller(caller, call).await?.into_inner())
    }

    /// An order whose payment was created and authorized with this token.
    pub(crate) async fn paid(&self, token: &str) -> (Order, Result<api::Payment, Status>) {
        let order = Order::new();
        self.create(&order, token).await.unwrap();
        let authorized = self.authorize(&order).await;
        (order, authorized)
    }
}

// === impl Order ===

impl Order {
    pub(crate) fn new() -> Self {
        Self { id: clock::id(), saga: clock::id().to_string() }
    }

    pub(crate) fn name(&self) -> String {
        format!("payments/{}", self.id)
    }

    pub(crate) fn command(&self, step: &str) -> Command {
        Command {
            saga: self.saga.clone(),
            step_key: step.to_owned(),
            command_id: Uuid::from_u128(
                u128::from_str_radix(&self.saga.replace('-', ""), 16).unwrap(),
            )
            .to_string(),
            fence: 1,
        }
    }

    /// A refund of this order's payment that nobody asked for yet.
    pub(crate) fn refund(&self, amount: Money) -> api::CreateRefundRequest {
        api::CreateRefundRequest {
            refund: Some(api::Refund {
                payment: self.name(),
                amount: Some(amount),
                reason: "lost on its way".to_owned(),
                ..Default::default()
            }),
            ..Default::default()
        }
    }

    pub(crate) fn create(&self, token: &str) -> api::CreatePaymentRequest {
        api::CreatePaymentRequest {
            payment: Some(api::Payment {
                order: format!("orders/{}", self.id),
                customer: CUSTOMER.to_owned(),
                amount: Some(euro(10, 50)),
                payment_method: token.to_owned(),
                ..Default::default()
            }),
            payment_id: self.id.to_string(),
            command: Some(self.command("authorize_payment")),
            ..Default::default()
        }
    }
}

pub(crate) const CUSTOMER: &str = "users/0198f1c2-7a3b-7c4d-8e5f-000000000001";

pub(crate) fn service(
    db: &TestDb,
    provider: Arc<dyn Provider>,
    pace: Pace,
) -> (Store, Resolver, Payments) {
    let store = Store::new(db.store.clone(), pace);
    let resolver = Resolver::new(store.clone(), provider);
    let service = Payments::new(store.clone(), resolver.clone(), [7; 32]);
    (store, resolver, service)
}

pub(crate) fn euro(units: i64, cents: i32) -> Money {
    Money { currency_code: "EUR".to_owned(), units, nanos: cents * 10_000_000 }
}

pub(crate) async fn as_orders<F: Future>(call: F) -> F::Output {
    testing::as_caller(Caller::of_service("orders"), call).await
}

/// The reason that a refusal names.
pub(crate) fn reason(refused: &Status) -> String {
    mesh::status::reason(refused).unwrap().reason
}

/// Shows each claim, an async function of [`On`], on both databases.
macro_rules! on_both_databases {
    ($($claim:ident)*) => {
        mod on_sqlite {
            $(#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $claim() {
                super::$claim(crate::harness::On::Sqlite).await;
            })*
        }

        mod on_postgres {
            $(#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            #[ignore = "needs postgres"]
            async fn $claim() {
                super::$claim(crate::harness::On::Postgres).await;
            })*
        }
    };
}
pub(crate) use on_both_databases;
