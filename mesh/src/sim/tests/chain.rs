//! Four hops, and what is left of a call when nobody waits for it.

use std::sync::atomic::Ordering;

use super::*;

/// Four processes that ask one another, and how the first is asked.
struct Chain {
    hops: Vec<Process>,
    /// Where the answers of registries come from, for as long as they are asked.
    _callers: Vec<Caller>,
    channels: Vec<Channel>,
}

impl Chain {
    async fn new(world: &World) -> Self {
        let names = ["a", "b", "c", "d"];
        let (mut hops, mut callers, mut channels) = (Vec::new(), Vec::new(), Vec::new());
        let mut next = None;
        for (hop, name) in names.iter().enumerate().rev() {
            let script = Script { takes: (MS, 5 * MS), asks: next.take(), ..Script::default() };
            hops.push(Process::start(world, name, name, script));
            let above = if hop == 0 { "x" } else { names[hop - 1] };
            let caller = Caller::new(world, above);
            // This is about calls that end in time, not about those that are not made.
            let channel = without_breaker(&caller.channel(name));
            channels.push(channel.clone());
            callers.push(caller);
            next = Some(channel);
        }
        world.passes(2 * SECOND).await;
        Self { hops, _callers: callers, channels }
    }

    fn first(&self) -> &Channel {
        self.channels.last().unwrap()
    }

    /// Whatever is still going on because of a call.
    fn rest(&self) -> Vec<String> {
        let busy = self.hops.iter().filter(|hop| hop.host.busy() != (0, 0));
        let busy = busy.map(|hop| format!("{}: {:?}", hop.host.name, hop.host.busy()));
        let used = self.channels.iter().filter(|channel| channel.in_use() != 0);
        busy.chain(used.map(|channel| format!("to {}: {}", channel.name(), channel.in_use())))
            .collect()
    }
}

#[test]
fn a_deadline_holds_over_four_hops_and_no_work_goes_on_after_it() {
    play(async |world| {
        let chain = Chain::new(world).await;
        let kinds = [Kind::Read, Kind::Write];
        for number in 0..12 {
            let lame = &chain.hops[fastrand::usize(..4)];
            lame.change(|script| script.hangs = true);
            let (time, kind) = (world.any(10 * MS, 400 * MS), kinds[number % 2]);
            let done = call(world, chain.first(), kind, &number.to_string(), time).await;
            assert_eq!(done.code(), Code::DeadlineExceeded, "{time:?}: {done:?}");
            assert!(done.took <= time + MS, "{time:?}: {done:?}");
            // It was over before: only what is on the wire still has to arrive.
            world.passes(time.saturating_sub(done.took) + 3 * MS).await;
            assert_eq!(chain.rest(), [""; 0], "after {time:?}");
            lame.change(|script| script.hangs = false);
        }
        for hop in &chain.hops {
            let overtime = *hop.host.overtime.lock().unwrap();
            assert!(overtime <= MS, "{} went on for {overtime:?}", hop.host.name);
        }
        let done = call(world, chain.first(), Kind::Read, "well", SECOND).await;
        done.by.expect("all are well again");
    });
}

#[test]
fn a_handler_hears_that_its_call_is_late_before_it_is_late_itself() {
    play(async |world| {
        let script = Script { hangs: true, ..Script::default() };
        let _lame = Process::start(world, "b", "b", script);
        let callers = [Caller::new(world, "a"), Caller::new(world, "x")];
        let asks = Some(without_breaker(&callers[0].channel("b")));
        let asks = Process::start(world, "a", "a", Script { asks, ..Script::takes(MS) });
        let channel = without_breaker(&callers[1].channel("a"));
        world.passes(2 * SECOND).await;
        // Of less than 20 ms the least that a call can leave is left, not a part.
        for number in 1..=12 {
            let time = world.any(10 * MS, 25 * MS);
            let done = call(world, &channel, Kind::Write, &number.to_string(), time).await;
            assert_eq!(done.code(), Code::DeadlineExceeded, "{time:?}: {done:?}");
            world.passes(5 * MS).await;
            assert_eq!(asks.host.told.load(Ordering::SeqCst), number, "{time:?}");
        }
    });
}

#[test]
fn a_client_that_goes_away_leaves_no_work_behind_at_any_hop() {
    play(async |world| {
        let chain = Chain::new(world).await;
        let kinds = [Kind::Read, Kind::Write];
        for number in 0..12 {
            let lame = &chain.hops[fastrand::usize(..4)];
            lame.change(|script| script.hangs = true);
            let leaves = world.any(Duration::ZERO, 40 * MS);
            {
                let name = number.to_string();
                let call = call(world, chain.first(), kinds[number % 2], &name, 60 * SECOND);
                let gone = tokio::time::timeout(leaves, call).await.is_err();
                assert!(gone, "it hangs somewhere");
            }
            // The news takes up to 2 ms from hop to hop.
            world.passes(12 * MS).await;
            assert_eq!(chain.rest(), [""; 0], "gone after {leaves:?}");
            lame.change(|script| script.hangs = false);
        }
    });
}
