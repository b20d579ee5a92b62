//! Starts the processes, starts again what dies, and drains them all at the end.
//!
//! It reports to two places only: `run.json`, which other commands read, and the log named
//! `xtask`, which `up` and `logs` show between the lines of the processes.

use std::collections::HashSet;
use std::fs::{self, File, OpenOptions};
use std::io::Write;
use std::os::unix::process::CommandExt;
use std::process::{Command, ExitStatus, Stdio};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError, Sender};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use serde_json::json;

use crate::clock;
use crate::components::Components;
use crate::os::Pid;
use crate::processes::Instance;
use crate::run_file::{Row, Run};
use crate::site::Site;

/// Something that the supervisor acts on.
#[derive(Debug)]
pub(crate) enum Event {
    /// A process ended; which one, and which of its starts.
    Ended { index: usize, start: u32, status: Option<ExitStatus> },
    /// Drain. Asked for again: end at once.
    Stop,
}

/// How the end went.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Ending {
    /// Everything ended by itself.
    Clean,
    /// Something had to be killed.
    Cut,
}

/// What can be set about it; tests set it shorter.
#[derive(Clone, Debug)]
pub(crate) struct Policy {
    /// Whether a process that dies is started again.
    pub(crate) restart: bool,
    /// The waits before a new start: as many tries as there are waits.
    pub(crate) waits: Vec<Duration>,
    /// A process that ran this long has made good its earlier deaths.
    pub(crate) settled: Duration,
    /// How long the drain may take.
    pub(crate) drain: Duration,
}

pub(crate) struct Supervisor {
    site: Site,
    policy: Policy,
    run: Run,
    /// As it stands in `run.json`.
    written: Option<Run>,
    lives: Vec<Life>,
    events: Receiver<Event>,
    sender: Sender<Event>,
}

/// What is known about a process beyond its row in `run.json`.
#[derive(Debug)]
struct Life {
    started: Instant,
    /// Deaths since it last ran well.
    deaths: usize,
    /// When to start it again.
    due: Option<Instant>,
}

/// How often requests of other commands are looked for.
const TICK: Duration = Duration::from_millis(200);

/// Bad configuration: no repeat changes it.
const USAGE: i32 = 2;

/// The last words after a drain in which nothing was cut short.
pub(crate) const ALL_ENDED: &str = "all processes ended by themselves";

// === impl Policy ===

impl Policy {
    pub(crate) fn usual(restart: bool) -> Self {
        let waits = [200, 500, 1_000, 2_000, 4_000].map(Duration::from_millis).to_vec();
        Self { restart, waits, settled: Duration::from_secs(10), drain: Duration::from_secs(35) }
    }
}

// === impl Supervisor ===

impl Supervisor {
    pub(crate) fn new(
        site: &Site,
        policy: Policy,
        instances: Vec<Instance>,
        components: Components,
    ) -> Self {
        let (sender, events) = mpsc::channel();
        let lives = instances
            .iter()
            .map(|_| Life { started: clock::now(), deaths: 0, due: None })
            .collect();
        let row = |instance| Row { instance, pid: None, starts: 0, gave_up: None };
        let run = Run {
            supervisor: Pid::of(std::process::id()),
            components,
            processes: instances.into_iter().map(row).collect(),
        };
        Self { site: site.clone(), policy, run, written: None, lives, events, sender }
    }

    /// Where to send [`Event::Stop`].
    pub(crate) fn sender(&self) -> Sender<Event> {
        self.sender.clone()
    }

    /// Starts everything and stays until told to stop.
    pub(crate) fn run(mut self) -> Result<Ending> {
        fs::create_dir_all(self.site.control())?;
        fs::create_dir_all(self.site.logs())?;
        for index in 0..self.lives.len() {
            self.start(index);
        }
        loop {
            if self.write().is_err() {
                // The folder of the state was removed: nobody could find these processes again.
                return self.drain();
            }
            match self.events.recv_timeout(TICK) {
                Ok(Event::Ended { index, start, status }) => self.ended(index, start, status),
                Ok(Event::Stop) | Err(RecvTimeoutError::Disconnected) => return self.drain(),
                Err(RecvTimeoutError::Timeout) => {}
            }
            self.obey();
            self.start_what_is_due();
        }
    }

    fn start(&mut self, index: usize) {
        let (Some(row), Some(life)) =
            (self.run.processes.get_mut(index), self.lives.get_mut(index))
        else {
            return;
        };
        life.due = None;
        life.started = clock::now();
        row.starts += 1;
        row.gave_up = None;
        let start = row.starts;
        match launch(&self.site, &row.instance) {
            Ok(mut child) => {
                row.pid = Some(Pid::of(child.id()));
                let sender = self.sender.clone();
                thread::spawn(move || {
                    let status = child.wait().ok();
                    // Nobody listens any more once the drain is over.
                    drop(sender.send(Event::Ended { index, start, status }));
                });
            }
            Err(error) => {
                row.pid = None;
                let line = format!("{} cannot be started: {error:#}", row.instance.name);
                row.gave_up = Some(line.clone());
                self.log(&line);
            }
        }
    }

    fn ended(&mut self, index: usize, start: u32, status: Option<ExitStatus>) {
        let Some(row) = self.run.processes.get_mut(index).filter(|row| row.starts == start) else {
            return;
        };
        row.pid = None;
        let name = row.instance.name.clone();
        let asked = self.asked("restart", &name);
        let Some(life) = self.lives.get_mut(index) else { return };
        let ran = life.started.elapsed();
        let how = status.map_or_else(|| "ended".to_owned(), |it| format!("ended with {it}"));
        let how = format!("{name} {how} after {}", clock::spoken(ran));
        if asked || ran >= self.policy.settled {
            life.deaths = 0;
        }
        if asked {
            self.log(&format!("{how}: starting it again, as asked"));
            return self.start(index);
        }
        let wait = self.policy.waits.get(life.deaths).copied();
        life.deaths += 1;
        let deaths = life.deaths;
        let why = if !self.policy.restart {
            format!("{how}; --no-restart: it stays down")
        } else if status.and_then(|it| it.code()) == Some(USAGE) {
            format!("{how}: it refused its settings, so a new start would not help")
        } else if let Some(wait) = wait {
            life.due = Some(clock::now() + wait);
            let (tries, wait) = (self.policy.waits.len(), clock::spoken(wait));
            return self
                .log(&format!("{how}: starting it again in {wait}, try {deaths} of {tries}"));
        } else {
            format!("{how}, {deaths} times in a row: it stays down")
        };
        self.log(&format!("{why}. Mend it, then: cargo xtask restart {name}"));
        if let Some(row) = self.run.processes.get_mut(index) {
            row.gave_up = Some(why);
        }
    }

    fn start_what_is_due(&mut self) {
        let now = clock::now();
        let due = |life: &Life| life.due.is_some_and(|due| due <= now);
        let indices: Vec<usize> = self
            .lives
            .iter()
            .enumerate()
            .filter(|(_, life)| due(life))
            .map(|(index, _)| index)
            .collect();
        for index in indices {
            self.start(index);
        }
    }

    /// Starts what is down and was asked for by `restart`; what runs is restarted when it ends.
    fn obey(&mut self) {
        for index in 0..self.lives.len() {
            let Some(row) = self.run.processes.get(index) else { return };
            let name = row.instance.name.clone();
            if row.pid.is_none() && self.asked("restart", &name) {
                self.log(&format!("{name} was down: starting it again, as asked"));
                if let Some(life) = self.lives.get_mut(index) {
                    life.deaths = 0;
                }
                self.start(index);
            }
        }
    }

    /// Whether another command left this request; it is taken away with the answer.
    fn asked(&self, verb: &str, name: &str) -> bool {
        fs::remove_file(self.site.control().join(format!("{verb}-{name}"))).is_ok()
    }

    fn drain(mut self) -> Result<Ending> {
        let living = self.run.living();
        let limit = clock::spoken(self.policy.drain);
        self.log(&format!(
            "draining {} processes, {limit} at most; once more ends them at once",
            living.len()
        ));
        for pid in &living {
            pid.signal("TERM");
        }
        let end = clock::now() + self.policy.drain;
        let mut ending = Ending::Clean;
        let mut cut = HashSet::new();
        // Each says how it ended before it counts as gone.
        while self.run.processes.iter().any(|row| row.pid.is_some()) {
            let left = end.saturating_duration_since(clock::now());
            match self.events.recv_timeout(left.min(TICK)) {
                Ok(Event::Ended { index, start, status }) => {
                    let rows = &mut self.run.processes;
                    if let Some(row) = rows.get_mut(index).filter(|row| row.starts == start) {
                        row.pid = None;
                        if status.is_none_or(|status| !status.success()) {
                            ending = Ending::Cut;
                        }
                    }
                    // Whoever waits for the end looks at the processes too.
                    drop(self.write());
                    continue;
                }
                Ok(Event::Stop) | Err(RecvTimeoutError::Disconnected) => {}
                Err(RecvTimeoutError::Timeout) if clock::now() < end => continue,
                Err(RecvTimeoutError::Timeout) => {}
            }
            ending = Ending::Cut;
            let late: Vec<(String, Pid)> = (self.run.processes.iter())
                .filter_map(|row| Some((row.instance.name.clone(), row.pid.clone()?)))
                .filter(|(name, pid)| pid.alive() && cut.insert(name.clone()))
                .collect();
            for (name, pid) in late {
                self.log(&format!("{name} did not end in time: killing it"));
                pid.signal("KILL");
            }
        }
        std::mem::take(&mut self.run.components).stop();
        self.log(if ending == Ending::Clean { ALL_ENDED } else { "some processes were cut short" });
        // It is gone already where the whole state was removed.
        drop(fs::remove_file(self.site.run_file()));
        Ok(ending)
    }

    /// Writes `run.json` where it is not what it should be.
    fn write(&mut self) -> Result<()> {
        if self.written.as_ref() != Some(&self.run) {
            self.run.write(&self.site)?;
            self.written = Some(self.run.clone());
        }
        ensure!(self.site.run_file().exists(), "run.json was removed");
        Ok(())
    }

    fn log(&self, line: &str) {
        let file = OpenOptions::new().create(true).append(true).open(self.site.log("xtask"));
        let line = json!({ "timestamp": clock::timestamp(), "level": "INFO", "message": line });
        // Without a disk to write on there is nobody left to tell.
        drop(file.and_then(|mut file| writeln!(file, "{line}")));
    }
}

fn launch(site: &Site, instance: &Instance) -> Result<std::process::Child> {
    let log = site.log(&instance.name);
    let log = OpenOptions::new().create(true).append(true).open(&log);
    let log: File = log.context("cannot open its log")?;
    let mut command = Command::new(&instance.program);
    command
        .envs(instance.env.iter().map(|(key, value)| (key, value)))
        .current_dir(&site.root)
        .stdin(Stdio::null())
        .stdout(log.try_clone()?)
        .stderr(log)
        // A group of its own: Ctrl-C reaches us alone, and we tell each process once.
        .process_group(0);
    command.spawn().with_context(|| format!("cannot run {}, is it built?", instance.program))
}

#[cfg(test)]
mod tests;
