//! From CONFIRMED to the doorstep, and the ways back.

use mesh::{
    consume::{Handler as _, Trouble},
    log::Event,
    store::Failure,
};
use proto::{
    payments::v1 as payments,
    shipping::v1::{self as shipping, shipment},
};

use super::{shop::Provider, *};
use crate::saga::Wake;

use api::order::{FulfillmentState, PaymentState};

impl Place {
    /// A confirmed order whose shipments are there.
    async fn booked(&self, order: api::Order, shipments: usize) -> String {
        let placed = self.create(request(order)).await.unwrap();
        assert_eq!(self.settled(&placed.name).await.state(), State::Confirmed);
        self.shop.called("CreateShipment", shipments).await;
        self.waits_for_parcels(&placed.name).await;
        placed.name
    }

    /// The saga has asked for the parcels, and waits: what is heard from now on wakes it, and
    /// does not meet a call under way.
    async fn waits_for_parcels(&self, name: &str) {
        let waits = async {
            loop {
                let store = self.orders.store.mesh();
                let history = mesh::saga::history(store.reader(), saga::KIND, name).await.unwrap();
                let waits_for = history.and_then(|history| history.last_error);
                if waits_for.as_deref() == Some("parcels are on their way") {
                    return;
                }
                tokio::task::yield_now().await;
            }
        };
        tokio::time::timeout(Duration::from_secs(20), waits).await.unwrap();
    }

    /// The shipment from a location goes on, and orders hears of it.
    async fn carry(&self, name: &str, location: &str, to: shipment::State) {
        self.shop.carry(location, to);
        self.hear(name).await;
    }

    /// An event of shipping is taken in, as a consumer does. It is told once: that must do.
    async fn hear(&self, name: &str) {
        let message = shipping::ShipmentDispatched { order: name.to_owned(), ..Default::default() };
        let event = event("shipment.dispatched", &message);
        self.take(Wake::for_shipping(&self.orders.runner), event).await;
    }

    /// The same of payments.
    async fn hear_of_payment(&self, name: &str) {
        let message = payments::PaymentCaptured { order: name.to_owned(), ..Default::default() };
        let event = event("payment.captured", &message);
        self.take(Wake::for_payments(&self.orders.runner), event).await;
    }

    async fn take(&self, wake: Wake, event: Event) {
        let told = (wake.clone(), event.clone());
        let heard = self.orders.store.mesh().transaction::<(), Failure, _>(move |txn| {
            let (wake, event) = told.clone();
            Box::pin(async move {
                wake.handle(txn, &event).await.map_err(|trouble| match trouble {
                    Trouble::Failed(failure) => failure,
                    Trouble::Transient(problem) | Trouble::Permanent(problem) => {
                        panic!("{problem}")
                    }
                })
            })
        });
        heard.await.unwrap();
        wake.committed(&event);
    }

    /// The order, once it is as a test wants it.
    async fn comes_to(&self, name: &str, wanted: impl Fn(&api::Order) -> bool) -> api::Order {
        let come = async {
            loop {
                let order = self.get(name).await;
                if wanted(&order) {
                    return order;
                }
                tokio::task::yield_now().await;
            }
        };
        match tokio::time::timeout(Duration::from_secs(20), come).await {
            Ok(order) => order,
            Err(_elapsed) => panic!("{:?} {:?}", self.get(name).await, self.shop.log()),
        }
    }

    /// The same, with payments telling again and again of what it is asked for.
    async fn ends_by_payments(&self, name: &str, state: State) -> api::Order {
        let tells = async {
            loop {
                self.hear_of_payment(name).await;
                tokio::task::yield_now().await;
            }
        };
        tokio::select! {
            () = tells => unreachable!("it goes on"),
            order = self.ends(name, state) => order,
        }
    }

    async fn ends(&self, name: &str, state: State) -> api::Order {
        self.comes_to(name, |order| order.state() == state).await
    }
}

/// Hears of parcels until the order has gone as far as they have.
pub(super) async fn progress(place: &Place, name: &str, to: shipment::State) {
    place.hear(name).await;
    place
        .comes_to(name, |order| {
            if to == shipment::State::Delivered {
                order.state() == State::Completed
            } else {
                order.payment_state() == PaymentState::Captured
            }
        })
        .await;
}

fn event<M: prost::Name>(kind: &str, message: &M) -> Event {
    Event {
        id: clock::id().to_string(),
        source: "shipping".to_owned(),
        kind: kind.to_owned(),
        at: clock::now(),
        aggregate: "shipments/1".to_owned(),
        seq: 1,
        position: 1,
        data: prost_types::Any { type_url: M::type_url(), value: message.encode_to_vec() },
        traceparent: String::new(),
        causation_id: String::new(),
        correlation_id: String::new(),
    }
}

/// Two mugs, and a hat that lies elsewhere: 39.98.
fn mugs_and_hat() -> api::Order {
    api::Order {
        lines: vec![line("MUG", 2), line("HAT", 1)],
        expected_total: Some(euro(3_998)),
        payment_method: "tok_visa".to_owned(),
        ..Default::default()
    }
}

async fn scattered() -> Place {
    let place = Place::new().await;
    place.shop.state().scattered = true;
    place
}

async fn an_order_is_shipped_charged_delivered_and_completed(place: Place) {
    let name = place.booked(mugs(), 1).await;
    place.carry(&name, "BER", shipment::State::Dispatched).await;
    let captured = |order: &api::Order| order.payment_state() == PaymentState::Captured;
    let shipped = place.comes_to(&name, captured).await;
    assert_eq!(shipped.fulfillment_state(), FulfillmentState::Shipped);
    assert_eq!((shipped.lines[0].shipped, shipped.lines[0].delivered), (2, 0));
    let refused = place.cancel(&name).await;
    assert_eq!(why(refused), reason(Code::FailedPrecondition, "NOT_CANCELLABLE"));

    place.carry(&name, "BER", shipment::State::Delivered).await;
    let completed = place.ends(&name, State::Completed).await;
    assert_eq!(completed.fulfillment_state(), FulfillmentState::Delivered);
    assert_eq!(completed.lines[0].delivered, 2);
    let types = place.types(&name).await;
    assert_eq!(
        types[3..],
        ["confirmed", "fulfillment_changed", "payment_changed", "fulfillment_changed", "completed"]
    );
    let history = place.history(&name).await;
    let ended = history.iter().filter(|(_, state, _)| *state == State::Completed).count();
    assert_eq!(ended, 1, "only the last entry speaks of the end");
    let state = place.shop.state();
    assert_eq!(state.payments[&of(&name, "payments")].captured, 1_998);
    assert_eq!(state.fulfilled, [("locations/BER".to_owned(), 2)]);
    drop(state);
    let calls = |wanted: &str| place.shop.log().iter().filter(|call| *call == wanted).count();
    assert_eq!((calls("CapturePayment final"), calls("VoidPayment")), (1, 0));
}

#[tokio::test]
async fn two_parcels_are_charged_one_by_one_and_the_last_capture_is_final() {
    let place = scattered().await;
    let name = place.booked(mugs_and_hat(), 2).await;
    place.carry(&name, "HAM", shipment::State::Dispatched).await;
    let charged = |order: &api::Order| order.payment_state() == PaymentState::PartiallyCaptured;
    let order = place.comes_to(&name, charged).await;
    assert_eq!(order.fulfillment_state(), FulfillmentState::PartiallyShipped);
    assert_eq!(place.shop.state().payments[&of(&name, "payments")].captured, 2_000);

    place.carry(&name, "HAM", shipment::State::Delivered).await;
    place.carry(&name, "BER", shipment::State::Delivered).await;
    let completed = place.ends(&name, State::Completed).await;
    assert_eq!(completed.payment_state(), PaymentState::Captured);
    assert_eq!(place.shop.state().payments[&of(&name, "payments")].captured, 3_998);
    let captures: Vec<String> = place.shop.log();
    let captures = captures.iter().filter(|call| call.starts_with("Capture"));
    assert_eq!(captures.collect::<Vec<_>>(), ["CapturePayment", "CapturePayment final"]);
}

async fn a_lost_parcel_is_paid_back_and_the_other_one_completes_the_order(place: Place) {
    place.shop.state().scattered = true;
    let name = place.booked(mugs_and_hat(), 2).await;
    place.shop.state().refunds.extend([
        proto::payments::v1::refund::State::Pending,
        proto::payments::v1::refund::State::Pending,
    ]);
    place.shop.carry("HAM", shipment::State::Dispatched);
    place.carry(&name, "BER", shipment::State::InTransit).await;
    let captured = |order: &api::Order| order.payment_state() == PaymentState::Captured;
    place.comes_to(&name, captured).await;
    place.shop.carry("HAM", shipment::State::Delivered);
    place.carry(&name, "BER", shipment::State::Lost).await;
    let completed = place.ends_by_payments(&name, State::Completed).await;
    assert_eq!(completed.payment_state(), PaymentState::PartiallyRefunded);
    assert_eq!(completed.fulfillment_state(), FulfillmentState::Delivered);
    assert_eq!(completed.totals.unwrap().total, Some(euro(2_000)));
    assert_eq!((completed.lines[0].cancelled, completed.lines[0].shipped), (2, 0));
    let state = place.shop.state();
    let paid = &state.payments[&of(&name, "payments")];
    assert_eq!((paid.captured, paid.refunded), (3_998, 1_998));
    assert_eq!(state.restocked, [], "it is gone");
}

#[tokio::test]
async fn an_order_that_comes_back_as_a_whole_is_restocked_refunded_and_completed() {
    let place = Place::new().await;
    let name = place.booked(mugs(), 1).await;
    place.carry(&name, "BER", shipment::State::Dispatched).await;
    let captured = |order: &api::Order| order.payment_state() == PaymentState::Captured;
    place.comes_to(&name, captured).await;
    place.carry(&name, "BER", shipment::State::Returned).await;
    let completed = place.ends(&name, State::Completed).await;
    assert_eq!(completed.payment_state(), PaymentState::Refunded);
    assert_eq!(completed.fulfillment_state(), FulfillmentState::Unfulfilled);
    {
        let state = place.shop.state();
        assert_eq!(state.restocked, [("locations/BER".to_owned(), 2)]);
        assert_eq!(state.payments[&of(&name, "payments")].refunded, 1_998);
    }
    assert!(place.types(&name).await.contains(&"line_cancelled".to_owned()));
}

#[tokio::test]
async fn a_parcel_that_is_lost_before_it_was_paid_for_is_not_charged() {
    let place = Place::new().await;
    let name = place.booked(mugs(), 1).await;
    place.carry(&name, "BER", shipment::State::Lost).await;
    let completed = place.ends(&name, State::Completed).await;
    assert_eq!(completed.payment_state(), PaymentState::Voided);
    let state = place.shop.state();
    let paid = &state.payments[&of(&name, "payments")];
    assert_eq!((paid.captured, paid.state), (0, payment::State::Voided));
    assert_eq!(state.fulfilled.len(), 1, "it left all the same");
}

#[tokio::test]
async fn what_was_taken_by_a_call_that_was_cut_off_is_paid_back_if_the_parcel_is_lost() {
    let place = Place::new().await;
    let name = place.booked(mugs(), 1).await;
    // What is heard while it is being taken: the call is carried out, and written down by nobody.
    place.shop.state().lost_while_taken = true;
    place.carry(&name, "BER", shipment::State::Dispatched).await;
    let completed = place.ends(&name, State::Completed).await;
    assert_eq!(completed.payment_state(), PaymentState::Refunded);
    let state = place.shop.state();
    let paid = &state.payments[&of(&name, "payments")];
    assert_eq!((paid.captured, paid.refunded), (1_998, 1_998));
}

#[tokio::test]
async fn a_capture_in_doubt_is_waited_for_and_a_lost_answer_is_asked_for_again() {
    for next in [Provider::InDoubt, Provider::AnswerLost] {
        let place = Place::new().await;
        let name = place.booked(mugs(), 1).await;
        place.shop.state().captures.push_back(next);
        place.carry(&name, "BER", shipment::State::Delivered).await;
        let completed = place.ends_by_payments(&name, State::Completed).await;
        assert_eq!(completed.payment_state(), PaymentState::Captured);
        let captured = place.shop.state().payments[&of(&name, "payments")].captured;
        assert_eq!(captured, 1_998, "{next:?}: once");
        let doubted =
            |(_, _, money): &(String, State, PaymentState)| *money == PaymentState::InDoubt;
        let doubts = place.history(&name).await.iter().filter(|entry| doubted(entry)).count();
        assert_eq!(doubts > 0, next == Provider::InDoubt);
    }
}

async fn a_confirmed_order_is_called_off_as_long_as_the_carrier_has_none_of_it(place: Place) {
    place.shop.state().scattered = true;
    let name = place.booked(mugs_and_hat(), 2).await;
    place.cancel(&name).await.unwrap();
    let cancelled = place.ends(&name, State::Cancelled).await;
    assert_eq!(cancelled.payment_state(), PaymentState::Voided);
    let state = place.shop.state();
    let states: Vec<_> = state.shipments.values().map(shipping::Shipment::state).collect();
    assert_eq!(states, [shipment::State::Cancelled; 2]);
    assert_eq!((state.stock["MUG"], state.stock["HAT"]), (100, 100));
    drop(state);
    let log = place.shop.log();
    assert_eq!(
        log[log.len() - 4..],
        ["CancelShipment", "CancelShipment", "VoidPayment", "ReleaseReservation"]
    );
}

#[tokio::test]
async fn a_cancellation_that_the_carrier_was_faster_than_is_lost_and_the_order_goes_on() {
    let place = Place::new().await;
    let name = place.booked(mugs(), 1).await;
    // Orders has not heard of it yet.
    place.shop.carry("BER", shipment::State::Dispatched);
    let cancelling = place.cancel(&name).await.unwrap();
    assert_eq!(cancelling.state(), State::Cancelling);
    place.comes_to(&name, |order| order.fulfillment_state() == FulfillmentState::Shipped).await;
    assert_eq!(place.get(&name).await.state(), State::Confirmed);
    place.carry(&name, "BER", shipment::State::Delivered).await;
    let completed = place.ends(&name, State::Completed).await;
    assert_eq!(completed.payment_state(), PaymentState::Captured);
    assert_eq!(place.types(&name).await[3..6], ["confirmed", "cancelling", "cancel_lost"]);
}

async fn a_lost_cancellation_keeps_back_what_the_carrier_does_not_have(place: Place) {
    place.shop.state().scattered = true;
    let name = place.booked(mugs_and_hat(), 2).await;
    place.shop.carry("HAM", shipment::State::Dispatched);
    place.cancel(&name).await.unwrap();
    let captured = |order: &api::Order| order.payment_state() == PaymentState::Captured;
    place.comes_to(&name, captured).await;
    place.carry(&name, "HAM", shipment::State::Delivered).await;
    let completed = place.ends(&name, State::Completed).await;
    assert_eq!((completed.lines[0].cancelled, completed.lines[1].delivered), (2, 1));
    assert_eq!(completed.totals.unwrap().total, Some(euro(2_000)));
    let state = place.shop.state();
    let paid = &state.payments[&of(&name, "payments")];
    assert_eq!((paid.captured, paid.refunded), (2_000, 0));
    drop(state);
    assert!(place.shop.log().contains(&"ReleaseReservation".to_owned()), "the mugs stay");
}

#[tokio::test]
async fn what_shipping_does_not_take_is_called_off() {
    let place = scattered().await;
    place.shop.state().refused.insert("locations/HAM".to_owned());
    let placed = place.create(request(mugs_and_hat())).await.unwrap();
    let cancelled = place.ends(&placed.name, State::Cancelled).await;
    assert_eq!(cancelled.payment_state(), PaymentState::Voided);
    let request = api::ListOrderEventsRequest { name: placed.name.clone(), ..Default::default() };
    let call = place.orders.list_order_events(Request::new(request));
    let events = testing::as_caller(Caller::customer(ADA), call).await.unwrap().into_inner();
    let notes: Vec<String> = events.order_events.into_iter().map(|event| event.note).collect();
    assert!(notes.contains(&"NOT_SHIPPABLE".to_owned()), "{notes:?}");
    assert_eq!(place.shop.state().stock["HAT"], 100);
}

#[tokio::test]
async fn a_shipment_that_shipping_cancels_is_left_out_or_ends_the_order_if_it_was_the_only_one() {
    let place = Place::new().await;
    let name = place.booked(mugs(), 1).await;
    place.carry(&name, "BER", shipment::State::Cancelled).await;
    place.ends(&name, State::Cancelled).await;

    let place = scattered().await;
    let name = place.booked(mugs_and_hat(), 2).await;
    place.shop.carry("BER", shipment::State::Cancelled);
    place.carry(&name, "HAM", shipment::State::Delivered).await;
    let completed = place.ends(&name, State::Completed).await;
    assert_eq!((completed.lines[0].cancelled, completed.lines[1].delivered), (2, 1));
    assert_eq!(place.shop.state().payments[&of(&name, "payments")].captured, 2_000);
}

#[tokio::test]
async fn an_order_that_costs_nothing_is_delivered_without_a_payment_and_keeps_its_e_mail() {
    let place = Place::new().await;
    {
        let mut state = place.shop.state();
        state.prices.insert("MUG".to_owned(), (0, "v1".to_owned()));
        state.down.insert("users");
    }
    let order = api::Order { expected_total: Some(euro(0)), ..mugs() };
    let placed = place.create(request(order)).await.unwrap();
    assert_eq!(placed.customer_email, "");
    place.shop.state().down.clear();
    let confirmed = place.settled(&placed.name).await;
    assert_eq!(confirmed.state(), State::Confirmed);
    assert_eq!(confirmed.customer_email, "ada@example.com");
    place.shop.called("CreateShipment", 1).await;
    place.carry(&placed.name, "BER", shipment::State::Delivered).await;
    let completed = place.ends(&placed.name, State::Completed).await;
    assert_eq!(completed.customer_email, "ada@example.com");
    assert!(!place.shop.log().iter().any(|call| call.contains("Payment")));
}

#[tokio::test]
async fn parcels_are_asked_for_although_no_event_comes() {
    let look = Duration::from_millis(20);
    let place = Place::with(Patience { delivery_look: look, ..PATIENCE }).await;
    let name = place.booked(mugs(), 1).await;
    place.shop.carry("BER", shipment::State::Delivered);
    let ended = async {
        while place.get(&name).await.state() != State::Completed {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(Duration::from_secs(20), ended).await.unwrap();
}

/// An accepted new price ended the order as not fulfillable, if the payment was noted for the
/// old one and its authorization never sent.
#[tokio::test]
async fn a_price_that_moves_after_the_payment_was_noted_is_looked_at_before_the_pivot() {
    let place = Place::with(Patience { price_fresh: Duration::ZERO, ..PATIENCE }).await;
    {
        let mut state = place.shop.state();
        // Read when it is placed and before it is paid: then cheaper.
        state.later = Some((2, [("MUG".to_owned(), (899, "v2".to_owned()))].into()));
        // The payment is noted, and the authorization does not get through at first.
        state.script.push_back(Provider::NeverSent);
    }
    let placed = place.create(request(mugs())).await.unwrap();
    let waiting = place.settled(&placed.name).await;
    assert_eq!(waiting.state(), State::ActionRequired);
    assert_eq!(waiting.payment_state(), PaymentState::Authorized, "asked before the pivot");
    place.accept(&placed.name, 1_798).await.unwrap();
    let confirmed = place.settled(&placed.name).await;
    assert_eq!(confirmed.state(), State::Confirmed);
    assert_eq!(confirmed.totals.unwrap().total, Some(euro(1_798)));
}

/// A hold for more, asked for before the customer agreed to less, came late and was the first.
#[tokio::test]
async fn an_order_for_which_more_is_held_than_it_has_is_not_confirmed() {
    let place = Place::new().await;
    place.shop.state().held_too_much = 1;
    let placed = place.create(request(mugs())).await.unwrap();
    let rejected = place.settled(&placed.name).await;
    assert_eq!(rejected.state(), State::Rejected);
    assert_eq!(rejection(&rejected).0, api::Reason::NotFulfillable);
    assert_eq!(place.shop.state().stock["MUG"], 100);
}

/// An acceptance that met the deadline ended the order as not fulfillable.
#[tokio::test]
async fn an_acceptance_that_its_deadline_was_faster_than_is_refused_and_the_order_expires() {
    let place = Place::new().await;
    let dearer = [("MUG".to_owned(), (1_099, "v2".to_owned()))].into();
    place.shop.state().later = Some((1, dearer));
    let placed = place.create(request(mugs())).await.unwrap();
    assert_eq!(place.settled(&placed.name).await.state(), State::ActionRequired);
    // What the saga does at the deadline, before the order says so.
    place.shop.state().down.insert("inventory");
    let (runner, name) = (place.orders.runner.clone(), placed.name.clone());
    let turned = place.orders.store.mesh().transaction::<_, Failure, _>(move |txn| {
        let (runner, name) = (runner.clone(), name.clone());
        let why = mesh::saga::Why::new("EXPIRED", "its customer did not act in time");
        Box::pin(async move {
            runner.turn_round(txn, &name, &why, mesh::saga::Reach::BeforePivot).await
        })
    });
    let mesh::saga::Turned::Round(created) = turned.await.unwrap() else { panic!("not turned") };
    let late = place.accept(&placed.name, 2_198).await;
    assert_eq!(why(late), reason(Code::FailedPrecondition, "ORDER_STATE"));
    place.shop.state().down.clear();
    place.orders.runner.start(created);
    let expired = place.ends(&placed.name, State::Expired).await;
    assert_eq!(expired.rejection, None);
}

/// A limit that does not parse counted as none.
#[tokio::test]
async fn a_limit_that_cannot_be_read_is_not_ordered_past() {
    let place = Place::new().await;
    place.shop.state().limit = Some(Money { currency_code: "EUR".to_owned(), units: 1, nanos: 1 });
    let placed = place.create(request(mugs())).await.unwrap();
    assert_eq!(placed.customer_email, "", "users said nothing that counts");
    place.shop.state().limit = Some(euro(1_000));
    let rejected = place.settled(&placed.name).await;
    assert_eq!(rejection(&rejected).0, api::Reason::LimitExceeded);
    assert!(!place.shop.log().contains(&"CreateReservation".to_owned()));
}

mod on_sqlite {
    use super::Place;

    #[tokio::test]
    async fn an_order_is_shipped_charged_delivered_and_completed() {
        super::an_order_is_shipped_charged_delivered_and_completed(Place::new().await).await;
    }

    #[tokio::test]
    async fn a_lost_parcel_is_paid_back_and_the_other_one_completes_the_order() {
        super::a_lost_parcel_is_paid_back_and_the_other_one_completes_the_order(Place::new().await)
            .await;
    }

    #[tokio::test]
    async fn a_confirmed_order_is_called_off_as_long_as_the_carrier_has_none_of_it() {
        super::a_confirmed_order_is_called_off_as_long_as_the_carrier_has_none_of_it(
            Place::new().await,
        )
        .await;
    }

    #[tokio::test]
    async fn a_lost_cancellation_keeps_back_what_the_carrier_does_not_have() {
        super::a_lost_cancellation_keeps_back_what_the_carrier_does_not_have(Place::new().await)
            .await;
    }
}

mod on_postgres {
    use super::Place;

    #[tokio::test]
    #[ignore = "needs postgres"]
    async fn an_order_is_shipped_charged_delivered_and_completed() {
        super::an_order_is_shipped_charged_delivered_and_completed(Place::on_postgres().await)
            .await;
    }

    #[tokio::test]
    #[ignore = "needs postgres"]
    async fn a_lost_parcel_is_paid_back_and_the_other_one_completes_the_order() {
        super::a_lost_parcel_is_paid_back_and_the_other_one_completes_the_order(
            Place::on_postgres().await,
        )
        .await;
    }

    #[tokio::test]
    #[ignore = "needs postgres"]
    async fn a_confirmed_order_is_called_off_as_long_as_the_carrier_has_none_of_it() {
        super::a_confirmed_order_is_called_off_as_long_as_the_carrier_has_none_of_it(
            Place::on_postgres().await,
        )
        .await;
    }

    #[tokio::test]
    #[ignore = "needs postgres"]
    async fn a_lost_cancellation_keeps_back_what_the_carrier_does_not_have() {
        super::a_lost_cancellation_keeps_back_what_the_carrier_does_not_have(
            Place::on_postgres().await,
        )
        .await;
    }
}
