//! What each layer of the stack costs by itself: on one thread, in batches, without what it costs to
//! run a layer that does nothing.

use std::time::Duration;

use anyhow::{Context as _, ensure};
use mesh::{
    Channel, Ctx, client,
    ctx::Trace,
    testing::layers::{self, Layer},
};
use tokio::runtime::Runtime;

use crate::{
    DESCRIPTORS,
    api::echo_service_client::EchoServiceClient,
    cost::runtime,
    echo::{ECHO, ECHO_PATH, Echoer},
    figures::Spread,
    machine,
    run::{Plan, Report, progress, turn},
    transport::{Call as _, Serving, Stack, Transport as _, bind},
};

/// Runs of a layer in one round, and before those that count.
const RUNS: (u32, u32) = (20_000, 1_000);

/// Runs that are looked at one by one.
const LOOKED_AT: u32 = 1_000;

/// How many rounds there are: enough for a median, and not so many that a count is full.
const ROUNDS: std::ops::RangeInclusive<usize> = 5..=31;

/// So many instances, so that there are two to choose from.
const INSTANCES: usize = 3;

/// How often something else wakes the runtime: so the timer of a call is not its first one, and
/// wakes nobody, as in a process that is at work.
const EVERY: Duration = Duration::from_secs(1);

/// How long the runtime looks for what is due before each round.
const PARKED: Duration = Duration::from_millis(1);

/// How long it may take to reach all of them.
const CONNECTS: Duration = Duration::from_secs(60);

/// What the instances are called.
const CALLEE: &str = "layers";

/// The layers of both ends, those who serve, and what a layer sets its timers on.
#[derive(Debug)]
pub struct Layers {
    ends: [End; 2],
    _serving: Vec<Serving>,
    runtime: Runtime,
}

#[derive(Debug)]
struct End {
    name: &'static str,
    layers: Vec<Layer>,
    /// How many of them, from the first on, every call meets; the others are in no sum.
    every: usize,
}

/// The cost of each layer, and of all of them at each end.
///
/// # Errors
/// A layer was not at work.
pub fn measure(plan: &Plan, report: &mut Report) -> anyhow::Result<()> {
    let mut layers = Layers::start()?;
    layers.look(LOOKED_AT)?;
    let rounds = plan.rounds.clamp(*ROUNDS.start(), *ROUNDS.end());
    let mut costs = [Vec::new(), Vec::new()];
    for round in 0..rounds {
        progress(&format!("layers: round {} of {rounds}", round + 1));
        for (costs, of_round) in costs.iter_mut().zip(layers.round(round, RUNS)) {
            costs.push(of_round);
        }
    }
    let mut both = vec![0.0; rounds];
    for (end, costs) in layers.ends.iter().zip(&costs) {
        for (index, layer) in end.layers.iter().enumerate() {
            let each: Vec<f64> =
                costs.iter().filter_map(|round| round.get(index)).copied().collect();
            let name = format!("layer_ns_{}_{}", end.name, layer.name());
            report.figure(&name, Spread::of(&each).value());
        }
        let sum = |round: &Vec<f64>| round.iter().take(end.every).sum::<f64>() / 1e3;
        let sums: Vec<f64> = costs.iter().map(sum).collect();
        report.figure(&format!("layers_us_sum_{}", end.name), Spread::of(&sums).value());
        both.iter_mut().zip(&sums).for_each(|(both, sum)| *both += sum);
    }
    report.figure("layers_us_sum", Spread::of(&both).value());
    Ok(())
}

// === impl Layers ===

impl Layers {
    /// Serves, connects, and makes the layers.
    ///
    /// # Errors
    /// No port is free, or nobody can be reached.
    pub fn start() -> anyhow::Result<Self> {
        let runtime = runtime(None)?;
        let (channel, serving) = runtime.block_on(connected())?;
        let entered = runtime.enter();
        let mut ends = [
            End::new("out", layers::client(&channel, ECHO)?),
            End::new("in", layers::server(DESCRIPTORS, ECHO_PATH)?),
        ];
        ends[1].layers.push(layers::token()?);
        drop(entered);
        Ok(Self { ends, _serving: serving, runtime })
    }

    /// Runs each so many times, and sees whether it was at work.
    ///
    /// Only of layers that were just made: windows forget after ten seconds.
    ///
    /// # Errors
    /// One was not: then no figure counts.
    pub fn look(&mut self, runs: u32) -> anyhow::Result<()> {
        let _entered = self.runtime.enter();
        for End { name: end, layers, .. } in &mut self.ends {
            for layer in layers {
                let before = layer.done();
                layer.run(runs);
                let (name, done) = (layer.name(), layer.done().saturating_sub(before));
                ensure!(
                    done == u64::from(runs),
                    "{end}, {name}: {done} of {runs} runs did their work"
                );
            }
        }
        Ok(())
    }

    /// What a run of each costs at each end, in nanoseconds, over one that does nothing.
    fn round(&mut self, round: usize, runs: (u32, u32)) -> [Vec<f64>; 2] {
        // So the runtime has seen until when nothing is due.
        self.runtime.block_on(async { tokio::time::sleep(PARKED).await });
        let _entered = self.runtime.enter();
        let nothing = cost(&mut Layer::none(), runs);
        self.ends.each_mut().map(|End { layers, .. }| {
            let mut costs = vec![f64::NAN; layers.len()];
            for index in turn(layers.len(), round) {
                if let (Some(layer), Some(its)) = (layers.get_mut(index), costs.get_mut(index)) {
                    *its = cost(layer, runs) - nothing;
                }
            }
            costs
        })
    }
}

// === impl End ===

impl End {
    fn new(name: &'static str, layers: Vec<Layer>) -> Self {
        Self { name, every: layers.len(), layers }
    }
}

/// What a run costs, in nanoseconds of CPU: nothing else is at work in this process meanwhile.
fn cost(layer: &mut Layer, (runs, warm): (u32, u32)) -> f64 {
    layer.run(warm);
    let before = machine::cpu();
    layer.run(runs);
    let spent = machine::cpu().saturating_sub(before);
    spent.as_secs_f64() * 1e9 / f64::from(runs)
}

/// A channel to instances of which each can be reached.
async fn connected() -> anyhow::Result<(Channel, Vec<Serving>)> {
    let (mut ports, mut serving) = (Vec::new(), Vec::new());
    for _ in 0..INSTANCES {
        let (bound, port) = bind()?;
        serving.push(Stack::serve(bound, Echoer::default()).await?);
        ports.push(port);
    }
    serving.push(Serving::task(async {
        loop {
            tokio::time::sleep(EVERY).await;
        }
    }));
    let channel = Stack::channel(CALLEE, &ports)?;
    let mut caller = EchoServiceClient::new(channel.clone());
    let calls = async {
        while ready() < INSTANCES {
            caller.call().await?;
        }
        anyhow::Ok(())
    };
    Ctx::root(CONNECTS, Trace::new()).scope(calls).await.context("not all can be reached")?;
    Ok((channel, serving))
}

/// How many instances can be reached.
fn ready() -> usize {
    let view = client::view();
    let callees = view.as_array().into_iter().flatten().filter(|it| it["name"] == CALLEE);
    let instances = callees.filter_map(|it| it["endpoints"].as_array()).flatten();
    instances.filter(|it| it["state"] == "ready").count()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// With the clock standing still: windows forget nothing.
    fn paused() -> Layers {
        let layers = Layers::start().expect("they start");
        let entered = layers.runtime.enter();
        tokio::time::pause();
        drop(entered);
        layers
    }

    #[test]
    fn each_layer_does_its_work_in_each_run() {
        let mut layers = paused();
        layers.look(500).expect("at work");
        let names = layers
            .ends
            .each_ref()
            .map(|end| end.layers.iter().map(Layer::name).collect::<Vec<_>>().join(" "));
        let (out, inside) = (
            "clock context method deadline trace bulkhead throttle breaker budget latency pick \
             report marks metrics",
            "clock method head context trace median limiter deadline marks metrics token",
        );
        assert_eq!(names, [out, inside]);
        for costs in layers.round(1, (10, 1)) {
            assert!(costs.iter().all(|cost| cost.is_finite()), "{costs:?}");
        }
        assert_eq!(layers.ends[1].every, layers.ends[1].layers.len() - 1, "few bring a token");
    }
}
