//! Calls to three instances of which one is slow and one is dead, at a constant rate.

use std::time::Duration;

use crate::{
    cost::runtime,
    echo::{Echoer, Seen},
    figures::{Spread, percentile},
    load::{Paced, paced},
    run::{Report, progress},
    transport::{Serving, Stack, Transport, bind},
};

/// How slow the slow one is.
const SLOW: Duration = Duration::from_millis(100);

/// Calls a second, and for how long in each round.
const LOAD: (u32, Duration) = (500, Duration::from_secs(4));

/// How long both may find out before that.
const LEARN: Duration = Duration::from_secs(2);

const ROUNDS: usize = 5;

/// A client, and the instances that it knows.
struct Three<T: Transport> {
    caller: T::Caller,
    _good: Serving,
    _slow: Serving,
}

/// Latency and failures of calls, over mesh and over the rival's balancing channel.
///
/// # Errors
/// No port is free.
pub fn measure<R: Transport>(report: &mut Report) -> anyhow::Result<()> {
    runtime(Some(2))?.block_on(async {
        let (ours, theirs) = (Three::<Stack>::start().await?, Three::<R>::start().await?);
        let (mut stack, mut rival) = (Vec::new(), Vec::new());
        paced(&ours.caller, LOAD.0, LEARN).await?;
        paced(&theirs.caller, LOAD.0, LEARN).await?;
        for round in 0..ROUNDS {
            progress(&format!("one slow and one dead of three: round {} of {ROUNDS}", round + 1));
            stack.push(paced(&ours.caller, LOAD.0, LOAD.1).await?);
            rival.push(paced(&theirs.caller, LOAD.0, LOAD.1).await?);
        }
        let p99 = |rounds: &[Paced]| -> Vec<f64> {
            rounds.iter().map(|round| percentile(&round.latencies, 99)).collect()
        };
        let ratio = Spread::of_ratios(&p99(&stack), &p99(&rival));
        report.ratio(&format!("faults_p99_stack_per_{}", R::NAME), ratio);
        for (name, rounds) in [(Stack::NAME, &stack), (R::NAME, &rival)] {
            let each = |figure: &dyn Fn(&Paced) -> f64| {
                Spread::of(&rounds.iter().map(figure).collect::<Vec<_>>()).value()
            };
            report.figure(
                &format!("faults_p50_ms_{name}"),
                each(&|it| percentile(&it.latencies, 50)),
            );
            report.figure(
                &format!("faults_p99_ms_{name}"),
                each(&|it| percentile(&it.latencies, 99)),
            );
            report.figure(&format!("faults_failed_percent_{name}"), each(&Paced::failed_percent));
        }
        Ok(())
    })
}

// === impl Three ===

impl<T: Transport> Three<T> {
    async fn start() -> anyhow::Result<Self> {
        let ((good, good_port), (slow, slow_port)) = (bind()?, bind()?);
        // Closed again at once: nobody listens there.
        let dead_port = bind()?.1;
        let good = T::serve(good, Echoer::default()).await?;
        let slow = T::serve(slow, Echoer { delay: SLOW, ..Echoer::default() }).await?;
        let caller = T::connect(&[good_port, slow_port, dead_port], &Seen::default()).await?;
        Ok(Self { caller, _good: good, _slow: slow })
    }
}
