//! One more attempt while the first is slow. Off unless a policy says so.

use std::time::Duration;

use super::{
    call::{Call, Came},
    callee,
    endpoint::Tried,
    kept::Kept,
};
use crate::{clock, telemetry};

impl Call {
    /// After which time another attempt joins this one; `None` if none does.
    pub(super) fn hedge(&self, number: u32, kept: &Kept) -> Option<Duration> {
        let hedge = self.method.policy.hedge?;
        let whole = matches!(kept, Kept::Whole { .. });
        if number > 1 || !self.repeatable || !whole {
            return None;
        }
        // Without a measure of what is slow nothing is.
        let slow = self.method.latency.quantile(hedge.percent, clock::instant())?;
        Some(slow.max(hedge.least))
    }

    /// Two attempts, the second `after` a while and elsewhere, if it can: the first answer counts,
    /// the other attempt is dropped, which cancels it. Says how many there were.
    pub(super) async fn hedged(
        &self,
        after: Duration,
        kept: &mut Kept,
        tried: &mut Tried,
    ) -> (Came, u32) {
        let began = clock::instant();
        let told = tried.tell();
        let mut requests = (kept.request(), None);
        let (mut elsewhere, joined);
        let (came, lost, made) = {
            let first = self.attempt(1, &mut requests.0, tried, began);
            tokio::pin!(first);
            tokio::select! {
                biased;
                came = &mut first => return (came, 1),
                () = tokio::time::sleep(after) => {}
            }
            if !self.callee.spend() {
                return (first.await, 1);
            }
            callee::count(&telemetry::metrics().hedges, &self.callee.name);
            self.span.event(telemetry::names::span::HEDGE, Vec::new);
            elsewhere = Tried::beside(&told);
            requests.1 = kept.request();
            joined = clock::instant();
            let second = self.attempt(2, &mut requests.1, &mut elsewhere, joined);
            tokio::pin!(second);
            tokio::select! {
                biased;
                came = &mut first => if came.is_answer() {
                    (came, Some(Loser::Second), 2)
                } else {
                    let later = second.await;
                    let made = 1 + u32::from(later.was_made());
                    (came.or(later), None, made)
                },
                came = &mut second => if came.is_answer() {
                    (came, Some(Loser::First), 2)
                } else {
                    let made = 1 + u32::from(came.was_made());
                    (came.or(first.await), None, made)
                },
            }
        };
        // Whoever was given up takes that long at least: else a slow instance would look as fast
        // as it was when it last answered.
        let now = clock::instant();
        match lost {
            Some(Loser::First) => tried.outlasted(now.saturating_duration_since(began), now),
            Some(Loser::Second) => {
                elsewhere.outlasted(now.saturating_duration_since(joined), now);
            }
            None => {}
        }
        tried.join(&elsewhere);
        (came, made)
    }
}

/// Which of two attempts was given up.
enum Loser {
    First,
    Second,
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::Ordering;

    use http::Request;
    use tokio::time::Instant;
    use tonic::body::Body;
    use tower::ServiceExt as _;

    use super::*;
    use crate::{
        Channel, Ctx, Policy,
        client::{
            Hedge,
            breaker::Rule,
            endpoint::tests::{Host, World},
        },
        ctx::Trace,
    };

    const MS: Duration = Duration::from_millis(1);
    /// One that may be repeated.
    const READ: &str = "/ordermesh.auth.v1.TokensService/GetJwks";

    /// Two hosts, the first of which was the quicker one so far, and how they are called.
    async fn two(name: &str) -> (Channel, [std::sync::Arc<Host>; 2], World) {
        let world = World::new(&["a", "b"]);
        let hosts = ["a", "b"].map(|name| world.start(name, Host::default()));
        hosts[1].takes_ms.store(20, Ordering::SeqCst);
        let breaker = Rule { failures_min: u32::MAX, ..Rule::default() };
        let hedge = Some(Hedge::default());
        let policy = Policy { hedge, breaker, ..Policy::default() };
        let snapshot = world.snapshot.subscribe();
        let channel = Channel::over(name, snapshot, world.hosts.clone()).with(policy);
        tokio::time::sleep(MS).await;
        for _ in 0..100 {
            call(&channel).await;
        }
        (channel, hosts, world)
    }

    /// One call: what it says, and how long it took.
    async fn call(channel: &Channel) -> (String, Duration) {
        let request = Request::post(READ).body(Body::empty()).expect("a request");
        let ctx = Ctx::root(Duration::from_secs(5), Trace::new());
        let began = Instant::now();
        let answered = ctx.scope(channel.clone().oneshot(request)).await;
        let Ok(response) = answered;
        (response.headers()["grpc-status"].to_str().expect("text").to_owned(), began.elapsed())
    }

    #[tokio::test(start_paused = true)]
    async fn the_second_attempt_goes_elsewhere_and_who_lost_is_known_to_be_slow() {
        let (channel, hosts, _world) = two("hedged").await;
        hosts[0].takes_ms.store(60_000, Ordering::SeqCst);
        let before = hosts.each_ref().map(|host| host.calls());
        let (code, took) = call(&channel).await;
        assert_eq!(code, "0");
        assert!(took < 100 * MS, "{took:?}");
        let asked = |hosts: &[std::sync::Arc<Host>; 2]| {
            [hosts[0].calls() - before[0], hosts[1].calls() - before[1]]
        };
        assert_eq!(asked(&hosts), [1, 1]);
        // By now the other one looks better, and is quick enough to be joined by nobody.
        hosts[1].takes_ms.store(1, Ordering::SeqCst);
        for _ in 0..5 {
            assert_eq!(call(&channel).await.0, "0");
        }
        assert_eq!(asked(&hosts), [1, 6]);
    }

    #[tokio::test(start_paused = true)]
    async fn two_attempts_that_both_fail_are_followed_by_one() {
        let (channel, hosts, _world) = two("hedged_and_sick").await;
        for host in &hosts {
            host.takes_ms.store(50, Ordering::SeqCst);
            host.sick.store(true, Ordering::SeqCst);
        }
        let before: usize = hosts.iter().map(|host| host.calls()).sum();
        assert_eq!(call(&channel).await.0, "14");
        let after: usize = hosts.iter().map(|host| host.calls()).sum();
        assert_eq!(after - before, 3);
    }
}
