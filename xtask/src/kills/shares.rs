//! Who did how much: what every instance counted of its work, over all its lives.

use std::collections::BTreeMap;

use anyhow::Result;

use crate::processes::TABLE;
use crate::run_file::Run;
use crate::site::Site;
use crate::{api, say};

/// Kinds of work: what they are called, and the metric that counts them.
const WORK: [(&str, &str, &str); 3] = [
    ("saga steps", "mesh_saga_steps_total", ""),
    ("sequenced", "mesh_log_sequenced_total", ""),
    ("consumed", "mesh_consumer_events_total", "outcome=\"done\""),
];

/// Which of them each service has to share among its replicas.
const SHARED: &[(&str, &[usize])] = &[
    ("inventory", &[1]),
    ("orders", &[0, 1, 2]),
    ("payments", &[1]),
    ("shipping", &[1]),
    ("notifications", &[2]),
];

/// What one life after the other came to.
#[derive(Clone, Copy, Debug, Default)]
struct Count {
    before: u64,
    now: u64,
}

#[derive(Debug, Default)]
pub(crate) struct Shares {
    /// By service and instance.
    counts: BTreeMap<(String, String), [Count; WORK.len()]>,
}

// === impl Shares ===

impl Shares {
    /// Reads what every instance counted. One that is down is asked another time.
    pub(super) fn look(&mut self, site: &Site) -> Result<()> {
        for row in Run::required(site)?.processes {
            let Ok(text) = api::metrics(&row.instance.admin) else { continue };
            let counts = self.counts.entry((row.instance.service, row.instance.name)).or_default();
            for (count, (_, metric, label)) in counts.iter_mut().zip(WORK) {
                count.saw(api::sum(&text, metric, label));
            }
        }
        Ok(())
    }

    /// The services of which an instance has not done its share yet, and who did it in its place.
    pub(super) fn idle(&self) -> Vec<(String, Vec<String>)> {
        let mut idle = Vec::new();
        for (service, kinds) in SHARED {
            let of = || self.counts.iter().filter(|((of, _), _)| of == service);
            for kind in *kinds {
                let did = |counts: &[Count; WORK.len()]| counts.get(*kind).is_some_and(Count::any);
                if !of().all(|(_, counts)| did(counts)) {
                    let others = of().filter(|(_, counts)| did(counts));
                    let others = others.map(|((_, name), _)| name.clone()).collect();
                    idle.push(((*service).to_owned(), others));
                }
            }
        }
        idle
    }

    pub(super) fn readable(&self) -> String {
        let mut head = vec!["instance".to_owned()];
        head.extend(WORK.map(|(name, ..)| name.to_owned()));
        let mut rows = vec![head];
        for process in TABLE {
            let of = self.counts.iter().filter(|((service, _), _)| service == process.name);
            for ((_, name), counts) in of.filter(|(_, counts)| counts.iter().any(Count::any)) {
                let mut row = vec![name.clone()];
                row.extend(counts.map(|count| (count.before + count.now).to_string()));
                rows.push(row);
            }
        }
        say::table(&rows)
    }
}

// === impl Count ===

impl Count {
    fn saw(&mut self, number: u64) {
        if number < self.now {
            self.before += self.now;
        }
        self.now = number;
    }

    fn any(&self) -> bool {
        self.before + self.now > 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_counter_is_summed_over_its_labels_and_over_the_lives_of_its_process() {
        let text = "# TYPE a counter\na_total{x=\"1\",outcome=\"done\"} 2\n\
                    a_total{x=\"2\",outcome=\"done\"} 3\na_total{outcome=\"failed\"} 9\na_totals 4\n";
        assert_eq!(api::sum(text, "a_total", "outcome=\"done\""), 5);
        assert_eq!(api::sum(text, "a_total", ""), 14);
        let mut count = Count::default();
        for number in [2, 5, 1, 1, 4] {
            count.saw(number);
        }
        assert_eq!(count.before + count.now, 9);
    }

    #[test]
    fn an_instance_without_work_is_named_by_who_did_it() {
        let mut shares = Shares::default();
        for (name, did) in [("notifications", 7), ("notifications-1", 0)] {
            let mut counts = [Count::default(); WORK.len()];
            counts[2].saw(did);
            shares.counts.insert(("notifications".to_owned(), name.to_owned()), counts);
        }
        assert_eq!(shares.idle(), [("notifications".to_owned(), vec!["notifications".to_owned()])]);
        let key = ("notifications".to_owned(), "notifications-1".to_owned());
        shares.counts.get_mut(&key).unwrap()[2].saw(1);
        assert_eq!(shares.idle(), []);
        assert!(shares.readable().contains("notifications-1"), "{}", shares.readable());
    }
}
