//! `cargo xtask doctor`: what this machine has, what it lacks, and what to do about it.

use std::path::Path;
use std::process::{Command, ExitCode};

use anyhow::Result;

use crate::processes::TABLE;
use crate::run_file::Run;
use crate::site::Site;
use crate::{os, say, tools};

xflags::xflags! {
    /// Looks at this machine: compiler, C compiler, disk, ports, tools; and says what to do next.
    ///
    /// Fails only if something is missing without which the mesh does not build or start.
    ///
    ///   cargo xtask doctor
    cmd doctor { }
}

/// What a build of everything with its tests takes.
const DISK_MIN: u64 = 12 * 1024 * 1024 * 1024;

/// One thing that was looked at.
struct Look {
    what: &'static str,
    found: String,
    /// What to do, where it is not as it should be.
    next: Option<String>,
    /// Nothing works without it.
    vital: bool,
}

pub(crate) fn run(_flags: &Doctor) -> Result<ExitCode> {
    let site = Site::from_env()?;
    let mut looks =
        vec![rustc(&site.root), compiler(), make(), git(), disk(&site.root), ports(&site)?];
    looks.extend(tools::TABLE.iter().filter(|tool| tool.tested).map(|tool| {
        let found = tools::find(tool.name);
        let next = found.is_none().then(|| tools::hint(tool.name));
        let found = found.map_or_else(|| "not found".to_owned(), |it| it.display().to_string());
        Look { what: tool.name, found, next, vital: false }
    }));
    let mark = |look: &Look| match (&look.next, look.vital) {
        (None, _) => "ok",
        (Some(_), true) => "MISSING",
        (Some(_), false) => "note",
    };
    let rows: Vec<Vec<String>> = looks
        .iter()
        .map(|look| vec![mark(look).to_owned(), look.what.to_owned(), look.found.clone()])
        .collect();
    print!("{}", say::table(&rows));
    let left_out: Vec<&str> = (tools::TABLE.iter())
        .filter(|tool| tool.tested && tools::find(tool.name).is_none())
        .map(|tool| tool.name)
        .collect();
    if left_out.is_empty() {
        println!("\n`cargo xtask test` would leave nothing out.");
    } else {
        println!(
            "\n`cargo xtask test` would first fetch {}; what cannot be fetched is left out and listed at its end.",
            left_out.join(", ")
        );
    }
    println!("\nNext:");
    for look in &looks {
        if let Some(next) = &look.next {
            println!("  {}: {next}", look.what);
        }
    }
    let broken = looks.iter().any(|look| look.vital && look.next.is_some());
    if !broken {
        println!("  cargo xtask up");
    }
    Ok(if broken { ExitCode::FAILURE } else { ExitCode::SUCCESS })
}

fn rustc(root: &Path) -> Look {
    let wanted = wanted_rust(root);
    let found = said("rustc", &["--version"]);
    let version = found.as_deref().and_then(|it| it.split_whitespace().nth(1)).unwrap_or_default();
    let old = parts(version) < parts(&wanted);
    Look {
        what: "rustc",
        next: old.then(|| {
            format!(
                "Rust {wanted} or newer is needed: `rustup update stable`, or https://rustup.rs"
            )
        }),
        found: found.unwrap_or_else(|| "not found".into()),
        vital: true,
    }
}

/// `rust-version` of the root Cargo.toml.
fn wanted_rust(root: &Path) -> String {
    let manifest = std::fs::read_to_string(root.join("Cargo.toml")).unwrap_or_default();
    let line =
        manifest.lines().find_map(|line| line.strip_prefix("rust-version = ")).unwrap_or_default();
    line.trim_matches('"').to_owned()
}

fn parts(version: &str) -> Vec<u32> {
    version.split(['.', '-']).map_while(|part| part.parse().ok()).collect()
}

fn compiler() -> Look {
    let found = ["cc", "gcc", "clang"].iter().find_map(|name| said(name, &["--version"]));
    let next = "SQLite and the cryptography are C: `sudo apt-get install gcc libc6-dev`, or Xcode's command line tools";
    Look {
        what: "C compiler",
        next: found.is_none().then(|| next.to_owned()),
        found: found.unwrap_or_else(|| "not found".into()),
        vital: true,
    }
}

fn make() -> Look {
    let found = said("make", &["--version"]);
    let next = found.is_none().then(|| {
        "`--release` and `bench` build their allocator with it: `sudo apt-get install make`"
            .to_owned()
    });
    let found = found.unwrap_or_else(|| "not found".into());
    Look { what: "make", found, next, vital: false }
}

fn git() -> Look {
    let found = said("git", &["--version"]);
    let next =
        found.is_none().then(|| "tidy asks git which files there are: install git".to_owned());
    Look { what: "git", found: found.unwrap_or_else(|| "not found".into()), next, vital: false }
}

fn disk(root: &Path) -> Look {
    let free = os::disk_free(root);
    let gigabytes = |bytes: u64| bytes / (1024 * 1024 * 1024);
    let next = free.filter(|free| *free < DISK_MIN).map(|_| {
        format!("a build with all tests takes about {} GB: make room, or set CARGO_TARGET_DIR to another disk", gigabytes(DISK_MIN))
    });
    let found =
        free.map_or_else(|| "unknown".to_owned(), |free| format!("{} GB free", gigabytes(free)));
    Look { what: "disk", found, next, vital: false }
}

fn ports(site: &Site) -> Result<Look> {
    if Run::current(site)?.is_some() {
        let found = "the mesh is running on them".to_owned();
        return Ok(Look { what: "ports", found, next: None, vital: false });
    }
    let ports =
        TABLE.iter().flat_map(|it| [it.port, it.admin]).map(|port| port.saturating_add(site.shift));
    let taken: Vec<String> = ports
        .filter(|port| !os::port_free(*port))
        .map(|port| {
            format!(
                "{port} by {}",
                os::listener(port).unwrap_or_else(|| "an unknown process".into())
            )
        })
        .collect();
    let next = "end that process, or shift all ports: ORDERMESH_PORT_SHIFT=11000 cargo xtask up";
    Ok(Look {
        what: "ports",
        next: (!taken.is_empty()).then(|| next.to_owned()),
        found: if taken.is_empty() {
            "all free".into()
        } else {
            format!("taken: {}", taken.join(", "))
        },
        vital: true,
    })
}

/// The first line of what a program says about itself.
fn said(program: &str, arguments: &[&str]) -> Option<String> {
    let output = Command::new(program).args(arguments).output().ok()?;
    output
        .status
        .success()
        .then(|| String::from_utf8_lossy(&output.stdout).lines().next().map(str::to_owned))?
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::site;

    #[test]
    fn versions_are_compared_by_number() {
        assert!(parts("1.9.0") < parts("1.95"));
        assert!(parts("1.95.0") >= parts("1.95"));
        assert!(parts("1.96.0-nightly") > parts("1.95"));
    }

    #[test]
    fn the_needed_compiler_is_the_one_of_the_manifest() {
        assert!(parts(&wanted_rust(&site::root().unwrap())) >= vec![1, 95]);
    }
}
