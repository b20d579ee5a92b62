//! Streams that last longer than the connection that they came over.

use super::{caller::Heard, process::GROWS, *};

/// How long nothing may be heard while another instance could tell: until a ping is not answered.
const FOUND_OUT: Duration = Duration::from_secs(15);

#[test]
fn a_stream_that_is_cut_off_goes_on_elsewhere_and_brings_every_event_once() {
    play(async |world| {
        let fleet = fleet(world, "orders", &["a", "b", "c"]);
        let caller = Caller::new(world, "x");
        let channel = caller.channel("orders");
        world.passes(SECOND).await;
        // What one of them sends is lost, or what it is sent, or both.
        let (there, back) = [(true, false), (false, true), (true, true)][fastrand::usize(..3)];
        let cuts = async {
            for _ in 0..2 {
                world.passes(world.any(SECOND, 5 * SECOND)).await;
                let serves = fleet.iter().find(|process| process.host.streams() > 0);
                let victim = &serves.expect("somebody serves it").host.name;
                cut(world, victim, (there, back), world.any(SECOND, 30 * SECOND)).await;
            }
        };
        let ((), heard) = tokio::join!(cuts, caller.follow(world, &channel, 90 * SECOND));
        in_order(&heard);
        assert!(longest_silence(&heard) < FOUND_OUT, "{:?}", longest_silence(&heard));
        up_to_date(world, &heard);
        nobody_is_served(world, &fleet).await;
    });
}

#[test]
fn a_stream_flows_ten_seconds_after_a_network_that_was_cut_in_two_has_healed() {
    play(async |world| {
        let fleet = fleet(world, "orders", &["a", "b"]);
        let caller = Caller::new(world, "x");
        let channel = caller.channel("orders");
        world.passes(SECOND).await;
        let lasts = world.any(SECOND, 60 * SECOND);
        let partition = async {
            world.passes(world.any(SECOND, 3 * SECOND)).await;
            let both = ["a", "b"].map(|host| cut(world, host, (true, true), lasts));
            futures_util::future::join_all(both).await;
            world.at()
        };
        let time = lasts + 20 * SECOND;
        let (healed, heard) = tokio::join!(partition, caller.follow(world, &channel, time));
        in_order(&heard);
        let first = heard.iter().find(|heard| heard.at > healed).expect("it goes on");
        assert!(first.at < healed + 10 * SECOND, "after {:?}", first.at - healed);
        up_to_date(world, &heard);
        nobody_is_served(world, &fleet).await;
    });
}

/// Cuts the ways between the caller and `host` for a while.
async fn cut(world: &World, host: &str, (there, back): (bool, bool), lasts: Duration) {
    let ways = [(there, "x", host), (back, host, "x")];
    for (_, from, to) in ways.iter().filter(|way| way.0) {
        world.net.cut(from, to);
    }
    world.passes(lasts).await;
    for (_, from, to) in ways.iter().filter(|way| way.0) {
        world.net.mend(from, to);
    }
}

/// Each event came once, and none before the one before it.
fn in_order(heard: &[Heard]) {
    let positions: Vec<_> = heard.iter().map(|heard| heard.position).collect();
    let all: Vec<_> = (1..=i64::try_from(heard.len()).unwrap()).collect();
    assert_eq!(positions, all);
}

fn longest_silence(heard: &[Heard]) -> Duration {
    heard.windows(2).map(|two| two[1].at - two[0].at).max().unwrap()
}

/// What came last is what happened last.
fn up_to_date(world: &World, heard: &[Heard]) {
    let last = heard.last().unwrap();
    let head = GROWS * u32::try_from(last.position).unwrap();
    assert!(world.at() - head < 3 * GROWS, "{last:?} is old at {:?}", world.at());
}

/// What was served over connections that are gone has ended.
async fn nobody_is_served(world: &World, fleet: &[Process]) {
    world.passes(30 * SECOND).await;
    for process in fleet {
        assert_eq!(process.host.streams(), 0, "{} goes on", process.host.name);
    }
}
