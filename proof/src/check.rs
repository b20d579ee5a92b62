//! Whether what everybody says of themselves fits together: pure, from a [`World`] to findings.
//!
//! Each invariant is a module of its own. On a running mesh, an order that is being worked on is
//! excused where several services have to agree about it; what one database says of itself must
//! hold at any moment.

use std::fmt;

use serde_json::{Value, json};

use crate::world::{
    World,
    timeline::{Moment, clock, timeline},
};

mod oversell;
mod stock_ledger;
mod money;
mod provider;
mod order_money;
mod order_stock;
mod state_machine;
mod idempotency;
mod effects;
mod outbox;
mod nothing_lost;
mod watch;
mod at_rest;
mod drained;

/// What must hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Invariant {
    /// No oversell.
    I1,
    /// The stock ledger gives the counters.
    I2,
    /// The money ledger sums to zero.
    I3,
    /// The provider's ledger equals ours.
    I4,
    /// Orders and money agree.
    I5,
    /// Orders and stock agree.
    I6,
    /// The history of an order is a path.
    I8,
    /// The same request has the same answer.
    I9,
    /// Effects happen once.
    I10,
    /// Every revision has its event, in order.
    I11,
    /// Nothing that was acknowledged is lost.
    I13,
    /// A watcher sees every revision once.
    I15,
    /// Every order ends, or waits for a person or a timer. Asked of a mesh at rest alone.
    L1,
    /// What was published is taken in everywhere. Asked of a mesh at rest alone.
    L3,
}

/// Something that does not hold.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Finding {
    /// What does not hold.
    pub invariant: Invariant,
    /// Of what: `orders/…`, `payments/…`, `stocks/…`.
    pub subject: String,
    /// What is wrong, in a sentence.
    pub sentence: String,
}

/// How far a check may excuse.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// Orders on which a saga works are excused.
    Running,
    /// Nobody asks for anything any more: an order on which a saga still works is a finding.
    Quiet,
}

/// What a check came to.
#[derive(Clone, Debug, Default)]
pub struct Report {
    /// What holds.
    pub passed: Vec<Invariant>,
    /// What does not.
    pub failed: Vec<Invariant>,
    /// What could not be asked, and why.
    pub skipped: Vec<(Invariant, String)>,
    /// What does not hold, of what.
    pub findings: Vec<Told>,
    /// How many orders were looked at, and how many of them were excused.
    pub orders: (usize, usize),
}

/// A finding with all that happened to its order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Told {
    /// The finding.
    pub finding: Finding,
    /// The order's moments, the oldest first; none where the finding is about no order.
    pub timeline: Vec<Moment>,
}

struct Rule {
    invariant: Invariant,
    claim: &'static str,
    /// Tables without which there is nothing to ask.
    needs: &'static [&'static str],
    find: fn(&World) -> Vec<Finding>,
}

const RULES: [Rule; 14] = [
    Rule {
        invariant: Invariant::I1,
        claim: "no unit is sold twice",
        needs: &["stock", "movement"],
        find: oversell::find,
    },
    Rule {
        invariant: Invariant::I2,
        claim: "stock is what its movements say",
        needs: &["stock", "movement", "reservation", "reservation_line", "saga"],
        find: stock_ledger::find,
    },
    Rule {
        invariant: Invariant::I3,
        claim: "the ledger sums to zero and payments are what it says",
        needs: &["payment", "ledger_entry"],
        find: money::find,
    },
    Rule {
        invariant: Invariant::I4,
        claim: "the provider's ledger equals ours",
        needs: &["ledger_entry", "attempt", "provider"],
        find: provider::find,
    },
    Rule {
        invariant: Invariant::I5,
        claim: "an order's money fits its state",
        needs: &["orders", "order_line", "saga", "payment", "ledger_entry"],
        find: order_money::find,
    },
    Rule {
        invariant: Invariant::I6,
        claim: "an order's stock fits its state",
        needs: &["orders", "order_line", "saga", "reservation", "movement"],
        find: order_stock::find,
    },
    Rule {
        invariant: Invariant::I8,
        claim: "the history of every order is a path of its states",
        needs: &["orders", "order_event"],
        find: state_machine::find,
    },
    Rule {
        invariant: Invariant::I9,
        claim: "one request has one order and one answer",
        needs: &["orders"],
        find: idempotency::find,
    },
    Rule {
        invariant: Invariant::I10,
        claim: "every effect happens once",
        needs: &["orders", "order_event", "notification"],
        find: effects::find,
    },
    Rule {
        invariant: Invariant::I11,
        claim: "every revision has its event, in order",
        needs: &["orders", "outbox"],
        find: outbox::find,
    },
    Rule {
        invariant: Invariant::I13,
        claim: "nothing acknowledged is lost",
        needs: &["orders", "order_event", HISTORY],
        find: nothing_lost::find,
    },
    Rule {
        invariant: Invariant::I15,
        claim: "a watcher sees every revision once",
        needs: &["orders", "order_event", HISTORY],
        find: watch::find,
    },
    Rule {
        invariant: Invariant::L1,
        claim: "every order has ended, or waits for a person or a timer",
        needs: &["orders", "saga", QUIET],
        find: at_rest::find,
    },
    Rule {
        invariant: Invariant::L3,
        claim: "every event is taken in, and none is parked",
        needs: &["outbox", QUIET],
        find: drained::find,
    },
];

/// Stands among the tables of a [`World`] that has a history.
pub const HISTORY: &str = "history";

const QUIET: &str = "quiet";

/// How many findings are told with the life of their order.
const TIMELINES: usize = 100;

/// Everything that does not hold.
#[must_use]
pub fn check(world: &World) -> Vec<Finding> {
    report(world, Mode::Running).findings.into_iter().map(|told| told.finding).collect()
}

/// Asks every invariant that can be asked.
#[must_use]
pub fn report(world: &World, mode: Mode) -> Report {
    let resting = world.resting().len();
    let mut report = Report {
        orders: (world.orders.len(), world.orders.len().saturating_sub(resting)),
        ..Report::default()
    };
    for rule in &RULES {
        let given =
            |need: &str| world.tables.contains(need) || (need == QUIET && mode == Mode::Quiet);
        if let Some(missing) = rule.needs.iter().find(|need| !given(need)) {
            report.skipped.push((rule.invariant, missing_in_words(missing)));
            continue;
        }
        let mut found = (rule.find)(world);
        found.sort();
        found.dedup();
        if found.is_empty() {
            report.passed.push(rule.invariant);
        } else {
            report.failed.push(rule.invariant);
        }
        let told = report.findings.len();
        report.findings.extend((told..).zip(found).map(|(number, finding)| {
            // Each takes a look at every row: what is wrong shows long before the hundredth.
            let order = (number < TIMELINES).then(|| world.order_of(&finding.subject)).flatten();
            let timeline = order.map(|order| timeline(world, &order)).unwrap_or_default();
            Told { finding, timeline }
        }));
    }
    report
}

fn missing_in_words(need: &str) -> String {
    match need {
        HISTORY => "no history was given: use --history".to_owned(),
        QUIET => "the mesh may be working: use --quiet when it is not".to_owned(),
        "provider" => "the provider's ledger was not read: use --psp".to_owned(),
        table => format!("no service exported `{table}`"),
    }
}

// === impl Finding ===

impl Finding {
    fn new(invariant: Invariant, subject: impl Into<String>, sentence: impl Into<String>) -> Self {
        Self { invariant, subject: subject.into(), sentence: sentence.into() }
    }

    fn of_order(invariant: Invariant, order: &str, sentence: impl Into<String>) -> Self {
        Self::new(invariant, format!("orders/{order}"), sentence)
    }
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}: {}", self.invariant, self.subject, self.sentence)
    }
}

// === impl Told ===

impl fmt::Display for Told {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{}", self.finding)?;
        for moment in &self.timeline {
            writeln!(f, "    {}  {:<13} {}", clock(moment.at), moment.who, moment.what)?;
        }
        Ok(())
    }
}

// === impl Report ===

impl Report {
    /// The report as one JSON object.
    #[must_use]
    pub fn json(&self) -> Value {
        let finding = |told: &Told| {
            let moment =
                |it: &Moment| json!({ "time": clock(it.at), "source": it.who, "what": it.what });
            json!({
                "invariant": told.finding.invariant.to_string(),
                "subject": told.finding.subject,
                "sentence": told.finding.sentence,
                "timeline": told.timeline.iter().map(moment).collect::<Vec<_>>(),
            })
        };
        let names = |of: &[Invariant]| of.iter().map(ToString::to_string).collect::<Vec<_>>();
        let skipped: serde_json::Map<String, Value> =
            self.skipped.iter().map(|(it, why)| (it.to_string(), why.clone().into())).collect();
        json!({
            "passed": self.passed.len(),
            "failed": self.failed.len(),
            "skipped": self.skipped.len(),
            "orders": self.orders.0,
            "orders_in_flight": self.orders.1,
            "invariants": {
                "passed": names(&self.passed),
                "failed": names(&self.failed),
                "skipped": skipped,
            },
            "findings": self.findings.iter().map(finding).collect::<Vec<_>>(),
        })
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for rule in &RULES {
            let skipped = self.skipped.iter().find(|(it, _)| *it == rule.invariant);
            let verdict = match skipped {
                Some((_, why)) => format!("skipped ({why})"),
                None if self.failed.contains(&rule.invariant) => "FAILED".to_owned(),
                None => "ok".to_owned(),
            };
            writeln!(f, "{:<4} {}: {verdict}", rule.invariant.to_string(), rule.claim)?;
        }
        let (orders, in_flight) = self.orders;
        writeln!(f, "{orders} orders, {in_flight} of them in flight")?;
        for told in &self.findings {
            write!(f, "\n{told}")?;
        }
        Ok(())
    }
}

// === impl Invariant ===

impl fmt::Display for Invariant {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::I1 => "I1",
            Self::I2 => "I2",
            Self::I3 => "I3",
            Self::I4 => "I4",
            Self::I5 => "I5",
            Self::I6 => "I6",
            Self::I8 => "I8",
            Self::I9 => "I9",
            Self::I10 => "I10",
            Self::I11 => "I11",
            Self::I13 => "I13",
            Self::I15 => "I15",
            Self::L1 => "L1",
            Self::L3 => "L3",
        })
    }
}

#[cfg(test)]
mod tests;
