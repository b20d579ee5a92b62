//! From `main` to a process that serves: settings, telemetry, runtime, signals.

use std::{future::Future, pin::Pin, process::ExitCode, time::Duration};

use anyhow::Context as _;
use clap::error::ErrorKind;

use super::{App, Ended, settings};
use crate::{
    Policy,
    config::{Config, Flavour, Wrong},
    store, telemetry,
};

/// Orders are many small values on many threads: there it is the faster one by far.
#[cfg(feature = "jemalloc")]
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

/// How a process ends whose settings are wrong; so does clap where it cannot read them.
const WRONG: u8 = 2;

/// Reads the settings, sets up telemetry and runtime, and serves what `app` builds until a
/// signal ends it. Exits 0 if everything finished by itself, 1 if something failed or was cut,
/// 2 on settings that are wrong, whoever finds that out; a second signal exits at once.
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
            if is_wrong(&error) { ExitCode::from(WRONG) } else { ExitCode::FAILURE }
        }
    }
}

/// Whether it is a setting that keeps the process from its work.
fn is_wrong(error: &anyhow::Error) -> bool {
    let of_the_url = |cause: &(dyn std::error::Error + 'static)| {
        cause.downcast_ref::<store::Failure>().is_some_and(store::Failure::is_of_the_url)
    };
    error.is::<Wrong>() || error.chain().any(of_the_url)
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::Store;

    #[tokio::test]
    async fn a_database_that_cannot_be_one_is_a_wrong_setting_and_one_that_is_away_is_not() {
        for (url, wrong) in [
            ("mysql://127.0.0.1/orders", true),
            ("postgres://127.0.0.1:port/orders", true),
            ("sqlite:///proc/nowhere/orders.db", false),
        ] {
            let failed = Store::connect(url, Vec::new()).await.map(drop).expect_err(url);
            let error = anyhow::Error::new(failed).context("cannot open the database");
            assert_eq!(is_wrong(&error), wrong, "{url}: {error:#}");
        }
    }
}
