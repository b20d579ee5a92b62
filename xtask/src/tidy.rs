//! `cargo xtask tidy`: the rules of the project that can be read off its text. A rule that is not
//! checked rots, so each one that ARCHITECTURE.md states stands here, or in a lint, or in a test.

mod code;
mod layout;
mod source;
mod words;

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::process::{Command, ExitCode, Stdio};

use anyhow::{Context, Result, ensure};

use crate::cargo::metadata;
use crate::report::Tally;
use crate::{say, site};

use code::Code;

xflags::xflags! {
    /// Checks the rules that can be read off the text: who may depend on whom, what a file may mention.
    ///
    /// It reads the files that git knows or would add, reports everything it finds as `file:line: what,
    /// but why`, and then fails. Each rule has a test with a bad sample beside it, in xtask/src/tidy.
    ///
    ///   cargo xtask tidy
    ///   cargo xtask tidy --json        {"passed","failed","skipped"}, counted in rules
    cmd tidy {
        /// Print the three numbers as JSON on stdout; findings go to stderr.
        optional --json
    }
}

/// Everything that the rules look at.
#[derive(Debug, Default)]
pub(crate) struct Tree {
    /// Text files, by path from the root.
    files: Vec<File>,
    /// The crates of the workspace.
    members: Vec<Member>,
}

#[derive(Debug)]
struct File {
    path: String,
    text: String,
    /// Of a Rust file: what the compiler sees.
    code: Option<Code>,
}

/// A crate of the workspace and what it depends on within it.
#[derive(Debug)]
struct Member {
    name: String,
    /// Its folder, from the root.
    folder: String,
    /// Names of our crates, with whether tests alone need them.
    uses: Vec<(String, bool)>,
}

/// Something that breaks a rule.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Finding {
    path: String,
    line: usize,
    what: String,
}

/// A rule: looks at everything, reports what breaks it.
type Rule = fn(&Tree) -> Vec<Finding>;

const RULES: &[(&str, Rule)] = &[
    ("who may depend on whom", layout::dependencies),
    ("every crate uses the workspace's lints and versions", layout::manifests),
    ("the nine files of a service", layout::service_files),
    ("files stay short", layout::lengths),
    ("no folders of convenience", layout::folders),
    ("the domain is pure", source::domain_is_pure),
    ("only the store knows there is a database", source::database_stays_in_the_store),
    ("a failing status is made in one place", source::statuses_are_made_in_one_place),
    ("calls leave through mesh", source::calls_leave_through_mesh),
    ("tasks start through mesh", source::tasks_start_through_mesh),
    ("values are bound into SQL", source::sql_is_bound),
    ("money is not a float", source::no_floats),
    ("the mesh knows no service", source::mesh_knows_no_service),
    ("the gateway knows no service", source::gateway_knows_no_service),
    ("no unfinished marks", words::no_unfinished_marks),
    ("nothing of one machine", words::no_machine),
    ("paths in Markdown exist", words::paths_exist),
];

pub(crate) fn run(flags: &Tidy) -> Result<ExitCode> {
    Ok(tally(&site::root()?).end(flags.json))
}

/// Runs every rule, says everything that was found, counts rules.
pub(crate) fn tally(root: &Path) -> Tally {
    let tree = match Tree::read(root) {
        Ok(tree) => tree,
        Err(error) => {
            say::note(&format!("{error:#}"));
            return Tally::one(false);
        }
    };
    let mut tally = Tally::default();
    for (name, rule) in RULES {
        let mut findings = rule(&tree);
        findings.sort();
        findings.dedup();
        if !findings.is_empty() {
            say::note(&format!("{name}:"));
        }
        for finding in &findings {
            say::note(&format!("  {}:{}: {}", finding.path, finding.line, finding.what));
        }
        tally.add(Tally::one(findings.is_empty()));
    }
    tally
}

// === impl Tree ===

impl Tree {
    fn read(root: &Path) -> Result<Self> {
        let list = ["ls-files", "-z", "--cached", "--others", "--exclude-standard"];
        let output =
            Command::new("git").args(list).current_dir(root).stderr(Stdio::inherit()).output();
        let output = output.context("cannot run git, which knows the files of the project")?;
        ensure!(
            output.status.success(),
            "tidy needs the git repository: `git status` says what is wrong"
        );
        let names = String::from_utf8_lossy(&output.stdout).into_owned();
        let mut tree = Self::default();
        // A set: a file under conflict is listed more than once.
        for name in names.split('\0').filter(|name| !name.is_empty()).collect::<BTreeSet<_>>() {
            // Deleted but not yet committed, or not text: nothing to read.
            let Ok(text) = fs::read_to_string(root.join(name)) else { continue };
            tree.files.push(File::new(name, text));
        }
        let metadata = metadata(root)?;
        let root = root.canonicalize()?.display().to_string();
        let packages = metadata["packages"].as_array().cloned().unwrap_or_default();
        for package in &packages {
            let manifest = package["manifest_path"].as_str().unwrap_or_default();
            let folder = manifest
                .trim_start_matches(&root)
                .trim_start_matches('/')
                .trim_end_matches("/Cargo.toml");
            let uses = package["dependencies"].as_array().into_iter().flatten();
            let uses = uses.filter(|it| it["path"].is_string()).map(|it| {
                (
                    it["name"].as_str().unwrap_or_default().to_owned(),
                    it["kind"].as_str() == Some("dev"),
                )
            });
            tree.members.push(Member {
                name: package["name"].as_str().unwrap_or_default().to_owned(),
                folder: folder.to_owned(),
                uses: uses.collect(),
            });
        }
        Ok(tree)
    }

    /// Rust files, except those that hold tests alone.
    fn sources(&self) -> impl Iterator<Item = (&File, &Code)> {
        let real = |file: &&File| !is_test(&file.path);
        self.files
            .iter()
            .filter(real)
            .filter_map(|file| file.code.as_ref().map(|code| (file, code)))
    }

    /// The names of the services: the crates under `services/`.
    fn services(&self) -> Vec<&str> {
        self.members
            .iter()
            .filter(|it| it.folder.starts_with("services/"))
            .map(|it| it.name.as_str())
            .collect()
    }

    fn has(&self, path: &str) -> bool {
        let folder = format!("{}/", path.trim_end_matches('/'));
        self.files.iter().any(|file| file.path == path || file.path.starts_with(&folder))
    }
}

// === impl File ===

impl File {
    fn new(path: &str, text: String) -> Self {
        let code = path.ends_with(".rs").then(|| Code::of(&text));
        Self { path: path.to_owned(), text, code }
    }

    fn finding(&self, line: usize, what: impl Into<String>) -> Finding {
        Finding { path: self.path.clone(), line, what: what.into() }
    }
}

/// Whether a Rust file is compiled for tests alone.
fn is_test(path: &str) -> bool {
    path.ends_with("/tests.rs")
        || ["/tests/", "/benches/", "/examples/"].iter().any(|it| path.contains(it))
}

#[cfg(test)]
impl Tree {
    /// A tree of these files, with a service called `orders`.
    fn of(files: &[(&str, &str)]) -> Self {
        let member = |name: &str, folder: &str| Member {
            name: name.into(),
            folder: folder.into(),
            uses: Vec::new(),
        };
        Self {
            files: files.iter().map(|(path, text)| File::new(path, (*text).to_owned())).collect(),
            members: vec![member("orders", "services/orders"), member("gateway", "gateway")],
        }
    }
}

/// What a rule says about one file with this text: lines and words.
#[cfg(test)]
fn found(rule: Rule, path: &str, text: &str) -> Vec<(usize, String)> {
    rule(&Tree::of(&[(path, text)])).into_iter().map(|it| (it.line, it.what)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_repository_is_tidy_enough_to_be_read() {
        let tree = Tree::read(&site::root().unwrap()).unwrap();
        assert!(tree.has("xtask/src/tidy.rs") && tree.has("xtask"));
        assert!(tree.services().contains(&"orders"));
        assert_eq!(
            tree.members.iter().find(|it| it.name == "orders").unwrap().folder,
            "services/orders"
        );
    }
}
