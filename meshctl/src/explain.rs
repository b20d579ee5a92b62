//! `meshctl order explain`: one order, as everybody knows it, on one page.
//!
//! A service that cannot be asked is said, and hides nothing of the others.

use mesh::Channel;
use proto::{
    inventory::v1::{
        ListMovementsRequest, ListReservationsRequest, Movement, Reservation,
        inventory_service_client::InventoryServiceClient,
    },
    notifications::v1::{
        ListNotificationsRequest, Notification,
        notifications_service_client::NotificationsServiceClient,
    },
    operator::v1::{
        DeadLetter, GetSagaRequest, ListSagasRequest, Saga, dead_letter,
        sagas_service_client::SagasServiceClient,
    },
    orders::v1::{
        GetOrderRequest, ListOrderEventsRequest, Order, OrderEvent,
        orders_service_client::OrdersServiceClient,
    },
    payments::v1::{
        Attempt, GetPaymentRequest, ListAttemptsRequest, Payment,
        payments_service_client::PaymentsServiceClient,
    },
    shipping::v1::{
        ListShipmentsRequest, Shipment, shipping_service_client::ShippingServiceClient,
    },
};
use serde_json::json;

use crate::{
    access::Mesh,
    dead_letters,
    error::if_there,
    say::{self, Told},
};

mod page;

/// How many of each are shown: an order has few.
const MANY: i32 = 1_000;

/// What can be asked of orders.
#[derive(Debug, clap::Subcommand)]
pub enum Command {
    /// Tells an order's states, saga, money, stock, parcels, mails and trace on one page.
    Explain {
        /// `orders/{uuid}`.
        order: String,
    },
}

/// An order as everybody knows it.
#[derive(Clone, Debug, Default)]
pub(crate) struct Known {
    order: Order,
    events: Vec<OrderEvent>,
    sagas: Vec<Saga>,
    payment: Option<Payment>,
    attempts: Vec<Attempt>,
    reservations: Vec<Reservation>,
    movements: Vec<Movement>,
    shipments: Vec<Shipment>,
    notifications: Vec<Notification>,
    dead_letters: Vec<DeadLetter>,
    /// Who could not be asked, and why.
    silent: Vec<(&'static str, String)>,
}

// === impl Command ===

impl Command {
    pub(crate) async fn run(self, mesh: &Mesh) -> anyhow::Result<Told> {
        let Self::Explain { order } = self;
        let name = if order.contains('/') { order } else { format!("orders/{order}") };
        let known = Known::of(mesh, &name).await?;
        Ok(Told { text: page::of(&known), json: known.json()? })
    }
}

// === impl Known ===

impl Known {
    async fn of(mesh: &Mesh, name: &str) -> anyhow::Result<Self> {
        let orders = mesh.channel("orders")?;
        let mut client = OrdersServiceClient::new(orders.clone());
        let ask = GetOrderRequest { name: name.to_owned(), ..GetOrderRequest::default() };
        let order = mesh.ask("orders", client.get_order(mesh.request(ask))).await?;
        let ask = ListOrderEventsRequest {
            name: name.to_owned(),
            page_size: MANY,
            ..ListOrderEventsRequest::default()
        };
        let events = mesh.ask("orders", client.list_order_events(mesh.request(ask))).await?;
        let mut known = Self { order, events: events.order_events, ..Self::default() };
        let sagas = known.led_by(mesh, orders).await;
        known.heard("sagas", sagas);
        let money = known.paid_by(mesh).await;
        known.heard("payments", money);
        let stock = known.kept_for(mesh).await;
        known.heard("inventory", stock);
        let parcels = known.sent(mesh).await;
        known.heard("shipping", parcels);
        let mails = known.told(mesh).await;
        known.heard("notifications", mails);
        let letters = known.parked(mesh).await;
        known.heard("dead letters", letters);
        Ok(known)
    }

    fn heard(&mut self, service: &'static str, answer: anyhow::Result<()>) {
        if let Err(error) = answer {
            self.silent.push((service, format!("{error:#}")));
        }
    }

    async fn led_by(&mut self, mesh: &Mesh, orders: Channel) -> anyhow::Result<()> {
        let mut client = SagasServiceClient::new(orders);
        let key = self.order.name.clone();
        let ask = ListSagasRequest { key, ..ListSagasRequest::default() };
        let page = mesh.ask("orders", client.list_sagas(mesh.request(ask))).await?;
        for saga in page.sagas {
            let ask = mesh.request(GetSagaRequest { name: saga.name });
            self.sagas.push(mesh.ask("orders", client.get_saga(ask)).await?);
        }
        Ok(())
    }

    async fn paid_by(&mut self, mesh: &Mesh) -> anyhow::Result<()> {
        let mut client = PaymentsServiceClient::new(mesh.channel("payments")?);
        let name = format!("payments/{}", self.id());
        let ask = mesh.request(GetPaymentRequest { name: name.clone() });
        let payment = mesh.ask_if_served("payments", client.get_payment(ask)).await;
        self.payment = if_there(payment)?;
        if self.payment.is_some() {
            let ask = ListAttemptsRequest {
                payment: name,
                page_size: MANY,
                ..ListAttemptsRequest::default()
            };
            let page = mesh.ask("payments", client.list_attempts(mesh.request(ask))).await?;
            self.attempts = page.attempts;
        }
        Ok(())
    }

    async fn kept_for(&mut self, mesh: &Mesh) -> anyhow::Result<()> {
        let mut client = InventoryServiceClient::new(mesh.channel("inventory")?);
        let order = self.order.name.clone();
        let ask = ListReservationsRequest {
            order,
            page_size: MANY,
            ..ListReservationsRequest::default()
        };
        let page = mesh.ask("inventory", client.list_reservations(mesh.request(ask))).await?;
        self.reservations = page.reservations;
        for reservation in &self.reservations {
            let ask = ListMovementsRequest {
                cause: reservation.name.clone(),
                page_size: MANY,
                ..ListMovementsRequest::default()
            };
            let page = mesh.ask("inventory", client.list_movements(mesh.request(ask))).await?;
            self.movements.extend(page.movements);
        }
        Ok(())
    }

    async fn sent(&mut self, mesh: &Mesh) -> anyhow::Result<()> {
        let mut client = ShippingServiceClient::new(mesh.channel("shipping")?);
        let order = self.order.name.clone();
        let ask =
            ListShipmentsRequest { order, page_size: MANY, ..ListShipmentsRequest::default() };
        let page = mesh.ask("shipping", client.list_shipments(mesh.request(ask))).await?;
        self.shipments = page.shipments;
        Ok(())
    }

    async fn told(&mut self, mesh: &Mesh) -> anyhow::Result<()> {
        let mut client = NotificationsServiceClient::new(mesh.channel("notifications")?);
        let order = self.order.name.clone();
        let ask = ListNotificationsRequest {
            order,
            page_size: MANY,
            ..ListNotificationsRequest::default()
        };
        let page = mesh.ask("notifications", client.list_notifications(mesh.request(ask))).await?;
        self.notifications = page.notifications;
        Ok(())
    }

    async fn parked(&mut self, mesh: &Mesh) -> anyhow::Result<()> {
        let mut about = vec![self.order.name.clone()];
        about.extend(self.payment.iter().map(|it| it.name.clone()));
        about.extend(self.shipments.iter().map(|it| it.name.clone()));
        about.extend(self.reservations.iter().map(|it| it.name.clone()));
        for aggregate in about {
            let parked = dead_letter::State::Parked;
            let heard = dead_letters::of_all(mesh, parked, &aggregate, MANY).await?;
            self.dead_letters.extend(heard.answers.into_iter().flat_map(|(_, letters)| letters));
        }
        Ok(())
    }

    fn id(&self) -> &str {
        self.order.name.trim_start_matches("orders/")
    }

    /// The trace that the order's saga belongs to.
    fn trace_id(&self) -> Option<&str> {
        self.sagas.iter().find_map(|saga| saga.traceparent.split('-').nth(1))
    }

    fn json(&self) -> anyhow::Result<serde_json::Value> {
        let silent: serde_json::Map<String, serde_json::Value> =
            self.silent.iter().map(|(who, why)| ((*who).to_owned(), json!(why))).collect();
        Ok(json!({
            "order": say::json(&self.order)?,
            "traceId": self.trace_id(),
            "events": say::list(&self.events)?,
            "sagas": say::list(&self.sagas)?,
            "payment": self.payment.as_ref().map(say::json).transpose()?,
            "attempts": say::list(&self.attempts)?,
            "reservations": say::list(&self.reservations)?,
            "movements": say::list(&self.movements)?,
            "shipments": say::list(&self.shipments)?,
            "notifications": say::list(&self.notifications)?,
            "deadLetters": say::list(&self.dead_letters)?,
            "notAsked": silent,
        }))
    }
}
