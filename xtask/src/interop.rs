//! `cargo xtask interop`: the mesh judged from outside, by gRPC's own interoperability tests and by h2spec.

use std::fs::{self, File};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitCode, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};

use crate::cargo::cargo;
use crate::report::Tally;
use crate::{clock, h2spec, os, say, site, tools};

xflags::xflags! {
    /// Lets others judge the mesh: gRPC's interoperability tests in both directions, and h2spec.
    ///
    /// grpc-go's client calls a server of ours, our channel calls grpc-go's server, and ours calls ours: every
    /// case of gRPC's list that needs no cloud account, one line each. Not among them are the compressed ones
    /// (grpc-go's client has none, and the mesh compresses nothing) and orca_* (load reports, which the mesh
    /// does not send). Calls are in plaintext. Then h2spec, with its strict cases, holds both listeners to RFC
    /// 9113 and 7541: that of gRPC and that of the gateway.
    ///
    ///   cargo xtask interop
    ///   cargo xtask interop --case ping_pong     one case, in all directions, without h2spec
    ///   cargo run -p interop --bin interop_client -- --help
    ///
    /// Ends with one line: N passed, N failed, N skipped. What a server said of a failure is kept in
    /// target/failed/interop.
    cmd interop {
        /// Only this case of gRPC's.
        optional --case name: String
        /// Print {"passed","failed","skipped"} as JSON on stdout; all else goes to stderr.
        optional --json
    }
}

/// Which pairs a case is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum For {
    All,
    /// grpc-go's server does not say who it is.
    OurServer,
    /// grpc-go has neither end of it.
    Ours,
}

const CASES: &[(&str, For)] = &[
    ("empty_unary", For::All),
    ("large_unary", For::All),
    ("cacheable_unary", For::Ours),
    ("client_streaming", For::All),
    ("server_streaming", For::All),
    ("ping_pong", For::All),
    ("empty_stream", For::All),
    ("timeout_on_sleeping_server", For::All),
    ("cancel_after_begin", For::All),
    ("cancel_after_first_response", For::All),
    ("status_code_and_message", For::All),
    ("special_status_message", For::All),
    ("custom_metadata", For::All),
    ("unimplemented_method", For::All),
    ("unimplemented_service", For::All),
    ("pick_first_unary", For::OurServer),
    ("rpc_soak", For::All),
    ("channel_soak", For::All),
];

/// How often a soak calls.
const SOAK: &str = "100";

/// How long a server may take to listen, and a case to end.
const LISTENS: Duration = Duration::from_secs(20);
const ENDS: Duration = Duration::from_secs(40);

/// So much of a line is shown: grpc-go prints payloads.
const LINE_MAX: usize = 300;

/// Whose program it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Whose {
    Ours,
    GrpcGo,
}

/// A server of this run; it ends with this value.
pub(crate) struct Server {
    child: Child,
    pub(crate) port: u16,
}

pub(crate) fn run(flags: &Interop) -> Result<ExitCode> {
    let root = site::root()?;
    if let Some(case) = &flags.case {
        let known: Vec<&str> = CASES.iter().map(|(name, _)| *name).collect();
        ensure!(known.contains(&case.as_str()), "no case `{case}`: there are {}", known.join(", "));
    }
    let mut tally = Tally::default();
    let built = tally.stage("build", || {
        let packages = ["--package", "interop", "--package", "gateway"];
        crate::cargo::check(cargo(&root).args(["build", "--bins", "--locked"]).args(packages))
    });
    if built {
        tally.stage("gRPC's interoperability tests", || grpc(&root, flags.case.as_deref()));
        if flags.case.is_none() {
            tally.stage("h2spec", || h2spec::tally(&root));
        }
    }
    Ok(tally.end(flags.json))
}

/// All cases, or one, in all directions; the programs of ours are built already.
pub(crate) fn grpc(root: &Path, case: Option<&str>) -> Tally {
    let mut tally = Tally::default();
    let theirs = match tools::named("grpc-interop").and_then(tools::install) {
        Ok(client) => Some(client),
        Err(error) => {
            tally.add(Tally::left_out(format!("grpc-go's interop programs: {error:#}")));
            None
        }
    };
    for (client, server) in
        [(Whose::GrpcGo, Whose::Ours), (Whose::Ours, Whose::GrpcGo), (Whose::Ours, Whose::Ours)]
    {
        let go = theirs.as_deref();
        if go.is_none() && [client, server].contains(&Whose::GrpcGo) {
            continue;
        }
        match pair(root, go, (client, server), case) {
            Ok(found) => tally.add(found),
            Err(error) => {
                say::note(&format!(
                    "    FAILED: {} to {}: {error:#}",
                    client.name(),
                    server.name()
                ));
                tally.add(Tally::one(false));
            }
        }
    }
    tally
}

/// The cases of one client with one server.
fn pair(
    root: &Path,
    go: Option<&Path>,
    (client, server): (Whose, Whose),
    case: Option<&str>,
) -> Result<Tally> {
    let running = match server {
        Whose::Ours => Server::ours(root, "interop_server", &[])?,
        Whose::GrpcGo => {
            let port = os::free_port()?;
            let program = go.context("grpc-go is missing")?.with_file_name("grpc-interop-server");
            Server::start(root, Command::new(program).args(["-port", &port.to_string()]), port)?
        }
    };
    let program = match client {
        Whose::Ours => program(root, "interop_client"),
        Whose::GrpcGo => go.context("grpc-go is missing")?.to_owned(),
    };
    let mut tally = Tally::default();
    let cases = CASES.iter().filter(|(name, of)| {
        case.is_none_or(|case| case == *name)
            && match of {
                For::All => true,
                For::OurServer => server == Whose::Ours,
                For::Ours => (client, server) == (Whose::Ours, Whose::Ours),
            }
    });
    for (name, _) in cases {
        let mut command = Command::new(&program);
        command.args(["--server_host", "127.0.0.1", "--server_port", &running.port.to_string()]);
        command.args(["--test_case", name]);
        if name.ends_with("_soak") {
            command.args(["--soak_iterations", SOAK]);
        }
        let done = ends_well(&mut command, &scratch(root).join("case.log"));
        let good = done.is_ok();
        let directions = format!("{name}, {} to {}", client.name(), server.name());
        match done {
            Ok(()) => say::note(&format!("    ok: {directions}")),
            Err(error) => say::note(&format!("    FAILED: {directions}: {error:#}")),
        }
        tally.add(Tally::one(good));
    }
    let stays = running.alive();
    running.end(root, tally.failed == 0 && stays);
    ensure!(stays, "the server died");
    Ok(tally)
}

/// Runs a program to its end, which must come in time and be a success.
pub(crate) fn ends_well(command: &mut Command, log: &Path) -> Result<()> {
    let file = File::create(log).with_context(|| format!("cannot write {}", log.display()))?;
    command.stdin(Stdio::null()).stdout(file.try_clone()?).stderr(file);
    let mut child = command.spawn().context("cannot be run")?;
    let begun = clock::now();
    let status = loop {
        if let Some(status) = child.try_wait()? {
            break Some(status);
        }
        if begun.elapsed() > ENDS {
            child.kill()?;
            child.wait()?;
            break None;
        }
        clock::nap(5);
    };
    let said = fs::read_to_string(log).unwrap_or_default();
    fs::remove_file(log)?;
    let lines: Vec<&str> = said.lines().filter(|line| !line.trim().is_empty()).collect();
    let last: Vec<String> = lines
        .iter()
        .rev()
        .take(4)
        .rev()
        .map(|line| line.chars().take(LINE_MAX).collect())
        .collect();
    let last = last.join("\n      ");
    match status {
        Some(status) if status.success() => Ok(()),
        Some(status) => bail!("{status}: {last}"),
        None => bail!("not over after {}: {last}", clock::spoken(ENDS)),
    }
}

/// A program of ours, as it was built last.
fn program(root: &Path, name: &str) -> PathBuf {
    site::target(root).join("debug").join(name)
}

/// Where servers of this run write what they have to say.
pub(crate) fn scratch(root: &Path) -> PathBuf {
    site::target(root).join(format!("interop-{}", std::process::id()))
}

// === impl Whose ===

impl Whose {
    const fn name(self) -> &'static str {
        match self {
            Self::Ours => "ours",
            Self::GrpcGo => "grpc-go",
        }
    }
}

// === impl Server ===

impl Server {
    /// A process of ours on free ports.
    pub(crate) fn ours(root: &Path, name: &str, more: &[&str]) -> Result<Self> {
        let port = os::free_port()?;
        let mut command = Command::new(program(root, name));
        command.args(["--listen", &format!("127.0.0.1:{port}")]);
        // Nobody asks there.
        command.args(["--admin-listen", "127.0.0.1:0"]).args(more);
        Self::start(root, &mut command, port)
    }

    /// Starts a server and waits until it listens.
    fn start(root: &Path, command: &mut Command, port: u16) -> Result<Self> {
        fs::create_dir_all(scratch(root))?;
        let log = File::create(scratch(root).join("server.log"))?;
        command.stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log);
        let name = command.get_program().display().to_string();
        let child = command.spawn().with_context(|| format!("cannot run {name}"))?;
        let mut server = Self { child, port };
        let begun = clock::now();
        while TcpStream::connect(("127.0.0.1", port)).is_err() {
            let ended = server.child.try_wait()?;
            if ended.is_some() || begun.elapsed() > LISTENS {
                let said = fs::read_to_string(scratch(root).join("server.log"))?;
                fs::remove_dir_all(scratch(root))?;
                bail!("{name} does not listen: {said}");
            }
            clock::nap(20);
        }
        Ok(server)
    }

    /// Whether it still runs.
    pub(crate) fn alive(&self) -> bool {
        os::Pid::of(self.child.id()).alive()
    }

    /// Ends it; what it said is kept only where something went wrong.
    pub(crate) fn end(self, root: &Path, good: bool) {
        drop(self);
        let (from, to) = (scratch(root), site::target(root).join("failed").join("interop"));
        let moved = if good {
            fs::remove_dir_all(&from)
        } else {
            drop(fs::remove_dir_all(&to));
            fs::create_dir_all(site::target(root).join("failed"))
                .and_then(|()| fs::rename(&from, &to))
        };
        match moved {
            Ok(()) if good => {}
            Ok(()) => say::note(&format!("    what was said is kept in {}", to.display())),
            Err(error) => say::note(&format!("    {}: {error}", from.display())),
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // It may have ended by itself; nobody else waits for it.
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn log(name: &str) -> PathBuf {
        std::env::temp_dir().join(format!("ordermesh-interop-{name}-{}", std::process::id()))
    }

    #[test]
    fn a_case_that_fails_says_what_its_client_said_last() {
        let mut command = Command::new("sh");
        command.args(["-c", "echo wanted 9, got 8; exit 3"]);
        let error = ends_well(&mut command, &log("fails")).unwrap_err().to_string();
        assert!(error.contains("wanted 9, got 8") && error.contains('3'), "{error}");
        ends_well(Command::new("sh").args(["-c", "true"]), &log("good")).unwrap();
    }

    #[test]
    fn every_case_is_named_once() {
        let mut names: Vec<&str> = CASES.iter().map(|(name, _)| *name).collect();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), CASES.len());
    }
}
