//! Who may call what, made from the contract: every rpc, as everybody.
//!
//! The callers are in [`cast`], what they ask for is in the folders of fixtures, and [`wire`]
//! carries it: gRPC to the service itself, so that no gateway refuses what a service would not.

mod cast;
mod wire;
mod stage;
mod accounts;
mod goods;
mod stock;
mod sales;
mod money;

use std::collections::BTreeMap;

use mesh::auth::Rule;
use serde_json::{Value, json};
use tonic::Code;

use self::{
    cast::Actor,
    stage::{Case, Reach, Stage},
    wire::Answer,
};

/// What a rule promises a caller.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Promise {
    Served,
    /// It is a list, which shows nothing of its owner's.
    ServedWithout,
    /// It cannot be told whether what is asked for exists.
    NotTheirs,
    Denied,
    Unknown,
}

/// How often which kind of caller got which answer.
#[derive(Debug, Default)]
struct Tally(BTreeMap<&'static str, BTreeMap<String, usize>>);

/// Rpcs that admit customers and have no owner: all customers see the same.
const SHARED: [(&str, &str); 2] = [
    ("ordermesh.inventory.v1.InventoryService.GetStock", "shops show what is available"),
    ("ordermesh.inventory.v1.InventoryService.BatchGetStocks", "shops show what is available"),
];

#[tokio::test(flavor = "multi_thread")]
async fn every_rpc_answers_whom_its_rule_names_and_nobody_else() {
    let stage = Stage::set().await;
    let cast = stage.cast().await;
    let (mut tally, mut wrong, mut count) = (Tally::default(), Vec::new(), 0);
    for method in stage.contract.methods() {
        count += 1;
        let name = method.full_name();
        let Some(rule) = stage.contract.rule(&method) else {
            wrong.push(format!("{name} has no rule: nobody can call it"));
            continue;
        };
        if let Some(problem) = unowned(name, rule) {
            wrong.push(problem);
        }
        // Those who are refused come first, with what the others then succeed with: so a
        // refusal is for who asks, and changes nothing.
        let (served, refused): (Vec<_>, Vec<_>) =
            cast.iter().partition(|actor| promise(rule, actor, &Reach::Anyones).is_served());
        let Some(mut case) = stage.case(name).await else {
            wrong.push(format!("no fixture for {name}: add one"));
            continue;
        };
        if rule.owner.is_some() == matches!(case.reach, Reach::Anyones) {
            wrong.push(format!("{name}: rule and fixture differ about whether it has an owner"));
        }
        for actor in refused {
            ask(&stage, name, rule, actor, &case, &mut tally, &mut wrong).await;
        }
        let (own, served): (Vec<_>, Vec<_>) =
            served.into_iter().partition(|actor| actor.is_customer());
        for actor in own {
            ask(&stage, name, rule, actor, &case, &mut tally, &mut wrong).await;
            if promise(rule, actor, &case.reach).is_served() && served_changes(rule) {
                case = stage.case(name).await.expect("a fixture");
            }
        }
        for actor in served {
            ask(&stage, name, rule, actor, &case, &mut tally, &mut wrong).await;
            case = stage.case(name).await.expect("a fixture");
        }
    }
    eprintln!("{count} rpcs, {} callers\n{tally}", cast.len());
    assert!(wrong.is_empty(), "{} broken promises:\n{}", wrong.len(), wrong.join("\n"));
    assert!(count > 50, "only {count} rpcs were found");
    stage.bed.end().await;
}
