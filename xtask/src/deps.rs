//! `cargo xtask deps`: licences, bans and duplicates of everything that is linked, by `deny.toml`.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::process::{Command, ExitCode, Stdio};

use anyhow::{Context, Result, ensure};

use crate::cargo::cargo;
use crate::deny::Deny;
use crate::report::Tally;
use crate::{os, say, site};

xflags::xflags! {
    /// Checks every crate that is linked: its licence, the bans, versions that are there twice, advisories.
    ///
    /// The lists are in deny.toml, each entry with its reason. Licences, bans and duplicates come from cargo
    /// tree; advisories need cargo-deny and its database, and where those are missing it says so.
    ///
    ///   cargo xtask deps
    ///   cargo tree --invert syn        who brings a crate in
    cmd deps {
        /// Print {"passed","failed","skipped"} as JSON on stdout.
        optional --json
    }
}

pub(crate) fn run(flags: &Deps) -> Result<ExitCode> {
    let root = site::root()?;
    let mut tally = Tally::default();
    tally.stage("licences, bans, duplicates", || self::tally(&root));
    tally.stage("advisories", || advisories(&root));
    Ok(tally.end(flags.json))
}

/// Licences, bans, features and duplicates: four checks.
pub(crate) fn tally(root: &Path) -> Tally {
    let found = Deny::read(root).and_then(|deny| {
        let packages = packages(root)?;
        let features = switched_on(root)?;
        Ok([
            licences(&packages, &deny),
            bans(&packages, &deny),
            banned_features(&features, &deny),
            duplicates(&packages, &deny),
        ])
    });
    let mut tally = Tally::default();
    match found {
        Ok(found) => {
            for problems in found {
                for problem in &problems {
                    say::note(&format!("deny.toml: {problem}"));
                }
                tally.add(Tally::one(problems.is_empty()));
            }
        }
        Err(error) => {
            say::note(&format!("{error:#}"));
            tally.add(Tally::one(false));
        }
    }
    tally
}

/// A crate from outside.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Package {
    name: String,
    version: String,
    licence: String,
}

/// Everything that is built on this machine, for the product, its build and its tests. cargo's
/// metadata would also list what is only optional.
fn packages(root: &Path) -> Result<Vec<Package>> {
    let text = tree(root, &["--format", "{p}|{l}"])?;
    let found: BTreeSet<Package> = text.lines().filter_map(package).collect();
    Ok(found.into_iter().collect())
}

/// A line like `syn v2.0.1 (proc-macro)|MIT OR Apache-2.0 (*)`; ours have a path and are left out.
fn package(line: &str) -> Option<Package> {
    let (package, licence) = line.split_once('|')?;
    let mut words = package.split_whitespace();
    let (name, version) = (words.next()?, words.next()?.strip_prefix('v')?);
    if words.any(|word| word.starts_with("(/")) {
        return None;
    }
    let licence = licence.trim_end_matches("(*)").trim();
    Some(Package {
        name: name.to_owned(),
        version: version.to_owned(),
        licence: licence.to_owned(),
    })
}

/// What `cargo tree` says about the whole workspace, without its drawing.
fn tree(root: &Path, arguments: &[&str]) -> Result<String> {
    let mut command = cargo(root);
    command.args(["tree", "--workspace", "--locked", "--prefix", "none"]).args(arguments);
    let output = command.stderr(Stdio::inherit()).output().context("cannot run cargo tree")?;
    ensure!(output.status.success(), "cargo tree failed; it said why above");
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

fn licences(packages: &[Package], deny: &Deny) -> Vec<String> {
    let mut problems = Vec::new();
    for package in packages {
        let allowed = |licence: &str| {
            deny.licences.iter().any(|it| it == licence)
                || deny.exceptions.iter().any(|(name, it)| *name == package.name && it == licence)
        };
        if !satisfied(&package.licence, &allowed) {
            let licence = if package.licence.is_empty() { "no licence" } else { &package.licence };
            problems.push(format!(
                "{} {} has `{licence}`, which the list of licences does not allow: choose another crate, or add it with a reason",
                package.name, package.version
            ));
        }
    }
    problems
}

/// Whether an SPDX expression can be met with allowed licences. `OR` binds weakest, `WITH` strongest.
fn satisfied(expression: &str, allowed: &dyn Fn(&str) -> bool) -> bool {
    let spaced = expression.replace('(', " ( ").replace(')', " ) ").replace('/', " OR ");
    let words: Vec<&str> = spaced.split_whitespace().collect();
    let mut at = 0;
    either(&words, &mut at, allowed) && at == words.len()
}

fn either(words: &[&str], at: &mut usize, allowed: &dyn Fn(&str) -> bool) -> bool {
    let mut good = both(words, at, allowed);
    while words.get(*at) == Some(&"OR") {
        *at += 1;
        good |= both(words, at, allowed);
    }
    good
}

fn both(words: &[&str], at: &mut usize, allowed: &dyn Fn(&str) -> bool) -> bool {
    let mut good = single(words, at, allowed);
    while words.get(*at) == Some(&"AND") {
        *at += 1;
        good &= single(words, at, allowed);
    }
    good
}

fn single(words: &[&str], at: &mut usize, allowed: &dyn Fn(&str) -> bool) -> bool {
    let Some(word) = words.get(*at) else { return false };
    *at += 1;
    if *word == "(" {
        let good = either(words, at, allowed);
        *at += 1;
        return good;
    }
    if words.get(*at) == Some(&"WITH") {
        let exception = words.get(*at + 1).copied().unwrap_or_default();
        *at += 2;
        return allowed(&format!("{word} WITH {exception}")) || allowed(word);
    }
    allowed(word)
}

fn bans(packages: &[Package], deny: &Deny) -> Vec<String> {
    let mut problems = Vec::new();
    for (name, reason) in &deny.banned {
        if packages.iter().any(|it| it.name == *name) {
            problems.push(format!(
                "`{name}` is linked, but {reason}. Who brings it in: cargo tree --invert {name}"
            ));
        }
    }
    problems
}

/// `crate feature "name"` for everything that is switched on.
fn switched_on(root: &Path) -> Result<BTreeSet<(String, String)>> {
    Ok(tree(root, &["--edges", "features"])?.lines().filter_map(feature).collect())
}

fn feature(line: &str) -> Option<(String, String)> {
    let (name, rest) = line.split_once(" feature \"")?;
    Some((name.to_owned(), rest.split_once('"')?.0.to_owned()))
}

fn banned_features(on: &BTreeSet<(String, String)>, deny: &Deny) -> Vec<String> {
    let mut problems = Vec::new();
    for (name, features, reason) in &deny.features {
        for feature in features.split_whitespace() {
            if on.contains(&(name.clone(), feature.to_owned())) {
                problems.push(format!(
                    "feature `{feature}` of `{name}` is on, but {reason}. Who wants it: cargo tree --workspace --edges features --invert {name}"
                ));
            }
        }
    }
    problems
}

fn duplicates(packages: &[Package], deny: &Deny) -> Vec<String> {
    let mut versions: BTreeMap<&str, BTreeSet<&str>> = BTreeMap::new();
    for package in packages {
        versions.entry(&package.name).or_default().insert(&package.version);
    }
    versions.retain(|_, versions| versions.len() > 1);
    let mut problems = Vec::new();
    for (name, versions) in &versions {
        if !deny.duplicates.iter().any(|(it, reason)| it == name && !reason.is_empty()) {
            let list = versions.iter().copied().collect::<Vec<_>>().join(" and ");
            problems.push(format!(
                "`{name}` is linked as {list}: align them, or list it under skip with the reason"
            ));
        }
    }
    for (name, _) in &deny.duplicates {
        if !versions.contains_key(name.as_str()) {
            problems
                .push(format!("`{name}` is not there twice any more: take it off the skip list"));
        }
    }
    problems
}

fn advisories(root: &Path) -> Tally {
    if os::program("cargo-deny", &[]).is_none() {
        return Tally::left_out(
            "advisories: cargo-deny is not installed. Get it: `cargo install --locked cargo-deny`"
                .into(),
        );
    }
    let status = Command::new("cargo")
        .args(["deny", "check", "advisories"])
        .current_dir(root)
        .stdout(Stdio::from(std::io::stderr()))
        .status();
    Tally::one(status.is_ok_and(|status| status.success()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn package(name: &str, version: &str, licence: &str) -> Package {
        Package { name: name.into(), version: version.into(), licence: licence.into() }
    }

    #[test]
    fn licence_expressions_are_met_by_allowed_licences_only() {
        let allowed = |licence: &str| matches!(licence, "MIT" | "Apache-2.0" | "Unicode-3.0");
        for (expression, good) in [
            ("MIT", true),
            ("GPL-3.0", false),
            ("GPL-3.0 OR MIT", true),
            ("MIT AND GPL-3.0", false),
            ("(MIT OR Apache-2.0) AND Unicode-3.0", true),
            ("MIT/Apache-2.0", true),
            ("Apache-2.0 WITH LLVM-exception OR GPL-2.0", true),
            ("", false),
            ("MIT OR", true),
        ] {
            assert_eq!(satisfied(expression, &allowed), good, "{expression}");
        }
    }

    #[test]
    fn lines_of_cargo_tree_become_packages_and_ours_are_left_out() {
        let syn = Some(package("syn", "2.0.1", "MIT OR Apache-2.0"));
        assert_eq!(super::package("syn v2.0.1 (proc-macro)|MIT OR Apache-2.0 (*)"), syn);
        assert_eq!(super::package("orders v0.1.0 (/somewhere/orders)|Apache-2.0"), None);
    }

    #[test]
    fn a_crate_without_an_allowed_licence_is_named_unless_it_is_an_exception() {
        let deny = Deny {
            licences: vec!["MIT".into()],
            exceptions: vec![("b".into(), "ISC".into())],
            ..Deny::default()
        };
        let problems = licences(&[package("a", "1", "ISC"), package("b", "1", "ISC")], &deny);
        assert_eq!(problems.len(), 1);
        assert!(problems[0].starts_with("a 1 has `ISC`"), "{}", problems[0]);
    }

    #[test]
    fn a_banned_crate_and_a_banned_feature_are_named_with_the_reason() {
        let deny = Deny {
            banned: vec![("openssl".into(), "TLS is rustls".into())],
            features: vec![(
                "tonic".into(),
                "transport channel".into(),
                "calls go over hyper".into(),
            )],
            ..Deny::default()
        };
        assert!(bans(&[package("openssl", "1", "MIT")], &deny)[0].contains("but TLS is rustls"));
        let on = ["tonic feature \"channel\"", "tonic v0.14.0", "hyper feature \"transport\""];
        let on = on.iter().filter_map(|line| feature(line)).collect();
        assert_eq!(banned_features(&on, &deny).len(), 1);
    }

    #[test]
    fn duplicates_need_a_reason_and_lose_it_when_they_are_gone() {
        let deny = Deny { duplicates: vec![("gone".into(), "once".into())], ..Deny::default() };
        let problems = duplicates(&[package("a", "1", ""), package("a", "2", "")], &deny);
        assert!(problems[0].contains("`a` is linked as 1 and 2"), "{}", problems[0]);
        assert!(problems[1].contains("`gone` is not there twice"), "{}", problems[1]);
    }
}
