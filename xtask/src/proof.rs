//! `cargo xtask proof` and `cargo xtask ops`: the project's own tools, told where the running mesh is.

use std::ffi::OsString;
use std::path::Path;
use std::process::{Command, ExitCode};

use anyhow::{Context, Result, ensure};

use crate::processes::{self, PSP_PORT, TABLE};
use crate::run_file::Run;
use crate::site::Site;
use crate::{cargo, kills, replicas, seed};

const PROOF_HELP: &str = "\
cargo xtask proof check [--json] …    whether what all services, the provider and the carrier say fits together
cargo xtask proof load [--json] …     orders, repeats, cancels and watches at a constant rate, written down
cargo xtask proof kills [--with postgres [--replicas N]] [--json]
                                      ends every process at every point where it hurts, and checks what is left
cargo xtask proof kills --bug NAME    the same with a mistake made on purpose: good if the checker says so
cargo xtask proof replicas [--json]   ends one of three replicas, then Consul, while customers read: no read may fail

check and load work on the mesh that runs; `cargo xtask proof check --help` names their flags. A round:

  cargo xtask proof load --rate 20 --for 30s --faults --history target/history.ndjson
  cargo xtask proof check --wait 60s --quiet --history target/history.ndjson

kills and replicas start a mesh of their own in an empty folder on free ports. kills takes some minutes, has failpoints,
and prints one line for each process and point with the number of orders that were in flight. With replicas
it also says what each of them did. The bugs are those of mesh/src/bug.rs; `--bug all` makes one after the other.
";

/// Runs `meshproof` on the mesh that runs, or the kills on one of their own.
pub(crate) fn run(args: Vec<OsString>) -> Result<ExitCode> {
    let first = args.first().map(|it| it.to_string_lossy().into_owned()).unwrap_or_default();
    match first.as_str() {
        "" | "help" | "--help" | "-h" => {
            print!("{PROOF_HELP}");
            Ok(ExitCode::SUCCESS)
        }
        "kills" => kills::run(args.get(1..).unwrap_or_default()),
        "replicas" => replicas::run(args.get(1..).unwrap_or_default()),
        "check" | "load" => {
            let site = Site::from_env()?;
            if !args.iter().any(|it| it == "--help" || it == "-h") {
                Run::required(&site)?;
            }
            let mut command = meshproof(&site, &built(&site, "proof", "meshproof")?, &first);
            command.args(args.get(1..).unwrap_or_default());
            code(&mut command)
        }
        other => {
            eprintln!("error: there is no `proof {other}`\n\n{PROOF_HELP}");
            Ok(ExitCode::from(2))
        }
    }
}

/// Runs `meshctl` on the mesh that runs.
pub(crate) fn ops(args: Vec<OsString>) -> Result<ExitCode> {
    let site = Site::from_env()?;
    let mut command = Command::new(built(&site, "meshctl", "meshctl")?);
    command
        .args(args)
        .env("MESHCTL_REGISTRY", registry(&site))
        .env("MESHCTL_EMAIL", seed::ADMIN)
        .env("MESHCTL_PASSWORD_FILE", site.secrets().join("admin-password"));
    code(&mut command)
}

/// `meshproof check` or `load` as the admin of the mesh on this site.
pub(crate) fn meshproof(site: &Site, program: &Path, what: &str) -> Command {
    let mut command = Command::new(program);
    command.arg(what).env("MESHPROOF_REGISTRY", registry(site)).current_dir(&site.root);
    if what == "check" {
        command
            .env("MESHPROOF_EMAIL", seed::ADMIN)
            .env("MESHPROOF_PASSWORD_FILE", site.secrets().join("admin-password"))
            .env("MESHPROOF_PSP", format!("http://{}", site.address(PSP_PORT)))
            .arg("--mail")
            .arg(site.mail());
    }
    command
}

/// Where tools find the services: every replica that runs.
pub(crate) fn registry(site: &Site) -> String {
    let run = Run::read(site).ok().flatten();
    let running = |name: &str| -> Vec<String> {
        let rows = run.iter().flat_map(|run| &run.processes);
        let of = rows.filter(|row| row.instance.service == name);
        of.map(|row| row.instance.listen.clone()).collect()
    };
    let services: Vec<String> = (TABLE.iter().filter(|it| it.registered))
        .map(|it| match running(it.name) {
            found if found.is_empty() => format!("{}={}", it.name, site.address(it.port)),
            found => format!("{}={}", it.name, found.join(",")),
        })
        .collect();
    format!("static://?{}", services.join("&"))
}

/// A tool of the workspace, built as the source stands.
fn built(site: &Site, package: &str, program: &str) -> Result<std::path::PathBuf> {
    let status = cargo::cargo(&site.root)
        .args(["build", "--quiet", "--locked", "--package", package])
        .status()
        .context("cannot run cargo")?;
    ensure!(status.success(), "{package} does not build; cargo said why above");
    Ok(processes::bins(site, false).join(program))
}

/// What the tool ended with is what we end with.
fn code(command: &mut Command) -> Result<ExitCode> {
    let status = command.status().context("cannot run the tool")?;
    let code = status.code().and_then(|code| u8::try_from(code).ok());
    Ok(code.map_or(ExitCode::FAILURE, ExitCode::from))
}
