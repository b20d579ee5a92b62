use mesh::testing::{self, TestDb};
use prost_types::FieldMask;
use proto::notifications::v1::notification::{Kind, State};
use tonic::Code;

use super::*;
use crate::harness::{Order, World};

mesh::on_both_databases! { Store;
    a_customer_reads_their_own_notifications_and_no_others
    lists_are_of_ones_own_by_order_and_in_pages
    preferences_are_everything_until_they_are_changed
    a_repeat_of_a_change_is_answered_as_the_first_time
    what_is_malformed_names_its_field_and_changes_nothing
    another_customers_preferences_are_neither_read_nor_changed
}

fn reason(status: &Status) -> String {
    mesh::status::reason(status).map_or_else(String::new, |info| info.reason)
}

fn support() -> Caller {
    Caller::with_roles("users/support", &["support"])
}

async fn get(world: &World, caller: Caller, name: &str) -> Result<api::Notification, Status> {
    let request = Request::new(api::GetNotificationRequest { name: name.to_owned() });
    let call = NotificationsService::get_notification(&world.service, request);
    Ok(testing::as_caller(caller, call).await?.into_inner())
}

async fn list(
    world: &World,
    caller: Caller,
    request: api::ListNotificationsRequest,
) -> Result<api::ListNotificationsResponse, Status> {
    let call = NotificationsService::list_notifications(&world.service, Request::new(request));
    Ok(testing::as_caller(caller, call).await?.into_inner())
}

async fn update(
    world: &World,
    caller: Caller,
    request: api::UpdatePreferencesRequest,
) -> Result<api::Preferences, Status> {
    let call = NotificationsService::update_preferences(&world.service, Request::new(request));
    Ok(testing::as_caller(caller, call).await?.into_inner())
}

async fn preferences(
    world: &World,
    caller: Caller,
    name: &str,
) -> Result<api::Preferences, Status> {
    let request = Request::new(api::GetPreferencesRequest { name: name.to_owned() });
    let call = NotificationsService::get_preferences(&world.service, request);
    Ok(testing::as_caller(caller, call).await?.into_inner())
}

/// A change of what the customer of `order` wants to be told.
fn muting(order: &Order, kinds: &[Kind]) -> api::UpdatePreferencesRequest {
    let preferences = api::Preferences {
        name: format!("preferences/{}", order.user),
        muted_kinds: kinds.iter().map(|kind| i32::from(*kind)).collect(),
        ..Default::default()
    };
    let mask = FieldMask { paths: vec!["muted_kinds".to_owned()] };
    api::UpdatePreferencesRequest {
        preferences: Some(preferences),
        update_mask: Some(mask),
        request_id: String::new(),
    }
}

async fn a_customer_reads_their_own_notifications_and_no_others(db: TestDb) {
    let world = World::on(db);
    let (order, other) = (Order::new(), Order::new());
    world.took(&order.created()).await;
    world.pass().await;
    let name = format!("notifications/{}", world.told(&order).await[0].id);
    let mine = get(&world, order.caller(), &name).await.unwrap();
    assert_eq!((mine.kind(), mine.state()), (Kind::OrderReceived, State::Sent));
    assert_eq!((mine.order, mine.customer), (order.name(), order.customer()));
    assert_eq!((mine.address, mine.problem), (order.email.clone(), String::new()));
    assert!(mine.body.contains("A mug") && mine.send_time.is_some());
    assert!(get(&world, support(), &name).await.is_ok());
    // Another's notification looks like one that does not exist.
    let nothing = format!("notifications/{}", clock::id());
    let theirs = get(&world, other.caller(), &name).await.unwrap_err();
    let nobodys = get(&world, other.caller(), &nothing).await.unwrap_err();
    assert_eq!(theirs.code(), Code::PermissionDenied);
    assert_eq!((theirs.code(), theirs.message()), (nobodys.code(), nobodys.message()));
    let missing = get(&world, support(), &nothing).await.unwrap_err();
    assert_eq!((missing.code(), reason(&missing).as_str()), (Code::NotFound, "NOT_FOUND"));
}

async fn lists_are_of_ones_own_by_order_and_in_pages(db: TestDb) {
    let world = World::on(db);
    let (first, other) = (Order::new(), Order::new());
    let second = Order::of(first.user);
    for event in [first.created(), first.confirmed(), second.created(), other.created()] {
        world.took(&event).await;
    }
    let all = api::ListNotificationsRequest::default;
    let of = |order: &Order| api::ListNotificationsRequest { order: order.name(), ..all() };
    let count =
        async |caller, request| list(&world, caller, request).await.unwrap().notifications.len();
    assert_eq!(count(first.caller(), all()).await, 3);
    assert_eq!(count(support(), all()).await, 4);
    assert_eq!(count(first.caller(), of(&first)).await, 2);
    assert_eq!(count(support(), of(&first)).await, 2);
    assert_eq!(count(other.caller(), of(&first)).await, 0);

    let page = |token: &str| api::ListNotificationsRequest {
        page_size: 2,
        page_token: token.to_owned(),
        order: String::new(),
    };
    let begin = list(&world, first.caller(), page("")).await.unwrap();
    let rest = list(&world, first.caller(), page(&begin.next_page_token)).await.unwrap();
    assert_eq!((begin.notifications.len(), rest.notifications.len()), (2, 1));
    assert_eq!(rest.next_page_token, "");
    let names: Vec<_> =
        begin.notifications.iter().chain(&rest.notifications).map(|one| &one.name).collect();
    assert!(names.is_sorted_by(|a, b| a > b), "the newest first");
    let token = begin.next_page_token;
    for (caller, request, why) in [
        (other.caller(), page(&token), "PAGE_TOKEN_MISMATCH"),
        (
            first.caller(),
            api::ListNotificationsRequest { order: first.name(), ..page(&token) },
            "PAGE_TOKEN_MISMATCH",
        ),
        (
            first.caller(),
            api::ListNotificationsRequest { page_size: -1, ..all() },
            "FIELD_VIOLATION",
        ),
        (
            first.caller(),
            api::ListNotificationsRequest { order: "orders/1".to_owned(), ..all() },
            "FIELD_VIOLATION",
        ),
    ] {
        let refused = list(&world, caller, request).await.unwrap_err();
        assert_eq!((refused.code(), reason(&refused).as_str()), (Code::InvalidArgument, why));
    }
}

async fn preferences_are_everything_until_they_are_changed(db: TestDb) {
    let world = World::on(db);
    let order = Order::new();
    let name = format!("preferences/{}", order.user);
    let read = preferences(&world, order.caller(), &name).await.unwrap();
    assert_eq!((read.muted_kinds.len(), read.etag.as_str()), (0, "\"v0\""));
    assert_eq!(read.update_time, None);
    // Given twice and out of order; answered once each, sorted.
    let kinds = [Kind::ShipmentDelivered, Kind::OrderReceived, Kind::OrderReceived];
    let mut request = muting(&order, &kinds);
    request.preferences.as_mut().unwrap().etag = read.etag;
    let changed = update(&world, order.caller(), request.clone()).await.unwrap();
    let sorted: Vec<_> = changed.muted_kinds().collect();
    assert_eq!(sorted, [Kind::OrderReceived, Kind::ShipmentDelivered]);
    assert_eq!(changed.etag, "\"v1\"");
    assert_eq!(preferences(&world, support(), &name).await.unwrap(), changed);
    let stale = update(&world, order.caller(), request).await.unwrap_err();
    assert_eq!((stale.code(), reason(&stale).as_str()), (Code::Aborted, "ETAG_MISMATCH"));
    let info = mesh::status::reason(&stale).unwrap();
    assert_eq!(info.metadata["etag"], "\"v1\"");
    // Without a mask, what is not set is left alone; with one, it is emptied.
    let mut request = muting(&order, &[]);
    request.update_mask = None;
    let same = update(&world, order.caller(), request.clone()).await.unwrap();
    assert_eq!((same.muted_kinds.len(), same.etag.as_str()), (2, "\"v2\""));
    request.update_mask = Some(FieldMask { paths: vec!["*".to_owned()] });
    let emptied = update(&world, order.caller(), request).await.unwrap();
    assert_eq!((emptied.muted_kinds.len(), emptied.etag.as_str()), (0, "\"v3\""));
    world.took(&order.created()).await;
    assert_eq!(world.pass().await.begun, 1);
}

async fn a_repeat_of_a_change_is_answered_as_the_first_time(db: TestDb) {
    let world = World::on(db);
    let order = Order::new();
    let request_id = uuid::Uuid::from_u128(4).to_string();
    let request =
        api::UpdatePreferencesRequest { request_id, ..muting(&order, &[Kind::OrderReceived]) };
    let first = update(&world, order.caller(), request.clone()).await.unwrap();
    update(&world, order.caller(), muting(&order, &[])).await.unwrap();
    let again = update(&world, order.caller(), request.clone()).await.unwrap();
    assert_eq!(again, first);
    let name = first.name;
    let now = preferences(&world, order.caller(), &name).await.unwrap();
    assert_eq!((now.muted_kinds.len(), now.etag.as_str()), (0, "\"v2\""));
    let mut other = muting(&order, &[Kind::OrderExpired]);
    other.request_id = request.request_id;
    let reused = update(&world, order.caller(), other).await.unwrap_err();
    assert_eq!(
        (reused.code(), reason(&reused).as_str()),
        (Code::InvalidArgument, "REQUEST_ID_REUSED")
    );
}

async fn what_is_malformed_names_its_field_and_changes_nothing(db: TestDb) {
    type Spoil = fn(&mut api::UpdatePreferencesRequest);
    fn inner(request: &mut api::UpdatePreferencesRequest) -> &mut api::Preferences {
        request.preferences.as_mut().unwrap()
    }
    let spoils: [(&str, Spoil); 8] = [
        ("preferences", |request| request.preferences = None),
        ("preferences.name", |request| inner(request).name = "preferences/me".to_owned()),
        ("preferences.etag", |request| inner(request).etag = "1".to_owned()),
        ("preferences.muted_kinds[1]", |request| inner(request).muted_kinds.push(0)),
        ("preferences.muted_kinds[1]", |request| inner(request).muted_kinds.push(99)),
        ("preferences.muted_kinds", |request| {
            inner(request).muted_kinds.push(Kind::OrderConfirmed.into());
        }),
        ("update_mask", |request| {
            request.update_mask = Some(FieldMask { paths: vec!["address".to_owned()] });
        }),
        ("request_id", |request| request.request_id = "1".to_owned()),
    ];
    let world = World::on(db);
    let order = Order::new();
    for (field, spoil) in spoils {
        let mut request = muting(&order, &[Kind::OrderReceived]);
        spoil(&mut request);
        let refused = update(&world, order.caller(), request).await.unwrap_err();
        assert_eq!(
            (refused.code(), reason(&refused).as_str()),
            (Code::InvalidArgument, "FIELD_VIOLATION")
        );
        let told = tonic_types::StatusExt::get_details_bad_request(&refused).unwrap();
        assert_eq!(told.field_violations[0].field, field);
    }
    assert_eq!(world.store.preferences(order.user).await.unwrap().revision, 0);
    let malformed = get(&world, order.caller(), "notifications/1").await.unwrap_err();
    assert_eq!(malformed.code(), Code::InvalidArgument);
}

async fn another_customers_preferences_are_neither_read_nor_changed(db: TestDb) {
    let world = World::on(db);
    let (order, other) = (Order::new(), Order::new());
    let name = format!("preferences/{}", order.user);
    let read = preferences(&world, other.caller(), &name).await.unwrap_err();
    let change = update(&world, other.caller(), muting(&order, &[Kind::OrderReceived])).await;
    for refused in [read, change.unwrap_err()] {
        assert_eq!(
            (refused.code(), reason(&refused).as_str()),
            (Code::PermissionDenied, "PERMISSION_DENIED")
        );
    }
    assert_eq!(world.store.preferences(order.user).await.unwrap().revision, 0);
    // Staff may, for a customer who asks them to.
    let changed = update(&world, support(), muting(&order, &[Kind::OrderReceived])).await.unwrap();
    assert_eq!(changed.etag, "\"v1\"");
}
