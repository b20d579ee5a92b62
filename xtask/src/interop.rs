//! `cargo xtask interop`: the mesh judged from outside, by gRPC's own interoperability tests and by h2spec.

use std::fs::{self, File};
use std::path::Path;
use std::process::{Command, ExitCode, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};

use crate::cargo::cargo;
use crate::report::Tally;
use crate::{clock, h2spec, os, say, site, tools};

mod server;

use server::{CA, NAME, program};
pub(crate) use server::{Certificates, Server, scratch};

xflags::xflags! {
    /// Lets others judge the mesh: gRPC's interoperability tests in both directions, and h2spec.
    ///
    /// grpc-go's client calls a server of ours, our channel calls grpc-go's server, and ours calls ours: every
    /// case of gRPC's list that needs no cloud account, one line each. Not among them are the compressed ones
    /// (grpc-go's client has none, and the mesh compresses nothing) and orca_* (load reports, which the mesh
    /// does not send). All of it once in plaintext and once over TLS, where a server with another name or by an
    /// authority that the client does not know has to be refused. Then h2spec, with its strict cases, holds both
    /// listeners to RFC 9113 and 7541, that of gRPC and that of the gateway, in plaintext and over TLS.
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

/// How long a case may take.
const ENDS: Duration = Duration::from_secs(40);

/// So much of a line is shown: grpc-go prints payloads.
const LINE_MAX: usize = 400;

/// Whose program it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Whose {
    Ours,
    GrpcGo,
}

/// How calls go.
#[derive(Clone, Copy, Debug)]
enum Over<'a> {
    Plaintext,
    Tls(&'a Certificates),
}

/// Whom a client over TLS has to refuse: why, whom it wants, whom it trusts, and what it says
/// then: ours, grpc-go.
const REFUSED: [(&str, &str, &str, [&str; 2]); 2] = [
    ("another name", "example.com", CA, ["not valid for name", "is valid for localhost, not"]),
    (
        "an unknown authority",
        NAME,
        "stranger.pem",
        ["UnknownIssuer", "signed by unknown authority"],
    ),
];

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
    let certificates = match Certificates::make(root) {
        Ok(certificates) => certificates,
        Err(error) => {
            say::note(&format!("    FAILED: certificates: {error:#}"));
            return Tally::one(false);
        }
    };
    for over in [Over::Plaintext, Over::Tls(&certificates)] {
        for (client, server) in
            [(Whose::GrpcGo, Whose::Ours), (Whose::Ours, Whose::GrpcGo), (Whose::Ours, Whose::Ours)]
        {
            let go = theirs.as_deref();
            if go.is_none() && [client, server].contains(&Whose::GrpcGo) {
                continue;
            }
            let pair = Pair { client, server, over };
            match pair.run(root, go, case) {
                Ok(found) => tally.add(found),
                Err(error) => {
                    say::note(&format!("    FAILED: {}: {error:#}", pair.name()));
                    tally.add(Tally::one(false));
                }
            }
        }
    }
    tally
}

/// One client with one server.
#[derive(Clone, Copy, Debug)]
struct Pair<'a> {
    client: Whose,
    server: Whose,
    over: Over<'a>,
}

// === impl Pair ===

impl Pair<'_> {
    fn name(self) -> String {
        let over = match self.over {
            Over::Plaintext => "",
            Over::Tls(_) => " over TLS",
        };
        format!("{} to {}{over}", self.client.name(), self.server.name())
    }

    /// All cases, or one.
    fn run(self, root: &Path, go: Option<&Path>, case: Option<&str>) -> Result<Tally> {
        let running = self.serve(root, go)?;
        let program = match self.client {
            Whose::Ours => program(root, "interop_client"),
            Whose::GrpcGo => go.context("grpc-go is missing")?.to_owned(),
        };
        let mut tally = Tally::default();
        let cases = CASES.iter().filter(|(name, of)| {
            case.is_none_or(|case| case == *name)
                && match of {
                    For::All => true,
                    For::OurServer => self.server == Whose::Ours,
                    For::Ours => (self.client, self.server) == (Whose::Ours, Whose::Ours),
                }
        });
        let log = scratch(root).join("case.log");
        for (name, _) in cases {
            let mut command = self.command(&program, running.port, name, (NAME, CA));
            if name.ends_with("_soak") {
                command.args(["--soak_iterations", SOAK]);
            }
            tally.add(self.told(name, ends_well(&mut command, &log)));
        }
        if matches!(self.over, Over::Tls(_)) && case.is_none() {
            for (why, name, ca, words) in REFUSED {
                let call = || {
                    let mut call = self.command(&program, running.port, "empty_unary", (name, ca));
                    ends_well(&mut call, &log)
                };
                let done = refused(call, words);
                tally.add(self.told(&format!("{why} is refused"), done));
            }
        }
        let stays = running.alive();
        running.end(root, tally.failed == 0 && stays);
        ensure!(stays, "the server died");
        Ok(tally)
    }

    fn serve(self, root: &Path, go: Option<&Path>) -> Result<Server> {
        if self.server == Whose::Ours {
            return Server::ours(root, "interop_server", &self.over.flags());
        }
        let port = os::free_port()?;
        let program = go.context("grpc-go is missing")?.with_file_name("grpc-interop-server");
        let mut command = Command::new(program);
        command.args(["-port", &port.to_string()]);
        if let Over::Tls(certificates) = self.over {
            command.args(["-use_tls", "-tls_cert_file"]).arg(certificates.path("cert.pem"));
            command.arg("-tls_key_file").arg(certificates.path("key.pem"));
        }
        Server::start(root, &mut command, port)
    }

    /// A client that wants a server of this name, issued by whom this file names.
    fn command(self, program: &Path, port: u16, case: &str, (name, ca): (&str, &str)) -> Command {
        let mut command = Command::new(program);
        // Not by a name: the resolver of some machines is silent for seconds at a time.
        command.args(["--server_host", "127.0.0.1", "--server_port", &port.to_string()]);
        command.args(["--test_case", case]);
        if let Over::Tls(certificates) = self.over {
            command.args(["--use_tls", "--server_host_override", name]);
            command.args(["--use_test_ca", "--ca_file"]).arg(certificates.path(ca));
        }
        command
    }

    fn told(self, case: &str, done: Result<()>) -> Tally {
        let name = self.name();
        match &done {
            Ok(()) => say::note(&format!("    ok: {case}, {name}")),
            Err(error) => say::note(&format!("    FAILED: {case}, {name}: {error:#}")),
        }
        Tally::one(done.is_ok())
    }
}

/// Whether a client never speaks to a server, and says why. On a busy machine it may give up before
/// it has heard who the server is; then it is asked again.
fn refused(call: impl Fn() -> Result<()>, words: [&str; 2]) -> Result<()> {
    let mut said = String::new();
    for _ in 0..3 {
        let Err(error) = call() else { bail!("it was called") };
        said = format!("{error:#}");
        if words.iter().any(|words| said.contains(words)) {
            return Ok(());
        }
    }
    bail!("it failed for another reason: {said}")
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

// === impl Over ===

impl Over<'_> {
    fn flags(self) -> Vec<String> {
        match self {
            Self::Plaintext => Vec::new(),
            Self::Tls(certificates) => certificates.flags().into(),
        }
    }
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

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

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
    fn a_refusal_counts_for_its_reason_alone() {
        let words = REFUSED[0].3;
        let says = |why: &'static str| move || Err(anyhow::anyhow!(why));
        refused(says("certificate not valid for name \"x\""), words).unwrap();
        let error = refused(says("connection refused"), words).unwrap_err();
        assert!(error.to_string().contains("connection refused"), "{error}");
        // Once is once too often.
        let calls = std::cell::Cell::new(0);
        let late = || {
            calls.set(calls.get() + 1);
            if calls.get() < 2 { Err(anyhow::anyhow!("late")) } else { Ok(()) }
        };
        let error = refused(late, words).unwrap_err();
        assert!(error.to_string().contains("it was called"), "{error}");
    }

    #[test]
    fn every_case_is_named_once() {
        let mut names: Vec<&str> = CASES.iter().map(|(name, _)| *name).collect();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), CASES.len());
    }
}
