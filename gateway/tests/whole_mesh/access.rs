//! Who may call what, made from the contract: every rpc, as everybody.
//!
//! The callers are in [`cast`], what they ask for is set on [`stage`], and [`wire`] carries it:
//! gRPC to the service itself, so that no gateway refuses what a service would not.

mod cast;
mod wire;
mod stage;
mod accounts;
mod goods;
mod stock;
mod sales;
mod money;
mod parcels;
mod letters;
mod operators;

use std::collections::BTreeMap;

use mesh::auth::Rule;
use serde_json::{Value, json};
use tonic::Code;

use self::{
    cast::Actor,
    stage::{Case, Reach, Stage},
    wire::Answer,
};
use crate::bed::SERVICES;

/// What a rule promises to a caller, in the order in which it is tried: whoever is refused comes
/// first, with what the others then succeed with. So a refusal is for who asks, and changes
/// nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Promise {
    /// It is not known who they are.
    Unknown,
    /// They may not call this at all.
    Denied,
    /// It is somebody else's, and whether it exists does not show.
    NotTheirs,
    /// It is a list, in which nothing of its owner's stands.
    ServedWithout,
    Served,
}

/// Rpcs that admit customers although nothing they answer has an owner.
const SHARED: [(&str, &str); 2] = [
    ("ordermesh.inventory.v1.InventoryService.GetStock", "all customers see the same stock"),
    ("ordermesh.inventory.v1.InventoryService.BatchGetStocks", "all customers see the same stock"),
];

#[tokio::test(flavor = "multi_thread")]
#[expect(clippy::print_stderr, reason = "says how much was tried")]
async fn every_rpc_answers_whom_its_rule_names_and_nobody_else() {
    let stage = Stage::set().await;
    let cast = stage.cast().await;
    let methods = stage.contract.methods();
    let mut wrong = Vec::new();
    let mut table = BTreeMap::<(Promise, &str), usize>::new();
    for method in &methods {
        match stage.contract.rule(method) {
            None => wrong.push(format!("{method} has no rule: nobody can call it")),
            Some(rule) => play(&stage, method, rule, &cast, &mut table, &mut wrong).await,
        }
    }
    eprintln!("{} rpcs × {} callers", methods.len(), cast.len());
    for ((promise, label), count) in &table {
        eprintln!("{count:>4}  {label:<9}  {promise:?}");
    }
    assert!(wrong.is_empty(), "{} broken promises:\n{}", wrong.len(), wrong.join("\n"));
    assert!(methods.len() > 50, "only {} rpcs were found", methods.len());
    assert_eq!(table.values().sum::<usize>(), methods.len() * cast.len());
    stage.bed.end().await;
}

/// Calls one rpc as everybody.
async fn play(
    stage: &Stage,
    method: &str,
    rule: &Rule,
    cast: &[Actor],
    table: &mut BTreeMap<(Promise, &'static str), usize>,
    wrong: &mut Vec<String>,
) {
    let shared = SHARED.iter().any(|(name, _why)| *name == method);
    let admits_customers = rule.roles.iter().any(|role| role == "customer");
    if (admits_customers && rule.owner.is_none()) != shared {
        wrong.push(format!("{method}: admits customers, so it has an owner or stands in SHARED"));
    }
    let Some(mut case) = stage.case(method).await else {
        wrong.push(format!("no fixture for {method}: add one"));
        return;
    };
    if rule.owner.is_some() != case.reach.has_owner() {
        wrong.push(format!("{method}: rule and fixture differ about whether it has an owner"));
    }
    let mut cast: Vec<(Promise, &Actor)> =
        cast.iter().map(|actor| (promise(rule, actor, &case.reach), actor)).collect();
    cast.sort_by_key(|(promise, _)| *promise);
    let mut used = false;
    for (promise, actor) in cast {
        if promise == Promise::Served && std::mem::replace(&mut used, true) {
            case = stage.case(method).await.expect("a fixture that was there");
        }
        *table.entry((promise, actor.label)).or_default() += 1;
        if let Err(problem) = ask(stage, method, actor, promise, &case).await {
            wrong.push(format!("{method} as {actor}: {problem}"));
        }
    }
}

fn promise(rule: &Rule, actor: &Actor, reach: &Reach) -> Promise {
    if rule.anonymous {
        return if actor.label == "forger" { Promise::Unknown } else { Promise::Served };
    }
    let Some(caller) = &actor.caller else { return Promise::Unknown };
    if !rule.admits(caller) {
        return Promise::Denied;
    }
    match reach {
        Reach::Named(_) if actor.label == "other" => Promise::NotTheirs,
        Reach::Listed(_) if actor.label == "other" => Promise::ServedWithout,
        Reach::Named(_) | Reach::Listed(_) | Reach::Anyones => Promise::Served,
    }
}

/// Calls as one of them, and compares.
async fn ask(
    stage: &Stage,
    method: &str,
    actor: &Actor,
    promise: Promise,
    case: &Case,
) -> Result<(), String> {
    let request = case.request_of(actor.caller.as_ref());
    let answer = stage.call(method, actor.token(case), &request).await;
    let expected = match promise {
        Promise::Unknown => Code::Unauthenticated,
        Promise::Denied | Promise::NotTheirs => Code::PermissionDenied,
        Promise::ServedWithout | Promise::Served => Code::Ok,
    };
    if answer.code != expected {
        return Err(format!("{promise:?}, but {answer:?} to {request}"));
    }
    match (promise, &case.reach) {
        (Promise::NotTheirs, Reach::Named(thing)) => {
            unknown_alike(stage, method, actor, case, thing, &answer).await
        }
        (Promise::ServedWithout, Reach::Listed(thing)) => {
            let shows = |text: &str| answer.body.to_string().contains(text);
            if shows(thing) || shows(&case.owner.name) {
                return Err(format!("sees what {} owns: {}", case.owner.name, answer.body));
            }
            Ok(())
        }
        (Promise::Served, Reach::Listed(thing)) => {
            let shown = answer.body.to_string().contains(thing.as_str());
            if shown { Ok(()) } else { Err(format!("does not see {thing}: {}", answer.body)) }
        }
        _ => Ok(()),
    }
}

/// What does not exist is refused in the same words, also to whoever owns the other thing.
async fn unknown_alike(
    stage: &Stage,
    method: &str,
    actor: &Actor,
    case: &Case,
    thing: &str,
    known: &Answer,
) -> Result<(), String> {
    let (collection, _) = thing.split_once('/').expect("a name");
    let missing = format!("{collection}/{}", mesh::clock::id());
    let request = case.request.to_string();
    assert!(request.contains(thing), "{method}: the fixture does not name {thing}");
    let request: Value = request.replace(thing, &missing).parse().expect("JSON");
    for token in [actor.token(case), Some(case.owner.token.as_str())] {
        let unknown = stage.call(method, token, &request).await;
        if (unknown.code, &unknown.message, &unknown.details)
            != (known.code, &known.message, &known.details)
        {
            return Err(format!("{unknown:?} for what is not there, {known:?} for what is"));
        }
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_made_for_one_customer_is_of_no_use_to_another() {
    let stage = Stage::set().await;
    let (ada, bob) = (&stage.ada, &stage.bob);
    let orders = "ordermesh.orders.v1.OrdersService";
    let (create, list) = (format!("{orders}.CreateOrder"), format!("{orders}.ListOrders"));

    // Among one's own: none of them is answered.
    let (own, others) = (stage.placed(bob).await, stage.placed(ada).await);
    let names = json!({"names": [own["name"], others["name"]]});
    let batch = stage.call(&format!("{orders}.BatchGetOrders"), Some(&bob.token), &names).await;
    assert_eq!(batch.code, Code::PermissionDenied, "{batch:?}");

    // A page token.
    stage.placed(ada).await;
    let page = stage.ok(&list, &ada.token, &json!({"pageSize": 1})).await;
    let next = json!({"pageSize": 1, "pageToken": page["nextPageToken"]});
    let mine = stage.ok(&list, &ada.token, &next).await;
    assert_eq!(mine["orders"][0]["name"], others["name"]);
    let page = stage.call(&list, Some(&bob.token), &next).await;
    assert_eq!((page.code, page.reason()), (Code::InvalidArgument, "PAGE_TOKEN_MISMATCH".into()));

    // A quote.
    let lines = json!([{"variant": stage.variant, "quantity": 1}]);
    let quote = json!({"order": {"lines": lines}});
    let quote = stage.ok(&format!("{orders}.QuoteOrder"), &ada.token, &quote).await;
    let quoted = json!({
        "order": {"lines": lines, "paymentMethod": "tok_visa", "quote": quote["quote"]},
    });
    let stolen = stage.call(&create, Some(&bob.token), &quoted).await;
    assert_eq!((stolen.code, stolen.reason()), (Code::InvalidArgument, "FIELD_VIOLATION".into()));
    stage.ok(&create, &ada.token, &quoted).await;

    // A request id: both have used it, and each for themselves.
    let mut order = stage.order();
    order["requestId"] = json!("0b8f6c1e-7d1c-4b7e-9b55-1d4f3c2a9e02");
    let adas = stage.ok(&create, &ada.token, &order).await;
    let bobs = stage.ok(&create, &bob.token, &order).await;
    assert_eq!((&adas["customer"], &bobs["customer"]), (&json!(ada.name), &json!(bob.name)));
    assert_ne!(adas["name"], bobs["name"]);
    stage.bed.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn every_process_that_keeps_something_shows_its_log_and_its_tables_to_operators_alone() {
    let stage = Stage::set().await;
    for (process, _) in SERVICES {
        for method in [
            "ordermesh.events.v1.EventLogService.GetHead",
            "ordermesh.operator.v1.OutboxService.GetBacklog",
            "ordermesh.operator.v1.AuditExportService.Export",
        ] {
            // Nothing follows from a notification: there is no log of them.
            let expected = match (process, method) {
                ("notifications", method) if !method.contains("Audit") => Code::Unimplemented,
                _ => Code::Ok,
            };
            let asked = stage.ask(process, method, Some(&stage.bed.admin), &json!({})).await;
            assert_eq!(asked.code, expected, "{process}: {method}: {asked:?}");
            let denied = stage.ask(process, method, Some(&stage.ada.token), &json!({})).await;
            assert_eq!(denied.code, Code::PermissionDenied, "{process}: {method}: {denied:?}");
        }
    }
    stage.bed.end().await;
}
