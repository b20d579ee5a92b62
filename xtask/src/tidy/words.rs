//! Rules about the words of any text file, and about Markdown.

use std::collections::BTreeSet;

use super::code::mentions;
use super::{Finding, Tree};

// Written in two parts, so that this file does not break its own rules.
const UNFINISHED: [&str; 4] =
    [concat!("TO", "DO"), concat!("FIX", "ME"), concat!("HA", "CK"), concat!("XX", "X")];
const HOMES: [&str; 4] =
    [concat!("/wo", "rk/"), concat!("/ro", "ot/"), concat!("/ho", "me/"), concat!("/Us", "ers/")];
const REGISTRIES: [&str; 6] = ["crates", "pypi", "pythonhosted", "npmjs", "maven", "debian"];

/// What is not finished is not on main.
pub(super) fn no_unfinished_marks(tree: &Tree) -> Vec<Finding> {
    let mut findings = Vec::new();
    for file in &tree.files {
        if is_lock(&file.path) {
            continue;
        }
        for (index, line) in file.text.lines().enumerate() {
            if let Some(mark) = UNFINISHED.iter().find(|mark| mentions(line, mark)) {
                findings.push(file.finding(
                    index + 1,
                    format!("`{mark}`, but what is on main is finished: do it, or open an issue"),
                ));
            }
            if file.path.ends_with(".rs") && line.trim() == concat!("#[ign", "ore]") {
                findings.push(file.finding(
                    index + 1,
                    "a test is left out without a reason: #[ignore = \"needs …\"]",
                ));
            }
        }
    }
    findings
}

/// A path or a mirror of the machine that this was written on means nothing elsewhere.
pub(super) fn no_machine(tree: &Tree) -> Vec<Finding> {
    let mut findings = Vec::new();
    for file in tree.files.iter().filter(|file| !is_lock(&file.path)) {
        for (index, line) in file.text.lines().enumerate() {
            let begins = |path: &&&str| {
                // Absolute: not the tail of a longer path or of an address.
                line.match_indices(**path).any(|(at, _)| {
                    line.get(..at).is_none_or(|it| {
                        !it.ends_with(|c: char| c.is_alphanumeric() || "./_-*~}$>".contains(c))
                    })
                })
            };
            if let Some(path) = HOMES.iter().find(begins) {
                findings.push(file.finding(
                    index + 1,
                    format!("a path of one machine (`{path}…`), but it does not exist on another"),
                ));
            }
            if let Some(host) = registry(line) {
                findings.push(file.finding(index + 1, format!("the host of a package registry (`{host}`), but which one is used is each machine's setting")));
            }
        }
    }
    findings
}

/// The host of an address in `line`, if it is a package registry.
fn registry(line: &str) -> Option<&str> {
    let hosts = line.split("//").skip(1).filter_map(|rest| {
        let end = rest.find(|c: char| !(c.is_ascii_alphanumeric() || c == '.' || c == '-'))?;
        rest.get(end..)?.starts_with('/').then(|| rest.get(..end)).flatten()
    });
    hosts.into_iter().find(|host| REGISTRIES.iter().any(|name| host.contains(name)))
}

/// A guide that points at what is gone is worse than none.
pub(super) fn paths_exist(tree: &Tree) -> Vec<Finding> {
    let tops: BTreeSet<&str> =
        tree.files.iter().filter_map(|it| it.path.split('/').next()).collect();
    let names: BTreeSet<&str> =
        tree.files.iter().filter_map(|it| it.path.rsplit('/').next()).collect();
    let mut findings = Vec::new();
    for file in tree.files.iter().filter(|it| it.path.ends_with(".md")) {
        let folder = file.path.rsplit_once('/').map_or("", |(folder, _)| folder);
        let mut fenced = false;
        for (index, line) in file.text.lines().enumerate() {
            fenced ^= line.trim_start().starts_with("```");
            for link in links(line) {
                if !tree.has(&join(folder, link)) {
                    findings.push(file.finding(
                        index + 1,
                        format!("links to `{link}`, but there is no such file"),
                    ));
                }
            }
            let words = if fenced { line.split_whitespace().collect() } else { spans(line) };
            for word in words.into_iter().flat_map(braces) {
                let word =
                    word.trim_end_matches(['/', ':', ',']).trim_start_matches("./").to_owned();
                let known = if word.contains('/') {
                    !looks_like_path(&word, &tops)
                        || tree.has(&word)
                        || tree.has(&join(folder, &word))
                } else {
                    fenced || !looks_like_file(&word) || names.contains(word.as_str())
                };
                if !known {
                    findings.push(
                        file.finding(
                            index + 1,
                            format!("names `{word}`, but there is no such file"),
                        ),
                    );
                }
            }
        }
    }
    findings
}

/// Whether a word with slashes means a path of this repository: its first part is there.
fn looks_like_path(word: &str, tops: &BTreeSet<&str>) -> bool {
    let plain = word.chars().all(|c| c.is_ascii_alphanumeric() || "._-/".contains(c));
    // `services/NAME` stands for any.
    let placeholder =
        word.split('/').any(|part| part.chars().all(|c| c.is_ascii_uppercase() || c == '_'));
    plain && !placeholder && word.split('/').next().is_some_and(|top| tops.contains(top))
}

/// Whether a word without slashes means a file of this repository.
fn looks_like_file(word: &str) -> bool {
    let plain = word.chars().all(|c| c.is_ascii_alphanumeric() || "._-".contains(c));
    let ending = [".rs", ".md", ".toml", ".proto", ".yaml", ".yml", ".sh"]
        .iter()
        .any(|it| word.ends_with(it));
    plain && ending && !word.starts_with('.')
}

/// The words in `backticks`.
fn spans(line: &str) -> Vec<&str> {
    line.split('`').skip(1).step_by(2).collect()
}

/// Targets of `[text](target)` that are files.
fn links(line: &str) -> Vec<&str> {
    let targets = line.split("](").skip(1).filter_map(|rest| rest.split(')').next());
    let targets = targets.map(|target| target.split('#').next().unwrap_or_default());
    targets
        .filter(|target| {
            !target.is_empty() && !target.contains("://") && !target.starts_with("mailto:")
        })
        .collect()
}

/// `a/{b,c}` as `a/b` and `a/c`.
fn braces(word: &str) -> Vec<String> {
    let Some((before, rest)) = word.split_once('{') else { return vec![word.to_owned()] };
    let Some((inside, after)) = rest.split_once('}') else { return vec![word.to_owned()] };
    inside.split(',').flat_map(|part| braces(&format!("{before}{part}{after}"))).collect()
}

/// `path` as seen from `folder`, with its `..` taken away.
fn join(folder: &str, path: &str) -> String {
    let mut parts: Vec<&str> = folder.split('/').filter(|it| !it.is_empty()).collect();
    for part in path.split('/') {
        match part {
            "" | "." => {}
            ".." => drop(parts.pop()),
            part => parts.push(part),
        }
    }
    parts.join("/")
}

fn is_lock(path: &str) -> bool {
    path.ends_with("Cargo.lock") || path.ends_with("go.sum") || path.ends_with("package-lock.json")
}

#[cfg(test)]
mod tests {
    use super::super::found;
    use super::*;

    #[test]
    fn unfinished_marks_are_found_everywhere_but_in_lock_files() {
        let text = format!("fine\n# {}: later\n", UNFINISHED[0]);
        assert_eq!(found(no_unfinished_marks, "k8s/a.yaml", &text)[0].0, 2);
        assert!(found(no_unfinished_marks, "Cargo.lock", &text).is_empty());
        let test = format!("{}\n#[ignore = \"needs postgres\"]\n", concat!("#[ign", "ore]"));
        assert_eq!(found(no_unfinished_marks, "mesh/src/a.rs", &test).len(), 1);
    }

    #[test]
    fn paths_and_mirrors_of_one_machine_are_found() {
        let text = format!(
            "cd {}main\nsee docs{}a\nhttps://{}/x\nhttps://docs.rs/tonic\n",
            HOMES[0],
            HOMES[0],
            concat!("static.cra", "tes.io")
        );
        let lines: Vec<usize> =
            found(no_machine, "README.md", &text).into_iter().map(|it| it.0).collect();
        assert_eq!(lines, [1, 3]);
    }

    #[test]
    fn a_path_that_is_gone_is_found_in_links_code_and_fences() {
        let readme = "[a](gone.md) [b](ARCHITECTURE.md#x) `mesh/src/gone.rs` `mesh/src/{app,lost}.rs` `other/thing` `mesh/NAME`\n\
                      `gone.proto` `app.rs` `/v1/orders`\n```sh\ncat mesh/src/nope.rs\ncurl http://127.0.0.1/v1/mesh\n```\n";
        let tree =
            Tree::of(&[("README.md", readme), ("ARCHITECTURE.md", ""), ("mesh/src/app.rs", "")]);
        let found: Vec<String> =
            paths_exist(&tree).into_iter().map(|it| format!("{} {}", it.line, it.what)).collect();
        let named: Vec<&str> = found.iter().filter_map(|it| it.split('`').nth(1)).collect();
        assert_eq!(
            named,
            ["gone.md", "mesh/src/gone.rs", "mesh/src/lost.rs", "gone.proto", "mesh/src/nope.rs"]
        );
    }

    #[test]
    fn a_link_is_seen_from_the_folder_of_its_file() {
        let tree = Tree::of(&[
            ("k8s/README.md", "[up](../mesh/src/app.rs) [here](base)\n"),
            ("mesh/src/app.rs", ""),
            ("k8s/base/a", ""),
        ]);
        assert!(paths_exist(&tree).is_empty());
    }
}
