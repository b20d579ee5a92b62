//! Calls a second between two processes, each kept on a core of its own.

use std::{
    io::{BufRead as _, BufReader, Read as _, Write as _},
    process::{Child, Command, Stdio},
};

use anyhow::{Context as _, bail, ensure};
use mesh::clock;

use crate::{
    cost::runtime,
    echo::Echoer,
    figures::Spread,
    floor::Floor,
    load::Variant,
    machine,
    run::{Plan, Report, progress, turn},
    transport::{Bare, Serving, Stack, Transport, bind},
};

/// Calls at once.
const AT_ONCE: usize = 64;

/// Which variant to serve, and where.
#[derive(Debug, clap::Args)]
pub struct Serve {
    /// Its name.
    name: String,
    /// The core to stay on.
    #[arg(long)]
    core: Option<usize>,
}

/// A server in a process of its own; it ends with this value.
#[derive(Debug)]
pub struct Elsewhere {
    child: Child,
    /// Where it serves, on loopback.
    pub port: u16,
}

/// The calls a second of each, and what that is of the floor's.
///
/// # Errors
/// A call failed, or there is one core alone.
pub fn measure<R: Transport>(plan: &Plan, report: &mut Report) -> anyhow::Result<()> {
    if machine::cores() < 2 {
        progress("left out: two processes on a core each need two cores");
        return Ok(());
    }
    let plan = *plan;
    // A thread of its own: its core is not that of what is measured next.
    let client = std::thread::spawn(move || -> anyhow::Result<Vec<(&'static str, Vec<f64>)>> {
        machine::pin(0)?;
        runtime(None)?.block_on(async {
            let lanes = [
                lane::<R>().await?,
                lane::<Bare>().await?,
                lane::<Stack>().await?,
                lane::<Floor>().await?,
            ];
            let mut rates: Vec<_> = lanes.iter().map(|lane| (lane.name, Vec::new())).collect();
            for round in 0..plan.rounds {
                progress(&format!("two processes: round {} of {}", round + 1, plan.rounds));
                for index in turn(lanes.len(), round) {
                    if let (Some(lane), Some((_, rates))) = (lanes.get(index), rates.get_mut(index))
                    {
                        rates.push(rate(lane, plan).await?);
                    }
                }
            }
            Ok(rates)
        })
    });
    let Ok(rates) = client.join() else { bail!("the client died") };
    let rates = rates?;
    let floor = rates.iter().find(|(name, _)| *name == Floor::NAME).context("no floor")?;
    for (name, rates) in &rates {
        report.figure(&format!("calls_per_second_{name}"), Spread::of(rates).value());
        if *name != Floor::NAME {
            let ratio = Spread::of_ratios(rates, &floor.1);
            report.ratio(&format!("rate_{name}_per_{}", Floor::NAME), ratio);
        }
    }
    Ok(())
}

/// A server elsewhere, and a client here.
async fn lane<T: Transport>() -> anyhow::Result<Variant> {
    let server = Elsewhere::start(T::NAME, Some(1))?;
    let echo = Echoer::default();
    let caller = T::connect(&[server.port], &echo.seen).await?;
    Variant::of::<T>(caller, echo, Box::new(server)).await
}

/// Calls a second.
async fn rate(variant: &Variant, plan: Plan) -> anyhow::Result<f64> {
    variant.calls(AT_ONCE, plan.warm()).await?;
    let begun = clock::instant();
    variant.calls(AT_ONCE, plan.calls).await?;
    Ok(f64::from(plan.calls) / begun.elapsed().as_secs_f64())
}

// === impl Elsewhere ===

impl Elsewhere {
    /// Starts this program once more.
    ///
    /// # Errors
    /// It does not serve.
    pub fn start(name: &str, core: Option<usize>) -> anyhow::Result<Self> {
        let program = std::env::current_exe().context("where is this program?")?;
        let mut command = Command::new(program);
        command.args(["serve", name]).stdin(Stdio::piped()).stdout(Stdio::piped());
        if let Some(core) = core {
            command.args(["--core", &core.to_string()]);
        }
        let mut child = command.spawn().context("cannot start a server")?;
        let mut line = String::new();
        if let Some(output) = child.stdout.take() {
            BufReader::new(output).read_line(&mut line)?;
        }
        let port = line.trim().parse();
        let served = Self { child, port: *port.as_ref().unwrap_or(&0) };
        ensure!(port.is_ok(), "the server of {name} did not start; it said why above");
        Ok(served)
    }

    /// The memory that it has resident, in bytes.
    ///
    /// # Errors
    /// It is gone.
    pub fn resident(&self) -> anyhow::Result<u64> {
        machine::resident(self.child.id())
    }
}

impl Drop for Elsewhere {
    fn drop(&mut self) {
        // It ends when its stdin does.
        drop(self.child.stdin.take());
        drop(self.child.wait());
    }
}

// === impl Serve ===

impl Serve {
    /// Serves until stdin ends.
    ///
    /// # Errors
    /// It cannot.
    pub fn run<R: Transport>(&self) -> anyhow::Result<()> {
        if let Some(core) = self.core {
            machine::pin(core)?;
        }
        let runtime = runtime(None)?;
        let (serving, port) = match self.name.as_str() {
            Bare::NAME => runtime.block_on(serve::<Bare>())?,
            Stack::NAME => runtime.block_on(serve::<Stack>())?,
            Floor::NAME => runtime.block_on(serve::<Floor>())?,
            name if name == R::NAME => runtime.block_on(serve::<R>())?,
            name => bail!("there is no `{name}`"),
        };
        writeln!(std::io::stdout(), "{port}")?;
        runtime.block_on(async {
            let (told, ended) = tokio::sync::oneshot::channel();
            std::thread::spawn(move || {
                let mut rest = Vec::new();
                drop(std::io::stdin().read_to_end(&mut rest));
                told.send(())
            });
            drop(ended.await);
        });
        drop(serving);
        Ok(())
    }
}

async fn serve<T: Transport>() -> anyhow::Result<(Serving, u16)> {
    let (bound, port) = bind()?;
    Ok((T::serve(bound, Echoer::default()).await?, port))
}
