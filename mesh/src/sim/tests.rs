//! The scenarios. Each is a claim of what a mesh does when something in it goes wrong.

use tonic::Code;

use super::{
    caller::{Kind, Manner, PATIENCE, call},
    *,
};
use crate::{
    Channel, Policy,
    client::breaker::{Rule, State},
};

mod restart;
mod failure;
mod storm;
mod chain;
mod registry;
mod stream;

#[test]
fn a_seed_is_one_history_and_another_seed_is_another() {
    let scenario = async |world: &World| {
        let _fleet = fleet(world, "orders", &["a", "b"]);
        let caller = Caller::new(world, "x");
        let channel = caller.channel("orders");
        caller.load(world, &channel, Kind::Mixed, (10 * MS, SECOND)).await;
    };
    let hash = |seed| run("a history", seed, &scenario).hash();
    let first = [1, 2, 3].map(hash);
    assert_eq!(first, [1, 2, 3].map(hash));
    assert!(first[0] != first[1] && first[1] != first[2] && first[0] != first[2]);
}

/// The same callee, and no breaker that opens: what others do by themselves.
fn without_breaker(channel: &Channel) -> Channel {
    let breaker = Rule { failures_min: u32::MAX, ..Rule::default() };
    channel.with(Policy { breaker, throttle: false, ..Policy::default() })
}

/// What did not go well.
fn failed(done: &[Done]) -> Vec<&Done> {
    done.iter().filter(|done| done.by.is_err()).collect()
}

/// Every write that was answered was done once, and none was done twice.
fn done_once(world: &World, done: &[Done]) {
    let effects = world.effects.lock().unwrap();
    let twice: Vec<_> = effects.iter().filter(|(_, times)| **times != 1).collect();
    assert!(twice.is_empty(), "done more than once: {twice:?}");
    let writes = done.iter().filter(|done| done.kind == Kind::Write);
    let answered = writes.filter(|done| done.by.is_ok()).count();
    assert!(answered <= effects.len(), "{answered} answered, {} done", effects.len());
}

/// So many processes of `service`, with the names that letters make.
fn fleet(world: &World, service: &str, names: &[&str]) -> Vec<Process> {
    names.iter().map(|name| Process::start(world, service, name, Script::default())).collect()
}
