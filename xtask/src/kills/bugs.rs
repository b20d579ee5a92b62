//! Mistakes that the mesh makes on purpose, and what the checker has to say of each.

use anyhow::{Result, bail};

/// A mistake that a debug build of the mesh knows by this name.
#[derive(Debug)]
pub(crate) struct Bug {
    pub(crate) name: &'static str,
    /// What does not hold any more.
    pub(crate) invariant: &'static str,
    /// Who has to die, and where, for it to show; often nobody.
    pub(super) kills: &'static [(&'static str, &'static str)],
}

/// Each is found by the invariant that is named beside it.
pub(super) const BUGS: &[Bug] = &[
    Bug {
        name: "skip_cursor",
        invariant: "L3",
        kills: &[
            ("notifications", "after_effect_before_ack"),
            ("orders", "after_effect_before_ack"),
        ],
    },
    SKIP_INBOX,
    Bug {
        name: "ack_before_effect",
        invariant: "I10",
        kills: &[("notifications", "after_effect_before_ack"); 6],
    },
    Bug {
        name: "forget_fence",
        invariant: "I8",
        // Orders are called off while the process that leads them is asleep. Who dies has no part in
        // it: the load lasts as long as somebody does.
        kills: &[("notifications", "after_effect_before_ack"); 4],
    },
    Bug {
        name: "skip_barrier",
        invariant: "L1",
        kills: &[
            ("inventory", "after_commit_before_answer"),
            ("payments", "after_commit_before_answer"),
            ("orders", "after_reply_before_record"),
            ("inventory", "after_commit_before_answer"),
        ],
    },
    Bug {
        name: "skip_request_key",
        invariant: "I9",
        kills: &[("orders", "after_commit_before_answer")],
    },
    Bug {
        name: "unknown_means_failed",
        invariant: "I4",
        kills: &[("payments", "after_reply_before_record")],
    },
    Bug {
        name: "new_provider_key",
        invariant: "I10",
        kills: &[("payments", "after_reply_before_record")],
    },
];

/// The one that every `cargo xtask test` makes: it needs a kill to show.
pub(super) const SKIP_INBOX: Bug = Bug {
    name: "skip_inbox",
    invariant: "I10",
    kills: &[("notifications", "after_effect_before_ack")],
};

pub(super) fn named(name: &str) -> Result<&'static Bug> {
    match BUGS.iter().find(|bug| bug.name == name) {
        Some(bug) => Ok(bug),
        None => {
            let known: Vec<&str> = BUGS.iter().map(|bug| bug.name).collect();
            bail!("there is no bug `{name}`: there are {}", known.join(", "))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{super::deaths, *};

    #[test]
    fn every_bug_asks_for_kills_that_there_are() {
        for bug in BUGS {
            for kill in bug.kills {
                let known = deaths::at_points().any(|it| it == *kill);
                assert!(known, "{}: {kill:?}", bug.name);
            }
        }
        assert!(named("none").unwrap_err().to_string().contains("forget_fence"));
    }
}
