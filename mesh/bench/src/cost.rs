//! CPU and allocations of a call: client and server in one process, so that what it uses is what
//! both ends of its calls cost.

use std::time::Duration;

use anyhow::{Context as _, ensure};

use crate::{
    counters::{self, Counted},
    figures::{Spread, rounded},
    floor::Floor,
    load::Variant,
    machine,
    run::{Plan, Report, progress, turn},
    transport::{Bare, Sampled, Stack, StackIn, StackOut, Transport},
};

/// How a process runs its tasks: on one thread, or on so many.
const FLAVOURS: &[(&str, Option<usize>)] = &[("one_thread", None), ("two_threads", Some(2))];

/// Calls at once.
const AT_ONCE: &[usize] = &[16, 64];

/// How many calls are looked at one by one.
const LOOKED_AT: u32 = 1_000;

/// Allocations are counted over so many calls; they hardly differ.
const COUNTED: u32 = 5_000;

/// CPU a call, of each variant in each round, in microseconds.
type Costs = Vec<Vec<f64>>;

/// The CPU of a call, beside the rival's, on each runtime and at each concurrency.
///
/// # Errors
/// A call failed, or a part of the stack was not at work.
pub fn cpu<R: Transport>(plan: &Plan, report: &mut Report) -> anyhow::Result<()> {
    for (flavour, workers) in FLAVOURS {
        let runtime = runtime(*workers)?;
        let (variants, costs) = runtime.block_on(rounds::<R>(plan, flavour))?;
        let names: Vec<&str> = variants.iter().map(|variant| variant.name).collect();
        for (at_once, costs) in AT_ONCE.iter().zip(&costs) {
            let of = |name: &str| {
                names.iter().position(|it| *it == name).and_then(|at| costs.get(at)).context("none")
            };
            let rival = of(R::NAME)?;
            for name in [Bare::NAME, Stack::NAME] {
                let ratio = Spread::of_ratios(of(name)?, rival);
                report.ratio(&format!("cpu_{name}_per_{}_{flavour}_{at_once}", R::NAME), ratio);
            }
            for name in &names {
                let cost = Spread::of(of(name)?);
                report.figure(&format!("cpu_us_{name}_{flavour}_{at_once}"), cost.value());
            }
            let bare = of(Bare::NAME)?;
            for name in [Stack::NAME, StackOut::NAME, StackIn::NAME] {
                let over = over(of(name)?, bare);
                report
                    .figure(&format!("cpu_us_{name}_over_bare_{flavour}_{at_once}"), over.value());
            }
            let over = over(of(Sampled::NAME)?, of(Stack::NAME)?);
            let name = format!("cpu_us_{}_over_stack_{flavour}_{at_once}", Sampled::NAME);
            report.figure(&name, over.value());
        }
        // Servers end with the runtime.
        drop(variants);
        runtime.shutdown_timeout(Duration::from_secs(1));
    }
    Ok(())
}

/// Allocations of a call, both ends together.
///
/// # Errors
/// A call failed.
pub fn allocations<R: Transport>(report: &mut Report) -> anyhow::Result<()> {
    progress("allocations");
    let runtime = runtime(None)?;
    let counted = runtime.block_on(async {
        let mut counted = Vec::new();
        for variant in all::<R>().await? {
            variant.calls(16, COUNTED).await?;
            machine::count_allocations();
            variant.calls(16, COUNTED).await?;
            let allocations = u32::try_from(machine::allocations())?;
            counted.push((variant.name, f64::from(allocations) / f64::from(COUNTED)));
        }
        anyhow::Ok(counted)
    })?;
    let of =
        |name| counted.iter().find(|(it, _)| *it == name).map_or(f64::NAN, |(_, count)| *count);
    for (name, count) in &counted {
        report.figure(&format!("allocations_{name}"), rounded(*count).into());
    }
    let more = rounded(of(Stack::NAME) - of(Bare::NAME));
    report.figure("allocations_stack_over_bare", more.into());
    Ok(())
}

async fn rounds<R: Transport>(
    plan: &Plan,
    flavour: &str,
) -> anyhow::Result<(Vec<Variant>, Vec<Costs>)> {
    let variants = all::<R>().await?;
    let named = |name| variants.iter().find(|it| it.name == name).context("no such variant");
    let (stack, sampled) = (named(Stack::NAME)?, named(Sampled::NAME)?);
    for looked_at in [stack, sampled] {
        counters::look(looked_at, LOOKED_AT).await?;
    }
    let before = [stack, sampled].map(Counted::now);
    let mut costs = vec![vec![Vec::new(); variants.len()]; AT_ONCE.len()];
    for round in 0..plan.rounds {
        progress(&format!("CPU a call, {flavour}: round {} of {}", round + 1, plan.rounds));
        for (at_once, costs) in AT_ONCE.iter().zip(&mut costs) {
            for index in turn(variants.len(), round) {
                let (Some(variant), Some(costs)) = (variants.get(index), costs.get_mut(index))
                else {
                    continue;
                };
                variant.calls(*at_once, plan.warm()).await?;
                let before = machine::cpu();
                variant.calls(*at_once, plan.calls).await?;
                let spent = machine::cpu().saturating_sub(before);
                costs.push(spent.as_secs_f64() * 1e6 / f64::from(plan.calls));
            }
        }
    }
    let turns = u64::try_from(plan.rounds * AT_ONCE.len())?;
    let calls = u64::from(plan.calls + plan.warm()) * turns;
    let moved = [(stack, before[0]), (sampled, before[1])]
        .map(|(variant, before)| Counted::now(variant).since(before));
    // Each end is at work in three of those that take turns: in the whole stack, recorded, alone.
    let (of_all, made, served) = (3 * calls, moved[0].made, moved[0].served);
    ensure!(
        made == of_all && served == of_all,
        "of {of_all} calls {made} were counted as made, {served} as served"
    );
    for (variant, moved) in [stack, sampled].into_iter().zip(moved) {
        let (expected, spans) = (counters::spans_of(variant, calls), moved.spans);
        ensure!(spans == expected, "{calls} calls of {} left {spans:?}", variant.name);
    }
    Ok((variants, costs))
}

/// What one of two cost over the other, round by round.
fn over(these: &[f64], those: &[f64]) -> Spread {
    let over = these.iter().zip(those).map(|(this, that)| this - that);
    Spread::of(&over.collect::<Vec<_>>())
}

/// Each of those that are compared.
async fn all<R: Transport>() -> anyhow::Result<Vec<Variant>> {
    Ok(vec![
        Variant::start::<R>().await?,
        Variant::start::<Bare>().await?,
        Variant::start::<Stack>().await?,
        Variant::start::<Sampled>().await?,
        Variant::start::<StackOut>().await?,
        Variant::start::<StackIn>().await?,
        Variant::start::<Floor>().await?,
    ])
}

/// A runtime with so many workers, or on this thread.
///
/// # Errors
/// The system gives no threads.
pub fn runtime(workers: Option<usize>) -> anyhow::Result<tokio::runtime::Runtime> {
    let mut builder = match workers {
        Some(workers) => {
            let mut builder = tokio::runtime::Builder::new_multi_thread();
            builder.worker_threads(workers);
            builder
        }
        None => tokio::runtime::Builder::new_current_thread(),
    };
    builder.enable_all().build().context("cannot start a runtime")
}
