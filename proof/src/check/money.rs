//! I3: the ledger sums to zero, and payments are what it says.

use std::collections::BTreeMap;

use super::{Finding, Invariant::I3};
use crate::world::{Posting, World};

/// What the ledger says of one payment, in minor units.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Books {
    /// Set aside, and neither taken nor given back.
    pub(super) held: i64,
    /// Taken.
    pub(super) captured: i64,
    /// Promised back of what was taken.
    pub(super) granted: i64,
    /// Given back of what was taken.
    pub(super) refunded: i64,
}

/// The books of every payment.
pub(super) fn books(world: &World) -> BTreeMap<&str, Books> {
    let mut books: BTreeMap<&str, Books> = BTreeMap::new();
    for it in &world.postings {
        books.entry(&it.payment).or_default().post(it);
    }
    books
}

pub(super) fn find(world: &World) -> Vec<Finding> {
    let mut findings = sums(world);
    let books = books(world);
    for it in &world.payments {
        let of = books.get(it.id.as_str()).copied().unwrap_or_default();
        let mut problems = Vec::new();
        if of.held < 0 {
            problems.push(format!("{} more was taken or released than authorized", -of.held));
        }
        if of.refunded > of.captured || it.refunded_minor > it.captured_minor {
            let refunded = of.refunded.max(it.refunded_minor);
            problems.push(format!("{refunded} was refunded of {} captured", of.captured));
        }
        if it.captured_minor > it.authorized_minor {
            let (captured, authorized) = (it.captured_minor, it.authorized_minor);
            problems.push(format!("{captured} was captured of {authorized} authorized"));
        }
        if problems.is_empty() && !of.is_told_by(it.authorized_minor, it.captured_minor) {
            problems.push(format!(
                "the row has {} authorized and {} captured, the ledger {} and {}",
                it.authorized_minor,
                it.captured_minor,
                of.held + of.captured,
                of.captured
            ));
        }
        if problems.is_empty() && ![of.refunded, of.granted].contains(&it.refunded_minor) {
            let (row, paid) = (it.refunded_minor, of.refunded);
            problems.push(format!("the row has {row} refunded, the ledger {paid}"));
        }
        let name = format!("payments/{}", it.id);
        findings.extend(problems.into_iter().map(|problem| Finding::new(I3, &name, problem)));
    }
    findings
}

/// Every movement of every attempt sums to zero in each currency.
fn sums(world: &World) -> Vec<Finding> {
    let mut sums: BTreeMap<(&str, &str, &str, &str), i128> = BTreeMap::new();
    for it in &world.postings {
        let key = (&*it.payment, &*it.reference, &*it.movement, &*it.currency);
        *sums.entry(key).or_default() += i128::from(it.amount_minor);
    }
    let unbalanced = sums.into_iter().filter(|(_, sum)| *sum != 0);
    unbalanced
        .map(|((payment, reference, movement, currency), sum)| {
            let sentence = format!("{movement} of {reference} sums to {sum} {currency}, not to 0");
            Finding::new(I3, format!("payments/{payment}"), sentence)
        })
        .collect()
}

// === impl Books ===

impl Books {
    fn post(&mut self, posting: &Posting) {
        let amount = posting.amount_minor;
        match (posting.movement.as_str(), posting.account.as_str()) {
            (_, "HOLD") => {
                self.held += amount;
                if posting.movement == "CAPTURED" {
                    self.captured -= amount;
                }
            }
            (movement, "RECEIVABLE") if movement.starts_with("REFUND") => self.granted -= amount,
            (movement, "CUSTOMER") if movement.starts_with("REFUND") => self.refunded += amount,
            _ => {}
        }
    }

    /// The column `authorized_minor` holds what is set aside or was taken.
    fn is_told_by(self, authorized: i64, captured: i64) -> bool {
        captured == self.captured && authorized - captured == self.held
    }

    /// What the merchant has in the end, once promises are kept.
    pub(super) fn net(self) -> i64 {
        self.captured - self.refunded.max(self.granted)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::world::sample;

    #[test]
    fn double_entry_that_the_rows_repeat_is_good() {
        for world in [sample::completed(), sample::cancelled(), sample::refunded()] {
            assert_eq!(find(&world), []);
        }
    }

    #[test]
    fn a_posting_without_its_other_side_is_found() {
        let mut world = sample::completed();
        world.postings.retain(|it| it.account != "FEES");
        assert_eq!(sample::subjects(&find(&world)), [sample::payment_name()]);
    }

    #[test]
    fn more_refunded_than_captured_is_found() {
        let mut world = sample::refunded();
        let again: Vec<Posting> = sample::refund_postings("pay/1/refund/2", 1_000);
        world.postings.extend(again);
        assert_eq!(sample::subjects(&find(&world)), [sample::payment_name()]);
    }

    #[test]
    fn a_row_that_the_ledger_does_not_give_is_found() {
        let mut world = sample::completed();
        world.payments[0].captured_minor -= 1;
        assert_eq!(sample::subjects(&find(&world)), [sample::payment_name()]);
    }

    #[test]
    fn more_taken_than_set_aside_is_found() {
        let mut world = sample::completed();
        world.postings.retain(|it| it.movement != "AUTHORIZED");
        assert_eq!(sample::subjects(&find(&world)), [sample::payment_name()]);
    }
}
