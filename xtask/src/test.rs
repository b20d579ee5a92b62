//! `cargo xtask test`: everything that decides whether a change may land. `.ci/run` calls this alone.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};

use anyhow::{Context, Result};
use serde_json::json;

use crate::cargo::{self, cargo, check};
use crate::os::Pid;
use crate::report::Tally;
use crate::site::{self, Site};
use crate::{
    bench::count,
    check as checks, clock, h2spec, interop,
    kills::{self, Story},
    os, postgres, replicas, say, smoke, tools,
};

xflags::xflags! {
    /// Runs every check and every test; CI calls this and nothing else.
    ///
    /// In turn: tidy, format, the contract, dependencies, clippy, a build of everything, rustdoc, the tests,
    /// the tests against PostgreSQL and Consul, gRPC's own tests and h2spec (see `cargo xtask interop`), what a call costs (see
    /// `cargo xtask bench count`), a mesh started and used the way the README says, one on Consul of which a replica is killed, one whose processes are killed one after the other, on both databases, and one that
    /// makes a mistake on purpose, which the checker has to find. It fetches what it needs beyond Rust (see `cargo xtask tools`);
    /// what cannot be had is left out and listed at the end, and with CI=true that is a failure. Each stage prints its time;
    /// target/report.json keeps them.
    ///
    ///   cargo xtask test --quick       Rust alone: nothing is fetched, no component is started
    ///   cargo xtask test
    ///   cargo xtask test --full        the same with more seeds for what is simulated
    ///   cargo test -p orders           while you work on one crate
    ///
    /// Ends with one line: N passed, N failed, N skipped.
    cmd test {
        /// Only what needs Rust alone.
        optional --quick
        /// Also what takes long: networks are simulated with a hundred seeds each, not with ten.
        optional --full
        /// Print {"passed","failed","skipped"} as JSON on stdout; all else goes to stderr.
        optional --json
    }
}

pub(crate) fn run(flags: &Test) -> Result<ExitCode> {
    let root = site::root()?;
    // Building the tests replaces this program's own file; what is started later is this copy.
    let scratch = scratch(&root)?;
    let me = crate::up::copy_self(&scratch.state.join("xtask"))?;
    let begun = clock::now();
    let mut tally = Tally::default();
    if flags.quick {
        quick_checks(&root, &mut tally);
    } else {
        tally.stage("tools", tools);
        checks::source(&root, true, &mut tally);
    }
    let built = tally.stage("build", || {
        check(cargo(&root).args(["build", "--workspace", "--all-targets", "--locked"]))
    });
    tally.stage("rustdoc", || {
        let mut command = cargo(&root);
        // Its readers are who work on it: links may lead to what is private.
        command.args(["doc", "--workspace", "--no-deps", "--document-private-items", "--locked"]);
        check(command.env("RUSTDOCFLAGS", "-D warnings -A rustdoc::private_intra_doc_links"))
    });
    // What does not compile cannot be run; the build has been counted as failed.
    if built {
        tally.stage("tests", || tests(&root, flags.full));
        if !flags.quick {
            tally.stage("tests on PostgreSQL", || on_postgres(&root, &scratch));
            tally.stage("tests on Consul", || on_consul(&root));
            tally.stage("gRPC's interoperability tests", || interop::grpc(&root, None));
            tally.stage("h2spec", || h2spec::tally(&root));
            tally.stage("what a call costs, counted", || count::tally(&root));
        }
        let good =
            tally.stage("a mesh as the README says", || smoke::run(&scratch, &me, flags.quick));
        if good && !flags.quick {
            let replicas = tally
                .stage("a replica and Consul killed under load", || replicas::tally(&scratch, &me));
            let stages = [
                ("every process killed, on SQLite", Story::SQLITE),
                ("every process killed, on PostgreSQL", Story::POSTGRES),
                ("a mistake made on purpose is found", Story::BROKEN),
            ];
            let killed = stages
                .into_iter()
                .all(|(name, story)| tally.stage(name, || kills::tally(&scratch, &me, story)));
            if !(replicas && killed) {
                keep(&scratch)?;
            }
        }
        if !good {
            keep(&scratch)?;
        }
    }
    if scratch.state.exists() {
        fs::remove_dir_all(&scratch.state)?;
    }
    let report = site::target(&root).join("report.json");
    os::replace_file(&report, &format!("{:#}\n", tally.report()))?;
    times(&tally);
    say::note(&format!(
        "all of it took {}; {} has the numbers",
        clock::spoken(begun.elapsed()),
        scratch.shown(&report)
    ));
    if flags.quick {
        say::note(
            "--quick: buf, api-linter, the tests on PostgreSQL, gRPC's own tests and the gRPC lines of the README were not asked for",
        );
    }
    Ok(tally.end(flags.json))
}

/// The checks that need Rust alone.
fn quick_checks(root: &Path, tally: &mut Tally) {
    tally.stage("tidy", || crate::tidy::tally(root));
    tally.stage("format", || check(cargo(root).args(["fmt", "--all", "--check"])));
    tally.stage("dependencies", || crate::deps::tally(root));
    checks::clippy(root, tally);
}

/// Fetches every tool that a later stage uses. A missing one counts there, not here.
fn tools() -> Tally {
    for tool in tools::TABLE.iter().filter(|tool| tool.tested) {
        if let Err(error) = tools::install(tool) {
            say::note(&format!("    {}: {error:#}", tool.name));
        }
    }
    Tally::default()
}

/// Tests that are left for a component are counted where the component is, or as left out there.
fn tests(root: &Path, full: bool) -> Tally {
    let mut command = cargo(root);
    command.args(["test", "--workspace", "--locked", "--no-fail-fast"]);
    if full {
        command.env("ORDERMESH_SIM_SEEDS", "100");
    }
    let mut tally = counted(&mut command);
    tally.skipped = 0;
    tally
}

/// The ignored tests, with a PostgreSQL server of our own.
fn on_postgres(root: &Path, scratch: &Site) -> Tally {
    let started = match tools::named("postgres").and_then(tools::install) {
        Ok(_) => {
            postgres::Server::start(&postgres::home(&scratch.state.join("test-postgres")), false)
        }
        Err(error) => return Tally::left_out(format!("tests on PostgreSQL: {error:#}")),
    };
    let server = match started {
        Ok(server) => server,
        Err(error) => {
            say::note(&format!("{error:#}"));
            return Tally::one(false);
        }
    };
    let mut command = cargo(root);
    command.args([
        "test",
        "--workspace",
        "--tests",
        "--locked",
        "--no-fail-fast",
        "--",
        "--ignored",
        "--skip",
        ON_CONSUL,
    ]);
    command.env("ORDERMESH_TEST_POSTGRES", server.address()).env("PATH", tools::path());
    let tally = counted(&mut command);
    server.stop();
    if let Some(home) = server.data.parent() {
        // Only a scratch server: its data has no value once the counts are known.
        drop(fs::remove_dir_all(home));
    }
    tally
}

/// The ignored tests that start agents of their own, kill them and start them again.
fn on_consul(root: &Path) -> Tally {
    let program = match tools::named("consul").and_then(tools::install) {
        Ok(program) => program,
        Err(error) => return Tally::left_out(format!("tests on Consul: {error:#}")),
    };
    let mut command = cargo(root);
    command.args(["test", "--package", "mesh", "--tests", "--locked", "--no-fail-fast"]);
    command.args(["--", "--ignored", ON_CONSUL]).env("ORDERMESH_TEST_CONSUL", program);
    counted(&mut command)
}

/// The module of every test that needs Consul.
const ON_CONSUL: &str = "on_consul::";

fn counted(command: &mut Command) -> Tally {
    cargo::test(command).unwrap_or_else(|error| {
        say::note(&format!("{error:#}"));
        Tally::one(false)
    })
}

/// Keeps the logs and databases of a mesh that did not do what it should.
fn keep(scratch: &Site) -> Result<()> {
    let kept = site::target(&scratch.root).join("failed").join("mesh");
    if kept.exists() {
        fs::remove_dir_all(&kept)?;
    }
    fs::create_dir_all(site::target(&scratch.root).join("failed"))?;
    fs::rename(&scratch.state, &kept).context("cannot keep what failed")?;
    say::note(&format!("    its logs and databases are kept in {}", scratch.shown(&kept)));
    Ok(())
}

/// Ends and removes what runs before this one left when they were interrupted.
fn sweep(root: &Path) -> Result<()> {
    for entry in fs::read_dir(site::target(root)).into_iter().flatten().flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        let Some(pid) = name.strip_prefix(SCRATCH).and_then(|it| it.parse().ok()) else { continue };
        if !Pid::of(pid).alive() {
            // A mesh runs there, or in a folder of its own below.
            let below = fs::read_dir(entry.path()).into_iter().flatten().flatten();
            for state in below.map(|it| it.path()).chain([entry.path()]) {
                if state.is_dir() {
                    crate::down::end(&Site { root: root.to_owned(), state, shift: 0 })?;
                }
            }
            fs::remove_dir_all(entry.path())?;
        }
    }
    Ok(())
}

/// Folders of scratch meshes begin with this; the pid of their run follows.
const SCRATCH: &str = "ordermesh-scratch-";

/// A site of its own for everything that is started, on ports that nobody uses.
pub(crate) fn scratch(root: &Path) -> Result<Site> {
    sweep(root)?;
    let name = format!("{SCRATCH}{}", std::process::id());
    let state: PathBuf = site::target(root).join(name);
    os::private_folder(&state)?;
    // Above the ports that the system gives to outgoing connections.
    let shifts = (11_000..=site::SHIFT_MAX - 400).step_by(450);
    let free = |shift: &u16| {
        let ports = crate::processes::TABLE.iter().flat_map(|it| [it.port, it.admin]);
        let site = Site { root: root.to_owned(), state: state.clone(), shift: *shift };
        // The second replica of each, too.
        ports.into_iter().all(|port| [0, 100].iter().all(|up| os::port_free(port + shift + up)))
            && crate::consul::ports(&site).all(os::port_free)
    };
    let shift = shifts
        .into_iter()
        .find(free)
        .context("no range of free ports was found for a scratch mesh")?;
    Ok(Site { root: root.to_owned(), state, shift })
}

fn times(tally: &Tally) {
    let rows: Vec<Vec<String>> = (tally.stages.iter())
        .map(|it| {
            vec![
                it.name.clone(),
                clock::spoken(it.took),
                json!(it.passed).to_string(),
                json!(it.failed).to_string(),
            ]
        })
        .collect();
    let head = ["stage", "time", "passed", "failed"].map(str::to_owned).to_vec();
    say::note(&format!("\n{}", say::table(&[vec![head], rows].concat())));
}
