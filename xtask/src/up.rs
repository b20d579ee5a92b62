//! `cargo xtask up`: builds the mesh, starts it, waits until it is ready, fills it with demo data.

mod greet;
mod ground;

use std::fs;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, Stdio};
use std::sync::mpsc::Sender;
use std::thread::{self, JoinHandle};

use anyhow::{Context, Result, bail, ensure};
use serde_json::{Value, json};
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use signal_hook::iterator::Signals;

use crate::components::{Components, Wanted};
use crate::logs::Follower;
use crate::os::Pid;
use crate::processes::{self, Instance, Process};
use crate::run_file;
use crate::site::Site;
use crate::supervise::{Ending, Event, Policy, Supervisor};
use crate::{clock, consul, down, os, say};

xflags::xflags! {
    /// Builds the mesh, starts every process, waits until all are ready and fills it with demo data.
    ///
    /// Needs a Rust toolchain and a C compiler, nothing else: databases are SQLite files. State is kept
    /// under target/ordermesh, so a second `up` finds the orders of the first. Without --detach it shows
    /// one merged log and stays; Ctrl-C drains every process (35 s at most), a second Ctrl-C ends them at
    /// once. A process that dies is started again, five times in a row at most.
    ///
    ///   cargo xtask up                            run it here, with its log
    ///   cargo xtask up --detach                   come back when it is ready
    ///   cargo xtask up --fresh                    forget every order and start empty
    ///   cargo xtask up --with postgres --replicas orders=2
    ///   cargo xtask up --with consul,postgres --replicas catalog=3
    ///   cargo xtask up --with jaeger              see every order as one trace
    ///
    /// To run two meshes beside each other, give the second a folder and a shift of its ports:
    ///
    ///   ORDERMESH_STATE=target/second ORDERMESH_PORT_SHIFT=11000 cargo xtask up --detach
    cmd up {
        /// Return when the mesh is ready; it runs on until `cargo xtask down`.
        optional --detach
        /// Throw the state away first: databases, secrets, logs.
        optional --fresh
        /// Build with optimisation: slower to build, faster to run.
        optional --release
        /// Real components instead of the embedded defaults, separated by commas. Known: consul, jaeger, postgres.
        optional --with components: String
        /// Copies of a service, as SERVICE=N. Replica k listens on port + 100 k. Needs --with postgres.
        repeated --replicas count: String
        /// Leave a process that dies where it fell.
        optional --no-restart
        /// Print the addresses as JSON on stdout, as `status --json` does.
        optional --json
        /// Start the binaries as they were built last.
        optional --no-build
    }
}

/// Everything that a supervisor needs to know.
struct Plan {
    instances: Vec<Instance>,
    restart: bool,
    components: Components,
}

pub(crate) fn run(flags: &Up) -> Result<ExitCode> {
    let site = Site::from_env()?;
    let wanted = Wanted::parse(flags.with.as_deref())?;
    let replicas = processes::replicas(&flags.replicas, wanted.postgres)?;
    ground::refuse_a_second(&site)?;
    if flags.fresh {
        ground::forget(&site)?;
    }
    let bins = processes::bins(&site, flags.release);
    let draft = processes::instances(&site, &bins, &replicas, None, &|_| String::new());
    ground::refuse_taken_ports(&site, &draft, wanted)?;
    if !flags.no_build {
        build(&site, flags.release, &[])?;
    }
    ground::prepare(&site)?;
    let components = ground::start(&site, wanted, flags.release)?;
    let url = |process: &Process| match &components.postgres {
        Some(server) => server.url(&ground::database(process)),
        None => processes::sqlite(&site, process),
    };
    let registry = components.consul.as_ref().map(consul::Agent::registry);
    let mut instances = processes::instances(&site, &bins, &replicas, registry, &url);
    if let Some(jaeger) = &components.jaeger {
        let variable = ("OTEL_EXPORTER_OTLP_ENDPOINT".to_owned(), jaeger.endpoint());
        instances.iter_mut().for_each(|it| it.env.push(variable.clone()));
    }
    let plan = Plan { instances, restart: !flags.no_restart, components };
    if flags.detach {
        detached(&site, &plan, flags.json)
    } else {
        attached(&site, plan, flags.json)
    }
}

/// The hidden command behind `up --detach`: supervises until it is told to stop.
pub(crate) fn supervise(plan: &Path) -> Result<ExitCode> {
    let site = Site::from_env()?;
    let text = fs::read_to_string(plan)
        .context("the plan of this mesh is gone: run `cargo xtask up` again")?;
    let plan = Plan::from_json(&serde_json::from_str(&text)?);
    let supervisor =
        Supervisor::new(&site, Policy::usual(plan.restart), plan.instances, plan.components);
    // The terminal that started us may close: the mesh stays.
    on_signals(&[SIGTERM, SIGINT], supervisor.sender())?;
    let mut hangups = Signals::new([SIGHUP]).context("cannot listen for signals")?;
    thread::spawn(move || hangups.forever().for_each(drop));
    Ok(code(supervisor.run()?))
}

/// Builds the binaries of the table and of `more` crates; cargo shows its own progress.
pub(crate) fn build(site: &Site, release: bool, more: &[&'static str]) -> Result<()> {
    let mut command = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    command.current_dir(&site.root).args(["build", "--locked", "--bins"]);
    let mut packages: Vec<&str> = processes::TABLE.iter().map(|it| it.package).collect();
    packages.dedup();
    packages.extend(more);
    for package in packages {
        command.args(["--package", package]);
    }
    if release {
        command.args(["--release", "--features", "mesh/jemalloc"]);
    }
    say::stage("building (the first time takes some minutes)");
    let status = command.status().context("cannot run cargo")?;
    ensure!(
        status.success(),
        "the build failed; cargo said why above. If it missed a C compiler: `cargo xtask doctor` names the package"
    );
    Ok(())
}

/// Supervises from here, with the merged log, until Ctrl-C.
fn attached(site: &Site, plan: Plan, as_json: bool) -> Result<ExitCode> {
    let supervisor =
        Supervisor::new(site, Policy::usual(plan.restart), plan.instances, plan.components);
    let stop = supervisor.sender();
    on_signals(&[SIGTERM, SIGINT, SIGHUP], supervisor.sender())?;
    let running = thread::spawn(move || supervisor.run());
    let greeted = greet::wait_until_ready(site, &|| !running.is_finished())
        .and_then(|()| greet::greet(site, as_json, false));
    if let Err(error) = greeted {
        // It may have ended already: then nobody listens.
        drop(stop.send(Event::Stop));
        join(running)?;
        return Err(error);
    }
    let mut follower = Follower::new(site, None, 0)?;
    while !running.is_finished() {
        follower.poll();
        clock::nap(100);
    }
    follower.poll();
    Ok(code(join(running)?))
}

fn join(running: JoinHandle<Result<Ending>>) -> Result<Ending> {
    match running.join() {
        Ok(ending) => ending,
        Err(_panic) => bail!("the supervisor broke: `cargo xtask down` ends what it left"),
    }
}

/// Starts a supervisor that outlives us, and waits until the mesh is ready.
fn detached(site: &Site, plan: &Plan, as_json: bool) -> Result<ExitCode> {
    let plan_file = site.state.join("plan.json");
    os::private_file(&plan_file, &format!("{:#}\n", plan.json()))?;
    // A copy of our own program: cargo can build another while this one supervises.
    let program = site.state.join("supervisor");
    let draft = site.state.join("supervisor.draft");
    copy_self(&draft)?;
    fs::rename(&draft, &program)?;
    let words =
        fs::File::create(site.logs().join("supervisor.out")).context("cannot write a log")?;
    let mut supervisor = Command::new(&program)
        .arg("supervise")
        .arg(&plan_file)
        .env("CARGO_MANIFEST_DIR", site.root.join("xtask"))
        .env("ORDERMESH_STATE", &site.state)
        .env("ORDERMESH_PORT_SHIFT", site.shift.to_string())
        .current_dir(&site.root)
        .stdin(Stdio::null())
        .stdout(words.try_clone()?)
        .stderr(words)
        .process_group(0)
        .spawn()
        .context("cannot start the supervisor")?;
    let pid = Pid::of(supervisor.id());
    let (sender, stopped) = std::sync::mpsc::channel();
    on_signals(&[SIGTERM, SIGINT], sender)?;
    let interrupted = std::cell::Cell::new(false);
    let going = || {
        interrupted.set(interrupted.get() || stopped.try_recv().is_ok());
        pid.alive() && !interrupted.get()
    };
    let greeted =
        greet::wait_until_ready(site, &going).and_then(|()| greet::greet(site, as_json, true));
    if let Err(error) = greeted {
        down::end(site)?;
        supervisor.wait()?;
        return Err(error);
    }
    Ok(ExitCode::SUCCESS)
}

/// A copy of this program that does not change when cargo builds the next one.
pub(crate) fn copy_self(to: &Path) -> Result<PathBuf> {
    let me = std::env::current_exe().context("this program cannot find itself")?;
    fs::copy(&me, to).with_context(|| format!("cannot copy {}", me.display()))?;
    Ok(to.to_owned())
}

fn on_signals(signals: &[i32], sender: Sender<Event>) -> Result<()> {
    let mut signals = Signals::new(signals).context("cannot listen for signals")?;
    thread::spawn(move || {
        for _signal in signals.forever() {
            if sender.send(Event::Stop).is_err() {
                return;
            }
        }
    });
    Ok(())
}

fn code(ending: Ending) -> ExitCode {
    match ending {
        Ending::Clean => ExitCode::SUCCESS,
        Ending::Cut => ExitCode::FAILURE,
    }
}

// === impl Plan ===

impl Plan {
    fn json(&self) -> Value {
        json!({
            "instances": self.instances.iter().map(run_file::instance_json).collect::<Vec<_>>(),
            "restart": self.restart,
            "components": self.components.json(),
        })
    }

    fn from_json(value: &Value) -> Self {
        Self {
            instances: value["instances"]
                .as_array()
                .into_iter()
                .flatten()
                .map(run_file::instance_from)
                .collect(),
            restart: value["restart"].as_bool().unwrap_or(true),
            components: Components::from_json(&value["components"]),
        }
    }
}
