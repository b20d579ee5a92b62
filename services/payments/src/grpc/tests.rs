use mesh::{auth::Caller, testing};
use proto::{google::r#type::Money, payments::v1::payment::State};
use tonic::Code;

use super::*;
use crate::harness::{CUSTOMER, On, Order, World, as_orders, euro, on_both_databases, reason};

on_both_databases! {
    a_customer_reads_their_own_payments_and_no_others
    a_payment_is_created_once_and_for_one_order
    what_is_malformed_names_its_field_and_changes_nothing
    lists_come_in_pages_and_tokens_grant_nothing
}

async fn a_customer_reads_their_own_payments_and_no_others(on: On) {
    let world = World::new(on).await;
    let (order, _) = world.paid("tok_visa").await;
    let get = async |caller: Caller, name: String| {
        let call = world.service.get_payment(Request::new(api::GetPaymentRequest { name }));
        testing::as_caller(caller, call).await.map(|got| got.into_inner().state())
    };
    let (owner, other) = (Caller::customer(CUSTOMER), Caller::customer("users/other"));
    let finance = || Caller::with_roles("users/f", &["finance"]);
    assert_eq!(get(owner.clone(), order.name()).await.unwrap(), State::Authorized);
    assert_eq!(get(finance(), order.name()).await.unwrap(), State::Authorized);
    // Another's payment looks like one that does not exist.
    let theirs = get(other.clone(), order.name()).await.unwrap_err();
    let nobodys = get(other.clone(), Order::new().name()).await.unwrap_err();
    assert_eq!(theirs.code(), Code::PermissionDenied);
    assert_eq!((theirs.code(), theirs.message()), (nobodys.code(), nobodys.message()));
    assert_eq!(get(finance(), Order::new().name()).await.unwrap_err().code(), Code::NotFound);

    let list = async |caller| {
        let call = world.service.list_payments(Request::new(api::ListPaymentsRequest::default()));
        testing::as_caller(caller, call).await.unwrap().into_inner().payments.len()
    };
    assert_eq!((list(owner).await, list(other).await, list(finance()).await), (1, 0, 1));
}

async fn a_payment_is_created_once_and_for_one_order(on: On) {
    let world = World::new(on).await;
    let order = Order::new();
    let first = world.create(&order, "tok_visa").await.unwrap();
    assert_eq!((first.state(), first.revision), (State::Created, 0));
    assert_eq!(world.create(&order, "tok_visa").await.unwrap(), first);
    let mut other = order.create("tok_visa");
    if let Some(payment) = &mut other.payment {
        payment.amount = Some(euro(1, 0));
    }
    let taken = as_orders(world.service.create_payment(Request::new(other))).await.unwrap_err();
    assert_eq!((taken.code(), reason(&taken)), (Code::AlreadyExists, "ALREADY_EXISTS".to_owned()));
    // The same order under another id.
    let mut other = order.create("tok_visa");
    other.payment_id = Order::new().id.to_string();
    let taken = as_orders(world.service.create_payment(Request::new(other))).await.unwrap_err();
    assert_eq!(taken.code(), Code::AlreadyExists);
}

async fn what_is_malformed_names_its_field_and_changes_nothing(on: On) {
    type Spoil = fn(&mut api::CreatePaymentRequest);
    fn payment(request: &mut api::CreatePaymentRequest) -> &mut api::Payment {
        request.payment.as_mut().unwrap()
    }
    let world = World::new(on).await;
    let spoils: [(&str, Spoil); 13] = [
        ("payment", |request| request.payment = None),
        ("payment_id", |request| request.payment_id = "1".to_owned()),
        ("command", |request| request.command = None),
        ("command.saga", |request| request.command.as_mut().unwrap().saga.clear()),
        ("command.step_key", |request| request.command.as_mut().unwrap().step_key.clear()),
        ("command.command_id", |request| request.command.as_mut().unwrap().command_id.clear()),
        ("payment.order", |request| payment(request).order.clear()),
        ("payment.customer", |request| payment(request).customer = "me".to_owned()),
        ("payment.amount", |request| payment(request).amount = None),
        ("payment.amount", |request| payment(request).amount = Some(euro(-1, 0))),
        ("payment.amount", |request| payment(request).amount = Some(euro(i64::MAX, 0))),
        ("payment.amount", |request| {
            let currency_code = "ZZZ".to_owned();
            payment(request).amount = Some(Money { currency_code, units: 1, nanos: 0 });
        }),
        ("payment.payment_method", |request| {
            payment(request).payment_method = "4242424242424242".to_owned();
        }),
    ];
    let order = Order::new();
    for (field, spoil) in spoils {
        let mut request = order.create("tok_visa");
        spoil(&mut request);
        let call = world.service.create_payment(Request::new(request));
        let refused = as_orders(call).await.unwrap_err();
        assert_eq!(
            (refused.code(), reason(&refused)),
            (Code::InvalidArgument, "FIELD_VIOLATION".to_owned())
        );
        let told = tonic_types::StatusExt::get_details_bad_request(&refused).unwrap();
        assert_eq!(told.field_violations[0].field, field);
    }
    assert!(world.store.overview(order.id).await.unwrap().is_none());
}

async fn lists_come_in_pages_and_tokens_grant_nothing(on: On) {
    let world = World::new(on).await;
    for _ in 0..3 {
        world.paid("tok_visa").await.1.unwrap();
    }
    let page = async |caller: Caller, page_size, page_token: &str| {
        let page_token = page_token.to_owned();
        let request = api::ListPaymentsRequest { page_size, page_token };
        let call = world.service.list_payments(Request::new(request));
        testing::as_caller(caller, call).await.map(tonic::Response::into_inner)
    };
    let finance = || Caller::with_roles("users/f", &["finance"]);
    let first = page(finance(), 2, "").await.unwrap();
    let second = page(finance(), 2, &first.next_page_token).await.unwrap();
    assert_eq!((first.payments.len(), second.payments.len()), (2, 1));
    assert_eq!(second.next_page_token, "");
    let mut names: Vec<_> =
        first.payments.iter().chain(&second.payments).map(|one| &one.name).collect();
    assert!(names.is_sorted_by(|a, b| a > b), "the newest first");
    names.dedup();
    assert_eq!(names.len(), 3);
    let customer = Caller::customer(CUSTOMER);
    for (caller, size, token, why) in [
        (customer, 2, first.next_page_token.as_str(), "PAGE_TOKEN_MISMATCH"),
        (finance(), 2, "nonsense", "PAGE_TOKEN_MISMATCH"),
        (finance(), -1, "", "FIELD_VIOLATION"),
    ] {
        let refused = page(caller, size, token).await.unwrap_err();
        assert_eq!((refused.code(), reason(&refused).as_str()), (Code::InvalidArgument, why));
    }

    let payment = first.payments[0].name.clone();
    let request = api::ListAttemptsRequest { payment: payment.clone(), ..Default::default() };
    let call = world.service.list_attempts(Request::new(request));
    let attempts = testing::as_caller(finance(), call).await.unwrap().into_inner().attempts;
    assert_eq!((attempts.len(), attempts[0].payment.as_str()), (1, payment.as_str()));
    let request = api::ListLedgerEntriesRequest { payment, ..Default::default() };
    let call = world.service.list_ledger_entries(Request::new(request));
    let entries = testing::as_caller(finance(), call).await.unwrap().into_inner().ledger_entries;
    assert_eq!(entries.len(), 2);
}
