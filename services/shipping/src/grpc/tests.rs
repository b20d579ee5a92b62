//! Calls as their callers see them, on both databases.

use futures_util::future::join_all;
use mesh::testing::{self, TestDb};
use proto::shipping::v1::{record_carrier_event_request::Kind, shipment::State};
use tonic::Code;

use super::*;
use crate::harness::{ADA, BOB, PATIENT, Parcel, SWIFT, World, as_orders, reason, state_of};

mesh::on_both_databases! { Store;
    a_shipment_goes_all_the_way_and_tells_of_every_stage
    a_parcel_is_lost_or_returned_as_its_address_asks_for
    a_carrier_that_refuses_cancels_the_shipment
    a_cancel_that_comes_first_leaves_a_tombstone
    a_shipment_is_cancelled_before_and_after_it_is_booked
    what_the_carrier_has_is_not_cancelled
    equal_commands_make_one_shipment
    the_same_shipment_is_answered_as_it_stands_and_another_one_refused
    an_answer_that_did_not_arrive_is_asked_for_and_has_its_effect_once
    a_cancellation_waits_for_what_is_in_doubt
    a_clerk_hands_over_what_the_carrier_does_not_fetch
    a_repeated_request_is_told_the_same_and_another_one_nothing
    a_request_that_was_cut_off_is_answered_by_what_came_of_it
    a_carriers_event_is_taken_in_once
    a_customer_reaches_their_own_shipments_alone
    pages_show_every_shipment_once_the_newest_first
    an_old_etag_is_refused
    a_bad_field_is_named
}

const WAY: [&str; 5] = [
    "shipment.created",
    "shipment.booked",
    "shipment.dispatched",
    "shipment.in_transit",
    "shipment.delivered",
];

async fn a_shipment_goes_all_the_way_and_tells_of_every_stage(db: TestDb) {
    let world = World::new(db, SWIFT);
    let parcel = Parcel::new("");
    let created = world.create(&parcel).await.unwrap();
    assert_eq!((created.state(), created.etag.as_str()), (State::Pending, "\"v1\""));
    world.ask().await;
    let booked = world.get(&parcel).await;
    assert_eq!((booked.state(), booked.carrier.as_str()), (State::Booked, crate::carrier::NAME));
    assert!(booked.tracking.starts_with("MP"));
    for state in [State::Dispatched, State::InTransit, State::Delivered, State::Delivered] {
        world.stage().await;
        assert_eq!(world.state(&parcel).await, state);
    }
    assert_eq!(world.told(&parcel).await, WAY);
    // What was taken in is acknowledged: it does not come again.
    let open = "SELECT COUNT(*) AS count FROM carrier_event WHERE acknowledged_at IS NULL";
    assert_eq!(world.count(open).await, 0);
    let delivered = world.get(&parcel).await;
    assert_eq!((&delivered.lines, &delivered.ship_to), (&created.lines, &created.ship_to));
}

async fn a_parcel_is_lost_or_returned_as_its_address_asks_for(db: TestDb) {
    let world = World::new(db, SWIFT);
    let lost = world.booked("carrier:lost").await;
    let returned = world.booked("Ada Ltd carrier:returned").await;
    for _ in 0..4 {
        world.stage().await;
    }
    assert_eq!(world.state(&lost).await, State::Lost);
    assert_eq!(world.state(&returned).await, State::Returned);
    assert_eq!(world.told(&lost).await[4], "shipment.lost");
    assert_eq!(world.told(&returned).await[4], "shipment.returned");
}

async fn a_carrier_that_refuses_cancels_the_shipment(db: TestDb) {
    let world = World::new(db, SWIFT);
    let parcel = world.booked("carrier:refuses").await;
    let refused = world.get(&parcel).await;
    assert_eq!(refused.state(), State::Cancelled);
    assert_eq!(refused.cancel_reason(), api::CancelReason::CarrierRefused);
    assert_eq!(world.told(&parcel).await, ["shipment.created", "shipment.cancelled"]);
    assert_eq!(world.parcels().await, 0);
}

async fn a_cancel_that_comes_first_leaves_a_tombstone(db: TestDb) {
    let world = World::new(db, SWIFT);
    let parcel = Parcel::new("");
    for _ in 0..2 {
        let cancelled = world.undo(&parcel).await.unwrap();
        assert_eq!((cancelled.state(), cancelled.order.as_str()), (State::Cancelled, ""));
    }
    let late = world.create(&parcel).await.unwrap_err();
    assert_eq!((late.code(), reason(&late)), (Code::FailedPrecondition, "UNDONE".to_owned()));
    // Also where the command is another one.
    let mut request = parcel.create();
    request.command = Some(parcel.command("ship@north#2"));
    let late = as_orders(world.service.create_shipment(Request::new(request))).await;
    assert_eq!(reason(&late.unwrap_err()), "UNDONE");
    world.ask().await;
    assert_eq!((world.counting.asked(), world.told(&parcel).await), (0, Vec::new()));
    // Nobody's, so no list shows it.
    let all =
        as_orders(world.service.list_shipments(Request::new(api::ListShipmentsRequest::default())))
            .await
            .unwrap();
    assert_eq!(all.get_ref().shipments, []);
}

async fn a_shipment_is_cancelled_before_and_after_it_is_booked(db: TestDb) {
    let world = World::new(db, PATIENT);
    let unasked = Parcel::new("");
    world.create(&unasked).await.unwrap();
    let booked = world.undo(&unasked).await.unwrap();
    assert_eq!(booked.cancel_reason(), api::CancelReason::OrderCancelled);
    assert_eq!((booked.state(), world.parcels().await), (State::Cancelled, 0));
    let booked = world.booked("").await;
    for _ in 0..2 {
        assert_eq!(world.undo(&booked).await.unwrap().state(), State::Cancelled);
    }
    let told = ["shipment.created", "shipment.booked", "shipment.cancelled"];
    assert_eq!(world.told(&booked).await, told);
    // The command that made it is told what it was told first, and has no second effect.
    assert_eq!(world.create(&booked).await.unwrap().state(), State::Pending);
    world.ask().await;
    assert_eq!(world.state(&booked).await, State::Cancelled);
    let struck = "SELECT COUNT(*) AS count FROM carrier_parcel WHERE stage = 'CANCELLED'";
    assert_eq!((world.parcels().await, world.count(struck).await), (1, 1));
}

async fn what_the_carrier_has_is_not_cancelled(db: TestDb) {
    let world = World::new(db, SWIFT);
    let parcel = world.booked("").await;
    // It was picked up, and we have not heard of it yet.
    world.carrier.pass().await.unwrap();
    assert_eq!(world.state(&parcel).await, State::Booked);
    let refused = world.undo(&parcel).await.unwrap_err();
    assert_eq!(
        (refused.code(), reason(&refused)),
        (Code::FailedPrecondition, "SHIPMENT_STATE".into())
    );
    // The refusal knows more than the call did.
    assert_eq!(state_of(&refused), "DISPATCHED");
    for state in ["IN_TRANSIT", "DELIVERED"] {
        world.stage().await;
        let refused = world.undo(&parcel).await.unwrap_err();
        assert_eq!((reason(&refused), state_of(&refused)), ("SHIPMENT_STATE".into(), state.into()));
    }
    assert_eq!(world.told(&parcel).await, WAY);
}

async fn equal_commands_make_one_shipment(db: TestDb) {
    let world = World::new(db, SWIFT);
    let parcel = Parcel::new("");
    let told = join_all((0..20).map(|_| world.create(&parcel))).await;
    let told: Vec<_> = told.into_iter().map(Result::unwrap).collect();
    assert!(told.iter().all(|one| one == &told[0]));
    world.ask().await;
    assert_eq!((world.counting.asked(), world.parcels().await), (1, 1));
    // Whatever has happened since.
    assert_eq!(world.create(&parcel).await.unwrap(), told[0]);
    assert_eq!(world.told(&parcel).await, WAY[..2]);
}

async fn the_same_shipment_is_answered_as_it_stands_and_another_one_refused(db: TestDb) {
    let world = World::new(db, SWIFT);
    let parcel = world.booked("").await;
    let mut request = parcel.create();
    request.command = Some(parcel.command("ship@north#2"));
    let same = as_orders(world.service.create_shipment(Request::new(request.clone()))).await;
    assert_eq!(same.unwrap().get_ref().state(), State::Booked);
    request.command = Some(parcel.command("ship@north#3"));
    request.shipment.as_mut().unwrap().lines[0].quantity = 3;
    let other = as_orders(world.service.create_shipment(Request::new(request))).await.unwrap_err();
    assert_eq!((other.code(), reason(&other)), (Code::AlreadyExists, "ALREADY_EXISTS".to_owned()));
}

async fn an_answer_that_did_not_arrive_is_asked_for_and_has_its_effect_once(db: TestDb) {
    let world = World::new(db, PATIENT);
    let parcel = Parcel::new("carrier:drops_answer");
    world.create(&parcel).await.unwrap();
    assert_eq!(world.resolver.pass().await.unwrap(), 1);
    // Booked there, and not known here.
    assert_eq!((world.state(&parcel).await, world.parcels().await), (State::Pending, 1));
    assert_eq!(world.resolver.pass().await.unwrap(), 1);
    assert_eq!((world.state(&parcel).await, world.parcels().await), (State::Booked, 1));
    assert_eq!(world.told(&parcel).await, WAY[..2]);
    // The same with what is handed over.
    let request = parcel.dispatch();
    let wait = world.dispatch(request.clone()).await.unwrap_err();
    assert_eq!((wait.code(), reason(&wait)), (Code::Aborted, "REQUEST_IN_PROGRESS".to_owned()));
    world.ask().await;
    assert_eq!(world.dispatch(request).await.unwrap().state(), State::Dispatched);
    world.stage().await;
    let events = "SELECT COUNT(*) AS count FROM carrier_event WHERE kind = 'PICKED_UP'";
    assert_eq!(world.count(events).await, 1);
    assert_eq!(world.told(&parcel).await[..3], WAY[..3]);
}

async fn a_cancellation_waits_for_what_is_in_doubt(db: TestDb) {
    let world = World::new(db, PATIENT);
    let parcel = Parcel::new("carrier:drops_answer");
    world.create(&parcel).await.unwrap();
    world.resolver.pass().await.unwrap();
    let wait = world.undo(&parcel).await.unwrap_err();
    assert_eq!((wait.code(), reason(&wait)), (Code::Aborted, "REQUEST_IN_PROGRESS".to_owned()));
    // Nothing says that it is cancelled before it is.
    assert_eq!(world.get(&parcel).await.cancel_reason(), api::CancelReason::Unspecified);
    world.ask().await;
    assert_eq!(world.undo(&parcel).await.unwrap().state(), State::Cancelled);
    let told = ["shipment.created", "shipment.booked", "shipment.cancelled"];
    assert_eq!(world.told(&parcel).await, told);
    let struck = "SELECT COUNT(*) AS count FROM carrier_parcel WHERE stage = 'CANCELLED'";
    assert_eq!((world.parcels().await, world.count(struck).await), (1, 1));
}

async fn a_clerk_hands_over_what_the_carrier_does_not_fetch(db: TestDb) {
    let world = World::new(db, PATIENT);
    let parcel = Parcel::new("");
    world.create(&parcel).await.unwrap();
    let early = world.dispatch(parcel.dispatch()).await.unwrap_err();
    assert_eq!((reason(&early), state_of(&early)), ("SHIPMENT_STATE".into(), "PENDING".into()));
    world.ask().await;
    world.stage().await;
    assert_eq!(world.state(&parcel).await, State::Booked);
    let handed = world.dispatch(parcel.dispatch()).await.unwrap();
    assert_eq!(handed.state(), State::Dispatched);
    let again = world.dispatch(parcel.dispatch()).await.unwrap_err();
    assert_eq!((reason(&again), state_of(&again)), ("SHIPMENT_STATE".into(), "DISPATCHED".into()));
    let refused = world.undo(&parcel).await.unwrap_err();
    assert_eq!(
        (reason(&refused), state_of(&refused)),
        ("SHIPMENT_STATE".into(), "DISPATCHED".into())
    );
    for _ in 0..2 {
        world.stage().await;
    }
    assert_eq!(world.told(&parcel).await, WAY);
}

async fn a_repeated_request_is_told_the_same_and_another_one_nothing(db: TestDb) {
    let world = World::new(db, PATIENT);
    let (kept, sent) = (world.booked("").await, world.booked("").await);
    let (cancel, dispatch) = (kept.cancel(), sent.dispatch());
    let cancelled = world.cancel(cancel.clone()).await.unwrap();
    let handed = world.dispatch(dispatch.clone()).await.unwrap();
    for _ in 0..2 {
        world.stage().await;
    }
    assert_eq!(world.state(&sent).await, State::Delivered);
    assert_eq!(world.cancel(cancel.clone()).await.unwrap(), cancelled);
    assert_eq!(world.dispatch(dispatch).await.unwrap(), handed);
    // A refusal is an answer, too.
    let late = sent.cancel();
    let refused = world.cancel(late.clone()).await.unwrap_err();
    let again = world.cancel(late).await.unwrap_err();
    assert_eq!((refused.message(), state_of(&again)), (again.message(), "DELIVERED".to_owned()));
    let reason_of = api::CancelReason::GoodsUnavailable.into();
    let other = api::CancelShipmentRequest { reason: reason_of, ..cancel };
    assert_eq!(reason(&world.cancel(other).await.unwrap_err()), "REQUEST_ID_REUSED");
    // Without an id, it is another call: it is cancelled already.
    let once_more = api::CancelShipmentRequest { name: kept.name(), ..Default::default() };
    let refused = world.cancel(once_more).await.unwrap_err();
    assert_eq!(
        (reason(&refused), state_of(&refused)),
        ("SHIPMENT_STATE".into(), "CANCELLED".into())
    );
}

async fn a_request_that_was_cut_off_is_answered_by_what_came_of_it(db: TestDb) {
    let world = World::new(db, PATIENT);
    let parcel = world.booked("").await;
    let request = parcel.cancel();
    let bare = api::CancelShipmentRequest { request_id: String::new(), ..request.clone() };
    let clerk = Caller::with_roles("users/clerk", &["warehouse"]);
    let cut_off = async {
        let call = call("CancelShipment", &request.request_id, &bare).unwrap();
        let reason = crate::domain::CancelReason::OrderCancelled;
        world.store.cancel(call, parcel.id, reason, None).await.unwrap()
    };
    // The first half is committed; then the process is gone.
    let begun = testing::as_caller(clerk, cut_off).await;
    assert!(matches!(begun, Begun::Open(_, Some(_))));
    let wait = world.cancel(request.clone()).await.unwrap_err();
    assert_eq!(reason(&wait), "REQUEST_IN_PROGRESS");
    world.ask().await;
    let cancelled = world.cancel(request.clone()).await.unwrap();
    assert_eq!(cancelled.state(), State::Cancelled);
    assert_eq!(world.cancel(request).await.unwrap(), cancelled);
}

async fn a_carriers_event_is_taken_in_once(db: TestDb) {
    let world = World::new(db, PATIENT);
    let parcel = Parcel::new("");
    let unknown = world.note(&parcel, "a", Kind::PickedUp).await.unwrap_err();
    assert_eq!((unknown.code(), reason(&unknown)), (Code::NotFound, "NOT_FOUND".to_owned()));
    world.create(&parcel).await.unwrap();
    let early = world.note(&parcel, "a", Kind::PickedUp).await.unwrap_err();
    assert_eq!((reason(&early), state_of(&early)), ("SHIPMENT_STATE".into(), "PENDING".into()));
    world.ask().await;
    // Early, late and again.
    for (event, kind, state) in [
        ("b", Kind::InTransit, State::InTransit),
        ("a", Kind::PickedUp, State::InTransit),
        ("b", Kind::InTransit, State::InTransit),
        ("c", Kind::Delivered, State::Delivered),
        ("b", Kind::Lost, State::Delivered),
    ] {
        assert_eq!(world.note(&parcel, event, kind).await.unwrap().state(), state, "{event}");
    }
    let lost = world.note(&parcel, "d", Kind::Lost).await.unwrap_err();
    assert_eq!((reason(&lost), state_of(&lost)), ("SHIPMENT_STATE".into(), "DELIVERED".into()));
    assert_eq!(world.told(&parcel).await, WAY);
    assert_eq!(world.count("SELECT COUNT(*) AS count FROM shipment_sign").await, 3);
}

async fn a_customer_reaches_their_own_shipments_alone(db: TestDb) {
    let world = World::new(db, SWIFT);
    let parcel = world.booked("").await;
    let get = |name: String, who: &str| {
        let request = Request::new(api::GetShipmentRequest { name });
        testing::as_caller(Caller::customer(who), world.service.get_shipment(request))
    };
    assert_eq!(get(parcel.name(), ADA).await.unwrap().get_ref().name, parcel.name());
    for name in [parcel.name(), Parcel::new("").name()] {
        let denied = get(name, BOB).await.unwrap_err();
        assert_eq!(
            (denied.code(), reason(&denied)),
            (Code::PermissionDenied, "PERMISSION_DENIED".to_owned())
        );
    }
    for (who, count) in [(ADA, 1), (BOB, 0)] {
        let request = api::ListShipmentsRequest { order: parcel.order(), ..Default::default() };
        let list = world.service.list_shipments(Request::new(request));
        let listed = testing::as_caller(Caller::customer(who), list).await.unwrap();
        assert_eq!(listed.get_ref().shipments.len(), count, "{who}");
    }
}

async fn pages_show_every_shipment_once_the_newest_first(db: TestDb) {
    let world = World::new(db, SWIFT);
    let mut names = Vec::new();
    for _ in 0..5 {
        let parcel = Parcel::new("");
        world.create(&parcel).await.unwrap();
        names.insert(0, parcel.name());
    }
    let mut request = api::ListShipmentsRequest { page_size: 2, ..Default::default() };
    let mut found = Vec::new();
    for pages in 1.. {
        let list = world.service.list_shipments(Request::new(request.clone()));
        let page = as_orders(list).await.unwrap().into_inner();
        found.extend(page.shipments.into_iter().map(|shipment| shipment.name));
        if page.next_page_token.is_empty() {
            assert_eq!(pages, 3);
            break;
        }
        request.page_token = page.next_page_token;
    }
    assert_eq!(found, names);
    request.order = Parcel::new("").order();
    let list = world.service.list_shipments(Request::new(request));
    assert_eq!(reason(&as_orders(list).await.unwrap_err()), "PAGE_TOKEN_MISMATCH");
}

async fn an_old_etag_is_refused(db: TestDb) {
    let world = World::new(db, PATIENT);
    let parcel = world.booked("").await;
    let etag = |etag: &str| etag.to_owned();
    let old = api::DispatchShipmentRequest { etag: etag("\"v1\""), ..parcel.dispatch() };
    let refused = world.dispatch(old).await.unwrap_err();
    let info = mesh::status::reason(&refused).unwrap();
    assert_eq!((refused.code(), &*info.reason), (Code::Aborted, "ETAG_MISMATCH"));
    assert_eq!(info.metadata["etag"], "\"v2\"");
    let current = api::CancelShipmentRequest { etag: etag("\"v2\""), ..parcel.cancel() };
    assert_eq!(world.cancel(current).await.unwrap().state(), State::Cancelled);
}

async fn a_bad_field_is_named(db: TestDb) {
    type Spoil = fn(&mut api::CreateShipmentRequest);
    fn shipment(request: &mut api::CreateShipmentRequest) -> &mut api::Shipment {
        request.shipment.as_mut().unwrap()
    }
    let world = World::new(db, SWIFT);
    let spoiled: [(&str, Spoil); 12] = [
        ("shipment_id", |it| it.shipment_id = "1".to_owned()),
        ("shipment", |it| it.shipment = None),
        ("shipment.order", |it| shipment(it).order = "orders/1".to_owned()),
        ("shipment.customer", |it| shipment(it).customer.clear()),
        ("shipment.location", |it| shipment(it).location = "north".to_owned()),
        ("shipment.lines", |it| shipment(it).lines.clear()),
        ("shipment.lines[1].line_id", |it| shipment(it).lines[1].line_id = "1".to_owned()),
        ("shipment.lines[0].variant", |it| shipment(it).lines[0].variant.clear()),
        ("shipment.lines[0].quantity", |it| shipment(it).lines[0].quantity = 0),
        ("shipment.ship_to.region_code", |it| {
            shipment(it).ship_to.as_mut().unwrap().region_code.clear();
        }),
        ("command.saga", |it| it.command.as_mut().unwrap().saga.clear()),
        ("command.step_key", |it| it.command.as_mut().unwrap().step_key.clear()),
    ];
    for (field, spoil) in spoiled {
        let mut request = Parcel::new("").create();
        spoil(&mut request);
        let call = world.service.create_shipment(Request::new(request));
        let refused = as_orders(call).await.unwrap_err();
        assert_eq!(
            (refused.code(), reason(&refused)),
            (Code::InvalidArgument, "FIELD_VIOLATION".into())
        );
        assert!(refused.message().starts_with(field), "{field}: {}", refused.message());
    }
    let parcel = world.booked("").await;
    let refused = world.note(&parcel, "", Kind::PickedUp).await.unwrap_err();
    assert!(refused.message().starts_with("event_id"));
    let refused = world.note(&parcel, "a", Kind::Unspecified).await.unwrap_err();
    assert!(refused.message().starts_with("kind"));
    let reason = api::CancelReason::CarrierRefused.into();
    let unknowable = api::CancelShipmentRequest { reason, ..parcel.cancel() };
    assert!(world.cancel(unknowable).await.unwrap_err().message().starts_with("reason"));
}
