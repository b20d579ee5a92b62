//! Who is let in, who waits and who is sent away.

use std::{future::Future, pin::Pin, sync::atomic::AtomicU32};

use futures_util::FutureExt as _;
use proptest::prelude::*;

use super::*;

const SECOND: Duration = Duration::from_secs(1);

fn limiter(limit: u32) -> Arc<Limiter> {
    Limiter::new(&Settings {
        limit_min: limit,
        limit_max: limit,
        streams_max: 3,
        ..Settings::default()
    })
}

/// Lets calls in until one would have to wait.
fn fill(limiter: &Arc<Limiter>, who: Criticality) -> Vec<Permit> {
    let ends = clock::instant() + SECOND;
    std::iter::from_fn(|| limiter.call(who, clock::instant(), ends).now_or_never()?.ok()).collect()
}

#[tokio::test(start_paused = true)]
async fn the_less_important_are_let_in_up_to_a_part_of_the_limit() {
    let limiter = limiter(100);
    let sheddable = fill(&limiter, Criticality::Sheddable);
    let normal = fill(&limiter, Criticality::Normal);
    let critical = fill(&limiter, Criticality::Critical);
    assert_eq!((sheddable.len(), normal.len(), critical.len()), (75, 15, 10));
}

#[tokio::test(start_paused = true)]
async fn who_waits_is_let_in_when_a_place_is_free_the_most_important_first() {
    let limiter = limiter(20);
    let mut all = fill(&limiter, Criticality::Critical);
    let ends = clock::instant() + 10 * SECOND;
    let mut sheddable = Box::pin(limiter.call(Criticality::Sheddable, clock::instant(), ends));
    let mut critical = Box::pin(limiter.call(Criticality::Critical, clock::instant(), ends));
    assert!(sheddable.as_mut().now_or_never().is_none());
    assert!(critical.as_mut().now_or_never().is_none());
    all.pop();
    let permit = critical.as_mut().now_or_never().expect("it is its turn").expect("a place");
    assert!(sheddable.as_mut().now_or_never().is_none(), "the other one goes on waiting");
    drop(permit);
    all.truncate(14);
    assert!(sheddable.await.is_ok());
}

#[tokio::test(start_paused = true)]
async fn nobody_waits_longer_than_a_quarter_of_the_time_they_have_or_1_s() {
    let limiter = limiter(20);
    let _all = fill(&limiter, Criticality::Critical);
    for (left, waits) in
        [(SECOND / 10, SECOND / 40), (2 * SECOND, SECOND / 2), (60 * SECOND, SECOND)]
    {
        let begun = clock::instant();
        let shed = limiter
            .call(Criticality::Normal, clock::instant(), begun + left)
            .await
            .expect_err("it is full");
        assert!(begun.elapsed() >= waits && begun.elapsed() < waits + 5 * SECOND / 1_000);
        assert!(shed.pushback >= SECOND / 20, "{shed:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn more_do_not_wait_than_is_worth_it_and_the_least_important_make_room() {
    let limiter = limiter(20);
    let _all = fill(&limiter, Criticality::Critical);
    let ends = clock::instant() + 10 * SECOND;
    let mut waiting: Vec<_> = (0..80)
        .map(|_| Box::pin(limiter.call(Criticality::Sheddable, clock::instant(), ends)))
        .collect();
    for call in &mut waiting {
        assert!(call.as_mut().now_or_never().is_none());
    }
    let one_more = limiter.call(Criticality::Sheddable, clock::instant(), ends).now_or_never();
    assert!(one_more.is_some_and(|it| it.is_err()), "80 wait already");
    let mut critical = Box::pin(limiter.call(Criticality::Critical, clock::instant(), ends));
    assert!(critical.as_mut().now_or_never().is_none(), "it waits");
    let last = waiting.last_mut().expect("80").as_mut().now_or_never();
    assert!(last.is_some_and(|it| it.is_err()), "the newest was sent away");
}

#[tokio::test(start_paused = true)]
async fn who_stops_waiting_leaves_no_place_taken() {
    let limiter = limiter(20);
    let mut all = fill(&limiter, Criticality::Critical);
    let ends = clock::instant() + 10 * SECOND;
    for _ in 0..50 {
        let mut call = Box::pin(limiter.call(Criticality::Critical, clock::instant(), ends));
        assert!(call.as_mut().now_or_never().is_none());
        // The permit is on its way when its receiver goes.
        all.pop();
        drop(call);
        all.extend(fill(&limiter, Criticality::Critical));
        assert_eq!(all.len(), 20);
    }
    drop(all);
    assert_eq!(limiter.in_flight.load(Ordering::SeqCst), 0);
    assert_eq!(limiter.waiting.load(Ordering::SeqCst), 0);
}

#[tokio::test(start_paused = true)]
async fn streams_have_a_limit_of_their_own() {
    let limiter = limiter(20);
    let streams: Vec<_> =
        (0..3).map(|_| limiter.stream(clock::instant()).expect("a place")).collect();
    assert!(limiter.stream(clock::instant()).is_err());
    assert_eq!(fill(&limiter, Criticality::Critical).len(), 20);
    drop(streams);
    assert!(limiter.stream(clock::instant()).is_ok());
}

#[expect(clippy::disallowed_methods, reason = "callers are tasks of the test")]
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn under_contention_the_limit_holds_and_every_place_comes_back() {
    let limiter = limiter(20);
    let most = Arc::new(AtomicU32::new(0));
    let tasks: Vec<_> = (0..64)
        .map(|n| {
            let (limiter, most) = (Arc::clone(&limiter), Arc::clone(&most));
            tokio::spawn(async move {
                for turn in 0..200 {
                    let who = [Criticality::Sheddable, Criticality::Normal, Criticality::Critical]
                        [(n + turn) % 3];
                    let Ok(permit) =
                        limiter.call(who, clock::instant(), clock::instant() + SECOND).await
                    else {
                        continue;
                    };
                    most.fetch_max(limiter.in_flight.load(Ordering::SeqCst), Ordering::SeqCst);
                    tokio::task::yield_now().await;
                    permit.sample(clock::instant());
                }
            })
        })
        .collect();
    for task in tasks {
        task.await.expect("no panic");
    }
    assert!(most.load(Ordering::SeqCst) <= 20, "{most:?}");
    assert_eq!(limiter.in_flight.load(Ordering::SeqCst), 0);
    assert_eq!(limiter.waiting.load(Ordering::SeqCst), 0);
}

/// A call of the model: who it is, and whether it waits, has a place or is gone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Is {
    Waiting,
    In,
    Gone,
}

/// The rules as simply as can be: a list of calls in the order in which they came.
struct Naive {
    limit: usize,
    calls: Vec<(Criticality, Is)>,
}

impl Naive {
    fn count(&self, is: Is) -> usize {
        self.calls.iter().filter(|call| call.1 == is).count()
    }

    fn has_room(&self, who: Criticality) -> bool {
        let percent = [75, 90, 100][rank(who)];
        self.count(Is::In) < (self.limit * percent / 100).max(1)
    }

    fn come(&mut self, who: Criticality) {
        let mut is = Is::Waiting;
        if self.count(Is::Waiting) == 0 && self.has_room(who) {
            is = Is::In;
        } else if self.count(Is::Waiting) >= 4 * self.limit {
            let less = |call: &&mut (Criticality, Is)| call.1 == Is::Waiting && call.0 < who;
            let least = self.calls.iter_mut().filter(less).map(|call| call.0).min();
            let newest =
                self.calls.iter_mut().rfind(|call| call.1 == Is::Waiting && Some(call.0) == least);
            match newest {
                Some(newest) => newest.1 = Is::Gone,
                None => is = Is::Gone,
            }
        }
        self.calls.push((who, is));
        self.grant();
    }

    fn go(&mut self, call: usize) {
        let was = std::mem::replace(&mut self.calls[call].1, Is::Gone);
        if was == Is::In {
            self.grant();
        }
    }

    /// The most important of those that wait, and of these the first; nobody overtakes them.
    fn grant(&mut self) {
        for who in [Criticality::Critical, Criticality::Normal, Criticality::Sheddable] {
            for call in 0..self.calls.len() {
                if self.calls[call] != (who, Is::Waiting) {
                    continue;
                }
                if !self.has_room(who) {
                    return;
                }
                self.calls[call].1 = Is::In;
            }
        }
    }
}

/// A call of the real one.
enum Real<'l> {
    Waiting(Pin<Box<dyn Future<Output = Result<Permit, Shed>> + 'l>>),
    In { _permit: Permit },
    Gone,
}

impl Real<'_> {
    fn look(&mut self) -> Is {
        if let Self::Waiting(call) = self
            && let Some(answer) = call.as_mut().now_or_never()
        {
            *self = answer.map_or(Self::Gone, |permit| Self::In { _permit: permit });
        }
        match self {
            Self::Waiting(_) => Is::Waiting,
            Self::In { .. } => Is::In,
            Self::Gone => Is::Gone,
        }
    }
}

proptest! {
    #[test]
    fn who_is_let_in_waits_or_goes_is_what_the_naive_model_says(
        limit in 1_u32..8,
        steps in prop::collection::vec((0_usize..3, any::<bool>(), any::<prop::sample::Index>()), 1..120),
    ) {
        let mut builder = tokio::runtime::Builder::new_current_thread();
        let runtime = builder.enable_time().start_paused(true).build().expect("a runtime");
        let _entered = runtime.enter();
        let limiter = limiter(limit);
        let ends = clock::instant() + 10 * SECOND;
        let mut naive = Naive { limit: limit as usize, calls: Vec::new() };
        let mut real: Vec<Real<'_>> = Vec::new();
        for (who, comes, which) in steps {
            if comes || real.is_empty() {
                let who = [Criticality::Sheddable, Criticality::Normal, Criticality::Critical][who];
                naive.come(who);
                real.push(Real::Waiting(Box::pin(limiter.call(who, clock::instant(), ends))));
            } else {
                let call = which.index(real.len());
                naive.go(call);
                real[call] = Real::Gone;
            }
            let mut states: Vec<_> = real.iter_mut().rev().map(Real::look).collect();
            states.reverse();
            let expected: Vec<_> = naive.calls.iter().map(|call| call.1).collect();
            prop_assert_eq!(states, expected);
        }
        drop(real);
        prop_assert_eq!((limiter.in_flight(), limiter.streams()), (0, 0));
    }
}
