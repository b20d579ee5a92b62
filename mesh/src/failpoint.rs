//! Places at which a process can be made to die, so that tests see what a crash leaves.
//!
//! Debug builds only, and only in a process that runs with `--failpoints`: a release has none of
//! this. A point is armed by `POST /debug/failpoints/{name}?after=N` on the admin port; the
//! process kills itself with SIGKILL when it comes by for the N-th time from then on.
//! `DELETE` on the same path takes that back.

/// Where a process can be made to die.
pub const POINTS: [&str; 5] = [
    // The handler of a mutation answered OK; its caller has not heard it.
    "after_commit_before_answer",
    // A step is intended; its call is not sent.
    "after_intent_before_send",
    // A step's call was answered; the answer is not recorded.
    "after_reply_before_record",
    // The effect of events is committed; the consumer does not know it yet.
    "after_effect_before_ack",
    // Positions are given in a transaction that is not committed.
    "during_sequencing",
];

/// The process comes by the point `name`.
#[cfg(not(debug_assertions))]
#[inline]
pub fn hit(_name: &'static str) {}

#[cfg(debug_assertions)]
pub use armed::{arm, disarm, hit};

#[cfg(debug_assertions)]
mod armed {
    use std::sync::{
        Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    };

    use super::POINTS;

    /// The points that are armed, and how often the process still comes by until it dies.
    #[derive(Debug)]
    struct Armed(Vec<(&'static str, u32)>);

    /// Whether anything is armed: mostly nothing is, and a point costs one load.
    static ANY: AtomicBool = AtomicBool::new(false);

    static ARMED: Mutex<Armed> = Mutex::new(Armed(Vec::new()));

    /// The process comes by the point `name`, and dies there if it was told to.
    pub fn hit(name: &'static str) {
        if ANY.load(Ordering::Relaxed)
            && ARMED.lock().unwrap_or_else(PoisonError::into_inner).is_last(name)
        {
            die();
        }
    }

    /// Lets the process die when it comes by `name` for the time `after`, 1 for the next. `false`
    /// if there is no such point.
    pub fn arm(name: &str, after: u32) -> bool {
        let armed = ARMED.lock().unwrap_or_else(PoisonError::into_inner).arm(name, after);
        ANY.fetch_or(armed, Ordering::Relaxed);
        armed
    }

    /// Lets the process live on when it comes by `name`.
    pub fn disarm(name: &str) {
        ARMED.lock().unwrap_or_else(PoisonError::into_inner).0.retain(|(armed, _)| *armed != name);
    }

    // === impl Armed ===

    impl Armed {
        fn arm(&mut self, name: &str, after: u32) -> bool {
            let Some(point) = POINTS.into_iter().find(|point| *point == name) else { return false };
            self.0.retain(|(armed, _)| *armed != point);
            self.0.push((point, after.max(1)));
            true
        }

        fn is_last(&mut self, name: &str) -> bool {
            let Some((_, left)) = self.0.iter_mut().find(|(armed, _)| *armed == name) else {
                return false;
            };
            *left = left.saturating_sub(1);
            *left == 0
        }
    }

    /// As `kill -9` does: no destructor runs, nothing is flushed.
    fn die() -> ! {
        // A process may always kill itself.
        let _killed =
            rustix::process::kill_process(rustix::process::getpid(), rustix::process::Signal::KILL)
                .is_ok();
        std::process::abort();
    }

    #[cfg(test)]
    mod tests {
        use std::{env, os::unix::process::ExitStatusExt as _, process::Command};

        use super::*;

        #[test]
        fn a_process_dies_at_its_point_as_by_kill_9() {
            const DIES: &str = "MESH_TEST_DIES";
            if env::var_os(DIES).is_some() {
                assert!(arm("during_sequencing", 2));
                hit("during_sequencing");
                hit("after_effect_before_ack");
                hit("during_sequencing");
            }
            let this = "failpoint::armed::tests::a_process_dies_at_its_point_as_by_kill_9";
            let program = env::current_exe().expect("a program");
            let ended = Command::new(program).args(["--exact", this]).env(DIES, "1").output();
            assert_eq!(ended.expect("it ran").status.signal(), Some(9));
        }

        #[test]
        fn only_points_that_exist_are_armed_and_each_counts_for_itself() {
            let mut armed = Armed(Vec::new());
            assert!(!armed.arm("nowhere", 1));
            assert!(armed.arm("during_sequencing", 3));
            let dies: Vec<_> = (0..3).map(|_| armed.is_last("during_sequencing")).collect();
            assert_eq!(dies, [false, false, true]);
            assert!(!armed.is_last("after_effect_before_ack"));
        }
    }
}
