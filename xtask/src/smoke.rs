//! A mesh started, used and ended the way the README says: the last stage of `cargo xtask test`.

use std::fs;
use std::path::Path;
use std::process::{Command, Output, Stdio};

use anyhow::{Context, Result, bail, ensure};
use serde_json::Value;

use crate::processes::TABLE;
use crate::report::Tally;
use crate::site::Site;
use crate::{os, say, supervise, tools};

/// Starts a mesh on a scratch site and counts each thing that a newcomer does with it.
pub(crate) fn run(site: &Site, me: &Path, quick: bool) -> Tally {
    let mut tally = Tally::default();
    let mut step = |name: &str, outcome: Result<()>| {
        let good = outcome.is_ok();
        match outcome {
            Ok(()) => say::note(&format!("    ok: {name}")),
            Err(error) => say::note(&format!("    FAILED: {name}: {error:#}")),
        }
        tally.add(Tally::one(good));
        good
    };
    if step("up --detach", told(xtask(site, me, &["up", "--detach", "--no-build"])).map(drop)) {
        step("demo --json", demo(site, me));
        step("status --json", status(site, me));
        step("kill, and it comes back", killed(site, me));
        step("curl of the README", readme(site, "curl"));
        if !quick && tools::find("grpcurl").is_some() {
            step("grpcurl list and describe", reflection(site));
            step("grpcurl of the README", readme(site, "grpcurl"));
        }
    }
    step("down", down(site, me));
    step("nothing is left", left(site));
    if !quick && tools::find("grpcurl").is_none() {
        tally.add(Tally::left_out(format!("grpcurl: {}", tools::hint("grpcurl"))));
    }
    tally
}

pub(crate) fn xtask(site: &Site, me: &Path, arguments: &[&str]) -> Command {
    let mut command = Command::new(me);
    command
        .args(arguments)
        .current_dir(&site.root)
        .env("CARGO_MANIFEST_DIR", site.root.join("xtask"))
        .env("ORDERMESH_STATE", &site.state)
        .env("ORDERMESH_PORT_SHIFT", site.shift.to_string());
    command
}

/// What a command says on stdout, if it succeeds.
pub(crate) fn told(mut command: Command) -> Result<String> {
    let output: Output = command.stdin(Stdio::null()).output().context("cannot be run")?;
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    if !output.status.success() {
        bail!("{}\n{said}{}", output.status, String::from_utf8_lossy(&output.stderr));
    }
    Ok(said)
}

fn demo(site: &Site, me: &Path) -> Result<()> {
    let said = told(xtask(site, me, &["demo", "--json"]))?;
    let demo: Value = serde_json::from_str(&said).with_context(|| format!("not JSON: {said}"))?;
    ensure!(
        matches!(demo["state"].as_str(), Some("CONFIRMED" | "COMPLETED")),
        "the order is not CONFIRMED: {said}"
    );
    ensure!(
        demo["order"].as_str().is_some_and(|it| it.starts_with("orders/")),
        "no order is named: {said}"
    );
    ensure!(
        demo["trace_id"].as_str().is_some_and(|it| it.len() == 32),
        "no trace is named: {said}"
    );
    ensure!(demo["elapsed_ms"]["confirmed"].is_u64(), "no time is told: {said}");
    Ok(())
}

fn status(site: &Site, me: &Path) -> Result<()> {
    let said = told(xtask(site, me, &["status", "--json"]))?;
    let rows: Vec<Value> =
        serde_json::from_str(&said).with_context(|| format!("not JSON: {said}"))?;
    ensure!(rows.len() == TABLE.len(), "not every process is listed: {said}");
    ensure!(
        rows.iter().all(|row| row["ready"] == true && row["pid"].is_u64()),
        "not all are ready: {said}"
    );
    Ok(())
}

fn killed(site: &Site, me: &Path) -> Result<()> {
    told(xtask(site, me, &["kill", "inventory"]))?;
    // `restart` waits until the process is ready, whoever started it.
    told(xtask(site, me, &["restart", "inventory"]))?;
    demo(site, me)
}

fn reflection(site: &Site) -> Result<()> {
    let grpcurl = tools::find("grpcurl").context("grpcurl is gone")?;
    for process in TABLE.iter().filter(|it| !it.http) {
        let address = site.address(process.port);
        let ask = |words: &[&str]| {
            let mut command = Command::new(&grpcurl);
            command.args(["-plaintext", &address]).args(words);
            told(command)
        };
        let services = ask(&["list"])?;
        let own = services
            .lines()
            .find(|line| line.starts_with("ordermesh."))
            .context("no service of ours is listed")?;
        ensure!(
            services.contains("grpc.health.v1.Health"),
            "{}: no health service: {services}",
            process.name
        );
        ensure!(ask(&["describe", own])?.contains("rpc "), "{own} is not described");
    }
    Ok(())
}

/// Runs the README's shell blocks as they are written, on the scratch ports.
///
/// Blocks build on each other (a token, the name of an order), so they run as one script: all of
/// those that begin with a shell's name. Lines of cargo are left out; those of `program` must be there.
fn readme(site: &Site, program: &str) -> Result<()> {
    let text = fs::read_to_string(site.root.join("README.md")).context("there is no README.md")?;
    let script = blocks(&text);
    ensure!(
        script.lines().any(|line| line.split(['$', '(', ' ']).any(|word| word == program)),
        "the README shows no line of {program}"
    );
    let path = site.state.join(format!("readme-{program}.sh"));
    // A reader sees an error; a script must fail on it. Without grpcurl its lines are not run.
    let grpcurl = if program == "grpcurl" { "" } else { "grpcurl() { :; }\n" };
    let curl = "curl() { command curl --fail-with-body --silent --show-error \"$@\"; }\n";
    let mut shifted = script;
    for process in TABLE {
        shifted =
            shifted.replace(&format!("127.0.0.1:{}", process.port), &site.address(process.port));
        shifted =
            shifted.replace(&format!("localhost:{}", process.port), &site.address(process.port));
    }
    shifted = shifted.replace("target/ordermesh/", &format!("{}/", site.state.display()));
    os::private_file(&path, &format!("set -euo pipefail\n{curl}{grpcurl}{shifted}"))?;
    let mut command = Command::new("bash");
    command.arg(&path).current_dir(&site.root).env("PATH", tools::path());
    let said = told(command)?;
    ensure!(said.contains("CONFIRMED"), "the README's order is not CONFIRMED: {said}");
    Ok(())
}

/// The commands of a Markdown file's shell blocks, without those of cargo, git and cd.
fn blocks(markdown: &str) -> String {
    let mut script = String::new();
    let mut inside = false;
    for line in markdown.lines() {
        if let Some(language) = line.trim_start().strip_prefix("```") {
            inside = !inside && matches!(language.trim(), "sh" | "bash" | "shell");
            continue;
        }
        let other = ["cargo ", "git ", "cd "].iter().any(|it| line.trim_start().starts_with(it));
        if inside && !other {
            script.push_str(line.trim_start_matches("$ "));
            script.push('\n');
        }
    }
    script
}

fn down(site: &Site, me: &Path) -> Result<()> {
    let said = told(xtask(site, me, &["down"]))?;
    ensure!(said.contains(supervise::ALL_ENDED), "not everything ended by itself: {said}");
    Ok(())
}

fn left(site: &Site) -> Result<()> {
    for process in TABLE {
        for port in [process.port, process.admin] {
            let port = port + site.shift;
            ensure!(os::port_free(port), "port {port} is still held by {:?}", os::listener(port));
        }
    }
    ensure!(!site.run_file().exists(), "run.json is still there");
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shell_blocks_are_joined_without_what_builds_and_starts() {
        let text = "# A\n```sh\ncargo xtask up\nTOKEN=$(curl x)\n```\n```json\n{}\n```\n```bash\n$ curl y \\\n  -d z\n```\n";
        assert_eq!(blocks(text), "TOKEN=$(curl x)\ncurl y \\\n  -d z\n");
    }
}
