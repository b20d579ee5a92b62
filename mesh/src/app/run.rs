//! From `main` to a process that serves: settings, telemetry, runtime, signals.

use std::{future::Future, pin::Pin, process::ExitCode, time::Duration};

use anyhow::Context as _;
use clap::error::ErrorKind;

use super::{App, Ended, settings};
use crate::{
    Policy,
    config::{Config, Flavour},
    telemetry,
};

/// Orders are many small values on many threads: there it is the faster one by far.
#[cfg(feature = "jemalloc")]
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

/// Reads the settings, sets up telemetry and runtime, and serves what `app` builds until a
/// signal ends it. Exits 0 if everything finished by itself, 1 if something failed or was cut,
/// 2 on settings that are wrong; a second signal exits at once.
pub fn run<C, F, R>(app: F) -> ExitCode
where
    C: clap::Parser + AsRef<Config>,
    F: FnOnce(C) -> R,
    R: Future<Output = anyhow::Result<App>>,
{
    run_beside(|_config: &C| Vec::new(), app)
}

/// The same for a process that calls others outside of the mesh: `outside` says whom, and under
/// which policies, before `app` hands these to [`App::outside`].
pub fn run_beside<C, O, F, R>(outside: O, app: F) -> ExitCode
where
    C: clap::Parser + AsRef<Config>,
    O: FnOnce(&C) -> Vec<(&'static str, Policy)>,
    F: FnOnce(C) -> R,
    R: Future<Output = anyhow::Result<App>>,
{
    let matches = C::command().get_matches();
    let config = C::from_arg_matches(&matches).unwrap_or_else(|error| error.exit());
    let shared = config.as_ref().clone();
    let outside = outside(&config);
    if let Some(wrong) = settings::idle(&shared.dependencies, &outside) {
        C::command().error(ErrorKind::ValueValidation, wrong).exit();
    }
    if shared.print_config {
        #[expect(clippy::print_stdout, reason = "that is what was asked for")]
        {
            let told = settings::told(&C::command(), &matches, &shared.dependencies, outside);
            println!("{told:#}");
        }
        return ExitCode::SUCCESS;
    }
    telemetry::init(C::command().get_name(), &shared);
    let mut builder = match shared.runtime {
        Flavour::Current => tokio::runtime::Builder::new_current_thread(),
        Flavour::Multi => tokio::runtime::Builder::new_multi_thread(),
    };
    let served =
        builder.enable_all().build().context("cannot start the runtime").and_then(|runtime| {
            let served = runtime.block_on(async {
                let app = app(config).await?;
                app.serve(signal()?).await
            });
            runtime.shutdown_timeout(Duration::from_secs(1));
            served
        });
    match served {
        Ok(Ended::Drained) => ExitCode::SUCCESS,
        Ok(Ended::Cut) => ExitCode::FAILURE,
        Err(error) => {
            tracing::error!("{error:#}");
            ExitCode::FAILURE
        }
    }
}

/// Resolves at the first signal to end; at the second the process ends there and then.
fn signal() -> anyhow::Result<Pin<Box<dyn Future<Output = ()> + Send>>> {
    use tokio::signal::unix::{SignalKind, signal};
    let mut terminate = signal(SignalKind::terminate()).context("cannot wait for SIGTERM")?;
    let mut interrupt = signal(SignalKind::interrupt()).context("cannot wait for SIGINT")?;
    let (first, told) = tokio::sync::oneshot::channel();
    #[expect(clippy::disallowed_methods, reason = "waits for signals until the process ends")]
    tokio::spawn(async move {
        let mut next = async || {
            tokio::select! {
                _ = terminate.recv() => {}
                _ = interrupt.recv() => {}
            }
        };
        next().await;
        // Nobody listens any more once the process is leaving for another reason.
        let _heard = first.send(()).is_ok();
        next().await;
        tracing::warn!("second signal: ending at once");
        std::process::exit(1);
    });
    Ok(Box::pin(async move {
        // An error would mean that the task above is gone; then no signal comes either.
        if told.await.is_err() {
            std::future::pending::<()>().await;
        }
    }))
}
