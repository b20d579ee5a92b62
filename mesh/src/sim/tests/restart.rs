//! Instances that go and come as they should.

use super::*;

#[test]
fn a_rolling_restart_fails_no_call() {
    play(async |world| {
        let script = Script { takes: (MS, 100 * MS), ..Script::default() };
        let start = |name: &str| Process::start(world, "orders", name, script.clone());
        let old = ["a", "b", "c"].map(start);
        let callers = [Caller::new(world, "x"), Caller::new(world, "y")];
        let channels = [callers[0].channel("orders"), callers[1].channel("orders")];
        world.passes(SECOND).await;
        // Behind a registry that is slow to tell, or where nobody waits for it.
        let propagation = if fastrand::bool() { 2 * SECOND } else { Duration::ZERO };
        let same_address = fastrand::bool();
        let restart = async {
            let mut new = Vec::new();
            for process in old {
                world.passes(world.any(Duration::ZERO, SECOND)).await;
                let name = process.host.name.clone();
                if same_address {
                    assert!(process.leave(propagation).await, "{name} was cut");
                    world.passes(world.any(Duration::ZERO, SECOND)).await;
                    new.push(start(&name));
                    world.passes(SECOND).await;
                } else {
                    let next = format!("{name}2");
                    new.push(start(&next));
                    world.passes(SECOND).await;
                    assert!(process.leave(propagation).await, "{name} was cut");
                }
            }
            new
        };
        let load = (50 * MS, 20 * SECOND);
        let (new, x, y) = tokio::join!(
            restart,
            callers[0].load(world, &channels[0], Kind::Mixed, load),
            callers[1].load(world, &channels[1], Kind::Mixed, load),
        );
        let done = [x, y].concat();
        assert_eq!(failed(&done).len(), 0, "{:?}", failed(&done));
        done_once(world, &done);
        for process in new {
            assert!(process.asked() > 0, "{} has had no call", process.host.name);
        }
    });
}
