//! An order with what other services know of it, and without.

use std::future::Future;

use mesh::Ctx;
use proto::{
    orders::v1::{Availability, OrderView},
    payments::v1::payment,
    shipping::v1::shipment,
};
use tokio::sync::Barrier;

use super::*;

/// Long enough for an answer on a slow machine to tell from one that never comes.
const SOON: Duration = Duration::from_millis(300);

/// An answer, and what it has to do without.
type Answer<T> = (Result<T, Status>, Vec<String>);

impl Place {
    async fn viewed(&self, name: &str, view: OrderView) -> Answer<api::Order> {
        let request = api::GetOrderRequest { name: name.to_owned(), view: view.into() };
        told(self.orders.get_order(Request::new(request))).await
    }

    async fn summed_up(&self, name: &str) -> Answer<api::OrderSummary> {
        let request = api::GetOrderSummaryRequest { name: name.to_owned() };
        told(self.orders.get_order_summary(Request::new(request))).await
    }

    /// An order of Ada's that is on its way to her in one parcel.
    async fn sent(&self) -> String {
        let placed = self.create(request(mugs())).await.unwrap();
        assert_eq!(self.settled(&placed.name).await.state(), State::Confirmed);
        self.shop.called("CreateShipment", 1).await;
        placed.name
    }

    /// An order of Ada's that has ended: its payment was declined.
    async fn declined(&self) -> String {
        self.shop.state().script.push_back(Provider::Declined);
        let placed = self.create(request(mugs())).await.unwrap();
        assert_eq!(self.settled(&placed.name).await.state(), State::Rejected);
        placed.name
    }
}

/// What Ada is answered, and what her call says it does without, in the order of the alphabet.
async fn told<T>(call: impl Future<Output = Result<Response<T>, Status>>) -> Answer<T> {
    let call = async {
        let answer = call.await.map(Response::into_inner);
        let mut without: Vec<String> =
            Ctx::current().unwrap().degraded().iter().map(ToString::to_string).collect();
        without.sort();
        (answer, without)
    };
    testing::as_caller(Caller::customer(ADA), call).await
}

#[tokio::test]
async fn an_order_in_full_says_what_users_knows_of_its_customer() {
    let place = Place::new().await;
    let name = place.sent().await;
    let (order, without) = place.viewed(&name, OrderView::Full).await;
    let customer = order.unwrap().customer_details.unwrap();
    assert_eq!(customer.availability(), Availability::Known);
    assert_eq!(
        (customer.display_name.as_str(), customer.email.as_str()),
        ("Ada", "ada@example.com")
    );
    assert!(without.is_empty(), "{without:?}");
}

#[tokio::test]
async fn an_order_in_full_without_users_is_the_order_and_says_what_it_lacks() {
    let place = Place::new().await;
    let name = place.sent().await;
    place.shop.state().down.insert("users");
    let (order, without) = place.viewed(&name, OrderView::Full).await;
    let full = order.unwrap();
    let customer = full.customer_details.clone().unwrap();
    assert_eq!(customer.availability(), Availability::Unavailable);
    assert_eq!((customer.display_name.as_str(), customer.email.as_str()), ("", ""));
    assert_eq!(without, ["users"]);
    let plain = place.get(&name).await;
    assert_eq!(api::Order { customer_details: None, ..full }, plain);
}

#[tokio::test]
async fn an_order_that_is_not_asked_for_in_full_asks_nobody() {
    let place = Place::new().await;
    let name = place.declined().await;
    let before = place.shop.state().calls.clone();
    for view in [OrderView::Unspecified, OrderView::Basic] {
        let (order, without) = place.viewed(&name, view).await;
        assert_eq!((order.unwrap().customer_details, without), (None, vec![]));
    }
    assert_eq!(place.shop.state().calls, before);
    place.viewed(&name, OrderView::Full).await.0.unwrap();
    assert_eq!(place.shop.state().calls.len(), before.len() + 1);
}

#[tokio::test]
async fn an_account_that_is_closed_is_none_and_the_answer_lacks_nothing() {
    let place = Place::new().await;
    let name = place.sent().await;
    place.shop.state().closed.insert(ADA.to_owned());
    let (order, without) = place.viewed(&name, OrderView::Full).await;
    let customer = order.unwrap().customer_details.unwrap();
    assert_eq!((customer.availability(), without), (Availability::None, vec![]));
}

#[tokio::test]
async fn a_refusal_is_told_and_not_passed_off_as_an_answer_without() {
    let place = Place::new().await;
    let name = place.sent().await;
    let refused = reason(Code::PermissionDenied, "PERMISSION_DENIED");
    place.shop.state().forbidding.insert("users");
    let (order, without) = place.viewed(&name, OrderView::Full).await;
    assert_eq!((why(order), without), (refused.clone(), vec![]));
    for service in ["payments", "shipping"] {
        place.shop.state().forbidding = [service].into();
        let (summary, without) = place.summed_up(&name).await;
        assert_eq!((why(summary), without), (refused.clone(), vec![]), "{service}");
    }
}

#[tokio::test]
async fn a_summary_has_the_order_its_payment_and_its_shipments() {
    let place = Place::new().await;
    let name = place.sent().await;
    let (summary, without) = place.summed_up(&name).await;
    let summary = summary.unwrap();
    assert!(without.is_empty(), "{without:?}");
    assert_eq!(summary.order.unwrap().name, name);
    let payment = summary.payment.unwrap();
    assert_eq!(payment.availability(), Availability::Known);
    assert_eq!(payment.payment, of(&name, "payments"));
    assert_eq!(payment.state(), payment::State::Authorized);
    assert_eq!((payment.amount, payment.authorized), (Some(euro(1_998)), Some(euro(1_998))));
    assert_eq!((payment.captured, payment.decline_code.as_str()), (Some(euro(0)), ""));
    let delivery = summary.delivery.unwrap();
    assert_eq!(delivery.availability(), Availability::Known);
    let [sent] = &delivery.shipments[..] else { panic!("one shipment: {delivery:?}") };
    assert_eq!(sent.state(), shipment::State::Booked);
    assert!(place.shop.state().shipments.contains_key(&sent.shipment), "{sent:?}");
}

#[tokio::test]
async fn a_declined_payment_says_why_and_what_was_not_sent_is_none() {
    let place = Place::new().await;
    let name = place.declined().await;
    let (summary, without) = place.summed_up(&name).await;
    let summary = summary.unwrap();
    let payment = summary.payment.unwrap();
    assert_eq!(payment.availability(), Availability::Known);
    assert_eq!(
        (payment.state(), payment.decline_code.as_str()),
        (payment::State::Failed, "insufficient_funds")
    );
    assert_eq!(summary.delivery.unwrap().availability(), Availability::None);
    assert!(without.is_empty(), "{without:?}");
}

#[tokio::test]
async fn an_order_that_nothing_was_asked_for_yet_has_no_payment_and_the_answer_lacks_nothing() {
    let place = Place::new().await;
    place.shop.state().down.insert("inventory");
    let placed = place.create(request(mugs())).await.unwrap();
    let (summary, without) = place.summed_up(&placed.name).await;
    let summary = summary.unwrap();
    assert_eq!(summary.order.unwrap().state(), State::Pending);
    assert_eq!(summary.payment.unwrap().availability(), Availability::None);
    assert_eq!(summary.delivery.unwrap().availability(), Availability::None);
    assert!(without.is_empty(), "{without:?}");
}

#[tokio::test]
async fn a_summary_without_payments_or_shipping_has_the_rest_and_says_what_it_lacks() {
    let place = Place::new().await;
    let name = place.sent().await;
    for down in [&["payments"][..], &["shipping"], &["payments", "shipping"]] {
        place.shop.state().down = down.iter().copied().collect();
        let (summary, without) = place.summed_up(&name).await;
        let summary = summary.unwrap();
        assert_eq!(without, down);
        assert_eq!(summary.order.unwrap().name, name);
        let standing = |service| {
            if down.contains(&service) { Availability::Unavailable } else { Availability::Known }
        };
        let (payment, delivery) = (summary.payment.unwrap(), summary.delivery.unwrap());
        assert_eq!(payment.availability(), standing("payments"), "{down:?}");
        assert_eq!(delivery.availability(), standing("shipping"), "{down:?}");
        assert_eq!(payment.amount.is_none(), down.contains(&"payments"), "{down:?}");
        assert_eq!(delivery.shipments.is_empty(), down.contains(&"shipping"), "{down:?}");
    }
}

#[tokio::test]
async fn payments_and_shipping_are_asked_side_by_side() {
    let place = Place::new().await;
    // Nothing goes on in the background any more: whoever asks is the summary.
    let name = place.declined().await;
    let both = (&["GetPayment", "ListShipments"][..], Arc::new(Barrier::new(2)));
    place.shop.state().together = Some(both);
    let (summary, without) = place.summed_up(&name).await;
    assert_eq!(summary.unwrap().payment.unwrap().availability(), Availability::Known);
    assert!(without.is_empty(), "{without:?}");
}

#[tokio::test]
async fn what_hangs_is_waited_for_no_longer_than_was_set() {
    let place = Place::with(Patience { detail: SOON, ..PATIENCE }).await;
    let name = place.sent().await;
    place.shop.state().hung.extend(["users", "payments", "shipping"]);
    let began = clock::instant();
    let (summary, without) = place.summed_up(&name).await;
    let took = clock::instant() - began;
    let summary = summary.unwrap();
    assert_eq!(summary.payment.unwrap().availability(), Availability::Unavailable);
    assert_eq!(summary.delivery.unwrap().availability(), Availability::Unavailable);
    assert_eq!(without, ["payments", "shipping"]);
    assert!(took < Duration::from_secs(2), "{took:?}");

    let began = clock::instant();
    let (order, without) = place.viewed(&name, OrderView::Full).await;
    let took = clock::instant() - began;
    let customer = order.unwrap().customer_details.unwrap();
    assert_eq!(
        (customer.availability(), without),
        (Availability::Unavailable, vec!["users".into()])
    );
    assert!(took < Duration::from_secs(2), "{took:?}");
}
