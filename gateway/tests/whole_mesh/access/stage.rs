//! The mesh with two customers and something to sell, and what is asked of it.

use std::{
    collections::BTreeMap,
    sync::atomic::{AtomicU64, Ordering},
};

use mesh::{Channel, auth::Caller};
use serde_json::{Value, json};
use tonic::Code;

use super::{
    cast::Customer,
    wire::{Answer, Contract},
};
use crate::bed::{Bed, Changes, SERVICES};

/// The mesh as it is played on.
pub struct Stage {
    pub bed: Bed,
    pub contract: Contract,
    channels: BTreeMap<&'static str, Channel>,
    /// Whose everything is, unless a case says otherwise.
    pub ada: Customer,
    /// Another customer.
    pub bob: Customer,
    /// The token of the service that orders are carried out by.
    pub orders: String,
    /// `variants/{sku}`, of which there is plenty.
    pub variant: String,
    count: AtomicU64,
}

/// A request that succeeds, once, for everybody whom the rule names.
pub struct Case {
    pub request: Value,
    pub reach: Reach,
    pub owner: Customer,
    /// What a saga has to say, and a person may not.
    pub command: Option<Value>,
}

/// What of its owner's a request reaches.
#[derive(Debug)]
pub enum Reach {
    /// This thing, which it names.
    Named(String),
    /// This thing, which is in the list that it asks for.
    Listed(String),
    /// Nothing that has an owner.
    Anyones,
}

/// Without advice on stock an order is placed that then waits for its customer; a payment that
/// stays pending is a person's task at once; the carrier comes for nothing by itself, so what is
/// confirmed can be called off; and something stands in a log that nobody can take in.
const CHANGES: Changes = Changes {
    flags: &[
        ("orders", &["--stock-advice-timeout=0ms"]),
        ("payments", &["--resolve-schedule=1ms"]),
    ],
    defaults_at_the_edge: false,
    nonsense: true,
    behind_doors: &[],
    spans: None,
};

// === impl Reach ===

impl Reach {
    pub fn has_owner(&self) -> bool {
        match self {
            Self::Named(_) | Self::Listed(_) => true,
            Self::Anyones => false,
        }
    }
}

// === impl Case ===

impl Case {
    /// The request as this caller makes it.
    pub fn request_of(&self, caller: Option<&Caller>) -> Value {
        let mut request = self.request.clone();
        let command = caller.and_then(Caller::service).and(self.command.as_ref());
        if let (Some(command), Some(fields)) = (command, request.as_object_mut()) {
            fields.insert("command".to_owned(), command.clone());
        }
        request
    }
}

// === impl Stage ===

impl Stage {
    pub async fn set() -> Self {
        let bed = Box::pin(Bed::with(CHANGES)).await;
        let channels = SERVICES.map(|(name, _)| (name, bed.channel(name))).into();
        let nobody = Customer { name: String::new(), email: String::new(), token: String::new() };
        let mut stage = Self {
            bed,
            contract: Contract::read(),
            channels,
            ada: nobody.clone(),
            bob: nobody,
            orders: String::new(),
            variant: String::new(),
            count: AtomicU64::new(0),
        };
        stage.ada = stage.customer().await;
        stage.bob = stage.customer().await;
        stage.orders = stage.service("orders").await;
        let main = json!({"location": {"displayName": "Main"}, "locationId": "main"});
        stage.as_admin("ordermesh.inventory.v1.InventoryService.CreateLocation", &main).await;
        stage.variant = stage.sold(1_000_000).await;
        stage
    }

    /// A request for this rpc that succeeds, and what it needs; `None` if nobody wrote one.
    pub async fn case(&self, method: &str) -> Option<Case> {
        let (service, rpc) = method.rsplit_once('.').expect("a service");
        match service {
            "ordermesh.auth.v1.TokensService" => self.token_case(rpc).await,
            "ordermesh.users.v1.UsersService" => self.user_case(rpc).await,
            "ordermesh.catalog.v1.CatalogService" => self.catalog_case(rpc).await,
            "ordermesh.inventory.v1.InventoryService" => self.inventory_case(rpc).await,
            "ordermesh.orders.v1.OrdersService" => self.order_case(rpc).await,
            "ordermesh.payments.v1.PaymentsService" => self.payment_case(rpc).await,
            "ordermesh.shipping.v1.ShippingService" => self.shipment_case(rpc).await,
            "ordermesh.notifications.v1.NotificationsService" => self.notification_case(rpc).await,
            _ => self.operator_case(service, rpc).await,
        }
    }

    /// Calls an rpc at the service that serves it.
    pub async fn call(&self, method: &str, token: Option<&str>, request: &Value) -> Answer {
        self.ask(process_of(method), method, token, request).await
    }

    /// Calls an rpc at one of those that may serve it.
    pub async fn ask(
        &self,
        process: &str,
        method: &str,
        token: Option<&str>,
        request: &Value,
    ) -> Answer {
        let channel = self.channels.get(process);
        let channel = channel.unwrap_or_else(|| panic!("no process serves {method}")).clone();
        self.contract.call(channel, method, token, request).await
    }

    /// The same where it must succeed.
    pub async fn ok(&self, method: &str, token: &str, request: &Value) -> Value {
        let answer = self.call(method, Some(token), request).await;
        assert_eq!(answer.code, Code::Ok, "{method}: {answer:?} to {request}");
        answer.body
    }

    /// The same as admin: what fixtures are made with.
    pub async fn as_admin(&self, method: &str, request: &Value) -> Value {
        self.ok(method, &self.bed.admin, request).await
    }

    /// A text that was not there before.
    pub fn fresh(&self, stem: &str) -> String {
        format!("{stem}{}", self.count.fetch_add(1, Ordering::Relaxed))
    }

    /// A request for something that has no owner.
    pub fn anyones(&self, request: Value) -> Case {
        self.adas(request, Reach::Anyones)
    }

    /// A request for something of Ada's.
    pub fn adas(&self, request: Value, reach: Reach) -> Case {
        Case { request, reach, owner: self.ada.clone(), command: None }
    }
}

/// Who is asked: whose package it is, or one of those that serve what every process serves.
fn process_of(method: &str) -> &str {
    if method.contains(".SagasService.") {
        return "orders";
    }
    if method.contains(".DeadLettersService.") {
        return "notifications";
    }
    match method.split('.').nth(1).expect("a package") {
        "auth" => "users",
        "events" | "operator" => "shipping",
        package => package,
    }
}

/// The name of a thing that was made.
pub fn name(thing: &Value) -> String {
    thing["name"].as_str().unwrap_or_else(|| panic!("no name in {thing}")).to_owned()
}
