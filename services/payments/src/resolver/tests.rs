use std::sync::Mutex;

use futures_util::future::{BoxFuture, join_all};
use mesh::{
    Policy, auth::Caller, barrier::Command, client::breaker::Rule, config::Bound,
    telemetry::Refused, testing,
};
use proto::payments::v1::{
    self as api, payment::State, payments_service_server::PaymentsService as _,
    resolve_payment_request::Outcome as Told,
};
use serde_json::json;
use tokio::sync::oneshot;
use tonic::{Code, Request};

use super::*;
use crate::{
    domain::Pace,
    harness::{
        On, Order, Psp, TIMEOUT, World, as_orders, database, euro, hasty, on_both_databases,
        psp_database, reason, service,
    },
    provider::{HttpProvider, policy},
};

on_both_databases! {
    doubt_is_resolved_to_what_the_provider_really_did
    a_decline_is_refused_and_refused_again_the_same
    a_provider_that_was_away_is_asked_when_it_is_back
    a_provider_that_hangs_for_all_is_left_alone_and_charges_once_when_it_is_back
    a_void_that_comes_first_leaves_a_tombstone
    a_void_waits_for_what_is_in_doubt_and_then_gives_it_back
    a_crash_after_sent_resumes_with_the_same_key
    a_key_that_may_be_forgotten_is_never_sent_again
    the_customer_proves_who_they_are_and_the_payment_goes_on
    what_stays_pending_is_given_up_or_decided_by_a_person
    captures_post_what_the_provider_took_and_kept
    twenty_equal_commands_make_one_authorization
    the_attempt_goes_on_when_the_caller_leaves
    no_transaction_is_open_while_the_provider_is_called
}

async fn doubt_is_resolved_to_what_the_provider_really_did(on: On) {
    let world = World::new(on).await;
    let mut orders = Vec::new();
    for (token, first) in [
        ("tok_visa", State::Authorized),
        ("tok_slow", State::InDoubt),
        ("tok_apply_drop", State::InDoubt),
        ("tok_drop", State::InDoubt),
        ("tok_reset", State::InDoubt),
        ("tok_500_applied", State::InDoubt),
        ("tok_500", State::InDoubt),
    ] {
        let (order, answer) = world.paid(token).await;
        assert_eq!(answer.unwrap().state(), first, "{token}");
        orders.push((token, order));
    }
    world.resolve().await;
    for (token, order) in &orders {
        assert_eq!(world.state(order).await, State::Authorized, "{token}");
        let payment = world.payment(order).await;
        assert_eq!(payment.attempts.len(), 1, "{token}");
        // A repeat asks nobody: it answers the payment as it stands.
        let again = world.authorize(order).await.unwrap();
        assert_eq!((again.state(), again.revision), (State::Authorized, payment.revision));
    }
    assert_eq!(world.ledgers_agree().await, orders.len());
}

async fn a_decline_is_refused_and_refused_again_the_same(on: On) {
    let world = World::new(on).await;
    for (token, code, retriable) in [
        ("tok_declined", "do_not_honor", "false"),
        ("tok_insufficient_funds", "insufficient_funds", "true"),
        ("tok_expired_card", "expired_card", "true"),
        ("tok_fraud", "fraud", "false"),
    ] {
        let (order, answer) = world.paid(token).await;
        let first = answer.unwrap_err();
        let info = mesh::status::reason(&first).unwrap();
        assert_eq!(
            (first.code(), info.reason.as_str()),
            (Code::FailedPrecondition, "PAYMENT_DECLINED")
        );
        assert_eq!(
            (&*info.metadata["decline_code"], &*info.metadata["retriable"]),
            (code, retriable)
        );
        let again = world.authorize(&order).await.unwrap_err();
        assert_eq!((again.code(), again.message()), (first.code(), first.message()), "{token}");
        assert_eq!(mesh::status::reason(&again).unwrap().metadata, info.metadata);
        assert_eq!(world.payment(&order).await.attempts.len(), 1);
        assert_eq!(world.state(&order).await, State::Failed);
    }
    assert_eq!(world.ledgers_agree().await, 0);
}

async fn a_provider_that_was_away_is_asked_when_it_is_back(on: On) {
    let psp_db = psp_database(on).await;
    // Nobody is behind the socket yet: what is sent to it arrives late, if ever.
    let bound = Bound::free().unwrap();
    let base = format!("http://{}", bound.listen.local_addr().unwrap());
    let db = database(on).await;
    let (store, resolver, service) =
        service(&db, Arc::new(HttpProvider::new(&base, policy(TIMEOUT))), hasty());
    let order = Order::new();
    let created = service.create_payment(Request::new(order.create("tok_visa")));
    as_orders(created).await.unwrap();
    let command = Some(order.command("authorize_payment"));
    let request =
        api::AuthorizePaymentRequest { name: order.name(), command, ..Default::default() };
    let answer = as_orders(service.authorize_payment(Request::new(request))).await.unwrap();
    assert_eq!(answer.get_ref().state(), State::InDoubt);
    assert_eq!(resolver.pass().await.unwrap(), 1);
    let still = store.payment(order.id).await.unwrap().unwrap();
    assert_eq!(still.state(), crate::domain::State::InDoubt);

    let back = Psp::on(bound, &psp_db).await;
    for _ in 0..5 {
        resolver.pass().await.unwrap();
    }
    let payment = store.payment(order.id).await.unwrap().unwrap();
    assert_eq!(payment.state(), crate::domain::State::Authorized);
    // Three requests of one key: money moved once.
    let ledger = back.get("/v1/ledger").await;
    assert_eq!(ledger["entries"].as_array().unwrap().len(), 1);
}

async fn a_provider_that_hangs_for_all_is_left_alone_and_charges_once_when_it_is_back(on: On) {
    let psp_db = psp_database(on).await;
    // Nobody is behind the socket yet: what is sent to it arrives late, if ever.
    let bound = Bound::free().unwrap();
    let base = format!("http://{}", bound.listen.local_addr().unwrap());
    let db = database(on).await;
    let usual = policy(TIMEOUT);
    let open = Duration::from_secs(600);
    let breaker = Rule { open, open_max: open, ..usual.breaker };
    let provider = HttpProvider::new(&base, Policy { breaker, ..usual });
    let (_, _, service) = service(&db, Arc::new(provider), hasty());
    let orders: Vec<_> = (0..6).map(|_| Order::new()).collect();
    let authorized = |order: Order| {
        let service = &service;
        async move {
            let created = service.create_payment(Request::new(order.create("tok_visa")));
            as_orders(created).await.unwrap();
            let (name, command) = (order.name(), Some(order.command("authorize_payment")));
            let request = api::AuthorizePaymentRequest { name, command, ..Default::default() };
            as_orders(service.authorize_payment(Request::new(request))).await.unwrap()
        }
    };
    let (last, first) = orders.split_last().unwrap();
    for answer in join_all(first.iter().cloned().map(authorized)).await {
        assert_eq!(answer.get_ref().state(), State::InDoubt);
    }
    // It is not known to the resolver who was sent and who was not: nothing is concluded from it.
    assert_eq!(authorized(last.clone()).await.get_ref().state(), State::InDoubt);
    let labels = Refused { dependency: crate::provider::NAME.to_owned(), reason: "CIRCUIT_OPEN" };
    assert!(mesh::telemetry::metrics().refused.get_or_create(&labels).get() >= 1);

    let back = Psp::on(bound, &psp_db).await;
    let provider = HttpProvider::new(&base, policy(TIMEOUT * 10));
    let store = Store::new(db.store.clone(), hasty());
    let resolver = Resolver::new(store.clone(), Arc::new(provider));
    for _ in 0..5 {
        resolver.pass().await.unwrap();
    }
    for order in &orders {
        let payment = store.payment(order.id).await.unwrap().unwrap();
        assert_eq!(payment.state(), crate::domain::State::Authorized);
    }
    let ledger = back.get("/v1/ledger").await;
    assert_eq!(ledger["entries"].as_array().unwrap().len(), orders.len(), "{ledger}");
}

async fn a_void_that_comes_first_leaves_a_tombstone(on: On) {
    let world = World::new(on).await;
    // Before anything.
    let unborn = Order::new();
    assert_eq!(world.void(&unborn).await.unwrap().state(), State::Voided);
    assert_eq!(world.void(&unborn).await.unwrap().state(), State::Voided);
    let late = world.create(&unborn, "tok_visa").await.unwrap_err();
    assert_eq!((late.code(), reason(&late)), (Code::FailedPrecondition, "UNDONE".to_owned()));
    let late = world.authorize(&unborn).await.unwrap_err();
    assert_eq!((late.code(), reason(&late)), (Code::FailedPrecondition, "UNDONE".to_owned()));
    // Between creation and authorization.
    let created = Order::new();
    world.create(&created, "tok_visa").await.unwrap();
    assert_eq!(world.void(&created).await.unwrap().state(), State::Voided);
    assert_eq!(reason(&world.authorize(&created).await.unwrap_err()), "UNDONE");
    assert_eq!(world.ledgers_agree().await, 0);
}

async fn a_void_waits_for_what_is_in_doubt_and_then_gives_it_back(on: On) {
    let world = World::new(on).await;
    for (token, moved) in [("tok_apply_drop", 2), ("tok_drop", 4)] {
        let (order, answer) = world.paid(token).await;
        assert_eq!(answer.unwrap().state(), State::InDoubt);
        let wait = world.void(&order).await.unwrap_err();
        assert_eq!((wait.code(), reason(&wait)), (Code::Aborted, "REQUEST_IN_PROGRESS".to_owned()));
        world.resolve().await;
        assert_eq!(world.void(&order).await.unwrap().state(), State::Voided, "{token}");
        assert_eq!(reason(&world.authorize(&order).await.unwrap_err()), "UNDONE");
        assert_eq!(world.ledgers_agree().await, moved, "{token}");
    }
    // Nothing in doubt: at once. And a void whose own answer is lost.
    let (order, _) = world.paid("tok_visa").await;
    assert_eq!(world.void(&order).await.unwrap().state(), State::Voided);
    let (order, _) = world.paid("tok_visa").await;
    let fault = json!({"operation": "void", "fault": "apply_drop", "count": 1});
    assert_eq!(world.psp.post("/control/faults", fault).await, 204);
    assert_eq!(reason(&world.void(&order).await.unwrap_err()), "REQUEST_IN_PROGRESS");
    world.resolve().await;
    assert_eq!(world.void(&order).await.unwrap().state(), State::Voided);
    assert_eq!(world.ledgers_agree().await, 8);
}

async fn a_crash_after_sent_resumes_with_the_same_key(on: On) {
    let world = World::new(on).await;
    let mut orders = Vec::new();
    for did_go_out in [false, true] {
        let order = Order::new();
        world.create(&order, "tok_visa").await.unwrap();
        let step = order.command("authorize_payment");
        let command = Command {
            saga: step.saga,
            step_key: step.step_key,
            command_id: step.command_id.parse().unwrap(),
            fence: 1,
        };
        let begun = world.store.authorize(order.id, command, None).await.unwrap();
        if did_go_out {
            let attempt = begun.payment.attempt(begun.attempt.unwrap()).unwrap().clone();
            let provider = HttpProvider::new(&world.psp.base, policy(Duration::from_secs(3)));
            let lost = testing::as_nobody(provider.send(&attempt)).await;
            assert!(matches!(lost, Outcome::Succeeded { .. }));
        }
        orders.push(order);
    }
    // The process is gone; another one opens what it left.
    world.db.store.close().await.unwrap();
    let store = Store::connect(&world.db.url, hasty()).await.unwrap();
    let provider = HttpProvider::new(&world.psp.base, policy(Duration::from_secs(3)));
    let resolver = Resolver::new(store.clone(), Arc::new(provider));
    assert_eq!(resolver.pass().await.unwrap(), 2);
    for order in &orders {
        let payment = store.payment(order.id).await.unwrap().unwrap();
        assert_eq!(payment.state(), crate::domain::State::Authorized);
        // It was in doubt in between, and said so.
        assert_eq!((payment.attempts.len(), payment.revision), (1, 2));
        let asked = format!("/v1/operations?reference={}", payment.attempts[0].reference);
        let operations = world.psp.get(&asked).await;
        assert_eq!(operations["operations"].as_array().unwrap().len(), 1);
    }
    store.mesh().close().await.unwrap();
}

async fn a_key_that_may_be_forgotten_is_never_sent_again(on: On) {
    let pace = Pace { keys_kept: Duration::ZERO, ..hasty() };
    let world = World::at_pace(on, pace).await;
    let (applied, _) = world.paid("tok_apply_drop").await;
    let (dropped, _) = world.paid("tok_drop").await;
    let day = json!({"seconds": 25 * 3_600});
    assert_eq!(world.psp.post("/control/advance", day).await, 200);
    world.resolve().await;
    assert_eq!(world.state(&applied).await, State::Authorized);
    assert_eq!(world.state(&dropped).await, State::Failed);
    let payment = world.payment(&dropped).await;
    assert_eq!(payment.overview().decline_code.as_deref(), Some("never_arrived"));
    assert_eq!(world.ledgers_agree().await, 1);
}

async fn the_customer_proves_who_they_are_and_the_payment_goes_on(on: On) {
    let world = World::new(on).await;
    for (result, state) in [("succeeded", State::Authorized), ("failed", State::Failed)] {
        let (order, answer) = world.paid("tok_action_required").await;
        let payment = answer.unwrap();
        assert_eq!(payment.state(), State::ActionRequired);
        world.resolver.pass().await.unwrap();
        assert_eq!(world.state(&order).await, State::ActionRequired);
        let path = payment.action_url.strip_prefix(&world.psp.base).unwrap();
        assert_eq!(world.psp.post(path, json!({"result": result})).await, 200);
        // Not due at once: the longer the customer took, the rarer the provider is asked.
        let decided = async {
            while world.state(&order).await == State::ActionRequired {
                world.resolver.pass().await.unwrap();
            }
        };
        tokio::time::timeout(Duration::from_secs(10), decided).await.unwrap();
        assert_eq!(world.state(&order).await, state, "{result}");
    }
    // Voided while it waits: the customer comes too late.
    let (order, answer) = world.paid("tok_action_required").await;
    let payment = answer.unwrap();
    assert_eq!(world.void(&order).await.unwrap().state(), State::Voided);
    let path = payment.action_url.strip_prefix(&world.psp.base).unwrap();
    world.psp.post(path, json!({"result": "succeeded"})).await;
    world.resolve().await;
    assert_eq!(world.state(&order).await, State::Voided);
    assert_eq!(world.ledgers_agree().await, 1);
}

async fn what_stays_pending_is_given_up_or_decided_by_a_person(on: On) {
    let world = World::new(on).await;
    let (given_up, answer) = world.paid("tok_pending").await;
    assert_eq!(answer.unwrap().state(), State::InDoubt);
    assert_eq!(world.void(&given_up).await.unwrap().state(), State::Voided);
    let (order, _) = world.paid("tok_pending").await;
    let early = resolve(&world, &order, Told::Failed).await.unwrap_err();
    assert_eq!(reason(&early), "PAYMENT_STATE");
    world.resolve().await;
    let payment = world.payment(&order).await;
    assert_eq!(payment.attempts[0].state, AttemptState::NeedsReview);
    assert_eq!(world.state(&order).await, State::InDoubt);

    let decided = resolve(&world, &order, Told::Failed).await.unwrap();
    assert_eq!(
        (decided.state(), decided.decline_code.as_str()),
        (State::Failed, "resolved_by_a_person")
    );
    // The same request again: the same answer.
    let again = resolve(&world, &order, Told::Failed).await.unwrap();
    assert_eq!(again, decided);
    let stored = world.payment(&order).await;
    assert_eq!(stored.attempts[0].evidence.as_deref(), Some("users/finance: letter of 3 May"));
    assert_eq!(i64::from(stored.revision == decided.revision), 1);
    assert_eq!(world.ledgers_agree().await, 0);
}

async fn resolve(
    world: &World,
    order: &Order,
    outcome: Told,
) -> Result<api::Payment, tonic::Status> {
    let request = api::ResolvePaymentRequest {
        name: order.name(),
        outcome: outcome.into(),
        evidence: "letter of 3 May".to_owned(),
        etag: mesh::resource::etag(1),
        request_id: Uuid::from_u128(0x4000_8000_0000_0000_0001).to_string(),
        ..Default::default()
    };
    let finance = Caller::with_roles("users/finance", &["finance"]);
    let answer = world.service.resolve_payment(Request::new(request));
    Ok(testing::as_caller(finance, answer).await?.into_inner())
}

async fn captures_post_what_the_provider_took_and_kept(on: On) {
    let world = World::new(on).await;
    let (order, _) = world.paid("tok_visa").await;
    let over = world.capture(&order, "capture#0", Some(euro(11, 0)), false).await.unwrap_err();
    assert_eq!(reason(&over), "AMOUNT_EXCEEDS_AUTHORIZED");
    let part = world.capture(&order, "capture#1", Some(euro(4, 0)), false).await.unwrap();
    assert_eq!(part.state(), State::PartiallyCaptured);
    let again = world.capture(&order, "capture#1", Some(euro(4, 0)), false).await.unwrap();
    assert_eq!(again.captured, Some(euro(4, 0)));
    let fault = json!({"operation": "capture", "fault": "apply_drop", "count": 1});
    assert_eq!(world.psp.post("/control/faults", fault).await, 204);
    let doubt = world.capture(&order, "capture#2", Some(euro(5, 0)), true).await.unwrap();
    assert_eq!(doubt.state(), State::InDoubt);
    world.resolve().await;
    let done = world.capture(&order, "capture#2", Some(euro(5, 0)), true).await.unwrap();
    assert_eq!((done.state(), done.captured), (State::Captured, Some(euro(9, 0))));
    // Authorized, captured twice, and the rest given back.
    assert_eq!(world.ledgers_agree().await, 4);
}

async fn twenty_equal_commands_make_one_authorization(on: On) {
    let world = World::new(on).await;
    let order = Order::new();
    world.create(&order, "tok_visa").await.unwrap();
    let answers = join_all((0..20).map(|_| world.authorize(&order))).await;
    for answer in answers {
        let state = answer.unwrap().state();
        assert!(matches!(state, State::Authorizing | State::Authorized), "{state:?}");
    }
    assert_eq!(world.payment(&order).await.attempts.len(), 1);
    assert_eq!(world.ledgers_agree().await, 1);
}

/// A provider that says when it was asked, and answers when it is told to.
struct Scripted {
    asked: Mutex<Option<oneshot::Sender<()>>>,
    told: Mutex<Option<oneshot::Receiver<()>>>,
    store: Store,
}

impl Provider for Scripted {
    fn send<'a>(&'a self, attempt: &'a Attempt) -> BoxFuture<'a, Outcome> {
        let (asked, told) = (self.asked.lock().unwrap().take(), self.told.lock().unwrap().take());
        Box::pin(async move {
            // With a transaction open, this one would wait for it, and it for us.
            let other = Order::new().id;
            let step = Command {
                saga: "s".to_owned(),
                step_key: other.to_string(),
                command_id: other,
                fence: 1,
            };
            self.store.void(other, step).await.unwrap();
            asked.unwrap().send(()).unwrap();
            told.unwrap().await.unwrap();
            Outcome::done(Some(format!("auth_{}", attempt.id.simple())))
        })
    }

    fn ask<'a>(&'a self, _attempt: &'a Attempt) -> BoxFuture<'a, Option<Outcome>> {
        Box::pin(async { None })
    }
}

/// Begins to authorize a payment, and leaves while the provider is at it; it answers then.
async fn left(on: On) -> crate::domain::Payment {
    let db = database(on).await;
    let (asked, was_asked) = oneshot::channel();
    let (tell, told) = oneshot::channel();
    let provider = Scripted {
        asked: Mutex::new(Some(asked)),
        told: Mutex::new(Some(told)),
        store: Store::new(db.store.clone(), Pace::default()),
    };
    let (store, _, service) = service(&db, Arc::new(provider), Pace::default());
    let order = Order::new();
    as_orders(service.create_payment(Request::new(order.create("tok_visa")))).await.unwrap();
    let command = Some(order.command("authorize_payment"));
    let request =
        api::AuthorizePaymentRequest { name: order.name(), command, ..Default::default() };
    as_orders(async {
        tokio::select! {
            _ = service.authorize_payment(Request::new(request)) => panic!("it has no answer yet"),
            asked = was_asked => asked.unwrap(),
        }
    })
    .await;
    tell.send(()).unwrap();
    let recorded = async {
        loop {
            let payment = store.payment(order.id).await.unwrap().unwrap();
            if payment.is_settled() {
                return payment;
            }
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(Duration::from_secs(10), recorded).await.unwrap()
}

async fn the_attempt_goes_on_when_the_caller_leaves(on: On) {
    assert_eq!(left(on).await.state(), crate::domain::State::Authorized);
}

async fn no_transaction_is_open_while_the_provider_is_called(on: On) {
    // The provider of this one writes to the same database while it is called.
    assert!(left(on).await.is_settled());
}
