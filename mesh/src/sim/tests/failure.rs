//! Instances and wires that fail.

use super::*;

#[test]
fn a_replica_that_crashes_fails_no_read_and_only_the_writes_it_had_at_once() {
    play(async |world| {
        let script = Script { takes: (MS, 50 * MS), ..Script::default() };
        let mut fleet: Vec<_> = ["a", "b", "c"]
            .map(|name| Process::start(world, "orders", name, script.clone()))
            .into_iter()
            .collect();
        let callers = [Caller::new(world, "x"), Caller::new(world, "y")];
        let channels = [callers[0].channel("orders"), callers[1].channel("orders")];
        world.passes(SECOND).await;
        let crash = async {
            world.passes(world.any(SECOND, 2 * SECOND)).await;
            let victim = fleet.remove(fastrand::usize(..fleet.len()));
            let (name, crashed) = (victim.host.name.clone(), world.at());
            victim.die().await;
            world.passes(world.any(MS, SECOND)).await;
            (Process::start(world, "orders", &name, script.clone()), crashed)
        };
        let load = (40 * MS, 12 * SECOND);
        let ((back, crashed), x, y) = tokio::join!(
            crash,
            callers[0].load(world, &channels[0], Kind::Mixed, load),
            callers[1].load(world, &channels[1], Kind::Mixed, load),
        );
        let done = [x, y].concat();
        for failed in failed(&done) {
            let ended = failed.began + failed.took;
            assert_eq!(
                (failed.kind, failed.code()),
                (Kind::Write, Code::Unavailable),
                "{failed:?}"
            );
            assert!(failed.began < crashed + 10 * MS, "begun long after the crash: {failed:?}");
            assert!(ended < crashed + 20 * MS, "kept waiting after the crash: {failed:?}");
        }
        done_once(world, &done);
        assert!(back.asked() > 0, "it is back, and nobody asks it");
    });
}

#[test]
fn a_slow_replica_gets_less_than_a_fiftieth_and_p99_stays_within_twice_what_it_was() {
    play(async |world| {
        let script = Script { takes: (5 * MS, 10 * MS), ..Script::default() };
        let fleet =
            ["a", "b", "c"].map(|name| Process::start(world, "orders", name, script.clone()));
        let caller = Caller::new(world, "x");
        let channel = caller.channel("orders");
        world.passes(SECOND).await;
        let before = caller.load(world, &channel, Kind::Read, (10 * MS, 2 * SECOND)).await;
        let slow = &fleet[fastrand::usize(..fleet.len())];
        let takes = world.any(100 * MS, 1_000 * MS);
        slow.change(|script| script.takes = (takes, takes));
        // One second in which that is found out.
        let found = caller.load(world, &channel, Kind::Read, (10 * MS, SECOND)).await;
        let asked = slow.asked();
        let after = caller.load(world, &channel, Kind::Read, (10 * MS, 5 * SECOND)).await;
        let share = slow.asked() - asked;
        assert!(share * 50 < after.len(), "{share} of {} went to the slow one", after.len());
        let (was, is) = (p99(&before), p99(&after));
        assert!(is <= 2 * was, "p99 was {was:?} and is {is:?}");
        let done = [before, found, after].concat();
        assert_eq!(failed(&done).len(), 0, "{:?}", failed(&done));
    });
}

#[test]
fn a_partition_of_one_way_hangs_no_call_and_is_forgotten_ten_seconds_after_it_healed() {
    play(async |world| {
        let _fleet = fleet(world, "orders", &["a", "b", "c"]);
        let caller = Caller::new(world, "x");
        let channel = caller.channel("orders");
        world.passes(SECOND).await;
        // What goes there is lost, or what comes back.
        let (from, to) = if fastrand::bool() { ("x", "a") } else { ("a", "x") };
        let lasts = world.any(SECOND, 20 * SECOND);
        let partition = async {
            world.passes(world.any(SECOND, 2 * SECOND)).await;
            world.net.cut(from, to);
            world.passes(lasts).await;
            world.net.mend(from, to);
            world.at()
        };
        let load = (60 * MS, lasts + 22 * SECOND);
        let (healed, done) =
            tokio::join!(partition, caller.load(world, &channel, Kind::Mixed, load));
        for done in &done {
            assert!(done.took <= PATIENCE + MS, "it hung: {done:?}");
        }
        for failed in failed(&done) {
            let late = (Kind::Write, Code::DeadlineExceeded);
            let broken = (Kind::Write, Code::Unavailable);
            let ended = (failed.kind, failed.code());
            assert!(ended == late || ended == broken, "{failed:?}");
            assert!(failed.began < healed + 10 * SECOND, "after it healed: {failed:?}");
        }
        let by_a = |done: &Done| done.by.as_ref().is_ok_and(|by| by == "a");
        let again = done.iter().any(|done| done.began > healed + 10 * SECOND && by_a(done));
        assert!(again, "nobody asks it again");
        done_once(world, &done);
    });
}

#[test]
fn whoever_was_cut_off_for_a_moment_has_its_share_again_ten_seconds_later() {
    play(async |world| {
        let script = Script { takes: (5 * MS, 6 * MS), ..Script::default() };
        let _fleet =
            ["a", "b", "c"].map(|name| Process::start(world, "orders", name, script.clone()));
        let caller = Caller::new(world, "x");
        let channel = caller.channel("orders");
        world.passes(SECOND).await;
        // For less long than a ping takes to find it out: the connection is the same after it.
        let lasts = world.any(2 * SECOND, 9 * SECOND);
        let partition = async {
            world.passes(2 * SECOND).await;
            world.net.cut("a", "x");
            world.passes(lasts).await;
            world.net.mend("a", "x");
            world.at()
        };
        let load = (60 * MS, lasts + 20 * SECOND);
        let (healed, done) =
            tokio::join!(partition, caller.load(world, &channel, Kind::Read, load));
        let after: Vec<_> = done.iter().filter(|done| done.began > healed + 10 * SECOND).collect();
        let by_a = |done: &&&Done| done.by.as_ref().is_ok_and(|by| by == "a");
        let (share, all) = (after.iter().filter(by_a).count(), after.len());
        assert!(share * 8 >= all, "only {share} of {all} go there");
    });
}

#[test]
fn a_host_without_power_fails_no_read_and_after_fifteen_seconds_holds_up_no_call() {
    play(async |world| {
        let _fleet = fleet(world, "orders", &["a", "b", "c"]);
        let caller = Caller::new(world, "x");
        let channel = caller.channel("orders");
        world.passes(SECOND).await;
        let blackout = async {
            world.passes(world.any(SECOND, 2 * SECOND)).await;
            world.net.darken("b");
            world.at()
        };
        let load = (60 * MS, 30 * SECOND);
        let (dark, done) = tokio::join!(blackout, caller.load(world, &channel, Kind::Mixed, load));
        for done in &done {
            assert!(done.took <= PATIENCE + MS, "it hung: {done:?}");
            if done.began > dark + 15 * SECOND {
                assert!(done.by.is_ok() && done.took < 50 * MS, "held up: {done:?}");
            }
        }
        let reads = failed(&done).iter().filter(|done| done.kind == Kind::Read).count();
        assert_eq!(reads, 0, "{:?}", failed(&done));
        done_once(world, &done);
    });
}

#[test]
fn a_client_without_power_costs_its_server_nothing_after_half_a_minute() {
    play(async |world| {
        let server = Process::start(world, "orders", "a", Script::takes(20 * SECOND));
        let (gone, here) = (Caller::new(world, "x"), Caller::new(world, "y"));
        let channels = [gone.channel("orders"), here.channel("orders")];
        world.passes(SECOND).await;
        let calls: Vec<_> = channels
            .iter()
            .map(|channel| {
                let (world, channel) = (world.clone(), channel.clone());
                spawn(async move { call(&world, &channel, Kind::Write, "", 60 * SECOND).await })
            })
            .collect();
        world.passes(world.any(10 * MS, 5 * SECOND)).await;
        assert_eq!((server.host.busy(), server.connections()), ((2, 2), 2));
        world.net.darken("x");
        // Its deadline is there for the call, a ping without an answer for the connection.
        world.passes(31 * SECOND).await;
        assert_eq!((server.host.busy(), server.connections()), ((0, 0), 1));
        calls.into_iter().for_each(|call| call.abort());
    });
}

#[test]
fn where_all_replicas_fail_alike_callers_do_without_and_are_well_half_a_minute_after_repair() {
    play(async |world| {
        let fleet = fleet(world, "orders", &["a", "b", "c"]);
        let manner = Manner { falls_back: true, ..Manner::default() };
        let caller = Caller::with(world, "x", manner);
        let channel = caller.channel("orders");
        let breaker = channel.breaker("ordermesh.auth.v1.TokensService/GetJwks");
        world.passes(SECOND).await;
        // What all of them use is away: they say so, or say nothing.
        let codes = [Code::Unavailable, Code::Internal];
        let (how, lasts) = (fastrand::usize(..3), world.any(20 * SECOND, 40 * SECOND));
        let outage = async {
            world.passes(world.any(SECOND, 3 * SECOND)).await;
            let began = world.at();
            for process in &fleet {
                process.change(|script| match codes.get(how) {
                    Some(code) => (script.fails, script.code) = (100, *code),
                    None => script.hangs = true,
                });
            }
            let (mut opened, mut out, mut asked) = (false, 0, 0);
            while world.at() < began + lasts {
                world.passes(100 * MS).await;
                opened |= *breaker.borrow() == State::Open;
                out = out.max(channel.states().get("ejected").copied().unwrap_or_default());
                if world.at() < began + 10 * SECOND {
                    asked = fleet.iter().map(Process::asked).sum();
                }
            }
            let more = fleet.iter().map(Process::asked).sum::<usize>() - asked;
            for process in &fleet {
                process.change(|script| (script.fails, script.hangs) = (0, false));
            }
            assert!(opened, "no breaker opened");
            assert!(out <= 1, "{out} of 3 were taken out");
            assert!(more <= 15, "{more} attempts after the first ten seconds");
            (began, world.at())
        };
        let load = (80 * MS, lasts + 43 * SECOND);
        let ((began, repaired), done) =
            tokio::join!(outage, caller.load(world, &channel, Kind::Read, load));
        assert_eq!(failed(&done).len(), 0, "{:?}", failed(&done));
        for done in &done {
            let well = done.answered() && done.took < 50 * MS;
            assert!(well || done.began + PATIENCE > began, "before: {done:?}");
            assert!(well || done.began < repaired + 30 * SECOND, "after repair: {done:?}");
        }
        let within = |done: &&Done| done.began > began + 10 * SECOND && done.began < repaired;
        let quick = done.iter().filter(within).filter(|done| done.took < 20 * MS).count();
        let all = done.iter().filter(within).count();
        assert!(quick * 10 >= all * 9, "only {quick} of {all} did without at once");
        // One that was taken out may stay out for up to a minute.
        let asked = fleet.iter().filter(|process| {
            let by = |done: &Done| done.by.as_ref().is_ok_and(|by| *by == process.host.name);
            done.iter().any(|done| done.began > repaired + 30 * SECOND && by(done))
        });
        let (asked, states) = (asked.count(), channel.states());
        let out = usize::from(states.contains_key("ejected"));
        assert!(asked + out >= 3 && asked >= 2, "{asked} of 3 are asked again: {states:?}");
    });
}

#[test]
fn a_process_that_stood_still_serves_all_its_callers_a_second_later() {
    play(async |world| {
        let process = Process::start(world, "orders", "a", Script::default());
        let manner = Manner { patience: SECOND, ..Manner::default() };
        let caller = Caller::with(world, "x", manner);
        // Breakers take their time; this is about what the process itself refuses.
        let channel = without_breaker(&caller.channel("orders"));
        world.passes(SECOND).await;
        let kind = if fastrand::bool() { Kind::Read } else { Kind::Write };
        let stall = async {
            world.passes(2 * SECOND).await;
            process.change(|script| script.hangs = true);
            world.passes(world.any(2 * SECOND, 5 * SECOND)).await;
            process.change(|script| script.hangs = false);
            world.at()
        };
        let load = (25 * MS, 10 * SECOND);
        let (over, done) = tokio::join!(stall, caller.load(world, &channel, kind, load));
        let late: Vec<_> =
            failed(&done).into_iter().filter(|done| done.began > over + 1_100 * MS).collect();
        assert_eq!(late.len(), 0, "{:?}", late.first());
    });
}

/// What all but one in a hundred took.
fn p99(done: &[Done]) -> Duration {
    let mut took: Vec<_> = done.iter().map(|done| done.took).collect();
    took.sort_unstable();
    took[took.len() * 99 / 100]
}
