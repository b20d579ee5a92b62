//! Every command of the project: `cargo xtask` lists them, `cargo xtask COMMAND --help` explains one.
#![expect(
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "a command line program talks on its terminal"
)]

mod processes;
mod site;
mod up;
mod supervise;
mod run_file;
mod down;
mod status;
mod logs;
mod restart;
mod seed;
mod demo;
mod api;
mod test;
mod smoke;
mod check;
mod tidy;
mod deps;
mod deny;
mod bench;
mod proof;
mod kills;
mod replicas;
mod interop;
mod h2spec;
mod doctor;
mod tools;
mod components;
mod postgres;
mod consul;
mod jaeger;
mod cargo;
mod report;
mod say;
mod os;
mod clock;

use std::ffi::OsString;
use std::path::Path;
use std::process::ExitCode;

use anyhow::Result;

/// A command: how it is called, and what runs it.
struct Entry {
    name: &'static str,
    about: &'static str,
    run: fn(Vec<OsString>) -> Result<ExitCode>,
}

/// The commands in the order in which they are listed, in groups.
const COMMANDS: &[(&str, &[Entry])] = &[
    (
        "Run it",
        &[
            entry("up", "build and start the mesh, with demo data", |args| {
                up::run(&read(up::Up::from_vec(args)))
            }),
            entry("demo", "place an order and show what happened where", |args| {
                demo::run(&read(demo::Demo::from_vec(args)))
            }),
            entry("status", "which processes run, where, and whether they are ready", |args| {
                status::run(&read(status::Status::from_vec(args)))
            }),
            entry("logs", "what the processes said", |args| {
                logs::run(&read(logs::Logs::from_vec(args)))
            }),
            entry("restart", "drain one process and start it again", |args| {
                restart::restart(&read(restart::flags::Restart::from_vec(args)))
            }),
            entry("kill", "end one process in the middle of its work", |args| {
                restart::kill(&read(restart::kill_flags::Kill::from_vec(args)))
            }),
            entry(
                "ops",
                "meshctl: explain an order, look after sagas, events, dead letters",
                proof::ops,
            ),
            entry("down", "drain the mesh", |args| down::run(&read(down::Down::from_vec(args)))),
        ],
    ),
    (
        "Check it",
        &[
            entry("test", "every check and every test: what CI runs", |args| {
                test::run(&read(test::Test::from_vec(args)))
            }),
            entry("check", "the source, without running it", |args| {
                check::run(&read(check::Check::from_vec(args)))
            }),
            entry("tidy", "the project's own rules", |args| {
                tidy::run(&read(tidy::Tidy::from_vec(args)))
            }),
            entry("deps", "licences, bans, duplicates, advisories", |args| {
                deps::run(&read(deps::Deps::from_vec(args)))
            }),
            entry("proof", "load it, check its books, kill its processes", proof::run),
            entry("interop", "gRPC's own tests, both ways, and h2spec", |args| {
                interop::run(&read(interop::Interop::from_vec(args)))
            }),
            entry("bench", "figures, beside a floor of the same run", |args| {
                bench::run(&read(bench::Bench::from_vec(args)))
            }),
        ],
    ),
    (
        "This machine",
        &[
            entry("doctor", "what it has, what it lacks, what to do next", |args| {
                doctor::run(&read(doctor::Doctor::from_vec(args)))
            }),
            entry("tools", "fetch what is not Rust", |args| {
                tools::run(&read(tools::Tools::from_vec(args)))
            }),
        ],
    ),
];

const fn entry(
    name: &'static str,
    about: &'static str,
    run: fn(Vec<OsString>) -> Result<ExitCode>,
) -> Entry {
    Entry { name, about, run }
}

fn main() -> ExitCode {
    let mut args = std::env::args_os().skip(1);
    let Some(name) = args.next() else {
        print!("{}", overview());
        return ExitCode::SUCCESS;
    };
    let name = name.to_string_lossy().into_owned();
    let rest: Vec<OsString> = args.collect();
    let done = match name.as_str() {
        "help" | "--help" | "-h" if rest.is_empty() => {
            print!("{}", overview());
            return ExitCode::SUCCESS;
        }
        // `help up` is `up --help`.
        "help" => run(
            &rest.first().map(|it| it.to_string_lossy().into_owned()).unwrap_or_default(),
            vec!["--help".into()],
        ),
        // Started by `up --detach`, not by hand.
        "supervise" => up::supervise(Path::new(&rest.into_iter().next().unwrap_or_default())),
        name => run(name, rest),
    };
    done.unwrap_or_else(|error| {
        eprintln!("error: {error:#}");
        ExitCode::FAILURE
    })
}

fn run(name: &str, args: Vec<OsString>) -> Result<ExitCode> {
    match COMMANDS.iter().flat_map(|(_, entries)| *entries).find(|entry| entry.name == name) {
        Some(entry) => (entry.run)(args),
        None => {
            eprintln!("error: there is no command `{name}`\n\n{}", overview());
            Ok(ExitCode::from(2))
        }
    }
}

/// The flags, or their help, or what is wrong with them.
fn read<T>(flags: xflags::Result<T>) -> T {
    match flags {
        Ok(flags) => flags,
        Err(error) if error.is_help() => {
            println!("cargo xtask {}", error.to_string().trim_end());
            std::process::exit(0);
        }
        Err(error) => {
            eprintln!("error: {error}\nEvery flag is explained by --help.");
            std::process::exit(2);
        }
    }
}

fn overview() -> String {
    let mut text = String::from(
        "Ordermesh: every command of the project. `cargo xtask COMMAND --help` explains one.\n",
    );
    for (group, entries) in COMMANDS {
        text.push_str(&format!("\n{group}\n"));
        for entry in *entries {
            text.push_str(&format!("  {:<9} {}\n", entry.name, entry.about));
        }
    }
    text.push_str(
        "\nThe first two: `cargo xtask up` in one terminal, `cargo xtask demo` in another.\n",
    );
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_command_is_listed_once_with_one_line() {
        let text = overview();
        for entry in COMMANDS.iter().flat_map(|(_, entries)| *entries) {
            assert_eq!(
                text.matches(&format!("\n  {:<9} ", entry.name)).count(),
                1,
                "{}",
                entry.name
            );
        }
    }
}
