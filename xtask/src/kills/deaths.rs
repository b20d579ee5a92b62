//! Who dies where: each process at each point that it comes by, and once wherever it is.

use std::collections::hash_map::RandomState;
use std::fs;
use std::hash::{BuildHasher as _, Hasher as _};
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};

use super::{load::Load, shares::Shares};
use crate::os::Pid;
use crate::processes::TABLE;
use crate::run_file::{Row, Run};
use crate::site::Site;
use crate::{api, clock, say};

/// Which processes come by which point while orders are placed.
const POINTS: &[(&str, &[&str])] = &[
    ("after_commit_before_answer", &["orders", "inventory", "payments", "shipping"]),
    ("after_intent_before_send", &["orders", "payments", "shipping"]),
    ("after_reply_before_record", &["orders", "payments", "shipping"]),
    ("after_effect_before_ack", &["orders", "notifications"]),
    ("during_sequencing", &["orders", "inventory", "payments", "shipping"]),
];

/// A SIGKILL from outside, wherever the process is.
const ANYWHERE: &str = "anywhere";

/// How long a point may take to be come by, and a process to be ready again.
const PATIENCE: Duration = Duration::from_secs(60);

/// How long one replica has the point for itself: what one alone does at a time, another may do.
const ALONE: Duration = Duration::from_secs(3);

/// How long after a process is back the next one dies.
const BREATH: u64 = 1_500;

/// One kill: who, where, and when the process was gone.
pub(super) struct Kill {
    pub(super) instance: String,
    pub(super) point: &'static str,
    pub(super) at: u64,
}

/// Point by point, so that no process dies twice in a row and is given up.
pub(super) fn at_points() -> impl Iterator<Item = (&'static str, &'static str)> {
    POINTS.iter().flat_map(|(point, who)| who.iter().map(move |it| (*it, *point)))
}

/// Everybody at every point, and once anywhere.
pub(super) fn all() -> Vec<(&'static str, &'static str)> {
    at_points().chain(TABLE.iter().map(|it| (it.name, ANYWHERE))).collect()
}

/// Kills one after the other while the load goes on.
pub(super) fn carry_out(
    site: &Site,
    kills: &[(&'static str, &'static str)],
    load: &mut Load,
    shares: &mut Shares,
) -> Result<Vec<Kill>> {
    let mut done = Vec::new();
    for (process, point) in kills {
        ensure!(load.runs()?, "the load ended by itself before all kills were done");
        shares.look(site)?;
        done.push(kill(site, process, point)?);
        clock::nap(BREATH);
    }
    shares.look(site)?;
    Ok(done)
}

/// Lets one instance of a process die, and waits until it is back. Of several, chance says which
/// comes first.
fn kill(site: &Site, process: &'static str, point: &'static str) -> Result<Kill> {
    let run = Run::required(site)?;
    let mut rows: Vec<Row> = run.rows(process)?.into_iter().cloned().collect();
    shuffle(&mut rows);
    let begun = clock::now();
    let mut aimed_at = 0;
    let (victim, at) = loop {
        let due = ALONE.saturating_mul(u32::try_from(aimed_at).unwrap_or(u32::MAX));
        if let Some(next) = rows.get(aimed_at).filter(|_| begun.elapsed() >= due) {
            aim(next, point)?;
            aimed_at += 1;
        }
        if let Some(dead) = gone(site, rows.get(..aimed_at).unwrap_or_default())? {
            break (dead, clock::micros());
        }
        ensure!(
            begun.elapsed() < PATIENCE,
            "{process} did not come by {point} within {}",
            clock::spoken(PATIENCE)
        );
        clock::nap(20);
    };
    let instance = victim.instance.name.clone();
    if point != ANYWHERE {
        for other in rows.iter().take(aimed_at).filter(|it| it.instance.name != instance) {
            api::disarm(&other.instance.admin, point);
        }
    }
    // All of them: a second one may have come by before it was told not to die.
    for row in &rows {
        back(site, &row.instance.name)?;
    }
    let took = clock::spoken(begun.elapsed());
    say::note(&format!("    {instance} died at {point} and was ready {took} later"));
    Ok(Kill { instance, point, at })
}

/// Ends one instance the polite way, and waits until it is back.
pub(super) fn drain(site: &Site, name: &str) -> Result<()> {
    let row = look(site, name)?;
    fs::write(site.control().join(format!("restart-{name}")), "")
        .context("cannot ask the supervisor")?;
    row.pid.as_ref().map(|pid| pid.signal("TERM"));
    let begun = clock::now();
    while look(site, name)?.starts == row.starts {
        ensure!(begun.elapsed() < PATIENCE, "{name} does not drain");
        clock::nap(20);
    }
    back(site, name)
}

fn aim(row: &Row, point: &str) -> Result<()> {
    if point != ANYWHERE {
        return api::arm(&row.instance.admin, point);
    }
    let pid = row.pid.as_ref().with_context(|| format!("{} is not there", row.instance.name))?;
    ensure!(pid.signal("KILL"), "{} cannot be killed", row.instance.name);
    Ok(())
}

/// The first of these that is not what it was.
fn gone(site: &Site, rows: &[Row]) -> Result<Option<Row>> {
    for row in rows {
        let now = look(site, &row.instance.name)?;
        if now.starts > row.starts || !row.pid.as_ref().is_some_and(Pid::alive) {
            return Ok(Some(row.clone()));
        }
    }
    Ok(None)
}

/// Waits until an instance is there again.
fn back(site: &Site, name: &str) -> Result<()> {
    let begun = clock::now();
    loop {
        let now = look(site, name)?;
        if let Some(why) = now.gave_up {
            bail!("{name}: {why}");
        }
        if now.pid.as_ref().is_some_and(Pid::alive) && api::ready(&now.instance.admin).is_ok() {
            return Ok(());
        }
        ensure!(
            begun.elapsed() < PATIENCE,
            "{name} is not ready again {} after it died",
            clock::spoken(PATIENCE)
        );
        clock::nap(20);
    }
}

fn look(site: &Site, name: &str) -> Result<Row> {
    let run = Run::required(site)?;
    let mut rows = run.processes.into_iter();
    rows.find(|row| row.instance.name == name).context("it left the mesh")
}

/// In another order each time. The standard library's hasher is seeded by chance.
fn shuffle(rows: &mut [Row]) {
    rows.sort_by_cached_key(|row| {
        let mut hasher = RandomState::new().build_hasher();
        hasher.write(row.instance.name.as_bytes());
        hasher.finish()
    });
}
