//! Reads `deny.toml`: the lists of licences, bans and allowed duplicates that `deps` and tidy go by.
//!
//! It understands what that file uses, and no more of TOML: strings, arrays of strings, and arrays
//! of `{ crate = "…", reason = "…" }`. cargo-deny reads the same file in full.

use std::fs;
use std::path::Path;

use anyhow::{Context, Result};

/// What `deny.toml` says.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Deny {
    /// Licences that may be used.
    pub(crate) licences: Vec<String>,
    /// Crates that may use a licence beyond those, each with it.
    pub(crate) exceptions: Vec<(String, String)>,
    /// Crates that must not be in the graph, and why.
    pub(crate) banned: Vec<(String, String)>,
    /// Features that must not be switched on: crate, feature, why.
    pub(crate) features: Vec<(String, String, String)>,
    /// Crates that may be there in several versions, and why.
    pub(crate) duplicates: Vec<(String, String)>,
}

// === impl Deny ===

impl Deny {
    pub(crate) fn read(root: &Path) -> Result<Self> {
        let text = fs::read_to_string(root.join("deny.toml")).context("cannot read deny.toml")?;
        Ok(Self::parse(&text))
    }

    fn parse(text: &str) -> Self {
        let mut deny = Self::default();
        let (mut section, mut key) = (String::new(), String::new());
        for line in text.lines().map(bare).filter(|line| !line.is_empty()) {
            if let Some(name) = line.strip_prefix('[').and_then(|it| it.strip_suffix(']'))
                && !line.contains('"')
            {
                section = name.trim_matches(['[', ']']).to_owned();
                key.clear();
                if section == "bans.features" {
                    deny.features.push(Default::default());
                }
                continue;
            }
            if let Some((name, _)) = line.split_once('=')
                && name.trim().chars().all(|c| c.is_ascii_alphanumeric() || c == '-')
            {
                key = name.trim().to_owned();
            }
            deny.take(&section, &key, &line);
        }
        deny
    }

    fn take(&mut self, section: &str, key: &str, line: &str) {
        let reason = field(line, "reason").unwrap_or_default();
        match (section, key) {
            ("licenses", "allow") => self.licences.extend(strings(line)),
            ("licenses", "exceptions") => {
                if let Some(name) = field(line, "crate") {
                    let licences =
                        line.split_once("allow").map(|(_, rest)| strings(rest)).unwrap_or_default();
                    self.exceptions
                        .extend(licences.into_iter().map(|licence| (name.clone(), licence)));
                }
            }
            ("bans", "deny") => self.banned.extend(field(line, "crate").map(|name| (name, reason))),
            ("bans", "skip") => {
                self.duplicates.extend(field(line, "crate").map(|name| (name, reason)))
            }
            ("bans.features", _) => {
                let Some(last) = self.features.last_mut() else { return };
                let first = strings(line).into_iter().next().unwrap_or_default();
                match key {
                    "crate" => last.0 = first,
                    "deny" => last.1 = strings(line).join(" "),
                    "reason" => last.2 = first,
                    _ => {}
                }
            }
            _ => {}
        }
    }
}

/// A line without its comment.
fn bare(line: &str) -> String {
    let mut quoted = false;
    let end = line.char_indices().find(|(_, c)| {
        quoted ^= *c == '"';
        *c == '#' && !quoted
    });
    line.get(..end.map_or(line.len(), |(at, _)| at)).unwrap_or(line).trim().to_owned()
}

/// Every string of a line.
fn strings(line: &str) -> Vec<String> {
    line.split('"').skip(1).step_by(2).map(str::to_owned).collect()
}

/// The string behind `name =` in an inline table.
fn field(line: &str, name: &str) -> Option<String> {
    let (_, rest) = line.split_once(&format!("{name} = \""))?;
    Some(rest.split_once('"')?.0.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_lists_are_read_and_comments_are_not() {
        let deny = Deny::parse(
            r#"
            [licenses]
            allow = [
                "MIT", # short
                "Apache-2.0",
            ]
            exceptions = [{ crate = "ring", allow = ["OpenSSL", "ISC"] }]
            [bans]
            deny = [
                # { crate = "commented", reason = "out" },
                { crate = "openssl", reason = "rustls, #1" },
            ]
            skip = [
                { crate = "syn", reason = "two macros" },
            ]
            [[bans.features]]
            crate = "tonic"
            deny = ["transport", "channel"]
            reason = "hyper"
            "#,
        );
        assert_eq!(deny.licences, ["MIT", "Apache-2.0"]);
        assert_eq!(
            deny.exceptions,
            [("ring".into(), "OpenSSL".into()), ("ring".into(), "ISC".into())]
        );
        assert_eq!(deny.banned, [("openssl".to_owned(), "rustls, #1".to_owned())]);
        assert_eq!(deny.duplicates, [("syn".to_owned(), "two macros".to_owned())]);
        assert_eq!(
            deny.features,
            [("tonic".to_owned(), "transport channel".to_owned(), "hyper".to_owned())]
        );
    }
}
