//! More of something than there should be.

use super::*;
use crate::server::Settings;

#[test]
fn a_storm_of_goaways_fails_no_call() {
    play(async |world| {
        let settings =
            Settings { connection_age: world.any(50 * MS, 500 * MS), ..Settings::default() };
        let _fleet = ["a", "b"].map(|name| {
            let script = Script { takes: (MS, 30 * MS), ..Script::default() };
            Process::with(world, "orders", name, script, settings.clone())
        });
        let callers = [Caller::new(world, "x"), Caller::new(world, "y")];
        let channels = [callers[0].channel("orders"), callers[1].channel("orders")];
        world.passes(SECOND).await;
        let load = (10 * MS, 3 * SECOND);
        let (x, y) = tokio::join!(
            callers[0].load(world, &channels[0], Kind::Mixed, load),
            callers[1].load(world, &channels[1], Kind::Mixed, load),
        );
        let done = [x, y].concat();
        assert_eq!(failed(&done).len(), 0, "{:?}", failed(&done));
        done_once(world, &done);
        let opened = world.net.opened();
        assert!(opened > 20, "only {opened} connections: that is no storm");
    });
}

#[test]
fn a_retry_storm_over_three_hops_is_amplified_by_no_more_than_a_tenth() {
    play(async |world| {
        // All of it fails, or a good part.
        let fails = if fastrand::bool() { 100 } else { fastrand::u8(20..60) };
        let last = Script { fails, ..Script::default() };
        let last = Process::start(world, "last", "c", last);
        let (second, first) = (Caller::new(world, "b"), Caller::new(world, "a"));
        let ask = |channel| Script { takes: (MS, MS), asks: Some(channel), ..Script::default() };
        let _middle = Process::start(world, "middle", "b", ask(second.channel("last")));
        let _front = Process::start(world, "front", "a", ask(first.channel("middle")));
        let caller = Caller::new(world, "x");
        let channel = caller.channel("front");
        world.passes(2 * SECOND).await;
        let done = caller.load(world, &channel, Kind::Read, (MS, SECOND)).await;
        // Beside a tenth of the calls there are three retries a second, those of ten seconds at once.
        let spare = if fails == 100 { 0 } else { 3 * 11 };
        let (calls, asked) = (done.len(), last.asked());
        assert!(asked <= calls * 11 / 10 + spare, "{asked} attempts for {calls} calls");
        if fails == 100 {
            assert_eq!(failed(&done).len(), calls);
        }
    });
}
