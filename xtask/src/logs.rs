//! `cargo xtask logs`: what the processes said, as one log.

use std::fs::File;
use std::io::{BufRead, BufReader, Read, Seek, SeekFrom};
use std::process::ExitCode;

use anyhow::{Context, Result, bail};
use serde_json::Value;

use crate::processes::{self, TABLE};
use crate::site::Site;
use crate::{clock, run_file, say};

xflags::xflags! {
    /// Shows what the processes said, of one service or of all, oldest first.
    ///
    /// The files under target/ordermesh/logs hold one JSON object a line; here they are shown as text, or
    /// as they are with --json. `xtask` is the log of the supervisor: who died and was started again.
    ///
    ///   cargo xtask logs orders --tail 50
    ///   cargo xtask logs --follow
    ///   cargo xtask logs orders --json | jq 'select(.level == "ERROR")'
    cmd logs {
        /// One process; without it, all.
        optional service: String
        /// How many of the last lines of each process to show. 20 without it.
        optional --tail lines: usize
        /// Stay and show what comes.
        optional --follow
        /// The lines as they are written, without names or colours.
        optional --json
    }
}

/// Reads the logs of a site from where it stopped last.
pub(crate) struct Follower {
    files: Vec<Tail>,
    width: usize,
    raw: bool,
}

struct Tail {
    name: String,
    path: std::path::PathBuf,
    read: u64,
    colour: u8,
}

pub(crate) fn run(flags: &Logs) -> Result<ExitCode> {
    let site = Site::from_env()?;
    let mut follower = Follower::new(&site, flags.service.as_deref(), flags.tail.unwrap_or(20))?;
    follower.raw = flags.json;
    follower.poll();
    if !flags.follow {
        return Ok(ExitCode::SUCCESS);
    }
    loop {
        clock::nap(100);
        follower.poll();
    }
}

// === impl Follower ===

impl Follower {
    /// Begins `tail` lines before the end of each log.
    pub(crate) fn new(site: &Site, service: Option<&str>, tail: usize) -> Result<Self> {
        let mut names = names(site)?;
        if let Some(service) = service {
            if service != "xtask" {
                processes::named(service.rsplit_once('-').map_or(service, |(name, k)| {
                    if k.parse::<u16>().is_ok() { name } else { service }
                }))?;
            }
            names.retain(|name| name == service || is_replica(name, service));
            if names.is_empty() {
                bail!("`{service}` has said nothing yet: start the mesh with `cargo xtask up`");
            }
        }
        let width = names.iter().map(String::len).max().unwrap_or(0);
        let mut files = Vec::new();
        for (index, name) in names.into_iter().enumerate() {
            let path = site.log(&name);
            let read =
                begin(&path, tail).with_context(|| format!("cannot read {}", path.display()))?;
            // Bright enough on dark and on light: cyan, green, yellow, magenta, blue.
            let colour = [36, 32, 33, 35, 34][index % 5];
            files.push(Tail { name, path, read, colour });
        }
        Ok(Self { files, width, raw: false })
    }

    /// Prints what was written since the last time.
    pub(crate) fn poll(&mut self) {
        let mut lines = Vec::new();
        for (index, file) in self.files.iter_mut().enumerate() {
            for line in file.news() {
                lines.push((stamp(&line), index, line));
            }
        }
        // Stable: the lines of one process keep their order where they carry no time.
        lines.sort_by(|a, b| a.0.cmp(&b.0));
        for (_, index, line) in lines {
            if let Some(file) = self.files.get(index) {
                self.print(file, &line);
            }
        }
    }

    fn print(&self, file: &Tail, line: &str) {
        if self.raw {
            println!("{line}");
        } else if say::colourful() {
            println!(
                "\x1b[{}m{:>w$} |\x1b[0m {}",
                file.colour,
                file.name,
                readable(line),
                w = self.width
            );
        } else {
            println!("{:>w$} | {}", file.name, readable(line), w = self.width);
        }
    }
}

// === impl Tail ===

impl Tail {
    /// The whole lines behind what was read.
    fn news(&mut self) -> Vec<String> {
        let Ok(mut file) = File::open(&self.path) else { return Vec::new() };
        if file.seek(SeekFrom::Start(self.read)).is_err() {
            return Vec::new();
        }
        let mut reader = BufReader::new(file);
        let mut lines = Vec::new();
        let mut line = Vec::new();
        while let Ok(length) = reader.read_until(b'\n', &mut line) {
            // A line that is still being written is read whole the next time.
            if length == 0 || line.last() != Some(&b'\n') {
                break;
            }
            self.read = self.read.saturating_add(u64::try_from(length).unwrap_or(0));
            lines.push(String::from_utf8_lossy(&line).trim_end().to_owned());
            line.clear();
        }
        lines
    }
}

/// A JSON line as a reader wants it; any other line as it is.
pub(crate) fn readable(line: &str) -> String {
    let Ok(Value::Object(entry)) = serde_json::from_str(line) else { return line.to_owned() };
    let mut fields = entry.clone();
    if let Some(Value::Object(inner)) = fields.remove("fields") {
        fields.extend(inner);
    }
    let mut take = |name: &str| fields.remove(name).map(|value| plain(&value)).unwrap_or_default();
    let time = [take("timestamp"), take("time")].concat();
    let time =
        time.split_once('T').map_or(time.as_str(), |(_, time)| time.get(..12).unwrap_or(time));
    let (level, message) = (take("level"), take("message"));
    // Which process it was stands in front; where in its source is in the JSON.
    for name in ["target", "service", "span", "spans", "span_id", "fingerprint"] {
        take(name);
    }
    let rest: Vec<String> =
        fields.iter().map(|(name, value)| format!("{name}={}", plain(value))).collect();
    format!("{time} {level:<5} {message} {}", rest.join(" ")).trim_end().to_owned()
}

fn plain(value: &Value) -> String {
    value.as_str().map_or_else(|| value.to_string(), str::to_owned)
}

/// What to sort lines of several processes by.
fn stamp(line: &str) -> String {
    let entry: Option<Value> = serde_json::from_str(line).ok();
    let time = |entry: Value| {
        let time = entry["timestamp"].as_str().or_else(|| entry["time"].as_str());
        time.map(str::to_owned)
    };
    entry.and_then(time).unwrap_or_default()
}

/// Every process that has a log, in the order of the table, the supervisor last.
fn names(site: &Site) -> Result<Vec<String>> {
    let mut names: Vec<String> = match run_file::Run::read(site)? {
        Some(run) => run.processes.into_iter().map(|row| row.instance.name).collect(),
        None => TABLE.iter().map(|it| it.name.to_owned()).collect(),
    };
    names.push("xtask".to_owned());
    // A log that is not there yet may come: the supervisor is silent while all is well.
    if !names.iter().any(|name| site.log(name).is_file()) {
        bail!("there are no logs yet: start the mesh with `cargo xtask up`");
    }
    Ok(names)
}

fn is_replica(name: &str, service: &str) -> bool {
    name.strip_prefix(service)
        .and_then(|it| it.strip_prefix('-'))
        .is_some_and(|k| k.parse::<u16>().is_ok())
}

/// Where the last `tail` lines of a file begin.
fn begin(path: &std::path::Path, tail: usize) -> Result<u64> {
    let mut text = Vec::new();
    if !path.is_file() {
        return Ok(0);
    }
    File::open(path)?.read_to_end(&mut text)?;
    let ends: Vec<usize> =
        text.iter().enumerate().filter(|(_, byte)| **byte == b'\n').map(|(at, _)| at + 1).collect();
    let begin = match ends.len().checked_sub(tail + 1) {
        Some(index) => ends.get(index).copied().unwrap_or(0),
        None => 0,
    };
    Ok(u64::try_from(begin)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_json_line_becomes_time_level_message_and_fields_in_either_shape() {
        let flat = r#"{"time":"2026-01-02T03:04:05.678901Z","level":"INFO","message":"listening","target":"mesh","order.id":"7"}"#;
        let nested = r#"{"timestamp":"2026-01-02T03:04:05.678901Z","level":"INFO","fields":{"message":"listening","order.id":"7"},"target":"mesh"}"#;
        for line in [flat, nested] {
            assert_eq!(readable(line), "03:04:05.678 INFO  listening order.id=7");
        }
        assert_eq!(readable("thread panicked"), "thread panicked");
    }

    #[test]
    fn a_follower_begins_at_the_tail_and_reads_whole_lines_once() {
        let folder =
            std::env::temp_dir().join(format!("ordermesh-{}", crate::os::random(8).unwrap()));
        std::fs::create_dir_all(&folder).unwrap();
        let path = folder.join("orders.log");
        std::fs::write(&path, "one\ntwo\nthree\nfo").unwrap();
        let read = begin(&path, 2).unwrap();
        let mut tail = Tail { name: "orders".into(), path: path.clone(), read, colour: 0 };
        assert_eq!(tail.news(), ["two", "three"]);
        std::fs::write(&path, "one\ntwo\nthree\nfour\n").unwrap();
        assert_eq!(tail.news(), ["four"]);
        assert!(tail.news().is_empty());
        std::fs::remove_dir_all(&folder).unwrap();
    }

    #[test]
    fn only_numbered_copies_are_replicas() {
        assert!(is_replica("orders-1", "orders"));
        assert!(!is_replica("psp-simulator", "psp"));
    }
}
