//! What clients asked for and were told: one JSON object a line.

use std::{
    fs::File,
    io::{BufRead as _, BufReader, BufWriter, Write as _},
    path::Path,
};

use anyhow::Context as _;
use serde::{Deserialize, Serialize};

use crate::world::bare;

/// One call, from its being sent to what was heard of it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Record {
    /// Counts the calls of a load.
    pub number: u64,
    /// Who called: `users/{uuid}`.
    pub by: String,
    /// When it was sent, in microseconds since 1970.
    pub invoke: i64,
    /// When it was answered, or given up.
    pub complete: i64,
    /// What was asked.
    #[serde(flatten)]
    pub asked: Asked,
    /// What came of it.
    pub outcome: Outcome,
    /// The status, and the reason behind it; empty if it is good.
    #[serde(default)]
    pub why: String,
    /// The order as it was answered.
    #[serde(default)]
    pub answer: Option<Answer>,
}

/// What was asked.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "op", rename_all = "snake_case")]
pub enum Asked {
    /// To place an order, under this id.
    Create {
        /// The same id asks for the same order.
        request_id: String,
    },
    /// To call an order off.
    Cancel {
        /// `orders/{uuid}`.
        order: String,
        /// The same id asks for the same thing.
        request_id: String,
    },
    /// To follow an order.
    Watch {
        /// `orders/{uuid}`.
        order: String,
        /// What was seen, connection after connection.
        seen: Vec<Seen>,
        /// Whether the service ended the watch, because the order has ended.
        ended: bool,
    },
}

/// What a watcher was told.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Seen {
    /// The revision.
    pub revision: i64,
    /// The type of the event; empty for a snapshot.
    #[serde(default)]
    pub event: String,
    /// Whether it was the first update of a connection.
    #[serde(default)]
    pub first: bool,
}

/// What came of a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    /// It was done.
    Ok,
    /// A rule said no, or it was never sent: nothing was done.
    Refused,
    /// Nobody knows.
    Unknown,
}

/// The order in an answer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Answer {
    /// `orders/{uuid}`.
    pub order: String,
    /// Where it stood.
    pub state: String,
    /// How often it had changed.
    pub revision: i64,
    /// Tells this answer from any other.
    pub digest: String,
    /// Whether the service says that it was answered before.
    pub replayed: bool,
}

// === impl Record ===

impl Record {
    /// The id of the order that it is about, if that is known.
    #[must_use]
    pub fn order(&self) -> Option<&str> {
        match &self.asked {
            Asked::Create { .. } => self.answer.as_ref().map(|answer| bare(&answer.order)),
            Asked::Cancel { order, .. } | Asked::Watch { order, .. } => Some(bare(order)),
        }
    }

    /// What was asked and what was told, for people.
    #[must_use]
    pub fn spoken(&self) -> (String, String) {
        let asked = match &self.asked {
            Asked::Create { request_id } => format!("create, request {request_id}"),
            Asked::Cancel { request_id, .. } => format!("cancel, request {request_id}"),
            Asked::Watch { .. } => "watch".to_owned(),
        };
        let told = match (&self.outcome, &self.answer) {
            (Outcome::Ok, Some(answer)) => {
                let again = if answer.replayed { ", a replay" } else { "" };
                format!("told {} r{}{again}", answer.state, answer.revision)
            }
            (Outcome::Ok, None) => "told OK".to_owned(),
            (Outcome::Refused, _) => format!("refused: {}", self.why),
            (Outcome::Unknown, _) => format!("not told: {}", self.why),
        };
        (asked, told)
    }
}

/// Reads a history.
///
/// # Errors
/// The file cannot be read, or a line of it is no record: the line is named.
pub fn read(path: &Path) -> anyhow::Result<Vec<Record>> {
    let file = File::open(path).with_context(|| format!("cannot open {}", path.display()))?;
    let mut records = Vec::new();
    for (number, line) in (1..).zip(BufReader::new(file).lines()) {
        let line = line.with_context(|| format!("cannot read {}", path.display()))?;
        if line.trim().is_empty() {
            continue;
        }
        let record = serde_json::from_str(&line)
            .with_context(|| format!("{}:{number} is no record", path.display()))?;
        records.push(record);
    }
    Ok(records)
}

/// Writes a history, one record a line.
///
/// # Errors
/// The file cannot be written.
pub fn write(path: &Path, records: &[Record]) -> anyhow::Result<()> {
    let doing = || format!("cannot write {}", path.display());
    let mut file = BufWriter::new(File::create(path).with_context(doing)?);
    for record in records {
        let line = serde_json::to_string(record)?;
        writeln!(file, "{line}").with_context(doing)?;
    }
    file.flush().with_context(doing)
}

/// Tells bytes from other bytes (FNV-1a, 64 bits): the same in every run.
#[must_use]
pub fn digest(bytes: &[u8]) -> String {
    let hash = bytes.iter().fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
        (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3)
    });
    format!("{hash:016x}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_history_is_read_as_it_was_written() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("history.ndjson");
        let watch = Asked::Watch {
            order: "orders/1".to_owned(),
            seen: vec![Seen { revision: 1, event: String::new(), first: true }],
            ended: false,
        };
        let record = |asked, outcome| Record {
            number: 1,
            by: "users/1".to_owned(),
            invoke: 1,
            complete: 2,
            asked,
            outcome,
            why: "UNAVAILABLE".to_owned(),
            answer: None,
        };
        let create = Asked::Create { request_id: "r".to_owned() };
        let records = vec![record(create, Outcome::Unknown), record(watch, Outcome::Ok)];
        write(&path, &records).unwrap();
        assert_eq!(read(&path).unwrap(), records);
    }

    #[test]
    fn a_line_that_is_no_record_is_named() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("history.ndjson");
        std::fs::write(&path, "\n{}\n").unwrap();
        assert!(read(&path).unwrap_err().to_string().contains("history.ndjson:2"));
    }

    #[test]
    fn a_digest_tells_answers_apart() {
        assert_eq!(digest(b""), "cbf29ce484222325");
        assert_ne!(digest(b"a"), digest(b"b"));
    }
}
