//! A registry that is away, or wrong.

use super::*;
use crate::registry::scripted::Mood;

#[test]
fn a_registry_that_is_away_for_ten_minutes_fails_no_call() {
    play(async |world| away(world, 600 * SECOND, SECOND).await);
}

#[test]
fn a_registry_that_is_away_for_an_hour_fails_no_call() {
    // Fewer calls, and so no more work than above.
    play(async |world| away(world, 3_600 * SECOND, 6 * SECOND).await);
}

/// Nobody can reach the registry for so long; a call is made each time that `every` has passed.
async fn away(world: &World, lasts: Duration, every: Duration) {
    let mut fleet = fleet(world, "orders", &["a", "b", "c"]);
    let caller = Caller::new(world, "x");
    let channel = caller.channel("orders");
    let known = caller.registry.watch("orders");
    world.passes(SECOND).await;
    world.registry.feel(Mood::Away);
    let outage = async {
        // In the middle of it one of them is started anew where it was.
        world.passes(world.any(lasts / 6, lasts / 2)).await;
        let old = fleet.remove(fastrand::usize(..fleet.len()));
        let name = old.host.name.clone();
        assert!(old.leave(Duration::ZERO).await);
        world.passes(world.any(MS, 5 * SECOND)).await;
        let new = Process::start(world, "orders", &name, Script::default());
        world.passes(60 * every).await;
        assert!(new.asked() > 0, "{name} is back, and nobody asks it");
        world.passes(lasts - world.at()).await;
        let snapshot = known.borrow().clone();
        assert!(snapshot.stale, "that is not said");
        assert_eq!(snapshot.instances.len(), 3);
        world.registry.feel(Mood::Well);
        world.passes(35 * SECOND).await;
        assert!(!known.borrow().stale, "it has been back for long");
        new
    };
    let load = (every, lasts + 40 * SECOND);
    let (_new, done) = tokio::join!(outage, caller.load(world, &channel, Kind::Mixed, load));
    assert_eq!(failed(&done).len(), 0, "{:?}", failed(&done));
    done_once(world, &done);
}

#[test]
fn a_registry_that_forgets_everything_for_a_while_fails_no_call() {
    play(async |world| {
        let _fleet = fleet(world, "orders", &["a", "b", "c"]);
        let caller = Caller::new(world, "x");
        let channel = caller.channel("orders");
        let known = caller.registry.watch("orders");
        world.passes(SECOND).await;
        let forgets = async {
            world.passes(world.any(MS, SECOND)).await;
            world.registry.feel(Mood::Empty);
            world.passes(world.any(SECOND, 9 * SECOND)).await;
            assert_eq!(known.borrow().instances.len(), 3);
            world.registry.feel(Mood::Well);
        };
        let load = (50 * MS, 15 * SECOND);
        let ((), done) = tokio::join!(forgets, caller.load(world, &channel, Kind::Mixed, load));
        assert_eq!(failed(&done).len(), 0, "{:?}", failed(&done));
        done_once(world, &done);
        assert_eq!(known.borrow().instances.len(), 3);
    });
}

#[test]
fn a_dns_server_that_answers_servfail_fails_no_call_and_what_is_old_is_said_to_be() {
    play(async |world| {
        let names = ["10.0.0.1", "10.0.0.2", "10.0.0.3"];
        let mut fleet = fleet(world, "orders", &names);
        let mut caller = Caller::new(world, "x");
        caller.registry = world.registry.dns();
        let channel = caller.channel("orders");
        let known = caller.registry.watch("orders");
        world.passes(2 * SECOND).await;
        let lasts = world.any(60 * SECOND, 300 * SECOND);
        let outage = async {
            world.passes(world.any(SECOND, 10 * SECOND)).await;
            assert_eq!((known.borrow().instances.len(), known.borrow().stale), (3, false));
            world.registry.feel(Mood::Away);
            world.passes(20 * SECOND).await;
            assert!(known.borrow().stale, "that is not said");
            // In the middle of it one of them is started anew where it was.
            let old = fleet.remove(fastrand::usize(..fleet.len()));
            let name = old.host.name.clone();
            assert!(old.leave(Duration::ZERO).await);
            world.passes(world.any(MS, 5 * SECOND)).await;
            let new = Process::start(world, "orders", &name, Script::default());
            world.passes(lasts - 25 * SECOND).await;
            assert!(new.asked() > 0, "{name} is back, and nobody asks it");
            assert_eq!((known.borrow().instances.len(), known.borrow().stale), (3, true));
            world.registry.feel(Mood::Well);
            world.passes(35 * SECOND).await;
            assert!(!known.borrow().stale, "it has been back for long");
            new
        };
        let load = (1_000 * MS, lasts + 50 * SECOND);
        let (_new, done) = tokio::join!(outage, caller.load(world, &channel, Kind::Mixed, load));
        assert_eq!(failed(&done).len(), 0, "{:?}", failed(&done));
        done_once(world, &done);
        assert_eq!(known.borrow().instances.len(), 3);
    });
}
