//! More of something than there should be.

use tokio::sync::Semaphore;

use super::*;
use crate::{ctx::Criticality, marks, server::Settings};

/// How long a storm of retries is looked at.
const LASTS: Duration = Duration::from_secs(5);

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
        let done = caller.load(world, &channel, Kind::Read, (MS, LASTS)).await;
        // Beside a tenth of the calls there are three retries a second, and those of ten seconds at
        // once: of so many calls they are not one in a hundred.
        let (calls, asked) = (done.len(), last.asked());
        assert!(asked <= calls * 111 / 100, "{asked} attempts for {calls} calls");
        if fails == 100 {
            assert_eq!(failed(&done).len(), calls);
        }
    });
}

#[test]
fn at_three_times_its_capacity_a_process_does_four_fifths_of_it_and_serves_the_critical() {
    play(async |world| {
        // Fifteen at once for 100 ms: 150 calls a second.
        let workers = Arc::new(Semaphore::new(15));
        let script = Script { workers: Some(Arc::clone(&workers)), ..Script::takes(100 * MS) };
        let settings = Settings { limit_min: 8, ..Settings::default() };
        let process = Process::with(world, "orders", "a", script, settings);
        let patient = Manner { patience: 2 * SECOND, ..Manner::default() };
        let callers = ["x", "y", "z"].map(|name| Caller::with(world, name, patient));
        let manner = Manner { criticality: Criticality::Critical, ..patient };
        let critical = Caller::with(world, "c", manner);
        let channels = [0, 1, 2].map(|caller| callers[caller].channel("orders"));
        let money = critical.channel("orders");
        world.passes(SECOND).await;
        // As much as it begins with, then four fifths of what it can do: the limit grows with it.
        for load in [(15 * MS, SECOND), (8 * MS, 3 * SECOND)] {
            let calm = callers[0].load(world, &channels[0], Kind::Read, load).await;
            assert_eq!(failed(&calm).len(), 0, "{:?}", failed(&calm).first());
        }
        let before = process.host.limit();
        // Two thirds of it are gone: five at once, 50 calls a second.
        let gone = workers.acquire_many(10).await.unwrap();
        let began = world.at();
        // Three times that: 45 calls a second from each of three, and 15 that are critical.
        let (each, lasts) = (world.any(21 * MS, 23 * MS), 4 * SECOND);
        let load = |caller: usize| {
            callers[caller].load(world, &channels[caller], Kind::Read, (each, lasts))
        };
        let (x, y, z, c) = tokio::join!(
            load(0),
            load(1),
            load(2),
            // Not tried again: each must be served when it comes.
            critical.load(world, &money, Kind::Write, (66 * MS, lasts)),
        );
        assert_eq!(failed(&c).len(), 0, "critical ones: {:?}", failed(&c).first());
        let all = [x, y, z, c].concat();
        assert!(all.len() >= 140 * 4, "{} calls are no overload", all.len());
        let good = all.iter().filter(|done| {
            let ended = done.began + done.took;
            done.by.is_ok() && ended > began + SECOND && ended <= began + lasts
        });
        let good = good.count();
        assert!(good >= 40 * 3, "{good} of 150 that it could have done");
        let least = process.host.limit();
        assert!(least < before * 3 / 4, "the limit was {before} and is {least}");
        // The process has nothing left of it a second later, and refuses nobody. Callers that were
        // sent away often hold back by themselves for a while: they look back two minutes.
        drop(gone);
        world.passes(SECOND).await;
        let (c, y) = tokio::join!(
            critical.load(world, &money, Kind::Read, (100 * MS, 4 * SECOND)),
            callers[1].load(world, &channels[1], Kind::Read, (40 * MS, 4 * SECOND)),
        );
        assert_eq!(failed(&c).len(), 0, "critical ones: {:?}", failed(&c).first());
        for done in failed(&y) {
            let local = done.by.as_ref().is_err_and(|it| it.metadata().contains_key(marks::LOCAL));
            assert!(local, "refused though there is nothing to do: {done:?}");
        }
        assert!(y.iter().any(Done::answered), "nobody is let through");
        // Whoever comes new has all of it, as before, and so the limit comes back.
        let new = Caller::with(world, "n", patient);
        let channel = new.channel("orders");
        world.passes(SECOND).await;
        let calm = new.load(world, &channel, Kind::Read, (8 * MS, 4 * SECOND)).await;
        assert_eq!(failed(&calm).len(), 0, "{:?}", failed(&calm).first());
        let limit = process.host.limit();
        assert!(limit >= before * 9 / 10, "the limit was {before}, then {least}, and is {limit}");
    });
}
