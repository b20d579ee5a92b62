//! A shipping service with its carrier, on a database of its own, moved by hand.

use std::{
    future::Future,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::Duration,
};

use futures_util::future::BoxFuture;
use mesh::{
    auth::Caller,
    clock,
    page::Pages,
    testing::{self, TestDb},
};
use proto::{
    google::r#type::PostalAddress,
    saga::v1::Command,
    shipping::v1::{
        self as api, record_carrier_event_request::Kind, shipment::State,
        shipping_service_server::ShippingService as _,
    },
};
use tonic::{Request, Response, Status};
use uuid::Uuid;

use crate::{
    carrier::{Ask, BuiltIn, Carrier, Habits, News, Silent},
    domain::{Outcome, Pace},
    grpc::Shipping,
    resolver::Resolver,
    store::{Store, tests as rows},
};

/// The built-in carrier, with a count of how often it was asked.
pub(crate) struct Counting {
    inner: BuiltIn,
    asked: AtomicUsize,
    /// While set, it does what it is asked and never says so.
    pub(crate) mute: AtomicBool,
}

/// A shipping service and its carrier.
pub(crate) struct World {
    pub(crate) db: TestDb,
    pub(crate) store: Store,
    pub(crate) carrier: BuiltIn,
    pub(crate) counting: Arc<Counting>,
    pub(crate) resolver: Resolver,
    pub(crate) service: Shipping,
}

/// One shipment, as a saga of orders sees it.
#[derive(Clone)]
pub(crate) struct Parcel {
    pub(crate) id: Uuid,
    order: Uuid,
    saga: Uuid,
    organization: &'static str,
}

pub(crate) const ADA: &str = "users/0198f1c2-7a3b-7c4d-8e5f-000000000001";
pub(crate) const BOB: &str = "users/0198f1c2-7a3b-7c4d-8e5f-000000000002";

/// A carrier that takes no time, and comes by itself.
pub(crate) const SWIFT: Habits = Habits { stage: Duration::ZERO, comes_by_itself: true };

/// A carrier that takes no time, and waits for what is handed to it.
pub(crate) const PATIENT: Habits = Habits { stage: Duration::ZERO, comes_by_itself: false };

/// A pace without pauses: everything that is in doubt is due at once.
pub(crate) fn hasty() -> Pace {
    Pace { schedule: vec![Duration::ZERO; 10], unsent_after: Duration::ZERO }
}

// === impl Counting ===

impl Counting {
    pub(crate) fn asked(&self) -> usize {
        self.asked.load(Ordering::SeqCst)
    }
}

impl Carrier for Counting {
    fn send<'a>(&'a self, ask: &'a Ask) -> BoxFuture<'a, Outcome> {
        self.asked.fetch_add(1, Ordering::SeqCst);
        Box::pin(async move {
            let outcome = self.inner.send(ask).await;
            if self.mute.load(Ordering::SeqCst) {
                std::future::pending::<()>().await;
            }
            outcome
        })
    }

    fn news(&self, limit: u32) -> BoxFuture<'_, Result<Vec<News>, Silent>> {
        self.inner.news(limit)
    }

    fn acknowledge<'a>(&'a self, ids: &'a [String]) -> BoxFuture<'a, Result<(), Silent>> {
        self.inner.acknowledge(ids)
    }

    fn called(&self) -> BoxFuture<'_, ()> {
        self.inner.called()
    }
}

// === impl World ===

impl World {
    pub(crate) fn new(db: TestDb, habits: Habits) -> Self {
        let store = Store::new(db.store.clone(), hasty());
        let carrier = BuiltIn::new(db.store.clone(), habits);
        let counting = Arc::new(Counting {
            inner: carrier.clone(),
            asked: AtomicUsize::new(0),
            mute: AtomicBool::new(false),
        });
        let resolver = resolver(&store, Arc::clone(&counting));
        let service = Shipping::new(store.clone(), resolver.clone(), Pages::new([7; 32]));
        Self { db, store, carrier, counting, resolver, service }
    }

    /// Lets the carrier be asked for everything that is due.
    pub(crate) async fn ask(&self) {
        while self.resolver.pass().await.unwrap() > 0 {}
    }

    /// Lets the carrier move what is due by one stage, and takes in what it reports.
    pub(crate) async fn stage(&self) {
        self.carrier.pass().await.unwrap();
        while self.resolver.collect().await.unwrap() > 0 {}
    }

    /// A shipment that the carrier was asked for.
    pub(crate) async fn booked(&self, organization: &'static str) -> Parcel {
        let parcel = Parcel::new(organization);
        self.create(&parcel).await.unwrap();
        self.ask().await;
        parcel
    }

    pub(crate) async fn create(&self, parcel: &Parcel) -> Result<api::Shipment, Status> {
        told(as_orders(self.service.create_shipment(Request::new(parcel.create()))).await)
    }

    /// Cancels it as its saga does.
    pub(crate) async fn undo(&self, parcel: &Parcel) -> Result<api::Shipment, Status> {
        let request = api::CancelShipmentRequest {
            name: parcel.name(),
            command: Some(parcel.command("ship@north")),
            ..Default::default()
        };
        told(as_orders(self.service.cancel_shipment(Request::new(request))).await)
    }

    /// Cancels it as a clerk does.
    pub(crate) async fn cancel(
        &self,
        request: api::CancelShipmentRequest,
    ) -> Result<api::Shipment, Status> {
        told(as_clerk(self.service.cancel_shipment(Request::new(request))).await)
    }

    pub(crate) async fn dispatch(
        &self,
        request: api::DispatchShipmentRequest,
    ) -> Result<api::Shipment, Status> {
        told(as_clerk(self.service.dispatch_shipment(Request::new(request))).await)
    }

    pub(crate) async fn note(
        &self,
        parcel: &Parcel,
        event: &str,
        kind: Kind,
    ) -> Result<api::Shipment, Status> {
        let request = api::RecordCarrierEventRequest {
            name: parcel.name(),
            event_id: event.to_owned(),
            kind: kind.into(),
            ..Default::default()
        };
        let courier = Caller::with_roles("users/courier", &["courier"]);
        let call = self.service.record_carrier_event(Request::new(request));
        told(testing::as_caller(courier, call).await)
    }

    pub(crate) async fn get(&self, parcel: &Parcel) -> api::Shipment {
        let request = Request::new(api::GetShipmentRequest { name: parcel.name() });
        told(as_orders(self.service.get_shipment(request)).await).unwrap()
    }

    pub(crate) async fn state(&self, parcel: &Parcel) -> State {
        self.get(parcel).await.state()
    }

    /// The types of the events of a shipment; their places are its revisions, without a gap.
    pub(crate) async fn told(&self, parcel: &Parcel) -> Vec<String> {
        let sent = rows::events_of(&self.db, &parcel.name()).await;
        let revision = self.store.shipment(parcel.id).await.unwrap().unwrap().revision;
        let seqs: Vec<i64> = sent.iter().map(|(seq, _)| *seq).collect();
        assert_eq!(seqs, (1..=revision).collect::<Vec<_>>());
        sent.into_iter().map(|(_, kind)| kind).collect()
    }

    /// How many parcels the carrier has in its books.
    pub(crate) async fn parcels(&self) -> i64 {
        self.count("SELECT COUNT(*) AS count FROM carrier_parcel").await
    }

    pub(crate) async fn count(&self, sql: &str) -> i64 {
        rows::count(&self.db, sql).await
    }
}

// === impl Parcel ===

impl Parcel {
    pub(crate) fn new(organization: &'static str) -> Self {
        Self { id: clock::id(), order: clock::id(), saga: clock::id(), organization }
    }

    pub(crate) fn name(&self) -> String {
        format!("shipments/{}", self.id)
    }

    pub(crate) fn order(&self) -> String {
        format!("orders/{}", self.order)
    }

    pub(crate) fn command(&self, step: &str) -> Command {
        Command {
            saga: self.saga.to_string(),
            step_key: step.to_owned(),
            command_id: self.saga.to_string(),
            fence: 1,
        }
    }

    pub(crate) fn create(&self) -> api::CreateShipmentRequest {
        let line = |id: &str, quantity| api::shipment::Line {
            line_id: id.to_owned(),
            variant: "variants/MUG".to_owned(),
            quantity,
        };
        api::CreateShipmentRequest {
            shipment: Some(api::Shipment {
                order: self.order(),
                customer: ADA.to_owned(),
                lines: vec![line("1", 2), line("2", 1)],
                location: "locations/north".to_owned(),
                ship_to: Some(PostalAddress {
                    region_code: "DE".to_owned(),
                    locality: "Berlin".to_owned(),
                    recipients: vec!["Ada".to_owned()],
                    organization: self.organization.to_owned(),
                    ..Default::default()
                }),
                ..Default::default()
            }),
            shipment_id: self.id.to_string(),
            command: Some(self.command("ship@north")),
            ..Default::default()
        }
    }

    pub(crate) fn cancel(&self) -> api::CancelShipmentRequest {
        let request_id = clock::id().to_string();
        api::CancelShipmentRequest { name: self.name(), request_id, ..Default::default() }
    }

    pub(crate) fn dispatch(&self) -> api::DispatchShipmentRequest {
        let request_id = clock::id().to_string();
        api::DispatchShipmentRequest { name: self.name(), request_id, ..Default::default() }
    }
}

pub(crate) fn resolver(store: &Store, carrier: Arc<Counting>) -> Resolver {
    Resolver::new(store.clone(), carrier, Duration::from_secs(3))
}

pub(crate) async fn as_orders<F: Future>(call: F) -> F::Output {
    testing::as_caller(Caller::of_service("orders"), call).await
}

async fn as_clerk<F: Future>(call: F) -> F::Output {
    testing::as_caller(Caller::with_roles("users/clerk", &["warehouse"]), call).await
}

fn told(answer: Result<Response<api::Shipment>, Status>) -> Result<api::Shipment, Status> {
    answer.map(Response::into_inner)
}

/// The reason that a refusal names.
pub(crate) fn reason(refused: &Status) -> String {
    mesh::status::reason(refused).unwrap().reason
}

/// The state that a refusal names.
pub(crate) fn state_of(refused: &Status) -> String {
    mesh::status::reason(refused).unwrap().metadata["state"].clone()
}
