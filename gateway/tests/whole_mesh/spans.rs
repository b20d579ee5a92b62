//! One order is one connected trace, from the request to the mails, through every queue.

use std::collections::{BTreeSet, HashMap};

use mesh::testing::{Collector, Seen, drawn};

use crate::{
    bed::{Bed, Changes},
    lives::order,
};

/// The spans of one trace once every mail of a confirmed order is written.
async fn of_one_order(payment: &str, state: &str, last: &'static str) -> (String, Vec<Seen>) {
    let collector = Collector::start().expect("a collector");
    let endpoint: &'static str = Box::leak(collector.endpoint().into_boxed_str());
    let bed = Bed::with(Changes { spans: Some(endpoint), ..Changes::default() }).await;
    bed.variant("MUG", (9, 99), 10).await;
    let (_, token) = bed.customer("ada@example.com").await;
    let reply = bed.post("/v1/orders", Some(&token), &order("MUG", 2, (19, 98), payment)).await;
    assert_eq!(reply.status, 201, "{:?}", reply.body);
    let trace = reply.headers["x-trace-id"].to_str().expect("text").to_owned();
    let name = reply.text("name");
    let settled = bed.settled(&name, &token).await;
    assert_eq!(settled.text("state"), state, "{}", settled.body);
    let is_last = |it: &Seen| it.trace == trace && it.name == "write_mail";
    let events = |seen: &[Seen]| {
        let taken = |it: &&Seen| it.trace == trace && it.says("cloudevents.event_type") == last;
        let taken = seen.iter().filter(taken);
        taken.filter(|it| it.kind == "CONSUMER" && it.service == "notifications").count()
    };
    // The first mail tells that the order came, the second what became of it.
    collector
        .once(|seen| events(seen) >= 1 && seen.iter().filter(|it| is_last(it)).count() >= 2)
        .await
        .expect("every mail is written");
    // What is still on its way leaves with the processes.
    bed.end().await;
    let seen = collector.seen().into_iter().filter(|it| it.trace == trace).collect();
    (name, seen)
}

/// Every span but the first has a parent that is there: answers the first.
fn connected(seen: &[Seen]) -> &Seen {
    let by_id: HashMap<_, _> = seen.iter().map(|it| (it.span.as_str(), it)).collect();
    assert_eq!(by_id.len(), seen.len(), "no id twice:\n{}", drawn(seen));
    let roots: Vec<_> = seen.iter().filter(|it| !by_id.contains_key(it.parent.as_str())).collect();
    assert_eq!(roots.len(), 1, "one beginning:\n{}", drawn(seen));
    assert_eq!(roots[0].parent, "");
    roots[0]
}

/// The names on the way from the first span down to this one.
fn way<'s>(seen: &'s [Seen], span: &'s Seen) -> Vec<(&'s str, &'s str)> {
    let mut way = vec![(span.service.as_str(), span.name.as_str())];
    let mut at = span;
    while let Some(parent) = seen.iter().find(|it| it.span == at.parent) {
        way.push((&parent.service, &parent.name));
        at = parent;
    }
    way.reverse();
    way
}

#[tokio::test(flavor = "multi_thread")]
async fn one_order_is_one_connected_trace_from_the_request_to_the_mails() {
    let (name, seen) = of_one_order("tok_visa", "STATE_CONFIRMED", "order.confirmed").await;
    let root = connected(&seen);
    assert_eq!((&*root.service, &*root.name, root.kind), ("gateway", "POST /v1/orders", "SERVER"));
    assert_eq!(root.says("http.response.status_code"), "201");
    assert_eq!(root.says("http.route"), "/v1/orders");

    let find = |service: &str, kind: &str, name: &str| {
        let is = |it: &&Seen| (&*it.service, it.kind, &*it.name) == (service, kind, name);
        seen.iter().find(is).unwrap_or_else(|| panic!("no {kind} {name}:\n{}", drawn(&seen)))
    };
    const CREATE: &str = "ordermesh.orders.v1.OrdersService/CreateOrder";
    const ATTEMPT: &str = "Attempt.ordermesh.orders.v1.OrdersService/CreateOrder";
    let to_order = [
        ("gateway", "POST /v1/orders"),
        ("gateway", CREATE),
        ("gateway", ATTEMPT),
        ("orders", CREATE),
    ];
    // The commit goes on although the caller may leave.
    let place = ("orders", "place an order");
    let saga = seen.iter().find(|it| it.name.starts_with("saga orders.fulfilment."));
    let saga = saga.map_or("no saga", |it| &it.name);
    let (hold, authorize) = (
        "ordermesh.inventory.v1.InventoryService/CreateReservation",
        "ordermesh.payments.v1.PaymentsService/AuthorizePayment",
    );
    let (attempt_hold, attempt_authorize) =
        (format!("Attempt.{hold}"), format!("Attempt.{authorize}"));
    for (service, kind, name, below) in [
        ("orders", "SERVER", CREATE, &[][..]),
        ("orders", "PRODUCER", "create order_events", &[place, ("orders", "create order_events")]),
        (
            "notifications",
            "CONSUMER",
            "process order_events",
            &[place, ("orders", "create order_events"), ("notifications", "process order_events")],
        ),
        ("orders", "INTERNAL", saga, &[place, ("orders", saga)]),
        (
            "inventory",
            "SERVER",
            hold,
            &[
                place,
                ("orders", saga),
                ("orders", "step hold_stock"),
                ("orders", hold),
                ("orders", &attempt_hold),
                ("inventory", hold),
            ],
        ),
        (
            "payments",
            "SERVER",
            authorize,
            &[
                place,
                ("orders", saga),
                ("orders", "step authorize_payment"),
                ("orders", authorize),
                ("orders", &attempt_authorize),
                ("payments", authorize),
            ],
        ),
        (
            "orders",
            "INTERNAL",
            "step confirm",
            &[place, ("orders", saga), ("orders", "step confirm")],
        ),
    ] {
        let found = find(service, kind, name);
        let expected: Vec<_> = to_order.into_iter().chain(below.iter().copied()).collect();
        let ways: BTreeSet<_> = seen
            .iter()
            .filter(|it| (&it.service, &it.name, it.kind) == (&found.service, &found.name, kind))
            .map(|it| way(&seen, it))
            .collect();
        assert!(ways.contains(&expected), "{expected:?} is not among {ways:?}");
    }
    // What an event causes is below the span that wrote it, and linked to it.
    for taken in seen.iter().filter(|it| it.kind == "CONSUMER") {
        assert_eq!(taken.links, std::slice::from_ref(&taken.parent));
        let created = seen.iter().find(|it| it.span == taken.parent).unwrap();
        assert_eq!(created.kind, "PRODUCER");
        for key in ["messaging.message.id", "cloudevents.event_type"] {
            assert_eq!(created.says(key), taken.says(key));
        }
    }
    // Whoever works for the order says so, also behind a call.
    for service in ["orders", "inventory", "payments"] {
        let says = |it: &&Seen| it.service == service && it.says("order.id") == name;
        assert!(seen.iter().any(|it| says(&it)), "{service}:\n{}", drawn(&seen));
    }
    // Attempts may fail on a slow machine, and steps may be tried again; the whole has not.
    let whole = |it: &&Seen| it.name == "POST /v1/orders" || it.name.starts_with("saga ");
    assert!(seen.iter().filter(whole).all(|it| !it.failed), "{}", drawn(&seen));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_declined_payment_is_one_trace_with_its_undoing_and_says_why() {
    let (_, seen) = of_one_order("tok_declined", "STATE_REJECTED", "order.rejected").await;
    connected(&seen);
    let named = |name: &str| {
        let found = seen.iter().find(|it| it.name == name);
        found.unwrap_or_else(|| panic!("no {name}:\n{}", drawn(&seen)))
    };
    let refused = named("step authorize_payment");
    assert!(refused.failed);
    assert_eq!(refused.says("ordermesh.reason"), "PAYMENT_DECLINED");
    assert!(!named("undo hold_stock").failed);
    assert!(!named("POST /v1/orders").failed, "the order was taken in well");
}
