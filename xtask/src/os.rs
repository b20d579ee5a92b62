//! What this program asks of the operating system: processes, ports, random bytes, private files.

use std::fs::{self, File, OpenOptions};
use std::io::{Read, Write};
use std::net::TcpListener;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result};

use crate::clock;

/// A process by more than its number, which the system gives away again.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Pid {
    pub(crate) number: u32,
    /// When it started, in the system's own words.
    pub(crate) born: String,
}

impl Pid {
    /// The process that has this number now.
    pub(crate) fn of(number: u32) -> Self {
        Self { number, born: born(number).unwrap_or_default() }
    }

    /// Whether this very process still runs. One that ended and waits to be reaped does not.
    pub(crate) fn alive(&self) -> bool {
        born(self.number).is_some_and(|born| born == self.born)
    }

    /// Asks it to end, and ends it when it has not after a while.
    pub(crate) fn end(&self, patience: Duration) {
        if !self.signal("TERM") {
            return;
        }
        let begun = clock::now();
        while self.alive() {
            if begun.elapsed() > patience {
                self.signal("KILL");
                return;
            }
            clock::nap(20);
        }
    }

    /// Sends `TERM`, `KILL` or another signal; `false` if it could not be sent.
    pub(crate) fn signal(&self, name: &str) -> bool {
        // The shell's own `kill`: a slim image has no program of that name.
        self.alive()
            && Command::new("sh")
                .args(["-c", "kill -s \"$0\" \"$1\"", name, &self.number.to_string()])
                .stdin(Stdio::null())
                .stderr(Stdio::null())
                .status()
                .is_ok_and(|status| status.success())
    }
}

fn born(pid: u32) -> Option<String> {
    if let Ok(stat) = fs::read_to_string(format!("/proc/{pid}/stat")) {
        // Behind the name, which may hold anything: the state, and 19 fields later the start.
        let mut fields = stat.rsplit_once(')')?.1.split_whitespace();
        let state = fields.next()?;
        return if matches!(state, "Z" | "X") { None } else { fields.nth(18).map(str::to_owned) };
    }
    if Path::new("/proc/self/stat").exists() {
        return None;
    }
    let ps =
        Command::new("ps").args(["-o", "stat=,lstart=", "-p", &pid.to_string()]).output().ok()?;
    let line = String::from_utf8_lossy(&ps.stdout).trim().to_owned();
    let (state, since) = line.split_once(' ')?;
    if state.starts_with('Z') { None } else { Some(since.trim().to_owned()) }
}

/// Whether a server could listen on this port of the loopback.
pub(crate) fn port_free(port: u16) -> bool {
    TcpListener::bind(("127.0.0.1", port)).is_ok()
}

/// A port that nobody listens on at the moment.
pub(crate) fn free_port() -> Result<u16> {
    let listener = TcpListener::bind("127.0.0.1:0").context("cannot find a free port")?;
    Ok(listener.local_addr()?.port())
}

/// Who listens on a port, as `pid (program)`, where the system lets us see it.
pub(crate) fn listener(port: u16) -> Option<String> {
    let inodes: Vec<String> = ["/proc/net/tcp", "/proc/net/tcp6"]
        .iter()
        .filter_map(|table| fs::read_to_string(table).ok())
        .flat_map(|table| {
            table.lines().filter_map(|line| listening(line, port)).collect::<Vec<_>>()
        })
        .collect();
    if inodes.is_empty() {
        let lsof = Command::new("lsof")
            .args(["-nP", "-t", "-sTCP:LISTEN", &format!("-iTCP:{port}")])
            .output()
            .ok()?;
        let pid = String::from_utf8_lossy(&lsof.stdout).lines().next()?.to_owned();
        return Some(format!("pid {pid}"));
    }
    for process in fs::read_dir("/proc").ok()?.flatten() {
        let name = process.file_name().to_string_lossy().into_owned();
        if name.parse::<u32>().is_err() {
            continue;
        }
        let Ok(files) = fs::read_dir(process.path().join("fd")) else { continue };
        let holds =
            files.flatten().filter_map(|file| fs::read_link(file.path()).ok()).any(|link| {
                let link = link.to_string_lossy().into_owned();
                inodes.iter().any(|inode| link == format!("socket:[{inode}]"))
            });
        if holds {
            let program = fs::read_to_string(process.path().join("comm")).unwrap_or_default();
            return Some(format!("pid {name} ({})", program.trim()));
        }
    }
    None
}

/// The inode of a row of the system's socket table, if it listens on `port`.
fn listening(row: &str, port: u16) -> Option<String> {
    let fields: Vec<&str> = row.split_whitespace().collect();
    let local = fields.get(1)?.rsplit_once(':')?.1;
    let listens = *fields.get(3)? == "0A";
    (listens && u16::from_str_radix(local, 16).ok()? == port)
        .then(|| fields.get(9).map(|it| (*it).to_owned()))?
}

/// Where a program is found, in the folders of PATH and in `more`.
pub(crate) fn program(name: &str, more: &[PathBuf]) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    more.iter()
        .cloned()
        .chain(std::env::split_paths(&path))
        .map(|folder| folder.join(name))
        .find(|it| it.is_file())
}

/// Whether we run as the superuser.
pub(crate) fn root() -> bool {
    Command::new("id")
        .arg("-u")
        .output()
        .is_ok_and(|id| String::from_utf8_lossy(&id.stdout).trim() == "0")
}

/// `bytes` random bytes of the system, in hexadecimal.
pub(crate) fn random(bytes: usize) -> Result<String> {
    let mut buffer = vec![0; bytes];
    File::open("/dev/urandom")
        .and_then(|mut source| source.read_exact(&mut buffer))
        .context("cannot read random bytes from /dev/urandom")?;
    Ok(buffer.iter().map(|byte| format!("{byte:02x}")).collect())
}

/// A random UUID (version 4).
pub(crate) fn uuid() -> Result<String> {
    let hex = random(16)?;
    // Version and variant have fixed places; the other digits stay as they were drawn.
    let (a, b, c, d, e) = (&hex[..8], &hex[8..12], &hex[13..16], &hex[17..20], &hex[20..]);
    Ok(format!("{a}-{b}-4{c}-8{d}-{e}"))
}

/// Makes a folder that only its owner can read.
pub(crate) fn private_folder(path: &Path) -> Result<()> {
    let made = fs::DirBuilder::new().recursive(true).mode(0o700).create(path);
    made.with_context(|| format!("cannot make the folder {}", path.display()))
}

/// Writes a file that only its owner can read.
pub(crate) fn private_file(path: &Path, text: &str) -> Result<()> {
    let file = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(path);
    file.and_then(|mut file| file.write_all(text.as_bytes()))
        .with_context(|| format!("cannot write {}", path.display()))
}

/// Puts a whole file in the place of another: a reader sees the old one or the new one.
pub(crate) fn replace_file(path: &Path, text: &str) -> Result<()> {
    let draft = path.with_extension(format!("{}.draft", std::process::id()));
    private_file(&draft, text)?;
    fs::rename(&draft, path).with_context(|| format!("cannot replace {}", path.display()))
}

/// Free bytes on the disk that holds `path`, from `df`.
pub(crate) fn disk_free(path: &Path) -> Option<u64> {
    let df = Command::new("df").args(["-Pk"]).arg(path).output().ok()?;
    let text = String::from_utf8_lossy(&df.stdout).into_owned();
    let kilobytes: u64 = text.lines().nth(1)?.split_whitespace().nth(3)?.parse().ok()?;
    Some(kilobytes.saturating_mul(1024))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_is_known_by_its_birth_and_not_by_its_number_alone() {
        let me = Pid::of(std::process::id());
        assert!(me.alive());
        assert!(!Pid { born: "another".into(), ..me }.alive());
    }

    #[test]
    fn an_ended_process_is_dead_even_before_it_is_reaped() {
        let mut child =
            Command::new("sh").args(["-c", "read line"]).stdin(Stdio::piped()).spawn().unwrap();
        let pid = Pid::of(child.id());
        assert!(pid.alive());
        assert!(pid.signal("KILL"));
        child.wait().unwrap();
        assert!(!pid.alive());
    }

    #[test]
    fn a_taken_port_names_the_process_that_holds_it() {
        let held = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = held.local_addr().unwrap().port();
        assert!(!port_free(port));
        let holder = listener(port).unwrap();
        assert!(holder.contains(&std::process::id().to_string()), "{holder}");
    }

    #[test]
    fn request_ids_are_version_4_and_differ() {
        let (one, other) = (uuid().unwrap(), uuid().unwrap());
        assert_ne!(one, other);
        assert_eq!(one.len(), 36);
        assert_eq!(one.split('-').nth(2).unwrap().chars().next(), Some('4'));
    }
}
