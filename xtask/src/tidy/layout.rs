//! Rules about files, folders and manifests.

use super::{File, Finding, Tree};

/// A file longer than this is hard to hold in mind; then it becomes a folder of the same name.
const LINES_MAX: usize = 400;

/// `main.rs` is the list of what runs.
const MAIN_LINES_MAX: usize = 40;

/// `proto` and `mesh` depend on nothing of ours, processes on those two, xtask on nothing.
pub(super) fn dependencies(tree: &Tree) -> Vec<Finding> {
    let mut findings = Vec::new();
    for member in &tree.members {
        let Some(manifest) =
            tree.files.iter().find(|it| it.path == format!("{}/Cargo.toml", member.folder))
        else {
            continue;
        };
        for (used, dev) in &member.uses {
            if let Some(why) = refused(&member.name, &member.folder, used, *dev) {
                let line = line_of(manifest, used);
                findings.push(
                    manifest
                        .finding(line, format!("`{}` depends on `{used}`, but {why}", member.name)),
                );
            }
        }
    }
    findings
}

fn refused(name: &str, folder: &str, used: &str, dev: bool) -> Option<&'static str> {
    let base = matches!(used, "proto" | "mesh");
    // A crate may switch its own features on for its tests.
    if dev && name == used {
        return None;
    }
    match folder {
        "proto" => Some("the contract depends on nothing of ours"),
        "mesh" => Some("mesh is linked by strangers: it depends on nothing of ours"),
        "xtask" => Some("xtask must build in seconds and without the project"),
        _ if base => None,
        "gateway" | "proof" if dev => None,
        folder if folder.starts_with("services/") => Some("services meet over the network only"),
        _ => Some("a process depends on `proto` and `mesh` alone"),
    }
}

/// Versions, lints and the package's own facts are written once, in the root.
pub(super) fn manifests(tree: &Tree) -> Vec<Finding> {
    let mut findings = Vec::new();
    for file in tree.files.iter().filter(|it| it.path.ends_with("/Cargo.toml")) {
        let mut section = "";
        let (mut lints, mut open) = (false, 0_usize);
        for (index, line) in file.text.lines().enumerate() {
            let inside = open > 0;
            let line = line.split('#').next().unwrap_or_default().trim();
            open = (open + line.matches(['[', '{']).count())
                .saturating_sub(line.matches([']', '}']).count());
            if inside || line.is_empty() {
                continue;
            }
            if line.starts_with('[') && line.ends_with(']') {
                section = line.trim_matches(['[', ']']);
                continue;
            }
            let workspace =
                line.contains("workspace = true") || line.ends_with(".workspace = true");
            lints |= section == "lints" && workspace;
            let key = line.split(['=', '.', ' ']).next().unwrap_or_default();
            let shared = ["version", "edition", "rust-version", "license", "publish"];
            if section == "package" && shared.contains(&key) && !workspace {
                findings.push(file.finding(
                    index + 1,
                    format!(
                        "`{key}` has its own value, but crates share one: {key}.workspace = true"
                    ),
                ));
            }
            if section.ends_with("dependencies") && !workspace {
                findings.push(file.finding(index + 1, format!("`{key}` has its own version, but every version stands in the root Cargo.toml: {key}.workspace = true")));
            }
        }
        if !lints {
            findings.push(file.finding(
                1,
                "no `[lints] workspace = true`, but the lints of the workspace hold everywhere",
            ));
        }
    }
    findings
}

/// A service is learned once: the same files in the same order, everywhere.
pub(super) fn service_files(tree: &Tree) -> Vec<Finding> {
    let mut findings = Vec::new();
    for service in tree.services() {
        let folder = format!("services/{service}");
        for name in [
            "main.rs",
            "lib.rs",
            "config.rs",
            "grpc.rs",
            "domain.rs",
            "store.rs",
            "events.rs",
            "error.rs",
        ] {
            let path = format!("{folder}/src/{name}");
            if !tree.has(&path) {
                findings.push(Finding {
                    path,
                    line: 1,
                    what: "missing, but every service has the same files".into(),
                });
            }
        }
        if !["src/migrations.rs", "src/migrations"]
            .iter()
            .any(|it| tree.has(&format!("{folder}/{it}")))
        {
            let path = format!("{folder}/src/migrations");
            findings.push(Finding {
                path,
                line: 1,
                what: "missing, but every service owns its tables".into(),
            });
        }
    }
    findings
}

/// Without their tests, files stay under 400 lines and `main.rs` under 40.
pub(super) fn lengths(tree: &Tree) -> Vec<Finding> {
    let mut findings = Vec::new();
    for (file, code) in tree.sources() {
        let lines = code.lines().count();
        // xtask's main.rs is a table of commands, not the start of a service.
        let service = file.path.starts_with("services/") || file.path.starts_with("gateway/");
        let max =
            if service && file.path.ends_with("/main.rs") { MAIN_LINES_MAX } else { LINES_MAX };
        if lines > max {
            findings.push(file.finding(lines, format!("{lines} lines without tests, but {max} are the limit: give it a folder of the same name")));
        }
    }
    findings
}

/// A crate is a deployable, a contract or a tool, never a folder of convenience.
pub(super) fn folders(tree: &Tree) -> Vec<Finding> {
    let named = |file: &&File| {
        let mut folders = file.path.split('/').rev().skip(1);
        folders.any(|it| matches!(it, "crates" | "common" | "utils" | "util" | "helpers"))
    };
    let files = tree.files.iter().filter(named);
    files
        .map(|file| {
            file.finding(1, "lies in a folder of convenience, but code lives where it belongs")
        })
        .collect()
}

/// The line of a manifest that names a dependency.
fn line_of(manifest: &File, name: &str) -> usize {
    let names =
        |line: &str| line.strip_prefix(name).is_some_and(|rest| rest.starts_with(['.', ' ', '=']));
    manifest.text.lines().position(names).map_or(1, |index| index + 1)
}

#[cfg(test)]
mod tests {
    use super::super::{Member, found};
    use super::*;

    #[test]
    fn dependencies_point_one_way() {
        for (folder, used, dev, good) in [
            ("proto", "mesh", false, false),
            ("mesh", "mesh", true, true),
            ("mesh", "proto", false, false),
            ("services/orders", "mesh", false, true),
            ("services/orders", "users", true, false),
            ("gateway", "orders", true, true),
            ("gateway", "orders", false, false),
            ("proof", "orders", true, true),
            ("xtask", "proto", false, false),
            ("meshctl", "users", false, false),
        ] {
            let name = folder.rsplit('/').next().unwrap();
            assert_eq!(refused(name, folder, used, dev).is_none(), good, "{folder} on {used}");
        }
    }

    #[test]
    fn a_wrong_dependency_is_found_at_its_line() {
        let mut tree =
            Tree::of(&[("services/orders/Cargo.toml", "[dependencies]\nusers.workspace = true\n")]);
        let uses = vec![("users".to_owned(), false)];
        tree.members =
            vec![Member { name: "orders".into(), folder: "services/orders".into(), uses }];
        let findings = dependencies(&tree);
        assert_eq!(findings[0].line, 2);
        assert!(findings[0].what.contains("services meet over the network only"));
    }

    #[test]
    fn versions_and_lints_of_its_own_are_found() {
        let good = "[package]\nname = \"x\"\nversion.workspace = true\n[features]\na = [\n  \"b\",\n]\n[dependencies]\n\
                    mesh = { workspace = true, features = [\n  \"testing\",\n] }\n[lints]\nworkspace = true\n";
        assert_eq!(found(manifests, "x/Cargo.toml", good), []);
        let bad = "[package]\nedition = \"2021\"\n[dev-dependencies]\ntokio = \"1\"\n";
        let lines: Vec<usize> =
            found(manifests, "x/Cargo.toml", bad).into_iter().map(|it| it.0).collect();
        assert_eq!(lines, [2, 4, 1]);
    }

    #[test]
    fn a_missing_file_of_a_service_is_found() {
        let paths: Vec<String> = service_files(&Tree::of(&[("services/orders/src/lib.rs", "")]))
            .into_iter()
            .map(|it| it.path)
            .collect();
        assert!(paths.contains(&"services/orders/src/grpc.rs".to_owned()));
        assert!(!paths.contains(&"services/orders/src/lib.rs".to_owned()));
    }

    #[test]
    fn length_is_counted_without_tests() {
        let long = "\n".repeat(401);
        assert_eq!(found(lengths, "mesh/src/a.rs", &long).len(), 1);
        assert_eq!(found(lengths, "mesh/src/a/tests.rs", &long).len(), 0);
        let tested = format!("fn f() {{}}\n#[cfg(test)]\nmod tests {{{long}}}\n");
        assert_eq!(found(lengths, "mesh/src/a.rs", &tested).len(), 0);
        assert_eq!(found(lengths, "services/orders/src/main.rs", &"\n".repeat(41)).len(), 1);
    }

    #[test]
    fn a_folder_of_convenience_is_found() {
        assert_eq!(found(folders, "services/orders/src/utils/a.rs", "").len(), 1);
        assert_eq!(found(folders, "services/orders/src/store/utils.rs", "").len(), 0);
    }
}
